"""The command exams, and the commands below it."""

from functools import partial

from spicula.cli.exams import exporting, results, running
from spicula.cli.tools import Command, add_commands

_describe = partial(add_commands, commands=(*running.COMMANDS, *results.COMMANDS, *exporting.COMMANDS))

COMMANDS = (Command("exams", "run four-view exams, keep and explain their scores", _describe, None),)
