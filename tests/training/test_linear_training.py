import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from spicula import index, predictions
from spicula.errors import UsageError
from spicula.models import features, linear
from spicula.models.settings import LinearSettings
from spicula.training.data import part
from spicula.training.fit import fit
from spicula.training.linear import platt


def train(study, run, table=None, **values):
    settings = LinearSettings(line="linear", **values)
    table = study.table if table is None else table
    fit(settings, table, study.store, run, seed=0, target_name="disc", classes=("none", "disc"), fold=None)
    return json.loads((run / "run.json").read_text())


def held_out_scores(run):
    rows = [row for row in predictions.read(run / "predictions.parquet").to_pylist() if row["split"] == "test"]
    return [np.array([row["score"] for row in rows if row["label"] == label]) for label in (1, 0)]


@pytest.mark.parametrize("classifier", ["logistic", "svm"])
def test_the_baseline_finds_the_discs_and_gives_probabilities(study, tmp_path, classifier):
    card = train(study, tmp_path / "run", classifier=classifier)
    discs, others = held_out_scores(tmp_path / "run")
    assert np.mean(np.subtract.outer(discs, others) > 0) > 0.9
    # calibrated on patients it had not seen, it is surer of discs than of the rest
    assert discs.mean() > 0.6
    assert others.mean() < 0.4
    assert card["chosen"]["C"] in card["settings"]["c_grid"]
    assert card["chosen"]["folds"] == 5
    assert set(card["chosen"]["auc_by_C"]) == {"0.0001", "0.001", "0.01", "0.1", "1"}
    assert (card["best_epoch"], card["images_per_second"], card["precision"]) == (None, None, "float64")


def test_the_weights_file_alone_repeats_the_predictions(study, tmp_path):
    train(study, tmp_path / "run", classifier="svm")
    model = linear.load(tmp_path / "run" / "weights.safetensors")
    rows = predictions.read(tmp_path / "run" / "predictions.parquet").to_pylist()
    images = study.store.read(study.store.rows([row["id"] for row in rows]))
    found = model.probabilities(features.extract(images, LinearSettings(line="linear").features))
    assert found == pytest.approx([row["score"] for row in rows], abs=1e-12)


def test_it_is_scikit_learns_classifier_on_the_training_side_alone(study, tmp_path):
    train(study, tmp_path / "run", c_grid=[0.01])
    side = part(study.table, study.store, "train")
    values = features.extract(study.store.read(side.rows), LinearSettings(line="linear").features).astype(float)
    scaler = StandardScaler().fit(values)
    expected = LogisticRegression(C=0.01, max_iter=5000).fit(scaler.transform(values), side.targets)
    model = linear.load(tmp_path / "run" / "weights.safetensors")
    assert model.mean == pytest.approx(scaler.mean_)
    assert model.coef == pytest.approx(expected.coef_[0], abs=1e-6)
    assert (model.slope, model.offset) == (1, 0)


def test_neither_validation_nor_test_labels_touch_the_model(study, tmp_path):
    first = train(study, tmp_path / "a" / "run")
    rows = [row | ({} if row["split"] == "train" else {"target": 1 - row["target"]}) for row in study.table.to_pylist()]
    turned = index.from_rows(rows, index.root_of(study.table))
    second = train(study, tmp_path / "b" / "run", table=turned)
    assert second["model_digest"] == first["model_digest"]
    assert second["key"] != first["key"]


def test_a_patients_images_stay_in_one_fold(study, tmp_path, monkeypatch):
    from spicula.training import linear as training

    seen = []
    original = training._out_of_fold

    def spy(values, side, folds, settings, c):
        seen.append([(set(side.patients[inside]), set(side.patients[outside])) for inside, outside in folds])
        return original(values, side, folds, settings, c)

    monkeypatch.setattr(training, "_out_of_fold", spy)
    train(study, tmp_path / "run")
    assert seen
    assert all(not inside & outside for folds in seen for inside, outside in folds)
    assert all(len(folds) == 5 for folds in seen)


def test_features_are_computed_once_for_all_folds_and_a_damaged_cache_is_made_again(study, tmp_path, monkeypatch):
    calls = []
    original = features.extract
    monkeypatch.setattr(features, "extract", lambda *args, **kw: calls.append(1) or original(*args, **kw))
    first = train(study, tmp_path / "fold-0")
    assert calls
    calls.clear()
    swap = {"train": "test", "test": "val", "val": "train"}
    rows = [{**row, "split": swap[row["split"]]} for row in study.table.to_pylist()]
    train(study, tmp_path / "fold-1", table=index.from_rows(rows, index.root_of(study.table)))
    assert not calls
    (cache,) = (tmp_path / "features").iterdir()
    cache.write_bytes(cache.read_bytes()[:-100])
    (tmp_path / "fold-0" / "predictions.parquet").unlink()
    again = train(study, tmp_path / "fold-0")
    assert calls
    assert again["model_digest"] == first["model_digest"]


def test_balancing_the_loss_raises_the_scores_of_a_rare_class(study, tmp_path):
    rare = ("p01", "p03", "p05")
    rows = [
        row | ({"split": None} if row["split"] == "train" and row["target"] and row["patient_id"] not in rare else {})
        for row in study.table.to_pylist()
    ]
    table = index.from_rows(rows, index.root_of(study.table))
    means = {}
    for imbalance in ("none", "loss"):
        train(study, tmp_path / imbalance, table=table, imbalance=imbalance, c_grid=[1e-4])
        means[imbalance] = np.concatenate(held_out_scores(tmp_path / imbalance)).mean()
    assert means["loss"] > means["none"] + 0.1


def test_too_few_patients_for_cross_validation_are_refused(study, tmp_path):
    rows = [
        row | ({"split": None} if row["split"] == "train" and row["target"] and row["patient_id"] != "p01" else {})
        for row in study.table.to_pylist()
    ]
    table = index.from_rows(rows, index.root_of(study.table))
    with pytest.raises(UsageError, match=r"needs two patients of each class on the training side; it has 6 .* and 1"):
        train(study, tmp_path / "run", table=table)


def test_platts_curve_is_found_again():
    generator = np.random.default_rng(0)
    decisions = generator.normal(0, 2, 20_000)
    targets = (generator.random(20_000) < expit(1.5 * decisions - 0.7)).astype(np.int64)
    slope, offset = platt(decisions, targets)
    assert slope == pytest.approx(1.5, abs=0.05)
    assert offset == pytest.approx(-0.7, abs=0.05)


def test_platts_curve_stays_finite_where_the_classes_part():
    slope, offset = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]))
    assert 0 < slope < 10
    assert expit(slope * np.array([-2.0, 2.0]) + offset) == pytest.approx([0.25, 0.75], abs=0.1)
