"""The commands that say what a workspace knows: status, show, history, diff, report."""

import argparse
from pathlib import Path

from spicula.cli.exams import options as options_
from spicula.cli.tools import Command, json_option, print_json, print_line

# what the ledger knows


def _describe_status(command: argparse.ArgumentParser) -> None:
    options_.workspace(command)
    json_option(command)


def _status(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import text

    ledger = Ledger.open(options.workspace)
    found = ledger.status()
    return print_json(text.plain(found)) if options.json else print_line(text.status(found, ledger.problems()))


def _describe_show(command: argparse.ArgumentParser) -> None:
    options_.exam(command)
    options_.workspace(command)
    options_.as_of(command)
    json_option(command)


def _show(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import text

    _, _, found = options_.detail(options)
    return print_json(found) if options.json else print_line(text.exam(found))


def _describe_history(command: argparse.ArgumentParser) -> None:
    options_.exam(command)
    options_.workspace(command)
    json_option(command)


def _history(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import text
    from spicula.exams.outputs.abouts import history_of

    found = history_of(Ledger.open(options.workspace), options.exam)
    return print_json(text.plain(found)) if options.json else print_line(text.history(found))


def _describe_diff(command: argparse.ArgumentParser) -> None:
    options_.workspace(command)
    command.add_argument(
        "--model",
        metavar="MODEL",
        action="append",
        required=True,
        help="a model by name, step, or the beginning of its digest or of its bundle's; twice, the older one first",
    )
    json_option(command)


def _diff(options: argparse.Namespace) -> int:
    from spicula.errors import UsageError
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import text

    if len(options.model) != 2:
        raise UsageError("exams diff compares two models: --model A --model B")
    found = Ledger.open(options.workspace).diff(*options.model)
    return print_json(found.to_pylist()) if options.json else print_line(text.differences(found))


# what people and other programs read


def _describe_report(command: argparse.ArgumentParser) -> None:
    options_.exam(command)
    options_.workspace(command)
    options_.as_of(command)
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="where report.html is written")


def _report(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import report

    _, artefacts, found = options_.detail(options)
    return print_line(str(report.write(found, artefacts, options.to)))


COMMANDS = (
    Command("status", "what is done, what is left to do and why", _describe_status, _status),
    Command("show", "one exam: geometry, scores, digests, versions", _describe_show, _show),
    Command("history", "all that happened to an exam", _describe_history, _history),
    Command("diff", "how the scores of two models differ, largest first", _describe_diff, _diff),
    Command("report", "one exam as a page to read", _describe_report, _report),
)
