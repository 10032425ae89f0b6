"""WebDataset shards: the real library reads them, and their bytes depend on nothing but the images."""

import json
import tarfile

import pytest
from shard_tools import contents, decoded, make_sample, needs, pack, rows_of, tell

from spicula.convert.formats import key_of

READ = """
import cv2, webdataset as wds
def pixels(data):
    return digest_of(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
for sample in wds.WebDataset(sys.argv[1:], shardshuffle=False).decode():
    files = {name: pixels(value) for name, value in sample.items() if name.endswith("png")}
    tell([sample["__key__"], sample["json"], sample["cls"], files])
"""


@pytest.mark.slow
def test_webdataset_reads_the_shards(tmp_path):
    needs("webdataset")
    splits = ["train", "val", None]
    samples = [make_sample(number, split=splits[number % 3], masks=number % 3) for number in range(20)]
    pack(tmp_path / "out", "webdataset", samples, limit=2**16 + 30_000)
    rows = rows_of(samples, tmp_path)
    by_id = {sample.row["image_id"]: sample for sample in samples}
    seen = []
    for split in ("train", "val", "unsplit"):
        shards = sorted((tmp_path / "out").glob(f"made_up-{split}-*.tar"))
        assert [path.name for path in shards] == [f"made_up-{split}-{n:06}.tar" for n in range(len(shards))]
        assert len(shards) > 1
        for key, row, target, files in tell(READ, *shards, cwd=tmp_path):
            sample = by_id[row["image_id"]]
            assert row == rows[row["image_id"]]
            assert (row["split"] or "unsplit") == split
            assert key == key_of(row["image_id"])
            assert target == (-1 if row["target"] is None else row["target"])
            masks = {f"mask{number}.png": decoded(mask) for number, mask in enumerate(sample.masks.values())}
            assert files == {"png": decoded(sample.image)} | masks
            assert list(sample.masks) == [one["mask_path"] for one in row["lesions"] if one["mask_path"]]
            seen.append(row["image_id"])
    assert sorted(seen) == sorted(rows)


def test_bytes_depend_on_the_images_alone(tmp_path):
    samples = [make_sample(number, masks=number % 2) for number in range(9)]
    for folder, batch in (("a", 1), ("b", 4)):
        pack(tmp_path / folder, "webdataset", samples, batch=batch)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with tarfile.open(tmp_path / "a" / "made_up-unsplit-000000.tar") as tar:
        members = tar.getmembers()
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert all(one.isreg() for one in members)


def test_the_row_is_in_the_tar(tmp_path):
    sample = make_sample(1)
    pack(tmp_path, "webdataset", [sample])
    with tarfile.open(tmp_path / "made_up-unsplit-000000.tar") as tar:
        row = json.load(tar.extractfile(f"{key_of(sample.row['image_id'])}.json"))
    assert row == rows_of([sample], tmp_path)[sample.row["image_id"]]


@pytest.mark.parametrize("image_id", ["plain-1_a", "a.b", "a/b", "../../etc/passwd", "", "ü" * 300, "x" * 81])
def test_keys_are_safe_and_differ(image_id):
    key = key_of(image_id)
    assert key.isascii()
    assert 0 < len(key) <= 80
    assert set(".,/\\ ").isdisjoint(key)
    assert (key == image_id) == (image_id == "plain-1_a")
    assert key != key_of(image_id + ".")
