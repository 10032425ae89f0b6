"""Parquet shards: Hugging Face `datasets` opens the folder, offline, and shows the column as images."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_tools import contents, decoded, make_sample, needs, pack, rows_of, tell

from spicula.convert import parquet
from spicula.index import SCHEMA

READ = """
import datasets
folder = sys.argv[1]
opened = datasets.load_dataset(folder)
same = datasets.load_dataset("parquet", data_dir=folder)
assert {name: part.num_rows for name, part in opened.items()} == {name: part.num_rows for name, part in same.items()}
features = opened["train"].features
assert isinstance(features["image"], datasets.Image), features
assert isinstance(features["masks"].feature, datasets.Image), features
for split, part in opened.items():
    for row in part:
        row["image"] = digest_of(row["image"])
        row["masks"] = [digest_of(mask) for mask in row["masks"]]
        tell([split, row])
tell(datasets.load_dataset(folder, split="all").num_rows)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 12])
def test_datasets_opens_the_folder(tmp_path, bits):
    needs("datasets")
    splits = ["train", "val", "test", None]
    samples = [make_sample(number, bits=bits, split=splits[number % 4], masks=number % 3) for number in range(24)]
    pack(tmp_path / "out", "parquet", samples, limit=2**16 + 20_000)
    *told, count = tell(READ, tmp_path / "out", cwd=tmp_path)
    assert count == 24
    rows = rows_of(samples, tmp_path)
    by_id = {sample.row["image_id"]: sample for sample in samples}
    assert sorted(row["image_id"] for _, row in told) == sorted(rows)
    for split, found in told:
        sample = by_id[found["image_id"]]
        assert split == (found["split"] or "unsplit")
        assert found.pop("image") == decoded(sample.image)
        assert found.pop("masks") == [decoded(mask) for mask in sample.masks.values()]
        assert found == rows[found["image_id"]]
    assert len(list((tmp_path / "out" / "data").glob("train-*-of-*.parquet"))) > 1


def test_anybody_reads_files_and_columns(tmp_path):
    samples = [make_sample(number, masks=number % 3) for number in range(7)]
    pack(tmp_path, "parquet", samples)
    table = pq.read_table(tmp_path / "data" / "unsplit-00000-of-00001.parquet")
    assert table.select(SCHEMA.names).schema.equals(SCHEMA)
    assert table.select(SCHEMA.names).to_pylist() == list(rows_of(samples, tmp_path).values())
    assert table["image"].to_pylist() == [{"bytes": one.image, "path": one.row["path"]} for one in samples]
    masks = [[{"bytes": data, "path": path} for path, data in one.masks.items()] for one in samples]
    assert table["masks"].to_pylist() == masks


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", 6000)
    samples = [make_sample(number) for number in range(20)]
    pack(tmp_path, "parquet", samples)
    metadata = pq.read_metadata(tmp_path / "data" / "unsplit-00000-of-00001.parquet")
    sizes = [len(sample.image) for sample in samples]
    assert metadata.num_row_groups > 5
    at = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        assert sum(sizes[at : at + rows]) <= 6000 or rows == 1
        at += rows
    assert at == 20


def test_images_are_not_compressed_twice_and_other_columns_are(tmp_path):
    pack(tmp_path, "parquet", [make_sample(1, masks=1)])
    group = pq.read_metadata(tmp_path / "data" / "unsplit-00000-of-00001.parquet").row_group(0)
    columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    plain = {path for path, column in columns.items() if column.compression == "UNCOMPRESSED"}
    assert plain == {"image.bytes", "masks.list.element.bytes"}
    assert not any(columns[path].is_stats_set for path in plain)


def test_bytes_depend_on_the_images_alone(tmp_path):
    samples = [make_sample(number, masks=number % 2) for number in range(9)]
    for folder, batch in (("a", 1), ("b", 4)):
        pack(tmp_path / folder, "parquet", samples, batch=batch)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert isinstance(parquet.SCHEMA.field("image").type, pa.StructType)
