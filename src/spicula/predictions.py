"""Predictions: one Arrow table that reports, the exam pipeline and the service all speak.

Long, never wide: one row an image (or exam), side and target.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spicula import files
from spicula.errors import SpiculaError

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # image_id or exam_id
        pa.field("patient_id", pa.string()),
        pa.field("exam_id", pa.string()),
        pa.field("side", pa.string()),  # L or R
        pa.field("target", pa.string(), nullable=False),  # the class that the score is for ("malignant")
        pa.field("label", pa.int8()),  # 1: the class is there; 0: it is not; null: not known
        pa.field("score", pa.float64(), nullable=False),  # probability of the class, 0 to 1
        pa.field("split", pa.string()),  # train, val or test: where the model had this image
        pa.field("fold", pa.int16()),  # which of k models, where there are folds
        pa.field("model", pa.string(), nullable=False),  # its name in the recipe
        pa.field("model_digest", pa.string(), nullable=False),  # SHA-256 of a run's weights, or of a bundle
    ]
)


def from_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build a Predictions table from dictionaries, validated; a column that a row does not name is null."""
    return validate(pa.Table.from_pylist(list(rows), schema=SCHEMA))


def write(path: Path, table: pa.Table) -> None:
    """Validate Predictions and write them as Parquet, atomically."""
    files.write_table(path, validate(table))


def read(path: Path) -> pa.Table:
    """Read Predictions and validate them.

    Raises:
        SpiculaError: there is no such file, or it holds something else.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SpiculaError(f"{path} cannot be read as Predictions: {str(error).splitlines()[0]}") from error
    return validate(table)


def validate(table: pa.Table) -> pa.Table:
    """Return the table itself when it is a well-formed Predictions table.

    Raises:
        SpiculaError: columns differ from the schema, or a score is not a probability.
    """
    if not table.schema.equals(SCHEMA, check_metadata=False):
        raise SpiculaError(f"not Predictions: columns {table.schema.names}, expected {SCHEMA.names}")
    for field in SCHEMA:
        if not field.nullable and table[field.name].null_count:
            raise SpiculaError(f"not Predictions: {table[field.name].null_count} rows have no {field.name}")
    for row, score in enumerate(table["score"].to_pylist()):
        if not 0.0 <= score <= 1.0:
            raise SpiculaError(f"not Predictions: {table['id'][row].as_py()} has the score {score}, not within 0 to 1")
    return table
