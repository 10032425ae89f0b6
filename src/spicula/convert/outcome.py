"""What a conversion ends with: the tables in the output folder, and what is told of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula import files, index
from spicula.convert.image import output_row
from spicula.convert.plan import Planned
from spicula.convert.records import Record
from spicula.convert.sample import RECORD
from spicula.convert.settings import Settings
from spicula.imaging.shards import GEOMETRY_FIELDS
from spicula.index import REJECTED

CONVERSION_TABLE, REJECTED_TABLE = "conversion.parquet", "rejected.parquet"

#: Where every image comes from, and how its pixels went: `conversion.parquet`.
CONVERSION = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # of the new Index
        pa.field("source", pa.string()),  # relative to the root of the source Index; null where names are pseudonyms
        pa.field("source_frame", pa.int32(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
        *(RECORD.field(name) for name in ("path", "bytes", "sha256")),
        *GEOMETRY_FIELDS,
        pa.field("settings", pa.string(), nullable=False),  # digest; what they are stands in conversion.json
    ]
)


@dataclass(frozen=True)
class Outcome:
    """What a conversion made.

    Attributes:
        folder: where.
        index: the new Index; images that could not be converted are not in it. In order of the source's.
        rejected: what could not be used, and why (`spicula.index.REJECTED`): images, and masks of images.
        made: images converted by this run. The others were there.
        has_files: whether each image has a file of its own, so that the new Index is in the folder.
    """

    folder: Path
    index: pa.Table
    rejected: pa.Table
    made: int
    has_files: bool

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "folder": str(self.folder),
            "index": str(self.folder / "index.parquet") if self.has_files else None,
            "index_digest": index.digest(self.index),
            "images": len(self.index),
            "converted_now": self.made,
            "rejected": len(self.rejected),
            "rejected_table": str(self.folder / REJECTED_TABLE),
        }

    def as_text(self) -> str:
        """Return one line."""
        return (
            f"{self.folder}: {len(self.index)} images, {self.made} of them converted now; {len(self.rejected)} rejected"
        )


def new_index(planned: Sequence[Planned], found: Mapping[str, Record], to: Path, settings: Settings) -> pa.Table:
    """Return the new Index: the rows whose images were converted, in the order of the source's."""
    tasks = [one.task for one in planned if not isinstance(one.task, str)]
    rows = [output_row(task.row, found[task.key], settings) for task in tasks if task.key in found]
    return index.from_rows(rows, to)


def conversion_table(planned: Sequence[Planned], found: Mapping[str, Record], settings: Settings) -> pa.Table:
    """Return `CONVERSION`, one row an image of the new Index."""
    rows = []
    for one in planned:
        if isinstance(one.task, str) or one.task.key not in found:
            continue
        own = {
            "image_id": one.task.row["image_id"],
            "source": None if settings.deidentify else one.shown,
            "source_frame": one.task.frame,
            "source_sha256": one.task.sha256,
            "settings": settings.digest(),
        }
        rows.append({**found[one.task.key], **own})
    return pa.Table.from_pylist(rows, schema=CONVERSION)


def rejected_table(
    planned: Sequence[Planned], found: Mapping[str, Record], reasons: Mapping[str, str | None]
) -> pa.Table:
    """Return what could not be used: images without a record, and masks that their record calls unusable."""
    rows: list[dict[str, str]] = []
    for one in planned:
        if isinstance(one.task, str):
            rows.append({"path": one.shown, "reason": one.task})
        elif one.task.key not in found:
            reason = reasons.get(one.task.key) or "its converted file disappeared while others were made"
            rows.append({"path": one.shown, "reason": reason})
        else:
            lost = [mask for mask in found[one.task.key]["masks"] if mask["reason"]]
            rows += [{"path": mask["path"], "reason": f"mask of {one.shown}: {mask['reason']}"} for mask in lost]
    return pa.Table.from_pylist(rows, schema=REJECTED)


def write_tables(to: Path, conversion: pa.Table, rejected: pa.Table) -> None:
    """Write the tables that every format has."""
    files.write_table(to / CONVERSION_TABLE, conversion)
    files.write_table(to / REJECTED_TABLE, rejected)
