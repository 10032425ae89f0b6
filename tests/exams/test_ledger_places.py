"""Ledgers in object stores: S3 (moto, as a process) and Google Cloud Storage (a stand-in, as a process)."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ledger_runs import as_rows, exam, run, steps
from test_ledger_processes import assert_each_once, finish_together, start, undisturbed

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.errors import SpiculaError, UsageError
from spicula.exams.ledger import Ledger
from spicula.stores import place_of


@pytest.fixture
def gs_account(tmp_path, monkeypatch):
    """A service account whose service is a process here: as Google's own libraries, Delta's reads it from a file."""
    program = Path(__file__).with_name("gs_server.py")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as process:
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        account = {
            "gcs_base_url": url,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        yield url
        process.kill()


@pytest.fixture(params=["s3", "gs"])
def workspace(request):
    name = f"exams-{uuid.uuid4().hex}"
    if request.param == "s3":
        request.getfixturevalue("bucket")(name)
    else:
        request.getfixturevalue("gs_account")
    return f"{request.param}://{name}/some/workspace"


def test_a_ledger_in_an_object_store(workspace, tmp_path):
    with pytest.raises(UsageError, match=r"no workspace at .*/some/workspace"):
        Ledger.open(workspace)
    ledger = Ledger.open(f"{workspace}/", create=True)
    assert ledger.place == workspace
    names = ["it's", "ü"]
    assert set(run(ledger, steps(), [exam(name) for name in names]).values()) == {2}
    again = Ledger.open(workspace)
    assert run(again, steps(), [exam(name) for name in names]) == {}
    assert again.status()["steps"]["classify:both"]["done"] == 2
    assert len(again.history("ü")) == 6
    assert as_rows(again) == undisturbed(tmp_path, names)


def test_files_are_put_together_there(workspace, monkeypatch):
    from spicula.exams.ledger import storage

    ledger = Ledger.open(workspace, create=True)
    for number in range(6):
        run(ledger, steps(), [exam(f"{number}")])
    before = as_rows(ledger)
    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 2)
    ledger.begin_run(steps(), "test")
    from deltalake import DeltaTable

    place = f"{workspace}/steps"
    assert len(DeltaTable(place, storage_options=storage.options_for(place, None)).file_uris()) == 1
    assert as_rows(Ledger.open(workspace)) == before


def test_processes_with_the_same_work_there_double_nothing(workspace, tmp_path):
    names = [f"exam {number}" for number in range(3)]
    finish_together([start(workspace, names, size, "--wait") for size in (1, 2)])
    ledger = Ledger.open(workspace)
    assert_each_once(ledger)
    assert as_rows(ledger) == undisturbed(tmp_path, names)


def test_a_service_that_does_not_answer_is_one_line(s3_url, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SpiculaError, match="s3://bucket/x/runs cannot be read: ") as error:
        Ledger.open("s3://bucket/x", storage_options={"AWS_MAX_RETRIES": "0", "max_retries": "0"})
    assert "\n" not in str(error.value)


def test_a_bucket_that_is_not_there(s3_url):
    with pytest.raises(SpiculaError, match=r"s3://no-such-bucket/x/runs cannot be read: .*404"):
        Ledger.open("s3://no-such-bucket/x", create=True)


def test_storage_options_can_be_given(bucket, s3_url, monkeypatch):
    name = bucket(f"exams-{uuid.uuid4().hex}")
    options = {"AWS_ENDPOINT_URL": s3_url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    for variable in [*options, "AWS_DEFAULT_REGION"]:
        monkeypatch.delenv(variable, raising=False)
    options["AWS_REGION"] = "us-east-1"
    ledger = Ledger.open(f"s3://{name}/ws", create=True, storage_options=options)
    run(ledger, steps(), [exam("a")])
    assert Ledger.open(f"s3://{name}/ws", storage_options=options).status()["exams"] == 1
    assert "AWS_ENDPOINT_URL" not in os.environ


@pytest.mark.parametrize(
    "place",
    [
        "s3://",
        "s3:///prefix",
        "s3://bucket/../x",
        "s3://b/a//c",
        "https://bucket/x",
        "s3://key@b/x",
        "gs://b/x?y",
        "hdfs://x/y",
    ],
)
def test_addresses_of_another_kind_are_refused(place):
    with pytest.raises(UsageError, match="expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"):
        Ledger.open(place)


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert place_of("ws") == place_of(Path("ws")) == f"{tmp_path}/ws"
    assert place_of("~/ws") == "/home/somebody/ws"
    assert place_of("s3://bucket") == place_of("s3://bucket/") == "s3://bucket"
    assert place_of("gs://bucket/a/b/") == "gs://bucket/a/b"
