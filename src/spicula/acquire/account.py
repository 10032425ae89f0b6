"""How every item of a download ended."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from spicula import files
from spicula.progress import show_bytes

#: The account's table, in the target.
TABLE = "download.csv"

_MOST_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """How one item ended.

    Attributes:
        key: of the item: a series instance UID, a file's name.
        place: where it is, relative to the target; empty where it failed.
        status: complete; skipped: it was whole already; failed.
        bytes: the size of its files.
        reason: why it failed.
        checks: what was checked when it came.
        source: where it came from; empty where it failed.
    """

    key: str
    place: str
    status: Literal["complete", "skipped", "failed"]
    bytes: int = 0
    reason: str = ""
    checks: str = ""
    source: Literal["upstream", "mirror", ""] = ""


@dataclass(frozen=True)
class Account:
    """How a download ended.

    Attributes:
        to: the target.
        rows: one an item, in the order of the request.
        note: terms of use and other things to know, in lines.
    """

    to: Path
    rows: Sequence[Row]
    note: str = ""

    @property
    def failed(self) -> list[Row]:
        """The items that are not there."""
        return self._with("failed")

    def as_json(self) -> dict[str, Any]:
        """Return the account as JSON-able data, with a row for every failed item; the table has all."""
        complete, skipped = self._with("complete"), self._with("skipped")
        return {
            "to": str(self.to),
            "complete": len(complete),
            "complete_bytes": sum(row.bytes for row in complete),
            "from_mirror": sum(row.source == "mirror" for row in complete),
            "skipped": len(skipped),
            "skipped_bytes": sum(row.bytes for row in skipped),
            "failed": [{"key": row.key, "reason": row.reason} for row in self.failed],
            "table": str(self.to / TABLE),
            "note": self.note,
        }

    def as_text(self) -> str:
        """Return the account in lines to read; the last one counts."""
        lines = [f"failed {row.key}: {row.reason}" for row in self.failed[:_MOST_SHOWN]]
        if len(self.failed) > _MOST_SHOWN:
            lines.append(f"and {len(self.failed) - _MOST_SHOWN} more, in {self.to / TABLE}")
        complete, skipped = self._with("complete"), self._with("skipped")
        from_mirror = sum(row.source == "mirror" for row in complete)
        counts = [
            f"{len(complete)} complete ({show_bytes(sum(row.bytes for row in complete))}"
            + (f", {from_mirror} of them from the mirror)" if from_mirror else ")"),
            f"{len(skipped)} skipped as already whole ({show_bytes(sum(row.bytes for row in skipped))})",
            f"{len(self.failed)} failed" + ("; the same command tries those again" if self.failed else ""),
        ]
        return "\n".join([*lines, f"{self.to}: {', '.join(counts)}"])

    def write(self) -> None:
        """Write the table into the target, atomically."""
        text = io.StringIO()
        table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(row) for row in self.rows)
        files.write_text(self.to / TABLE, text.getvalue())

    def _with(self, status: str) -> list[Row]:
        return [row for row in self.rows if row.status == status]
