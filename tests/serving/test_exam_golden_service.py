"""The real exam through the service, with seeded weights: the scores that the published implementation gives."""

import pytest

pytest.importorskip("torch", reason="the seeded weights are drawn with torch: pip install 'spicula[train]'")
pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
pytest.importorskip("openvino", reason="the networks need the extra exams")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from exam_service import running  # it makes the tests of exams importable
from test_exam_golden import HEATMAP_TOLERANCE, SCORE_TOLERANCE, bundle, golden, reference

__all__ = ["bundle", "golden", "reference"]

MODELS = {"image-only": "image", "image-and-heatmaps": "imageheatmaps"}


@pytest.mark.slow
def test_the_real_exam_gets_the_published_scores(test_data, bundle, golden, tmp_path):
    images = sorted((test_data / "nyu-exam").glob("*.png"))
    with running(tmp_path / "ws", bundle.folder) as service:
        exam = service.send(*images).json()["id"]
        found = service.finished(exam)
        assert found["status"] == "done"
        assert found["is_mirrored"] is (golden["horizontal_flip"] == "YES")
        scores = {(one["model"], f"{one['side']}_{one['target']}"): one["score"] for one in found["predictions"]}
        assert len(scores) == 8
        for (model, column), score in scores.items():
            assert score == pytest.approx(golden[MODELS[model]][column], rel=0, abs=SCORE_TOLERANCE["fp32"]), model
        for image in found["images"]:
            expected = golden["images"][f"0_{image['view']}"]
            for name, value in image["geometry"].items():
                assert value == expected[name], (image["view"], name)
            heatmap = service.client.get(image["links"]["heatmap_malignant"])
            mean = decoded(heatmap.content).mean() / 255
            rounding = 0.5 / 255
            assert mean == pytest.approx(expected["heatmap_malignant"]["mean"], abs=HEATMAP_TOLERANCE + rounding)
        assert service.get(exam, "report.html").status_code == 200


def decoded(content):
    import cv2
    import numpy as np

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
