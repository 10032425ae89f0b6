"""The predictions of models: which one is meant, and how two of them differ."""

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from spicula.errors import UsageError
from spicula.exams.ledger.planning import latest

#: Columns of the long table of predictions.
LONG = (
    "exam_id",
    "model",
    "side",
    "target",
    "score",
    "step",
    "model_digest",
    "bundle",
    "images",
    "key",
    "time",
    "run",
)

DIFFERENCES = pa.schema(
    [
        pa.field("exam_id", pa.string()),
        pa.field("side", pa.string()),
        pa.field("target", pa.string()),
        pa.field("score_a", pa.float64()),  # null where the first model has no score
        pa.field("score_b", pa.float64()),
        pa.field("change", pa.float64()),  # score_b - score_a
        pa.field("same_images", pa.bool_()),  # whether both scores are of the same images
    ]
)

_PREFIX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, order=True)
class Model:
    """A model whose predictions the ledger has.

    Attributes:
        name: of the model.
        step: that it is run in.
        digest: of its own networks.
        bundle: digest of the bundle; it tells models apart that read heatmaps of different patch classifiers.
    """

    name: str
    step: str
    digest: str
    bundle: str

    def __str__(self) -> str:
        return f"{self.name}@{self.digest[:12]} (bundle {self.bundle[:12]})"

    def is_called(self, text: str) -> bool:
        """Whether NAME, STEP, the beginning of a digest, or NAME@DIGEST is this model."""
        name, _, digest = text.rpartition("@")
        return text in (self.name, self.step) or (
            name in ("", self.name, self.step)
            and _PREFIX.fullmatch(digest) is not None
            and (self.digest.startswith(digest) or self.bundle.startswith(digest))
        )


def models(predictions: pa.Table) -> list[Model]:
    """Return the models of predictions, by name."""
    names = ["model", "step", "model_digest", "bundle"]
    found = predictions.select(names).group_by(names).aggregate([])
    return sorted(Model(**_fields(row)) for row in found.to_pylist())


def _fields(row: dict[str, str | None]) -> dict[str, str]:
    values = (row["model"], row["step"], row["model_digest"], row["bundle"])
    return dict(zip(("name", "step", "digest", "bundle"), (value or "" for value in values), strict=True))


def choose(text: str, known: list[Model]) -> Model:
    """Return the one model that is called so.

    Raises:
        UsageError: none is, or several are.
    """
    # a name goes before a digest that begins like it
    found = [one for one in known if text in (one.name, one.step)] or [one for one in known if one.is_called(text)]
    if len(found) == 1:
        return found[0]
    if not known:
        raise UsageError(f"no model {text!r}: the ledger has no predictions yet")
    if not found:
        raise UsageError(f"no model {text!r} has predictions; there are: {', '.join(map(str, known))}")
    raise UsageError(
        f"{text!r} is {len(found)} models: {', '.join(map(str, found))}; "
        "add a digest, of the model or of its bundle: NAME@DIGEST (4 digits or more)"
    )


def of_model(predictions: pa.Table, model: Model) -> pa.Table:
    """Return the predictions of a model, the last ones of every exam."""
    wanted = {"model": model.name, "step": model.step, "model_digest": model.digest, "bundle": model.bundle}
    for column, value in wanted.items():
        predictions = predictions.filter(pc.equal(pc.fill_null(predictions[column], ""), value))
    keys = latest(predictions, "exam_id")["key"]
    return predictions.filter(pc.is_in(predictions["key"], value_set=keys))


def ordered(predictions: pa.Table) -> pa.Table:
    """Return predictions with the columns LONG, by exam, model, side and target."""
    return predictions.select(LONG).sort_by(
        [(name, "ascending") for name in ("exam_id", "model", "side", "target", "key")]
    )


def differences(first: pa.Table, second: pa.Table) -> pa.Table:
    """Return how the scores of two models differ, largest change first, and last what only one of them scored.

    Args:
        first: predictions of a model, see `of_model`.
        second: those of the other one.

    Returns:
        Columns as in DIFFERENCES, one row for every exam, side and target.
    """
    keys = ["exam_id", "side", "target"]
    parts = [
        part.select([*keys, "score", "images"]).rename_columns([*keys, f"score_{letter}", f"images_{letter}"])
        for part, letter in ((first, "a"), (second, "b"))
    ]
    both = parts[0].join(parts[1], keys=keys, join_type="full outer")
    change = pc.subtract(both["score_b"], both["score_a"])
    both = both.append_column("change", change).append_column("size", pc.abs(change))
    both = both.append_column("same_images", pc.equal(both["images_a"], both["images_b"]))
    # nulls come last
    both = both.sort_by([("size", "descending"), *((name, "ascending") for name in keys)])
    return both.select(DIFFERENCES.names).cast(DIFFERENCES)
