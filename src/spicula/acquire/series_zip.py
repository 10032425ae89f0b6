"""One series from an NBIA service: the zip with its MD5 list, every file checked, nothing that arrived thrown away.

The service makes the zip while it sends it, so it cannot be continued where it was cut. What arrived whole is kept
then, and the other images come one by one, each checked against the MD5 that the archive has of it. Wherever that does
not work out, the zip is fetched anew.
"""

import csv
import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from typing import Protocol

from spicula import archive
from spicula.acquire import salvage, series, transfer
from spicula.acquire.manifest import is_uid
from spicula.acquire.transfer import Refused, Retry, Tell
from spicula.errors import RejectedImageError, SpiculaError
from spicula.headers import read_dicom

#: The list in the zip, and what may lie beside the images without standing in it.
MD5_LIST, UNLISTED = "md5hashes.csv", frozenset({"md5hashes.csv", "LICENSE"})

_BY_LIST = "MD5 of every file by the list in the archive's zip"
_BY_IMAGE = "MD5 of every file by the archive, image by image"
# Deflate packs an all-black mask up to 1,032:1 (zlib's technical details), which is no bomb: lesion masks are sent so.
# What bounds an unpacked series is the size that the archive declares.
_RATIO = 1_100
_SLACK_BYTES = 2**20
_UNDECLARED_BYTES = 2**36


class Server(Protocol):
    """What is asked of an NBIA service."""

    def fetch(self, call: str, path: Path, tell: Tell, *, magic: bytes, **params: str) -> None:
        """Fetch the answer to a call into a file, as `transfer.Client.fetch`."""

    def rows(self, call: str, **params: str) -> list[dict[str, object]]:
        """Return the rows of an answer."""

    def text(self, call: str, **params: str) -> str:
        """Return an answer in plain text."""


def fetch(server: Server, uid: str, folder: Path, tell: Tell, *, images: int | None, size: int | None) -> str:
    """Fetch a series into a folder, which may hold what an attempt left that was cut short.

    Args:
        server: the service.
        uid: series instance UID.
        folder: its own; afterwards it holds the images, named as `series.image_names` does, and nothing else.
        tell: called with the number of bytes as they arrive.
        images: how many images the archive announced; None: it did not.
        size: how many bytes they have together; None: the archive did not say.

    Returns:
        What was checked.

    Raises:
        Retry: it may work later.
        SpiculaError: the archive will not give it, or has nothing.
    """
    budget = size + _SLACK_BYTES if size else _UNDECLARED_BYTES
    zipped, members, kept = folder / "series.zip", folder / "members", folder / "kept"
    _take_back(folder, zipped, kept)
    if transfer.part_of(zipped).exists() and not transfer.can_continue(zipped):
        _keep_what_arrived(zipped, kept, budget)
    if kept.exists() and not zipped.exists() and _complete(server, uid, kept, tell, images):
        return _finish(folder, kept, _BY_IMAGE)
    server.fetch("getImageWithMD5Hash", zipped, tell, magic=b"PK", SeriesInstanceUID=uid)
    _unpack(zipped, members, budget)
    return _finish(folder, members, _BY_LIST)


def _take_back(folder: Path, zipped: Path, kept: Path) -> None:
    """Undo a `_finish` that was cut short: from the zip while it is there, else by what the images say they are."""
    for image in folder.glob("1-*.dcm"):
        uid = "" if zipped.exists() else _sop_uid(image)
        if uid:
            kept.mkdir(exist_ok=True)
            image.replace(kept / f"{uid}.dcm")
        else:
            image.unlink()


def _unpack(zipped: Path, members: Path, budget: int) -> None:
    """Unpack a zip and check every member against its list; what is wrong is removed and to be tried again."""
    shutil.rmtree(members, ignore_errors=True)
    members.mkdir()
    try:
        archive.unpack_into(zipped, members, archive.Limits(ratio=_RATIO, total_bytes=budget))
        wrong = _compare(members)
    except SpiculaError:
        wrong = "what arrived is no whole zip, or is larger than announced"
    if wrong:
        transfer.forget(zipped)
        shutil.rmtree(members)
        raise Retry(wrong)
    for name in UNLISTED:
        (members / name).unlink(missing_ok=True)


def _compare(members: Path) -> str:
    """Return how the files in a folder differ from the MD5 list that lies among them; empty: not at all."""
    listed = _read_list(members / MD5_LIST)
    if listed is None:
        return f"the zip came without its {MD5_LIST}: the archive broke off"
    there = {path.relative_to(members).as_posix(): path for path in members.rglob("*") if path.is_file()}
    there = {name: path for name, path in there.items() if name not in UNLISTED}
    if not listed and not there:
        return "the archive sent no image of this series"
    for word, names in (
        ("missing", listed.keys() - there.keys()),
        ("not in its MD5 list", there.keys() - listed.keys()),
    ):
        if names:
            return f"{len(names)} of {len(listed)} files of the zip {_are(names)} {word}"
    different = [name for name, path in there.items() if md5_of(path) != listed[name]]
    return f"{len(different)} of {len(listed)} files differ from the archive's MD5" if different else ""


def _are(names: set[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _read_list(path: Path) -> dict[str, str] | None:
    """Return file name -> MD5; None where there is no list that can be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or [cell.strip() for cell in rows[0]] != ["Filename", "MD5Hash"] or any(len(row) != 2 for row in rows):
        return None
    return {name.strip(): value.strip().lower() for name, value in rows[1:]}


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes, in lower-case hexadecimal: what the archive publishes, no protection."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _keep_what_arrived(zipped: Path, kept: Path, budget: int) -> None:
    """Take the whole members out of a zip that was cut; where it was cut after its end, it is whole itself."""
    part = transfer.part_of(zipped)
    if zipfile.is_zipfile(part):
        part.replace(zipped)
        return
    kept.mkdir(exist_ok=True)
    for name, path in salvage.whole_members(part, kept / "member", budget):
        uid = "" if name in UNLISTED else _sop_uid(path)
        if uid:
            path.replace(kept / f"{uid}.dcm")
    transfer.forget(zipped)
    if not any(kept.glob("*.dcm")):
        shutil.rmtree(kept)


def _sop_uid(path: Path) -> str:
    """Return the SOP instance UID of a DICOM file, empty where it has none that is one."""
    try:
        uid = str(read_dicom(path).get("SOPInstanceUID", ""))
    except RejectedImageError:
        return ""
    return uid if is_uid(uid) else ""


def _complete(server: Server, uid: str, kept: Path, tell: Tell, images: int | None) -> bool:
    """Fetch the images that are not there yet and check all; where that does not work out, remove all of them."""
    try:
        whole = _fetch_rest(server, uid, kept, tell, images)
    except Refused:
        whole = False
    if not whole:
        shutil.rmtree(kept)
    return whole


def _fetch_rest(server: Server, uid: str, kept: Path, tell: Tell, images: int | None) -> bool:
    wanted = [str(row.get("SOPInstanceUID", "")) for row in server.rows("getSOPInstanceUIDs", SeriesInstanceUID=uid)]
    there = {path.stem for path in kept.glob("*.dcm")}
    if not all(map(is_uid, wanted)) or there - set(wanted) or (images or len(wanted)) != len(wanted):
        return False
    for sop_uid in wanted:
        path = kept / f"{sop_uid}.dcm"
        server.fetch("getSingleImage", path, tell, magic=b"", SeriesInstanceUID=uid, SOPInstanceUID=sop_uid)
        said = server.text("getM5HashForImage", SOPInstanceUid=sop_uid).strip().strip('"').lower()
        if not re.fullmatch(r"[0-9a-f]{32}", said) or md5_of(path) != said:
            return False
    for path in kept.iterdir():  # what is left of images that were cut
        if path.suffix != ".dcm":
            path.unlink()
    return bool(wanted)


def _finish(folder: Path, images: Path, checks: str) -> str:
    """Leave the images alone in the folder, under their names. The zip goes last: see `_take_back`."""
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    for path, name in series.image_names(paths).items():
        path.replace(folder / name)
    shutil.rmtree(images)
    for path in folder.iterdir():
        if not path.name.startswith("1-"):
            path.unlink()
    return checks
