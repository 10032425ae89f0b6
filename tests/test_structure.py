"""The house rules that a machine can check: imports point left along the flow, and the command line starts quickly."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spicula

PACKAGE = Path(spicula.__file__).parent

#: From left to right along the flow; what stands in one group may import from its own group and from those before it.
FLOW = (
    ("spicula.errors",),
    ("spicula.files", "spicula.progress", "spicula.silence", "spicula.archive", "spicula.processes", "spicula.cluster"),
    ("spicula.stores",),
    ("spicula.index", "spicula.predictions", "spicula.headers"),
    ("spicula.acquire", "spicula.deidentify"),
    ("spicula.catalog", "spicula.phantoms"),
    ("spicula.imaging",),
    ("spicula.convert",),
    ("spicula.curate",),
    ("spicula.models",),
    ("spicula.training",),
    ("spicula.evaluation",),
    ("spicula.bundle",),
    ("spicula.predict",),
    ("spicula.recipe",),
    ("spicula.study",),
    ("spicula.exams",),
    ("spicula.serving",),
    ("spicula.demo",),
    ("spicula.cli",),
    ("spicula.__main__",),
)
#: Rooms of one group that must not know each other.
STRANGERS = [
    ("spicula.phantoms", "spicula.catalog"),
    ("spicula.catalog", "spicula.phantoms"),
    ("spicula.catalog", "spicula.acquire"),
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["spicula", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """Every name that a file imports, wherever in it: modules, and `package.name` for `from package import name`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def place(name: str) -> tuple[int, str] | None:
    for position, group in enumerate(FLOW):
        for room in group:
            if name == room or name.startswith(f"{room}."):
                return position, room
    return None


def test_every_module_has_its_place_in_the_flow():
    lost = [name for name in modules() if name != "spicula" and place(name) is None]
    assert lost == []


def test_imports_point_left_along_the_flow():
    wrong = []
    for name, path in modules().items():
        here = place(name)
        if here is None:
            continue
        for imported in imports(path):
            there = place(imported)
            if there and (there[0] > here[0] or (here[1], there[1]) in STRANGERS):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_nobody_unpickles():
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                wrong += [] if safe else [f"{name}:{node.lineno} torch.load without weights_only=True"]
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                wrong.append(f"{name}:{node.value.lineno} allow_pickle")
        banned = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
        wrong += [f"{name} imports {used}" for used in imports(path) if used.split(".")[0] in banned]
    assert wrong == []


def test_pixels_are_decoded_in_one_place():
    decoders = ("imread", "imdecode", "pixel_array", "imagecodecs", "Image.open")
    users = {
        name for name, path in modules().items() if any(word in path.read_text(encoding="utf-8") for word in decoders)
    }
    # headers looks at sizes without decoding; evaluation and phantoms only encode
    allowed = {"spicula.headers"}
    assert {name for name in users - allowed if not name.startswith("spicula.imaging.")} == set()


#: Who may open files for writing besides `files`, and why.
OTHER_WRITERS = {
    "spicula.acquire.salvage": "unpacks what is whole of a download that was cut, each member into a temporary name",
    "spicula.acquire.transfer": "appends to a part, which is renamed when whole",
    "spicula.archive": "unpacks into a temporary folder, which is renamed when whole",
    "spicula.convert.packing": "writes into a temporary file of files.atomic_path",
    "spicula.deidentify.file": "writes into memory",
    "spicula.serving.forms": "uploads, which are gone when their request has ended",
    "spicula.serving.triton.backend": "images, which are gone when their request has ended",
    "spicula.training.linear": "writes into a temporary file of files.atomic_path",
}


def test_files_are_written_in_one_place():
    writing = re.compile(r"""\.write_(text|bytes)\(|open\(("|')[wax]|write_table\(|save_file\(|imwrite\(|dcmwrite\(""")
    found = {
        name
        for name, path in modules().items()
        for line in path.read_text(encoding="utf-8").splitlines()
        if writing.search(line.replace("files.write_", ""))
    }
    assert found - {"spicula.files"} == set(OTHER_WRITERS)


@pytest.mark.parametrize("statement", ["import spicula.cli", "from spicula.cli import main; main(['datasets'])"])
def test_the_command_line_starts_without_heavy_libraries(statement):
    heavy = ["torch", "timm", "sklearn", "skimage", "matplotlib", "onnx", "onnxruntime", "jinja2", "scipy"]
    if "main" not in statement:
        heavy += ["numpy", "pyarrow", "pydantic", "cv2"]
    code = f"{statement}\nimport json, sys; print(json.dumps([n for n in {heavy} if n in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(output.splitlines()[-1]) == []
