"""The command export: scores as tables, results as DICOM, pipelines for Pachyderm."""

import argparse
from functools import partial
from pathlib import Path

from spicula import RESEARCH_NOTICE
from spicula.cli.exams import options as options_
from spicula.cli.tools import Command, add_commands, print_line


def _describe_predictions(command: argparse.ArgumentParser) -> None:
    options_.workspace(command)
    command.add_argument(
        "--to",
        metavar="FILE",
        type=Path,
        required=True,
        help="a .csv (one model, one row an exam, as published) or a .parquet (all models, one row a score)",
    )
    command.add_argument("--model", metavar="MODEL", help="one model, by name")


def _predictions(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import tables

    ledger = Ledger.open(options.workspace)
    scores = tables.scores_of(ledger)
    unscored = tables.unscored_of(ledger)
    beside = tables.write(options.to, scores, unscored, options.model)
    written = {row["exam_id"] for row in scores if options.model in (None, row["model"])}
    return print_line(f"{options.to}: {len(written)} exams; without scores: {beside}. {RESEARCH_NOTICE}")


def _describe_dicom(command: argparse.ArgumentParser) -> None:
    options_.exam(command)
    options_.workspace(command)
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder of the DICOM files")
    threshold = command.add_mutually_exclusive_group()
    threshold.add_argument(
        "--threshold", metavar="P", type=float, help="of segmentations (default: the bundle's, where it states one)"
    )
    threshold.add_argument("--no-segmentations", action="store_true", help="write the report and the pictures alone")


def _dicom(options: argparse.Namespace) -> int:
    from spicula.exams.outputs.dicom.of_workspace import export

    ledger, artefacts, found = options_.detail(options)
    written = export(
        ledger, artefacts, found, options.to, options.threshold, segmentations=not options.no_segmentations
    )
    return print_line(f"{options.to}: {len(written)} DICOM files")


def _describe_pachyderm(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image", metavar="NAME", required=True, help="a container image in which spicula is")
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="where the specifications are written")
    command.add_argument("--bundle", metavar="DIR", type=Path, help="whose settings are used (default: as published)")
    command.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="of the networks (default cuda)")


def _pachyderm(options: argparse.Namespace) -> int:
    from spicula.bundle import screening
    from spicula.exams.export import pachyderm

    settings = None if options.bundle is None else screening.load(options.bundle).settings
    written = pachyderm.write(
        options.to, pachyderm.specifications(options.image, settings=settings, device=options.device)
    )
    return print_line("\n".join(str(path) for path in written))


_EXPORTS = (
    Command("predictions", "the scores of all exams as a table", _describe_predictions, _predictions),
    Command("dicom", "results of an exam as DICOM objects of its study", _describe_dicom, _dicom),
    Command("pachyderm", "specifications of the five stages for Pachyderm", _describe_pachyderm, _pachyderm),
)

_describe = partial(add_commands, commands=_EXPORTS, metavar="WHAT")

COMMANDS = (Command("export", "scores as tables, results as DICOM, pipelines for Pachyderm", _describe, None),)
