"""/v1/predict and /predict: the same answers as `spicula predict`, whatever else is asked at the same time."""

import asyncio
import hashlib
import json
import tarfile
import zipfile

import numpy as np
import pytest
from bundle_maker import CANARY, dicom, grey, make
from predict_app import colour_bundle, noise, serving, uploads, with_golden

from spicula import RESEARCH_NOTICE, predict
from spicula.serving.loading import open_models


def told(model, paths):
    """What `spicula predict` says: the score, or the reason, of each file."""
    answered, rejected = predict.predict(model, paths)
    scores = dict(zip(answered["id"].to_pylist(), answered["score"].to_pylist(), strict=True))
    reasons = dict(zip(rejected["path"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert scores.keys() | reasons.keys() == {str(path) for path in paths}
    return [scores.get(str(path), reasons.get(str(path))) for path in paths]


def same(image, expected):
    if isinstance(expected, str):
        return image["refused"] and image["reason"] == expected and image["score"] is None
    return not image["refused"] and image["score"] == pytest.approx(expected, abs=1e-6)


def compare(model, paths, at_a_time=1):
    """Ask for files in several requests at once and see that each gets what the command line gives."""
    expected = told(model, paths)

    async def main():
        async with serving(model) as (client, _):
            batches = [paths[at::at_a_time] for at in range(at_a_time)]
            asked = [client.post("/v1/predict", files=uploads(*batch)) for batch in batches if batch]
            answers = await asyncio.gather(*asked)
        for number, answer in enumerate(answers):
            assert answer.status_code == 200
            images = answer.json()["images"]
            assert [image["position"] for image in images] == list(range(len(images)))
            for image, path, value in zip(images, batches[number], expected[number::at_a_time], strict=True):
                assert image["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
                assert same(image, value), (path, image, value)

    asyncio.run(main())
    return expected


def test_an_answer_says_all_that_a_result_must_say(tmp_path):
    model = make(tmp_path / "bundle")
    path = grey(tmp_path / "a.png", 204)

    async def main():
        async with serving(model) as (client, _):
            return (await client.post("/v1/predict", files=uploads(path))).json()

    answer = asyncio.run(main())
    assert answer["model"] == {"name": "brightness", "version": "3", "digest": model.digest}
    assert answer["notice"] == RESEARCH_NOTICE
    assert answer["time"].endswith("Z")
    assert answer["target"] == "bright"
    assert answer["operating_points"] == [{"name": "youden", "threshold": 0.5, "chosen_on": "val"}]
    assert answer["probability"]["calibrated"] is False
    (image,) = answer["images"]
    assert image["class"] == "bright"
    assert image["kind"] == "png"
    assert image["score"] == pytest.approx(0.8, abs=1e-6)
    assert [one["class"] for one in image["scores"]] == ["dark", "bright"]
    assert [one["probability"] for one in image["scores"]] == pytest.approx([0.2, 0.8], abs=1e-6)
    assert image["decisions"] == [{"operating_point": "youden", "threshold": 0.5, "decision": "bright"}]
    assert image["explanation"] is None


def test_every_kind_of_file_gets_the_answer_of_the_command_line(tmp_path):
    files = [grey(tmp_path / f"a.{suffix}", 80) for suffix in ("png", "jpg", "tif", "pgm")]
    files += [dicom(tmp_path / "left.dcm", ImageLaterality="L"), noise(tmp_path / "colour.png")]
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 2 65535 " + np.arange(0, 60000, 10000, dtype=">u2").tobytes())
    files += [tmp_path / "deep.pgm"]
    compare(make(tmp_path / "bundle"), files)


@pytest.mark.parametrize("line", ["colour", "grey"])
def test_what_the_command_line_refuses_is_refused_for_the_same_reason(tmp_path, line):
    scope = {"modalities": ["MG"], "presentation_intents": ["FOR PRESENTATION"], "colour": line == "colour"}
    model = make(tmp_path / "bundle", scope=scope | {"statement": "Images."})
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    whole = dicom(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:-100])
    (tmp_path / "headless.dcm").write_bytes(whole[:200])
    (tmp_path / "empty").write_bytes(b"")
    cut = noise(tmp_path / "cut.png").read_bytes()[:700]
    (tmp_path / "cut.png").write_bytes(cut)
    files = [
        text,
        *(tmp_path / name for name in ("cut.dcm", "headless.dcm", "empty", "cut.png", "whole.dcm")),
        dicom(tmp_path / "ct.dcm", Modality="CT"),
        dicom(tmp_path / "raw.dcm", PresentationIntentType="FOR PROCESSING"),
        dicom(tmp_path / "tomo.dcm", frames=3),
        noise(tmp_path / "colour.png"),
        grey(tmp_path / "grey.png", 30),
    ]
    expected = compare(model, files, at_a_time=3)
    assert sum(isinstance(one, str) for one in expected) >= 9


def test_32_requests_at_once_get_the_answers_that_they_would_get_alone(tmp_path):
    model = colour_bundle(tmp_path / "bundle")
    files = [noise(tmp_path / f"{number}.png", seed=number) for number in range(64)]
    files[40] = tmp_path / "text.txt"
    files[40].write_text("no image")
    expected = compare(model, files, at_a_time=32)
    assert len(set(expected)) > 60


def test_real_histology_gets_the_answer_of_the_command_line(tmp_path, test_data):
    slides = sorted((test_data / "breakhis").rglob("*.png"))[:4]
    with zipfile.ZipFile(next((test_data / "idc-patches").glob("*.zip"))) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:4]
        for number, name in enumerate(names):
            (tmp_path / f"{number}.png").write_bytes(archive.read(name))
    patches = sorted(tmp_path.glob("*.png"))
    assert slides and patches
    compare(colour_bundle(tmp_path / "bundle", size=(64, 64)), [*slides, *patches], at_a_time=4)


def test_real_mammograms_get_the_answer_of_the_command_line(tmp_path, test_data):
    files = []
    with tarfile.open(next((test_data / "mini-mias").glob("*.tar.gz"))) as archive:
        for member in archive:
            if member.name.endswith(".pgm") and len(files) < 3:
                path = tmp_path / f"{len(files)}.pgm"
                path.write_bytes(archive.extractfile(member).read())
                files.append(path)
    views = sorted((test_data / "nyu-exam").glob("*.png"))[:1]
    assert files
    assert views
    compare(make(tmp_path / "bundle"), [*files, *views], at_a_time=2)


def test_the_published_answer(tmp_path):
    model = make(tmp_path / "bundle")

    async def main():
        async with serving(model) as (client, _):
            good = await client.post("/predict", files=uploads(grey(tmp_path / "a.png", 51)))
            bad = await client.post("/predict", files=uploads(b"no image"))
            two = await client.post("/predict", files=uploads(b"a", b"b"))
        return good, bad, two

    good, bad, two = asyncio.run(main())
    answer = good.json()
    assert answer["predicted_label"] == "dark"
    assert answer["confidence"] == pytest.approx(0.8, abs=1e-6)
    assert answer["raw_prediction"] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert answer["model"]["digest"] == model.digest
    assert (bad.status_code, bad.json()["code"]) == (422, "refused")
    assert "not an image that Spicula reads" in bad.json()["detail"]
    assert (two.status_code, two.json()["code"]) == (422, "file")


def test_several_models_are_chosen_by_name(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b", name="other")
    path = grey(tmp_path / "a.png", 51)

    async def main():
        async with serving(first, second) as (client, _):
            return [
                await client.post(f"/v1/predict{query}", files=uploads(path))
                for query in ("", "?model=other", "?model=brightness", "?model=third")
            ]

    without, other, brightness, third = asyncio.run(main())
    assert (without.status_code, without.json()["code"]) == (422, "model")
    assert "brightness, other" in without.json()["detail"]
    assert other.json()["model"]["digest"] == second.digest
    assert brightness.json()["model"]["digest"] == first.digest
    assert third.status_code == 404
    assert "third" not in third.text


@pytest.mark.parametrize(
    ("query", "files", "status", "code"),
    [
        ("?explain=gradcam", [("file", ("a", b"x"))], 422, "explain"),
        ("?explain=magic", [("file", ("a", b"x"))], 422, "invalid"),
        ("?explain=gradcam&of=cat", [("file", ("a", b"x"))], 422, "class"),
        ("", [("image", ("a", b"x"))], 422, "file"),
        ("", [("note", (None, b"x"))], 422, "file"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_problem(tmp_path, query, files, status, code):
    model = make(tmp_path / "bundle")

    async def main():
        async with serving(model) as (client, _):
            return await client.post(f"/v1/predict{query}", files=files)

    answer = asyncio.run(main())
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_cards_of_models(tmp_path):
    model = with_golden(make(tmp_path / "bundle"))

    async def main():
        async with serving(model) as (client, _):
            return [await client.get(path) for path in ("/v1/models", "/v1/models/brightness", "/v1/models/none")]

    every, one, none = asyncio.run(main())
    (shown,) = every.json()["models"]
    assert (shown["name"], shown["digest"], shown["provider"]) == ("brightness", model.digest, "onnxruntime")
    assert shown["precision"] == "fp32"
    assert shown["self_test"]["max_abs_difference"] <= shown["self_test"]["tolerance"] == 1e-4
    assert shown["explanations"] == []
    card = one.json()
    assert card["bundle"] == json.loads((model.folder / "bundle.json").read_text())
    assert card["model_card"] == (model.folder / "MODEL_CARD.md").read_text()
    assert none.status_code == 404


def test_no_word_of_a_header_or_a_file_name_is_told(tmp_path, caplog):
    model = make(tmp_path / "bundle")
    good = dicom(tmp_path / "good.dcm", StudyDescription=CANARY)
    bad = dicom(tmp_path / "bad.dcm", Rows=2000)
    audit = tmp_path / "audit.jsonl"
    files = [("file", (f"{CANARY}-canary.dcm", path.read_bytes())) for path in (good, bad)]

    async def main():
        async with serving(model, audit=audit) as (client, _):
            answers = [await client.post("/v1/predict", files=files), await client.post("/predict", files=files[1:])]
            return [answer.text for answer in answers] + [(await client.get("/metrics")).text]

    texts = [*asyncio.run(main()), audit.read_text(), caplog.text]
    assert "true" in texts[0]
    assert all("anary" not in text for text in texts)
    (first, second) = [json.loads(line) for line in audit.read_text().splitlines()]
    assert first["model"]["digest"] == model.digest
    assert [image["sha256"] for image in first["images"]] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (good, bad)
    ]
    assert first["images"][0]["scores"] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert first["images"][1] == second["images"][0]
    assert second["images"][0]["refused"] is True


def test_a_service_without_a_study_has_no_models_of_images(tmp_path):
    async def main():
        async with serving() as (client, service):
            await open_models(service)
            return await client.get("/v1/models"), await client.post("/v1/predict", files=uploads(b"x"))

    models, answer = asyncio.run(main())
    assert models.json()["models"] == []
    assert answer.status_code == 404
