"""The runs of a workspace and their configurations."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spicula.exams.ledger.history import until
from spicula.exams.ledger.storage import Table
from spicula.exams.steps import Step


@dataclass(frozen=True)
class Run:
    """A run of a workspace.

    Attributes:
        run: its id.
        began: when it began, UTC.
        ended: when it ended; None: it was killed, or is still going on.
        engine: its name.
        steps: its configuration.
        summary: what it did, as it noted itself when it ended.
    """

    run: str
    began: datetime
    ended: datetime | None
    engine: str
    steps: tuple[Step, ...]
    summary: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values, without the configuration."""
        return {name: value for name, value in vars(self).items() if name != "steps"}


def last_run(table: Table, time: datetime | None = None) -> Run | None:
    """Return the run that began last, until a time where one is given; None when there is none."""
    rows = until(table.read(table.schema.names), time).sort_by("commit").to_pylist()
    began = [row for row in rows if row["event"] == "began"]
    if not began:
        return None
    last = began[-1]
    ended = next((row for row in rows if row["event"] == "ended" and row["run"] == last["run"]), None)
    return Run(
        last["run"],
        last["time"],
        ended["time"] if ended else None,
        last["engine"],
        tuple(Step.from_json(values) for values in json.loads(last["configuration"])),
        json.loads(ended["summary"]) if ended else None,
    )
