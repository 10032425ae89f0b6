"""Promise 20 while reading: what libraries would say about a person's data is said nowhere."""

import json
import logging
import subprocess
import sys
import threading
import warnings

import pytest

from spicula.silence import silence

READER = """
import json, logging, sys, traceback, warnings
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)  # as a careless user's program might
warnings.simplefilter("always")
from spicula.errors import RejectedImageError
from spicula.headers import read_dicom, read_header
from spicula.imaging.display import read_display
from spicula.imaging.readers import read_pixels

said = []
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_header, read_dicom, read_pixels, read_display):
        try:
            read(path)
        except RejectedImageError as error:
            said.append(str(error))
            said += traceback.format_exception_only(error)
print(json.dumps(said))
"""
CANARIES = ("CANARYNAME", "CANARYID", "19010203", "CANARYACC")


@pytest.fixture
def planted(tmp_path, noise, dicom):
    """A folder of files with values that pydicom warns about and quotes, in elements that it converts while reading."""
    import pydicom

    image = noise(20, 20, 4095)
    wrong = {
        "PatientID": "CANARYID" * 20,  # longer than LO allows
        "PatientBirthDate": "19010203 CANARYNAME",
        "AccessionNumber": "CANARYACC" * 5,
        "StudyDate": "CANARYNAME",
        "PatientAge": "CANARYID",
        "StudyInstanceUID": "CANARYID.CANARYACC",
        "WindowCenter": "CANARYNAME",
        "VOILUTFunction": "CANARYNAME",
        "PresentationLUTShape": "CANARYID",
        "PhotometricInterpretation": "CANARYNAME",
        "SpecificCharacterSet": "CANARYNAME",
        "NumberOfFrames": "CANARYID",
        "PixelPaddingValue": "CANARYACC",
        "RescaleSlope": "CANARYACC",
    }
    folder = tmp_path / "files"
    folder.mkdir()
    for keyword, value in wrong.items():
        path = dicom(folder / f"{keyword}.dcm", image.tobytes(), image.shape)
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "CANARYNAME^CANARYNAME"
        with warnings.catch_warnings(), silence:
            warnings.simplefilter("ignore")
            if keyword in ("PixelPaddingValue", "NumberOfFrames", "WindowCenter", "RescaleSlope"):
                dataset.add_new(keyword, "LO", value)
            else:
                setattr(dataset, keyword, value)
            dataset.save_as(path)
    return folder


def test_planted_names_appear_nowhere(planted, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", READER, str(planted)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    said = json.loads(ran.stdout.splitlines()[-1])
    assert len(said) >= 10  # or nothing was provoked
    assert not [line for line in [*said, ran.stderr, ran.stdout] if any(canary in line for canary in CANARIES)]
    assert "pydicom" not in ran.stderr


@pytest.mark.parametrize("dataset", ["folder", "dicom"])
def test_indexing_them_says_no_names_either(planted, tmp_path, dataset):
    command = ["-m", "spicula", "index", dataset, "--from", str(planted), "--to", str(tmp_path / "index.parquet")]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stdout + ran.stderr
    assert not [canary for canary in CANARIES if canary in ran.stdout + ran.stderr]


def test_pydicom_would_have_spoken(tmp_path, dicom, noise, caplog):
    """The test above is worth something only as long as pydicom quotes values."""
    import pydicom

    image = noise(20, 20, 4095)
    path = dicom(tmp_path / "a.dcm", image.tobytes(), image.shape)
    dataset = pydicom.dcmread(path)
    with pytest.warns(UserWarning, match="CANARYID"):
        dataset.add_new("StudyInstanceUID", "UI", "CANARYID.CANARYACC")
    assert "CANARYID" in caplog.text
    caplog.clear()
    with silence:
        dataset.add_new("StudyInstanceUID", "UI", "CANARYID.CANARYACC")
    assert caplog.text == ""


def test_loggers_and_filters_come_back_as_they_were():
    loggers = [logging.getLogger(name) for name in ("pydicom", "PIL")]
    before = [logger.level for logger in loggers], list(warnings.filters)

    def read():
        for _ in range(200):
            with silence, silence:
                assert not logging.getLogger("PIL.TiffImagePlugin").isEnabledFor(logging.CRITICAL)
                logging.getLogger("pydicom").setLevel(logging.WARNING)  # as importing pydicom does

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before[1]
    assert loggers[1].level == before[0][1]
    loggers[0].setLevel(before[0][0])


@pytest.mark.parametrize("name", ["pydicom.pixels.decoders.base", "PIL.PngImagePlugin"])
def test_a_thread_that_reads_keeps_children_quiet_as_well(name, caplog):
    with silence:
        logging.getLogger(name).error("CANARYNAME")
    assert "CANARYNAME" not in caplog.text
    logging.getLogger(name).error("heard again")
    assert "heard again" in caplog.text
