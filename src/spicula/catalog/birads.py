"""BI-RADS assessments of breasts and findings: how archives write them, and which target they stand for.

Categories: American College of Radiology, BI-RADS Atlas, 5th edition (2013), assessment categories of mammography. They
are what a reader thought, not what a biopsy found.
"""

import re
from collections.abc import Mapping

from spicula.catalog.types import CatalogOptions, Option
from spicula.errors import UsageError

#: The category of an assessment, in the atlas's words: the label of an image that was assessed.
LABELS: Mapping[str, str] = {
    "0": "incomplete",
    "1": "negative",
    "2": "benign",
    "3": "probably benign",
    "4": "suspicious",
    "5": "highly suggestive of malignancy",
    "6": "known malignancy",
}
#: Names of target 0 and target 1.
CLASSES = ("not suspicious", "suspicious")
#: What the option `birads_3` can say, and the target that an assessment of 3 then gets.
OF_3: Mapping[str, int | None] = {"leave-out": None, "benign": 0, "malignant": 1}

OPTION = Option(
    "What BI-RADS 3 counts as: leave-out (no target, the default), benign (target 0) or malignant (target 1)."
)

_TARGETS = {"1": 0, "2": 0, "4": 1, "5": 1, "6": 1}
_ASSESSMENT = re.compile(r"(?:BI-?RADS[ :]*)?(?:([0-6])|(4[ABC]))", re.IGNORECASE)


def parse(value: str) -> str:
    """Return an assessment as the Index has it, 0 to 6 or 4A, 4B, 4C, from "4a" or "BI-RADS 4".

    Raises:
        ValueError: it is none.
    """
    found = _ASSESSMENT.fullmatch(value.strip())
    if not found:
        raise ValueError("not a BI-RADS assessment (0 to 6, 4A, 4B, 4C)")
    return (found[1] or found[2]).upper()


def target_of_3(dataset: str, options: CatalogOptions) -> int | None:
    """Return the target of BI-RADS 3 that the option `birads_3` asks for; without it None.

    Raises:
        UsageError: the option says something else than it can.
    """
    value = options.get("birads_3", "leave-out")
    if not isinstance(value, str) or value not in OF_3:
        raise UsageError(f"{dataset}: birads_3 is {value!r}; it can be {', '.join(OF_3)}")
    return OF_3[value]


def target(assessment: str, of_3: int | None) -> int | None:
    """Return the target of an assessment: 0 for 1 and 2, 1 for 4 to 6, `of_3` for 3, None for 0 (incomplete)."""
    return of_3 if assessment == "3" else _TARGETS.get(assessment[0])


def label(assessment: str) -> str:
    """Return the category of an assessment, one of `LABELS`."""
    return LABELS[assessment[0]]
