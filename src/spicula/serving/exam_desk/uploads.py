"""What was sent, sorted: DICOM files, images that are named by their view, archives of either."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spicula import archive, files
from spicula.catalog.exam_folders.exam_files import MASK_FOLDERS, parse
from spicula.catalog.tree import is_document, walk
from spicula.errors import SpiculaError
from spicula.headers.dicom import is_dicom
from spicula.serving.problems import Problem, beyond

_HEAD_BYTES = 132  # preamble and magic number (PS3.10 7.1)
_SUFFIXES = {b"\x89PNG": ".png", b"II*\0": ".tif", b"MM\0*": ".tif", b"\xff\xd8\xff": ".jpg"}
_LISTS = (".pkl", ".pickle")


@dataclass(frozen=True)
class Sent:
    """A file that was sent.

    Attributes:
        path: where it lies now.
        name: how the sender calls it, with folders where it was in an archive; to find its view, and for nothing else.
        sha256: of its bytes.
        bytes: its size.
    """

    path: Path
    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class _Sorted:
    """A file with what its content and its name tell.

    Attributes:
        number: from 1, in the order in which they were sent: how people are told of it.
        kind: "dicom", or "image" for all others.
        exam: what its name has for the exam; to tell exams apart, and for nothing else.
        view: "L-CC", or "" where nothing but the header tells.
    """

    sent: Sent
    number: int
    kind: str
    exam: str
    view: str


def gather(sent: Sequence[Sent], room: Path, limits: Mapping[str, int]) -> dict[str, Any]:
    """Move what was sent into a folder, under names of ours.

    Args:
        sent: the files, at least one.
        room: an empty folder; files go below `images` in it.
        limits: "parts", "image-bytes" and "unpacked-bytes".

    Returns:
        JSON values: "files", each with "name" (below `images`), "number" (in the order in which they were sent),
        "view" ("" where only the header tells), "kind", "sha256" and "bytes"; "notes" on what was left out.

    Raises:
        Problem: an archive is refused, or there are no files in it.
        OSError: the files cannot be written.
    """
    notes: list[str] = []
    found = [_sorted(one, number) for number, one in enumerate(_unpacked(sent, room, limits, notes), start=1)]
    if not found:
        raise Problem(422, "no-images", "the archive holds no images")
    listed = _place(sorted(found, key=lambda one: one.sent.name), room)
    shutil.rmtree(room / "unpacked", ignore_errors=True)
    return {"files": listed, "notes": notes}


def _place(found: Sequence[_Sorted], room: Path) -> list[dict[str, Any]]:
    # images of two exams go into two folders, so that intake finds two exams and not one with two images of a view
    exams = {exam: f"{number}" for number, exam in enumerate(dict.fromkeys(one.exam for one in found), start=1)}
    counts = Counter[str]()
    listed = []
    for one in found:
        folder = exams[one.exam]
        counts[f"{folder}/{one.view}"] += 1
        name = f"{folder}/{_name(one, counts[f'{folder}/{one.view}'])}"
        (room / "images" / folder).mkdir(parents=True, exist_ok=True)
        shutil.move(one.sent.path, room / "images" / name)
        values = {"name": name, "number": one.number, "view": one.view, "kind": one.kind}
        listed.append({**values, "sha256": one.sent.sha256, "bytes": one.sent.bytes})
    return listed


def _name(one: _Sorted, of_view: int) -> str:
    if one.kind == "dicom":
        return f"file-{one.number:04d}.dcm"
    with one.sent.path.open("rb") as stream:
        head = stream.read(4)
    suffix = next((suffix for magic, suffix in _SUFFIXES.items() if head.startswith(magic)), ".bin")
    if not one.view:
        return f"file-{one.number:04d}{suffix}"
    return one.view.replace("-", "_") + (f"_{of_view:03d}" if of_view > 1 else "") + suffix


def _sorted(sent: Sent, number: int) -> _Sorted:
    with sent.path.open("rb") as stream:
        if is_dicom(stream.read(_HEAD_BYTES)):
            return _Sorted(sent, number, "dicom", "", "")
    named = parse(sent.name.replace("\\", "/"))
    if named is None:
        return _Sorted(sent, number, "image", "", "")
    return _Sorted(sent, number, "image", named.exam, f"{named.side}-{named.view}")


def _unpacked(sent: Sequence[Sent], room: Path, limits: Mapping[str, int], notes: list[str]) -> Iterator[Sent]:
    for number, one in enumerate(sent):
        if archive.is_archive(one.path):
            yield from _of_archive(one, room / "unpacked" / f"{number}", limits, notes)
        else:
            yield one


def _of_archive(sent: Sent, folder: Path, limits: Mapping[str, int], notes: list[str]) -> Iterator[Sent]:
    folder.mkdir(parents=True)
    most, image_bytes = limits["unpacked-bytes"], limits["image-bytes"]
    try:
        archive.unpack_into(sent.path, folder, archive.Limits(total_bytes=most, members=2 * limits["parts"]))
    except SpiculaError as error:  # its words name files
        if "unpacks to more" in str(error):
            raise beyond(
                "unpacked-bytes", most, "an archive unpacks to more than {value} bytes, or 200 times its size"
            ) from None
        raise Problem(
            422,
            "archive",
            "an archive is damaged, encrypted, or holds links, devices, odd names or paths that lead out of it;"
            " send the images themselves",
        ) from None
    passed_over = 0
    for path in walk(folder):
        if _is_beside_images(path):
            passed_over += 1
            continue
        size = (folder / path).stat().st_size
        if size > image_bytes:
            raise beyond("image-bytes", image_bytes, "a file of the archive has more than {value} bytes")
        yield Sent(folder / path, path, files.sha256_file(folder / path), size)
    if passed_over:
        notes.append(f"{passed_over} files of the archive are no images of an exam, and were passed over")


def _is_beside_images(path: str) -> bool:
    """Whether a file of an archive is one that lies beside images: a text, an exam list, a mask of a lesion."""
    lower = path.lower()
    folder, _, name = lower.rpartition("/")
    is_list = name.endswith(_LISTS) or name == "dicomdir"
    return is_list or is_document(lower) or folder.rpartition("/")[2] in MASK_FOLDERS
