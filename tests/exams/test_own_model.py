"""A classifier that Spicula trained, on an exam: images to breasts, and what lies outside of its scope."""

import hashlib

import numpy as np
import pytest
from bundle_maker import content, dicom, make

from spicula.convert import png
from spicula.exams.own_model import classify_own
from spicula.exams.types import VIEWS, ImageFile, RefusedExamError


def image(folder, name, view, value):
    """An image of one 16-bit value; the bundle's score is its brightness."""
    path = folder / f"{name}.png"
    path.write_bytes(png.encode(np.full((20, 30), value, np.uint16)))
    return ImageFile(name, view, str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_breast_gets_the_mean_of_its_images(tmp_path):
    bundle = make(tmp_path / "own")
    values = {"L-CC": 13107, "R-CC": 26214, "L-MLO": 39321, "R-MLO": 52428}
    images = [image(tmp_path, view, view, value) for view, value in values.items()]
    images.append(image(tmp_path, "second", "R-MLO", 65535))
    found = {(one.side, one.target): one.score for one in classify_own(images, bundle)}
    assert found == pytest.approx({("L", "bright"): 0.4, ("R", "bright"): (0.4 + 0.8 + 1.0) / 3}, abs=1e-5)


def test_only_sides_that_have_images_get_scores(tmp_path):
    bundle = make(tmp_path / "own")
    assert [one.side for one in classify_own([image(tmp_path, "a", "R-CC", 6554)], bundle)] == ["R"]


def test_an_image_outside_the_scope_refuses_the_exam_and_names_nobody(tmp_path):
    scope = content()["scope"] | {"modalities": ["US"]}
    bundle = make(tmp_path / "own", scope=scope)
    path = dicom(tmp_path / "a.dcm")
    images = [ImageFile("a", VIEWS[0], str(path), hashlib.sha256(path.read_bytes()).hexdigest())]
    with pytest.raises(RefusedExamError, match=r"^a \(L-CC\): .*MG") as refused:
        classify_own(images, bundle)
    assert "anary" not in str(refused.value)


def test_a_damaged_image_refuses_the_exam(tmp_path):
    bundle = make(tmp_path / "own")
    path = tmp_path / "a.png"
    whole = png.encode(np.arange(600, dtype=np.uint16).reshape(20, 30))
    path.write_bytes(whole[: len(whole) // 2])
    images = [ImageFile("a", "L-CC", str(path), hashlib.sha256(path.read_bytes()).hexdigest())]
    with pytest.raises(RefusedExamError, match=r"^a \(L-CC\): "):
        classify_own(images, bundle)
