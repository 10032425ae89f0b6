"""What several commands share: options, and how results are printed."""

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

Handler = Callable[[argparse.Namespace], int]


class Command(NamedTuple):
    """One command: its name, what `--help` says, a function that adds its options, and one that runs it.

    `parts` are commands that its first word can name; with any other first word it is the command itself. One whose
    `describe` adds commands below it (`add_commands`) runs none itself: its handler is None.
    """

    name: str
    summary: str
    describe: Callable[[argparse.ArgumentParser], None]
    handler: Handler | None
    parts: tuple["Command", ...] = ()


class Parser(argparse.ArgumentParser):
    """The parser of a command that may have parts, and options of its own besides."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parts: dict[str, Parser] = {}

    def add(self, command: Command) -> None:
        """Take in what a command says of itself and of its parts."""
        command.describe(self)
        if command.handler is not None:
            self.set_defaults(handler=command.handler)
        for part in command.parts:
            prog = f"{self.prog} {part.name}"
            entry = self._parts[part.name] = Parser(prog=prog, description=part.summary, allow_abbrev=False)
            entry.add(part)
        if command.parts:
            said = "; ".join(f"{self.prog} {part.name} --help: {part.summary}" for part in command.parts)
            self.epilog = f"See also {said}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse with the part that the first word names, where it names one."""
        words = sys.argv[1:] if args is None else list(args)
        if words and words[0] in self._parts:
            return self._parts[words[0]].parse_known_args(words[1:], namespace)
        return super().parse_known_args(words, namespace)


def add_commands(parser: argparse.ArgumentParser, commands: Iterable[Command], metavar: str = "COMMAND") -> None:
    """Add commands below a parser, one of which has to be named; `handler` of the options is that of the one named."""
    below = parser.add_subparsers(title="commands", metavar=metavar, required=True, parser_class=Parser)
    for command in commands:
        entry = below.add_parser(command.name, help=command.summary, description=command.summary, allow_abbrev=False)
        entry.add(command)


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
