"""The commands, thin: parse, call, print. Results go to stdout, everything else to stderr.

Exit status: 0 done; 1 something failed, and what; 2 wrong use; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from spicula import RESEARCH_NOTICE, __version__
from spicula.cli import bundles, data, exams, serving, studies
from spicula.cli.tools import Handler, add_commands
from spicula.errors import SpiculaError

COMMANDS = (*data.COMMANDS, *studies.COMMANDS, *bundles.COMMANDS, *exams.COMMANDS, *serving.COMMANDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    handler: Handler = options.handler
    try:
        return handler(options)
    except SpiculaError as error:
        print(f"spicula: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("spicula: interrupted; the same command again takes up where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our stdout (head, less) left: nothing is wrong, and nobody is there to tell.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spicula",
        description=f"From breast images to explained, exported, honestly evaluated classifiers. {RESEARCH_NOTICE}",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"spicula {__version__}")
    add_commands(parser, COMMANDS)
    return parser
