"""The examples of docs/serve-kserve.md, run as they stand there against a service."""

import json
import re
import subprocess
import sys
from pathlib import Path

import bundle_maker
import numpy as np
import pytest
from spicula_server import serving

from spicula.serving.kserve import HEADER_LENGTH

PAGE = Path(__file__).parent.parent.parent / "docs" / "serve-kserve.md"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the examples were run, and what each curl wrote."""
    pytest.importorskip("tritonclient", reason="a client to ask with: pip install 'spicula[peers]'")
    folder = tmp_path_factory.mktemp("page")
    (folder / "OUT").mkdir()
    bundle_maker.make(folder / "OUT" / "bundle")
    bundle_maker.grey(folder / "image.png", 51)
    with serving(folder / "OUT" / "bundle") as server:
        assert server.status is None, server.lines
        blocks = BLOCK.findall(
            PAGE.read_text().replace("NET", "brightness").replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        )
        program, written = "", []
        for language, text in blocks:
            if language == "python":
                program += text
                done = subprocess.run(
                    [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                continue
            for line in text.splitlines():
                if line.startswith("curl"):
                    done = subprocess.run(
                        ["sh", "-c", f"{line} -sS -D headers"], cwd=folder, capture_output=True, check=False
                    )
                    assert done.returncode == 0, done.stderr
                    written.append(done.stdout)
        yield folder, done.stdout, written


def test_curl_says_what_a_model_takes(ran):
    _, _, (told, *_) = ran
    assert json.loads(told)["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]


def test_curl_sends_json_and_raw_bytes(ran):
    folder, _, (_, answer, nothing) = ran
    assert json.loads(answer)["id"] == "7"
    assert np.abs(np.array(json.loads(answer)["outputs"][0]["data"]) - [0.8, 0.2]).max() < 1e-6
    assert nothing == b""
    length = int(re.search(f"{HEADER_LENGTH}: (\\d+)", (folder / "headers").read_text(), re.IGNORECASE)[1])
    scores = np.frombuffer((folder / "answer.bin").read_bytes()[length:], "<f4")
    assert np.abs(scores - [0.8, 0.2]).max() < 1e-6
