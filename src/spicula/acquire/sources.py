"""Where the archive of every dataset is to be had, and what a request comes down to."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from spicula.acquire.types import Request, Source
from spicula.errors import UsageError


@dataclass(frozen=True)
class Files:
    """Files of one folder of a web server.

    Attributes:
        base: the folder's address; `Request.server` stands in for it.
        names: which files, relative to `base`.
        checksums: the archive's own list of SHA-256 and file, relative to `base`; it lists further files to fetch.
        login: the host that asks for the user's own login; None: open to all.
        rights: what the user has to do before that host lets anybody in, in one sentence.
        patients_in: the folder of which every subfolder is one patient; None: files cannot be told apart by patient.
        page: where a user finds them who has to fetch them by hand; what he has put in its place is taken as it is.
    """

    base: str
    names: tuple[str, ...] = ()
    checksums: str | None = None
    login: str | None = None
    rights: str = ""
    patients_in: str | None = None
    page: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where one dataset comes from.

    Attributes:
        terms: licence or terms of use, in one line.
        size: how much the whole is, in words.
        tcia: its collection at The Cancer Imaging Archive.
        idc: its collection at the Imaging Data Commons.
        files: its files on a web server: the whole archive, or the tables beside a collection.
        note: what a user should know, in one line.
        closed: why it cannot be fetched, and what to do instead; None: it can.
    """

    terms: str = ""
    size: str = ""
    tcia: str | None = None
    idc: str | None = None
    files: Files | None = None
    note: str = ""
    closed: str | None = None

    @property
    def kinds(self) -> tuple[Source, ...]:
        """The archives that have it, the one to take first."""
        if self.tcia and self.idc:
            return ("tcia", "idc")
        return ("web",) if self.files else ()

    @property
    def way(self) -> str:
        """How a user gets it, in one line."""
        return self.closed or f"{self.size}, from {' or '.join(self.kinds)}; {self.note}"


@dataclass(frozen=True)
class Plan:
    """What a request comes down to.

    Attributes:
        kind: which archive has the images.
        collection: its name there, for `tcia` and `idc`; None for a manifest and for files.
        manifest: a .tcia file that lists the series.
        files: files to fetch besides the series of a collection, or all there is.
        terms: licence or terms of use, in one line; empty where only the archive knows them.
        note: what a user should know, in one line.
    """

    kind: Source
    collection: str | None = None
    manifest: Path | None = None
    files: Files | None = None
    terms: str = ""
    note: str = ""


_TCIA_FILES = "https://www.cancerimagingarchive.net/wp-content/uploads/"
_NO_CHECKSUM = "the archive publishes no checksum: size, and the file's own CRC-32, are what is checked"

#: Every dataset of the catalog, by name.
SOURCES: Mapping[str, Origin] = MappingProxyType(
    {
        "mini-mias": Origin(
            terms="research only, no resale (Licence.txt of the archive)",
            size="one file",
            files=Files("http://peipa.essex.ac.uk/pix/mias/", ("all-mias.tar.gz",)),
            note=f"sent over plain http, the server offers no other; {_NO_CHECKSUM}",
        ),
        "breakhis": Origin(
            terms="CC BY 4.0",
            size="one file of about 4 GB",
            files=Files("https://www.inf.ufpr.br/vri/databases/", ("BreaKHis_v1.tar.gz",)),
            note=_NO_CHECKSUM,
        ),
        "idc-patches": Origin(
            terms="published for research, without a licence text; cite both papers",
            size="one file of about 1.6 GB",
            files=Files("https://andrewjanowczyk.com/wp-static/", ("IDC_regular_ps50_idx5.zip",)),
            note=_NO_CHECKSUM,
        ),
        "cbis-ddsm": Origin(
            terms="CC BY 3.0",
            size="6,775 series, 163.6 GB",
            tcia="CBIS-DDSM",
            idc="cbis_ddsm",
            files=Files(
                _TCIA_FILES,
                tuple(
                    f"{kind}_case_description_{side}_set.csv" for kind in ("mass", "calc") for side in ("train", "test")
                ),
                page="https://www.cancerimagingarchive.net/collection/cbis-ddsm/",
            ),
            note="its four case-description tables come along; the archive publishes no checksum of them",
        ),
        "vindr-mammo": Origin(
            terms="PhysioNet Restricted Health Data License; sign the data use agreement first",
            size="20,000 images of 5,000 exams",
            files=Files(
                "https://physionet.org/files/vindr-mammo/1.0.0/",
                checksums="SHA256SUMS.txt",
                login="physionet.org",
                # PhysioNet takes a login over HTTP from programs that it knows by name (http_auth_allowed in its
                # source); wget, which its pages tell users to take, is one. We do not go under another's name.
                rights="sign the data use agreement at https://physionet.org/content/vindr-mammo/1.0.0/; if the site "
                "still refuses, fetch with wget as that page says, into the target, and run this again to check it",
                patients_in="images",
            ),
            note="every file is checked against the archive's SHA-256 list; a patient here is one exam (study)",
        ),
        "inbreast": Origin(
            terms="on request from its owners, for research",
            size="410 images, about 2 GB",
            closed="inbreast is given on request only: ask its authors (Breast Research Group, INESC TEC, Porto; "
            "doi:10.1016/j.acra.2011.09.014), unpack INbreast.tgz, then: spicula index inbreast --from DIR",
        ),
        "cmmd": Origin(
            terms="CC BY 4.0",
            size="1,775 series, about 23 GB",
            tcia="CMMD",
            idc="cmmd",
            files=Files(
                _TCIA_FILES,
                ("CMMD_clinicaldata_revision.xlsx",),
                page="https://www.cancerimagingarchive.net/collection/cmmd/",
            ),
            note="its clinical table comes along; the archive publishes no checksum of it",
        ),
        "folder": Origin(closed="folder is for images of your own: spicula index folder --from DIR"),
        "dicom": Origin(closed="dicom is for an export of your own PACS: spicula index dicom --from DIR"),
        "exam-folders": Origin(closed="exam-folders is for exams of your own: spicula index exam-folders --from DIR"),
        "phantom": Origin(closed="phantom is made, not fetched: spicula phantom --exams N --to DIR"),
    }
)


# CBIS-DDSM has the name of a case for a patient's id in DICOM, Calc-Test_P_00038_LEFT_MLO_1, and in 396 series of the
# copy at IDC the name of a file, P_00038_LEFT_CC.dcm.
_CBIS_DDSM_CASE = re.compile(
    r"(?:(?:Mass|Calc)-(?:Training|Test)_)?(P_\d{5})_(?:LEFT|RIGHT)_(?:CC|MLO)(?:_\d+)?(?:\.dcm)?"
)


def person(patient_id: str) -> str:
    """Return the person that a DICOM patient id stands for: itself, but for CBIS-DDSM, which names cases there.

    So `--patients N` counts people, and takes every series of each.
    """
    case = _CBIS_DDSM_CASE.fullmatch(patient_id)
    return case[1] if case else patient_id


def resolve(request: Request) -> Plan:
    """Return what a request comes down to, without asking any server.

    Raises:
        UsageError: no such dataset, it cannot be fetched, the archive asked for does not have it, or an option does not
            fit; the message says what would.
    """
    what = request.what
    if what.lower().endswith(".tcia"):
        if not Path(what).is_file():
            raise UsageError(f"no manifest {what}")
        _only(request, "tcia", f"a manifest is TCIA's; for IDC: spicula download idc:COLLECTION --series {what}")
        return Plan("tcia", manifest=Path(what))
    kind, colon, collection = what.partition(":")
    if colon and kind in ("tcia", "idc") and collection:
        _only(request, kind, f"{what} names its archive already; leave --from out")
        return Plan("tcia" if kind == "tcia" else "idc", collection)
    return _dataset_plan(request, _origin(what))


def _only(request: Request, kind: str, reason: str) -> None:
    if request.source not in (None, kind):
        raise UsageError(f"--from {request.source} does not go with {request.what}: {reason}")


def _origin(name: str) -> Origin:
    if name not in SOURCES:
        close = difflib.get_close_matches(name.lower(), SOURCES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        there = ", ".join(known for known, origin in SOURCES.items() if not origin.closed)
        raise UsageError(
            f"no dataset {name!r} to download: {hint}there are {there}; "
            "or name a .tcia manifest, tcia:COLLECTION or idc:COLLECTION"
        )
    return SOURCES[name]


def _dataset_plan(request: Request, origin: Origin) -> Plan:
    if origin.closed:
        raise UsageError(origin.closed)
    kind = request.source or origin.kinds[0]
    if kind not in origin.kinds:
        raise UsageError(f"--from {kind} does not have {request.what}: take --from {' or '.join(origin.kinds)}")
    if kind == "web":
        assert origin.files is not None
        _refuse_options(request, origin.files)
    collection = {"tcia": origin.tcia, "idc": origin.idc, "web": None}[kind]
    return Plan(kind, collection, files=origin.files, terms=origin.terms, note=origin.note)


def _refuse_options(request: Request, archive: Files) -> None:
    """Refuse to select where there is nothing to select by, rather than fetch all of it."""
    given: dict[str, object] = {
        "--series": request.series_file,
        "--modality": request.modality,
        "--licence": request.licence,
    }
    if not archive.patients_in:
        given |= {"--patients": request.patients, "--patient": request.patient_ids}
    unfit = [option for option, value in given.items() if value]
    if unfit:
        of_what = "whole archives" if not archive.patients_in else "files by patient"
        raise UsageError(f"{unfit[0]} does not go with {request.what}: its server has {of_what} only")
