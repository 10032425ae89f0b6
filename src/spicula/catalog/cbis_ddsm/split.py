"""The published split of CBIS-DDSM: it was drawn for masses and for calcifications apart, and parts some people."""

from collections.abc import Iterable, Mapping

from spicula.catalog.cbis_ddsm.tables import Lesion
from spicula.progress import say


def parted(lesions: Iterable[Lesion]) -> list[str]:
    """Return the people who stand on both sides of the published split, sorted."""
    sides: dict[str, set[str]] = {}
    for lesion in lesions:
        sides.setdefault(lesion.view.person, set()).add(lesion.split)
    return sorted(person for person, found in sides.items() if len(found) > 1)


def by_case(lesions: Iterable[Lesion], people: Iterable[str], as_is: bool) -> Mapping[str, str]:
    """Return train or test for each case.

    Args:
        lesions: of all tables: who is parted must not depend on which images are there.
        people: who stands on both sides.
        as_is: whether the published split stays as it is; otherwise these people's test images go to the training
            side, so that what is left of the test side stays as published.
    """
    moved = set() if as_is else set(people)
    return {lesion.case: "train" if lesion.view.person in moved else lesion.split for lesion in lesions}


def report(people: list[str], moved: int, as_is: bool) -> None:
    """Say on stderr who is parted, and what was done about it.

    Args:
        people: who stands on both sides.
        moved: how many images of this Index went from the test side to the training side.
        as_is: whether the published split was kept.
    """
    if not people:
        return
    what = "left there, as published" if as_is else f"test images of theirs that are on the training side now: {moved}"
    say(
        "cbis-ddsm: people who stand in the training set of one abnormality and in the test set of the other:"
        f" {len(people)} ({', '.join(people)}); {what}"
    )
