import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from bundle_maker import make
from safetensors.numpy import load as load_tensors
from small_bundle import SMALL, small_bundle

from spicula import RESEARCH_NOTICE, bundle
from spicula.bundle import screening, sealed
from spicula.bundle.screening import ScreeningSettings, golden, writing
from spicula.bundle.screening import format as layout
from spicula.errors import SpiculaError, UsageError

FILES = layout.names_of(layout.ROLES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundles") / "small")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "bundle")


def test_a_bundle_says_what_it_holds(whole):
    loaded = screening.load(whole)
    assert loaded.name == "small"
    assert loaded.settings == SMALL
    assert loaded.roles() == ("patch", "image-only", "image-and-heatmaps")
    assert loaded.classifiers() == ("image-only", "image-and-heatmaps")
    assert [loaded.reads_heatmaps(name) for name in loaded.classifiers()] == [False, True]
    assert set(loaded.graphs) == {
        "patch", "image-only.cc", "image-only.mlo", "image-and-heatmaps.cc", "image-and-heatmaps.mlo"
    }  # fmt: skip
    assert (loaded.size_of("patch"), loaded.size_of("image-only.cc")) == ((32, 32), (64, 48))
    assert (loaded.size_of("image-and-heatmaps.mlo"), loaded.heatmap_threshold) == ((72, 44), None)
    assert loaded.info["classes"]["exam"] == ["left_benign", "right_benign", "left_malignant", "right_malignant"]
    assert set(load_tensors(loaded.weights("patch"))) == {f"patch.{x}" for x in ("kernel", "bias", "weights", "offset")}
    assert {path.name for path in whole.iterdir()} == set(FILES)
    assert RESEARCH_NOTICE in (whole / "MODEL_CARD.md").read_text()


def test_without_heatmaps_there_is_one_classifier(tmp_path):
    loaded = screening.load(small_bundle(tmp_path / "small", heatmaps=False, heatmap_threshold=0.25))
    assert (loaded.roles(), loaded.classifiers()) == (("image-only",), ("image-only",))
    assert loaded.heatmap_threshold == 0.25


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_is_noticed(folder, name):
    path = folder / name
    data = path.read_bytes()
    for position in np.linspace(0, len(data) - 1, 40).astype(int):
        for bit in (0x01, 0x20):
            changed = bytearray(data)
            changed[position] ^= bit
            path.write_bytes(changed)
            with pytest.raises(SpiculaError, match=name.replace(".", r"\.")) as caught:
                screening.load(folder)
            assert "\n" not in str(caught.value)
    path.write_bytes(data)
    assert screening.load(folder).name == "small"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_a_shortened_and_a_linked_file_are_noticed(folder, tmp_path, name):
    path = folder / name
    data = path.read_bytes()
    for changed in (data[:-1], data + b"\n", b""):
        path.write_bytes(changed)
        with pytest.raises(SpiculaError, match=name.replace(".", r"\.")):
            screening.load(folder)
    path.write_bytes(data)
    path.rename(tmp_path / name)
    with pytest.raises(SpiculaError, match=name.replace(".", r"\.")):
        screening.load(folder)
    path.symlink_to(tmp_path / name)
    with pytest.raises(SpiculaError, match="not a plain file"):
        screening.load(folder)


def test_an_extra_file_is_noticed(folder):
    (folder / "model.onnx").write_text("")
    with pytest.raises(SpiculaError, match=r"model\.onnx does not belong"):
        screening.load(folder)


def test_weights_that_changed_after_loading_are_noticed(folder):
    loaded = screening.load(folder)
    path = folder / "image-only.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(SpiculaError, match=r"image-only\.safetensors is not the file"):
        loaded.weights("image-only")


def rewrite(folder, **changes):
    """What someone does who changes a bundle and then makes its digest fit again."""
    info = json.loads((folder / "bundle.json").read_text()) | changes
    (folder / "bundle.json").write_text(sealed.seal(info))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "format 1, this version of spicula reads 2"),
        ({"classes": "bright"}, "classes: "),
        ({"surprise": 1}, "surprise: "),
        ({"files": {}}, "lists the files"),
        ({"networks": {}}, "does not belong"),
        ({"networks": []}, "does not belong"),
        ({"settings": {"stride": 0}}, r"settings\.stride: "),
        ({"settings": {"from": "the future"}}, r"settings\.from: "),
        ({"kind": "mosaic"}, "is of the kind 'mosaic'"),
        ({"kind": 3}, "is of an unknown kind"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(SpiculaError, match=message) as caught:
        screening.load(folder)
    assert "\n" not in str(caught.value)


def test_networks_that_cannot_work_together_are_refused(whole, tmp_path):
    loaded = screening.load(whole)

    def write(*roles, **more):
        graphs = {name: data for name, data in loaded.graphs.items() if layout.role_of(name) in roles}
        weights = {role: loaded.weights(role) for role in roles}
        return writing.write(
            tmp_path / "b", name="part", settings=SMALL, graphs=graphs, weights=weights, **more
        )  # fmt: skip

    with pytest.raises(SpiculaError, match="lists no classifier"):
        write("patch")
    with pytest.raises(SpiculaError, match="no patch network to make heatmaps"):
        write("image-and-heatmaps")
    for threshold in (0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="heatmap threshold"):
            write("image-only", heatmap_threshold=threshold)
    assert not (tmp_path / "b").exists()
    assert write("patch", "image-only").roles() == ("patch", "image-only")


def test_external_data_is_refused(whole, tmp_path):
    loaded = screening.load(whole)
    model = onnx.load_from_string(loaded.graphs["image-only.mlo"])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    graphs = {**loaded.graphs, "image-only.mlo": model.SerializeToString()}
    weights = {role: loaded.weights(role) for role in loaded.roles()}
    with pytest.raises(SpiculaError, match=r"image-only\.mlo\.onnx refers to data outside the file"):
        writing.write(tmp_path / "b", name="x", settings=SMALL, graphs=graphs, weights=weights)
    with pytest.raises(SpiculaError, match=r"image-only\.mlo\.onnx is not an ONNX model"):
        graphs["image-only.mlo"] = b"no model"
        writing.write(tmp_path / "b", name="x", settings=SMALL, graphs=graphs, weights=weights)
    assert not (tmp_path / "b").exists()


def test_each_kind_of_bundle_is_told_from_the_other(whole, tmp_path):
    study = make(tmp_path / "study").folder
    assert (sealed.kind_of(study), sealed.kind_of(whole)) == ("study", "screening")
    with pytest.raises(UsageError, match="is a classifier of single images; wanted here is a classifier of four-view"):
        screening.load(study)
    with pytest.raises(UsageError, match="is a classifier of four-view exams; wanted here is a classifier of single"):
        bundle.load(whole)
    with pytest.raises(UsageError, match=r"no bundle at .*import-exam"):
        screening.load(tmp_path / "none")


def test_what_is_there_is_only_replaced_by_its_own_kind(whole, tmp_path):
    study = make(tmp_path / "study").folder
    with pytest.raises(UsageError, match="is left alone"):
        small_bundle(study)
    assert bundle.load(study).name == "brightness"
    first = screening.load(small_bundle(tmp_path / "small", seed=1)).digest
    assert screening.load(small_bundle(tmp_path / "small", seed=2, heatmaps=False)).digest != first


def test_a_networks_digest_hangs_on_that_network_alone(whole, tmp_path):
    def digests(**options):
        loaded = screening.load(small_bundle(tmp_path / "small", **options))
        return {role: loaded.digest_of(role) for role in loaded.roles()}

    first = {role: screening.load(whole).digest_of(role) for role in layout.ROLES}
    assert len(set(first.values())) == 3
    assert digests(name="another name", heatmap_threshold=0.5) == first
    for role, option in zip(layout.ROLES, ("patch_seed", "image_seed", "image_heatmaps_seed"), strict=True):
        changed = digests(**{option: 9})
        assert [one for one in layout.ROLES if changed[one] != first[one]] == [role]
    wider = digests(settings=SMALL.model_copy(update={"cc": (64, 50)}))
    assert [one for one in layout.ROLES if wider[one] != first[one]] == ["image-only", "image-and-heatmaps"]
    assert digests(settings=SMALL.model_copy(update={"windows": 1})) == first


def runner_of(loaded, graph):
    session = onnxruntime.InferenceSession(loaded.graphs[graph])
    names = [one.name for one in session.get_inputs()]
    return lambda inputs: (session.run(None, dict(zip(names, one, strict=True)))[0] for one in inputs)


def test_a_bundle_tells_what_its_graphs_answer_to_golden_inputs(whole, folder):
    loaded = screening.load(whole)
    assert set(loaded.info["golden"]["probabilities"]) == set(loaded.graphs)
    for graph in loaded.graphs:
        inputs = golden.inputs(graph, SMALL)
        shape = (layout.CHANNELS[layout.role_of(graph)], *loaded.size_of(graph))
        assert {one.shape[1:] for one in inputs.values()} == {shape}
        assert all(-1 <= one.min() < 0.1 and 0.9 < one.max() <= 1 for one in inputs.values())
        assert golden.check(loaded, graph, runner_of(loaded, graph)) < 1e-6
    others = screening.load(small_bundle(folder.parent / "other", seed=3))
    for graph in loaded.graphs:
        with pytest.raises(SpiculaError, match=rf"self-test of {graph} failed") as caught:
            golden.check(loaded, graph, runner_of(others, graph))
        assert "\n" not in str(caught.value)


def test_golden_inputs_are_the_published_windows_and_mostly_even_ground():
    for graph in ("image-only.cc", "image-and-heatmaps.mlo"):
        for one in golden.inputs(graph, ScreeningSettings()).values():
            assert one.shape[2:] in ((2677, 1942), (2974, 1748))
            assert np.count_nonzero(one[0, 0]) < 0.01 * one[0, 0].size


def test_a_bundle_without_golden_answers_is_read_and_not_tested(folder):
    info = json.loads((folder / "bundle.json").read_text())
    told = info.pop("golden")
    (folder / "bundle.json").write_text(sealed.seal(info))
    loaded = screening.load(folder)
    assert golden.check(loaded, "patch", runner_of(loaded, "image-only.cc")) is None
    del told["probabilities"]["patch"]
    rewrite(folder, golden=told)
    with pytest.raises(SpiculaError, match="golden answers of other graphs"):
        screening.load(folder)


def test_small_networks_answer_for_what_they_see(whole):
    """Each part of the input changes the answer, or tests that use them would prove little."""
    loaded, rng = screening.load(whole), np.random.default_rng(0)
    for name, graph in loaded.graphs.items():
        session = onnxruntime.InferenceSession(graph)
        shape = (1, layout.CHANNELS[layout.role_of(name)], *loaded.size_of(name))
        inputs = {one.name: rng.normal(size=shape).astype(np.float32) for one in session.get_inputs()}
        (answer,) = session.run(None, inputs)
        assert answer.shape == (1, 4)
        assert ((answer > 0) & (answer < 1)).all()
        for key, value in inputs.items():
            for channel in range(shape[1]):
                other = value.copy()
                other[0, channel, 8:32, 8:32] += 1
                changed = session.run(None, inputs | {key: other})[0]
                assert np.abs(changed - answer).max() > 1e-4, (name, key, channel)
