"""The Store: the images of an Index after one preprocessing, decoded once, read through memory maps ever after."""

import functools
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from spicula import files
from spicula.errors import SpiculaError
from spicula.imaging import shards
from spicula.imaging.geometry import Geometry
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.shards import Place, Task
from spicula.imaging.workers import prepare_all
from spicula.index import REJECTED, image_paths
from spicula.processes import cores
from spicula.progress import progress

#: Most shards that are mapped at a time; each takes a file descriptor.
OPEN_SHARDS = 256

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        *shards.GEOMETRY_FIELDS,
    ]
)


class Store:
    """Prepared images, addressed by row.

    Attributes:
        table: one row an image, in the order of the Index it was built for: image_id, sha256 of the file, frame, and
            the fields of `Geometry`.
        rejected: images of the Index that are not in it, and why (`spicula.index.REJECTED`).
        preprocess: how the images were prepared.
        shape: (H, W, C) of every image.
        dtype: uint8 or uint16; values use its whole range.
    """

    def __init__(self, table: pa.Table, rejected: pa.Table, preprocess: Preprocess, places: Sequence[Place]) -> None:
        self.table = table
        self.rejected = rejected
        self.preprocess = preprocess
        self.shape = (*preprocess.size, preprocess.channels)
        self.dtype = shards.dtype_of(preprocess)
        self._row_of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
        self._paths = list(dict.fromkeys(place.shard for place in places))
        number_of = {path: number for number, path in enumerate(self._paths)}
        self._shard = np.array([number_of[place.shard] for place in places], np.int64)
        self._position = np.array([place.position for place in places], np.int64)
        self._open = functools.lru_cache(maxsize=OPEN_SHARDS)(shards.open_shard)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.table)

    @property
    def nbytes(self) -> int:
        """Size of all images together, in bytes."""
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the rows of images: (N,) int64, in the order asked for.

        Raises:
            SpiculaError: an image is not in the Store; the message names the first.
        """
        missing = next((image_id for image_id in image_ids if image_id not in self._row_of), None)
        if missing is not None:
            raise SpiculaError(f"image {missing} is not in the Store; see its rejected table, or build it again")
        return np.array([self._row_of[image_id] for image_id in image_ids], np.int64)

    def geometry(self, row: int) -> Geometry:
        """Return how the image of one row was cropped, mirrored, scaled and padded."""
        return Geometry.from_row(self.table.slice(int(row), 1).to_pylist()[0])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return images: (N, H, W, C), a copy of its own, in the order of `rows`.

        Reading is fastest in the order of rows, where it is one copy a shard.

        Args:
            rows: (N,) whole numbers, 0 to len - 1, repeated and in any order as you like.

        Raises:
            SpiculaError: there is no such row.
        """
        rows = np.asarray(rows, np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise SpiculaError(f"the Store has rows 0 to {len(self) - 1}; asked for {rows.min()} to {rows.max()}")
        images = np.empty((len(rows), *self.shape), self.dtype)
        # By shard, and within it from front to back; a stable sort leaves rows that are in order as they are.
        order = np.lexsort((self._position[rows], self._shard[rows]))
        shard, position = self._shard[rows][order], self._position[rows][order]
        bounds = np.flatnonzero(np.diff(shard, prepend=-1, append=-1)) if rows.size else np.empty(0, np.int64)
        for start, stop in itertools.pairwise(bounds):
            source = self._open(self._paths[shard[start]])
            target, wanted = _as_slice(order[start:stop]), _as_slice(position[start:stop])
            images[target] = source[wanted]
        return images


def build_store(index: pa.Table, preprocess: Preprocess, folder: Path, jobs: int | None = None) -> Store:
    """Return a Store of all images of an Index, decoding those that are new or changed.

    Prepared images are kept in `folder`, in a sub-folder for each `Preprocess`, under the digest of their file. Nothing
    in it is ever changed: several Stores, also of several processes, can share it. A build that was killed goes on
    where it was. Images that could not be read are tried again by every build.

    Args:
        index: which images; those without a digest get one from their file.
        preprocess: what to do to each image.
        folder: where prepared images are kept; made when missing.
        jobs: worker processes; as many as there are cores when None.

    Returns:
        The Store, with the images that cannot be read in its rejected table.

    Raises:
        SpiculaError: the folder cannot be written to, or workers cannot start.
    """
    folder = Path(folder) / preprocess.digest()[:16]
    settings = folder / "preprocess.json"
    if not settings.is_file():
        files.write_json(settings, {"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")})
    shards.remove_leftovers(folder)
    jobs = jobs or cores()

    tasks = _tasks(index, preprocess, jobs)
    places, geometry = shards.scan(folder, preprocess)
    missing = {task.key: task for task in tasks if isinstance(task, Task) and task.key not in places}
    reasons: dict[str, str | None] = {}
    if missing:
        done = prepare_all(list(missing.values()), preprocess, folder, jobs)
        reasons = {task.key: reason for task, reason in progress(done, "preparing images", total=len(missing))}
        places, geometry = shards.scan(folder, preprocess)
    return _assemble(index=index, tasks=tasks, reasons=reasons, places=places, geometry=geometry, preprocess=preprocess)


def _tasks(index: pa.Table, preprocess: Preprocess, jobs: int) -> list[Task | str]:
    """Return for each row of an Index its task, or the reason why there is none."""
    paths, digests = image_paths(index), index["sha256"].to_pylist()
    unknown = [row for row, digest in enumerate(digests) if digest is None]
    if unknown:
        with ThreadPoolExecutor(jobs) as pool:
            found = pool.map(_digest, [paths[row] for row in unknown])
            for row, digest in zip(unknown, progress(found, "hashing images", total=len(unknown)), strict=True):
                digests[row] = digest
    tasks: list[Task | str] = []
    columns = [index[name].to_pylist() for name in ("frame", "laterality", "bits")]
    for path, digest, frame, laterality, bits in zip(paths, digests, *columns, strict=True):
        if isinstance(digest, OSError):
            tasks.append(f"cannot be read: {digest.strerror or digest}")
        else:
            key = shards.key_of(digest, frame, laterality, preprocess)
            tasks.append(Task(key, str(path), digest, frame, laterality, bits))
    return tasks


def _digest(path: Path) -> str | OSError:
    try:
        return files.sha256_file(path)
    except OSError as error:
        return error


def _assemble(
    *,
    index: pa.Table,
    tasks: list[Task | str],
    reasons: dict[str, str | None],
    places: dict[str, Place],
    geometry: pa.Table,
    preprocess: Preprocess,
) -> Store:
    position_of = {key: position for position, key in enumerate(places)}
    kept: list[int] = []
    rejected = []
    for row, (task, path) in enumerate(zip(tasks, index["path"].to_pylist(), strict=True)):
        if isinstance(task, Task) and task.key in places:
            kept.append(row)
        else:
            reason = task if isinstance(task, str) else reasons.get(task.key)
            rejected.append({"path": path, "reason": reason or "its prepared pixels disappeared while they were made"})
    stored = [task for task in tasks if isinstance(task, Task) and task.key in places]
    ours = geometry.take(pa.array([position_of[task.key] for task in stored], pa.int64()))
    columns = {
        "image_id": index["image_id"].take(pa.array(kept, pa.int64())),
        "sha256": pa.array([task.sha256 for task in stored], pa.string()),
        "frame": pa.array([task.frame for task in stored], pa.int32()),
        **{field.name: ours[field.name] for field in shards.GEOMETRY_FIELDS},
    }
    table = pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA).combine_chunks()
    return Store(
        table, pa.Table.from_pylist(rejected, schema=REJECTED), preprocess, [places[task.key] for task in stored]
    )


def _as_slice(numbers: np.ndarray) -> np.ndarray | slice:
    """Return consecutive numbers as a slice, which copies faster than a list of numbers."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and bool((np.diff(numbers) == 1).all()):
        return slice(first, last + 1)
    return numbers
