"""Who is imaged: one invented woman, her breasts and their lesions, drawn from a seed and a number."""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from spicula.phantoms.streams import stream
from spicula.phantoms.types import DENSITIES, SIDES, Density, Side

Kind: TypeAlias = Literal["round mass", "spiculated mass", "coarse calcifications", "fine pleomorphic calcifications"]
Pathology: TypeAlias = Literal["benign", "malignant"]

#: How often a woman has each density category: near the shares among screened women (A 10 %, B 40 %, C 40 %, D 10 %;
#: ACR BI-RADS Atlas, 5th edition, 2013).
DENSITY_SHARES = (0.1, 0.4, 0.4, 0.1)

#: How often a breast has a benign lesion, whether or not the woman also has a malignant one.
BENIGN_SHARE = 0.25

_KINDS: dict[Pathology, tuple[tuple[Kind, float], ...]] = {
    "benign": (("round mass", 0.8), ("coarse calcifications", 0.2)),
    "malignant": (("spiculated mass", 0.8), ("fine pleomorphic calcifications", 0.2)),
}


@dataclass(frozen=True)
class Lesion:
    """One lesion of one breast. It is seen in both views of its side."""

    number: int  # 1, 2, ... within the woman
    side: Side
    kind: Kind
    pathology: Pathology
    place: tuple[float, float, float]  # towards the nipple 0..1, lateral -1..1, superior -1..1: see parenchyma
    radius_mm: float  # of the mass, or of the cluster
    contrast: float  # 1: as clear as they come, towards 0: hidden

    @property
    def finding(self) -> str:
        """`mass` or `calcification`."""
        return "mass" if self.kind.endswith("mass") else "calcification"

    @property
    def birads(self) -> str:
        """The assessment of a reader who knew the truth: clearer lesions are judged with more certainty."""
        if self.pathology == "benign":
            return "2" if self.contrast > 0.7 else "3"
        return "5" if self.contrast > 0.85 else "4C" if self.contrast > 0.75 else "4B" if self.contrast > 0.65 else "4A"


@dataclass(frozen=True)
class Speck:
    """A single calcification of no importance: no lesion, but as bright as one. Half of all breasts have some."""

    side: Side
    place: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True)
class Woman:
    """What the two sides share, and the lesions of both."""

    key: tuple[int, int]  # seed and exam number: the start of every random stream that belongs to her
    age: int  # years
    density: Density
    depth_mm: float  # chest wall to nipple in the CC view
    half_width_mm: float  # of the breast in the CC view
    thickness_mm: float  # when compressed
    lesions: tuple[Lesion, ...]
    specks: tuple[Speck, ...]


def draw_woman(seed: int, number: int, prevalence: float, density: Density | None = None) -> Woman:
    """Draw the woman of one exam.

    Args:
        seed: of the whole collection.
        number: of the exam.
        prevalence: share of women with a malignant lesion (in one breast), 0 to 1. Spread evenly: any run of exams
            comes close to it, so that small collections have both kinds. Nothing else depends on it.
        density: the density of the breasts; None draws it.
    """
    rng = stream(seed, number, "woman")
    drawn = DENSITIES[rng.choice(4, p=DENSITY_SHARES)]
    scale = float(np.clip(rng.normal(1.0, 0.16), 0.72, 1.3))
    return Woman(
        key=(seed, number),
        age=int(np.clip(rng.normal(58, 9), 40, 79)),
        density=density or drawn,
        depth_mm=104.0 * scale * rng.uniform(0.92, 1.08),
        half_width_mm=88.0 * math.sqrt(scale) * rng.uniform(0.93, 1.07),
        thickness_mm=float(np.clip(56.0 * scale * rng.uniform(0.85, 1.15), 30.0, 80.0)),
        lesions=_draw_lesions(seed, number, prevalence),
        specks=_draw_specks(seed, number),
    )


def _draw_lesions(seed: int, number: int, prevalence: float) -> tuple[Lesion, ...]:
    rng = stream(seed, number, "lesions")
    lesions: list[Lesion] = []
    for side in SIDES:
        if rng.random() < BENIGN_SHARE:
            lesions.append(_draw_lesion(rng, len(lesions) + 1, side, "benign"))
    # multiples of the golden ratio fill the interval evenly, whatever the first exam and however many follow
    if (stream(seed, "prevalence").random() + number * (math.sqrt(5) - 1) / 2) % 1.0 < prevalence:
        lesions.append(_draw_malignant(rng, lesions))
    return tuple(lesions)


def _draw_malignant(rng: np.random.Generator, others: list[Lesion]) -> Lesion:
    """Draw a lesion clear of the others: on the other side rather than elsewhere, so that its place tells nothing."""
    one, other = SIDES if rng.random() < 0.5 else SIDES[::-1]
    while True:
        lesion = _draw_lesion(rng, len(others) + 1, one, "malignant")
        for side in (one, other):
            if not any(side == near.side and _overlap(lesion.place, near.place) for near in others):
                return replace(lesion, side=side)


def _draw_specks(seed: int, number: int) -> tuple[Speck, ...]:
    rng = stream(seed, number, "specks")
    return tuple(
        Speck(side, _draw_place(rng), float(rng.uniform(0.25, 0.7))) for side in SIDES for _ in range(rng.poisson(0.8))
    )


def _draw_lesion(rng: np.random.Generator, number: int, side: Side, pathology: Pathology) -> Lesion:
    kinds, shares = zip(*_KINDS[pathology], strict=True)
    kind: Kind = kinds[rng.choice(len(kinds), p=shares)]
    return Lesion(
        number=number,
        side=side,
        kind=kind,
        pathology=pathology,
        place=_draw_place(rng),
        # the same sizes and contrasts for benign and malignant ones: only the form tells
        radius_mm=float(np.clip(rng.lognormal(math.log(9.5), 0.3), 4.5, 17.0)),
        contrast=float(rng.uniform(0.5, 1.0)),
    )


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Tell whether two lesions of a side would lie close together in either view: CC looks down, MLO at 45 degrees."""
    along, lateral, superior = (a - b for a, b in zip(one, other, strict=True))
    return min(math.hypot(along, lateral), math.hypot(along, (lateral + superior) / math.sqrt(2))) < 0.3


def _draw_place(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw a place among the glandular tissue, a little more often in the upper outer quadrant, where most lie."""
    while True:
        towards_nipple, lateral, superior = rng.normal([0.45, 0.1, 0.1], [0.16, 0.27, 0.27])
        # clear of the chest wall and of the skin
        if 0.2 < towards_nipple < 0.72 and towards_nipple**2 + (lateral**2 + superior**2) / 0.8**2 < 0.55:
            return float(towards_nipple), float(lateral), float(superior)
