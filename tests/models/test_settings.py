import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from spicula.models.settings import AugmentSettings, FeatureSettings, LinearSettings, ModelSettings, NetworkSettings

ADAPTER = TypeAdapter(ModelSettings)


def parse(**values):
    return ADAPTER.validate_python(values)


def refusal(**values):
    with pytest.raises(ValidationError) as caught:
        parse(**values)
    return "; ".join(f"{error['loc']} {error['msg']}" for error in caught.value.errors())


def test_the_cnn_line_is_the_published_protocol_unless_told_otherwise():
    cnn = parse(line="cnn")
    assert isinstance(cnn, NetworkSettings)
    assert (cnn.learning_rate, cnn.batch, cnn.epochs, cnn.patience, cnn.plateau_patience) == (1e-3, 64, 20, 10, 5)
    assert (cnn.augment, cnn.expand, cnn.imbalance, cnn.weights) == ("none", "none", "none", None)


def test_a_pretrained_line_learns_its_backbone_more_slowly_and_flips_with_a_probability_of_0_3():
    densenet = parse(line="timm:densenet121", weights="hub")
    assert densenet.name == "densenet121"
    assert densenet.backbone_learning_rate < densenet.learning_rate
    assert densenet.augment == AugmentSettings()
    assert densenet.augment.flip_horizontal == densenet.augment.flip_vertical == 0.3


def test_what_is_given_wins_over_the_lines_defaults():
    cnn = parse(line="cnn", name="small", epochs=3, augment={"flip_vertical": 0})
    assert (cnn.name, cnn.epochs, cnn.batch) == ("small", 3, 64)
    assert (cnn.augment.flip_vertical, cnn.augment.flip_horizontal) == (0, 0.3)


@pytest.mark.parametrize(
    "values",
    [
        {"line": "linear", "classifier": "svm", "features": {"groups": ["hog"]}},
        {"line": "cnn", "expand": "rotate-flip", "augment": {}},
        {"line": "timm:resnet18", "weights": "folder/file.safetensors", "train": 2, "mean": [0.5, 0.5, 0.5]},
        {"line": "torchvision:mobilenet_v2", "imbalance": "sampler", "precision": "float32"},
    ],
)
def test_settings_survive_json(values):
    settings = parse(**values)
    again = ADAPTER.validate_python(json.loads(json.dumps(settings.model_dump(mode="json"))))
    assert again == settings
    assert isinstance(again, LinearSettings if values["line"] == "linear" else NetworkSettings)


def test_impossible_settings_are_refused_and_the_reason_names_them():
    assert "epoch" in refusal(line="cnn", epoch=3)
    assert "timm:NAME" in refusal(line="resnet")
    assert "timm:NAME" in refusal(name="nameless")
    assert "learning_rate" in refusal(line="cnn", learning_rate=0)
    assert "name" in refusal(line="cnn", name="a/b")
    assert "no pretrained weights" in refusal(line="cnn", weights="hub")
    assert "freezes a backbone" in refusal(line="timm:resnet18", train="head")
    assert "train" in refusal(line="timm:resnet18", weights="hub", train=0)
    assert "c_grid" in refusal(line="linear", c_grid=[0])
    assert "std" in refusal(line="timm:resnet18", std=[1, 0, 1])


def test_the_page_on_models_has_every_key_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    keys = {f"features.{name}" for name in FeatureSettings.model_fields}
    keys |= {*LinearSettings.model_fields, *NetworkSettings.model_fields, *AugmentSettings.model_fields} - {"features"}
    assert [key for key in sorted(keys) if f"`{key}`" not in page and f"`{key} " not in page] == []
    cnn, other = parse(line="cnn"), parse(line="timm:resnet18")
    for key in ("batch", "epochs", "patience", "plateau_patience"):
        assert f"| `{key}` | {getattr(cnn, key)} | {getattr(other, key)} |" in page
