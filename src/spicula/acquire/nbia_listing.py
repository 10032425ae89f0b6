"""What an NBIA service has: the series that a request selects, with what the archive says of each, in few calls.

A collection of any size takes two calls, one for its series and one for its studies. A manifest names only series: one
of them tells its collection, which is then listed; what is still missing afterwards is asked for one by one.
"""

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import files
from spicula.acquire import listings, series, series_zip, sources
from spicula.acquire import manifest as manifests
from spicula.acquire.manifest import is_uid
from spicula.acquire.nbia import Nbia
from spicula.acquire.transfer import Refused, Tell, patiently
from spicula.acquire.types import Item, Request
from spicula.errors import SpiculaError, UsageError
from spicula.progress import progress

if TYPE_CHECKING:
    from spicula.acquire.mirror import Mirror

Facts = dict[str, Any]

#: So few series are asked for one by one, rather than by listing a whole collection.
FEW = 20
#: So many series that nobody knows are asked for before a collection is looked for no more.
_MOST_PROBES = 3

_NOT_THERE = "TCIA does not show it: it is restricted (then --credentials FILE), withdrawn, or of another archive"


def items(
    request: Request, collection: str | None, manifest: Path | None, mirror: "Mirror | None" = None
) -> list[Item]:
    """Return the series that a request selects, asking only for what describes them.

    Args:
        request: the request.
        collection: all of this collection; None: those of the manifest.
        manifest: a .tcia file.
        mirror: a copy that may know the series when the service cannot be reached.

    Raises:
        UsageError: no such collection, nothing in it that is selected, or a list of series that makes no sense.
        SpiculaError: the service does not answer.
    """
    wanted, retries = _wanted(request, manifest)
    server = Nbia(request)

    def ask() -> dict[str, Facts]:
        if collection:
            return _of_collection(server, collection) or _of_restricted(server, collection)
        return _of_manifest(server, list(wanted), request.jobs)

    name = f"{server.host} {collection or files.sha256_json(list(wanted))}"
    known = listings.known(name, request.to, ask, mirror=mirror, fill_mirror=request.fill_mirror)
    chosen = _selected(request, [facts for uid, facts in known.items() if not wanted or uid in wanted])
    missing = [uid for uid in wanted if uid not in known]
    if wanted:
        order = {uid: number for number, uid in enumerate(wanted)}
        chosen.sort(key=lambda facts: order[facts["Series UID"]])
    return [*(_item(server, facts, retries) for facts in chosen), *(_missing(uid) for uid in missing)]


def _wanted(request: Request, manifest: Path | None) -> tuple[dict[str, None], int]:
    """Return the series that are asked for by name, none where all are, and how often to try each again."""
    listed = manifests.read(manifest) if manifest else None
    chosen = manifests.read(request.series_file) if request.series_file else None
    first = chosen or listed
    if first is None:
        return {}, manifests.DEFAULT_RETRIES
    if chosen and listed and (strange := set(chosen.series) - set(listed.series)):
        raise UsageError(f"{request.series_file}: {len(strange)} of its series are not in {manifest}: {min(strange)}")
    return dict.fromkeys(first.series), (listed or first).retries


def _of_collection(server: Nbia, collection: str) -> dict[str, Facts]:
    """Return what the service says of every series of a collection, by UID; nothing where it shows none."""
    rows = patiently(lambda: server.rows("getSeries", Collection=collection))
    if not rows:
        return {}
    studies = patiently(lambda: server.rows("getPatientStudy", Collection=collection))
    by_uid = {str(study.get("StudyInstanceUID", "")): study for study in studies}
    found = [_facts(row, by_uid.get(str(row.get("StudyInstanceUID", "")), {})) for row in rows]
    return {facts["Series UID"]: facts for facts in found if is_uid(facts["Series UID"])}


def _of_restricted(server: Nbia, collection: str) -> dict[str, Facts]:
    """List a collection that the public is not shown, where the keyring has a login."""
    if server.is_logged_in:
        raise UsageError(f"TCIA shows your account no collection {collection!r}: check its name, or ask for access")
    try:
        server.log_in()
    except UsageError as error:
        raise UsageError(
            f"TCIA shows the public no collection {collection!r}: check its name; if it is restricted: {error}"
        ) from None
    return _of_collection(server, collection) or _of_restricted(server, collection)


def _of_manifest(server: Nbia, wanted: list[str], jobs: int) -> dict[str, Facts]:
    """Return what the service says of the series of a manifest; what it does not show is left out."""
    known: dict[str, Facts] = {}

    def left() -> list[str]:
        return [uid for uid in wanted if uid not in known]

    known |= _by_collections(server, wanted)
    if len(left()) > FEW and _logs_in(server):
        known |= _by_collections(server, left())
    known |= _one_by_one(server, left(), jobs)
    if left() and _logs_in(server):
        known |= _one_by_one(server, left(), jobs)
    return known


def _logs_in(server: Nbia) -> bool:
    """Log in where the keyring has a login; say whether that is new."""
    if server.is_logged_in:
        return False
    try:
        server.log_in()
    except UsageError:
        return False
    return True


def _by_collections(server: Nbia, wanted: list[str]) -> dict[str, Facts]:
    """List the collections of many series: one series tells its collection, until few or only unknown ones are left."""
    known: dict[str, Facts] = {}
    left, unknown = list(wanted), 0
    while len(left) > FEW and unknown < _MOST_PROBES:
        first = _of_series(server, left[0])
        if first is None:
            unknown += 1
            left = [*left[1:], left[0]]
            continue
        known |= {left[0]: first} | _of_collection(server, str(first.get("Collection")))
        left = [uid for uid in left if uid not in known]
    return known


def _one_by_one(server: Nbia, uids: list[str], jobs: int) -> dict[str, Facts]:
    if not uids:
        return {}
    pool = ThreadPoolExecutor(jobs)
    try:
        answers = pool.map(lambda uid: _of_series(server, uid), uids)
        found = [facts for facts in progress(answers, "asking for series", "series", len(uids)) if facts]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {facts["Series UID"]: facts for facts in found}


def _of_series(server: Nbia, uid: str) -> Facts | None:
    """Return what the service says of one series; None where it does not show it."""
    try:
        rows = patiently(lambda: server.rows("getSeriesMetaData", SeriesInstanceUID=uid))
        if not rows or str(rows[0].get("Series UID", "")) != uid:
            return None
        study_uid = str(rows[0].get("Study UID", ""))
        studies = patiently(lambda: server.rows("getPatientStudy", StudyInstanceUID=study_uid)) if study_uid else []
    except Refused:
        return None
    known = {name: rows[0][name] for name in series.FACTS if rows[0].get(name) not in (None, "")}
    size = {"File Size": rows[0].get("File Size")}
    return known | size | {"Study ID": studies[0].get("StudyID") if studies else None}


def _facts(row: Mapping[str, Any], study: Mapping[str, Any]) -> Facts:
    """Return a row of getSeries, and its row of getPatientStudy, as `series.FACTS` and the size in bytes."""
    return {
        "Series UID": str(row.get("SeriesInstanceUID", "")),
        "Collection": row.get("Collection"),
        "3rd Party Analysis": row.get("ThirdPartyAnalysis"),
        "Data Description URI": row.get("CollectionURI"),
        "Subject ID": row.get("PatientID"),
        "Study UID": row.get("StudyInstanceUID"),
        "Study Description": study.get("StudyDescription"),
        "Study Date": series.us_date(study.get("StudyDate") or row.get("SeriesDate")),
        "Series Description": row.get("SeriesDescription"),
        "Manufacturer": row.get("Manufacturer"),
        "Modality": row.get("Modality"),
        "Number of Images": row.get("ImageCount"),
        "Series Number": row.get("SeriesNumber"),
        "Study ID": study.get("StudyID"),
        "License Name": row.get("LicenseName"),
        "License URL": row.get("LicenseURI"),
        "File Size": row.get("FileSize"),
    }


def _selected(request: Request, found: list[Facts]) -> list[Facts]:
    """Return the series that a request selects, in order of patient and UID."""
    found = sorted(found, key=lambda facts: (_patient(facts), facts["Series UID"]))
    found = _keep(found, "--modality", request.modality, lambda facts: {str(facts.get("Modality"))})
    found = _keep(found, "--licence", request.licence, _licences)
    for patient in request.patient_ids:
        if not any(patient in _names(facts) for facts in found):
            raise UsageError(f"--patient {patient}: no such patient there, or none with such series")
    if request.patient_ids:
        found = [facts for facts in found if _names(facts) & set(request.patient_ids)]
    if request.patients:
        first = set(sorted({sources.person(_patient(facts)) for facts in found})[: request.patients])
        found = [facts for facts in found if sources.person(_patient(facts)) in first]
    return found


def _keep(found: list[Facts], option: str, value: str | None, values: Callable[[Facts], set[str]]) -> list[Facts]:
    if value is None:
        return found
    kept = [facts for facts in found if value in values(facts)]
    if not kept:
        there = ", ".join(sorted(set().union(*map(values, found)))) if found else "none"
        raise UsageError(f"{option} {value}: no such series; there are {there}")
    return kept


def _patient(facts: Facts) -> str:
    return str(facts.get("Subject ID") or "")


def _names(facts: Facts) -> set[str]:
    return {_patient(facts), sources.person(_patient(facts))}


def _licences(facts: Facts) -> set[str]:
    """Return the names of a series' licence: as the archive writes it, and short, `CC BY 3.0`."""
    name, url = str(facts.get("License Name") or "unnamed"), str(facts.get("License URL") or "")
    short = re.search(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)", url)
    return {name, f"CC {short[1].upper()} {short[2]}"} if short else {name}


def _item(server: Nbia, facts: Facts, retries: int) -> Item:
    uid, images, size = facts["Series UID"], _whole(facts.get("Number of Images")), _whole(facts.get("File Size"))

    def fetch(folder: Path, tell: Tell) -> str:
        return series_zip.fetch(server, uid, folder, tell, images=images, size=size)

    return Item(uid, series.place(facts), size, fetch, facts, retries)


def _missing(uid: str) -> Item:
    def fetch(folder: Path, tell: Tell) -> str:
        raise SpiculaError(_NOT_THERE)

    return Item(uid, f"missing/{uid}", None, fetch)


def _whole(value: object) -> int | None:
    """Return a number that the service writes as a number or as text; None where it is none above 0."""
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None
