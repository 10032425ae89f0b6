"""What several commands share: options, and how results are printed."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

Handler = Callable[[argparse.Namespace], int]


class Command(NamedTuple):
    """One command: its name, what `--help` says, a function that adds its options, and one that runs it."""

    name: str
    summary: str
    describe: Callable[[argparse.ArgumentParser], None]
    handler: Handler


def json_option(command: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    command.add_argument("--json", action="store_true", help="machine-readable result on stdout")


def positive(text: str) -> int:
    """Return a whole number of at least 1, as the type of an option."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def print_json(value: Any) -> int:
    """Print a result as JSON, and return exit status 0."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    return 0


def print_line(line: str) -> int:
    """Print a result, and return exit status 0."""
    print(line)
    return 0


def print_outcome(outcome: Any, as_json: bool) -> int:
    """Print a study's outcome, and return exit status 0."""
    from spicula.study import summary

    return print_json(summary.as_json(outcome)) if as_json else print_line(summary.text(outcome))


def list_rejected(rejected: Any, most: int = 20) -> None:
    """Name rejected files on stderr; the table has them all."""
    for row in rejected.slice(0, most).to_pylist():
        line = f"rejected {row['path']}: {row['reason']}"
        print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in line), file=sys.stderr)
    if len(rejected) > most:
        print(f"and {len(rejected) - most} more, in the rejected table", file=sys.stderr)
