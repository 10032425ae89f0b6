"""Numbers and comparisons in words: what the report says, and how firmly it may say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NOT_DEFINED = "not defined"

#: A p-value from here on is no support for a difference.
SIGNIFICANCE = 0.05

LEVELS = {
    "image": "Image level",
    "patient-mean": "Patient level, mean of the images",
    "patient-max": "Patient level, highest image",
    "exam-mean": "Exam level, mean of the images",
    "exam-max": "Exam level, highest image",
    "breast-mean": "Breast level, mean of the images",
    "breast-max": "Breast level, highest image",
}
METRICS = {
    "auc": "AUC",
    "auc_per_fold": "AUC, mean of folds",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
}
THRESHOLDS = {
    "youden": "highest balanced accuracy on validation",
    "sensitivity-0.90": "sensitivity of at least 0.90 on validation",
}


@dataclass(frozen=True)
class Shown:
    """A figure as it is printed.

    Attributes:
        value: "0.912", or "not defined".
        interval: "(0.861–0.953)", or empty.
        reason: why there is no value, or empty.
        sort: the number to sort by, or None.
    """

    value: str
    interval: str = ""
    reason: str = ""
    sort: float | None = None

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Question:
    """Two models to be set against each other, and the question that this answers.

    Attributes:
        text: "Does the CNN beat the linear baseline?"
        model: the name of the model that might be better.
        against: the name of the model that it is compared with.
        caveat: what an answer does not say, or empty.
    """

    text: str
    model: str
    against: str
    caveat: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: as asked.
        verdict: "yes", "no" (the other way round), "not shown" or "not defined".
        short: the verdict in two to four words.
        sentences: the answer in plain words, with intervals and p-values.
        caveat: the question's.
    """

    question: str
    verdict: str
    short: str
    sentences: tuple[str, ...]
    caveat: str = ""


def level_name(level: str) -> str:
    """Return a level's name as a heading."""
    return LEVELS.get(level, level.replace("-", ", ").capitalize() + " level")


def threshold_name(threshold: str) -> str:
    """Return in words how a threshold was chosen."""
    return THRESHOLDS.get(threshold, threshold)


def number(value: float, digits: int = 3) -> str:
    """Return a number with a real minus sign: "−0.012"."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def count(value: int) -> str:
    """Return a count with thin spaces between thousands: "12 345"."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(value: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{count(value)} {noun if value == 1 else noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time span as a person says it: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def shown(figure: Mapping[str, Any] | None, digits: int = 3, signed: bool = False) -> Shown:
    """Return a figure of `evaluate()` as it is printed: value and interval, or why it is not defined.

    Args:
        figure: `value`, `low`, `high`, and `reason` where they are null; None where nothing is known.
        digits: after the decimal point.
        signed: whether it is a difference: printed with its sign, and "to" within the interval.
    """
    if figure is None or figure.get("value") is None:
        return Shown(NOT_DEFINED, reason=str((figure or {}).get("reason") or ""))
    value, low, high = figure["value"], figure.get("low"), figure.get("high")
    text = ("+" if signed and float(f"{value:.{digits}f}") > 0 else "") + number(value, digits)
    if low is None or high is None:
        return Shown(text, "(no interval)", str(figure.get("reason") or ""), value)
    between = " to " if signed else DASH
    return Shown(text, f"({number(low, digits)}{between}{number(high, digits)})", "", value)


def p_value(p: float | None) -> str:
    """Return "p < 0.001", "p = 0.012", or that it is not defined."""
    if p is None:
        return f"p {NOT_DEFINED}"
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")  # a line never breaks within


def find(comparisons: Sequence[Mapping[str, Any]], model: str, against: str, level: str) -> dict[str, Any] | None:
    """Return the comparison of two models' AUC as `model` minus `against`, whichever way round it was made."""
    for one in comparisons:
        if one["level"] != level or one["metric"] != "auc" or {one["a"], one["b"]} != {model, against}:
            continue
        return dict(one) if one["a"] == model else turned(one)
    return None


def answer(question: Question, comparisons: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> Answer:
    """Answer a question from the comparisons: at image level first, then at every further level there is.

    The first level decides. A difference counts as shown when its interval excludes 0 and no test that honours the
    grouping of images by patient disagrees; else the models are "not shown to differ".
    """
    found = [(level, find(comparisons, question.model, question.against, level)) for level in levels]
    present = [(level, one) for level, one in found if one is not None]
    if not present:
        return Answer(question.text, NOT_DEFINED, "Not compared", ("These two models were not compared.",))
    verdict = verdict_of(present[0][1])
    sentences = tuple(_sentence(question, level, one) for level, one in present)
    short = {"yes": "Yes, on these data", "no": "No: the other way round", "not shown": "Not shown to differ",
             NOT_DEFINED: "Not defined"}[verdict]  # fmt: skip
    return Answer(question.text, verdict, short, sentences, question.caveat)


def verdict_of(comparison: Mapping[str, Any]) -> str:
    """Return what a comparison shows: "yes" (a above b), "no" (a below b), "not shown" or "not defined"."""
    difference = comparison["difference"]
    if difference is None or difference.get("value") is None:
        return NOT_DEFINED
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None or low <= 0 <= high or any(p >= SIGNIFICANCE for p in _tests(comparison).values()):
        return "not shown"
    return "yes" if low > 0 else "no"


def _tests(comparison: Mapping[str, Any]) -> dict[str, float]:
    """The p-values that honour that a patient has several images, by the test's name."""
    tests = {"bootstrap": comparison.get("p_bootstrap"), "DeLong by patient": comparison.get("p_delong_clustered")}
    if tests["DeLong by patient"] is None:
        tests = {"bootstrap": tests["bootstrap"], "DeLong": comparison.get("p_delong")}
    return {name: p for name, p in tests.items() if p is not None}


def _sentence(question: Question, level: str, comparison: Mapping[str, Any]) -> str:
    difference, where = shown(comparison["difference"], signed=True), level_name(level)
    if difference.sort is None:
        because = f": {difference.reason}" if difference.reason else ""
        return f"{where}: the difference in AUC is not defined{because}."
    tests = ", ".join(f"{name} {p_value(p)}" for name, p in _tests(comparison).items())
    figures = f"difference in AUC {difference}" + (f"; {tests}" if tests else "")
    verdict = verdict_of(comparison)
    if verdict in ("yes", "no"):
        word = "higher" if verdict == "yes" else "lower"
        said = f"{where}: {question.model} has a {word} AUC than {question.against} ({figures})."
        return said + _after_correction(comparison)
    if difference.interval == "(no interval)":
        return f"{where}: {question.model} and {question.against} are not shown to differ ({figures})."
    low, high = comparison["difference"]["low"], comparison["difference"]["high"]
    why = "the interval includes 0" if low <= 0 <= high else "the interval excludes 0 but a test does not agree"
    return f"{where}: {question.model} and {question.against} are not shown to differ: {why} ({figures})."


def _after_correction(comparison: Mapping[str, Any]) -> str:
    """A sentence where a difference does not stand up to the number of comparisons."""
    key = "p_bootstrap_holm"
    if comparison.get(key) is None or comparison[key] < SIGNIFICANCE:
        return ""
    return f" Corrected for the number of pairs compared, {p_value(comparison[key])}: weak evidence."


def turned(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison the other way round: `b` minus `a`."""
    turned = {**comparison, "a": comparison["b"], "b": comparison["a"]}
    difference = comparison["difference"]
    if difference is not None and difference.get("value") is not None:
        low, high = difference.get("low"), difference.get("high")
        turned["difference"] = {
            **difference,
            "value": -difference["value"],
            "low": None if high is None else -high,
            "high": None if low is None else -low,
        }
    return turned
