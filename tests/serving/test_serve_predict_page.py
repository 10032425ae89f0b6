"""The curl commands of docs/serve-predict.md, run against a service."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from bundle_maker import dicom, grey, make
from spicula_server import serving

PAGE = Path(__file__).parent.parent.parent / "docs" / "serve-predict.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_page_are_answered(tmp_path):
    grey(tmp_path / "image.png", 204)
    dicom(tmp_path / "left.dcm", ImageLaterality="L")
    commands = re.findall(r"^curl .*$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 6
    make(tmp_path / "bundle", name="cnn")
    with serving(tmp_path / "bundle") as server:
        for command in commands:
            words = shlex.split(command.replace("http://127.0.0.1:8000", server.url))
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
            answer = json.loads(done.stdout or (tmp_path / "answer.json").read_text())
            if "explain" in command:  # this bundle has no map of features
                assert answer["code"] == "explain"
            elif command.endswith("/predict") and "v1" not in command:
                assert answer["predicted_label"] == "bright"
            elif "predict" in command:
                assert [image["side"] for image in answer["images"]] == [None, "L"][: command.count("@")]
            else:
                assert "brightness" not in str(answer)
                assert (answer.get("models") or [answer])[0]["name"] == "cnn"
