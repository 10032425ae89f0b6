import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load as load_tensors
from screening_weights import random_state, save_exam, save_patch
from small_bundle import SMALL

from spicula import cli
from spicula.bundle import screening, sealed
from spicula.bundle.screening import format as layout
from spicula.bundle.screening import graphs, parity
from spicula.bundle.screening.importing import import_exam
from spicula.errors import SpiculaError
from spicula.models.screening import patches, published
from spicula.models.screening.view_wise import ViewWise

BUILD = {"patch": patches.build, "image-only": lambda: ViewWise(1), "image-and-heatmaps": lambda: ViewWise(3)}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Published weight files with random numbers, by role."""
    folder = tmp_path_factory.mktemp("published")
    return {
        role: (save_patch if role == "patch" else save_exam)(folder / f"{role}.p", random_state(build()))
        for role, build in BUILD.items()
    }


@pytest.fixture(scope="session")
def imported(files, tmp_path_factory):
    """The classifier of images alone, with windows so small that its comparison takes no time."""
    to = tmp_path_factory.mktemp("imported") / "bundle"
    return import_exam(None, files["image-only"], None, to, version="7", licence="as given", settings=SMALL)


def test_an_imported_bundle_says_what_is_known(imported, files):
    info = screening.load(imported.folder).info
    assert (info["name"], info["version"], info["licence"]) == ("screening", "7", "as given")
    network = info["networks"]["image-only"]
    assert network["architecture"] == "view-wise-resnet22"
    assert network["source"]["sha256"] == hashlib.sha256(files["image-only"].read_bytes()).hexdigest()
    measured = network["parity"]
    assert measured["inputs"] == 2 * (64 + 1)
    assert "image-only.mlo: 1 x 72 x 44" in measured["sizes"]
    assert 0 < measured["max_abs_difference"] < 1e-5
    assert (measured["tolerance"], measured["decisions_differ"]) == (1e-4, 0)
    card = (imported.folder / "MODEL_CARD.md").read_text()
    for words in (
        "Research use only",
        "Not validated here",
        "Wu N, Phang J",
        "as given",
        "no heatmaps",
        "cannot be told",
    ):
        assert words in card


def test_weights_are_kept_and_aliases_are_not(imported):
    tensors = load_tensors(imported.weights("image-only"))
    state = random_state(ViewWise(1))
    assert set(tensors) == {name for name in state if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(value, state[name]) for name, value in tensors.items())


def test_graphs_answer_as_the_published_form_at_any_size_and_number(imported, files):
    modules = graphs.modules_of("image-only", published.read(files["image-only"], "image-only"))
    for graph, module in modules.items():
        session = onnxruntime.InferenceSession(imported.graphs[graph])
        for number, height, width in ((1, 32, 40), (3, 64, 48), (2, 131, 90)):
            left, right = torch.randn(2, number, 1, height, width)
            with torch.inference_mode():
                expected = module(left, right).numpy()
            (found,) = session.run(["probabilities"], {"left": left.numpy(), "right": right.numpy()})
            np.testing.assert_allclose(found, expected, atol=1e-5)
            assert found.shape == (number, 4)


def test_graphs_that_answer_otherwise_are_not_written(imported, files):
    modules = graphs.modules_of("image-only", published.read(files["image-only"], "image-only"))
    angles = [imported.graphs[f"image-only.{angle}"] for angle in layout.ANGLES]
    exchanged = dict(zip(modules, reversed(angles), strict=True))
    with pytest.raises(SpiculaError, match="no bundle written: the graphs of image-only give probabilities up to"):
        parity.measure("image-only", modules, exchanged, SMALL)


def test_a_patch_graph_is_compared_with_the_published_form():
    network = patches.build().eval()
    grey = torch.randn(2, 1, 48, 48)
    (form,) = graphs.published_of("patch", network).values()
    (ours,) = graphs.modules_of("patch", network).values()
    with torch.inference_mode():
        expected = network(grey.repeat(1, 3, 1, 1)).softmax(dim=1)
        torch.testing.assert_close(form(grey), expected, rtol=0, atol=0)
        torch.testing.assert_close(ours(grey), expected)
    assert sum(name.endswith("conv0.weight") for name, _ in form.named_parameters()) == 1


def test_a_single_image_can_stand_for_both_sides(imported):
    """Single-image mode: the image on both sides, the outputs of its own side."""
    session = onnxruntime.InferenceSession(imported.graphs["image-only.cc"])
    rng = np.random.default_rng(0)
    image, other = rng.normal(size=(2, 1, 1, 64, 48)).astype(np.float32)
    (both,) = session.run(None, {"left": image, "right": image})
    (exam,) = session.run(None, {"left": image, "right": other})
    assert np.abs(both - exam).max() > 1e-3
    assert both.shape == (1, 4)


def run(arguments, capsys):
    status = cli.main([str(one) for one in arguments])
    return status, capsys.readouterr()


def test_the_command_refuses_in_one_line(files, tmp_path, capsys):
    patch, image, heat = (files[role] for role in layout.ROLES)
    command, to = ["bundle", "import-exam"], ["--to", tmp_path / "bundle"]
    cases = [
        (["--patch", patch], "no classifier to import"),
        (["--image-heatmaps", heat], "give --patch FILE as well"),
        (["--image", patch], "is a patch classifier: give it with --patch"),
        (["--image", image, "--patch", heat], "give it with --image-heatmaps, not with --patch"),
        (["--image", tmp_path / "none.p"], "no weights file at"),
        (["--image", image, "--heatmap-threshold", "2"], "the heatmap threshold 2 is no probability"),
    ]
    for words, message in cases:
        status, out = run([*command, *words, *to], capsys)
        assert (status, out.out) == (2, "")
        assert message in out.err
        assert out.err.count("\n") == 1
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "diary.txt").write_text("dear")
    status, out = run([*command, "--image", image, *to], capsys)
    assert (status, "is left alone" in out.err) == (2, True)
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["diary.txt"]


def test_both_forms_of_the_command_are_told_apart(tmp_path, capsys, monkeypatch):
    """`bundle RUN` takes its options in any order; a run that is called import-exam is written ./import-exam."""
    monkeypatch.chdir(tmp_path)
    for words in (["some/run", "--to", "b"], ["--to", "b", "some/run"], ["./import-exam", "--to", "b"]):
        status, out = run(["bundle", *words], capsys)
        assert status == 2
        assert "no run at " in out.err
    parse = cli._parser().parse_args
    options = parse(["bundle", "import-exam", "--image", "x", "--to", "b"])
    assert (str(options.image), options.patch, options.heatmap_threshold) == ("x", None, None)
    for words in (["bundle", "import-exam"], ["bundle", "import-exam", "run", "--to", "b"], ["bundle", "--to", "b"]):
        with pytest.raises(SystemExit) as stopped:
            parse(words)
        assert stopped.value.code == 2
    assert "usage: spicula bundle import-exam" in capsys.readouterr().err
    for words, told in (
        (["bundle"], "spicula bundle import-exam --help"),
        (["bundle", "import-exam"], "--image-heatmaps"),
    ):
        with pytest.raises(SystemExit):
            parse([*words, "--help"])
        assert told in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_imports_all_networks_and_twice_the_same(files, imported, tmp_path):
    def command(seed, *words):
        done = subprocess.run(
            [sys.executable, "-m", "spicula", "bundle", "import-exam", *map(str, words), "--json"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout), done.stderr

    exams = ("--image", files["image-only"], "--patch", files["patch"], "--image-heatmaps", files["image-and-heatmaps"])
    whole, log = command("1", *exams, "--to", tmp_path / "whole", "--heatmap-threshold", "0.4", "--name", "all")
    assert log.count("every decision is the same") == 3
    loaded = screening.load(tmp_path / "whole")
    assert (whole["model"], whole["digest"], loaded.heatmap_threshold) == ("all", loaded.digest, 0.4)
    assert loaded.settings == screening.ScreeningSettings()
    for role, network in whole["networks"].items():
        measured = network["parity"]
        assert measured["inputs"] == (64 if role == "patch" else 130)
        assert 0 < measured["max_abs_difference"] < 1e-5
    assert "image-only.cc: 1 x 2677 x 1942" in whole["networks"]["image-only"]["parity"]["sizes"]

    again, _ = command("2", *exams[:4], "--to", tmp_path / "again")
    for role in ("patch", "image-only"):
        assert again["networks"][role]["digest"] == whole["networks"][role]["digest"] == loaded.digest_of(role)
    # the graphs do not hang on the settings of views, the digest does: other windows give other answers
    name = "image-only.cc.onnx"
    assert loaded.info["files"][name] == imported.info["files"][name]
    assert loaded.digest_of("image-only") != imported.digest_of("image-only")
    assert sealed.kind_of(tmp_path / "again") == "screening"
