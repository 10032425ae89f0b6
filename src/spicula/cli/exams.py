"""The command exams, and what stands below it: run, watch, status, show, history, diff, report, export, stage."""

import argparse
import sys
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
    command.add_argument("--as-of", metavar="TIME", help="as it was then: 2026-11-21T14:30 (UTC unless it says else)")


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
    from spicula.exams.ledger import Ledger, text

    found = Ledger.open(options.workspace).status()
    return print_json(found) if options.json else print_line(text.status(found))


def _describe_show(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    _as_of(command)
    json_option(command)


def _show(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import detail

    found = _detail(options)
    return print_json(found) if options.json else print_line(detail.as_text(found))


def _describe_history(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    json_option(command)


def _history(options: argparse.Namespace) -> int:
    from spicula.exams.ledger import Ledger, text

    found = Ledger.open(options.workspace).history(options.exam)
    return print_json(found) if options.json else print_line(text.history(found))


def _describe_diff(command: argparse.ArgumentParser) -> None:
    _workspace(command)
    command.add_argument(
        "--model",
        metavar="MODEL",
        action="append",
        required=True,
        help="a model by name, or the beginning of its digest; give it twice: the older one first",
    )
    json_option(command)


def _diff(options: argparse.Namespace) -> int:
    from spicula.errors import UsageError
    from spicula.exams.ledger import Ledger, text

    if len(options.model) != 2:
        raise UsageError("exams diff compares two models: --model A --model B")
    found = Ledger.open(options.workspace).diff(*options.model)
    return print_json(found.to_pylist()) if options.json else print_line(text.diff(found))


# what people and other programs read


def _describe_report(command: argparse.ArgumentParser) -> None:
    _exam(command)
    _workspace(command)
    _as_of(command)
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="where report.html is written")


def _report(options: argparse.Namespace) -> int:
    from spicula.exams.outputs import report

    return print_line(str(report.write(_detail(options), _artefacts(options.workspace), options.to)))


def _detail(options: argparse.Namespace) -> Any:
    from spicula.exams.ledger import Ledger
    from spicula.exams.outputs import detail

    ledger = Ledger.open(options.workspace)
    return detail.detail_of(ledger, _artefacts(options.workspace), options.exam, options.as_of)


def _artefacts(workspace: str) -> Any:
    from spicula.exams import artefacts_of

    return artefacts_of(workspace)


# all of them below one command

_PARTS = (
    Command("run", "bring exams up to date: run what has no result yet", _describe_run, _run),
    Command("status", "what is done, what is left to do and why", _describe_status, _status),
    Command("show", "one exam: geometry, scores, digests, versions", _describe_show, _show),
    Command("history", "all that happened to an exam", _describe_history, _history),
    Command("diff", "how the scores of two models differ, largest first", _describe_diff, _diff),
    Command("report", "one exam as a page to read", _describe_report, _report),
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
