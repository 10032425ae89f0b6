"""The objects themselves: files under names of ours, byte for byte as they came, and the index over them."""

import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spicula import files
from spicula.errors import RejectedImageError
from spicula.serving.dicomweb import reading
from spicula.serving.dicomweb.index import ConflictError, Index, Instance

#: Failure reasons of PS3.18 table 10.5.1-1 and of C-STORE, PS3.4 table B.2-1 and PS3.7 annex C.
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111
OTHER_STUDY = 0xA900  # the data set does not match
NO_ROOM = 0xA700


@dataclass(frozen=True)
class Stored:
    """What became of an object that was sent.

    Attributes:
        failure: why it is not kept; 0 where it is.
        study: UID; "" where it could not be read.
        series: UID.
        instance: UID.
        sop_class: UID.
        is_new: it was not there before.
    """

    failure: int
    study: str = ""
    series: str = ""
    instance: str = ""
    sop_class: str = ""
    is_new: bool = False


class Archive:
    """Objects that were sent, and results.

    Args:
        place: their folder, which is made.

    Raises:
        OSError, sqlite3.Error: it cannot be written to.
    """

    def __init__(self, place: Path) -> None:
        self._objects, self._leaving = place / "objects", place / "leaving"
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o700)  # images of patients
        self._objects.mkdir(exist_ok=True)
        shutil.rmtree(self._leaving, ignore_errors=True)
        self._leaving.mkdir()
        self.index = Index(place / "index.sqlite")

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def path(self, digest: str) -> Path:
        """Return the file of an object.

        Args:
            digest: SHA-256 of its bytes.
        """
        return self._objects / digest[:2] / f"{digest}.dcm"

    def store(self, path: Path, sha256: str, study: str | None = None, *, is_ours: bool = False) -> Stored:
        """Keep an object; when this returns it is on the disk.

        Args:
            path: its file, which is left as it is.
            sha256: of its bytes.
            study: the UID that it must have; None for any.
            is_ours: it is a result.

        Raises:
            SpiculaError, OSError, sqlite3.Error: it cannot be written.
        """
        try:
            found = reading.read(path)
        except (RejectedImageError, RecursionError, MemoryError):
            return Stored(CANNOT_UNDERSTAND)
        keys = found.keys
        uids = (keys["StudyInstanceUID"], keys["SeriesInstanceUID"], keys["SOPInstanceUID"], keys["SOPClassUID"])
        if study is not None and uids[0] != study:
            return Stored(OTHER_STUDY, *uids)
        to = self.path(sha256)
        was_there = to.exists()
        if not was_there:
            with files.atomic_path(to) as temporary:
                shutil.copyfile(path, temporary)
        try:
            is_new = self.index.add(found, sha256, path.stat().st_size, is_ours=is_ours)
        except ConflictError:
            self._forget(sha256)
            return Stored(DUPLICATE, *uids)
        if not is_new:
            self._forget(sha256)
        return Stored(0, *uids, is_new=is_new)

    def remove_results(self, study: str, kept: list[str]) -> None:
        """Remove results of a study, all but those with these digests."""
        for digest in self.index.remove_results(study, kept):
            self.path(digest).unlink(missing_ok=True)

    def forget(self, exam: str) -> None:
        """Remove the results of an exam that is there no more; its study stays, and is no exam until it comes again."""
        for study in self.index.forget(exam):
            self.remove_results(study, [])

    def leaving(self, instance: Instance) -> Path:
        """Return a file with the bytes of an object, which may be moved away.

        Raises:
            FileNotFoundError: the object's file is lost.
        """
        path = self._leaving / uuid.uuid4().hex
        try:
            os.link(self.path(instance.digest), path)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            shutil.copyfile(self.path(instance.digest), path)
        return path

    def _forget(self, digest: str) -> None:
        """Remove a file that is in no row: the same object was there in other bytes."""
        if not self.index.has(digest):
            with suppress(OSError):
                self.path(digest).unlink()
