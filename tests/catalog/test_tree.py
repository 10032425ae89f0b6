"""Walking a folder: what is there is listed or reported, whatever it is."""

import os
import shutil
import subprocess
import sys

import pytest

from spicula.catalog import index_dataset
from spicula.catalog.tree import walk
from spicula.errors import SpiculaError


def test_files_are_listed_in_order_without_what_is_hidden(tmp_path):
    for name in ("b/2", "b/1", "a", "c/.hidden", ".git/x", "__MACOSX/b/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")

    assert list(walk(tmp_path)) == ["a", "b/1", "b/2"]


def test_a_link_to_a_folder_is_reported_and_not_followed(tmp_path, make_image, capsys):
    make_image(tmp_path / "elsewhere" / "x.png")
    make_image(tmp_path / "data" / "benign" / "y.png")
    (tmp_path / "data" / "malignant").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "benign" / "round").symlink_to(tmp_path / "data")

    reading = index_dataset("folder", tmp_path / "data", tmp_path)

    assert reading.index["path"].to_pylist() == ["benign/y.png"]
    assert sorted(reading.rejected["path"].to_pylist()) == ["benign/round", "malignant"]
    assert "malignant is a link to a folder, which is not followed" in capsys.readouterr().err


@pytest.mark.skipif(
    os.name != "posix" or (os.geteuid() == 0 and shutil.which("setpriv") is None), reason="needs a user with few rights"
)
def test_folders_that_cannot_be_listed_are_reported(tmp_path):
    (tmp_path / "data" / "closed").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("")
    (tmp_path / "data" / "closed").chmod(0)
    code = (
        "import sys; from pathlib import Path; from spicula.catalog.tree import walk; print(*walk(Path(sys.argv[1])))"
    )
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)

    def run(folder):
        command = [*user, sys.executable, "-c", code, folder]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    below, itself = run(tmp_path / "data"), run(tmp_path / "data" / "closed")

    assert below.stdout == "file closed\n"
    assert "closed cannot be listed (Permission denied); what it holds is left out" in below.stderr
    assert f"{SpiculaError.__module__}.SpiculaError: cannot list" in itself.stderr
    (tmp_path / "data" / "closed").chmod(0o700)
