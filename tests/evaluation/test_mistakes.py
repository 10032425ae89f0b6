"""Which images the report shows."""

from spicula import predictions
from spicula.evaluation.mistakes import Called, called, explained, most_confident, to_explain


def table(*rows):
    base = {"target": "malignant", "model": "m", "model_digest": "d", "split": "test"}
    return predictions.from_rows([{**base, **row} for row in rows])


def test_images_are_called_at_the_threshold_of_their_fold():
    rows = table(
        {"id": "a", "label": 1, "score": 0.4, "fold": 0},
        {"id": "b", "label": 1, "score": 0.4, "fold": 1},
        {"id": "c", "label": 0, "score": 0.4, "fold": 0},
        {"id": "d", "label": 0, "score": 0.4, "fold": 1},
        {"id": "e", "label": None, "score": 0.4, "fold": 1},
        {"id": "f", "label": 1, "score": 0.4, "fold": 1, "split": "val"},
    )
    kinds = {one.image_id: one.kind for one in called(rows, [0.4, 0.5])}
    assert kinds == {"a": "found", "b": "missed", "c": "false alarm", "d": "passed"}


def test_without_a_threshold_nothing_is_called():
    assert called(table({"id": "a", "label": 1, "score": 0.4}), [None]) == []


def test_the_surest_mistakes_come_first():
    images = [Called("b", 1, 0.1, "missed"), Called("a", 1, 0.1, "missed"), Called("c", 1, 0.3, "missed")]
    images += [Called("d", 0, 0.7, "false alarm"), Called("e", 0, 0.9, "false alarm")]
    assert [one.image_id for one in most_confident(images, "missed", 2)] == ["a", "b"]
    assert [one.image_id for one in most_confident(images, "false alarm")] == ["e", "d"]


def test_networks_explain_the_same_images_by_their_mean_score():
    first = [Called("a", 1, 0.9, "found"), Called("b", 1, 0.2, "missed"), Called("only", 1, 0.9, "found")]
    second = [Called("a", 1, 0.7, "found"), Called("b", 1, 0.6, "found")]
    assert explained({"x": first, "y": second}) == [("found", "a"), ("missed", "b")]


def test_every_picture_of_the_report_is_asked_for_once():
    cases = (("a", 1, 0.4), ("b", 0, 0.9), ("c", 1, 0.95))
    rows = table(*({"id": image, "label": label, "score": score} for image, label, score in cases))
    metrics = {"models": {"m": {"levels": {"image": {"thresholds": {"youden": [0.5]}}}}}}
    assert sorted(to_explain({"m": rows}, metrics)) == ["a", "b", "c"]
    assert to_explain({}, metrics) == []
