"""A small study made in code, as the report's tests take it: real Store, real metrics, runs written by hand."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from spicula import index, predictions
from spicula.catalog.types import Dataset
from spicula.evaluation.evaluate import evaluate
from spicula.evaluation.mistakes import to_explain
from spicula.evaluation.report_input import NearDuplicate, ReportInput
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store

#: Stands in every patient_id: must never be seen in a report.
CANARY = "Canary^Patricia"
CLASSES = ("benign", "malignant")
SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {"line": "linear", "classifier": "logistic"},
    "cnn": {"line": "cnn", "weights": None, "expand": "none", "augment": "none", "epochs": 3},
    "cnn-augmented": {"line": "cnn", "weights": None, "expand": "rotate-flip", "augment": "none", "epochs": 3},
    "dense": {"line": "timm:densenet121", "weights": "/home/someone/private/dense.safetensors", "train": "head"},
}
_STRENGTH = {"linear": 0.6, "cnn": 0.9, "cnn-augmented": 1.0, "dense": 2.5}


def make(
    folder: Path,
    *,
    patients: int = 30,
    images: int = 2,
    folds: int | None = None,
    only_negative_tests: bool = False,
    hostile: str = "",
    **changes: Any,
) -> ReportInput:
    """Return the input of a report on `patients` times `images` made-up mammograms with a lesion outlined in each.

    `hostile` goes into every text that a user's data can bring along.
    """
    rng = np.random.default_rng(7)
    rows = []
    for patient in range(patients):
        for number in range(images):
            target = int(patient % 3 == 0 and number == 0)
            split = ("train", "val", "test", "test")[patient // 3 % 4]
            if only_negative_tests and split == "test":
                target = 0
            rows.append(
                _row(folder, rng, patient, number, target=target, hostile=hostile) | _side(patient, split, folds)
            )
    table = index.from_rows(rows, folder)
    store = build_store(table, Preprocess(size=(48, 40), channels=1), folder / "store", jobs=1)
    scored = {name: _predict(rows, name, rng, folds) for name in SETTINGS}
    metrics = evaluate(table, scored, seed=0, resamples=200)
    wanted = to_explain({name: scored[name] for name in SETTINGS if name != "linear"}, metrics)
    values: dict[str, Any] = {
        "title": f"A made-up study {hostile}".strip(),
        "question": f"Does anything help? {hostile}".strip(),
        "dataset": Dataset(
            "made-up", f"Made-up mammograms {hostile}", "https://example.org/made-up", f"free {hostile}", hostile,
            CLASSES, lambda *_: None, "none",
        ),
        "synthetic": True,
        "classes": (f"benign{hostile}", f"malignant{hostile}"),
        "index": table,
        "rejected": pa.Table.from_pylist(
            [{"path": f"broken{hostile}.png", "reason": f"cut short {hostile}"}], schema=index.REJECTED
        ),
        "store": store,
        "metrics": metrics,
        "predictions": scored,
        "runs": {name: _runs(folder, name, folds) for name in SETTINGS},
        "recipe_text": f'name = "made-up" # {hostile}',
        "created": datetime(2026, 11, 21, 9, 30, tzinfo=UTC),
        "digests": {"Index": index.digest(table)},
        "versions": {"Python": "3.12"},
        "near_duplicates": [NearDuplicate(rows[0]["image_id"], rows[-1]["image_id"], 3)],
        "cams": {name: {one: _map(one) for one in wanted} for name in SETTINGS if name != "linear"},
    }  # fmt: skip
    return ReportInput(**(values | changes))


def _row(
    folder: Path, rng: np.random.Generator, patient: int, number: int, *, target: int, hostile: str
) -> dict[str, Any]:
    image = rng.integers(0, 60, (96, 80), dtype=np.uint8)
    x, y = 20 + 10 * (patient % 4), 30 + 5 * number
    cv2.circle(image, (x, y), 9, 200 if target else 120, -1)
    path = f"{patient}-{number}.png"
    cv2.imwrite(str(folder / path), image)
    return {
        "dataset": "made-up",
        "image_id": f"image-{patient}-{number}{hostile}",
        "patient_id": f"{CANARY}-{patient}",
        "path": path,
        "label": CLASSES[target] if patient % 5 else "normal" + hostile,
        "target": target,
        "density": "ABCD"[patient % 4],
        "lesions": [{"kind": "circle", "coordinates": [float(x), float(y), 9.0]}],
    }


def _side(patient: int, split: str, folds: int | None) -> dict[str, Any]:
    return {"split": split} if folds is None else {"fold": patient // 3 % folds}


def _predict(rows: list[dict[str, Any]], name: str, rng: np.random.Generator, folds: int | None) -> pa.Table:
    found = []
    for row in rows:
        sides = [(row["split"], None)] if folds is None else [("test", row["fold"]), ("val", (row["fold"] - 1) % folds)]
        for split, fold in sides:
            if split == "train":
                continue
            margin = _STRENGTH[name] * (2 * row["target"] - 1) + rng.normal()
            found.append(
                {"id": row["image_id"], "patient_id": row["patient_id"], "target": CLASSES[1], "label": row["target"],
                 "score": float(1 / (1 + np.exp(-margin))), "split": split, "fold": fold, "model": name,
                 "model_digest": name.encode().hex().ljust(64, "0")[:64]}
            )  # fmt: skip
    return predictions.from_rows(found)


def _runs(folder: Path, name: str, folds: int | None) -> list[Path]:
    made = []
    for fold in range(folds or 1):
        run = folder / "runs" / name / str(fold)
        run.mkdir(parents=True)
        is_linear = name == "linear"
        card = {
            "status": "complete", "key": "c" * 64, "name": name, "line": SETTINGS[name]["line"],
            "fold": fold if folds else None, "seed": 0, "settings": {"name": name, **SETTINGS[name]},
            "versions": {"torch": "2.13.0"}, "parameters": 12345, "seconds": 61.0,
            "images_per_second": None if is_linear else 250.0, "best_epoch": None if is_linear else 2,
            "device": "cpu", "precision": "float32", "chosen": {"C": 0.01, "auc_by_C": {}} if is_linear else {},
            "model_digest": name.encode().hex().ljust(64, "0")[:64],
        }  # fmt: skip
        (run / "run.json").write_text(json.dumps(card))
        if not is_linear:
            lines = [
                {"epoch": e, "train_loss": 0.7 / e, "val_loss": 0.8 / e, "val_auc": None if e == 1 else 0.6 + 0.1 * e}
                for e in (1, 2, 3)
            ]
            (run / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        made.append(run)
    return made


def _map(image_id: str) -> np.ndarray:
    heat = np.zeros((48, 40), np.float32)
    heat[len(image_id) % 30 :, 10:20] = 1.0
    return heat
