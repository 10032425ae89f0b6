"""The output folder: claimed by one conversion at a time, and of one kind for ever."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from spicula import __version__, files
from spicula.convert.settings import Settings
from spicula.errors import SpiculaError, UsageError

#: What was made, and with what.
CARD = "conversion.json"
#: What Spicula keeps for itself.
STATE = ".spicula"


@contextmanager
def claim(to: Path, settings: Settings) -> Iterator[None]:
    """Hold an output folder as long as the context lasts; it is made when missing.

    Raises:
        UsageError: it holds something else than a conversion with these settings.
        SpiculaError: another conversion works in it, or it cannot be written to.
    """
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is a file; --to takes a folder")
    _refuse_strangers(to)
    with files.locked(
        to / STATE / "lock", f"another conversion is working in {to}; wait for it, or choose another --to"
    ):
        _check_card(to, settings)
        _remove_leftovers(to)
        yield


def write_card(to: Path, settings: Settings, counts: dict[str, Any] | None) -> None:
    """Write what was made and with what; `counts` is None until it is done."""
    files.write_json(
        to / CARD,
        {
            "digest": settings.digest(),
            "settings": settings.model_dump(mode="json"),
            "preprocess": settings.preprocess.model_dump(mode="json") if settings.preprocess else None,
            "values": _values(settings),
            "counts": counts,
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, str]:
    """Return the versions of Spicula and of the libraries of its core."""
    found = {"spicula": __version__}
    for needed in metadata.requires("spicula") or []:
        name = re.match(r"[A-Za-z0-9._-]+", needed)
        with suppress(metadata.PackageNotFoundError):
            if name and "extra ==" not in needed:
                found[name[0]] = metadata.version(name[0])
    return found


def _values(settings: Settings) -> str:
    """Say what the numbers in the images are."""
    if settings.format == "dicom":
        return "as in the source: the pixel data are the same bytes"
    if settings.preprocess is not None:
        return f"{settings.preprocess.bits} bits, after the preprocessing"
    if settings.preset == "display":
        return f"{8 if settings.format == 'png8' else 16} bits, as a workstation shows them"
    if settings.scale_to_16:
        return "stored values, stretched from 0 to 2^bits - 1 of the source over 0 to 65535, and rounded"
    return "stored values as they are; the column bits of the Index says how many bits they have"


def _refuse_strangers(to: Path) -> None:
    """Refuse a folder in which something lies that no conversion wrote."""
    if to.is_dir() and not (to / CARD).exists() and any(path.name != STATE for path in to.iterdir()):
        raise UsageError(f"{to} is not empty and holds no conversion; choose a new folder")


def _check_card(to: Path, settings: Settings) -> None:
    try:
        card = json.loads((to / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_card(to, settings, None)
        return
    except (OSError, ValueError) as error:
        raise SpiculaError(f"{to / CARD} cannot be read; choose a new folder") from error
    if not isinstance(card, dict) or card.get("digest") != settings.digest():
        raise UsageError(
            f"{to} holds images that were made with other settings or by another version (see {CARD} there);"
            " choose a new folder"
        )


def _remove_leftovers(to: Path) -> None:
    """Delete the temporary files of conversions that were killed: nobody else writes here now."""
    for path in to.glob("**/.part-*"):
        path.unlink(missing_ok=True)
