"""Pictures and uncompressed frames for viewers: made by one process, on demand, in the order in which they come."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spicula.processes import command_of
from spicula.serving.dicomweb.archive import Archive
from spicula.serving.dicomweb.index import Instance
from spicula.serving.dicomweb.viewing import Viewing
from spicula.serving.problems import Problem, beyond
from spicula.serving.task_process import TaskProcess

COMMAND = command_of("spicula.serving.dicomweb.drawing")

#: The largest images take some 10 s; whoever takes that long hangs.
_MOST_SECONDS = 30.0
_FRAMES, _ROWS, _PHOTOMETRIC, _ALLOCATED = "00280008", "00280010", "00280004", "00280100"


class Rendering:
    """Makes what must be decoded.

    Args:
        new_path: returns a path for a file of ours, where nothing is.
        limits: "making-queue".
        command: starts the process.
    """

    def __init__(
        self, new_path: Callable[[], Path], limits: Mapping[str, int], command: tuple[str, ...] = COMMAND
    ) -> None:
        self._new_path, self._limits = new_path, limits
        self._process = TaskProcess(command, {}, _MOST_SECONDS)

    async def picture(self, path: Path, number: int, kind: str, viewing: Viewing) -> bytes:
        """Return a picture of a frame.

        Args:
            path: of the object.
            number: of the frame, from 1.
            kind: its media type, one of `viewing.KINDS`.
            viewing: how it is to be seen.

        Raises:
            Problem: the frame cannot be decoded, or too many wait.
        """
        return await self._make(path, number, kind, viewing=viewing.as_json())

    async def values(self, path: Path, number: int) -> bytes:
        """Return a frame without its compression, see `drawing.values`.

        Raises:
            Problem: it cannot be decoded, or too many wait.
        """
        return await self._make(path, number, None)

    async def close(self) -> None:
        """End the process."""
        await self._process.close()

    async def _make(self, path: Path, number: int, kind: str | None, **more: Any) -> bytes:
        if self._process.waiting >= (most := self._limits["making-queue"]):
            raise beyond("making-queue", most, "{value} pictures and frames wait to be made")
        to = self._new_path()
        task = {"path": str(path), "to": str(to), "frame": number - 1, "kind": kind, **more}
        try:
            outcome, said = await self._process.do(task)
            if outcome == "done":
                return to.read_bytes()
        finally:
            to.unlink(missing_ok=True)
        why = said if outcome == "rejected" else "the process that decodes it ended"
        raise Problem(409, "no-pixels", f"the frame cannot be decoded: {why}")


def frames_of(header: Mapping[str, Any]) -> int:
    """Return how many frames an object has; 0 where it is no image.

    Args:
        header: DICOM JSON.
    """
    if not _number(header, _ROWS):
        return 0
    return max(1, _number(header, _FRAMES))


def check_values(header: Mapping[str, Any]) -> None:
    """See that frames of an object are the same when they are decompressed, as the header tells them.

    Raises:
        Problem: 406, its colours would be others than its header says.
    """
    kind = str((header.get(_PHOTOMETRIC, {}).get("Value") or [""])[0])
    if not kind.startswith("MONOCHROME") and kind != "RGB":
        raise Problem(
            406, "not-acceptable", "frames of this object come compressed only: its colours change with decompression"
        )


def image_of(archive: Archive, instances: list[Instance]) -> tuple[Instance, int]:
    """Return the first object that is an image, and how many frames it has.

    Raises:
        Problem: 404, none is.
    """
    for one in instances:
        if frames := frames_of(archive.index.header(one.id)):
            return one, frames
    raise Problem(404, "no-image", "there is no image here that can be shown; documents and reports are none")


def tag_of(instance: Instance, numbers: list[int], kind: str, viewing: Viewing) -> str:
    """Return the ETag of pictures: it changes with the object and with what is asked."""
    asked = json.dumps([instance.digest, numbers, kind, viewing.as_json()])
    return f'"{hashlib.sha256(asked.encode()).hexdigest()[:32]}"'


def _number(header: Mapping[str, Any], tag: str) -> int:
    value = (header.get(tag, {}).get("Value") or [0])[0]
    return int(value) if isinstance(value, int | float) else 0
