"""The commands that make and use a bundle: bundle, predict."""

import argparse
import sys
from pathlib import Path

from spicula.cli.tools import Command, json_option, positive, print_json, print_line

# bundle and predict


def _describe_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", type=Path, help="a finished run: OUT/runs/MODEL or OUT/runs/MODEL/fold-K"
    )
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the bundle's folder")
    command.add_argument("--licence", metavar="TEXT", help="of the weights, as you publish them (default: not stated)")
    command.add_argument("--model-version", metavar="TEXT", default="1", help="as you count your models (default 1)")
    json_option(command)


def _bundle(options: argparse.Namespace) -> int:
    from spicula import study

    result = study.bundle(options.run, options.to, licence=options.licence, version=options.model_version)
    sentence = (
        f"{result['bundle']}: {result['model']}, digest {result['digest'][:12]}; on {result['images_compared']} images "
        f"its probabilities differ from the run's by at most {result['max_abs_difference']:.1e}"
    )
    return print_json(result) if options.json else print_line(sentence)


def _describe_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help="a bundle's folder")
    command.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="images, or folders of images")
    command.add_argument("--batch", metavar="N", type=positive, default=16, help="images at a time (default 16)")
    command.add_argument("--jobs", metavar="N", type=positive, help="processes for decoding (default: one a core)")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON on stdout")
    form.add_argument("--csv", action="store_true", help="CSV on stdout")


def _predict(options: argparse.Namespace) -> int:
    from spicula import bundle, predict

    loaded = bundle.load(options.bundle)
    answered, rejected = predict.predict(loaded, options.paths, batch_size=options.batch, jobs=options.jobs)
    if options.json:
        print(predict.as_json(answered, rejected, loaded))
    elif options.csv:
        print(predict.as_csv(answered, rejected, loaded), end="")
    else:
        print(predict.as_table_text(answered, rejected, loaded))
    if options.json or options.csv:
        print(predict.summary(answered, rejected), file=sys.stderr)
    return 1 if len(rejected) else 0


COMMANDS = (
    Command("bundle", "export a run as a verified ONNX bundle", _describe_bundle, _bundle),
    Command("predict", "classify images with a bundle", _describe_predict, _predict),
)
