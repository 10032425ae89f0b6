import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_maker import PREPROCESS, brightness_model, content, make

import spicula
from spicula import bundle
from spicula.bundle import external_data, sealed
from spicula.bundle import format as layout
from spicula.errors import SpiculaError, UsageError
from spicula.imaging.preprocess import Preprocess

PACKAGE = Path(spicula.__file__).parent


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "bundle")
    return tmp_path / "bundle"


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


def test_probabilities_are_those_of_the_graph_whatever_the_batch(folder):
    loaded = bundle.load(folder)
    batch = images(37)
    expected = batch.mean(axis=(1, 2, 3)) / 255
    for size in (1, 5, 64):
        got = loaded.probabilities(batch, batch=size)
        assert got.shape == (37, 2)
        np.testing.assert_allclose(got[:, 1], expected, atol=1e-6)
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
    assert loaded.probabilities(batch[:0]).shape == (0, 2)


def test_sixteen_bits_are_scaled_by_their_own_range(tmp_path):
    preprocess = Preprocess(size=(8, 8), channels=1, bits=16)
    settings = {"digest": preprocess.digest(), "settings": preprocess.model_dump(mode="json")}
    loaded = make(tmp_path / "bundle", preprocessing=settings)
    got = loaded.probabilities(np.full((1, 8, 8, 1), 65535 // 2, np.uint16))
    np.testing.assert_allclose(got[0, 1], (65535 // 2) / 65535, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 9, 1), (1, 8, 8, 3)])
def test_images_of_another_shape_are_refused(folder, shape):
    with pytest.raises(ValueError, match="the model takes uint8"):
        bundle.load(folder).probabilities(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="the model takes uint8"):
        bundle.load(folder).probabilities(np.zeros((1, 8, 8, 1), np.uint16))


@pytest.mark.parametrize("name", layout.NAMES)
def test_every_changed_byte_is_noticed(folder, name):
    path = folder / name
    whole = path.read_bytes()
    positions = range(len(whole)) if len(whole) < 300 else np.linspace(0, len(whole) - 1, 300).astype(int)
    for position in positions:
        for bit in (0x01, 0x20):
            changed = bytearray(whole)
            changed[position] ^= bit
            path.write_bytes(changed)
            with pytest.raises(SpiculaError, match=name.replace(".", r"\.")) as caught:
                bundle.load(folder)
            assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert bundle.load(folder).name == "brightness"


@pytest.mark.parametrize("name", layout.NAMES)
def test_a_shortened_or_lengthened_file_is_noticed(folder, name):
    path = folder / name
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"\n", b""):
        path.write_bytes(changed)
        with pytest.raises(SpiculaError, match=name.replace(".", r"\.")):
            bundle.load(folder)


@pytest.mark.parametrize("name", layout.NAMES)
def test_a_missing_file_is_noticed(folder, name):
    (folder / name).unlink()
    with pytest.raises(SpiculaError, match=name.replace(".", r"\.")):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "model.onnx.data"])
def test_an_extra_file_is_noticed(folder, name):
    (folder / name).write_text("")
    with pytest.raises(SpiculaError, match=f"{name} does not belong"):
        bundle.load(folder)


def test_an_extra_folder_and_a_link_are_noticed(folder, tmp_path):
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(SpiculaError, match="not a plain file"):
        bundle.load(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(SpiculaError, match="not a plain file"):
        bundle.load(folder)


def test_swapped_files_are_noticed(folder, tmp_path):
    other = make(tmp_path / "other", model=brightness_model(channels=3)).folder
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    with pytest.raises(SpiculaError, match=r"model\.onnx is not the file"):
        bundle.load(folder)


def test_no_bundle_and_something_else(tmp_path):
    with pytest.raises(UsageError, match="no bundle at"):
        bundle.load(tmp_path / "none")
    with pytest.raises(SpiculaError, match=r"has no bundle\.json"):
        bundle.load(tmp_path)


def rewrite(folder, **changes):
    """What someone does who changes a bundle and then makes its digest fit again."""
    info = json.loads((folder / "bundle.json").read_text()) | changes
    (folder / "bundle.json").write_text(sealed.seal(info))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version of spicula reads 1"),
        ({"classes": "bright"}, "classes: "),
        ({"surprise": 1}, "surprise: "),
        ({"files": {}}, "lists the files"),
        ({"preprocessing": {"digest": "0" * 64, "settings": PREPROCESS.model_dump(mode="json")}}, "prepares images"),
        ({"preprocessing": {"digest": "0" * 64, "settings": {"from": "the future"}}}, "prepares images otherwise"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(SpiculaError, match=message) as caught:
        bundle.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", '{"digest": NaN}', "[" * 100_000, '{"a": 1, "a": 1}'])
def test_a_description_that_is_no_json_is_refused(folder, text):
    (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpiculaError, match=r"bundle\.json does not match its own digest"):
        bundle.load(folder)


def test_features_of_another_version_are_refused(folder):
    rewrite(folder, features={"version": -1, "settings": {}})
    with pytest.raises(SpiculaError, match="prepares images otherwise"):
        bundle.load(folder)


def test_external_data_is_refused(tmp_path):
    with pytest.raises(SpiculaError, match=r"model\.onnx refers to data outside the file"):
        make(tmp_path / "bundle", model=brightness_model(external=True))
    assert not (tmp_path / "bundle").exists()


def test_external_data_is_found_wherever_a_tensor_can_stand():
    """Every way from ModelProto to TensorProto that the installed onnx knows is one that the scan walks."""
    known = {}
    todo, seen = [onnx.ModelProto.DESCRIPTOR], set()
    reaches = {"TensorProto"}
    graph = {}
    while todo:
        message = todo.pop()
        if message.name in seen:
            continue
        seen.add(message.name)
        graph[message.name] = {f.number: f.message_type.name for f in message.fields if f.message_type}
        todo += [f.message_type for f in message.fields if f.message_type]
    for _ in graph:  # the transitive closure, in at most as many rounds as there are messages
        reaches |= {name for name, fields in graph.items() if reaches & set(fields.values())}
    for name, fields in graph.items():
        if name in reaches and name != "TensorProto":
            known[name] = {number: target for number, target in fields.items() if target in reaches}
    assert known == external_data.ONNX_FIELDS


def test_external_data_is_found_deep_inside():
    def tensor():
        made = onnx.TensorProto(name="far")
        made.data_location = onnx.TensorProto.EXTERNAL
        return made

    model = onnx.load_from_string(brightness_model())
    assert not external_data.refers_outside(model.SerializeToString(), "model.onnx")
    node = model.graph.node.add(op_type="If")
    inner = node.attribute.add(name="then").g.node.add(op_type="Constant")
    inner.attribute.add(name="value").t.CopyFrom(tensor())
    assert external_data.refers_outside(model.SerializeToString(), "model.onnx")
    model = onnx.load_from_string(brightness_model())
    model.graph.sparse_initializer.add().indices.external_data.add(key="location", value="/etc/passwd")
    assert external_data.refers_outside(model.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("junk", [b"\xff" * 40, b"\x3a\xff\x01", b"\x38\x01", b"\x3c", b"no model"])
def test_bytes_that_are_no_model_are_refused(tmp_path, junk):
    with pytest.raises(SpiculaError, match="not an ONNX model"):
        make(tmp_path / "bundle", model=junk)


def test_a_model_that_does_not_run_is_one_line(tmp_path):
    model = onnx.load_from_string(brightness_model())
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(SpiculaError, match=r"model\.onnx cannot be run") as caught:
        make(tmp_path / "bundle", model=model.SerializeToString()).probabilities(images(1))
    assert "\n" not in str(caught.value)


def test_seal_does_not_hang_on_the_order_of_keys():
    made = content()
    there, back = sealed.seal(made), sealed.seal(dict(reversed(made.items())))
    assert json.loads(there)["digest"] == json.loads(back)["digest"]


def test_the_same_answers_twice(folder):
    batch = images(20)
    one = bundle.load(folder, threads=1).probabilities(batch)
    np.testing.assert_array_equal(one, bundle.load(folder, threads=1).probabilities(batch))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(*names):
    """The files of the package that some modules can import, wherever in them the import stands."""
    todo, files = list(names), set()
    while todo:
        path = PACKAGE.joinpath(*todo.pop().split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.is_file() and path not in files:
            files.add(path)
            todo += [name for name in imported(path) if name.startswith("spicula.")]
    return files


def test_nothing_that_prediction_imports_unpickles_or_needs_torch():
    banned = {"pickle", "torch", "onnx", "sklearn", "joblib", "dill", "cloudpickle", "shelve", "marshal", "safetensors"}
    files = closure("spicula.bundle", "spicula.predict")
    assert {"format.py", "readers.py", "preprocess.py", "features.py"} <= {path.name for path in files}
    wrong = [f"{path.name}: {name}" for path in files for name in imported(path) if name.split(".")[0] in banned]
    assert wrong == []
    loads = [line for path in files for line in path.read_text().splitlines() if "np.load(" in line]
    assert all("allow_pickle=False" in line for line in loads)


def test_prediction_works_where_only_the_core_is_installed(folder, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((20, 30), 51, np.uint8)).save(tmp_path / "a.png")
    code = f"""
        import importlib.abc, sys
        class Blocked(importlib.abc.MetaPathFinder):
            names = {{"torch", "torchvision", "timm", "onnx", "onnxscript", "sklearn", "safetensors", "matplotlib",
                     "jinja2", "tensorboard"}}
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in self.names:
                    raise ImportError(f"{{name}} is not installed here")
        sys.meta_path.insert(0, Blocked())
        from pathlib import Path
        from spicula import bundle, predict
        loaded = bundle.load(Path({str(folder)!r}))
        answered, rejected = predict.predict(loaded, [Path({str(tmp_path / "a.png")!r})])
        print(answered["score"][0].as_py(), len(rejected))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    score, rejected = done.stdout.split()
    assert float(score) == pytest.approx(51 / 255, abs=1e-6)
    assert rejected == "0"


def test_the_documented_python_runs(tmp_path, monkeypatch, capsys):
    from PIL import Image

    made = make(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((20, 30), 51, np.uint8)).save(tmp_path / "images/a.png")
    monkeypatch.chdir(tmp_path)
    page = (PACKAGE.parent.parent / "docs/bundle.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    assert made.digest in capsys.readouterr().out
    assert names["predictions"]["score"].to_pylist() == pytest.approx([0.2], abs=1e-6)
    assert len(names["rejected"]) == 0
    assert names["probabilities"].shape == (4, 2)
