"""What the bundles of past runs called themselves: name and version, beside the digests that the ledger goes by."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from spicula.exams.ledger import Ledger

#: (run, step) -> `Step.about` of that run.
Abouts = Mapping[tuple[str, str], Mapping[str, Any]]


def abouts_of(ledger: Ledger, runs: Iterable[str]) -> Abouts:
    """Return what was said of the models of every step in some runs; nothing of a step without a model."""
    wanted = set(runs)
    began = [row for row in ledger.read("runs").to_pylist() if row["event"] == "began" and row["run"] in wanted]
    found = {}
    for row in began:
        for step in json.loads(row["configuration"]):
            if step["about"]:
                found[row["run"], step["name"]] = step["about"]
    return found


def history_of(ledger: Ledger, exam_id: str) -> list[dict[str, Any]]:
    """Return all that happened to an exam, see `Ledger.history`.

    Results of steps with a model have, besides, `about`: what its bundle said of it, see `Step.about`.

    Raises:
        UsageError: the ledger has no such exam.
    """
    rows = ledger.history(exam_id)
    abouts = abouts_of(ledger, (row["run"] for row in rows))
    for row in rows:
        about = abouts.get((row["run"], row.get("step", "")))
        if about is not None:
            row["about"] = dict(about)
    return rows


def called(about: Mapping[str, Any]) -> str:
    """Return name and version of a bundle, of which either may not be known, in words; "" when neither is."""
    return " ".join(str(about[key]) for key in ("name", "version") if about.get(key))
