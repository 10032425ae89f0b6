"""Images of an Index as PNG files, shards or de-identified DICOM, with a new Index."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from spicula import index
from spicula.convert import folder, outcome
from spicula.convert.layouts import layout_of, setting_of
from spicula.convert.outcome import Outcome
from spicula.convert.plan import check, plan_tasks
from spicula.convert.sample import Task
from spicula.convert.settings import TREE_FORMATS, Settings
from spicula.deidentify import Pseudonyms
from spicula.errors import UsageError
from spicula.processes import cores
from spicula.progress import progress

__all__ = ["Engine", "Outcome", "Settings", "convert"]

Engine = Literal["local", "ray"]


def convert(
    index_path: Path,
    to: Path,
    settings: Settings,
    *,
    root: Path | None = None,
    key_file: Path | None = None,
    engine: Engine = "local",
    address: str | None = None,
    jobs: int | None = None,
) -> Outcome:
    """Convert the images of an Index, those that are not converted yet.

    What is there under the same settings stays. A conversion that was killed goes on where it was, and ends with the
    same files and the same Index. Images that cannot be read are tried again by every run.

    Args:
        index_path: the Index.
        to: the output folder; new, or that of a conversion with the same settings.
        settings: what to make.
        root: where the images are, when they were moved since they were indexed.
        key_file: what links pseudonyms to ids (with `settings.deidentify`); made when missing. Outside of `to`.
        engine: where work runs.
        address: of a Ray cluster; None: one on this machine.
        jobs: worker processes; None: one a core (on Ray: of the cluster).

    Returns:
        The new Index, and what was rejected.

    Raises:
        UsageError: the folder, the settings and the Index do not go together.
        SpiculaError: the folder cannot be written to, another conversion works in it, or workers cannot start.
    """
    index_path, to = Path(index_path), Path(to).absolute()
    table = index.read(index_path, root)
    check(table, to, settings)
    pseudonyms = _pseudonyms(settings, key_file, to)
    threads = jobs or cores()
    with folder.claim(to, settings):
        planned = plan_tasks(table, settings, pseudonyms, threads)
        tasks = [one.task for one in planned if isinstance(one.task, Task)]
        layout = layout_of(settings)
        chunks: list[list[Task]] = layout.missing(to, tasks, settings)
        total = sum(len(chunk) for chunk in chunks)
        reasons: dict[str, str | None] = {}
        if chunks:
            done = _run(setting_of(to, settings, key_file), chunks, engine, address, jobs)
            reasons = dict(progress(done, "converting images", total=total))
        found = layout.collect(to, tasks, settings)
        result = Outcome(
            folder=to,
            index=outcome.new_index(planned, found, to, settings),
            rejected=outcome.rejected_table(planned, found, reasons),
            made=sum(key in found for key in reasons),
            has_files=settings.format in TREE_FORMATS,
        )
        outcome.write_tables(to, outcome.conversion_table(planned, found, settings), result.rejected)
        layout.finish(to, result.index, found, settings)
        folder.write_card(to, settings, {"images": len(result.index), "rejected": len(result.rejected)})
    return result


def _run(
    setting: dict[str, Any], chunks: Sequence[Sequence[Task]], engine: Engine, address: str | None, jobs: int | None
) -> Iterator[tuple[str, str | None]]:
    if engine == "ray":
        from spicula.convert import ray_engine

        return ray_engine.run(setting, chunks, address=address, jobs=jobs)
    from spicula.convert import engine as local

    return local.run(setting, chunks, jobs or cores())


def _pseudonyms(settings: Settings, key_file: Path | None, to: Path) -> Pseudonyms | None:
    if not settings.deidentify:
        if key_file is not None:
            raise UsageError("--key-file belongs to --deidentify")
        return None
    if key_file is None:
        raise UsageError("--deidentify needs --key-file FILE, which links pseudonyms to ids; keep it private")
    if Path(key_file).resolve().is_relative_to(to.resolve()):
        raise UsageError(f"the key file must not lie in {to}: who gets the images would get the ids as well")
    return Pseudonyms(key_file)
