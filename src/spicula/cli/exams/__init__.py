"""The command exams, and the commands below it."""

import argparse

from spicula.cli.exams import exporting, results, running
from spicula.cli.tools import Command, Handler

_PARTS = (*running.COMMANDS, *results.COMMANDS, *exporting.COMMANDS)


def _describe(command: argparse.ArgumentParser) -> None:
    parts = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for part in _PARTS:
        entry = parts.add_parser(part.name, help=part.summary, description=part.summary, allow_abbrev=False)
        part.describe(entry)
        entry.set_defaults(part=part.handler)


def _exams(options: argparse.Namespace) -> int:
    part: Handler = options.part
    return part(options)


COMMANDS = (Command("exams", "run four-view exams, keep and explain their scores", _describe, _exams),)
