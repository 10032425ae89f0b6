import csv
import io
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from bundle_maker import brightness_model, content, dicom, grey, make
from PIL import Image

from spicula import RESEARCH_NOTICE, predict, predictions
from spicula.errors import UsageError
from spicula.imaging.preprocess import Preprocess

WHEN = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def model(tmp_path):
    return make(tmp_path / "bundle")


def scoped(tmp_path, **changes):
    scope = {"modalities": [], "presentation_intents": [], "colour": None, "statement": "Images."}
    return make(tmp_path / "scoped", scope=scope | changes)


def reasons(rejected):
    return dict(zip(rejected["path"].to_pylist(), rejected["reason"].to_pylist(), strict=True))


def test_files_and_folders_are_answered_in_order(model, tmp_path):
    top = tmp_path / "images"
    for number, name in enumerate(["b.png", "a.png", "deep/er/c.tif", "d.jpg"]):
        grey(top / name, 51 * (number + 1))
    alone = grey(tmp_path / "alone.png", 0)
    answered, rejected = predict.predict(model, [alone, top])
    assert answered["id"].to_pylist() == [
        str(path) for path in (alone, top / "a.png", top / "b.png", top / "d.jpg", top / "deep/er/c.tif")
    ]
    assert answered["score"].to_pylist() == pytest.approx([0.0, 0.4, 0.2, 0.8, 0.6], abs=2e-3)
    assert set(answered["target"].to_pylist()) == {"bright"}
    assert set(answered["model"].to_pylist()) == {"brightness"}
    assert set(answered["model_digest"].to_pylist()) == {model.digest}
    assert len(rejected) == 0
    predictions.validate(answered)


@pytest.mark.parametrize(("batch_size", "jobs"), [(1, 1), (3, 2), (100, 8)])
def test_batches_and_threads_change_nothing(model, tmp_path, batch_size, jobs):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(10):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(path)
        paths.append(path)
    expected, _ = predict.predict(model, paths)
    answered, _ = predict.predict(model, paths, batch_size=batch_size, jobs=jobs)
    assert answered["id"].to_pylist() == expected["id"].to_pylist()
    np.testing.assert_allclose(answered["score"].to_numpy(), expected["score"].to_numpy(), atol=1e-6)


def test_a_bad_file_costs_itself_alone(model, tmp_path):
    top = tmp_path / "images"
    good = [grey(top / f"{number}.png", 100) for number in range(5)]
    noise = np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)
    Image.fromarray(noise).save(top / "cut.png")
    (top / "cut.png").write_bytes((top / "cut.png").read_bytes()[:1500])
    (top / "notes.png").write_text("not an image")
    (top / "empty.png").write_bytes(b"")
    answered, rejected = predict.predict(model, [top], batch_size=2)
    assert answered["id"].to_pylist() == [str(path) for path in good]
    why = reasons(rejected)
    assert sorted(why) == [str(top / name) for name in ("cut.png", "empty.png", "notes.png")]
    assert "not an image" in why[str(top / "notes.png")]
    assert all(reason and "\n" not in reason for reason in why.values())


def test_a_decoder_that_crashes_costs_its_image_alone(model, tmp_path, monkeypatch):
    code = (
        "import os, spicula.imaging.decoding as d; real = d.read_pixels; "
        "d.read_pixels = lambda path, frame=0: os.abort() if path.name == '2.png' else real(path, frame); d.main()"
    )
    monkeypatch.setattr("spicula.imaging.workers.COMMAND", (sys.executable, "-c", code))
    for number in range(5):
        grey(tmp_path / f"images/{number}.png", 51)
    answered, rejected = predict.predict(model, [tmp_path / "images"])
    assert [Path(name).name for name in answered["id"].to_pylist()] == ["0.png", "1.png", "3.png", "4.png"]
    assert reasons(rejected) == {str(tmp_path / "images/2.png"): "its decoder died of SIGABRT"}


def test_more_files_than_a_block_holds(model, tmp_path, monkeypatch):
    monkeypatch.setattr("spicula.predict.intake.BLOCK_IMAGES", 2)
    paths = [grey(tmp_path / f"{number}.png", 51 * number) for number in range(5)]
    answered, rejected = predict.predict(model, [*paths, tmp_path / "none.png"], batch_size=3)
    assert answered["id"].to_pylist() == [str(path) for path in paths]
    assert answered["score"].to_pylist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8], abs=1e-6)
    assert len(rejected) == 1


def test_the_content_counts_not_the_name(model, tmp_path):
    grey(tmp_path / "a.png", 102).rename(tmp_path / "a.txt")
    answered, rejected = predict.predict(model, [tmp_path / "a.txt"])
    assert answered["score"].to_pylist() == pytest.approx([0.4], abs=1e-6)
    assert len(rejected) == 0


def test_hidden_files_are_skipped_unless_they_are_named(model, tmp_path):
    grey(tmp_path / "images/a.png", 10)
    hidden = grey(tmp_path / "images/.b.png", 20)
    grey(tmp_path / "images/.cache/c.png", 30)
    answered, rejected = predict.predict(model, [tmp_path / "images"])
    assert answered["id"].to_pylist() == [str(tmp_path / "images/a.png")]
    assert len(rejected) == 0
    assert len(predict.predict(model, [hidden])[0]) == 1


def test_documents_beside_images_are_passed_over_unless_they_are_named(model, tmp_path, capsys):
    good = grey(tmp_path / "images/a.png", 10)
    document = tmp_path / "images/exam.json"
    document.write_text("{}")
    (tmp_path / "images/report").write_text("no document by its name")
    answered, rejected = predict.predict(model, [tmp_path / "images"])
    assert answered["id"].to_pylist() == [str(good)]
    assert list(reasons(rejected)) == [str(tmp_path / "images/report")]
    assert f"passed over 1 file ({document}), beside the images" in capsys.readouterr().err
    for paths in ([tmp_path / "images", document], [document, tmp_path / "images"]):
        _, rejected = predict.predict(model, paths)
        assert sorted(reasons(rejected)) == [str(document), str(tmp_path / "images/report")]


def test_a_folder_of_documents_alone_is_wrong_use(model, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    with pytest.raises(UsageError, match=r"no image among 1 file \(.*a\.txt\)"):
        predict.predict(model, [tmp_path / "texts"])


def test_a_file_met_twice_is_answered_once(model, tmp_path):
    path = grey(tmp_path / "images/a.png", 10)
    answered, _ = predict.predict(model, [path, tmp_path / "images", path])
    assert answered["id"].to_pylist() == [str(path)]


def test_what_is_not_there_is_rejected(model, tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    good = grey(tmp_path / "a.png", 10)
    paths = [tmp_path / "none.png", tmp_path / "empty", tmp_path / "pipe", good, tmp_path / ("x" * 300)]
    answered, rejected = predict.predict(model, paths)
    assert answered["id"].to_pylist() == [str(good)]
    why = reasons(rejected)
    assert "No such file" in why[str(tmp_path / "none.png")]
    assert why[str(tmp_path / "empty")] == "the folder holds no files"
    assert why[str(tmp_path / "pipe")] == "not a regular file"
    assert len(why) == 4


def test_nothing_given_is_wrong_use(model):
    with pytest.raises(UsageError, match="nothing to predict"):
        predict.predict(model, [])


def test_all_rejected_is_an_empty_table(model, tmp_path):
    answered, rejected = predict.predict(model, [tmp_path / "none.png"])
    assert len(answered) == 0
    assert answered.schema == predictions.SCHEMA
    assert len(rejected) == 1
    assert predict.as_table_text(answered, rejected, model).endswith("0 answered, 1 rejected")


def test_names_that_are_not_utf8_are_escaped(model, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    grey(tmp_path / "a.png", 51).rename(path)
    answered, rejected = predict.predict(model, [path])
    assert answered["id"].to_pylist() == [f"{tmp_path}/caf\\udce9.png"]
    for text in (predict.as_table_text, predict.as_json, predict.as_csv):
        assert text(answered, rejected, model).encode()


def test_dicom_has_a_side_and_tells_no_names(model, tmp_path):
    left = dicom(tmp_path / "l.dcm", ImageLaterality="L")
    right = dicom(tmp_path / "r.dcm", Laterality="R")
    neither = dicom(tmp_path / "n.dcm", ImageLaterality="B")
    wrong = dicom(tmp_path / "w.dcm", Rows=2000)
    answered, rejected = predict.predict(model, [left, right, neither, wrong])
    assert answered["side"].to_pylist() == ["L", "R", None]
    assert answered["score"].to_pylist() == pytest.approx([0.2] * 3, abs=1e-6)
    assert answered["patient_id"].to_pylist() == [None] * 3
    assert len(rejected) == 1
    for text in (predict.as_table_text, predict.as_json, predict.as_csv):
        assert "anary" not in text(answered, rejected, model)


def test_another_modality_gets_no_score(tmp_path):
    model = scoped(tmp_path, modalities=["MG"], presentation_intents=["FOR PRESENTATION"])
    paths = [
        dicom(tmp_path / "mg.dcm", PresentationIntentType="FOR PRESENTATION"),
        dicom(tmp_path / "old.dcm"),
        dicom(tmp_path / "ct.dcm", Modality="CT"),
        dicom(tmp_path / "unknown.dcm", Modality=""),
        dicom(tmp_path / "raw.dcm", PresentationIntentType="FOR PROCESSING"),
    ]
    answered, rejected = predict.predict(model, paths)
    assert answered["id"].to_pylist() == [str(path) for path in paths[:2]]
    why = reasons(rejected)
    assert why[str(paths[2])] == "outside the model's scope: its modality is CT, the model knows MG"
    assert why[str(paths[3])] == "outside the model's scope: its modality is not given, the model knows MG"
    assert "its presentation intent is FOR PROCESSING, the model knows FOR PRESENTATION" in why[str(paths[4])]


def test_a_mirrored_image_of_the_other_side_gets_the_same_score(tmp_path):
    preprocess = Preprocess.model_validate({"size": (8, 8), "channels": 1, "orient": True})
    settings = {"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")}
    model = make(tmp_path / "bundle", model=brightness_model(left=True), preprocessing=settings)
    rows, columns = np.mgrid[:400, :300]
    breasts = {}
    for name, width in (("small", 110), ("large", 220)):
        shape = ((rows - 200) / 170) ** 2 + (columns / width) ** 2 < 1
        breasts[name] = np.where(shape, 180, 5).astype(np.uint8)
    left = [dicom(tmp_path / f"{name}-L.dcm", image, ImageLaterality="L") for name, image in breasts.items()]
    right = [
        dicom(tmp_path / f"{name}-R.dcm", np.ascontiguousarray(image[:, ::-1]), ImageLaterality="R")
        for name, image in breasts.items()
    ]
    answered, rejected = predict.predict(model, left + right)
    assert len(rejected) == 0
    assert answered["side"].to_pylist() == ["L", "L", "R", "R"]
    scores = answered["score"].to_pylist()
    assert scores[:2] == pytest.approx(scores[2:], abs=1e-6)
    assert scores[1] - scores[0] > 0.1


def test_files_of_several_frames_get_no_score(model, tmp_path):
    tomo = dicom(tmp_path / "tomo.dcm", frames=3)
    pages = [Image.fromarray(np.full((20, 30), value, np.uint8)) for value in (0, 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    answered, rejected = predict.predict(model, [tomo, tmp_path / "pages.tif"])
    assert len(answered) == 0
    assert "holds 3 frames" in reasons(rejected)[str(tomo)]
    assert "holds 2 frames" in reasons(rejected)[str(tmp_path / "pages.tif")]


def test_colour_and_grey_are_told_apart_by_what_they_show(tmp_path):
    colour, equal = np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 51, np.uint8)
    colour[..., 0] = 200
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(equal).save(tmp_path / "equal.png")
    Image.fromarray(equal).save(tmp_path / "equal.jpg")
    plain = grey(tmp_path / "grey.png", 51)
    paths = [tmp_path / name for name in ("colour.png", "equal.png", "equal.jpg")] + [plain]
    answered, rejected = predict.predict(scoped(tmp_path, colour=False), paths)
    assert answered["id"].to_pylist() == [str(path) for path in paths[1:]]
    assert reasons(rejected)[str(paths[0])].endswith("a colour image, the model knows grey images")
    answered, rejected = predict.predict(scoped(tmp_path, colour=True), paths)
    assert answered["id"].to_pylist() == [str(path) for path in paths[:3]]
    assert reasons(rejected)[str(plain)].endswith("a grey image, the model knows colour images")


@pytest.fixture
def result(model, tmp_path):
    paths = [grey(tmp_path / "dark.png", 51), grey(tmp_path / "bright.png", 204), tmp_path / "none.png"]
    return (*predict.predict(model, paths), model)


def test_text(result, tmp_path):
    lines = predict.as_table_text(*result, when=WHEN).splitlines()
    assert lines[0] == "model   brightness (cnn), version 3, trained on lamps"
    assert lines[1] == f"digest  {result[2].digest}"
    assert lines[2:4] == ["time    2026-11-21T12:00:00Z", f"notice  {RESEARCH_NOTICE}"]
    assert lines[5].split() == ["image", "side", "score", "for", "bright", "at", "youden", "(0.5000)"]
    assert lines[6].split() == [str(tmp_path / "dark.png"), "-", "0.2000", "dark"]
    assert lines[7].split() == [str(tmp_path / "bright.png"), "-", "0.8000", "bright"]
    assert lines[6].index("0.2000") == lines[7].index("0.8000") == lines[5].index("score")
    assert lines[10].split("  ")[-1] == "cannot be opened: No such file or directory"
    assert lines[-1] == "2 answered, 1 rejected"


def test_a_model_of_synthetic_images_says_so(tmp_path):
    model = make(tmp_path / "bundle", data=content()["data"] | {"dataset": "phantom", "synthetic": True})
    assert "trained on phantom (synthetic images)" in predict.as_table_text(*predict.predict(model, [tmp_path]), model)
    assert "never seen a breast" in (tmp_path / "bundle/MODEL_CARD.md").read_text()


def test_text_escapes_what_a_terminal_would_act_on(model, tmp_path):
    path = grey(tmp_path / "\x1b[31mred\n.png", 51)
    text = predict.as_table_text(*predict.predict(model, [path]), model)
    assert "\x1b" not in text
    assert r"\x1b[31mred\n.png" in text


def test_json(result, tmp_path):
    told = json.loads(predict.as_json(*result, when=WHEN))
    assert told["model"] | {"scope": None, "data": None} == {
        "name": "brightness",
        "version": "3",
        "digest": result[2].digest,
        "line": "cnn",
        "classes": ["dark", "bright"],
        "target": "bright",
        "scope": None,
        "data": None,
    }
    assert told["time"] == "2026-11-21T12:00:00Z"
    assert told["notice"] == RESEARCH_NOTICE
    assert told["operating_points"] == {"youden": 0.5}
    assert told["counts"] == {"answered": 2, "rejected": 1}
    assert told["rejected"] == [
        {"path": str(tmp_path / "none.png"), "reason": "cannot be opened: No such file or directory"}
    ]
    first = told["predictions"][0]
    assert first["id"] == str(tmp_path / "dark.png")
    assert first["decisions"] == {"youden": "dark"}
    assert first["score"] == result[0]["score"][0].as_py()


def test_csv(result, tmp_path):
    rows = list(csv.DictReader(io.StringIO(predict.as_csv(*result, when=WHEN))))
    assert [row["id"] for row in rows] == [str(tmp_path / name) for name in ("dark.png", "bright.png", "none.png")]
    assert [float(row["score"]) for row in rows[:2]] == result[0]["score"].to_pylist()
    assert [row["youden"] for row in rows] == ["dark", "bright", ""]
    assert [row["rejected"] for row in rows] == ["", "", "cannot be opened: No such file or directory"]
    assert rows[2]["score"] == ""
    for row in rows:
        assert row["model"] == "brightness"
        assert row["version"] == "3"
        assert row["model_digest"] == result[2].digest
        assert row["time"] == "2026-11-21T12:00:00Z"
        assert row["notice"] == RESEARCH_NOTICE


def test_time_is_now_unless_given(result):
    before = datetime.now(UTC).replace(microsecond=0)
    told = datetime.fromisoformat(json.loads(predict.as_json(*result))["time"])
    assert before <= told <= datetime.now(UTC)


def test_a_model_without_operating_points_has_scores_all_the_same(tmp_path):
    model = make(tmp_path / "bundle", operating_points={})
    answered, rejected = predict.predict(model, [grey(tmp_path / "a.png", 51)])
    assert "0.2000" in predict.as_table_text(answered, rejected, model)
    assert json.loads(predict.as_json(answered, rejected, model))["predictions"][0]["decisions"] == {}
    assert predict.as_csv(answered, rejected, model).startswith("id,side,target,score,rejected,")


def test_real_dicom_files_good_and_broken(test_data, tmp_path):
    folder = test_data / "dicom"
    model = scoped(tmp_path, colour=False)
    answered, rejected = predict.predict(model, [folder])
    why = {Path(path).name: reason for path, reason in reasons(rejected).items()}
    assert len(answered) + len(rejected) == len(list(folder.iterdir()))
    assert {"CT2_JPLL", "MG1_J2KI", "MR3_J2KR", "NM1_RLE"} <= {Path(name).name for name in answered["id"].to_pylist()}
    assert "predictor" in why["JPEGLossless_1s_1f_i_16_16_bad.dcm"]
    assert "holds 3 frames" in why["liver.dcm"]
    assert "colour image" in why["JLSN_RGB_ILV0.dcm"]
    assert (
        dict(zip(answered["id"].to_pylist(), answered["side"].to_pylist(), strict=True))[str(folder / "MG1_J2KI")]
        == "L"
    )
