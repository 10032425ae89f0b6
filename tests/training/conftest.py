"""Small studies on generated images: discs, brighter in one class, on noise."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from spicula import index
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import Store, build_store

SIZE = (32, 32)


@dataclass(frozen=True)
class Study:
    table: pa.Table
    store: Store


def write_images(folder: Path, patients: int, images: int) -> list[dict[str, object]]:
    """Half of the patients have a disc in their images. Of five patients, three train, one validates, one tests."""
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        target = patient % 2
        for number in range(images):
            grey = generator.normal(100, 20, SIZE)
            y, x = generator.integers(8, 24, 2)
            rr, cc = np.ogrid[: SIZE[0], : SIZE[1]]
            grey[(rr - y) ** 2 + (cc - x) ** 2 < 36] += 60 if target else 10
            name = f"p{patient:02d}-{number}"
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{name}.png"), grey.clip(0, 255).astype(np.uint8))
            rows.append(
                {
                    "dataset": "discs",
                    "image_id": name,
                    "patient_id": f"p{patient:02d}",
                    "exam_id": f"e{patient:02d}",
                    "laterality": "L" if number % 2 else "R",
                    "path": f"{name}.png",
                    "label": "disc" if target else "none",
                    "target": target,
                    "split": ("train", "train", "train", "val", "test")[patient // 2 % 5],
                }
            )
    return rows


def make_study(folder: Path, patients: int = 20, images: int = 6) -> Study:
    table = index.from_rows(write_images(folder / "images", patients, images), folder / "images")
    return Study(table, build_store(table, Preprocess(size=SIZE, channels=1), folder / "store", jobs=1))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("discs"))
