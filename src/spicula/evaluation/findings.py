"""What a study may conclude: the questions its models pose, the headline, and what weakens the answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from spicula.evaluation import wording
from spicula.evaluation.wording import Question


def questions(models: Mapping[str, Mapping[str, Any]]) -> list[Question]:
    """Return the questions that a set of models poses by itself.

    Args:
        models: by name, in the recipe's order: each with `line` and `settings` as in `run.json`.

    Returns:
        Does the CNN beat the linear baseline? Does pretraining help? Does augmentation? Each where there are two
        models that can answer it.
    """
    linear = [name for name, model in models.items() if model["line"] == "linear"]
    small = [name for name, model in models.items() if model["line"] == "cnn"]
    plain = [name for name in small if not _augmented(models[name])] or small
    augmented = [name for name in small if name not in plain]
    pretrained = [name for name, model in models.items() if is_pretrained(model)]
    found = []
    if linear and plain:
        found.append(Question("Does the CNN beat the linear baseline?", plain[0], linear[0]))
    found += [question for name in pretrained for question in _about_pretraining(name, models, plain)]
    if plain and augmented:
        caveat = _differences(models[augmented[0]], models[plain[0]], besides=("augment", "expand"))
        found.append(Question("Does augmentation help the CNN?", augmented[0], plain[0], caveat))
    for name in pretrained if linear else []:
        found.append(Question(f"Does the pretrained {name} beat the linear baseline?", name, linear[0]))
    return found


def is_pretrained(model: Mapping[str, Any]) -> bool:
    """Whether a model started from weights learnt on other images."""
    return bool(model["settings"].get("weights"))


def _about_pretraining(name: str, models: Mapping[str, Mapping[str, Any]], plain: Sequence[str]) -> list[Question]:
    """Against the same network from scratch where there is one, else against the CNN, which is another question."""
    line = models[name]["line"]
    twins = [other for other, model in models.items() if model["line"] == line and not is_pretrained(model)]
    if twins:
        caveat = _differences(models[name], models[twins[0]], besides=("weights", "mean", "std"))
        return [Question("Does pretraining help?", name, twins[0], caveat)]
    caveat = (
        "Whether it is pretraining that helps, this does not tell: the two networks differ in architecture, size and "
        "training as well. The same network trained from random weights would tell."
    )
    return [Question(f"Does the pretrained {name} beat the CNN?", name, plain[0], caveat)] if plain else []


def _differences(one: Mapping[str, Any], other: Mapping[str, Any], besides: Sequence[str]) -> str:
    """A caveat that names what else differs in the settings of two models, or nothing."""
    keys = dict.fromkeys([*one["settings"], *other["settings"]])
    told = {"name", *besides}
    differing = [k for k in keys if k not in told and one["settings"].get(k) != other["settings"].get(k)]
    return f"The two models also differ in {', '.join(differing)}." if differing else ""


def _augmented(model: Mapping[str, Any]) -> bool:
    settings = model["settings"]
    return any(settings.get(key, "none") != "none" for key in ("expand", "augment"))


def headline(models: Mapping[str, Mapping[str, Any]], level: str) -> str:
    """Return one sentence with the highest AUC of the test side, and what that is worth."""
    values = {
        name: wording.shown(model["levels"][level]["metrics"].get("auc"))
        for name, model in models.items()
        if level in model["levels"]
    }
    defined = {name: auc for name, auc in values.items() if auc.sort is not None}
    if not defined:
        return "No model has an AUC on the test side: there are too few images of one class."
    best = max(defined, key=lambda name: defined[name].sort or 0.0)
    sizes = models[best]["levels"][level]
    on = f"{wording.plural(sizes['n'], _unit(level))} of {wording.plural(sizes['patients'], 'patient')}"
    low = models[best]["levels"][level]["metrics"]["auc"]["low"]
    is_chance = low is not None and low <= 0.5
    chance = " Its interval includes 0.5: it is not shown to be better than chance." if is_chance else ""
    if len(defined) == 1:
        return f"{best} reaches an AUC of {defined[best]} on {on} that it never saw.{chance}"
    return (
        f"{best} has the highest AUC, {defined[best]}, on {on} that no model saw in training.{chance} "
        f"As the highest of {len(defined)} it is a little flattered by chance."
    )


def merged(warnings: Sequence[str]) -> list[str]:
    """Return warnings of `evaluate()`, with those that say the same of several levels ("image level: ...") as one."""
    levels: dict[str, list[str]] = {}
    for warning in warnings:
        level, separator, said = warning.partition(" level: ")
        levels.setdefault(said if separator else warning, []).extend([level] if separator else [])
    return [f"{', '.join(names)} level: {said}" if names else said for said, names in levels.items()]


def _unit(level: str) -> str:
    return "image" if level == "image" else level.partition("-")[0]


def warnings(
    metrics: Mapping[str, Any],
    *,
    unit: str,
    synthetic: bool,
    rejected: int,
    near_duplicates: int,
    unfinished: Sequence[str],
) -> list[str]:
    """Return what weakens the report's figures, the weightiest first, each as a sentence or two.

    Args:
        metrics: what `evaluate()` returned; its own `warnings` (on the size of the sample) are among them.
        unit: of the split: "patient" or "image".
        synthetic: whether the images are phantoms.
        rejected: number of files that could not be used.
        near_duplicates: number of pairs of near-identical images on two sides.
        unfinished: models whose training did not end.
    """
    found = []
    if synthetic:
        found.append("The images are synthetic phantoms: these figures say nothing about patients.")
    if unit == "image":
        found.append(
            "Split by image: images of one patient stand on both sides, so every figure here is flattered. "
            "Split by patient for figures that hold for new patients."
        )
    if unfinished:
        found.append(f"Training of {', '.join(unfinished)} did not end: its figures are of an unfinished model.")
    found += [_as_sentence(warning) for warning in merged(metrics.get("warnings", []))]
    if near_duplicates:
        found.append(
            f"{wording.plural(near_duplicates, 'pair')} of near-identical images across the sides of the split: "
            "look at them below before trusting the figures."
        )
    if rejected:
        found.append(f"{wording.plural(rejected, 'file')} could not be used and took no part: see the list below.")
    compared = len({frozenset((one["a"], one["b"])) for one in metrics.get("comparisons", [])})
    if compared > 1:
        found.append(
            f"{compared} pairs of models are compared: a single small p-value among them is weak evidence. "
            "The tables give p-values corrected for that as well."
        )
    return found


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
