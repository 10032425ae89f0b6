"""The published four-view procedure, after its description: what `benchmarks/exam.py` compares Spicula with.

Each stage is a process of its own, and files stand between them:

    python benchmarks/published_exam.py STAGE FOLDER WEIGHTS

FOLDER holds `images/<exam>_<view>.png`; a stage adds `cropped/*.png` and `crop.json`, `centers.json`, `heatmaps/*.h5`,
`image.csv`, `imageheatmaps.csv`. WEIGHTS holds the weight files `patch.pt`, `image.pt`, `imageheatmaps.pt`.

Plain on purpose: eager PyTorch, all patches in memory, batches of 100 patches, one window of all views at a time, a
hundred iterations of erosion and of dilation over the whole image.

Source: Wu N et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer Screening. IEEE
Transactions on Medical Imaging 39(4), 1184-1194, and the behaviour of its published implementation.
"""
# ruff: noqa: PLC0415  each stage imports what it needs in its own process

import importlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

VIEWS = ("L-CC", "R-CC", "L-MLO", "R-MLO")
SIZES = {"CC": (2677, 1942), "MLO": (2974, 1748)}
PATCH, STRIDE, BATCH = 256, 70, 100
ITERATIONS, BUFFER, WINDOWS = 100, 50, 10
OUTPUTS = ("left_benign", "right_benign", "left_malignant", "right_malignant")

Array = np.ndarray


def main() -> None:
    stage, folder, weights = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    stages: dict[str, Callable[[], None]] = {
        "crop": lambda: crop(folder),
        "centers": lambda: centers(folder),
        "heatmaps": lambda: heatmaps(folder, weights),
        "image": lambda: classify(folder, weights, "image", 1),
        "imageheatmaps": lambda: classify(folder, weights, "imageheatmaps", 3),
    }
    stages[stage]()


def read(path: Path) -> Array:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return np.asarray(image)


def load(path: Path) -> Any:
    return json.loads(path.read_text())


# stage 1


def crop(folder: Path) -> None:
    flip = load(folder / "exam.json")["horizontal_flip"]
    (folder / "cropped").mkdir()
    found = {}
    for view in VIEWS:
        (path,) = (folder / "images").glob(f"*_{view}.png")
        image = read(path)
        found[view] = crop_one(image, faces_left=(view[0] == "R") == (flip == "NO"))
        top, bottom, left, right = found[view]["window_location"]
        cv2.imwrite(str(folder / "cropped" / f"{view}.png"), image[top:bottom, left:right])
    (folder / "crop.json").write_text(json.dumps(found))


def crop_one(image: Array, faces_left: bool) -> dict[str, Any]:
    from scipy import ndimage

    mask = ndimage.binary_erosion(image > 0, iterations=ITERATIONS)
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask = ndimage.binary_dilation(labels == sizes.argmax(), iterations=ITERATIONS)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    last, xs = bottom - 1, np.flatnonzero(mask[bottom - 1])
    start = image.shape[1] - right if faces_left else left
    edge = right
    top, bottom = max(0, top - BUFFER), min(image.shape[0], bottom + BUFFER)
    if faces_left:
        left = max(0, left - BUFFER)
        lowest = (edge - xs[-1], edge - xs[0])
    else:
        right = min(image.shape[1], right + BUFFER)
        lowest = (xs[0] - left, xs[-1] - left)
    window = mask[top:bottom, left:right]
    ignored = int(window.shape[0] / 3)
    below = window[ignored:]
    columns = np.flatnonzero(below.any(axis=0))
    tip = columns[0] if faces_left else columns[-1]
    ys = np.flatnonzero(below[:, tip]) + ignored
    return {
        "window_location": [int(one) for one in (top, bottom, left, right)],
        "rightmost_points": [[int(ys[0]), int(ys[-1])], int(window.shape[1] - tip if faces_left else tip)],
        "bottommost_points": [int(last - top), [int(one) for one in lowest]],
        "distance_from_starting_side": int(start),
    }


# stage 2


def centers(folder: Path) -> None:
    found = {}
    for view, data in load(folder / "crop.json").items():
        image = turned(read(folder / "cropped" / f"{view}.png"), folder, view)
        found[view] = best_center(image, data, view[2:])
    (folder / "centers.json").write_text(json.dumps(found))


def turned(image: Array, folder: Path, view: str) -> Array:
    """The image as the networks see it, and the other way back."""
    flip = load(folder / "exam.json")["horizontal_flip"] == "YES"
    return image[:, ::-1] if (view[0] == "R") != flip else image


def best_center(image: Array, data: dict[str, Any], angle: str) -> list[int]:
    size = np.array(SIZES[angle])
    half, middle = size // 2, np.array(image.shape) // 2
    tip, bottom = data["rightmost_points"][1], data["bottommost_points"][0]
    first, last = half.copy(), np.array(image.shape) - (size - half)
    for axis in (0, 1):
        if first[axis] >= last[axis]:
            first[axis] = last[axis] = middle[axis]
    last = last + 1
    if angle == "CC":
        first[1], last[1] = tip - half[1] - 1, tip - half[1]
    else:
        bottom = min(bottom, int(np.flatnonzero(image[:, -size[1] :].any(axis=1))[-1]))
        first, last = np.array([bottom, tip]) - half - 1, np.array([bottom, tip]) - half
    candidates = [(y, x) for y in range(first[0], last[0]) for x in range(first[1], last[1])]
    if len(candidates) == 1:
        return [int(one) for one in first]
    counts = []
    for center in candidates:
        start = np.array(center) - half
        cut = np.maximum(0, -start)
        top, left = np.maximum(0, start)
        end = np.minimum(image.shape, np.array(center) + (size - half) + cut)
        counts.append(np.count_nonzero(image[top : end[0], left : end[1]]))
    best = [one for one, count in zip(candidates, counts, strict=True) if count == max(counts)]
    nearest = min(best, key=lambda one: (one[0] - middle[0]) ** 2 + (one[1] - middle[1]) ** 2)
    return [int(one) for one in nearest]


# stage 3


def heatmaps(folder: Path, weights: Path) -> None:
    import h5py
    import torch

    from spicula.models.screening import published

    network = published.read(weights / "patch.pt", "patch")
    (folder / "heatmaps").mkdir()
    random.seed(0)
    for view in VIEWS:
        image = turned(read(folder / "cropped" / f"{view}.png"), folder, view).astype(np.float64)
        image = (image - image.mean()) / max(image.std(), 1e-5)
        tops, lefts = starts(image.shape[0]), starts(image.shape[1])
        places = [(y, x) for x in lefts for y in tops]
        patches = [image[y : y + PATCH, x : x + PATCH].astype(np.float32) for y, x in places]
        answers = []
        for at in range(0, len(patches), BATCH):
            batch = torch.from_numpy(np.repeat(np.stack(patches[at : at + BATCH])[:, None], 3, axis=1))
            with torch.no_grad():
                answers.append(network(batch).softmax(dim=1).numpy())
        probabilities = np.concatenate(answers)
        for number, name in enumerate(("malignant", "benign")):
            total, count = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
            for (y, x), probability in zip(places, probabilities[:, number], strict=True):
                total[y : y + PATCH, x : x + PATCH] += probability
                count[y : y + PATCH, x : x + PATCH] += 1
            with h5py.File(folder / "heatmaps" / f"{view}_{name}.h5", "w") as file:
                file["image"] = turned(total / count, folder, view).T


def starts(length: int) -> list[int]:
    number, left = (length - PATCH) // STRIDE + 1, (length - PATCH) % STRIDE
    strides = [STRIDE] * (number - 1)
    if left:
        overlap, steps = STRIDE - left, number
        shorter = random.sample(range(steps), overlap % steps)
        strides = [STRIDE - overlap // steps - (step in shorter) for step in range(steps)]
    return [0, *(int(one) for one in np.cumsum(strides))]


# stage 4


def classify(folder: Path, weights: Path, name: str, channels: int) -> None:
    import h5py
    import torch

    from spicula.models.screening import published
    from spicula.models.screening.view_wise import Angle

    network: Any = published.read(weights / f"{name}.pt", "image-only" if channels == 1 else "image-and-heatmaps")
    angles = [Angle(network, angle).eval() for angle in ("cc", "mlo")]
    best = load(folder / "centers.json")
    exam: dict[str, list[list[Array]]] = {}
    for view in VIEWS:
        read_in = [turned(read(folder / "cropped" / f"{view}.png"), folder, view)]
        for kind in ("benign", "malignant") if channels == 3 else ():
            with h5py.File(folder / "heatmaps" / f"{view}_{kind}.h5") as file:
                read_in.append(turned(np.array(file["image"]).T, folder, view))
        exam[view] = [read_in]
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "exams"))
    windows = importlib.import_module("published_windows").published_windows
    found = []
    for window in windows(exam, {view: [best[view]] for view in VIEWS}, WINDOWS):
        views = [torch.from_numpy(window[view][None]) for view in VIEWS]
        with torch.no_grad():
            found.append((angles[0](*views[:2]) + angles[1](*views[2:])).numpy()[0] / 2)
    row = ",".join(f"{one:.7f}" for one in np.mean(found, axis=0))
    (folder / f"{name}.csv").write_text(",".join(OUTPUTS) + "\n" + row + "\n")


if __name__ == "__main__":
    main()
