"""Shards as TensorFlow Datasets opens them: TFRecord files of `tf.train.Example`, and two JSON files beside them.

`tfds.builder_from_directory` needs no code of the data set: `features.json` says what an Example holds, and
`dataset_info.json` which files there are. Written here by hand; the tests open them with the real library.
Source: tensorflow.org/datasets/external_tfrecord, and feature.proto and dataset_info.proto of tensorflow_datasets.

An Example has no null. Here a text that is null is empty, a whole number -1, a float NaN.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from spicula import RESEARCH_NOTICE, files
from spicula.convert import tf_wire
from spicula.convert.boxes import box_of
from spicula.convert.formats import Collection
from spicula.convert.sample import Sample
from spicula.convert.tf_wire import Feature
from spicula.index import SCHEMA

#: Version of the data set's structure, as TensorFlow Datasets wants one.
VERSION = "1.0.0"

#: What is said of a lesion besides its box.
_LESION_TEXTS = ("kind", "finding", "pathology", "birads")

_FEATURES = "tensorflow_datasets.core.features."


def place(name: str, split: str, number: int, count: int) -> str:
    """Return where a shard belongs, relative to the output folder; see `spicula.convert.formats.Format`."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def write(stream: BinaryIO, samples: Iterable[Sample]) -> Iterator[list[int]]:
    """Write TFRecords; see `spicula.convert.formats.Format`."""
    for sample in samples:
        data = tf_wire.example(_example(sample))
        begin = stream.tell() + tf_wire.HEAD_BYTES
        stream.write(tf_wire.record(data))
        yield [begin + data.index(png) for png in (sample.image, *sample.masks.values())]


def finish(folder: Path, collection: Collection) -> None:
    """Write `features.json` and `dataset_info.json`; see `spicula.convert.formats.Format`."""
    files.write_json(folder / "features.json", _features_dict(_features(collection)))
    files.write_json(folder / "dataset_info.json", _dataset_info(collection))


def _example(sample: Sample) -> dict[str, tuple[str, Feature]]:
    row = sample.row
    found: dict[str, tuple[str, Feature]] = {
        "image": ("bytes", [sample.image]),
        "masks": ("bytes", list(sample.masks.values())),
        "flags": ("bytes", [flag.encode() for flag in row["flags"]]),
        "lesions": ("bytes", [json.dumps(row["lesions"], ensure_ascii=False, allow_nan=False).encode()]),
    }
    for column in SCHEMA:
        value = row[column.name]
        if pa.types.is_string(column.type):
            found[column.name] = ("bytes", [(value or "").encode()])
        elif pa.types.is_integer(column.type):
            found[column.name] = ("int64", [-1 if value is None else value])
        elif pa.types.is_floating(column.type):
            found[column.name] = ("float", [float("nan") if value is None else value])
    located = [(lesion, box) for lesion in row["lesions"] if (box := box_of(lesion, row["width"], row["height"]))]
    found["objects/bbox"] = ("float", [side for _, box in located for side in box])
    for name in _LESION_TEXTS:
        found[f"objects/{name}"] = ("bytes", [(lesion[name] or "").encode() for lesion, _ in located])
    return found


def _features(collection: Collection) -> dict[str, Any]:
    depth = "uint8" if collection.bits == 8 else "uint16"
    found = {
        "image": _image(depth, collection.channels),
        "flags": _sequence(_text()),
        "lesions": _text("all lesions, as JSON"),
        "objects": _sequence(_features_dict({"bbox": _box(), **{name: _text() for name in _LESION_TEXTS}})),
    }
    if collection.has_masks:
        found["masks"] = _sequence(_image("uint8", 1))
    for column in SCHEMA:
        if pa.types.is_string(column.type):
            found[column.name] = _text()
        elif pa.types.is_integer(column.type):
            found[column.name] = _scalar("int64")
        elif pa.types.is_floating(column.type):
            found[column.name] = _scalar("float32")
    return found


def _dataset_info(collection: Collection) -> dict[str, Any]:
    return {
        "name": collection.name,
        "version": VERSION,
        "description": f"Breast images converted by Spicula. {RESEARCH_NOTICE}",
        "fileFormat": "tfrecord",
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "target"}]}},
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(shard.images) for shard in shards],  # int64 is text in JSON of protocol buffers
                "numBytes": str(sum(shard.nbytes for shard in shards)),
            }
            for split, shards in collection.splits.items()
        ],
    }


def _features_dict(features: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": f"{_FEATURES}features_dict.FeaturesDict", "featuresDict": {"features": features}}


def _sequence(feature: dict[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{_FEATURES}sequence_feature.Sequence",
        "sequence": {"feature": feature, "length": "-1"},
    }


def _image(dtype: str, channels: int) -> dict[str, Any]:
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    return {
        "pythonClassName": f"{_FEATURES}image_feature.Image",
        "image": {"dtype": dtype, "encodingFormat": "png", "shape": shape},
    }


def _text(description: str = "") -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {**described, "pythonClassName": f"{_FEATURES}text_feature.Text", "text": {}}


def _scalar(dtype: str) -> dict[str, Any]:
    tensor = {"dtype": dtype, "encoding": "none", "shape": {}}
    return {"pythonClassName": f"{_FEATURES}scalar.Scalar", "tensor": tensor}


def _box() -> dict[str, Any]:
    box = {"dtype": "float32", "bboxFormat": "REL_YXYX", "shape": {"dimensions": ["4"]}}
    return {"pythonClassName": f"{_FEATURES}bounding_boxes.BBoxFeature", "boundingBox": box}
