"""Models as they are put into a folder, one bundle a folder: one counts when every byte of it is verified."""

from dataclasses import dataclass, field
from pathlib import Path

from spicula import bundle as study_bundle
from spicula.bundle import screening, sealed
from spicula.errors import SpiculaError, UsageError
from spicula.exams import intake
from spicula.exams.intake import Problem


@dataclass
class _Seen:
    """A folder as it was last seen: what lay in it, since when, and, once it was looked into, the bundle's digest."""

    content: int
    since: float
    is_checked: bool = False
    digest: str | None = None


@dataclass
class ModelState:
    """What is remembered from one look at a folder of models to the next.

    Attributes:
        seen: name of a folder -> what it was.
        handed: name of a folder -> digest of the bundle that was handed on.
    """

    seen: dict[str, _Seen] = field(default_factory=dict)
    handed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelScan:
    """What one look at a folder of models found.

    Attributes:
        arrived: whole bundles that are new, or others than were handed on under their names.
        whole: all whole bundles, by name.
        problems: path and reason of folders that hold no whole bundle, each told once until it changes.
    """

    arrived: list[Path]
    whole: list[Path]
    problems: list[Problem]


def scan_models(folder: Path, state: ModelState, now: float, settle: float) -> ModelScan:
    """Look at a folder of models once. A bundle that is half copied is not whole: `bundle.json` lists every file.

    Args:
        folder: each folder in it a bundle.
        state: of the last look; it is brought up to date, but for `hand_on_models`.
        now: seconds, of any clock that does not go back.
        settle: a folder in which nothing changed for so many seconds is looked into.

    Raises:
        UsageError: there is no such folder, or it is a bundle itself.
        SpiculaError: the folder cannot be listed.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder of models at {folder}; make it, and put bundles into it")
    if (folder / sealed.INFO).exists():
        raise UsageError(f"{folder} is a bundle; name the folder that it lies in")
    problems, names = [], _names(folder)
    for name in names:
        seen = _look(folder / name, state.seen.get(name), now)
        state.seen[name] = seen
        if not seen.is_checked and now - seen.since >= settle:
            seen.is_checked = True
            try:
                seen.digest = _digest(folder / name)
            except SpiculaError as error:
                problems.append({"path": str(folder / name), "reason": str(error)})
    for gone in set(state.seen) - set(names):
        del state.seen[gone]
    whole = [name for name in names if state.seen[name].digest is not None]
    arrived = [name for name in whole if state.seen[name].digest != state.handed.get(name)]
    return ModelScan([folder / name for name in arrived], [folder / name for name in whole], problems)


def hand_on_models(state: ModelState, scan: ModelScan) -> None:
    """Remember that the models of a scan were handed on."""
    state.handed = {path.name: digest for path in scan.whole if (digest := state.seen[path.name].digest) is not None}


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not intake.is_temporary(path.name))
    except OSError as error:
        raise SpiculaError(f"cannot list {folder}: {error.strerror}; check its rights") from error


def _look(folder: Path, before: _Seen | None, now: float) -> _Seen:
    listing = intake.origin_of(folder).listing()
    others = tuple((one["path"], one["reason"]) for one in listing.problems)
    content = hash((tuple(listing.paths), listing.sizes.tobytes(), listing.stamps.tobytes(), others))
    return before if before is not None and before.content == content else _Seen(content, now)


def _digest(folder: Path) -> str:
    """Return the digest of a bundle, of which every byte is verified."""
    kind = sealed.kind_of(folder)
    return screening.load(folder).digest if kind == sealed.SCREENING else study_bundle.load(folder).digest
