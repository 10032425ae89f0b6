"""The commands, thin: parse, call, print. Results go to stdout, everything else to stderr.

Exit status: 0 done; 1 something failed, and what; 2 wrong use; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spicula import RESEARCH_NOTICE, __version__
from spicula.errors import SpiculaError

Handler = Callable[[argparse.Namespace], int]


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
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary, describe, handler in _COMMANDS:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        describe(command)
        command.set_defaults(handler=handler)
    return parser


# datasets


def _describe_datasets(command: argparse.ArgumentParser) -> None:
    _json_option(command)


def _datasets(options: argparse.Namespace) -> int:
    from spicula.catalog import DATASETS

    rows = [
        {"name": d.name, "title": d.title, "source": d.source, "terms": d.terms, "citation": d.citation}
        for d in DATASETS.values()
    ]
    if options.json:
        return _print_json(rows)
    for row in rows:
        print(f"{row['name']:12} {row['title']}")
        for key in ("source", "terms", "citation"):
            if row[key]:
                print(f"{'':12} {key}: {row[key]}")
    return 0


# index


def _describe_index(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="which dataset; see: spicula datasets")
    command.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        type=Path,
        required=True,
        help="the archive or its folder, as downloaded",
    )
    command.add_argument("--to", metavar="FILE", type=Path, required=True, help="the Index to write (Parquet)")
    command.add_argument(
        "--option", metavar="KEY=VALUE", action="append", default=[], help="an option of the dataset (a TOML value)"
    )
    _json_option(command)


def _index(options: argparse.Namespace) -> int:
    from spicula import files, index
    from spicula.catalog import index_dataset
    from spicula.recipe import parse_options

    reading = index_dataset(
        options.dataset, options.source, options.to.parent / "unpacked", parse_options(options.option, "--option")
    )
    rejected_path = options.to.with_name(f"{options.to.stem}-rejected.parquet")
    index.write(options.to, reading.index)
    files.write_table(rejected_path, reading.rejected)
    patients = len(set(reading.index["patient_id"].to_pylist()) - {None})
    result = {
        "index": str(options.to),
        "images": len(reading.index),
        "patients": patients,
        "rejected": len(reading.rejected),
        "rejected_table": str(rejected_path),
    }
    if options.json:
        return _print_json(result)
    _list_rejected(reading.rejected)
    print(f"{options.to}: {len(reading.index)} images of {patients} patients; {len(reading.rejected)} rejected")
    return 0


# phantom


def _describe_phantom(command: argparse.ArgumentParser) -> None:
    command.add_argument("--exams", metavar="N", type=_positive, required=True, help="how many exams, four views each")
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to make them in")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="another seed gives other women (default 0)")
    command.add_argument(
        "--density", choices=tuple("ABCD"), help="of all breasts (default: as in a screened population)"
    )
    command.add_argument(
        "--prevalence",
        metavar="P",
        type=float,
        default=0.5,
        help="share of women with a malignant lesion (default 0.5)",
    )
    command.add_argument(
        "--size", metavar="PX", type=_positive, nargs=2, default=(1024, 832), help="rows and columns (default 1024 832)"
    )
    command.add_argument("--jobs", metavar="N", type=_positive, help="processes (default: one a core)")


def _phantom(options: argparse.Namespace) -> int:
    from spicula.phantoms import make_exams

    folder = make_exams(
        options.to,
        options.exams,
        seed=options.seed,
        size=tuple(options.size),
        jobs=options.jobs,
        prevalence=options.prevalence,
        density=options.density,
    )
    print(f"{folder}: {options.exams} synthetic exams")
    return 0


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
    command.add_argument("--jobs", metavar="N", type=_positive, help="processes for decoding (default: one a core)")
    _json_option(command)


def _study(options: argparse.Namespace) -> int:
    from spicula import study

    return _print_outcome(_call(study.run, options), options.json)


def _train(options: argparse.Namespace) -> int:
    from spicula import study

    runs = [str(run) for run in _call(study.train, options)]
    return _print_json({"runs": runs}) if options.json else _print_line("\n".join(runs))


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
    _json_option(command)


def _evaluate(options: argparse.Namespace) -> int:
    from spicula import study

    return _print_outcome(study.evaluate(options.out), options.json)


def _report(options: argparse.Namespace) -> int:
    from spicula import study

    path = study.report(options.out)
    return _print_json({"report": str(path)}) if options.json else _print_line(str(path))


# bundle and predict


def _describe_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", type=Path, help="a finished run: OUT/runs/MODEL or OUT/runs/MODEL/fold-K"
    )
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the bundle's folder")
    command.add_argument("--licence", metavar="TEXT", help="of the weights, as you publish them (default: not stated)")
    command.add_argument("--model-version", metavar="TEXT", default="1", help="as you count your models (default 1)")
    _json_option(command)


def _bundle(options: argparse.Namespace) -> int:
    from spicula import study

    result = study.bundle(options.run, options.to, licence=options.licence, version=options.model_version)
    sentence = (
        f"{result['bundle']}: {result['model']}, digest {result['digest'][:12]}; on {result['images_compared']} images "
        f"its probabilities differ from the run's by at most {result['max_abs_difference']:.1e}"
    )
    return _print_json(result) if options.json else _print_line(sentence)


def _describe_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help="a bundle's folder")
    command.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="images, or folders of images")
    command.add_argument("--batch", metavar="N", type=_positive, default=16, help="images at a time (default 16)")
    command.add_argument("--jobs", metavar="N", type=_positive, help="processes for decoding (default: one a core)")
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


# demo


def _describe_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="DIR", type=Path, default=Path("demo-out"), help="default: demo-out")
    command.add_argument("--exams", metavar="N", type=_positive, default=200, help="synthetic exams (default 200)")


def _demo(options: argparse.Namespace) -> int:
    from spicula import demo

    return demo.run(options.out, options.exams)


_COMMANDS: list[tuple[str, str, Callable[[argparse.ArgumentParser], None], Handler]] = [
    ("datasets", "what Spicula knows, where each comes from, its terms", _describe_datasets, _datasets),
    ("index", "read an archive and its metadata into one table", _describe_index, _index),
    ("phantom", "make synthetic four-view DICOM exams with known lesions", _describe_phantom, _phantom),
    ("study", "index, train, evaluate, report and bundle in one go", _describe_study, _study),
    ("train", "the first half of a study: index, split, check, train", _describe_study, _train),
    ("evaluate", "compute a trained study's metrics again", _describe_step, _evaluate),
    ("report", "write a study's report again", _describe_step, _report),
    ("bundle", "export a run as a verified ONNX bundle", _describe_bundle, _bundle),
    ("predict", "classify images with a bundle", _describe_predict, _predict),
    ("demo", "all of it, small, on synthetic exams, in minutes", _describe_demo, _demo),
]


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="machine-readable result on stdout")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _print_json(value: Any) -> int:
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    return 0


def _print_line(line: str) -> int:
    print(line)
    return 0


def _print_outcome(outcome: Any, as_json: bool) -> int:
    from spicula.study import summary

    return _print_json(summary.as_json(outcome)) if as_json else _print_line(summary.text(outcome))


def _list_rejected(rejected: Any, most: int = 20) -> None:
    """Name rejected files on stderr; the table has them all."""
    for row in rejected.slice(0, most).to_pylist():
        print(f"rejected {row['path']}: {row['reason']}", file=sys.stderr)
    if len(rejected) > most:
        print(f"and {len(rejected) - most} more, in the rejected table", file=sys.stderr)
