"""Predictions: long, validated on write and read."""

import pyarrow as pa
import pytest

from spicula import predictions
from spicula.errors import SpiculaError

ROW = {"id": "a", "target": "malignant", "score": 0.25, "model": "cnn", "model_digest": "0" * 64}


def test_round_trip(tmp_path):
    table = predictions.from_rows([ROW, {**ROW, "id": "b", "label": 1, "split": "test", "side": "L", "fold": 0}])
    predictions.write(tmp_path / "p.parquet", table)
    assert predictions.read(tmp_path / "p.parquet").equals(table)


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan")])
def test_a_score_is_a_probability(score):
    with pytest.raises(SpiculaError, match="a has the score"):
        predictions.from_rows([{**ROW, "score": score}])


def test_what_is_not_predictions_is_refused(tmp_path):
    with pytest.raises(SpiculaError, match="rows have no model"):
        predictions.from_rows([{**ROW, "model": None}])
    with pytest.raises(SpiculaError, match="not Predictions: columns"):
        predictions.write(tmp_path / "p.parquet", pa.table({"a": [1]}))
    with pytest.raises(SpiculaError, match="cannot be read as Predictions"):
        predictions.read(tmp_path / "p.parquet")
