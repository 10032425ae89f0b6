"""What the formats of shards have in common: the functions that each has, and the names within them."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from spicula.convert.sample import Sample
from spicula.index import SPLITS

#: The split of images that have none. ("all" means every split together, for the libraries that read them.)
UNSPLIT = "unsplit"
SPLIT_ORDER = (*SPLITS, UNSPLIT)

MAX_KEY = 80


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        split: of all images in it.
        place: of the file, relative to the output folder.
        images: how many are in it.
        nbytes: size of the file.
    """

    split: str
    place: str
    images: int
    nbytes: int


@dataclass(frozen=True)
class Collection:
    """What is said about all shards together.

    Attributes:
        name: of the data set: lower-case letters, digits and underscores, a letter first.
        shards: in order of split and number.
        bits: 8 or 16: the depth of the deepest image.
        channels: 1, or 3 where any image has colour.
        has_masks: whether any image has one.
    """

    name: str
    shards: Sequence[Shard]
    bits: int
    channels: int
    has_masks: bool

    @property
    def splits(self) -> dict[str, list[Shard]]:
        """The shards of each split that has any."""
        return {
            split: shards
            for split in SPLIT_ORDER
            if (shards := [shard for shard in self.shards if shard.split == split])
        }


class Format(Protocol):
    """A module that knows one format."""

    def place(self, name: str, split: str, number: int, count: int) -> str:
        """Return where shard `number` of `count` belongs, relative to the output folder."""

    def write(self, stream: BinaryIO, samples: Iterable[Sample]) -> Iterator[list[int]]:
        """Write a shard, and yield for each sample the offsets of its image and masks.

        The same samples give the same bytes. `stream` can be read and written, and is empty.
        """

    def finish(self, folder: Path, collection: Collection) -> None:
        """Write what stands beside the shards."""


def name_of(datasets: Iterable[str]) -> str:
    """Return a collection's name: that of its data set, or "images" where there are several or none."""
    names = set(datasets)
    name = re.sub(r"[^a-z0-9]+", "_", names.pop().lower()).strip("_") if len(names) == 1 else ""
    return name[:MAX_KEY] if re.match(r"[a-z]", name) else "images"


def split_of(split: str | None) -> str:
    """Return in which split's shards an image belongs."""
    return split or UNSPLIT


def key_of(image_id: str) -> str:
    """Return an image's name within a shard: its id, where that is of letters, digits, - and _ alone.

    From any other id the odd characters go, and a digest of the id comes, so that keys stay different.
    """
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}", image_id):
        return image_id
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", image_id)[: MAX_KEY - 17]
    return f"{kept}-{hashlib.sha256(image_id.encode()).hexdigest()[:16]}"
