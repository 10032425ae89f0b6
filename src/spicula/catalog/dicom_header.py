"""What the header of a mammogram says: which breast, which view, what sets it apart, and what took it.

Where tags contradict each other the more binding one is taken, and the contradiction stands in the notes, in terms of
the Index and never in the words of the file.
"""

import math
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import headers, index
from spicula.catalog import view_codes
from spicula.catalog.view_words import Words, read_description, read_label
from spicula.errors import RejectedImageError
from spicula.progress import progress
from spicula.silence import silence

if TYPE_CHECKING:
    import pydicom

#: PS3.6, table A-1: images that are not made for reading.
FOR_PROCESSING_CLASSES = frozenset(
    (
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
        "1.2.840.10008.5.1.4.1.1.1.2.1",  # Digital Mammography X-Ray Image Storage - For Processing
        "1.2.840.10008.5.1.4.1.1.13.1.5",  # Breast Projection X-Ray Image Storage - For Processing
    )
)
BREAST_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
#: A header whose Estimated Radiographic Magnification Factor (0018,1114) reaches this is of a magnification view: the
#: least that a unit must offer for such views is 1.4 (21 CFR 900.12(b)(6)); contact views stay near 1.1.
LEAST_MAGNIFICATION = 1.4

#: Ages above are none: 999 stands for "not known" in some systems.
OLDEST = 130

# PS3.3 C.8.11.7.1.4 and C.8.21.6.1.1: Defined Terms of Image Type, values 3 to 5.
_TOMOSYNTHESIS_TYPES = frozenset(("TOMO_PROJ", "TOMOSYNTHESIS", "TOMO"))
_SYNTHETIC_TYPES = frozenset(("GENERATED_2D", "TOMO_2D"))
_PROJECTION_TYPES = frozenset(("MIP", "MAX_IP", "MAXIMUM"))
# biopsy; contrast-enhanced images, and those computed from two energies
_OTHER_TYPES = re.compile(
    r"(TOMO_SCOUT|(STEREO_)?(SCOUT|PREFIRE|POSTFIRE|POSTBIOPSY|POSTMARKER|MINUS|PLUS)(_MINUS|_PLUS)?"
    r"|PRE_CONTRAST|POST_CONTRAST|SUBTRACTION|ADDITION|LOW_ENERGY|HIGH_ENERGY)"
)
# of one image or series; what describes a whole study is asked last, and only for side and view together
_DESCRIPTIONS = ("SeriesDescription", "AcquisitionDeviceProcessingDescription", "ProtocolName")
# A protocol or a paddle serves several images: neither says that this one is a slice.
_TOMOSYNTHESIS_FLAGS = frozenset(("tomosynthesis-slice", "synthetic-2d"))
_OVERLAYS = range(0x6000, 0x6020, 2)  # PS3.3 C.9.2: repeating groups
_SPACING_MM = (0.001, 10.0)  # what a distance between pixels of a breast image can be
_READ_AHEAD = 64
_UID = re.compile(r"\d+(\.\d+)*", re.ASCII)


@dataclass(frozen=True)
class View:
    """How an image was taken.

    Attributes:
        laterality: L or R; None where the header names no side, or both.
        view: CC, MLO, XCCL, ...: the label of PS3.16, CID 4014; None where the header names none.
        flags: of `spicula.index.FLAGS`, in that order.
        notes: contradictions between tags, and which was taken; no values but those of the Index.
    """

    laterality: str | None = None
    view: str | None = None
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_view(header: "pydicom.Dataset") -> View:
    """Return side, view and flags of a mammogram, from its header alone. Odd values never raise.

    The side is that of ImageLaterality, else FrameLaterality (shared functional groups), Laterality, the anatomic
    region, ViewPosition (RMLO), and last the descriptions. The view is that of ViewPosition, else ViewCodeSequence
    (CID 4014), else the descriptions; a code that says which way a CC view is exaggerated refines CC.
    PatientOrientation is not asked: it says how the picture lies.
    """
    with silence:
        described = [(name, read_description(text(header, name) or "")) for name in _DESCRIPTIONS]
        study = read_description(text(header, "StudyDescription") or "")
        if study.laterality and study.view:
            described.append(("StudyDescription", Words(study.laterality, study.view)))
        position = _position(text(header, "ViewPosition") or "")
        code, modifiers = _coded_view(header)
        notes: list[str] = []
        sides = [*_sides(header), ("ViewPosition", position.laterality)]
        sides += [(name, words.laterality) for name, words in described]
        views = [("ViewPosition", position.view), ("ViewCodeSequence", code)]
        if str(code).startswith("XCC") and position.view == "CC":
            views = [("ViewCodeSequence", code)]
        views += [(name, words.view) for name, words in described]
        side = _first("side", sides, notes)
        view = _first("view", views, notes)
        flags = (
            modifiers | position.flags | _technique(header, notes) | _image_type(header, described) | _extras(header)
        )
        for _, words in described:
            flags |= _flags_of_image(words)
    return View(
        side if side in index.LATERALITIES else None,
        None if view == view_codes.SPECIMEN else view,
        [flag for flag in index.FLAGS if flag in flags],
        notes,
    )


def equipment(header: "pydicom.Dataset") -> dict[str, Any]:
    """Return columns of the Index: modality, photometric, pixel_spacing_mm, manufacturer, model, age.

    Missing and odd values are None. The spacing is that of rows at the detector (ImagerPixelSpacing) or film
    (NominalScannedPixelSpacing), else PixelSpacing, in mm (PS3.3 10.7.1.3); the age is PatientAge in years (PS3.5 6.2).
    """
    with silence:
        modality = text(header, "Modality")
        photometric = text(header, "PhotometricInterpretation")
        return {
            "modality": modality if modality and re.fullmatch(r"[A-Z0-9]{1,16}", modality) else None,
            "photometric": photometric if photometric in headers.PHOTOMETRICS else None,
            "pixel_spacing_mm": _pixel_spacing(header),
            "manufacturer": text(header, "Manufacturer"),
            "model": text(header, "ManufacturerModelName"),
            "age": _age(text(header, "PatientAge")),
        }


def is_uid(value: str) -> bool:
    """Say whether a text is digits and dots as a UID is (PS3.5 9.1); leading zeros, which occur, are let pass."""
    return len(value) <= 64 and bool(_UID.fullmatch(value))


def size_of(header: "pydicom.Dataset") -> tuple[int | None, int | None]:
    """Return the width and height that a header declares, in pixels; each None where it is not one whole number."""
    said = [text(header, keyword) or "" for keyword in ("Columns", "Rows")]
    width, height = (int(value) if re.fullmatch(r"\d{1,5}", value, re.ASCII) else None for value in said)
    return width, height


def read_many(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, "pydicom.Dataset | str"]]:
    """Yield each path with its DICOM header, or with the reason why it has none: in the given order, with progress.

    Headers are read in threads, a few ahead of what was taken, so that a hundred thousand do not fill the memory.

    Args:
        root: the folder that the paths are relative to.
        paths: relative paths.
    """
    total = len(paths) if isinstance(paths, Sized) else None
    return progress(_read_ahead(root, paths), "reading DICOM headers", "files", total)


def _read_ahead(root: Path, paths: Iterable[str]) -> Iterator[tuple[str, "pydicom.Dataset | str"]]:
    pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)))
    waiting: deque[tuple[str, Future[pydicom.Dataset | str]]] = deque()
    try:
        for path in paths:
            waiting.append((path, pool.submit(_read, root / path)))
            if len(waiting) >= _READ_AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt does not wait for the rest


def _read(path: Path) -> "pydicom.Dataset | str":
    try:
        return headers.read_dicom(path)
    except RejectedImageError as error:
        return str(error)


def text(header: "pydicom.Dataset", keyword: str) -> str | None:
    """Return a value as one line of at most 64 printable characters, or None where there is none to be read.

    Of several values it is the first, of a sequence and of bytes None.
    """
    value = _value(header, keyword)
    if isinstance(value, bytes) or _items(value):
        return None
    if not isinstance(value, str) and isinstance(value, Sequence):
        value = value[0] if value else None
    if value is None:
        return None
    line = "".join(letter if letter.isprintable() else " " for letter in str(value)[:256])
    return " ".join(line.encode("utf-8", "replace").decode().split())[:64].strip() or None


def texts(header: "pydicom.Dataset", keyword: str) -> list[str]:
    """Return all values of a multi-valued text, stripped; those that cannot be read are left out."""
    value = _value(header, keyword)
    if value is None or isinstance(value, bytes) or _items(value):
        return []
    several = [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
    return [str(one).strip() for one in several[:16]]


def sequence(header: "pydicom.Dataset", keyword: str) -> list["pydicom.Dataset"]:
    """Return the items of a sequence; none where it is missing or is no sequence."""
    return _items(_value(header, keyword))


def _value(header: "pydicom.Dataset", keyword: str) -> Any:
    """Return a value, None where it is missing or cannot be converted (pydicom raises nearly anything then)."""
    try:
        with silence:
            return header.get(keyword)
    except Exception:
        return None


def _items(value: Any) -> list["pydicom.Dataset"]:
    import pydicom

    return list(value) if isinstance(value, pydicom.Sequence) else []


def _position(value: str) -> Words:
    return read_label(value) or read_description(value)


def _first(what: str, found: Sequence[tuple[str, str | None]], notes: list[str]) -> str | None:
    """Return the first value; note the first tag that says something else."""
    said = [(name, value) for name, value in found if value]
    for name, value in said[1:]:
        if value != said[0][1]:
            notes.append(f"the {what} is {said[0][1]} by {said[0][0]}, but {value} by {name}")
            break
    return said[0][1] if said else None


def _sides(header: "pydicom.Dataset") -> Iterator[tuple[str, str | None]]:
    yield "ImageLaterality", _side(text(header, "ImageLaterality"))
    for group in _functional_groups(header):
        for anatomy in sequence(group, "FrameAnatomySequence"):
            yield "FrameLaterality", _side(text(anatomy, "FrameLaterality"))
    yield "Laterality", _side(text(header, "Laterality"))
    for region in sequence(header, "AnatomicRegionSequence"):
        yield "AnatomicRegionSequence", view_codes.SIDES.get(text(region, "CodeValue") or "")
        for modifier in sequence(region, "AnatomicRegionModifierSequence"):
            yield "AnatomicRegionModifierSequence", view_codes.SIDES.get(text(modifier, "CodeValue") or "")


def _side(value: str | None) -> str | None:
    """Return L, R, B (both breasts: no side then, whatever the descriptions say) or None."""
    return {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R", "B": "B", "BOTH": "B"}.get((value or "").upper())


def _functional_groups(header: "pydicom.Dataset") -> list["pydicom.Dataset"]:
    """Return the functional groups shared by all frames, and those of the first (PS3.3 C.7.6.16)."""
    of_frames = sequence(header, "PerFrameFunctionalGroupsSequence")[:1]
    return sequence(header, "SharedFunctionalGroupsSequence")[:1] + of_frames


def _flags_of_image(words: Words) -> set[str]:
    """Return the flags of a description that are its image's: "implant displaced views" can stand on every image."""
    flags = set(words.flags - _TOMOSYNTHESIS_FLAGS)
    return flags if words.laterality or words.view else flags & {"specimen"}


def _coded_view(header: "pydicom.Dataset") -> tuple[str | None, set[str]]:
    """Return the label of the coded view, and the flags of its modifiers (also where they wrongly stand outside)."""
    view: str | None = None
    modifiers = sequence(header, "ViewModifierCodeSequence")
    places = [header, *_functional_groups(header)]
    for item in [item for place in places for item in sequence(place, "ViewCodeSequence")]:
        view = view or view_codes.VIEWS.get(text(item, "CodeValue") or "")
        modifiers += sequence(item, "ViewModifierCodeSequence")
    # A code that the table does not have is a modifier all the same.
    codes = [code for item in modifiers if (code := text(item, "CodeValue"))]
    flags = {view_codes.MODIFIERS.get(code, "other-modifier") for code in codes}
    return view, flags | ({"specimen"} if view == view_codes.SPECIMEN else set())


def _technique(header: "pydicom.Dataset", notes: list[str]) -> set[str]:
    flags = set()
    intent = text(header, "PresentationIntentType")
    by_class = text(header, "SOPClassUID") in FOR_PROCESSING_CLASSES
    if by_class or intent == "FOR PROCESSING":
        flags.add("for-processing")
    if by_class and intent == "FOR PRESENTATION":
        notes.append("for processing by SOPClassUID, but for presentation by PresentationIntentType")
    try:
        if float(text(header, "EstimatedRadiographicMagnificationFactor") or 1) >= LEAST_MAGNIFICATION:
            flags.add("magnification")
    except ValueError:
        pass
    paddle = read_description(text(header, "PaddleDescription") or "")
    return flags | (paddle.flags & {"spot-compression", "magnification"})


def _image_type(header: "pydicom.Dataset", described: Sequence[tuple[str, Words]]) -> set[str]:
    """Return what ImageType, the class, the number of frames and the series' own words say of tomosynthesis."""
    types = {value.upper() for value in texts(header, "ImageType")[2:]}
    words = {flag for name, said in described[:2] for flag in said.flags & _TOMOSYNTHESIS_FLAGS}
    has_frames = (text(header, "NumberOfFrames") or "1") not in ("0", "1")
    flags = {"other-modifier"} if any(_OTHER_TYPES.fullmatch(value) for value in types) else set()
    if types & _SYNTHETIC_TYPES:
        return flags | {"synthetic-2d"}
    # Some systems store slices as single mammograms that differ only in being part of a volume (C.8.16.2.1.2).
    is_volume = text(header, "VolumetricProperties") == "VOLUME"
    is_of_class = text(header, "SOPClassUID") == BREAST_TOMOSYNTHESIS
    is_tomosynthesis = is_of_class or is_volume or bool(types & _TOMOSYNTHESIS_TYPES)
    if has_frames:
        return flags | {"tomosynthesis-slice"}
    if "synthetic-2d" in words or (is_tomosynthesis and types & _PROJECTION_TYPES):
        return flags | {"synthetic-2d"}
    return flags | ({"tomosynthesis-slice"} if is_tomosynthesis or words else set())


def _extras(header: "pydicom.Dataset") -> set[str]:
    """Return what an image shows or carries besides a whole natural breast."""
    flags = set()
    if text(header, "BreastImplantPresent") == "YES":
        flags.add("implant")
    if text(header, "PartialView") == "YES" or sequence(header, "PartialViewCodeSequence"):
        flags.add("partial-view")
    if text(header, "BurnedInAnnotation") == "YES":
        flags.add("burned-in-annotation")
    if any((group, 0x0010) in header or (group, 0x3000) in header for group in _OVERLAYS):
        flags.add("overlay")
    return flags


def _pixel_spacing(header: "pydicom.Dataset") -> float | None:
    measures = [item for group in _functional_groups(header) for item in sequence(group, "PixelMeasuresSequence")]
    places = [(header, "ImagerPixelSpacing"), (header, "NominalScannedPixelSpacing"), (header, "PixelSpacing")]
    for dataset, keyword in places + [(item, "PixelSpacing") for item in measures]:
        try:
            spacing = float(text(dataset, keyword) or "nan")
        except ValueError:
            continue
        if math.isfinite(spacing) and _SPACING_MM[0] <= spacing <= _SPACING_MM[1]:
            return spacing
    return None


def _age(value: str | None) -> float | None:
    """Return years of an age string: three digits and D, W, M or Y (PS3.5 6.2, AS)."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", value or "")
    if not found:
        return None
    years = int(found[1]) // {"Y": 1, "M": 12, "W": 52, "D": 365}[found[2]]
    return float(years) if years <= OLDEST else None
