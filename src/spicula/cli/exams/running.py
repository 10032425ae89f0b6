"""The commands that run exams: run, watch, stage."""

import argparse
import sys
from pathlib import Path
from typing import Any

from spicula.cli.exams import options as options_
from spicula.cli.exams.starting import leave_out_pandas
from spicula.cli.tools import Command, json_option, positive, print_json, print_line


def _models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bundle", metavar="DIR", type=options_.folder, help="a four-view classifier (bundle import-exam)"
    )
    command.add_argument(
        "--model",
        metavar="DIR",
        type=options_.folder,
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


def _loaded(options: argparse.Namespace, bundle: Path | None, own: list[Path]) -> Any:
    from spicula.exams import models

    mode: Any = "single-image" if options.single_image else "exam"
    return models.load(bundle, own, precision=options.precision, mode=mode)


def _engine_options(options: argparse.Namespace) -> Any:
    from spicula.errors import UsageError
    from spicula.exams import EngineOptions

    if options.address is not None and options.engine != "ray":
        raise UsageError(f"--address {options.address} is that of a Ray cluster; add --engine ray")
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
        "source",
        metavar="SOURCE",
        help="an Index; or a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX of DICOM studies or exam folders",
    )
    options_.workspace(command)
    _models(command)
    _engine(command)
    command.add_argument("--retry-failed", action="store_true", help="run steps again that failed before")
    command.add_argument(
        "--check-artefacts",
        action="store_true",
        help="read all that was made for these exams, and make again what is missing or damaged",
    )
    command.add_argument("--timeline", action="store_true", help="print what every worker did when, to stderr")
    json_option(command)


def _run(options: argparse.Namespace) -> int:
    leave_out_pandas()
    from spicula import exams

    outcome = exams.run(
        options.source,
        options.workspace,
        _loaded(options, options.bundle, options.model),
        _engine_options(options),
        retry_failed=options.retry_failed,
        check_artefacts=options.check_artefacts,
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


def _describe_watch(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="where exams arrive, each in a folder of its own: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
    )
    options_.workspace(command)
    _models(command)
    command.add_argument(
        "--models", metavar="DIR", type=options_.folder, help="where bundles are put, instead of --bundle and --model"
    )
    _engine(command)
    command.add_argument(
        "--settle",
        metavar="S",
        type=options_.seconds,
        default=10.0,
        help="a file that long unchanged is whole (default 10 s)",
    )
    command.add_argument(
        "--timeout",
        metavar="S",
        type=options_.seconds,
        default=600.0,
        help="an exam that long without a missing view is refused (default 600 s)",
    )
    command.add_argument(
        "--every", metavar="S", type=options_.seconds, default=10.0, help="between two looks (default 10 s)"
    )


def _watch(options: argparse.Namespace) -> int:
    from spicula import exams
    from spicula.errors import UsageError
    from spicula.exams import models
    from spicula.exams.watching import Patience

    if options.models is not None and (options.bundle is not None or options.model):
        raise UsageError("name the models with --models, or with --bundle and --model, not both")
    given = None if options.models is not None else _loaded(options, options.bundle, options.model)
    mode: Any = "single-image" if options.single_image else "exam"

    def load(bundles: list[Path]) -> Any:
        return given or models.load_put(bundles, precision=options.precision, mode=mode)

    exams.watch(
        options.source,
        options.workspace,
        load,
        _engine_options(options),
        models=options.models,
        patience=Patience(options.settle, options.timeout, options.single_image),
        every=options.every,
    )
    return 0


# one stage by hand


def _describe_stage(command: argparse.ArgumentParser) -> None:
    command.add_argument("stage", metavar="STAGE", help="crop, centers, heatmaps, visualize or classify")
    command.add_argument(
        "--from",
        dest="inputs",
        metavar="DIR",
        type=options_.folder,
        action="append",
        required=True,
        help="exams (of crop), or what a stage before it wrote; repeat for several",
    )
    command.add_argument(
        "--to", metavar="DIR", type=options_.folder, required=True, help="where results go, a folder an exam"
    )
    command.add_argument(
        "--models", metavar="DIR", type=options_.folder, help="a four-view classifier, or a folder with one"
    )
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


COMMANDS = (
    Command("run", "bring exams up to date: run what has no result yet", _describe_run, _run),
    Command("watch", "run exams as they arrive in a folder or bucket", _describe_watch, _watch),
    Command("stage", "run one stage on files, for other orchestrators", _describe_stage, _stage),
)
