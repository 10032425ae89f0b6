"""A made-up exam in full, for tests of what is made of it. Every breast has a mark by which it is known again."""

import numpy as np

from spicula.exams.outputs.views import View
from spicula.exams.types import VIEWS

HEIGHT, WIDTH = 200, 100


def crop(view):
    """A half disc on black that enters from its side's edge, with a bright square at the nipple: (H, W) uint16."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    depth = 1 - ((y - 100) / 90) ** 2 - (x / 80) ** 2
    pixels = np.where(depth > 0, 200 + 2000 * depth, 0).astype(np.uint16)
    pixels[90:110, 60:75] = 4000
    return pixels if view.startswith("L") else np.ascontiguousarray(pixels[:, ::-1])


def heat(view, rows):
    """A heatmap that is 1 in some rows near the nipple, and 0.1 elsewhere."""
    found = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    found[rows, 40:60] = 1
    return found if view.startswith("L") else np.ascontiguousarray(found[:, ::-1])


def views(mirrored=False):
    """Image name -> View of the four views; stored mirrored where wanted."""
    found = {}
    for view in VIEWS:
        parts = (crop(view), heat(view, slice(40, 60)), heat(view, slice(140, 160)))
        found[f"image {view}"] = View(*(np.ascontiguousarray(one[:, ::-1]) if mirrored else one for one in parts))
    return found


def image(view, mirrored=False, notes=()):
    """An `ImageDetail`."""
    numbers = {"shape": [HEIGHT, WIDTH], "mean": 0.12, "std": 0.1, "max": 0.87, "blocks8x8": [[0.1] * 8] * 8}
    return {
        "view": view,
        "sha256": view.encode().hex().ljust(64, "0"),
        "frame": 0,
        "mirrored": mirrored,
        "window_location": [10, 210, 0, 100],
        "rightmost_points": [[90, 110], 80],
        "bottommost_points": [190, [0, 4]],
        "distance_from_starting_side": 0,
        "best_center": [101, -33],
        "notes": list(notes),
        "crop": "1" * 64 + ".png",
        "heatmaps": "2" * 64 + ".npz",
        "picture": "3" * 64 + ".png",
        "heatmap_malignant": numbers,
        "heatmap_benign": numbers,
    }


def step(name, model=None, status="ok", error=None, **parameters):
    """A `StepDetail`."""
    stage = name.partition(":")[0]
    return {
        "step": name,
        "stage": stage,
        "version": 7,
        "status": status,
        "error": error,
        "key": f"{name} key".encode().hex().ljust(64, "0")[:64],
        "outputs": f"{name} outputs".encode().hex().ljust(64, "0")[:64] if status == "ok" else None,
        "model": model,
        "about": {"name": "a bundle", "version": "2.3"} if model else {},
        "models": {"classifier": f"{model}".encode().hex().ljust(64, "0")[:64]} if model else {},
        "parameters": parameters,
        "attempts": 1,
        "seconds": 12.345,
        "engine": "local cpu",
        "time": "2026-11-21T10:00:00Z",
        "run": "run-17",
        "spicula": "0.0.7",
    }


SCORES = {
    ("image-only", "left", "benign"): 0.4065420,
    ("image-only", "right", "benign"): 0.2288607,
    ("image-only", "left", "malignant"): 0.6431439,
    ("image-only", "right", "malignant"): 0.3995152,
    ("image-and-heatmaps", "left", "benign"): 0.3977528,
    ("image-and-heatmaps", "right", "benign"): 0.3201640,
    ("image-and-heatmaps", "left", "malignant"): 0.6545302,
    ("image-and-heatmaps", "right", "malignant"): 0.3743795,
}


def predictions(scores=None):
    """`PredictionDetail`s."""
    return [
        {
            "model": model,
            "model_digest": model.encode().hex().ljust(64, "1")[:64],
            "bundle": "b" * 64,
            "bundle_name": "a bundle",
            "version": "2.3",
            "side": side,
            "target": target,
            "score": score,
        }
        for (model, side, target), score in (SCORES if scores is None else scores).items()
    ]


def detail(mirrored=False, **changes):
    """An `ExamDetail` of an exam that is done."""
    return {
        "exam_id": "exam-4711",
        "status": "ok",
        "reasons": [],
        "horizontal_flip": "YES" if mirrored else "NO",
        "notes": [],
        "images": {f"image {view}": image(view, mirrored) for view in VIEWS},
        "predictions": predictions(),
        "steps": [
            step("crop", erosions=100, buffer=50),
            step("centers", cc=[2677, 1942], mlo=[2974, 1748]),
            step("heatmaps", precision="bf16", patch=256),
            step("visualize"),
            step("classify:image-only", "image-only", precision="bf16"),
            step("classify:image-and-heatmaps", "image-and-heatmaps", precision="bf16"),
        ],
        "as_of": None,
        "notice": "Research use only. Not a medical device.",
        **changes,
    }


def refused(reason, step_name="crop"):
    """An `ExamDetail` of an exam that a stage refused."""
    kept = ("view", "sha256", "frame", "notes")
    bare = dict.fromkeys(key for key in image("L-CC") if key not in kept)
    return detail(
        status="refused",
        reasons=[reason],
        horizontal_flip=None,
        images={f"image {view}": {**image(view), **bare} for view in VIEWS},
        predictions=[],
        steps=[step(step_name, status="refused", error=reason)],
    )
