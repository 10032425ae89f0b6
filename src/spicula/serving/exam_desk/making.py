"""The process that makes pictures and documents of exams: it decodes images, so that its death costs one answer.

Started as `python -m spicula.serving.exam_desk.making`; it speaks the protocol of `imaging.worker_process`. A task is
made into files of `Task.to`; ["done", 0, [NAME, ...]] names them, ["rejected", 0, code] says why there are none.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pyarrow.dataset as ds

from spicula import files
from spicula.errors import RejectedImageError, SpiculaError, UsageError
from spicula.exams.artefacts import Artefacts, LostArtefactError
from spicula.exams.outputs.detail import ExamDetail, detail_of, pictures_of
from spicula.exams.steps import Step
from spicula.exams.types import ImageFile, RefusedExamError
from spicula.headers.dicom import is_dicom
from spicula.imaging import worker_process
from spicula.imaging.worker_process import Tell, Work
from spicula.serving.exam_desk.following import Book

_HEAD_BYTES = 132  # preamble and magic number (PS3.10 7.1)
_IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".pgm")


class Detail(TypedDict):
    """An exam of the ledger that is to be put into a folder: as exam.json and result.json, see `incoming`."""

    what: str  # "detail"
    to: str  # folder
    name: str  # in the ledger
    run: str  # whose configuration it is told with
    version: str


class Task(TypedDict):
    """What is to be made of an exam."""

    result: str  # file, see `incoming.Incoming.result`
    to: str  # folder
    stem: str  # of the files' names; the SHA-256 of the content follows, then the suffix
    what: str  # "image", "heatmap", "report" or "dicom"
    image: NotRequired[str]  # name of the image
    part: NotRequired[str]  # "crop" or "whole"
    size: NotRequired[int | None]
    target: NotRequired[str]
    form: NotRequired[str]  # "grey" or "layer"
    threshold: NotRequired[float | None]


class _NoneError(Exception):
    """What is wanted cannot be made of this exam; the message is a code of ours."""


class Maker:
    """Makes pictures and documents of the exams of a workspace."""

    def __init__(self, workspace: str) -> None:
        self._ledger = Book.open(workspace)
        self._artefacts = Artefacts(f"{self._ledger.place}/artefacts")

    def make(self, task: Task) -> list[str]:
        """Make what is asked for; return the names of the files.

        Raises:
            _NoneError: it cannot be made of this exam.
            SpiculaError: the disk is full, or an artefact is lost.
        """
        result = json.loads(Path(task["result"]).read_bytes())
        detail: ExamDetail | None = result["detail"]
        if detail is None:
            raise _NoneError("no-result")
        if task["what"] == "report":
            return [self._keep(task, "", self._report(detail, result), ".html")]
        if task["what"] == "dicom":
            return self._dicom(task, detail, [Step.from_json(step) for step in result["steps"]])
        picture = self._image(task, detail) if task["what"] == "image" else self._heatmap(task, detail)
        return [self._keep(task, "", picture, ".png")]

    def take_in(self, task: Detail) -> list[str]:
        """Put an exam of the ledger into its folder; return the names of the files.

        Raises:
            SpiculaError: the disk is full, or an artefact is lost.
        """
        book = cast("Book", self._ledger)
        book.commits()
        runs = book.rows("runs", ["run", "event", "configuration"], ds.field("run") == task["run"]).to_pylist()
        text = next((row["configuration"] for row in runs if row["event"] == "began"), "[]")
        steps = [Step.from_json(values) for values in json.loads(text)]
        detail = detail_of(self._ledger, self._artefacts, task["name"], steps=steps)
        exam = self._ledger.show(task["name"], steps=())["exam"]
        status = {"ok": "done", "incomplete": "waiting"}.get(detail["status"], detail["status"])
        times = [step["time"] for step in detail["steps"] if step["time"] is not None]
        came = exam["time"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
        listed = [
            {"name": "", "number": number, "view": one["view"], "kind": _kind(one["path"]), "sha256": one["sha256"]}
            for number, one in enumerate(exam["images"] or (), start=1)
        ]
        folder = Path(task["to"])
        shutil.rmtree(folder / "made", ignore_errors=True)  # of the result before
        files.write_json(
            folder / "exam.json",
            {"time": came, "digest": exam["digest"], "files": listed, "notes": list(exam["notes"] or ())},
        )
        result = {
            "status": status,
            "reasons": detail["reasons"],
            "started": came,
            "finished": None if status == "waiting" else max(times, default=came),
            "version": task["version"],
            "steps": [step.as_json() for step in steps],
            "detail": detail,
        }
        files.write_json(folder / "result.json", result)
        return ["result.json"]

    def _report(self, detail: ExamDetail, result: dict[str, Any]) -> bytes:
        from spicula.exams.outputs.report import render

        when = datetime.fromisoformat(result["finished"] or result["started"])
        return render(detail, pictures_of(detail, self._artefacts), when).encode()

    def _image(self, task: Task, detail: ExamDetail) -> bytes:
        from spicula.exams.reading import StaleImageError, read_crop, read_image
        from spicula.serving.exam_desk import pictures

        if task["part"] == "whole":
            listed = self._ledger.show(detail["exam_id"], steps=())["exam"]["images"]
            file = next(ImageFile(**one) for one in listed if one["name"] == task["image"])
            try:
                return pictures.grey(worker_process.guarded(lambda: read_image(file).pixels, "reading"), task["size"])
            except (RefusedExamError, RejectedImageError, StaleImageError):
                raise _NoneError("no-image") from None
        crop = detail["images"][task["image"]]["crop"]
        if crop is None:
            raise _NoneError("no-crop")
        content = self._artefacts.get(crop)
        return content if task["size"] is None else pictures.grey(read_crop(content), task["size"])

    def _heatmap(self, task: Task, detail: ExamDetail) -> bytes:
        from spicula.exams.reading import read_crop
        from spicula.exams.stages.heatmaps import decode, maps
        from spicula.serving.exam_desk import pictures

        image = detail["images"][task["image"]]
        if image["heatmaps"] is None or image["crop"] is None:
            raise _NoneError("no-heatmap")
        found = maps(decode(self._artefacts.get(image["heatmaps"])))
        one = found[("malignant", "benign").index(task["target"])]
        if task["form"] == "grey":
            return pictures.heat(one, task["size"])
        return pictures.layer(one, read_crop(self._artefacts.get(image["crop"])), task["target"], task["size"])

    def _dicom(self, task: Task, detail: ExamDetail, steps: Sequence[Step]) -> list[str]:
        from spicula.exams.outputs.dicom import of_workspace

        if not detail["predictions"]:
            raise _NoneError("no-scores")
        threshold = task["threshold"]
        stated = next((step.about.get("heatmap_threshold") for step in steps if step.stage == "heatmaps"), None)
        has_threshold = threshold is not None or stated is not None
        with tempfile.TemporaryDirectory(prefix="spicula-dicom-") as folder:
            try:
                written = of_workspace.export(
                    self._ledger,
                    self._artefacts,
                    detail,
                    Path(folder),
                    threshold,
                    segmentations=has_threshold,
                    steps=steps,
                )
            except LostArtefactError:
                raise
            except UsageError:
                raise _NoneError("not-written") from None
            except SpiculaError:
                raise _NoneError("no-study") from None
            # their names begin with digits of the results' digest
            return [self._keep(task, f".{one.stem.partition('-')[2]}", one.read_bytes(), ".dcm") for one in written]

    def _keep(self, task: Task, name: str, content: bytes, suffix: str) -> str:
        kept = f"{task['stem']}{name}.{sha256(content).hexdigest()}{suffix}"
        files.write_bytes(Path(task["to"]) / kept, content)
        return kept


def _kind(path: str) -> str:
    """Return whether a file is DICOM; of one that is not on this machine its name tells."""
    try:
        with Path(path).open("rb") as stream:
            return "dicom" if is_dicom(stream.read(_HEAD_BYTES)) else "image"
    except OSError:
        return "image" if path.lower().endswith(_IMAGES) else "dicom"


def begin(setting: dict[str, Any]) -> Work:
    """Return what makes one thing after the other."""
    maker = Maker(setting["workspace"])

    def work(tasks: list[dict[str, Any]], tell: Tell) -> None:
        for number, task in enumerate(tasks):
            try:
                made = maker.take_in(task) if task["what"] == "detail" else maker.make(task)  # type: ignore[arg-type]
                tell("done", number, made)
            except _NoneError as error:
                tell("rejected", number, str(error))
            except LostArtefactError:
                tell("rejected", number, "lost")
            except MemoryError:
                tell("rejected", number, "memory")
            except FileNotFoundError:  # the exam was run again meanwhile, or removed
                tell("rejected", number, "gone")

    return work


if __name__ == "__main__":
    worker_process.run(begin)
