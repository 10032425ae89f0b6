"""No library keeps an identity of this machine, to tell its maker what is run here."""

import os
import subprocess
import sys

import pytest
from bundle_maker import make

SCRIPTS = {
    "onnxruntime": "import spicula.bundle as one, sys; one.load(sys.argv[1]).session",
    "openvino": "import spicula.exams.runners.openvino as one; one.import_openvino()",
}


@pytest.mark.parametrize("library", SCRIPTS)
def test_nothing_is_kept(tmp_path, library):
    pytest.importorskip(library, reason=f"needs {library}")
    made = make(tmp_path / "bundle")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", SCRIPTS[library], str(made.folder)], check=True, env=environment)
    assert [path for folder in (home, temporary) for path in folder.rglob("*") if path.is_file()] == []
