"""Lists of series: the .tcia manifests of The Cancer Imaging Archive, and plain lists of UIDs.

A manifest has lines `key=value`, then `ListOfSeriesToDownload=` and one series instance UID a line.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from spicula.errors import UsageError

#: How often a series is tried again where no manifest says so.
DEFAULT_RETRIES = 4

_LIST = "ListOfSeriesToDownload"
_RETRIES = "noOfrRetry"  # spelled so in every manifest
_MOST_RETRIES = 100
_MAX_BYTES = 2**26
# PS3.5 9.1: digits and dots, no component with a leading zero, at most 64 characters. Archives hold some with leading
# zeros all the same, and such a UID is as good a name as another.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")


@dataclass(frozen=True)
class Manifest:
    """A list of series.

    Attributes:
        series: series instance UIDs, in the order of the file, each once.
        retries: how often a series is tried again when fetching it failed.
    """

    series: tuple[str, ...]
    retries: int = DEFAULT_RETRIES


def is_uid(text: str) -> bool:
    """Say whether a text is a DICOM UID (PS3.5 9.1), and so safe as a part of a path."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read(path: Path) -> Manifest:
    """Read a .tcia manifest, or a text file with one series instance UID a line.

    Empty lines and lines that begin with # are passed over.

    Raises:
        UsageError: the file cannot be read, a line makes no sense, or it lists no series.
    """
    lines = _lines(path)
    is_manifest = any("=" in line for line in lines)
    series: dict[str, None] = {}
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if is_uid(text) and (not is_manifest or _LIST in keys):
            series[text] = None
        elif equals and _LIST not in keys:
            keys[key.strip()] = _checked(path, number, key.strip(), value.strip())
        else:
            raise UsageError(f"{path}, line {number}: {_shown(text)} is {_expected(is_manifest, _LIST in keys)}")
    if is_manifest and _LIST not in keys:
        raise UsageError(f"{path} is no manifest: there is no line {_LIST}=")
    if not series:
        raise UsageError(f"{path} lists no series")
    return Manifest(tuple(series), int(keys.get(_RETRIES, DEFAULT_RETRIES)))


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} is no list of series: it has more than {_MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no list of series: it is no text file") from None


def _checked(path: Path, number: int, key: str, value: str) -> str:
    if key == _RETRIES and not (value.isascii() and value.isdigit() and int(value) <= _MOST_RETRIES):
        raise UsageError(f"{path}, line {number}: {key}={_shown(value)} is no number from 0 to {_MOST_RETRIES}")
    if key == _LIST and value:
        raise UsageError(f"{path}, line {number}: the series of {key}= stand on the lines after it, one a line")
    return value


def _expected(is_manifest: bool, in_list: bool) -> str:
    if is_manifest and not in_list:
        return f"no key=value, and {_LIST}= has not come yet"
    return "no series instance UID (digits and dots, at most 64 characters)"


def _shown(text: str) -> str:
    return ascii(text[:70])
