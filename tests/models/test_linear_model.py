import numpy as np
import pytest

from spicula.models import linear
from spicula.models.linear import LinearModel


def test_probabilities_follow_the_formula_and_survive_the_file(tmp_path):
    model = LinearModel(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([0.5, -1.0]), 0.25, 2.0, -0.5)
    features = np.array([[3.0, 2.0], [1.0, 6.0]], np.float32)
    # standardised: (1, 0) and (0, 1); decisions 0.75 and -0.75; logits 1.0 and -2.0
    assert model.decision(features) == pytest.approx([0.75, -0.75])
    assert model.probabilities(features) == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(2))])
    model.save(tmp_path / "weights.safetensors")
    again = linear.load(tmp_path / "weights.safetensors")
    assert np.array_equal(again.probabilities(features), model.probabilities(features))
