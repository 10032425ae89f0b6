"""Options and values that several of the commands below `exams` share."""

import argparse
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def workspace(command: argparse.ArgumentParser) -> None:
    """Add `--workspace`."""
    command.add_argument(
        "--workspace",
        metavar="WS",
        required=True,
        help="where results and their ledger are kept: a folder, s3://... or gs://...",
    )


def exam(command: argparse.ArgumentParser) -> None:
    """Add the exam."""
    command.add_argument("exam", metavar="EXAM", help="its id, as `exams status` and predictions name it")


def as_of(command: argparse.ArgumentParser) -> None:
    """Add `--as-of`."""
    command.add_argument(
        "--as-of", metavar="TIME", type=_time, help="as it was then: 2026-11-21T14:30 (UTC unless it says else)"
    )


def folder(text: str) -> Path:
    """Return a folder, as the type of an option that takes no address."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is an address, and a folder is needed; mount it, or copy it")
    return Path(text)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):  # a zone can carry the first and the last day beyond the calendar
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-21T14:30") from None


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return value


def detail(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the ledger and the artefacts of a workspace, and the exam in full."""
    from spicula.exams.artefacts import Artefacts
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs.detail import detail_of

    ledger = Ledger.open(options.workspace)
    artefacts = Artefacts(f"{ledger.place}/artefacts")
    time = getattr(options, "as_of", None)
    return ledger, artefacts, detail_of(ledger, artefacts, options.exam, time)
