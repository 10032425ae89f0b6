"""What an archive said of its series, kept in the target and in a mirror for when the archive cannot be reached."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicula import files
from spicula.acquire import records
from spicula.acquire.transfer import Unreachable
from spicula.errors import SpiculaError
from spicula.progress import say

if TYPE_CHECKING:
    from spicula.acquire.mirror import Mirror

Listing = dict[str, dict[str, Any]]


def known(
    name: str, to: Path, ask: Callable[[], Listing], *, mirror: "Mirror | None" = None, fill_mirror: bool = False
) -> Listing:
    """Return what the archive says of its series, by UID; where it cannot be reached, what it said the last time.

    Args:
        name: of what is asked for, the same every time.
        to: the target.
        ask: asks the archive.
        mirror: a copy that may have the list too.
        fill_mirror: whether the list is put into the mirror.

    Raises:
        SpiculaError: the archive cannot be reached, and there is no list; or what `ask` raises.
    """
    key = f"series of {name}"
    place = f"{records.OWN}/listings/{records.digest(key)}.json"
    try:
        found = ask()
    except SpiculaError as error:
        former = _former(key, place, to, mirror) if isinstance(error.__cause__, Unreachable) else None
        if former is None:
            raise
        when = datetime.fromtimestamp((to / place).stat().st_mtime, UTC).strftime("%Y-%m-%d")
        say(f"{error}. Going on with the list of series of {when}")
        return former
    files.write_json(to / place, found)
    if mirror and fill_mirror:
        listed = records.File(place, (to / place).stat().st_size, files.sha256_file(to / place))
        mirror.store(records.Record(key, place, (listed,), "", "upstream"), to)
    return found


def _former(key: str, place: str, to: Path, mirror: "Mirror | None") -> Listing | None:
    if not (to / place).exists() and mirror:
        folder = to / records.OWN / "partial" / "listing"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if mirror.fetch(key, place, folder, lambda count: None):
            files.place_file(folder / Path(place).name, to / place)
        shutil.rmtree(folder)
    try:
        content = json.loads((to / place).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
