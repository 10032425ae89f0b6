"""Recipes: every shipped one is valid, and what is wrong in one is named."""

from pathlib import Path

import pytest

from spicula import recipe
from spicula.catalog import DATASETS
from spicula.errors import UsageError

MINIMAL = """
name = "x"
title = "X"
dataset = "folder"

[[models]]
name = "a"
line = "cnn"
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_every_shipped_recipe_is_valid(name):
    study = recipe.load(name)
    assert study.name == name
    assert study.dataset in DATASETS
    assert {model.line for model in study.models} >= {"linear", "cnn"}
    assert study.split.unit == "patient"
    assert recipe.validate(study.model_dump(mode="json"), "again") == study


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "epocs = 3", r"r\.toml: unknown key 'models\.a\.epocs'; did you mean 'epochs'\?"),
        ("seeed = 1" + MINIMAL, r"unknown key 'seeed'; did you mean 'seed'\?"),
        (MINIMAL + "[preprocess]\nsize = [0, 10]", r"preprocess\.size"),
        (MINIMAL + "[split]\nfolds = 1", r"split: folds is 1"),
        (MINIMAL + "epochs = 0", r"models\.a\.epochs = 0: input should be greater than or equal to 1"),
        (MINIMAL + '[[models]]\nname = "a"\nline = "linear"', r"two models have the name 'a'"),
        (MINIMAL + '[bundle]\nmodel = "b"', r"bundle\.model is 'b', which is none of the models a"),
        (MINIMAL.replace('"cnn"', '"vgg"'), r"models\.a: line is 'vgg'"),
        (MINIMAL.replace('title = "X"', ""), r"the key 'title' is missing"),
        ('name = "x"\ntitle = "X"\ndataset = "folder"\nmodels = []', r"models"),
        ("name = ", r"not valid TOML"),
        ("name = '\udc80'", None),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=message or "not a text file in UTF-8") as error:
        recipe.load(str(path))
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_lists_those_that_are():
    with pytest.raises(UsageError, match=r"no recipe nothing\.toml: neither a file nor one of .*idc-patches"):
        recipe.load("nothing.toml")


def test_overrides_replace_values_by_key_and_model_name(tmp_path):
    path = written(tmp_path, MINIMAL)
    study = recipe.load(path, ["models.a.epochs=3", "preprocess.size=[32, 48]", "title=A new title", "seed=7"])
    assert (study.models[0].epochs, study.preprocess.size, study.title, study.seed) == (3, (32, 48), "A new title", 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.b.epochs=3", r"--set models\.b\.epochs=3: the recipe has no model 'b'; it has a"),
        ("epochs", r"--set epochs: expected KEY=VALUE"),
        ("title.x=1", r"--set title\.x=1: title holds no keys"),
        ("models.a.epocs=3", r"unknown key 'models\.a\.epocs'"),
    ],
)
def test_overrides_that_fit_nowhere_are_named(tmp_path, override, message):
    with pytest.raises(UsageError, match=message):
        recipe.load(written(tmp_path, MINIMAL), [override])


def test_a_weights_file_stands_relative_to_the_recipe(tmp_path):
    text = MINIMAL.replace('line = "cnn"', 'line = "timm:resnet18"\nweights = "w/a.safetensors"')
    study = recipe.load(written(tmp_path, text))
    assert study.models[0].weights == tmp_path / "w" / "a.safetensors"
