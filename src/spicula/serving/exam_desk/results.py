"""Pictures and documents of exams, made on demand by one process, and kept beside the exam as long as its result is."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spicula.processes import command_of
from spicula.serving.exam_desk.shelf import Shelf
from spicula.serving.problems import Problem, beyond
from spicula.serving.task_process import TaskProcess

COMMAND = command_of("spicula.serving.exam_desk.making")

#: The largest report takes a few seconds; whoever takes that long hangs.
_MOST_SECONDS = 120.0

#: Why a thing cannot be made: status and words.
_REASONS: Mapping[str, tuple[int, str]] = {
    "no-result": (409, "the exam failed before anything was made of it; it tells why at /v1/exams/ID"),
    "no-image": (409, "the image cannot be read; the exam tells why at /v1/exams/ID"),
    "no-crop": (409, "no breast was found in the image; ask for it whole with part=whole"),
    "no-heatmap": (409, "there are no heatmaps of this image"),
    "no-scores": (409, "the exam has no scores; it tells why at /v1/exams/ID"),
    "no-study": (409, "results cannot be put beside the study: its images have odd UIDs, or are of several studies"),
    "not-written": (409, "DICOM cannot be written of this exam"),
    "memory": (503, "it takes more memory than there is"),
    "gone": (409, "the exam is being run again; ask when it is done"),
    "lost": (500, "a file of the workspace is lost; send the same images again, or run it again, and it is made again"),
    "died": (500, "the process that makes it ended; the image may be damaged"),
}


class Making:
    """Has things made of exams, one at a time.

    Args:
        workspace: of the exams.
        limits: "making-queue".
        command: starts the process.
    """

    def __init__(self, workspace: str, limits: Mapping[str, int], command: tuple[str, ...] = COMMAND) -> None:
        self._limits = limits
        self._process = TaskProcess(command, {"workspace": workspace}, _MOST_SECONDS)

    async def files(self, shelf: Shelf, stem: str, task: Mapping[str, Any]) -> list[Path]:
        """Return what is wanted, from the last time where it is there.

        Args:
            shelf: of the exam; it has a result.
            stem: what begins the names of the files: the same for the same task.
            task: see `making.Task`, without `result`, `to` and `stem`.

        Raises:
            Problem: it cannot be made of this exam, or too many wait.
        """
        to = shelf.made
        stem = f"{shelf.stamp()}-{stem}"
        found = _named(to, stem)
        if found:
            return found
        asked = {**task, "to": str(to), "stem": stem, "result": str(shelf.folder / "result.json")}
        # `known`: made while this one waited
        return [to / name for name in await self._do(asked, lambda: [path.name for path in _named(to, stem)])]

    async def take_in(self, shelf: Shelf, name: str, run: str, version: str) -> None:
        """Have the result of an exam of the ledger put on its shelf, where it is not there.

        Args:
            shelf: of the exam.
            name: of the exam in the ledger.
            run: the run whose configuration it is told with.
            version: what changes when the ledger has more of it.

        Raises:
            Problem: it cannot be read, or too many wait.
        """

        def known() -> list[str]:
            return ["result.json"] if shelf.result().get("version") == version else []

        if not known():
            task = {"what": "detail", "to": str(shelf.folder), "name": name, "run": run, "version": version}
            await self._do(task, known)

    async def _do(self, task: Mapping[str, Any], known: Callable[[], list[str]]) -> list[str]:
        if self._process.waiting >= (most := self._limits["making-queue"]):
            raise beyond("making-queue", most, "{value} pictures and documents of exams wait to be made")
        outcome, said = await self._process.do(task, known)
        if outcome != "done":
            code = said or "died"
            status, detail = _REASONS[code]
            raise Problem(status, code, detail, {"Retry-After": "5"} if status == 503 else {})
        names: list[str] = said
        return names

    async def close(self) -> None:
        """End the process."""
        await self._process.close()


def _named(folder: Path, stem: str) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.name.startswith(f"{stem}."))
    return []


def digest_in(path: Path) -> str:
    """Return the SHA-256 of a file's content, from its name."""
    return path.name.split(".")[-2]
