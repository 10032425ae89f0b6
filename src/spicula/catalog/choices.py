"""What users say of their own images: how a path names the patient, and which label is to be found."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spicula.catalog.tree import Rejection, reject
from spicula.errors import UsageError

#: Labels that need no option `positive`: malignant is target 1.
KNOWN_LABELS = ("benign", "malignant", "normal")
#: Most labels that a message lists.
MOST_LABELS = 20


def patient_pattern(dataset: str, text: Any) -> re.Pattern[str] | None:
    """Return the option `patient_pattern` as a regular expression of one group, None where it was not given.

    Raises:
        UsageError: it is no regular expression, or has another number of groups.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, TypeError) as error:
        raise UsageError(f"{dataset}: patient_pattern {text!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise UsageError(f"{dataset}: patient_pattern {text!r} has {pattern.groups} groups; it needs one, the patient")
    return pattern


def columns(dataset: str, value: Any) -> Mapping[str, str] | None:
    """Return the option `columns`, None where it was not given.

    Raises:
        UsageError: it is something else than names of columns by names.
    """
    if value is None or (isinstance(value, Mapping) and all(isinstance(name, str) for name in value.values())):
        return value
    example = '{label = "diagnosis"}'
    raise UsageError(f"{dataset}: columns is {value!r}, not a table of names such as {example}")


def with_patients(
    rows: list[dict[str, Any]], pattern: re.Pattern[str] | None, rejected: list[Rejection]
) -> list[dict[str, Any]]:
    """Return the rows with the patient that their paths name; those of no patient are reported and left out."""
    if pattern is None:
        return rows
    kept = []
    for row in rows:
        found = pattern.search(row["path"])
        patient = row.get("patient_id") or (found[1] if found else None)
        if patient:
            kept.append({**row, "patient_id": patient})
        else:
            rejected.append(reject(row["path"], f"does not match patient_pattern {pattern.pattern!r}"))
    return kept


def positive_rule(dataset: str, rows: Iterable[Mapping[str, Any]], positive: Any) -> Callable[[str], bool]:
    """Return a function that says whether a label is target 1.

    Args:
        dataset: its name, for errors.
        rows: of the Index, with their labels.
        positive: the option of that name: a label, a list of them, or None where it was not given.

    Raises:
        UsageError: it names a label that there is not, or it was not given and cannot be guessed.
    """
    labels = sorted({row["label"] for row in rows if row["label"] is not None})
    # More are no classes but, say, names of people from another column.
    found = ", ".join(labels) if len(labels) <= MOST_LABELS else f"{len(labels)} different"
    if positive is not None:
        wanted = positive if isinstance(positive, list | tuple) else [positive]
        if not all(isinstance(label, str) for label in wanted):
            raise UsageError(f'{dataset}: positive is {positive!r}, not a label ("malignant") or a list of labels')
        unknown = [label for label in wanted if label not in labels]
        if labels and unknown:
            raise UsageError(f"{dataset}: positive names {', '.join(unknown)}, but the labels are {found}")
        return lambda label: label in wanted
    if labels and {label.lower() for label in labels} <= set(KNOWN_LABELS):
        return lambda label: label.lower() == "malignant"
    if len(labels) > MOST_LABELS:
        raise UsageError(f"{dataset}: there are {found} labels; is it the right column? If so, name one as positive")
    if labels:
        raise UsageError(f'{dataset}: which of the labels {found} is to be found? Say so: positive = "{labels[-1]}"')
    return lambda label: False
