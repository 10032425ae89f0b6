"""A miniature of CBIS-DDSM: the four tables with their quirks, and small real DICOM files in several layouts."""

import csv
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DESCRIPTIONS = {"full": "full mammogram images", "crop": "cropped images", "mask": "ROI mask images"}
SIDES = {"LEFT": "L", "RIGHT": "R"}
TABLES = {
    ("Mass", "Training"): "mass_case_description_train_set.csv",
    ("Mass", "Test"): "mass_case_description_test_set.csv",
    ("Calc", "Training"): "calc_case_description_train_set.csv",
    ("Calc", "Test"): "calc_case_description_test_set.csv",
}
HEIGHT, WIDTH = 40, 24


def uid(*words) -> str:
    """A UID of its own for each thing, always the same."""
    return f"1.2.826.0.1.{int(hashlib.sha256(repr(words).encode()).hexdigest()[:24], 16)}"


def film(seed: str, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(list(seed.encode()))
    return rng.integers(1000, 60000, (height, width), dtype=np.uint16)


def mask(height: int = HEIGHT, width: int = WIDTH, values=(255,)) -> np.ndarray:
    pixels = np.zeros((height, width), np.uint8)
    for at, value in enumerate(values):
        pixels[10 + 4 * at : 13 + 4 * at, 5:9] = value
    return pixels


def write_dicom(path: Path, pixels: np.ndarray, syntax=ImplicitVRLittleEndian, compress=None, **elements) -> Path:
    """Write pixels as a secondary capture, as the archive does; None leaves an element out."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPInstanceUID = uid(path)
    values = {
        "SOPClassUID": SECONDARY_CAPTURE,
        "SOPInstanceUID": uid(path),
        "Modality": "MG",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": 0,
        **elements,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    if compress:
        dataset.compress(compress, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


@dataclass
class Lesion:
    """One row of a table, and what its files are like. `number` counts within the view."""

    kind: str = "Mass"
    side_of_split: str = "Training"
    person: str = "P_00001"
    side: str = "LEFT"
    view: str = "CC"
    number: int = 1
    pathology: str = "MALIGNANT"
    assessment: str = "4"
    density: str = "3"
    words: tuple[str, str] = ("IRREGULAR", "SPICULATED")
    exchanged: bool = False
    one_series: bool = True
    film: str = ""

    @property
    def case(self) -> str:
        return f"{self.kind}-{self.side_of_split}_{self.person}_{self.side}_{self.view}"

    @property
    def name(self) -> str:
        return f"{self.case}_{self.number}"

    def place(self, what: str) -> tuple[str, str, str]:
        """The case, study and series of a file."""
        if what == "full":
            return self.case, uid(self.case), uid(self.case, "series")
        alone = () if self.one_series else (what,)
        return self.name, uid(self.name, *alone), uid(self.name, "series", *alone)


@dataclass
class Miniature:
    """Writes tables and files below a folder; both can be altered before or after."""

    root: Path
    layout: str = "new"
    lesions: list[Lesion] = field(default_factory=list)

    def write(self, *lesions: Lesion) -> Path:
        self.lesions += lesions
        for lesion in lesions:
            self.write_full(lesion)
            self.write_roi(lesion, "crop", film(lesion.name, 8, 6))
            self.write_roi(lesion, "mask", mask())
        self.write_tables()
        return self.root

    def path(self, lesion: Lesion, what: str) -> Path:
        """Where a file lies. In one series, the crop is the first file in the old layout and the last in the new."""
        case, study, series = lesion.place(what)
        second = what != "full" and lesion.one_series and (what == "mask") == (self.layout == "old")
        if self.layout == "old":
            return self.root / "CBIS-DDSM" / case / study / series / f"00000{int(second)}.dcm"
        if self.layout == "new":
            folders = f"07-20-2016-DDSM-NA-{study[-5:]}/1.000000-{DESCRIPTIONS[what]}-{series[-5:]}"
            if what != "full" and lesion.one_series:
                folders = folders.replace(DESCRIPTIONS[what], DESCRIPTIONS["mask"])
            return self.root / "manifest-1" / "CBIS-DDSM" / case / folders / f"1-{1 + second}.dcm"
        return self.root / f"{uid(series, what)[-12:]}.dcm"

    def write_full(self, lesion: Lesion, pixels: np.ndarray | None = None, **elements) -> Path:
        return self._write(lesion, "full", film(lesion.film or lesion.case) if pixels is None else pixels, elements)

    def write_roi(self, lesion: Lesion, what: str, pixels: np.ndarray, **elements) -> Path:
        return self._write(lesion, what, pixels, elements)

    def _write(self, lesion: Lesion, what: str, pixels: np.ndarray, elements: dict) -> Path:
        name, study, series = lesion.place(what)
        return write_dicom(
            self.path(lesion, what),
            pixels,
            **{
                "PatientID": name,
                "StudyInstanceUID": study,
                "SeriesInstanceUID": series,
                "SOPInstanceUID": uid(series, what),
                "SeriesDescription": DESCRIPTIONS[what],
                "Laterality": SIDES[lesion.side],
                "PatientOrientation": lesion.view,
                **elements,
            },
        )

    def write_tables(self, folder: Path | None = None) -> None:
        for (kind, side), name in TABLES.items():
            rows = [row_of(one) for one in self.lesions if (one.kind, one.side_of_split) == (kind, side)]
            write_table((folder or self.root) / name, kind, rows)


def row_of(lesion: Lesion) -> list[str]:
    """The fields of a row, with a line break in the last path of some, as the archive has them."""
    full, crop, mask_path = ("/".join(lesion.place(what)) for what in ("full", "crop", "mask"))
    crop, mask_path = f"{crop}/000000.dcm", f"{mask_path}/{'000001' if lesion.one_series else '000000'}.dcm\n"
    if lesion.exchanged:
        crop, mask_path = mask_path, crop
    return [
        lesion.person,
        lesion.density,
        lesion.side,
        lesion.view,
        str(lesion.number),
        {"Mass": "mass", "Calc": "calcification"}[lesion.kind],
        *lesion.words,
        lesion.assessment,
        lesion.pathology,
        "5",
        f"{full}/000000.dcm",
        crop,
        mask_path,
    ]


def write_table(path: Path, kind: str, rows: list[list[str]]) -> None:
    words = ("mass shape", "mass margins") if kind == "Mass" else ("calc type", "calc distribution")
    columns = [
        "patient_id",
        "breast_density" if kind == "Mass" else "breast density",
        "left or right breast",
        "image view",
        "abnormality id",
        "abnormality type",
        *words,
        "assessment",
        "pathology",
        "subtlety",
        "image file path",
        "cropped image file path",
        "ROI mask file path",
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), newline="")
