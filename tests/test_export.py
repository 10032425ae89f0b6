import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bundle_maker import content, dicom, grey, make
from PIL import Image
from safetensors.numpy import load_file

from spicula import RESEARCH_NOTICE, bundle, files, index, predict, predictions
from spicula.bundle import export, golden, onnx_graph, provenance
from spicula.catalog import index_dataset
from spicula.curate.splits import SplitSettings, assign, parts
from spicula.errors import SpiculaError, UsageError
from spicula.evaluation.evaluate import evaluate
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store
from spicula.models.settings import FeatureSettings, LinearSettings, NetworkSettings
from spicula.training.data import part
from spicula.training.fit import fit

FEATURES = FeatureSettings(groups=("intensity", "colour"))
MODELS = {
    "linear": LinearSettings(line="linear", c_grid=(0.1,), features=FEATURES),
    "svm": LinearSettings(line="linear", name="svm", classifier="svm", c_grid=(0.1,), features=FEATURES),
    "cnn": NetworkSettings(line="cnn", epochs=2, batch=16, precision="float32"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Images of 60 patients, brighter where the target is 1, and one finished run a line."""
    out = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    rows = []
    (out / "images").mkdir()
    for number in range(120):
        patient, target = divmod(number // 2, 2)
        noise = rng.normal(110 + 40 * target, 30, (24, 24, 3)) + rng.normal(0, 15, 3)
        path = out / "images" / f"{number:03}.png"
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
        rows.append(
            {
                "dataset": "breakhis",
                "image_id": f"image-{number:03}",
                "patient_id": f"{target}-{patient}",
                "path": f"images/{path.name}",
                "label": ["benign", "malignant"][target],
                "target": target,
                "modality": "SM",
                "photometric": "RGB",
                "sha256": files.sha256_file(path),
            }
        )
    table = assign(index.from_rows(rows, out), SplitSettings(), seed=0)
    store = build_store(table, Preprocess.model_validate({"size": (16, 16)}), out / "store", jobs=1)
    for name, settings in MODELS.items():
        train(settings, table, store, out / "runs" / name)
    return SimpleNamespace(out=out, table=table, store=store, runs=out / "runs")


def train(settings, table, store, run, fold=None):
    fit(settings, table, store, run, seed=0, target_name="malignant", classes=("benign", "malignant"), fold=fold,
        device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def exported(study):
    return {
        name: export.export_bundle(study.runs / name, study.table, study.store, study.out / "bundles" / name)
        for name in MODELS
    }


def held_back(study, name):
    """The files of test images, and what the run said of them."""
    told = predictions.read(study.runs / name / "predictions.parquet")
    told = told.filter(pc.equal(told["split"], "test"))
    paths = dict(zip(study.table["image_id"].to_pylist(), index.image_paths(study.table), strict=True))
    return [paths[image] for image in told["id"].to_pylist()], told["score"].to_numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_bundle_answers_as_its_run_did(study, exported, name):
    made = exported[name]
    parity = made.info["parity"]
    assert parity["images"] == 64
    assert set(parity["splits"]) == {"test", "val", "train"}
    assert 0 <= parity["max_abs_difference"] < 1e-4
    assert 0 <= parity["max_abs_difference_to_run"] < 1e-4
    assert parity["decisions_differ"] == 0
    paths, told = held_back(study, name)
    answered, rejected = predict.predict(bundle.load(made.folder), paths)
    assert len(rejected) == 0
    assert np.abs(answered["score"].to_numpy() - told).max() < 1e-4
    assert np.ptp(told) > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_a_bundle_records_what_it_answers_to_its_golden_inputs_and_how_it_is_explained(exported, name):
    made = bundle.load(exported[name].folder)
    found = made.probabilities(golden.images(made.preprocess))
    assert golden.difference(made, found) == pytest.approx(0, abs=1e-6)
    assert np.ptp(found[:, 1]) > 0
    explained = made.info["explanation"]
    if name == "cnn":
        assert explained["max_abs_difference"] < 1e-4
        assert (explained["shape"], explained["images"]) == (["batch", 4, 4], 16)
    else:
        assert explained is None


def test_bundles_answer_alike_where_only_the_core_is_installed(study, exported):
    """torch and what comes with it cannot be imported in this process."""
    code = """
        import importlib.abc, json, sys
        class Blocked(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"torch", "torchvision", "timm", "onnx", "sklearn", "safetensors", "jinja2"}:
                    raise ImportError(f"{name} is not installed here")
        sys.meta_path.insert(0, Blocked())
        from pathlib import Path
        from spicula import bundle, predict
        made, *paths = [Path(name) for name in sys.argv[1:]]
        print(json.dumps(predict.predict(bundle.load(made), paths)[0]["score"].to_pylist()))
    """
    for name in ("linear", "cnn"):
        paths, told = held_back(study, name)
        command = [sys.executable, "-c", textwrap.dedent(code), str(exported[name].folder), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert np.abs(np.array(json.loads(done.stdout)) - told).max() < 1e-4


@pytest.mark.parametrize("name", ["linear", "cnn"])
def test_the_graph_is_one_plain_file_with_a_free_batch(exported, name):
    made = exported[name]
    model = onnx.load_from_string(made.model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", onnx_graph.OPSET)]
    (image,), (output, *further) = model.graph.input, model.graph.output
    assert [one.name for one in further] == ([] if name == "linear" else ["evidence"])
    assert (image.name, output.name) == (made.info["input"]["name"], "probabilities")
    assert image.type.tensor_type.elem_type == output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert dims == made.info["input"]["shape"]
    assert [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim] == ["batch", 2]
    for trace in (b"site-packages", b".py", str(Path.cwd()).encode()):
        assert trace not in made.model
    session = onnxruntime.InferenceSession(made.model, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        found, *_ = session.run(None, {image.name: np.zeros((count, *dims[1:]), np.float32)})
        assert found.shape == (count, 2)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_exporting_again_gives_the_same_model(study, exported, tmp_path):
    for name in ("linear", "cnn"):
        again = export.export_bundle(study.runs / name, study.table, study.store, tmp_path / name)
        assert again.model == exported[name].model


def test_weights_are_those_of_the_run(study, exported):
    for name, made in exported.items():
        ours, theirs = (load_file(folder / "weights.safetensors") for folder in (made.folder, study.runs / name))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
        card = json.loads((study.runs / name / "run.json").read_text())
        assert made.info["training"]["weights_digest"] == card["model_digest"]
        assert made.info["training"]["index_digest"] == index.digest(study.table)


def test_what_the_bundle_says_of_itself(study, exported):
    info = exported["cnn"].info
    assert info["classes"] == ["benign", "malignant"]
    assert info["target"] == "malignant"
    assert info["notice"] == RESEARCH_NOTICE
    assert info["data"]["dataset"] == "breakhis"
    assert "CC BY 4.0" in info["data"]["terms"]
    assert info["licence"] == "not stated"
    assert info["scope"]["modalities"] == ["SM"]
    assert info["scope"]["colour"] is True
    counts = info["training"]["counts"]
    assert sum(one["images"] for one in counts.values()) == 120
    assert sum(one["patients"] for one in counts.values()) == 60
    assert sum(one["positive"] for one in counts.values()) == 60
    assert str(study.out) not in json.dumps(info)


def test_thresholds_are_those_of_the_evaluation(study, exported, tmp_path):
    told = {name: predictions.read(study.runs / name / "predictions.parquet") for name in MODELS}
    metrics = evaluate(study.table, told, seed=0, resamples=100)
    for name in MODELS:
        level = metrics["models"][name]["levels"]["image"]
        for rule, point in exported[name].info["operating_points"].items():
            assert [point["threshold"]] == level["thresholds"][rule]
            for metric, value in point["test"].items():
                assert value == pytest.approx(level["metrics"][rule][metric]["value"])
    made = export.export_bundle(
        study.runs / "cnn", study.table, study.store, tmp_path / "b", metrics=metrics, licence="CC0", version="7"
    )
    card = (made.folder / "MODEL_CARD.md").read_text()
    auc = metrics["models"]["cnn"]["levels"]["image"]["metrics"]["auc"]
    assert f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" in card
    for heading in ("Intended use", "Training data", "Performance", "Calibration", "Limitations", "Provenance"):
        assert f"\n## {heading}\n" in card
    for words in (RESEARCH_NOTICE, "version 7", "CC0", "CC BY 4.0", made.info["files"]["model.onnx"]["sha256"]):
        assert words in card
    with pytest.raises(SpiculaError, match="the metrics are of other, not of cnn"):
        export.export_bundle(
            study.runs / "cnn", study.table, study.store, tmp_path / "c", metrics={"models": {"other": {}}}
        )


def test_every_table_of_the_card_is_whole(exported):
    for made in exported.values():
        lines = (made.folder / "MODEL_CARD.md").read_text().splitlines()
        width = None
        for line in lines:
            bars = line.replace("\\|", "").count("|")
            if bars:
                assert width in (None, bars), line
            width = bars or None


def test_a_graph_that_answers_otherwise_is_no_bundle(study, exported, tmp_path, monkeypatch):
    real = onnx_graph.of_linear
    monkeypatch.setattr(
        onnx_graph, "of_linear", lambda *values, slope, offset: real(*values, slope=slope, offset=offset + 0.01)
    )
    with pytest.raises(SpiculaError, match="no bundle written: on 64 images") as caught:
        export.export_bundle(study.runs / "linear", study.table, study.store, tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_predictions_are_others_is_no_bundle(study, tmp_path):
    run = copy_of(study.runs / "linear", tmp_path / "run")
    told = predictions.read(run / "predictions.parquet")
    scores = [1 - score for score in told["score"].to_pylist()]
    column = told.schema.get_field_index("score")
    predictions.write(run / "predictions.parquet", told.set_column(column, told.schema.field(column), pa.array(scores)))
    with pytest.raises(SpiculaError, match="away from the run's own predictions"):
        export.export_bundle(run, study.table, study.store, tmp_path / "bundle")


def copy_of(run, to):
    to.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_runs_that_cannot_be_exported(study, tmp_path):
    with pytest.raises(UsageError, match="no run at"):
        export.export_bundle(tmp_path / "none", study.table, study.store, tmp_path / "bundle")
    run = copy_of(study.runs / "linear", tmp_path / "run")
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(card | {"status": "started"}))
    with pytest.raises(SpiculaError, match="is not finished"):
        export.export_bundle(run, study.table, study.store, tmp_path / "bundle")
    (run / "run.json").write_text("{")
    with pytest.raises(SpiculaError, match=r"run\.json is damaged"):
        export.export_bundle(run, study.table, study.store, tmp_path / "bundle")
    (run / "run.json").write_text(json.dumps(card))
    (run / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(SpiculaError, match="is not what training wrote"):
        export.export_bundle(run, study.table, study.store, tmp_path / "bundle")


def test_another_store_or_split_is_noticed(study, tmp_path):
    other = assign(study.table, SplitSettings(), seed=1)
    with pytest.raises(SpiculaError, match="another split"):
        export.export_bundle(study.runs / "linear", other, study.store, tmp_path / "bundle")
    store = build_store(study.table, Preprocess.model_validate({"size": (8, 8)}), tmp_path / "store", jobs=1)
    with pytest.raises(SpiculaError, match="another preprocessing"):
        export.export_bundle(study.runs / "linear", study.table, store, tmp_path / "bundle")


def test_a_fold_is_exported_as_what_it_is(study, tmp_path):
    table = parts(assign(study.table, SplitSettings(folds=3), seed=0), 1)
    train(MODELS["linear"], table, study.store, tmp_path / "run", fold=1)
    made = export.export_bundle(tmp_path / "run", table, study.store, tmp_path / "bundle")
    assert made.info["training"]["fold"] == 1
    assert "fold 1" in (made.folder / "MODEL_CARD.md").read_text()


def test_a_bundle_is_replaced_and_nothing_else(tmp_path):
    first = make(tmp_path / "bundle")
    second = make(tmp_path / "bundle", version="4")
    assert first.digest != second.digest
    assert bundle.load(tmp_path / "bundle").info["version"] == "4"
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty").name == "brightness"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/bundle.json").write_text("mine")
    (tmp_path / "thesis/chapter1.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else than a bundle"):
        make(tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter1.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        make(tmp_path / "thesis/chapter1.txt")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bundle", "empty", "thesis", "trained.safetensors"}


def test_a_link_to_a_bundle_stays_a_link(tmp_path):
    make(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    make(tmp_path / "current", version="4")
    assert (tmp_path / "current").is_symlink()
    assert bundle.load(tmp_path / "v1").info["version"] == "4"


def test_what_fails_half_way_leaves_no_trace(tmp_path, monkeypatch):
    make(tmp_path / "bundle")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(SpiculaError, match=r"cannot write .*No space left on device"):
        make(tmp_path / "bundle", version="4")
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == whole
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "trained.safetensors"}
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(SpiculaError, match="cannot write"):
        export.write_bundle(tmp_path / "file/bundle", content(), b"", tmp_path / "trained.safetensors", None)


def test_the_linear_graph_is_its_formula():
    rng = np.random.default_rng(0)
    mean, scale, coefficients = rng.normal(0, 1e6, 40), rng.uniform(0.1, 10, 40), rng.normal(0, 1, 40)
    features = (mean + scale * rng.normal(size=(50, 40))).astype(np.float32)
    model = onnx_graph.of_linear(mean, scale, coefficients, 0.3, slope=-1.7, offset=0.2)
    (found,) = onnxruntime.InferenceSession(model).run(None, {"features": features})
    decision = ((features.astype(np.float64) - mean) / scale) @ coefficients + 0.3
    expected = 1 / (1 + np.exp(1.7 * decision - 0.2))
    np.testing.assert_allclose(found, np.stack([1 - expected, expected], axis=1), atol=1e-7)


def scope_of(tmp_path, paths, channels=1, **columns):
    rows = [
        {"dataset": "folder", "image_id": path.name, "path": path.name, "target": 1, "split": "train"} | columns
        for path in paths
    ]
    table = index.from_rows(rows, tmp_path)
    preprocess = Preprocess.model_validate({"size": (8, 8), "channels": channels})
    store = build_store(table, preprocess, tmp_path / "store", jobs=1)
    return provenance.scope(part(table, store, "train"), store)


def test_the_scope_is_what_the_training_images_were(tmp_path):
    raw = [dicom(tmp_path / f"{n}.dcm", n, PresentationIntentType="FOR PROCESSING") for n in range(3)]
    scope = scope_of(tmp_path, raw, modality="MG", photometric="MONOCHROME2")
    assert scope["modalities"] == ["MG"]
    assert scope["presentation_intents"] == ["FOR PROCESSING"]
    assert scope["colour"] is False
    films = [grey(tmp_path / f"{n}.png", n) for n in range(3)]
    scope = scope_of(tmp_path, films, modality="MG", photometric="MONOCHROME2")
    assert scope["presentation_intents"] == ["FOR PRESENTATION"]
    scope = scope_of(tmp_path, films)
    assert scope["modalities"] == []
    assert scope["colour"] is None


def test_colour_is_what_images_show_not_how_they_are_stored(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        Image.fromarray(np.full((20, 20, 3), 50 * n, np.uint8)).save(path)
    assert scope_of(tmp_path, paths, channels=3, photometric="RGB")["colour"] is False
    assert scope_of(tmp_path, paths, channels=1, photometric="RGB")["colour"] is None
    Image.fromarray(np.full((20, 20, 3), (200, 20, 20), np.uint8)).save(paths[0])
    assert scope_of(tmp_path, paths, channels=3, photometric="RGB")["colour"] is True


def test_where_weights_lay_is_not_told(study):
    card = json.loads((study.runs / "cnn" / "run.json").read_text())
    card["settings"]["weights"] = "/home/someone/weights/net.safetensors"
    told = provenance.training(card, {})
    assert told["settings"]["weights"] == "net.safetensors"


def test_held_back_patches_of_the_archive_get_the_same_scores(test_data, tmp_path):
    reading = index_dataset("idc-patches", test_data / "idc-patches", tmp_path / "unpacked")
    patients = sorted(set(reading.index["patient_id"].to_pylist()))[:16]
    table = reading.index.filter(pc.is_in(reading.index["patient_id"], value_set=pa.array(patients)))
    table = assign(table, SplitSettings(), seed=0)
    store = build_store(table, Preprocess.model_validate({"size": (32, 32)}), tmp_path / "store")
    settings = LinearSettings(line="linear", c_grid=(0.01,), features=FeatureSettings(hog_cells=4))
    run = tmp_path / "run"
    fit(settings, table, store, run, seed=0, target_name="idc", classes=("negative", "idc"), fold=None)
    made = export.export_bundle(run, table, store, tmp_path / "bundle")
    assert made.info["parity"]["images"] >= 64
    found = SimpleNamespace(table=table, runs=tmp_path)
    paths, told = held_back(found, "run")
    answered, rejected = predict.predict(made, paths)
    assert len(rejected) == 0
    assert np.abs(answered["score"].to_numpy() - told).max() < 1e-4
