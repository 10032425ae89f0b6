"""The commands of a study: study, train, evaluate, report, demo."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spicula.cli.tools import Command, json_option, positive, print_json, print_line, print_outcome

# study and its steps


def _describe_study(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "recipe", metavar="RECIPE", help="a TOML file, or the name of a recipe that comes with Spicula"
    )
    command.add_argument("--data", metavar="DIR", type=Path, required=True, help="the archive or its folder")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="where everything is written")
    command.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="replace a value of the recipe (repeatable)"
    )
    command.add_argument(
        "--split",
        choices=("patient", "image"),
        default="patient",
        help="image: also train on a split by image, the common mistake, to measure how much it flatters",
    )
    command.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:N or auto (default: a GPU when there is one)"
    )
    command.add_argument("--jobs", metavar="N", type=positive, help="processes for decoding (default: one a core)")
    json_option(command)


def _study(options: argparse.Namespace) -> int:
    from spicula import study

    return print_outcome(_call(study.run, options), options.json)


def _train(options: argparse.Namespace) -> int:
    from spicula import study

    runs = [str(run) for run in _call(study.train, options)]
    return print_json({"runs": runs}) if options.json else print_line("\n".join(runs))


def _call(step: Callable[..., Any], options: argparse.Namespace) -> Any:
    """Call a step that takes a recipe and data."""
    from spicula import recipe

    return step(
        recipe.load(options.recipe, options.set),
        options.data,
        options.out,
        image_split=options.split == "image",
        device=options.device,
        jobs=options.jobs,
    )


def _describe_step(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", metavar="OUT", type=Path, help="the folder that `spicula train` or `study` wrote")
    json_option(command)


def _evaluate(options: argparse.Namespace) -> int:
    from spicula import study

    return print_outcome(study.evaluate(options.out), options.json)


def _report(options: argparse.Namespace) -> int:
    from spicula import study

    path = study.report(options.out)
    return print_json({"report": str(path)}) if options.json else print_line(str(path))


# demo


def _describe_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="DIR", type=Path, default=Path("demo-out"), help="default: demo-out")
    command.add_argument("--exams", metavar="N", type=positive, default=200, help="synthetic exams (default 200)")


def _demo(options: argparse.Namespace) -> int:
    from spicula import demo

    return demo.run(options.out, options.exams)


COMMANDS = (
    Command("study", "index, train, evaluate, report and bundle in one go", _describe_study, _study),
    Command("train", "the first half of a study: index, split, check, train", _describe_study, _train),
    Command("evaluate", "compute a trained study's metrics again", _describe_step, _evaluate),
    Command("report", "write a study's report again", _describe_step, _report),
    Command("demo", "all of it, small, on synthetic exams, in minutes", _describe_demo, _demo),
)
