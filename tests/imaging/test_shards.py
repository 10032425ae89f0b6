import os
import time

import numpy as np
import pytest

from spicula.imaging import shards
from spicula.imaging.preprocess import Preprocess

SETTINGS = Preprocess(size=(8, 9), channels=1)


def prepared(value):
    return SETTINGS.apply(np.full((20, 30), value, np.uint8))


def test_what_is_written_is_found(tmp_path):
    shards.write_shard(tmp_path, ["a", "b"], [prepared(1), prepared(2)])
    shards.write_shard(tmp_path, ["c"], [prepared(3)])
    places, table = shards.scan(tmp_path, SETTINGS)
    assert set(places) == {"a", "b", "c"}
    assert table["key"].to_pylist() == list(places)
    for key, value in (("a", 1), ("b", 2), ("c", 3)):
        images = shards.open_shard(places[key].shard)
        assert images.shape[1:] == (8, 9, 1)
        assert (images[places[key].position] == value).all()
    assert set(table["source_width"].to_pylist()) == {30}


def test_a_mapped_shard_cannot_be_written_to(tmp_path):
    shards.write_shard(tmp_path, ["a"], [prepared(1)])
    images = shards.open_shard(shards.scan(tmp_path, SETTINGS)[0]["a"].shard)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_an_array_without_its_table_is_not_there_yet(tmp_path):
    shards.write_shard(tmp_path, ["a"], [prepared(1)])
    next(tmp_path.glob("*.parquet")).unlink()
    assert shards.scan(tmp_path, SETTINGS)[0] == {}


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_damaged_shard_is_passed_over(tmp_path, suffix):
    shards.write_shard(tmp_path, ["a"], [prepared(1)])
    shards.write_shard(tmp_path, ["b"], [prepared(2)])
    damaged = shards.scan(tmp_path, SETTINGS)[0]["a"].shard.with_suffix(suffix)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    assert set(shards.scan(tmp_path, SETTINGS)[0]) == {"b"}


def test_an_image_that_two_builds_made_counts_once(tmp_path):
    shards.write_shard(tmp_path, ["a", "b"], [prepared(1), prepared(2)])
    shards.write_shard(tmp_path, ["b", "c"], [prepared(2), prepared(3)])
    places, table = shards.scan(tmp_path, SETTINGS)
    assert sorted(table["key"].to_pylist()) == ["a", "b", "c"]
    for key, value in (("a", 1), ("b", 2), ("c", 3)):
        assert (shards.open_shard(places[key].shard)[places[key].position] == value).all()


def test_the_laterality_is_part_of_the_key_where_it_can_matter():
    plain, oriented = Preprocess(), Preprocess(orient=True)
    assert shards.key_of("0", 0, "L", plain) == shards.key_of("0", 0, "R", plain)
    assert shards.key_of("0", 0, "L", oriented) != shards.key_of("0", 0, "R", oriented)
    assert shards.key_of("0", 0, None, plain) != shards.key_of("0", 1, None, plain)
    assert shards.key_of("0", 0, None, plain) != shards.key_of("1", 0, None, plain)


def test_only_old_leftovers_are_removed(tmp_path):
    shards.write_shard(tmp_path, ["a"], [prepared(1)])
    kept = set(tmp_path.iterdir())
    for name in (".part-1.npy", ".part-2.npy", "lonely.npy", "young.npy"):
        (tmp_path / name).touch()
    long_ago = time.time() - shards.LEFTOVER_SECONDS - 10
    for path in (*kept, tmp_path / ".part-1.npy", tmp_path / "lonely.npy"):
        os.utime(path, (long_ago, long_ago))
    shards.remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / ".part-2.npy", tmp_path / "young.npy"}
