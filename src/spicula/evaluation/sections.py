"""The report's sections: from a study's data to what the templates print, one function a section."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from spicula.curate.strata import sides_of
from spicula.evaluation import figures, findings, galleries, results, tables, wording
from spicula.evaluation.figures import Style
from spicula.evaluation.pictures import Album
from spicula.evaluation.report_input import ReportInput

#: Rows of a list that may be very long; what is beyond is counted.
LISTED = 100


def assemble(data: ReportInput) -> dict[str, Any]:
    """Return everything the templates need, by section."""
    names = list(data.metrics["models"])
    cards = [tables.model_card(name, data.runs[name]) for name in names]
    looks = figures.styles(names)
    album = Album(data.store, data.index)
    metrics, levels = data.metrics, results.levels_of(data.metrics)
    return {
        "target": metrics["target"],
        "models": cards,
        "looks": looks,
        "levels": levels,
        "one_image_each": len(levels) < len(metrics["levels"]),
        "summary": summary(data, cards, looks),
        "material": material(data, album),
        "comparison": results.comparison(metrics, looks),
        "image_split": results.image_split(metrics, data.image_split_metrics),
        "curves": results.curves(metrics, data.predictions, looks),
        "confusions": results.confusions(metrics),
        "training": training(cards, looks),
        "subgroups": results.subgroups(metrics),
        "mistakes": galleries.confident_mistakes(data, album),
        "cams": galleries.cams(data, cards, album),
        "checks": checks(data, album),
        "provenance": provenance(data, cards),
    }


def summary(data: ReportInput, cards: Sequence[tables.ModelCard], looks: Mapping[str, Style]) -> dict[str, Any]:
    """The first thing read: the headline, the questions' answers, one figure, and what weakens them."""
    metrics, levels = data.metrics, results.levels_of(data.metrics)
    told = levels[:2]  # images, and patients by their mean: the other levels stand in the tables
    described = {card.name: {"line": card.line, "settings": card.settings} for card in cards}
    asked = data.questions or findings.questions(described)
    unfinished = [card.name for card in cards if any(run.get("status") != "complete" for run in card.runs)]
    return {
        "headline": findings.headline(metrics["models"], "image"),
        "answers": [wording.answer(one, metrics["comparisons"], told) for one in asked],
        "forest": Markup(results.auc_forest(metrics, looks)),
        "warnings": findings.warnings(
            metrics,
            unit=data.split_unit,
            synthetic=data.synthetic,
            rejected=data.rejected.num_rows,
            near_duplicates=len(data.near_duplicates),
            unfinished=unfinished,
        ),
    }


def material(data: ReportInput, album: Album) -> dict[str, Any]:
    """What data: counts by side, class and patient, and example images."""
    sides = tables.sides(data.index)
    labels = sorted({label for side in sides for label in side.labels})
    return {
        "sides": sides,
        "labels": labels if set(labels) - set(data.classes) else [],
        "folded": any(side.name.startswith("Fold") for side in sides),
        "per_patient": tables.images_per_patient(data.index),
        "examples": [(name, galleries.examples(data, album, target)) for target, name in enumerate(data.classes)],
        "outlined": any(data.index["lesions"].to_pylist()),
    }


def training(cards: Sequence[tables.ModelCard], looks: Mapping[str, Style]) -> dict[str, Any]:
    """Training curves of the networks, and which models have none."""
    with_epochs = [card for card in cards if any(card.epochs)]
    drawn = [
        Markup(figures.training([one for one in card.epochs if one], looks[card.name], f"train{number}", card.name))
        for number, card in enumerate(with_epochs)
    ]
    return {"figures": drawn, "without": [card.name for card in cards if card not in with_epochs]}


def checks(data: ReportInput, album: Album) -> dict[str, Any]:
    """Near-duplicates across the sides, and the files that could not be used."""
    side_of = dict(zip(data.index["image_id"].to_pylist(), sides_of(data.index), strict=True))
    near = sorted(data.near_duplicates, key=lambda pair: (pair.distance, pair.first, pair.second))
    rejected = data.rejected.to_pylist()
    return {
        "pairs": [(pair, side_of[pair.first], side_of[pair.second]) for pair in near[:LISTED]],
        "more_pairs": max(0, len(near) - LISTED),
        "pictures": galleries.pairs(near, side_of, album),
        "rejected": rejected[:LISTED],
        "more_rejected": max(0, len(rejected) - LISTED),
    }


def provenance(data: ReportInput, cards: Sequence[tables.ModelCard]) -> dict[str, Any]:
    """Exact settings of every model, digests and versions."""
    versions = dict(data.versions)
    for card in cards:
        for name, version in (card.runs[0].get("versions") or {}).items():
            versions.setdefault(name, version)
    return {
        "settings": {card.name: json.dumps(card.settings, indent=2, ensure_ascii=False) for card in cards},
        "digests": dict(data.digests),
        "versions": versions,
    }
