"""The images of one side of a split: which they are, what they show, and whom."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spicula.imaging.store import Store


@dataclass(frozen=True)
class Part:
    """The images of one side that have a target and are in the Store, in order of their ids.

    Attributes:
        rows: (N,) row numbers in the Store.
        image_ids: (N,).
        targets: (N,) 0 or 1.
        patients: (N,) whom each image shows; an image of an unknown patient stands for one of its own.
        digests: (N,) SHA-256 of each image's file, as the Store knows it.
        table: the Index rows, in the same order.
    """

    rows: npt.NDArray[np.int64]
    image_ids: list[str]
    targets: npt.NDArray[np.int64]
    patients: npt.NDArray[np.object_]
    digests: list[str]
    table: pa.Table

    def __len__(self) -> int:
        return len(self.rows)


def part(index: pa.Table, store: Store, split: str) -> Part:
    """Return one side of the split.

    Args:
        index: with the column `split` filled.
        store: holds the images; those that it rejected are left out.
        split: train, val or test.

    Raises:
        SpiculaError: an image is neither in the Store nor among those that it rejected.
    """
    wanted = pc.and_(pc.equal(index["split"], split), pc.is_valid(index["target"]))
    table = index.filter(pc.fill_null(wanted, False))
    held = _is_among(table["image_id"], store.table["image_id"])
    rejected = _is_among(table["path"], store.rejected["path"])
    # an image that is neither stays, for the Store to complain of
    table = table.filter(pc.or_(held, pc.invert(rejected))).sort_by("image_id")
    image_ids = table["image_id"].to_pylist()
    pairs = zip(image_ids, table["patient_id"].to_pylist(), strict=True)
    patients = np.empty(len(image_ids), dtype=object)
    patients[:] = [f"image {image}" if patient is None else f"patient {patient}" for image, patient in pairs]
    targets = np.asarray(table["target"].to_pylist(), dtype=np.int64)
    rows = store.rows(image_ids)
    digests = store.table["sha256"].take(pa.array(rows)).to_pylist()
    return Part(rows, image_ids, targets, patients, digests, table)


def _is_among(column: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=others.combine_chunks())
