"""The report's pictures: examples, confident mistakes, what the networks looked at, near-duplicates."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spicula.evaluation import mistakes, tables, wording
from spicula.evaluation.mistakes import Called
from spicula.evaluation.pictures import Album, Picture, heat_scale
from spicula.evaluation.report_input import NearDuplicate, ReportInput

#: Example images of each class.
EXAMPLES = 6
#: Pairs of near-duplicates that are shown as pictures.
PAIRS_SHOWN = 6

_KINDS = {"missed": "Missed", "false alarm": "False alarm", "found": "Found", "passed": "Rightly passed"}


def examples(data: ReportInput, album: Album, target: int) -> list[Picture]:
    """Images of a class, each of another patient as far as there are so many; the same ones every time."""
    rows = data.index.select(["image_id", "patient_id", "label", "target"]).to_pylist()
    rows = [row for row in rows if row["target"] == target and row["image_id"] in album]
    rows.sort(key=lambda row: hashlib.sha256(row["image_id"].encode()).digest())
    seen: dict[Any, int] = {}
    for row in rows:
        row["turn"] = seen[row["patient_id"]] = seen.get(row["patient_id"], -1) + 1
    rows.sort(key=lambda row: row["turn"])
    name = data.classes[target]
    return [
        album.show(row["image_id"], f"Example of {name}: image {row['image_id']}", (row["image_id"],))
        for row in rows[:EXAMPLES]
    ]


def confident_mistakes(data: ReportInput, album: Album) -> list[dict[str, Any]]:
    """The mistakes on which each model was surest, as pictures; networks with what they looked at."""
    found = []
    for name in data.metrics["models"]:
        verdicts = mistakes.called(data.predictions[name], mistakes.image_thresholds(data.metrics, name))
        maps = data.cams.get(name, {})
        kinds = []
        for kind in ("missed", "false alarm"):
            chosen = [one for one in mistakes.most_confident(verdicts, kind) if one.image_id in album]
            total = sum(one.kind == kind for one in verdicts)
            kinds.append((_KINDS[kind], total, [_mistake(one, name, data, album, maps) for one in chosen]))
        found.append({"model": name, "verdicts": len(verdicts), "kinds": kinds, "explained": bool(maps)})
    return found


def _mistake(
    one: Called, model: str, data: ReportInput, album: Album, maps: Mapping[str, np.ndarray]
) -> tuple[Picture, Picture | None]:
    truth = data.classes[one.label]
    caption = (f"score {wording.number(one.score)}", f"truth: {truth}", one.image_id)
    alt = f"{_KINDS[one.kind]} by {model}: image {one.image_id}, truth {truth}, score {one.score:.3f}"
    if one.image_id not in maps:
        return album.show(one.image_id, alt, caption), None
    plain = album.show(one.image_id, alt, caption + _if_empty(maps[one.image_id], data))
    return plain, album.show(one.image_id, f"Grad-CAM of {model} over image {one.image_id}", (), maps[one.image_id])


def cams(data: ReportInput, cards: Sequence[tables.ModelCard], album: Album) -> dict[str, Any]:
    """The same images as every network saw them."""
    networks = [card.name for card in cards if card.line != "linear"]
    asked = [name for name in networks if data.cams.get(name)]
    verdicts = {
        name: mistakes.called(data.predictions[name], mistakes.image_thresholds(data.metrics, name)) for name in asked
    }
    rows = []
    for kind, image_id in mistakes.explained(verdicts) if verdicts else []:
        if image_id not in album or any(image_id not in data.cams[name] for name in asked):
            continue
        scores = {name: next(one for one in verdicts[name] if one.image_id == image_id) for name in asked}
        truth = data.classes[next(iter(scores.values())).label]
        plain = album.show(image_id, f"Image {image_id}, truth {truth}", (f"truth: {truth}", image_id))
        over = {name: _overlay(one, name, data, album) for name, one in scores.items()}
        rows.append({"kind": _KINDS[kind], "plain": plain, "overlays": over})
    return {
        "networks": asked,
        "without": [name for name in networks if name not in asked],
        "rows": rows,
        "scale": heat_scale(),
    }


def _overlay(one: Called, model: str, data: ReportInput, album: Album) -> Picture:
    heat = data.cams[model][one.image_id]
    caption = (f"score {wording.number(one.score)}", _KINDS[one.kind].lower(), *_if_empty(heat, data))
    alt = f"Grad-CAM of {model} over image {one.image_id}, score {one.score:.3f}"
    return album.show(one.image_id, alt, caption, heat)


def _if_empty(heat: np.ndarray, data: ReportInput) -> tuple[str, ...]:
    """What to say under a heatmap that shows nothing, so that nobody takes it for a fault."""
    return () if heat.any() else (f"nothing spoke for {data.classes[1]}",)


def pairs(near: Sequence[NearDuplicate], side_of: Mapping[str, str | None], album: Album) -> list[list[Picture]]:
    """The nearest of the near-duplicates, side by side."""
    shown = [pair for pair in near if pair.first in album and pair.second in album][:PAIRS_SHOWN]
    return [
        [
            album.show(image_id, f"Image {image_id}, {side_of[image_id]}", (str(side_of[image_id]), image_id))
            for image_id in (pair.first, pair.second)
        ]
        for pair in shown
    ]
