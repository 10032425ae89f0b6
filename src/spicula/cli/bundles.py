"""The commands that make and use a bundle: bundle, bundle import-exam, bundle triton, predict."""

import argparse
import sys
from pathlib import Path

from spicula.cli.tools import Command, json_option, positive, print_json, print_line
from spicula.errors import UsageError

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


def _describe_import_exam(command: argparse.ArgumentParser) -> None:
    command.add_argument("--patch", metavar="FILE", type=Path, help="weights of the patch classifier")
    command.add_argument("--image", metavar="FILE", type=Path, help="weights of the classifier of images alone")
    command.add_argument(
        "--image-heatmaps", metavar="FILE", type=Path, help="weights of the classifier of images and heatmaps"
    )
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="the bundle's folder")
    command.add_argument("--name", metavar="NAME", default="screening", help="of the model (default screening)")
    command.add_argument("--model-version", metavar="TEXT", default="1", help="as you count your models (default 1)")
    command.add_argument("--licence", metavar="TEXT", help="of the weights, as their publisher says it")
    command.add_argument(
        "--heatmap-threshold",
        metavar="P",
        type=float,
        help="probability from which a heatmap's segmentation counts a pixel (default: no segmentations)",
    )
    json_option(command)


def _import_exam(options: argparse.Namespace) -> int:
    try:
        from spicula.bundle.screening.importing import import_exam
    except ImportError as error:
        raise UsageError("importing weights needs torch; install it with: pip install 'spicula[train]'") from error

    loaded = import_exam(
        options.patch,
        options.image,
        options.image_heatmaps,
        options.to,
        name=options.name,
        version=options.model_version,
        licence=options.licence,
        heatmap_threshold=options.heatmap_threshold,
    )
    networks = loaded.info["networks"]
    result = {
        "bundle": str(options.to),
        "model": loaded.name,
        "digest": loaded.digest,
        "networks": {role: {**network, "digest": loaded.digest_of(role)} for role, network in networks.items()},
    }
    sentence = f"{options.to}: {loaded.name}, with {', '.join(networks)}, digest {loaded.digest[:12]}"
    return print_json(result) if options.json else print_line(sentence)


def _describe_triton(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+", help="a bundle's folder")
    command.add_argument("--to", metavar="REPO", type=Path, required=True, help="Triton's model repository")
    command.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="what the networks run on (default cpu)"
    )
    command.add_argument(
        "--instances",
        metavar="N",
        type=positive,
        default=1,
        help="of each network: one a core, or some on each GPU (default 1)",
    )
    command.add_argument(
        "--decoders",
        metavar="N",
        type=positive,
        help="images that each model prepares at a time (default: N instances)",
    )
    json_option(command)


def _triton(options: argparse.Namespace) -> int:
    from spicula.serving.triton import repository

    made = repository.export(
        options.bundles, options.to, device=options.device, instances=options.instances, decoders=options.decoders
    )
    if options.json:
        models = [{"bundle": str(one.bundle), "digest": one.digest, "models": list(one.models)} for one in made]
        return print_json({"repository": str(options.to), "exported": models})
    for one in made:
        print_line(f"{options.to}: {', '.join(one.models)}, of {one.bundle}, digest {one.digest[:12]}")
    return 0


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
    Command(
        "bundle",
        "export a run as a verified ONNX bundle",
        _describe_bundle,
        _bundle,
        (
            Command(
                "import-exam",
                "make a bundle of the published four-view classifier's weight files",
                _describe_import_exam,
                _import_exam,
            ),
            Command(
                "triton",
                "write bundles into a model repository of Triton Inference Server",
                _describe_triton,
                _triton,
            ),
        ),
    ),
    Command("predict", "classify images with a bundle", _describe_predict, _predict),
)
