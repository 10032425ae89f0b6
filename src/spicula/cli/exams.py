"""The command exams, and what stands below it: run, watch, status, show, history, diff, report, export, stage."""

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from spicula.cli.tools import Command, Handler, json_option, positive, print_json, print_line


def _workspace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workspace",
        metavar="WS",
        required=True,
        help="where results and their ledger are kept: a folder, s3://... or gs://...",
    )


def _models(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", metavar="DIR", type=Path, help="a four-view classifier (bundle import-exam)")
    command.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a bundle that Spicula trained; repeat for several",
    )
    command.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of the four-view classifier's arithmetic (default fp32); bf16 is quicker, and differs in the 3rd decimal",
    )
    command.add_argument(
        "--single-image",
        action="store_true",
        help="scores for single images, whatever views an exam has; without it an incomplete exam is refused",
    )


def _engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", choices=["local", "ray"], default="local", help="where the work is done")
    command.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (default: Ray on this machine)")
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the networks (default cpu)")
    command.add_argument("--cpu-workers", metavar="N", type=positive, help="for stages without a network")
    command.add_argument("--model-workers", metavar="N", type=positive, help="for stages with a network")
    command.add_argument("--streams", metavar="N", type=positive, help="inputs in a network at a time (default: cores)")


def _exam(command: argparse.ArgumentParser) -> None:
    command.add_argument("exam", metavar="EXAM", help="its id, as `exams status` and predictions name it")


def _as_of(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--as-of", metavar="TIME", type=_time, help="as it was then: 2026-11-21T14:30 (UTC unless it says else)"
    )


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-21T14:30") from None


def _loaded(options: argparse.Namespace, bundle: Path | None, own: list[Path]) -> Any:
    from spicula.exams import models

    mode: Any = "single-image" if options.single_image else "exam"
    return models.load(bundle, own, precision=options.precision, mode=mode)


def _engine_options(options: argparse.Namespace) -> Any:
    from spicula.exams import EngineOptions

    return EngineOptions(
        engine=options.engine,
        address=options.address,
        device=options.device,
        cpu_workers=options.cpu_workers,
        model_workers=options.model_workers,
        streams=options.streams,
    )


# run and watch


def _describe_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source", metavar="INDEX_OR_DIR", type=Path, help="an Index, or a folder of DICOM studies or exam folders"
    )
    _workspace(command)
    _models(command)
    _engine(command)
    command.add_argument("--retry-failed", action="store_true", help="run steps again that failed before")
    command.add_argument("--timeline", action="store_true", help="print what every worker did when, to stderr")
    json_option(command)


def _run(options: argparse.Namespace) -> int:
    from spicula import exams

    outcome = exams.run(
        options.source,
        options.workspace,
        _loaded(options, options.bundle, options.model),
        _engine_options(options),
        retry_failed=options.retry_failed,
        keep_timeline=options.timeline,
    )
    if options.timeline:
        from spicula.exams.engines import timeline

        print(timeline.timeline(outcome.timeline), file=sys.stderr)
    _tell(outcome)
    if options.json:
        print_json(outcome.as_json())
    else:
        print_line(outcome.as_text())
    return 1 if outcome.failed else 0


def _tell(outcome: Any, most: int = 20) -> None:
    """Name on stderr what has no scores, and why; the ledger has it all."""
    lines = [f"failed {one['exam']} at {one['step']}: {one['reason']}" for one in outcome.failed]
    lines += [f"refused {one['exam']}: {one['reason']}" for one in outcome.refused]
    lines += [f"left out {one['path']}: {one['reason']}" for one in outcome.problems]
    for line in lines[:most]:
        print("".join(one if one.isprintable() else ascii(one)[1:-1] for one in line), file=sys.stderr)
    if len(lines) > most:
        print(f"and {len(lines) - most} more; --json lists them all", file=sys.stderr)


# what the ledger knows


def _describe_status(command: argparse.ArgumentParser) -> None:
    _workspace(command)
    json_option(command)


def _status(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import text

    ledger = Ledger.open(options.workspace)
    found = ledger.status()
    return print_json(text.plain(found)) if options.json else print_line(text.status(found, ledger.problems()))


def _describe_show(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    _as_of(command)
    json_option(command)


def _show(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import text

    _, _, found = _detail(options)
    return print_json(found) if options.json else print_line(text.exam(found))


def _describe_history(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    json_option(command)


def _history(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import text

    found = Ledger.open(options.workspace).history(options.exam)
    return print_json(text.plain(found)) if options.json else print_line(text.history(found))


def _describe_diff(command: argparse.ArgumentParser) -> None:
    _workspace(command)
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
    _exam(command)
    _workspace(command)
    _as_of(command)
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="where report.html is written")


def _report(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import report

    _, artefacts, found = _detail(options)
    return print_line(str(report.write(found, artefacts, options.to)))


def _detail(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    from spicula.exams.artefacts import Artefacts
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs.detail import detail_of

    ledger = Ledger.open(options.workspace)
    artefacts = Artefacts(f"{ledger.place}/artefacts")
    as_of = getattr(options, "as_of", None)
    return ledger, artefacts, detail_of(ledger, artefacts, options.exam, as_of)


def _describe_export(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(title="what", metavar="WHAT", required=True)
    for kind in _EXPORTS:
        entry = kinds.add_parser(kind.name, help=kind.summary, description=kind.summary, allow_abbrev=False)
        kind.describe(entry)
        entry.set_defaults(export=kind.handler)


def _export(options: argparse.Namespace) -> int:
    handler: Handler = options.export
    return handler(options)


def _describe_predictions(command: argparse.ArgumentParser) -> None:
    _workspace(command)
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
    scores = ledger.predictions().to_pylist()
    unscored = tables.unscored_of(ledger)
    beside = tables.write(options.to, scores, unscored, options.model)
    return print_line(f"{options.to}: {len({row['exam_id'] for row in scores})} exams; without scores: {beside}")


def _describe_dicom(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder of the DICOM files")
    threshold = command.add_mutually_exclusive_group()
    threshold.add_argument(
        "--threshold", metavar="P", type=float, help="of segmentations (default: the bundle's, where it states one)"
    )
    threshold.add_argument("--no-segmentations", action="store_true", help="write the report and the pictures alone")


def _dicom(options: argparse.Namespace) -> int:
    from spicula.exams.outputs.dicom.of_workspace import export

    ledger, artefacts, found = _detail(options)
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


# one stage by hand


def _describe_stage(command: argparse.ArgumentParser) -> None:
    command.add_argument("stage", metavar="STAGE", help="crop, centers, heatmaps, visualize or classify")
    command.add_argument(
        "--from",
        dest="inputs",
        metavar="DIR",
        type=Path,
        action="append",
        required=True,
        help="exams (of crop), or what a stage before it wrote; repeat for several",
    )
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="where results go, a folder an exam")
    command.add_argument("--models", metavar="DIR", type=Path, help="a four-view classifier, or a folder with one")
    command.add_argument("--settings", metavar="JSON", help="settings that are not the published ones")
    command.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="(default fp32)")
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the networks (default cpu)")
    command.add_argument("--streams", metavar="N", type=positive, help="inputs in a network at a time (default: cores)")
    command.add_argument("--single-image", action="store_true", help="scores for single images")


def _stage(options: argparse.Namespace) -> int:
    from spicula.exams.stage_files import StageOptions, run_stage

    how = StageOptions(
        settings=options.settings,
        precision=options.precision,
        device=options.device,
        streams=options.streams,
        mode="single-image" if options.single_image else "exam",
    )
    return print_line(run_stage(options.stage, options.inputs, options.to, options.models, how).as_text())


# all of them below one command

_PARTS = (
    Command("run", "bring exams up to date: run what has no result yet", _describe_run, _run),
    Command("status", "what is done, what is left to do and why", _describe_status, _status),
    Command("show", "one exam: geometry, scores, digests, versions", _describe_show, _show),
    Command("history", "all that happened to an exam", _describe_history, _history),
    Command("diff", "how the scores of two models differ, largest first", _describe_diff, _diff),
    Command("report", "one exam as a page to read", _describe_report, _report),
    Command("export", "scores as tables, results as DICOM, pipelines for Pachyderm", _describe_export, _export),
    Command("stage", "run one stage on files, for other orchestrators", _describe_stage, _stage),
)


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
