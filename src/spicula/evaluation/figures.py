"""The report's figures: matplotlib to SVG text that stands inside an HTML page.

Every figure is a plain function of data and returns one `<svg>` element. Text stays text (small files, searchable, the
page's own font); the colours of text, axes and grid are the page's CSS variables, so that figures follow its light and
dark themes; ids are prefixed with the figure's name, so that many figures fit into one page.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

#: Colours that people with colour-blindness tell apart: Okabe and Ito 2008, "Color universal design", without the
#: yellow (too pale for lines on white) and the black (the page's text).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))
MARKERS = ("o", "s", "^", "D", "v", "P")

# matplotlib knows no CSS variables: these stand for them in the drawing and are replaced in its text.
_INK, _LINE, _PAPER = "#010203", "#010204", "#010205"
_VARIABLES = {_INK: "var(--ink)", _LINE: "var(--line)", _PAPER: "var(--paper)"}

_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a model's name may hold a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Style:
    """How one model looks in every figure of a report: colour, line and marker, so that colour is never alone."""

    color: str
    dash: Any
    marker: str


def styles(models: Sequence[str]) -> dict[str, Style]:
    """Return each model's style, by its place in the recipe."""
    found = {}
    for number, model in enumerate(models):
        turn = number // len(PALETTE)
        dash = DASHES[(number + turn) % len(DASHES)]
        found[model] = Style(PALETTE[number % len(PALETTE)], dash, MARKERS[number % len(MARKERS)])
    return found


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot: a heading (no value), or a value with its interval.

    Attributes:
        label: what the line is of.
        value: the estimate; None for a heading, or when the figure is not defined.
        low: lower end of the interval.
        high: upper end of the interval.
        text: what stands at the right: the value in figures, or why there is none.
        style: of the model that the line is of; None draws in the colour of text.
        heading: whether the line is a heading.
    """

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    text: str = ""
    style: Style | None = None
    heading: bool = False


def forest(rows: Sequence[ForestRow], ident: str, *, title: str, axis: str, reference: float, columns: str) -> str:
    """Draw estimates with their intervals, one below the other.

    Args:
        rows: from top to bottom.
        ident: prefix of the ids within the SVG, unique in the page.
        title: text for those who cannot see the figure.
        axis: name of the quantity.
        reference: where a dashed line stands: 0.5 for an AUC that knows nothing, 0 for no difference.
        columns: heading above the texts at the right.

    Returns:
        An `<svg>` element.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": ident}):
        height = 0.78 + 0.27 * len(rows)
        figure = Figure(figsize=(6.9, height))
        axes = figure.add_axes((0.27, 0.5 / height, 0.45, 1 - 0.78 / height))
        axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=[], xlabel=axis)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.axvline(reference, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        for number, row in enumerate(rows):
            _forest_row(axes, number, row)
        axes.locator_params(axis="x", nbins=5)
        place = axes.get_yaxis_transform()
        axes.text(1.03, -0.85, columns, ha="left", va="center", transform=place, fontsize=8.5, alpha=0.8)
        return _svg(figure, ident, title)


def _forest_row(axes: Any, place: int, row: ForestRow) -> None:
    beside = {"transform": axes.get_yaxis_transform(), "va": "center"}
    behind = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5}  # the grid does not run through the words
    if row.heading:
        axes.text(-0.59, place, _short(row.label, 70), weight="bold", ha="left", bbox=behind, **beside)
        return
    axes.text(-0.035, place, _short(row.label, 32), ha="right", fontsize=9 if len(row.label) <= 25 else 8, **beside)
    if row.value is None:
        axes.text(0.03, place, row.text, ha="left", style="italic", bbox=behind, **beside)
        return
    axes.text(1.03, place, row.text, ha="left", **beside)
    color, marker = (row.style.color, row.style.marker) if row.style else (_INK, "D")
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [place, place], color=color, linewidth=2.4, solid_capstyle="butt")
    axes.plot([row.value], [place], marker=marker, color=color, markersize=5.8, markeredgecolor=_PAPER)


def roc(levels: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Style], ident: str, heading: str) -> str:
    """Draw the ROC curves of several models, with their bands where `curves.roc` has `low` and `high`.

    Args:
        levels: by model: one level of `evaluate()`'s result (`metrics`, `confusion`, `curves`).
        looks: by model.
        ident: prefix of the ids within the SVG, unique in the page.
        heading: of the figure.

    Returns:
        An `<svg>` element. A marker stands at each model's threshold chosen on validation.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": ident}):
        figure, axes = _square(
            heading, len(levels), "1 − specificity (false positive rate)", "Sensitivity (true positive rate)"
        )
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (3, 3)), alpha=0.6)
        band = 0.3 / max(2, len(levels))  # many bands over each other would hide the curves
        for model, level in levels.items():
            curve = (level.get("curves") or {}).get("roc")
            if not curve:
                continue
            look, auc = looks[model], (level["metrics"].get("auc") or {}).get("value")
            if curve.get("low") and curve.get("high"):
                axes.fill_between(curve["x"], curve["low"], curve["high"], color=look.color, alpha=band, linewidth=0)
            axes.plot(curve["x"], curve["y"], color=look.color, linestyle=look.dash, label=_label(model, auc))
            _operating_point(axes, level, look)
        _legend(figure, axes, "AUC")
        return _svg(figure, ident, f"{heading}: ROC curves of {', '.join(levels)}")


def _operating_point(axes: Any, level: Mapping[str, Any], look: Style) -> None:
    counts = (level.get("confusion") or {}).get("youden")
    if not counts or not counts["tp"] + counts["fn"] or not counts["fp"] + counts["tn"]:
        return
    x, y = counts["fp"] / (counts["fp"] + counts["tn"]), counts["tp"] / (counts["tp"] + counts["fn"])
    axes.plot([x], [y], marker=look.marker, color=look.color, markersize=7, markeredgecolor=_PAPER, zorder=5)


def precision_recall(
    levels: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Style], ident: str, heading: str
) -> str:
    """Draw the precision-recall curves of several models; the dashed line is the prevalence. Arguments as for `roc`."""
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": ident}):
        figure, axes = _square(heading, len(levels), "Recall (sensitivity)", "Precision (positive predictive value)")
        for model, level in levels.items():
            curve = (level.get("curves") or {}).get("pr")
            if not curve:
                continue
            look, area = looks[model], (level["metrics"].get("average_precision") or {}).get("value")
            axes.plot(curve["x"], curve["y"], color=look.color, linestyle=look.dash, label=_label(model, area))
        first = next(iter(levels.values()))
        if first.get("n"):
            axes.axhline(first["positive"] / first["n"], color=_INK, linewidth=1, linestyle=(0, (3, 3)), alpha=0.6)
        _legend(figure, axes, "Average precision")
        return _svg(figure, ident, f"{heading}: precision-recall curves of {', '.join(levels)}")


def calibration(
    level: Mapping[str, Any], scores: np.ndarray, labels: np.ndarray, *, look: Style, ident: str, model: str
) -> str:
    """Draw one model's reliability diagram above the histogram of its scores.

    Args:
        level: one level of `evaluate()`'s result.
        scores: (N,) probabilities, 0 to 1.
        labels: (N,) 0 or 1.
        look: the model's.
        ident: prefix of the ids within the SVG, unique in the page.
        model: its name, the figure's heading.

    Returns:
        An `<svg>` element. A point's area grows with the number of images in its bin.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": ident}):
        figure = Figure(figsize=(3.5, 4.3))
        axes = figure.add_axes((0.16, 0.36, 0.80, 0.58))
        below = figure.add_axes((0.16, 0.11, 0.80, 0.19))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="Observed frequency", xticklabels=[])
        axes.set_title(_short(model, 34))
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (3, 3)), alpha=0.6)
        curve = (level.get("curves") or {}).get("calibration")
        if curve and curve["predicted"]:
            counts = np.asarray(curve["count"], dtype=float)
            axes.plot(curve["predicted"], curve["observed"], color=look.color, linewidth=1.2)
            axes.scatter(curve["predicted"], curve["observed"], s=16 + 130 * counts / counts.max(), color=look.color,
                         edgecolors=_PAPER, zorder=3)  # fmt: skip
        bins = np.linspace(0, 1, 21).tolist()
        below.hist([scores[labels == 0], scores[labels == 1]], bins=bins, stacked=True, color=[_LINE, look.color],
                   edgecolor=_INK, linewidth=0.3)  # fmt: skip
        below.set(xlim=(-0.02, 1.02), xlabel="Score", ylabel="Images")
        below.locator_params(axis="y", nbins=3)
        return _svg(figure, ident, f"Calibration of {model}, and the histogram of its scores")


def training(epochs: Sequence[Sequence[Mapping[str, Any]]], look: Style, ident: str, model: str) -> str:
    """Draw one network's training: loss of training and validation above, AUC of validation below.

    Args:
        epochs: one list a fold, of the lines of `epochs.jsonl`: `epoch`, `train_loss`, `val_loss`, `val_auc`.
        look: the model's.
        ident: prefix of the ids within the SVG, unique in the page.
        model: its name, the figure's heading.

    Returns:
        An `<svg>` element. A marker stands at each fold's best epoch, whose weights were kept.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": ident}):
        figure = Figure(figsize=(3.7, 4.1))
        upper, lower = figure.add_axes((0.17, 0.54, 0.79, 0.39)), figure.add_axes((0.17, 0.115, 0.79, 0.35))
        faint = 1.0 if len(epochs) == 1 else 0.65
        for number, lines in enumerate(epochs):
            x = [line["epoch"] for line in lines]
            named = number == 0
            for key, dash, label in (("train_loss", (0, (3, 1.5)), "training"), ("val_loss", "solid", "validation")):
                upper.plot(x, _column(lines, key), color=look.color, linestyle=dash, alpha=faint, linewidth=1.4,
                           label=label if named else None)  # fmt: skip
            auc = _column(lines, "val_auc")
            lower.plot(x, auc, color=look.color, alpha=faint, linewidth=1.4)
            if np.isfinite(auc).any():
                best = int(np.nanargmax(auc))
                lower.plot([x[best]], [auc[best]], marker=look.marker, color=look.color, markeredgecolor=_PAPER)
        upper.set_title(_short(model, 34))
        upper.set(ylabel="Loss")
        lower.set(ylabel="Validation AUC", xlabel="Epoch")
        for axes in (upper, lower):
            axes.locator_params(axis="x", integer=True)
        lower.sharex(upper)
        upper.tick_params(labelbottom=False)
        upper.legend(loc="best", handlelength=2.4)
        return _svg(figure, ident, f"Training of {model}: loss and validation AUC by epoch")


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if line.get(key) is None else line[key] for line in lines], dtype=float)


def _square(heading: str, curves: int, x: str, y: str) -> tuple[Any, Any]:
    """A square plot with room below it for a legend of two columns, where it hides nothing."""
    legend = 0.32 + 0.18 * ((curves + 1) // 2)
    height = 4.55 + legend
    figure = Figure(figsize=(4.6, height))
    axes = figure.add_axes((0.125, (0.55 + legend) / height, 0.85, 3.72 / height))
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), xlabel=x, ylabel=y)
    axes.set_title(heading)
    return figure, axes


def _legend(figure: Any, axes: Any, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        spacing = {"handlelength": 2.8, "labelspacing": 0.35, "borderpad": 0, "columnspacing": 1.6}
        below = {"loc": "lower left", "bbox_to_anchor": (0.115, 0.0), "ncols": 2, "alignment": "left"}
        figure.legend(handles, labels, title=title, **below, **spacing)


def _label(model: str, value: float | None) -> str:
    return _short(model, 20) + ("" if value is None else f" {value:.3f}")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _svg(figure: Any, ident: str, title: str) -> str:
    """The figure as one element: no prolog, ids with a prefix, colours by CSS variable, a title for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", buffer.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], ident), text[text.index("<svg") :])
    name = f"{ident}-title"
    start = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"'
    box = re.search(r'viewBox="[^"]*"', text)
    return (
        f'{start} {box[0] if box else ""} aria-labelledby="{name}"><title id="{name}">{html.escape(title)}</title>'
        + text[text.index(">") + 1 :].strip()
    )


def _for_page(tag: str, ident: str) -> str:
    """One tag of a drawing as it stands in a page. Text between tags is left alone: a model may be named `id="x"`."""
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{ident}-", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, variable)
    return re.sub(r"font-family: [^;\"]*;? ?", "", tag).replace(" \n", " ")
