import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from spicula import files, index, predictions
from spicula.errors import SpiculaError, UsageError
from spicula.models import registry
from spicula.models.settings import NetworkSettings
from spicula.training.fit import fit

CLASSES = ("none", "disc")


def train(study, run, **values):
    table = values.pop("table", study.table)
    seed = values.pop("seed", 0)
    settings = NetworkSettings(**({"line": "cnn", "epochs": 4, "batch": 16} | values))
    fit(settings, table, study.store, run, seed=seed, target_name="disc", classes=CLASSES, fold=None, device="cpu")
    return json.loads((run / "run.json").read_text())


def scores(run):
    rows = predictions.read(run / "predictions.parquet").to_pylist()
    return {row["id"]: row["score"] for row in rows}


def epochs(run):
    return [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]


def with_rows(study, change):
    return index.from_rows([change(dict(row)) for row in study.table.to_pylist()], index.root_of(study.table))


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "cnn"
    return run, train(study, run, epochs=12)


def test_the_network_learns_what_the_images_show(finished):
    rows = [row for row in predictions.read(finished[0] / "predictions.parquet").to_pylist() if row["split"] == "test"]
    discs, others = ([row["score"] for row in rows if row["label"] == label] for label in (1, 0))
    assert np.mean(np.subtract.outer(discs, others) > 0) > 0.9  # the AUC


def test_predictions_speak_of_validation_and_test_images_alone(study, finished):
    run, card = finished
    found = predictions.read(run / "predictions.parquet").to_pylist()
    expected = {row["image_id"]: row for row in study.table.to_pylist() if row["split"] != "train"}
    assert {row["id"] for row in found} == set(expected)
    for row in found:
        source = expected[row["id"]]
        assert (row["patient_id"], row["exam_id"], row["side"]) == (
            source["patient_id"],
            source["exam_id"],
            source["laterality"],
        )
        assert (row["label"], row["split"], row["target"]) == (source["target"], source["split"], "disc")
        assert (row["model"], row["fold"], row["model_digest"]) == ("cnn", None, card["model_digest"])


def test_the_card_says_what_was_done_with_what(study, finished):
    run, card = finished
    assert card["status"] == "complete"
    assert (card["name"], card["line"], card["fold"], card["seed"]) == ("cnn", "cnn", None, 0)
    assert NetworkSettings.model_validate(card["settings"]) == NetworkSettings(line="cnn", epochs=12, batch=16)
    assert card["preprocess"] == study.store.preprocess.model_dump(mode="json")
    assert (card["classes"], card["size"], card["channels"]) == (["none", "disc"], [32, 32], 1)
    assert card["index_digest"] == index.digest(study.table)
    assert card["model_digest"] == files.sha256_file(run / "weights.safetensors")
    assert card["parameters"] == 320 + 18_496 + 73_856 + (2048 * 128 + 128) + 258
    assert card["images"] == {"train": [36, 36], "val": [12, 12], "test": [12, 12]}
    assert card["versions"]["torch"].startswith("2.")
    assert card["images_per_second"] > 0
    assert (card["device"], card["images_from"], card["chosen"]) == ("cpu", "memory", {})
    assert not (run / "checkpoint").exists()


def test_every_epoch_has_its_line(finished):
    lines = epochs(finished[0])
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    wanted = "epoch train_loss val_loss val_auc val_accuracy learning_rate images_per_second seconds"
    assert all(set(line) == set(wanted.split()) for line in lines)
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


def test_tensorboard_has_every_epoch_once(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(finished[0] / "tensorboard"))
    log.Reload()
    lines = epochs(finished[0])
    for tag, name in (("loss/train", "train_loss"), ("validation/auc", "val_auc")):
        logged = [(event.step, event.value) for event in log.Scalars(tag)]
        assert logged == [(line["epoch"], pytest.approx(line[name])) for line in lines]


def test_the_weights_are_the_best_epochs_and_give_the_predictions(study, finished):
    run, card = finished
    lines = epochs(run)
    best = max(lines, key=lambda line: (line["val_auc"], -line["val_loss"]))
    assert card["best_epoch"] == best["epoch"]
    module = registry.load(run)
    found = scores(run)
    images = study.store.read(study.store.rows(list(found))).transpose(0, 3, 1, 2).astype(np.float32) / 255
    with torch.inference_mode():
        again = module(torch.from_numpy(images)).softmax(1)[:, 1]
    assert again.numpy() == pytest.approx(np.array(list(found.values())), abs=1e-5)
    validation = [row for row in predictions.read(run / "predictions.parquet").to_pylist() if row["split"] == "val"]
    losses = [-np.log(row["score"] if row["label"] else 1 - row["score"]) for row in validation]
    assert np.mean(losses) == pytest.approx(best["val_loss"], abs=1e-4)


def test_the_same_again_does_nothing_and_another_seed_starts_anew(study, tmp_path):
    run = tmp_path / "run"
    first = train(study, run, epochs=1)
    written = (run / "weights.safetensors").stat().st_mtime_ns
    assert train(study, run, epochs=1) == first
    assert (run / "weights.safetensors").stat().st_mtime_ns == written
    second = train(study, run, epochs=1, seed=1)
    assert (second["key"] != first["key"], second["model_digest"] != first["model_digest"]) == (True, True)
    assert train(study, run, epochs=1)["model_digest"] == first["model_digest"]


def test_a_finished_run_whose_files_were_changed_is_made_again(study, tmp_path):
    first = train(study, tmp_path, epochs=1)
    data = bytearray((tmp_path / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(bytes(data))
    assert train(study, tmp_path, epochs=1) == {**first, "seconds": ANY, "images_per_second": ANY}
    (tmp_path / "predictions.parquet").unlink()
    train(study, tmp_path, epochs=1)
    assert pq.read_table(tmp_path / "predictions.parquet").num_rows == 48


class _Anything:
    def __eq__(self, other):
        return True

    __hash__ = None


ANY = _Anything()


def test_what_the_model_does_not_see_does_not_train_it_again(study, tmp_path):
    first = train(study, tmp_path, epochs=1)
    older = with_rows(study, lambda row: {**row, "age": 50.0})
    assert train(study, tmp_path, epochs=1, table=older)["key"] == first["key"]
    moved = with_rows(study, lambda row: {**row, "split": "test" if row["patient_id"] == "p00" else row["split"]})
    assert train(study, tmp_path, epochs=1, table=moved)["key"] != first["key"]


@pytest.mark.parametrize("imbalance", ["sampler", "loss", "undersample"])
def test_each_way_of_treating_unequal_classes_trains_and_finds_the_rare_one(study, tmp_path, imbalance):
    def thinned(row):
        dropped = row["split"] == "train" and row["target"] and row["patient_id"] not in ("p01", "p03")
        return row | ({"split": None} if dropped else {})

    table = with_rows(study, thinned)
    card = train(study, tmp_path, epochs=3, imbalance=imbalance, table=table)
    assert card["images"]["train"] == [36, 12]
    rows = [row for row in predictions.read(tmp_path / "predictions.parquet").to_pylist() if row["split"] == "test"]
    assert len(rows) == 24


def test_the_threefold_set_shows_three_times_the_images(study, tmp_path):
    train(study, tmp_path / "plain", epochs=1)
    train(study, tmp_path / "expanded", epochs=1, expand="rotate-flip")
    shown = [epochs(tmp_path / name)[0] for name in ("plain", "expanded")]
    assert [round(epoch["images_per_second"] * epoch["seconds"]) for epoch in shown] == [72, 3 * 72]
    assert scores(tmp_path / "plain") != scores(tmp_path / "expanded")


def test_early_stopping_ends_a_training_that_gets_no_better(study, tmp_path):
    card = train(study, tmp_path, epochs=30, patience=2, plateau_patience=1, learning_rate=1e-12)
    lines = epochs(tmp_path)
    assert len(lines) == card["best_epoch"] + 2
    assert lines[-1]["learning_rate"] == pytest.approx(1e-13)


def test_validation_of_one_class_falls_back_to_the_loss_and_says_so(study, tmp_path, capsys):
    table = with_rows(study, lambda row: row | ({"split": None} if row["split"] == "val" and row["target"] else {}))
    train(study, tmp_path, table=table, epochs=2)
    assert [line["val_auc"] for line in epochs(tmp_path)] == [None, None]
    assert capsys.readouterr().err.count("validation images show one class") == 1


def test_a_pretrained_network_starts_from_its_file_with_a_slower_backbone(study, tmp_path, capsys):
    torch.manual_seed(0)
    start = registry.create(NetworkSettings(line="timm:resnet10t"), (32, 32), 1, 2).net
    start.train()(torch.rand(8, 3, 32, 32))
    path = tmp_path / "start.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in start.state_dict().items()}, path)
    values = {"line": "timm:resnet10t", "weights": path, "epochs": 1, "augment": "none"}
    head = train(study, tmp_path / "head", train="head", **values)
    assert "tensors from start.safetensors" in capsys.readouterr().err
    assert "start.safetensors" in head["notes"][0]
    trained = load_file(tmp_path / "head" / "weights.safetensors")
    assert torch.equal(trained["net.conv1.0.weight"], start.state_dict()["conv1.0.weight"])
    assert not torch.equal(trained["net.fc.weight"], start.state_dict()["fc.weight"])
    train(study, tmp_path / "all", backbone_learning_rate=1e-9, batch_norm="frozen", **values)
    slow = load_file(tmp_path / "all" / "weights.safetensors")
    assert torch.allclose(slow["net.conv1.0.weight"], start.state_dict()["conv1.0.weight"], atol=1e-7)
    assert not torch.allclose(slow["net.fc.weight"], start.state_dict()["fc.weight"], atol=1e-5)
    # the file's content is part of what decides the result, its place is not
    before = head["key"]
    moved = path.rename(tmp_path / "moved.safetensors")
    assert train(study, tmp_path / "head", train="head", **(values | {"weights": moved}))["key"] == before
    save_file({name: tensor + 0 for name, tensor in trained.items()}, path)
    with pytest.raises(SpiculaError, match="does not fit resnet10t"):
        train(study, tmp_path / "head", train="head", **values)


def test_batch_statistics_come_from_training_images_alone_in_every_epoch(study, tmp_path):
    card = train(study, tmp_path, line="timm:resnet10t", epochs=3, learning_rate=1e-4)
    counted = load_file(tmp_path / "weights.safetensors")["net.bn1.num_batches_tracked"]
    assert counted == card["best_epoch"] * -(-72 // 16)


def test_what_cannot_work_is_refused_with_the_reason(study, tmp_path):
    def without(split):
        return with_rows(study, lambda row: row | ({"split": None} if row["split"] == split else {}))

    with pytest.raises(UsageError, match="stops by its validation images, and there are none"):
        train(study, tmp_path, table=without("val"))
    one_class = with_rows(study, lambda row: row | ({"split": None} if row["target"] else {}))
    with pytest.raises(UsageError, match="cannot learn from 36 none and 0 disc images on the training side"):
        train(study, tmp_path, table=one_class)
    with pytest.raises(UsageError, match="no weights file at"):
        train(study, tmp_path, line="timm:resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(SpiculaError, match=r"the loss is no number in epoch 1; lower its learning_rate"):
        train(study, tmp_path, learning_rate=1e30)


def test_a_split_without_test_images_is_scored_on_validation_alone(study, tmp_path):
    table = with_rows(study, lambda row: row | ({"split": None} if row["split"] == "test" else {}))
    train(study, tmp_path, table=table, epochs=1)
    assert set(predictions.read(tmp_path / "predictions.parquet")["split"].to_pylist()) == {"val"}


def test_folds_are_named(study, tmp_path):
    settings = NetworkSettings(line="cnn", epochs=1)
    recipe = {"name": "small"}
    fit(
        settings,
        study.table,
        study.store,
        tmp_path,
        seed=0,
        target_name="disc",
        classes=CLASSES,
        fold=3,
        device="cpu",
        recipe=recipe,
    )
    card = json.loads((tmp_path / "run.json").read_text())
    assert (card["fold"], card["recipe"]) == (3, recipe)
    assert set(predictions.read(tmp_path / "predictions.parquet")["fold"].to_pylist()) == {3}
