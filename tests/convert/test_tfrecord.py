"""TFRecord shards: TensorFlow parses what we serialise, and TensorFlow Datasets opens the folder."""

import base64
import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_tools import decoded, make_sample, needs, pack, rows_of, tell

from spicula.convert import tf_wire
from spicula.convert.boxes import box_of
from spicula.index import SCHEMA

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
FEATURE = st.one_of(
    st.tuples(st.just("bytes"), st.lists(st.binary(max_size=300), max_size=4)),
    st.tuples(st.just("int64"), st.lists(INT64, max_size=40)),
    st.tuples(st.just("float"), st.lists(FLOAT32, max_size=40)),
)
EXAMPLE = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=140), FEATURE, max_size=6)


def test_checksums_are_those_of_the_standard():
    # RFC 3720 B.4: CRC-32C of 32 bytes of 0 and of 32 bytes of FF; the mask is undone here
    for data, crc in ((b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        rotated = (tf_wire.masked_crc32c(data) - 0xA282EAD8) & 0xFFFFFFFF
        assert ((rotated << 15) | (rotated >> 17)) & 0xFFFFFFFF == crc


def test_the_order_of_features_does_not_matter():
    features = {"b": ("int64", [1]), "a": ("bytes", [b"x"])}
    assert tf_wire.example(features) == tf_wire.example(dict(reversed(features.items())))


@pytest.mark.slow
def test_tensorflow_parses_what_we_serialise(tmp_path):
    needs("tensorflow")
    cases: list[dict] = []

    @given(EXAMPLE)
    @settings(max_examples=300, database=None)
    def collect(features):
        cases.append(features)

    collect()
    cases.append({"long": ("bytes", [b"\x80" * 70_000]), "empty": ("int64", [])})
    (tmp_path / "all.tfrecord").write_bytes(b"".join(tf_wire.record(tf_wire.example(case)) for case in cases))
    told = tell(
        """
import base64, struct
import tensorflow as tf
for record in tf.data.TFRecordDataset(sys.argv[1]):
    example = tf.train.Example.FromString(record.numpy())
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value
        if kind == "bytes_list":
            values = [base64.b64encode(value).decode() for value in values]
        if kind == "float_list":
            values = [struct.pack("<f", value).hex() for value in values]
        found[name] = [kind.removesuffix("_list"), list(values)]
    tell(found)
""",
        tmp_path / "all.tfrecord",
        cwd=tmp_path,
    )
    change = {
        "bytes": lambda value: base64.b64encode(value).decode(),
        "float": lambda value: struct.pack("<f", value).hex(),
        "int64": int,
    }
    expected = [
        {name: [kind, [change[kind](value) for value in values]] for name, (kind, values) in case.items()}
        for case in cases
    ]
    assert told == expected


READ = """
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
for split in builder.info.splits:
    for example in tfds.as_numpy(builder.as_dataset(split=split)):
        row = {"in": split, "image": digest_of(example.pop("image"))}
        row["masks"] = [digest_of(mask) for mask in example.pop("masks", [])]
        row["objects"] = {name: value.tolist() for name, value in example.pop("objects").items() if name == "bbox"}
        for name, value in example.items():
            if isinstance(value, bytes):
                row[name] = value.decode()
            elif getattr(value, "dtype", None) == object:
                row[name] = [one.decode() for one in value]
            else:
                row[name] = None if value != value else value.item()
        tell(row)
tell([np.dtype(builder.info.features["image"].np_dtype).name, builder.info.name,
      sum(1 for _ in builder.as_dataset(split="all")),
      sorted(int(target) for _, target in tfds.as_numpy(builder.as_dataset(split="train", as_supervised=True)))])
"""


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 12])
def test_tensorflow_datasets_opens_the_folder(tmp_path, bits):
    needs("tensorflow_datasets")
    splits = ["train", "train", "val", "test", None]
    samples = [
        make_sample(number, bits=bits, split=splits[number % 5], masks=number % 3, shape=(20 + number, 30))
        for number in range(25)
    ]
    pack(tmp_path / "out", "tfrecord", samples, limit=2**16 + 12_000)
    *told, summary = tell(READ, tmp_path / "out", cwd=tmp_path)
    rows = rows_of(samples, tmp_path)
    assert sorted(row["image_id"] for row in told) == sorted(rows)
    by_id = {sample.row["image_id"]: sample for sample in samples}
    for found in told:
        sample, row = by_id[found["image_id"]], rows[found["image_id"]]
        assert found["in"] == (row["split"] or "unsplit")
        assert found["image"] == decoded(sample.image)
        assert found["masks"] == [decoded(mask) for mask in sample.masks.values()]
        assert json.loads(found["lesions"]) == row["lesions"]
        boxes = [box for lesion in row["lesions"] if (box := box_of(lesion, row["width"], row["height"]))]
        np.testing.assert_allclose(np.reshape(found["objects"]["bbox"], (-1, 4)), np.reshape(boxes, (-1, 4)), rtol=1e-6)
        for column in SCHEMA:
            if column.name != "lesions":
                assert found[column.name] == _without_null(column, row[column.name])
    train = [row for row in rows.values() if row["split"] == "train"]
    targets = sorted(-1 if row["target"] is None else row["target"] for row in train)
    dtype = "uint8" if bits == 8 else "uint16"
    assert summary == [dtype, "made_up", 25, targets]
    names = {path.name for path in (tmp_path / "out").glob("*.tfrecord*")}
    assert len(names) > 5
    count = sum(name.startswith("made_up-train") for name in names)
    assert f"made_up-train.tfrecord-00000-of-{count:05}" in names


def _without_null(column: pa.Field, value: object) -> object:
    """What the page says of values that are null."""
    if value is None:
        return "" if pa.types.is_string(column.type) else -1 if pa.types.is_integer(column.type) else None
    return value


@pytest.mark.parametrize(
    ("lesion", "expected"),
    [
        (("box", [10, 20, 30, 40]), (0.1, 0.1, 0.2, 0.3)),
        (("box", [-10, -20, 30, 40]), (0.0, 0.0, 0.2, 0.3)),
        (("circle", [50, 100, 10]), (0.45, 0.4, 0.55, 0.6)),
        (("polygon", [10, 20, 30, 20, 20, 60]), (0.1, 0.1, 0.3, 0.3)),
        (("box", [110, 20, 130, 40]), None),
        (("mask", []), None),
        (("unlocated", []), None),
    ],
)
def test_boxes_are_relative_and_within_the_image(lesion, expected):
    box = box_of({"kind": lesion[0], "coordinates": lesion[1]}, width=100, height=200)
    assert box == (expected if expected is None else pytest.approx(expected))
