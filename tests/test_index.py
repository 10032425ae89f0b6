"""The Index: one schema, validated on write and read."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula import index
from spicula.errors import SpiculaError, UsageError

texts = st.text(min_size=1, max_size=12)
finite = st.floats(-1e4, 1e4, allow_nan=False, width=32)
lesions = st.one_of(
    st.builds(
        lambda x, y, w, h: {"kind": "box", "coordinates": [x, y, x + w, y + h]},
        finite, finite, st.floats(1, 1e3, width=32), st.floats(1, 1e3, width=32),
    ),
    st.builds(lambda x, y, r: {"kind": "circle", "coordinates": [x, y, r]}, finite, finite, st.floats(1, 100)),
    st.builds(lambda p: {"kind": "polygon", "coordinates": p}, st.lists(finite, min_size=6, max_size=6)),
    st.builds(lambda p: {"kind": "mask", "coordinates": [], "mask_path": p}, texts),
    st.just({"kind": "unlocated", "coordinates": [], "pathology": "malignant"}),
)  # fmt: skip
rows = st.lists(
    st.fixed_dictionaries(
        {"dataset": texts, "image_id": texts, "path": st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}\.png", fullmatch=True)},
        optional={
            "patient_id": st.none() | texts,
            "laterality": st.sampled_from(["L", "R", None]),
            "target": st.sampled_from([0, 1, None]),
            "split": st.sampled_from([*index.SPLITS, None]),
            "fold": st.none() | st.integers(0, 9),
            "age": st.none() | st.floats(0, 110, width=32),
            "width": st.none() | st.integers(1, 16384),
            "lesions": st.lists(lesions, max_size=3),
            "sha256": st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        },
    ),
    max_size=6,
    unique_by=lambda row: row["image_id"],
)


@given(rows)
def test_round_trip_through_parquet_keeps_every_value(tmp_path_factory, given_rows):
    path = tmp_path_factory.mktemp("index") / "index.parquet"
    table = index.from_rows(given_rows, root=path.parent)
    index.write(path, table)
    again = index.read(path)
    assert again.equals(table)
    assert index.root_of(again) == path.parent
    assert index.digest(again) == index.digest(table.take(pa.array(range(len(table)), pa.int64())[::-1]))


def one(**values):
    return {"dataset": "d", "image_id": "i1", "path": "a.png", **values}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (one(laterality="LEFT"), r"image i1 has laterality 'LEFT', which is not one of"),
        (one(target=2), r"image i1 has target 2"),
        (one(split="dev"), r"image i1 has split 'dev'"),
        (one(path="/etc/passwd"), r"path '/etc/passwd', which is not a path below the root"),
        (one(path="a/../../b.png"), r"which is not a path below the root"),
        (one(sha256="abc"), r"64 hexadecimal digits"),
        (one(width=0), r"width 0"),
        (one(fold=-1), r"fold -1"),
        (one(flags=["blurred"]), r"image i1 has flags \['blurred'\], which is not made of"),
        (one(pixel_spacing_mm=0.0), r"pixel_spacing_mm 0.0"),
        (one(colour="red"), r"the Index has no column colour"),
        (one(target="one"), r"a value does not fit the Index"),
        (one(patient_id=None, dataset=None), r"1 rows have no dataset"),
        (one(lesions=[{"kind": "blob", "coordinates": []}]), r"of kind 'blob'"),
        (one(lesions=[{"kind": "box", "coordinates": [3, 0, 2, 1]}]), r"box \[3.0, 0.0, 2.0, 1.0\] is empty"),
        (one(lesions=[{"kind": "box", "coordinates": [1, 2, 3]}]), r"box with 3 coordinates, not 4"),
        (one(lesions=[{"kind": "circle", "coordinates": [1, 2, 0]}]), r"radius 0.0 is not above 0"),
        (one(lesions=[{"kind": "circle", "coordinates": [1, math.inf, 1]}]), r"not all finite"),
        (one(lesions=[{"kind": "polygon", "coordinates": [1, 2, 3, 4]}]), r"under three points"),
        (one(lesions=[{"kind": "mask", "coordinates": []}]), r"without a mask_path"),
    ],
)
def test_a_bad_value_is_named_with_its_image(row, message):
    with pytest.raises(SpiculaError, match=message):
        index.from_rows([row], root=Path())


def test_image_ids_are_unique():
    with pytest.raises(SpiculaError, match="two rows have the image_id i1"):
        index.from_rows([one(), one(path="b.png")], root=Path())


def test_what_is_not_an_index_is_refused_on_reading_and_writing(tmp_path):
    with pytest.raises(UsageError, match=r"no Index at .*none\.parquet; make one with: spicula index"):
        index.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(SpiculaError, match="not a Parquet file"):
        index.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(SpiculaError, match="a Parquet file but not an Index"):
        index.read(tmp_path / "other.parquet")
    with pytest.raises(SpiculaError, match="missing dataset"):
        index.write(tmp_path / "b.parquet", index.with_root(pa.table({"a": [1]}), tmp_path))
    assert not (tmp_path / "b.parquet").exists()


def test_a_moved_data_folder_is_named_on_reading(tmp_path):
    path = tmp_path / "index.parquet"
    index.write(path, index.from_rows([one(path="sub/a.png")], root=tmp_path / "old"))
    assert index.image_paths(index.read(path, root=tmp_path / "new")) == [tmp_path / "new" / "sub" / "a.png"]
