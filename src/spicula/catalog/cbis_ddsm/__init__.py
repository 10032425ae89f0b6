"""CBIS-DDSM: 3,103 digitised film mammograms with 3,568 masses and calcifications, and the archive's four tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spicula import index
from spicula.catalog.cbis_ddsm import files, rois, split, tables
from spicula.catalog.cbis_ddsm import rows as rows_of
from spicula.catalog.cbis_ddsm.files import File
from spicula.catalog.cbis_ddsm.rows import Archive
from spicula.catalog.cbis_ddsm.tables import Lesion, Tables, View
from spicula.catalog.tree import Rejection, is_document, is_text, reject, rejected_table, walk
from spicula.catalog.types import CatalogOptions, Dataset, Option, Reading
from spicula.errors import UsageError

LEVELS = ("image", "lesion")


def read(folder: Path, options: CatalogOptions) -> Reading:
    """Read CBIS-DDSM: the four tables, and every DICOM file below a folder that they name.

    Args:
        folder: holds the images in any layout; parts of the archive are fine.
        options: `level`, `official_split_as_is`, `tables`.

    Raises:
        UsageError: a table is missing or not one, or an option has a value that it cannot have.
    """
    level, as_is = _options(options)
    paths = list(walk(folder))
    sources, rejected = tables.find(folder, paths, options.get("tables"))
    said = tables.read(sources)
    images = [path for path in paths if not is_document(path)]
    found, unused = files.gather(folder, [path for path in images if is_text(path)], files.wanted(said.lesions))
    rejected += [reject(path, "its name is not Unicode") for path in images if not is_text(path)]
    parted = split.parted(said.lesions)
    archive, problems = _tell_apart(folder, said, found, split.by_case(said.lesions, parted, as_is), level)
    rows = list(rows_of.of_images(archive) if level == "image" else rows_of.of_lesions(archive))
    rejected += said.rejected + _missing(archive, found, level) + unused + problems + _disagreements(archive, level)
    split.report(parted, sum("-Test_" in row["image_id"] and row["split"] == "train" for row in rows), as_is)
    return Reading(index.from_rows(rows, folder), rejected_table(rejected))


def _options(options: CatalogOptions) -> tuple[str, bool]:
    level, as_is = options.get("level", LEVELS[0]), options.get("official_split_as_is", False)
    if level not in LEVELS:
        raise UsageError(f"cbis-ddsm: the option level is {level!r}, not one of {', '.join(LEVELS)}")
    if not isinstance(as_is, bool):
        raise UsageError(f"cbis-ddsm: the option official_split_as_is is {as_is!r}, not true or false")
    return level, as_is


def _tell_apart(
    root: Path, said: Tables, found: Mapping[str, Sequence[File]], splits: Mapping[str, str], level: str
) -> tuple[Archive, list[Rejection]]:
    """Return what each file is, and the files that contradict the tables or each other."""
    images: dict[str, File] = {}
    rejected: list[Rejection] = []
    for case, series in {lesion.case: lesion.image.series for lesion in said.lesions}.items():
        several = found.get(series, [])
        problem = _image_problem(several)
        rejected += [reject(file.path, problem) for file in several if problem]
        images |= {case: several[0]} if several and not problem else {}
    views = {lesion.view for lesion in said.lesions if lesion.case in images}
    used = {lesion.name: lesion for lesion in said.lesions if level == "lesion" or lesion.view in views}
    of_lesion = {name: _roi_files(lesion, found) for name, lesion in used.items()}
    looks = rois.look_at(root, [file.path for several in of_lesion.values() for file in several])
    told = {name: rois.decide(name, images.get(used[name].case), several, looks) for name, several in of_lesion.items()}
    rejected += [row for roi in told.values() for row in roi.rejected]
    if level == "image":
        rejected += [reject(roi.mask.path, roi.misfit) for roi in told.values() if roi.mask and roi.misfit]
    return Archive(root, said, splits, images, told), files.together(rejected)


def _image_problem(several: Sequence[File]) -> str:
    if len(several) > 1:
        return f"one of {len(several)} different images in the series of one full mammogram: not used"
    if several and several[0].kind in ("crop", "mask"):
        return "the tables' full mammogram, but not by its series description: not used"
    return ""


def _roi_files(lesion: Lesion, found: Mapping[str, Sequence[File]]) -> list[File]:
    return [file for place in lesion.rois for file in found.get(place.series, [])]


def _missing(archive: Archive, found: Mapping[str, Sequence[File]], level: str) -> list[Rejection]:
    """Count what the tables name and the folder does not have: a row for each table and kind of file."""
    rejected = []
    for table in tables.TABLES:
        lesions = [lesion for lesion in archive.tables.lesions if lesion.table == table]
        if level == "lesion":
            gone = [lesion.name for lesion in lesions if _lacks(archive, lesion, "crop")]
            rejected += _count(table, "cropped images that are not there", gone, len(lesions))
            continue
        of_case = {lesion.case: lesion for lesion in lesions}
        gone = [case for case, lesion in of_case.items() if not found.get(lesion.image.series)]
        rejected += _count(table, "full mammograms that are not there", gone, len(of_case))
        of_gone = [lesion for lesion in lesions if not found.get(lesion.image.series)]
        alone = [lesion.name for lesion in of_gone if _roi_files(lesion, found)]
        rejected += _count(table, "lesions that have a mask or crop, but no full mammogram", alone, len(lesions))
        here = [lesion for lesion in lesions if lesion.case in archive.images]
        gone = [lesion.name for lesion in here if _lacks(archive, lesion, "mask")]
        rejected += _count(table, "masks that are not there, of mammograms that are", gone, len(here))
    return rejected


def _count(table: str, what: str, names: Sequence[str], total: int) -> list[Rejection]:
    return [reject(table, f"{what}: {len(names)} of {total}; the first is {names[0]}")] if names else []


def _lacks(archive: Archive, lesion: Lesion, kind: str) -> bool:
    """Say whether a lesion's mask or crop is not there; what is there but was refused has a row of its own."""
    roi = archive.rois[lesion.name]
    return (roi.mask if kind == "mask" else roi.crop) is None and not roi.rejected


def _disagreements(archive: Archive, level: str) -> list[Rejection]:
    """Return the files whose header names another side or view than the tables."""
    rejected = {}
    for lesion in archive.tables.lesions:
        file = archive.images.get(lesion.case) if level == "image" else archive.rois[lesion.name].crop
        if file and not _agrees(file, lesion.view):
            reason = "its header names another side or view than the tables; it is indexed as they say"
            rejected[file.path] = reject(file.path, reason)
    return files.together(rejected.values())


def _agrees(file: File, view: View) -> bool:
    return file.laterality in (None, view.laterality) and file.view in (None, view.view)


DATASET = Dataset(
    name=rows_of.NAME,
    title="CBIS-DDSM: 3,103 digitised film mammograms of 1,566 people, 3,568 lesions with masks and pathology",
    source=rows_of.SOURCE,
    terms="CC BY 3.0",
    citation="Sawyer-Lee R et al. (2016). Curated Breast Imaging Subset of Digital Database for Screening Mammography"
    " (CBIS-DDSM). The Cancer Imaging Archive, doi:10.7937/K9/TCIA.2016.7O02S9CY. Lee RS et al. (2017). A curated"
    " mammography data set for use in computer-aided detection and diagnosis research. Sci Data 4, 170177.",
    classes=("benign", "malignant"),
    read=read,
    layout="the DICOM files in any layout, and the four tables mass_case_description_train_set.csv and so on",
    options={
        "level": Option("What a row is: image (the full mammogram), or lesion (its cropped image)."),
        "official_split_as_is": Option(
            "Whether people stay on both sides of the published split, for comparison with older work (true or false)."
        ),
        "tables": Option("The folder of the four tables, where they do not lie with the images.", is_path=True),
    },
    expected={"images": 3103, "patients": 1566, "exams": 1566},
)
