"""Promise 22: a mirrored exam with exchanged sides is the exam of the other breasts, from the files to the scores."""

import json

import numpy as np
import pytest
from bundle_maker import brightness_model, content, make
from small_bundle import small_bundle
from small_exams import NAMES, breast, small_exam

from spicula.bundle.screening import ScreeningSettings
from spicula.cli import main
from spicula.convert import png
from spicula.imaging.preprocess import Preprocess

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")

OTHER = {"left": "right", "right": "left"}

#: Without what is drawn at random for each view: windows that do not move, and strides that always add up. The windows
#: hold the whole breast, so that the odd pixel of the published centres does not count either.
STILL = ScreeningSettings(
    cc=(128, 96), mlo=(144, 88), erosions=2, buffer=2, patch=32, stride=1, shift=0, resize=0, windows=1
)


@pytest.fixture
def source(tmp_path):
    """Three exams: as it is; mirrored; mirrored with exchanged sides."""
    folder = tmp_path / "in"
    small_exam(folder / "plain", 5)
    for exam in ("mirrored", "swapped"):
        (folder / exam).mkdir()
        for name in NAMES:
            side = {"L": "R", "R": "L"}[name[0]] if exam == "swapped" else name[0]
            pixels = np.ascontiguousarray(breast(5, name)[:, ::-1])
            (folder / exam / f"{side}{name[1:]}.png").write_bytes(png.encode(pixels))
    return folder


def run(source, workspace, *options):
    one_worker = ("--cpu-workers", "1", "--model-workers", "1", "--streams", "1")
    assert main(["exams", "run", str(source), "--workspace", str(workspace), *map(str, options), *one_worker]) == 0


def show(capsys, workspace, exam):
    capsys.readouterr()
    assert main(["exams", "show", exam, "--workspace", str(workspace), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def scores(detail):
    return {(one["model"], one["side"], one["target"]): one["score"] for one in detail["predictions"]}


def exchanged(found):
    return {(model, OTHER[side], target): score for (model, side, target), score in found.items()}


def test_swapped_exams_get_swapped_scores_from_networks_that_treat_both_breasts_alike(source, tmp_path, capsys):
    bundle = small_bundle(tmp_path / "bundle", settings=STILL, symmetric=True)
    run(source, tmp_path / "ws", "--bundle", bundle)
    plain, mirrored, swapped = (show(capsys, tmp_path / "ws", exam) for exam in ("plain", "mirrored", "swapped"))
    assert [one["horizontal_flip"] for one in (plain, mirrored, swapped)] == ["NO", "YES", "NO"]
    found = scores(plain)
    assert len(found) == 8
    assert min(abs(score - exchanged(found)[key]) for key, score in found.items()) > 1e-4, "both sides are alike"
    assert scores(swapped) == pytest.approx(exchanged(found), abs=1e-6)
    assert scores(mirrored) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("left", [False, True])
def test_a_bundle_of_ones_own_that_turns_images_gives_swapped_scores(source, tmp_path, capsys, left):
    preprocess = Preprocess(size=(8, 8), channels=1, orient=True)
    described = content()["preprocessing"] | {
        "digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json"),
    }  # fmt: skip
    make(tmp_path / "own", brightness_model(left=left), preprocessing=described)
    run(source, tmp_path / "ws", "--model", tmp_path / "own")
    found, swapped = (scores(show(capsys, tmp_path / "ws", exam)) for exam in ("plain", "swapped"))
    assert set(found) == {("brightness", "left", "bright"), ("brightness", "right", "bright")}
    assert abs(found["brightness", "left", "bright"] - found["brightness", "right", "bright"]) > 1e-3
    assert swapped == pytest.approx(exchanged(found), abs=1e-6)
