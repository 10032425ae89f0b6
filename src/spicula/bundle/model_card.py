"""The model card: what a person should know before they use a bundle.

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting", FAT* '19.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spicula import RESEARCH_NOTICE
from spicula.bundle.format import MODEL, WEIGHTS, Info
from spicula.evaluation import wording
from spicula.evaluation.evaluate import FEW_PATIENTS

_LEVELS = ("image", "patient-mean", "patient-max")
_GENERAL = ("auc", "average_precision", "brier", "calibration_error")
_AT_POINT = ("sensitivity", "specificity", "precision", "f1", "accuracy", "balanced_accuracy")


def render(info: Info, evaluation: Mapping[str, Any] | None) -> str:
    """Return the card as Markdown.

    Args:
        info: the content of `bundle.json`; `files` must list the model and the weights, `digest` is not used.
        evaluation: what `evaluation.evaluate` wrote of this model (`metrics["models"][name]`), or None.
    """
    sections = [
        _head(info),
        _use(info),
        _input_and_output(info),
        _data(info),
        _training(info),
        _performance(info, evaluation),
        _operating_points(info),
        _calibration(evaluation),
        _subgroups(evaluation),
        _limitations(info, evaluation),
        _how_to(info),
        _provenance(info),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(info: Info) -> str:
    synthetic = info["data"]["synthetic"]
    return "\n".join(
        [
            f"# {info['name']}: {info['target']} or {_other(info)}, trained on {info['data']['dataset']}",
            "",
            f"> **{RESEARCH_NOTICE}** No decision about anyone's care may rest on what this model says.",
            *(["> The training images are **synthetic**: this model has never seen a breast."] if synthetic else []),
            "",
            _table(
                ("", ""),
                [
                    ("Model", f"{_line(info)}, version {info['version']}"),
                    ("Answers", f"the probability that an image shows {info['target']} (not {_other(info)})"),
                    ("Made", f"{info['created']} with spicula {info['spicula']}"),
                    ("Licence of the weights", info["licence"]),
                    ("Terms of the training data", info["data"]["terms"]),
                ],
            ),
        ]
    )


def _use(info: Info) -> str:
    scope = info["scope"]
    refused = []
    if scope["modalities"]:
        refused.append(f"DICOM files whose modality is not {_either(scope['modalities'])}")
    if scope["presentation_intents"]:
        refused.append(f"DICOM files whose presentation intent is not {_either(scope['presentation_intents'])}")
    if scope["colour"] is not None:
        refused.append("grey images" if scope["colour"] else "colour images")
    lines = [
        "## Intended use",
        "",
        f"{scope['statement']} For research: to compare methods, to reproduce a study, to test software.",
        "",
        "Not for: diagnosis, screening, triage, or any decision about a person; images of another kind, from another "
        "preparation or device, or of another population than the training data, unless you have evaluated it there.",
    ]
    if refused:
        lines += ["", f"Refused without a score: {'; '.join(refused)}; files of several frames."]
    return "\n".join(lines)


def _input_and_output(info: Info) -> str:
    return "\n".join(
        [
            "## Input and output",
            "",
            _table(
                ("", "name", "type", "shape", "meaning"),
                [
                    (side, f"`{t['name']}`", t["dtype"], " × ".join(map(str, t["shape"])), t["meaning"])
                    for side, t in (("input", info["input"]), ("output", info["output"]))
                ],
            ),
            "",
            f"Images go through the preprocessing `{info['preprocessing']['digest'][:12]}` first, the same that the "
            "training images went through:",
            "",
            _settings(info["preprocessing"]["settings"]),
        ]
    )


def _data(info: Info) -> str:
    data = info["data"]
    lines = [
        "## Training data",
        "",
        f"{_sentence(data['title'])} Terms: {_sentence(data['terms'])}",
    ]
    if data["source"]:
        lines += ["", f"Source: {data['source']}"]
    if data["citation"]:
        lines += ["", f"Cite: {_sentence(data['citation'])}"]
    rows = [
        (split, *(wording.count(counts[key]) for key in ("images", "patients", "positive")))
        for split, counts in info["training"]["counts"].items()
    ]
    lines += ["", _table(("split", "images", "patients", f"images that show {info['target']}"), rows)]
    return "\n".join(lines)


def _training(info: Info) -> str:
    training = info["training"]
    fold = "" if training["fold"] is None else f", fold {training['fold']}"
    return "\n".join(
        [
            "## Training",
            "",
            _sentence(f"{_line(info)}, seed {training['seed']}{fold}") + " Settings:",
            "",
            _settings(training["settings"]),
        ]
    )


def _performance(info: Info, evaluation: Mapping[str, Any] | None) -> str:
    lines = ["## Performance", ""]
    if evaluation is None:
        return "\n".join(
            [*lines, "Not evaluated when this bundle was made. The operating points below give the run's own figures."]
        )
    folds = (
        ""
        if info["training"]["fold"] is None
        else (" The figures are those of all folds together; this bundle is the model of one of them.")
    )
    lines += [
        "On test images of patients that no training or choice has seen; 95 % intervals by bootstrap over patients."
        + folds,
        "",
    ]
    levels = [level for level in _LEVELS if level in evaluation["levels"]]
    rows = [
        (
            wording.level_name(level),
            wording.count(evaluation["levels"][level]["n"]),
            *(str(wording.shown(evaluation["levels"][level]["metrics"].get(metric))) for metric in _GENERAL),
        )
        for level in levels
    ]
    lines.append(_table(("level", "n", *(wording.METRICS[metric] for metric in _GENERAL)), rows))
    lines += _notes(evaluation["levels"][level]["metrics"].get(metric) for level in levels for metric in _GENERAL)
    return "\n".join(lines)


def _operating_points(info: Info) -> str:
    rows = []
    for name, point in info["operating_points"].items():
        for split in ("val", "test"):
            figures = point["val"] if split == "val" else point["test"]
            if figures:
                rows.append(
                    (name, f"{point['threshold']:.4f}", split, *(_plain(figures.get(key)) for key in _AT_POINT))
                )
    return "\n".join(
        [
            "## Operating points",
            "",
            f"An image counts as {info['target']} when its score is at least the threshold. Thresholds were chosen on "
            "validation images, never on test images: "
            + "; ".join(f"`{name}`, {wording.threshold_name(name)}" for name in info["operating_points"])
            + ".",
            "",
            _table(("point", "threshold", "images", *(wording.METRICS[key] for key in _AT_POINT)), rows),
        ]
    )


def _calibration(evaluation: Mapping[str, Any] | None) -> str:
    curve = ((evaluation or {}).get("levels", {}).get("image", {}).get("curves") or {}).get("calibration")
    if not curve or not curve["count"]:
        return ""
    rows = [
        (f"{predicted:.3f}", f"{observed:.3f}", wording.count(count))
        for predicted, observed, count in zip(curve["predicted"], curve["observed"], curve["count"], strict=True)
        if count
    ]
    return "\n".join(
        [
            "## Calibration",
            "",
            "Scores on test images against how many of them were positive. A score may be read as a probability only "
            "where the two agree, and only at the prevalence of these data.",
            "",
            _table(("mean score", "observed share", "images"), rows),
        ]
    )


def _subgroups(evaluation: Mapping[str, Any] | None) -> str:
    groups = (evaluation or {}).get("subgroups") or {}
    rows = [
        (
            column,
            str(value),
            wording.count(one["n"]),
            wording.count(one["positive"]),
            str(wording.shown(one.get("auc"))),
        )
        for column, values in groups.items()
        for value, one in values.items()
    ]
    if not rows:
        return ""
    table = _table(("group", "value", "images", "positive", "AUC"), rows)
    return f"## Subgroups\n\nTest images, by what the Index knows of them.\n\n{table}"


def _limitations(info: Info, evaluation: Mapping[str, Any] | None) -> str:
    counts = info["training"]["counts"]
    points = [
        "Trained and tested on one dataset: how it does on images from elsewhere is not known.",
        "The labels are those of the dataset, with their errors.",
    ]
    patients = counts.get("test", {}).get("patients", 0)
    if patients < FEW_PATIENTS:
        points.append(
            f"Tested on {wording.plural(patients, 'patient')} only: intervals are wide, and probably still too narrow."
        )
    if evaluation is None:
        points.append("No intervals, subgroups or calibration were computed for this bundle.")
    if info["data"]["synthetic"]:
        points.append("Trained on synthetic images: its scores of real ones mean nothing.")
    if info["features"] is None:
        points.append("A network can rely on marks that have nothing to do with disease; look at its heatmaps.")
    return "\n".join(["## Limitations", "", *(f"- {point}" for point in points)])


def _how_to(info: Info) -> str:
    return "\n".join(
        [
            "## How to use it",
            "",
            "```",
            "pip install spicula",
            "spicula predict THIS_FOLDER IMAGE_OR_FOLDER...",
            "```",
            "",
            "```python",
            "from pathlib import Path",
            "from spicula import bundle, predict",
            "",
            'model = bundle.load(Path("THIS_FOLDER"))',
            'predictions, rejected = predict.predict(model, [Path("images")])',
            "```",
            "",
            f"`{MODEL}` is plain ONNX (opset {info['parity']['opset']}); any runtime reads it. "
            f"`{WEIGHTS}` holds the trained weights as they came out of training.",
        ]
    )


def _provenance(info: Info) -> str:
    training, parity = info["training"], info["parity"]
    rows = [
        ("Index", training["index_digest"]),
        ("split", training["split_digest"]),
        ("run", training["run_key"]),
        ("weights of the run", training["weights_digest"]),
        ("preprocessing", info["preprocessing"]["digest"]),
        *((name, record["sha256"]) for name, record in info["files"].items()),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return "\n".join(
        [
            "## Provenance",
            "",
            _table(("SHA-256 of", ""), [(name, f"`{digest}`") for name, digest in rows]),
            "",
            f"Trained with {versions}.",
            "",
            f"The exported graph gives the trained model's probabilities to {parity['max_abs_difference']:.1e} on "
            f"{wording.plural(parity['images'], 'real image')} (tolerance {parity['tolerance']:.0e}) and decides every "
            "one of them alike.",
        ]
    )


def _line(info: Info) -> str:
    line, settings = info["line"], info["training"]["settings"]
    if line == "linear":
        kind = {"logistic": "logistic regression", "svm": "a linear support vector machine"}
        return f"hand-crafted features and {kind.get(settings.get('classifier', ''), 'a linear classifier')}"
    if line == "cnn":
        return "a convolutional network of three blocks, trained from random numbers"
    start = "from random numbers" if settings.get("weights") is None else "from pretrained weights"
    return f"the network {line.partition(':')[2]}, trained {start}"


def _other(info: Info) -> str:
    return next(name for name in info["classes"] if name != info["target"])


def _either(words: Sequence[str]) -> str:
    return " or ".join(words)


def _plain(value: float | None) -> str:
    return wording.NOT_DEFINED if value is None else wording.number(value)


def _notes(figures: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Why figures are not defined, each reason once."""
    reasons = dict.fromkeys(wording.shown(figure).reason for figure in figures)
    return ["", *(f"Where a figure is not defined: {reason}." for reason in reasons if reason)] if any(reasons) else []


def _settings(values: Mapping[str, Any]) -> str:
    return _table(("setting", "value"), [(key, f"`{value}`") for key, value in values.items() if value is not None])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
