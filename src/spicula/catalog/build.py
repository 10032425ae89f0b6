"""From what a user downloaded to a complete Index: find, unpack, read, describe every file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from spicula import files, index
from spicula.archive import is_archive, unpack
from spicula.catalog.pacs import dicomdir
from spicula.catalog.tree import reject, rejected_table
from spicula.catalog.types import Dataset, Option, Reading
from spicula.errors import RejectedImageError, UsageError
from spicula.headers import Header, read_header
from spicula.progress import progress

_CHUNK = 64
#: The columns of the Index that `facts_of` fills, in its order.
COLUMNS = ("width", "height", "bits", "photometric", "sha256")


def build(dataset: Dataset, source: Path, unpack_to: Path, options: Mapping[str, Any]) -> Reading:
    """Return the Index of a dataset; see `spicula.catalog.index_dataset`."""
    _check_option_names(dataset, options)
    source = dicomdir.folder_of(Path(source))
    if not source.exists():
        raise UsageError(f"no folder {source}; expected {dataset.layout}")
    archive = _find_archive(dataset, source)
    home = source if source.is_dir() else source.parent
    root = unpack(archive, unpack_to) if archive else source
    reading = dataset.read(root, _resolve(dataset, options, home, root, beside=archive is not None))
    if reading.index.num_rows:
        reading = _describe(reading)
    if not reading.index.num_rows:
        raise UsageError(_nothing(dataset, source, reading))
    return reading


def _check_option_names(dataset: Dataset, options: Mapping[str, Any]) -> None:
    unknown = [name for name in options if name not in dataset.options]
    if unknown:
        known = ", ".join(dataset.options) or "none"
        raise UsageError(f"{dataset.name} has no option {', '.join(unknown)}; it has {known}")


def _find_archive(dataset: Dataset, source: Path) -> Path | None:
    if source.is_file():
        if is_archive(source):
            return source
        raise UsageError(f"{source} is neither a folder nor a zip, tar or tar.gz file; expected {dataset.layout}")
    found = sorted({path for pattern in dataset.archives for path in source.glob(pattern) if is_archive(path)})
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{source} holds several archives: {names}; name the one to read")
    return found[0] if found else None


def _resolve(dataset: Dataset, options: Mapping[str, Any], home: Path, root: Path, beside: bool) -> dict[str, Any]:
    """Make the paths among the options absolute, and take files beside the archive for options not given."""
    resolved = {}
    for name, option in dataset.options.items():
        value = options.get(name)
        if value is not None:
            resolved[name] = _find(dataset, name, value, (home, root)) if option.is_path else value
        elif beside and _lies_in(home, option):
            resolved[name] = (home / str(option.beside)).absolute()
    return resolved


def _lies_in(home: Path, option: Option) -> bool:
    return option.beside is not None and (home / option.beside).is_file()


def _find(dataset: Dataset, name: str, value: Any, places: Sequence[Path]) -> Path:
    if not isinstance(value, str | Path):
        raise UsageError(f"{dataset.name}: the option {name} is {value!r}, not a path")
    for place in places:
        if (place / value).exists():
            return (place / value).absolute()
    where = "" if Path(value).is_absolute() else f" in {places[0]}"
    raise UsageError(f"{dataset.name}: the option {name} says {value}, but there is no such file{where}")


def _nothing(dataset: Dataset, source: Path, reading: Reading) -> str:
    message = f"no images of {dataset.name} in {source}; expected {dataset.layout}"
    if reading.rejected.num_rows:
        first = reading.rejected.slice(0, 1).to_pylist()[0]
        message += f"; {reading.rejected.num_rows} rejected, the first {first['path']}: {first['reason']}"
    return message


def _describe(reading: Reading) -> Reading:
    """Fill in what the files themselves say; those whose header cannot be read move to the rejected table."""
    paths = reading.index["path"].to_pylist()
    unique = list(dict.fromkeys(paths))
    root = os.fspath(index.root_of(reading.index))
    described = dict(zip(unique, _in_threads(root, unique), strict=True))
    rejected = [reject(path, found) for path, found in described.items() if isinstance(found, str)]
    keep = [not isinstance(described[path], str) for path in paths]
    table = reading.index.filter(pa.array(keep, pa.bool_()))
    facts = [fact for path in paths if not isinstance(fact := described[path], str)]
    for place, name in enumerate(COLUMNS):
        column = index.SCHEMA.get_field_index(name)
        values = pa.array([fact[place] for fact in facts], index.SCHEMA.field(name).type)
        table = table.set_column(column, index.SCHEMA.field(name), values)
    rejections = pa.concat_tables([reading.rejected, rejected_table(rejected)])
    return Reading(index.validate(table), rejections)


#: What a file says of itself: width, height, bits, photometric, sha256.
Facts = tuple[int, int, int, str | None, str]


def _in_threads(root: str, paths: Sequence[str]) -> Iterator[Facts | str]:
    """Yield for each path what its file says, or why it cannot be used: reading and hashing overlap in threads."""

    def chunk(some: Sequence[str]) -> list[Facts | str]:
        return [facts_of(Path(root, path)) for path in some]

    def results() -> Iterator[Facts | str]:
        pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)))
        try:
            for done in pool.map(chunk, _chunks(paths)):
                yield from done
        finally:
            pool.shutdown(cancel_futures=True)  # so that an interrupt does not wait for the rest

    return progress(results(), "reading headers and digests", total=len(paths))


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    remaining = iter(paths)
    while some := list(islice(remaining, _CHUNK)):
        yield some


def facts_of(path: Path) -> Facts | str:
    """Return what a file says of itself, or why it cannot be used."""
    try:
        header: Header = read_header(path)
        digest = files.sha256_file(path)
    except RejectedImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return header.width, header.height, header.bits, header.photometric, digest
