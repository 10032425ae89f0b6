"""STOW-RS: what a request brought is kept, and what became of it is said as DICOM JSON (PS3.18 table 10.5.3-1)."""

from collections.abc import Sequence
from typing import Any

from spicula.serving.dicomweb.archive import Archive, Stored
from spicula.serving.forms import Upload


def store_all(archive: Archive, uploads: Sequence[Upload], study: str | None) -> list[Stored]:
    """Keep the objects of a request, and return what became of each.

    Raises:
        SpiculaError, OSError, sqlite3.Error: they cannot be written.
    """
    return [archive.store(one.path, one.sha256, study) for one in uploads]


def status(stored: Sequence[Stored]) -> int:
    """Return the status of an answer: 200 all are kept, 202 some, 409 none."""
    failed = sum(bool(one.failure) for one in stored)
    return 200 if not failed else 409 if failed == len(stored) else 202


def answer(stored: Sequence[Stored], base: str, study: str | None) -> dict[str, Any]:
    """Return the body of an answer.

    Args:
        stored: what became of each object.
        base: address of the service's DICOMweb, without a slash at its end.
        study: the UID in the request's path.
    """
    body: dict[str, Any] = {}
    kept = [one for one in stored if not one.failure]
    studies = {one.study for one in kept} | ({study} if study and kept else set())
    if len(studies) == 1:
        body["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    if failed := [_named(one) | _reason(one) for one in stored if one.failure and one.instance]:
        body["00081198"] = {"vr": "SQ", "Value": failed}
    if kept:
        body["00081199"] = {"vr": "SQ", "Value": [_named(one) | _place(one, base) for one in kept]}
    if unnamed := [_reason(one) for one in stored if one.failure and not one.instance]:
        body["0008119A"] = {"vr": "SQ", "Value": unnamed}
    return body


def _named(one: Stored) -> dict[str, Any]:
    return {"00081150": {"vr": "UI", "Value": [one.sop_class]}, "00081155": {"vr": "UI", "Value": [one.instance]}}


def _place(one: Stored, base: str) -> dict[str, Any]:
    where = f"{base}/studies/{one.study}/series/{one.series}/instances/{one.instance}"
    return {"00081190": {"vr": "UR", "Value": [where]}}


def _reason(one: Stored) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [one.failure]}}
