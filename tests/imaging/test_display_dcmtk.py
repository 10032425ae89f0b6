"""What is displayed is what DCMTK, an independent implementation, displays."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from spicula.imaging.display import read_display
from spicula.phantoms import make_exams

pytestmark = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs dcm2pnm (Debian package dcmtk)")


@pytest.fixture(scope="module")
def exams(tmp_path_factory) -> list[Path]:
    """Mammograms of three systems, one of which writes MONOCHROME1."""
    folder = make_exams(tmp_path_factory.mktemp("exams"), 6, seed=3, size=(160, 128), jobs=1)
    return sorted(folder.rglob("*.dcm"))


def shown_by_dcmtk(path: Path, folder: Path, option: str = "+Wi") -> np.ndarray:
    subprocess.run(["dcm2pnm", "-O", "+on", option, "1", path, folder / "shown.png"], check=True, capture_output=True)
    with Image.open(folder / "shown.png") as image:
        return np.asarray(image.convert("L"), np.int16)


def changed(source: Path, folder: Path, **values) -> Path:
    dataset = pydicom.dcmread(source)
    for name, value in values.items():
        setattr(dataset, name, value)
    path = folder / "changed.dcm"
    dataset.save_as(path)
    return path


def assert_same(path: Path, folder: Path, option: str = "+Wi") -> None:
    ours = read_display(path, bits=8).array.astype(np.int16)
    theirs = shown_by_dcmtk(path, folder, option)
    assert ours.max() - ours.min() > 100  # there is something to see
    assert np.abs(ours - theirs).max() <= 1


def test_files_of_three_systems(exams, tmp_path):
    assert {pydicom.dcmread(path).PhotometricInterpretation for path in exams} == {"MONOCHROME1", "MONOCHROME2"}
    for path in exams:
        assert_same(path, tmp_path)


@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
@pytest.mark.parametrize("window", [(2048, 4096), (1500, 700), (900.5, 1200.25)])
@pytest.mark.parametrize("number", [0, 4, 20])
def test_windows(exams, tmp_path, function, window, number):
    center, width = window
    path = changed(exams[number], tmp_path, VOILUTFunction=function, WindowCenter=center, WindowWidth=width)

    assert_same(path, tmp_path)


@pytest.mark.parametrize(("slope", "intercept"), [(2, -1000), (0.5, 12)])
def test_rescaling(exams, tmp_path, slope, intercept):
    path = changed(
        exams[0], tmp_path, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=900, WindowWidth=1500
    )

    assert_same(path, tmp_path)


@pytest.mark.parametrize("number", [0, 4])
@pytest.mark.parametrize("first", [0, 700])
def test_a_table(exams, tmp_path, number, first):
    entries = (4095 * np.linspace(0, 1, 2500) ** 1.7).astype("<u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 12])
    item.add_new("LUTData", "OW", entries.tobytes())
    path = changed(exams[number], tmp_path, VOILUTSequence=[item])

    assert_same(path, tmp_path, "+Wl")
