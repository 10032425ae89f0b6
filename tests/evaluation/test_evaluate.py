import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from spicula import files, index, predictions
from spicula.curate.splits import SplitSettings, assign, parts
from spicula.errors import SpiculaError
from spicula.evaluation.evaluate import evaluate
from spicula.evaluation.judge import SUBGROUP_METRICS
from spicula.evaluation.metrics import DECISION_METRICS, SCORE_METRICS
from spicula.evaluation.thresholds import RULES

RESAMPLES = 200


def women(count=60, images=4, **columns):
    """An Index of `count` patients; every third has malignant images, half of hers."""
    rows = [
        {
            "dataset": "made",
            "image_id": f"w{w:03d}-{n}",
            "patient_id": f"w{w:03d}",
            "path": f"{w}/{n}.png",
            "target": int(w % 3 == 0 and n % 2 == 0),
            **{name: values[(w + n) % len(values)] for name, values in columns.items()},
        }
        for w in range(count)
        for n in range(images)
    ]
    return index.from_rows(rows, Path("/data"))


def predict(divided, name, skill, seed=0, folds=None):
    """Predictions of val and test images (of every fold), the better the higher the skill."""
    rng, rows = np.random.default_rng([seed, int(10 * skill)]), []
    for fold in [None] if folds is None else range(folds):
        part = parts(divided, fold).sort_by("image_id").select(["image_id", "patient_id", "target", "split"])
        for row in part.to_pylist():
            score = 1 / (1 + np.exp(-rng.normal(skill * (2 * row["target"] - 1), 1)))
            if row["split"] in ("val", "test"):
                rows.append(
                    {
                        "id": row["image_id"], "patient_id": row["patient_id"], "target": "malignant",
                        "label": row["target"], "score": float(score), "split": row["split"], "fold": fold,
                        "model": name, "model_digest": f"digest of {name}",
                    }
                )  # fmt: skip
    return predictions.from_rows(rows)


@pytest.fixture(scope="module")
def divided():
    return assign(women(density=["A", "B", "C", "C", "B"], age=[35.0, 45.0, None, 45.0, 35.0]), SplitSettings(), seed=0)


@pytest.fixture(scope="module")
def scores(divided):
    return {name: predict(divided, name, skill) for name, skill in (("weak", 0.3), ("strong", 1.2), ("third", 0.6))}


@pytest.fixture(scope="module")
def result(divided, scores):
    return evaluate(divided, scores, seed=0, resamples=RESAMPLES)


def figures(value):
    """Every figure, wherever it stands in a result."""
    if isinstance(value, dict):
        if "value" in value and "low" in value:
            yield value
        for inner in value.values():
            yield from figures(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from figures(inner)


def test_the_result_is_json_without_nan_and_has_the_documented_shape(result, tmp_path):
    files.write_json(tmp_path / "metrics.json", result)  # refuses NaN
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    assert (result["target"], result["resamples"], result["confidence"], result["seed"]) == ("malignant", 200, 0.95, 0)
    assert (result["folds"], result["levels"]) == (None, ["image", "patient-mean", "patient-max"])
    assert list(result["models"]) == ["weak", "strong", "third"]
    for name, model in result["models"].items():
        assert model["model_digests"] == [f"digest of {name}"]
        assert list(model["levels"]) == result["levels"]
        for level in model["levels"].values():
            assert set(level) == {"n", "patients", "positive", "metrics", "thresholds", "confusion", "curves"}
            assert set(level["metrics"]) == {*SCORE_METRICS, *RULES}
            assert all(set(level["metrics"][rule]) == set(DECISION_METRICS) for rule in RULES)
            assert all(len(level["thresholds"][rule]) == 1 for rule in RULES)
            assert sum(level["confusion"]["youden"].values()) == level["n"]
            assert set(level["curves"]) == {"roc", "pr", "calibration"}


def test_figures_are_those_of_the_test_images(divided, scores, result):
    for name, table in scores.items():
        rows = [row for row in table.to_pylist() if row["split"] == "test"]
        labels, values = [row["label"] for row in rows], np.array([row["score"] for row in rows])
        level = result["models"][name]["levels"]["image"]
        assert level["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(labels, values))
        assert level["metrics"]["average_precision"]["value"] == pytest.approx(average_precision_score(labels, values))
        called = values >= level["thresholds"]["youden"][0]
        assert level["metrics"]["youden"]["accuracy"]["value"] == pytest.approx(np.mean(called == np.array(labels)))
        assert level["confusion"]["youden"]["tp"] == np.sum(called & (np.array(labels) == 1))


def test_patient_figures_are_those_of_the_patients_mean_and_highest_scores(scores, result):
    rows = [row for row in scores["strong"].to_pylist() if row["split"] == "test"]
    women_of_test = sorted({row["patient_id"] for row in rows})
    labels = [max(row["label"] for row in rows if row["patient_id"] == woman) for woman in women_of_test]
    for level, merge in (("patient-mean", np.mean), ("patient-max", np.max)):
        values = [merge([row["score"] for row in rows if row["patient_id"] == woman]) for woman in women_of_test]
        entry = result["models"]["strong"]["levels"][level]
        assert entry["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score(labels, values))
        assert (entry["n"], entry["patients"], entry["positive"]) == (len(labels), len(labels), sum(labels))


def test_intervals_hold_their_values_and_the_same_seed_gives_the_same_result(divided, scores, result):
    for one in figures(result["models"]):
        if one["low"] is not None and "calibration" not in one:
            assert one["low"] <= one["high"]
    auc = result["models"]["strong"]["levels"]["image"]["metrics"]["auc"]
    assert auc["low"] < auc["value"] < auc["high"]
    assert evaluate(divided, scores, seed=0, resamples=RESAMPLES) == result
    other = evaluate(divided, scores, seed=1, resamples=RESAMPLES)["models"]["strong"]["levels"]["image"]["metrics"][
        "auc"
    ]
    assert other["value"] == auc["value"]
    assert other["low"] != auc["low"]


def test_the_order_of_rows_makes_no_difference(divided, scores, result):
    rng = np.random.default_rng(0)
    shuffled = {name: table.take(pa.array(rng.permutation(len(table)))) for name, table in scores.items()}
    again = evaluate(divided.take(pa.array(rng.permutation(len(divided)))), shuffled, seed=0, resamples=RESAMPLES)
    assert again == result


def relabelled(divided, tables, side, seed=0):
    """The same Index and Predictions with the labels of one side shuffled."""
    rows = divided.to_pylist()
    at = [number for number, row in enumerate(rows) if row["split"] == side]
    shuffled = np.random.default_rng(seed).permutation([rows[number]["target"] for number in at])
    for number, target in zip(at, shuffled, strict=True):
        rows[number]["target"] = int(target)
    labels = {row["image_id"]: row["target"] for row in rows}
    changed = {
        name: predictions.from_rows([{**row, "label": labels[row["id"]]} for row in table.to_pylist()])
        for name, table in tables.items()
    }
    return index.from_rows(rows, Path("/data")), changed


def chosen_thresholds(result):
    return {
        (name, level): entry["thresholds"]
        for name, m in result["models"].items()
        for level, entry in m["levels"].items()
    }


def test_labels_of_test_images_choose_nothing(divided, scores, result):
    with_other_test = evaluate(*relabelled(divided, scores, "test"), seed=0, resamples=RESAMPLES)
    assert chosen_thresholds(with_other_test) == chosen_thresholds(result)
    auc = [r["models"]["strong"]["levels"]["image"]["metrics"]["auc"]["value"] for r in (result, with_other_test)]
    assert auc[0] != auc[1]  # the labels did change
    with_other_val = evaluate(*relabelled(divided, scores, "val"), seed=0, resamples=RESAMPLES)
    assert chosen_thresholds(with_other_val) != chosen_thresholds(result)


def test_models_are_compared_pair_by_pair_in_the_same_resamples(result):
    pairs = {(one["a"], one["b"]) for one in result["comparisons"]}
    assert pairs == {("weak", "strong"), ("weak", "third"), ("strong", "third")}
    assert {one["metric"] for one in result["comparisons"]} == {
        "auc",
        "average_precision",
        "brier",
        "balanced_accuracy",
    }
    one = next(one for one in result["comparisons"] if one["metric"] == "auc" and one["level"] == "image")
    areas = [result["models"][name]["levels"]["image"]["metrics"]["auc"]["value"] for name in (one["a"], one["b"])]
    assert one["difference"]["value"] == pytest.approx(areas[0] - areas[1])
    assert one["difference"]["high"] < 0  # weak is shown to be weaker than strong
    for test in ("p_bootstrap", "p_delong", "p_delong_clustered"):
        assert 0 <= one[test] <= one[f"{test}_holm"] <= 1
        assert one[test] < 0.05


def test_a_model_and_itself_do_not_differ(divided, scores):
    found = evaluate(divided, {"one": scores["weak"], "same": scores["weak"]}, seed=0, resamples=RESAMPLES)[
        "comparisons"
    ]
    for one in found:
        assert (one["difference"]["value"], one["difference"]["low"], one["difference"]["high"]) == (0, 0, 0)
        assert one["p_bootstrap"] == 1
    assert found[0]["p_delong"] is None
    assert "no variance" in found[0]["delong_reason"]


def test_counts_are_by_side(divided, result):
    counts = result["counts"]
    assert {side: one["images"] for side, one in counts.items()} == {"train": 144, "val": 48, "test": 48}
    test = [row for row in divided.to_pylist() if row["split"] == "test"]
    with_positive = {row["patient_id"] for row in test if row["target"] == 1}
    assert counts["test"] == {
        "images": 48, "patients": 12, "positive": 2 * len(with_positive), "negative": 48 - 2 * len(with_positive),
        "positive_patients": len(with_positive), "negative_patients": 12 - len(with_positive),
    }  # fmt: skip


def test_subgroups_are_of_what_the_index_has(result):
    groups = result["models"]["strong"]["subgroups"]
    assert list(groups) == ["density", "age"]
    assert list(groups["age"]) == ["under 40", "40 to 49", "not known"]
    assert sum(one["n"] for one in groups["density"].values()) == 48
    for one in groups["density"].values():
        assert set(one) == {"n", "patients", "positive", "auc", *SUBGROUP_METRICS}
        assert one["auc"]["low"] <= one["auc"]["value"] <= one["auc"]["high"]


def test_a_small_subgroup_is_told_with_its_size_and_without_what_is_not_defined():
    made = women()
    rows = [{**row, "view": "XCCL" if row["image_id"] == "w001-1" else "CC"} for row in made.to_pylist()]
    split = {f"w{w:03d}": ("test" if w < 20 else "val" if w < 40 else "train") for w in range(60)}
    made = index.from_rows([{**row, "split": split[row["patient_id"]]} for row in rows], Path("/data"))
    group = evaluate(made, {"m": predict(made, "m", 1.0)}, 0, RESAMPLES)["models"]["m"]["subgroups"]["view"]["XCCL"]
    assert (group["n"], group["patients"], group["positive"]) == (1, 1, 0)
    assert group["auc"] == {"value": None, "low": None, "high": None, "reason": "no positive among the 1"}
    assert group["specificity"]["value"] in (0.0, 1.0)
    assert group["specificity"]["low"] is None
    assert "one patient" in group["specificity"]["reason"]


def test_folds_have_thresholds_of_their_own_and_pooled_decisions():
    divided = assign(women(), SplitSettings(folds=4), seed=0)
    table = predict(divided, "m", 0.9, folds=4)
    result = evaluate(divided, {"m": table}, seed=0, resamples=RESAMPLES)
    level = result["models"]["m"]["levels"]["image"]
    assert result["folds"] == 4
    assert level["n"] == 240
    thresholds = level["thresholds"]["youden"]
    assert len(set(thresholds)) == 4
    rows = [row for row in table.to_pylist() if row["split"] == "test"]
    right = [(row["score"] >= thresholds[row["fold"]]) == (row["label"] == 1) for row in rows]
    assert level["metrics"]["youden"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    areas = [
        roc_auc_score(*zip(*[(row["label"], row["score"]) for row in rows if row["fold"] == fold], strict=True))
        for fold in range(4)
    ]
    assert level["metrics"]["auc_per_fold"]["folds"] == pytest.approx(areas)
    assert level["metrics"]["auc_per_fold"]["value"] == pytest.approx(np.mean(areas))
    assert level["metrics"]["auc"]["value"] == pytest.approx(
        roc_auc_score([row["label"] for row in rows], [row["score"] for row in rows])
    )
    assert [one["test"]["patients"] for one in result["counts"]["folds"]] == [15, 15, 15, 15]
    assert result["counts"]["test"]["images"] == 240
    json.dumps(result, allow_nan=False)


def test_one_fold_alone_is_judged_like_a_plain_split():
    divided = assign(women(), SplitSettings(folds=4), seed=0)
    rows = [row for row in predict(divided, "m", 0.9, folds=4).to_pylist() if row["fold"] == 2]
    table = predictions.from_rows(rows)
    result = evaluate(divided, {"m": table}, seed=0, resamples=RESAMPLES)
    assert result["folds"] is None
    assert result["counts"]["test"]["images"] == result["models"]["m"]["levels"]["image"]["n"] == 60
    assert "auc_per_fold" not in result["models"]["m"]["levels"]["image"]["metrics"]
    of_two = predictions.from_rows([row for row in predict(divided, "m", 0.9, folds=4).to_pylist() if row["fold"] != 1])
    with pytest.raises(SpiculaError, match=r"of the folds 0 to 3, only \[0, 2, 3\] have test predictions"):
        evaluate(divided, {"m": of_two}, seed=0, resamples=RESAMPLES)


def with_split(made, sides):
    return index.from_rows([{**row, "split": sides(row)} for row in made.to_pylist()], Path("/data"))


def test_a_test_side_of_one_class_gives_reasons_and_no_nan():
    made = with_split(women(), lambda row: "test" if int(row["patient_id"][1:]) % 3 else "val")
    result = evaluate(made, {"a": predict(made, "a", 1.0), "b": predict(made, "b", 0.2)}, 0, RESAMPLES)
    json.dumps(result, allow_nan=False)
    level = result["models"]["a"]["levels"]["image"]
    assert level["metrics"]["auc"]["reason"] == "no positive among the 160"
    assert level["metrics"]["youden"]["sensitivity"]["value"] is None
    assert level["metrics"]["youden"]["specificity"]["value"] is not None
    assert level["curves"]["roc"] is None
    auc = next(one for one in result["comparisons"] if one["metric"] == "auc")
    assert auc["difference"]["reason"] == "no positive among the 160"
    assert auc["p_bootstrap"] is auc["p_delong"] is None
    assert auc["delong_reason"] == "needs two of each class"
    assert any("0 positive patients" in warning for warning in result["warnings"])


def test_a_validation_side_of_one_class_gives_no_decisions_and_says_so():
    made = with_split(women(), lambda row: "val" if int(row["patient_id"][1:]) % 3 else "test")
    result = evaluate(made, {"m": predict(made, "m", 1.0)}, 0, RESAMPLES)
    level = result["models"]["m"]["levels"]["image"]
    assert level["thresholds"] == {"youden": [None], "sensitivity-0.90": [None]}
    assert level["confusion"]["youden"] is None
    assert level["metrics"]["auc"]["value"] is not None
    reason = "no threshold: the validation side has one class only"
    assert level["metrics"]["youden"]["accuracy"]["reason"] == reason
    assert any(reason in warning for warning in result["warnings"])


def test_one_test_patient_has_values_without_intervals():
    made = with_split(women(), lambda row: "test" if row["patient_id"] == "w000" else "val")
    result = evaluate(made, {"a": predict(made, "a", 1.0), "b": predict(made, "b", 0.2)}, 0, RESAMPLES)
    auc = result["models"]["a"]["levels"]["image"]["metrics"]["auc"]
    assert auc["value"] is not None
    assert auc["low"] is None
    assert "one patient only" in auc["reason"]
    comparison = next(one for one in result["comparisons"] if one["metric"] == "auc")
    assert comparison["p_delong"] is not None or "delong_reason" in comparison
    assert comparison["p_delong_clustered"] is None
    json.dumps(result, allow_nan=False)


def test_constant_scores_are_chance_and_nothing_breaks(divided):
    rows = [{**row, "score": 0.5} for row in predict(divided, "m", 1.0).to_pylist()]
    result = evaluate(divided, {"m": predictions.from_rows(rows)}, 0, RESAMPLES)
    assert result["models"]["m"]["levels"]["image"]["metrics"]["auc"]["value"] == 0.5
    assert result["models"]["m"]["levels"]["image"]["metrics"]["youden"]["sensitivity"]["value"] == 1.0
    json.dumps(result, allow_nan=False)


def test_small_samples_and_skipped_resamples_are_warned_of():
    made = with_split(women(12), lambda row: "test" if int(row["patient_id"][1:]) < 5 else "val")
    result = evaluate(made, {"m": predict(made, "m", 1.0)}, 0, RESAMPLES)
    assert result["warnings"][0].startswith("5 patients on the test side: intervals are wide")
    assert any("2 positive patients" in warning for warning in result["warnings"])
    skipped = result["models"]["m"]["levels"]["image"]["metrics"]["auc"]["skipped"]
    assert 0 < skipped < RESAMPLES / 2
    assert any(f"{skipped} of 200 resamples" in warning for warning in result["warnings"])


def test_a_large_balanced_sample_has_no_warnings():
    made = with_split(women(400, images=2), lambda row: "test" if int(row["patient_id"][1:]) < 200 else "val")
    assert evaluate(made, {"m": predict(made, "m", 0.5)}, 0, RESAMPLES)["warnings"] == []


def test_models_tested_on_other_images_are_refused(divided, scores):
    rows = sorted(scores["weak"].to_pylist(), key=lambda row: row["split"])  # test, then val
    fewer = predictions.from_rows(rows[1:])
    with pytest.raises(SpiculaError, match="models weak and strong were not tested on the same images"):
        evaluate(divided, {"weak": fewer, "strong": scores["strong"]}, 0, RESAMPLES)


def test_other_targets_and_missing_predictions_are_refused(divided, scores):
    other = predictions.from_rows([{**row, "target": "idc"} for row in scores["weak"].to_pylist()])
    with pytest.raises(SpiculaError, match=r"different targets \(idc, malignant\)"):
        evaluate(divided, {"a": scores["weak"], "b": other}, 0, RESAMPLES)
    val = predictions.from_rows([row for row in scores["weak"].to_pylist() if row["split"] == "val"])
    with pytest.raises(SpiculaError, match="model a has no test predictions"):
        evaluate(divided, {"a": val}, 0, RESAMPLES)
    with pytest.raises(SpiculaError, match="no model has predictions"):
        evaluate(divided, {}, 0, RESAMPLES)


def test_curves_go_from_corner_to_corner_with_a_band_and_few_points(divided):
    made = with_split(women(500, images=8), lambda row: "test" if int(row["patient_id"][1:]) % 2 else "val")
    curves = evaluate(made, {"m": predict(made, "m", 0.3)}, 0, 100)["models"]["m"]["levels"]["image"]["curves"]
    roc = curves["roc"]
    assert (roc["x"][0], roc["y"][0], roc["x"][-1], roc["y"][-1]) == (0, 0, 1, 1)
    assert len(roc["x"]) == len(roc["y"]) == len(roc["low"]) == len(roc["high"]) <= 500
    assert (np.diff(roc["x"]) >= 0).all()
    assert (np.diff(roc["y"]) >= 0).all()
    inside = [low <= y <= high for low, y, high in zip(roc["low"], roc["y"], roc["high"], strict=True)]
    assert np.mean(inside) > 0.9
    assert curves["pr"]["x"][-1] == 1
    calibration = curves["calibration"]
    assert sum(calibration["count"]) == 2000
    assert all(0 <= value <= 1 for value in [*calibration["predicted"], *calibration["observed"]])
