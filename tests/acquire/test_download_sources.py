"""Downloads of datasets from end to end: the command, a server process, a mirror, and what is left on the disk."""

import base64
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from spicula.acquire import transfer
from spicula.cli import main

CANARY = "c4nary-pässword-93f1"


def packed(size=1_000_000):
    """A tar.gz file that does not compress."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("BreaKHis_v1/noise")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(1).randbytes(size)))
    return stream.getvalue()


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", replace(transfer.PATIENCE, first_wait_seconds=0.01, outage_seconds=0.5))


@pytest.fixture
def breakhis(file_server):
    body = packed()
    (file_server.folder / "BreaKHis_v1.tar.gz").write_bytes(body)
    return body


@pytest.fixture
def download(capfd, tmp_path):
    """Run `spicula download ... --json`; its status and its account."""

    def run(what, *options, to=tmp_path / "data"):
        status = main(["download", what, "--to", str(to), "--json", *map(str, options)])
        out, err = capfd.readouterr()
        return status, json.loads(out), err

    return run


def test_a_file_is_fetched_once_checked_and_accounted_for(file_server, breakhis, download, tmp_path):
    status, account, err = download("breakhis", "--server", file_server.url)
    assert (status, account["complete"], account["skipped"], account["failed"]) == (0, 1, 0, [])
    assert (tmp_path / "data" / "BreaKHis_v1.tar.gz").read_bytes() == breakhis
    assert "the archive publishes no checksum" in Path(account["table"]).read_text()
    assert "CC BY 4.0" in err
    status, account, _ = download("breakhis", "--server", file_server.url)
    assert (status, account["complete"], account["skipped"]) == (0, 0, 1)
    assert len(file_server.requests()) == 1


def test_cuts_bursts_of_503_and_a_wrong_byte_cost_time_and_nothing_else(file_server, breakhis, download, tmp_path):
    name = "BreaKHis_v1.tar.gz"
    file_server.faults(status={name: [503, 503]}, cut={name: [400_000]}, flip={name: 2})
    status, account, _ = download("breakhis", "--server", file_server.url)
    assert (status, account["complete"]) == (0, 1)
    assert (tmp_path / "data" / name).read_bytes() == breakhis
    assert [entry["status"] for entry in file_server.requests()] == [503, 503, 200, 206, 200]


def test_a_server_without_ranges(file_server, breakhis, download, tmp_path):
    file_server.faults(cut={"BreaKHis_v1.tar.gz": [400_000]}, ignore_range=True)
    assert download("breakhis", "--server", file_server.url)[0] == 0
    assert (tmp_path / "data" / "BreaKHis_v1.tar.gz").read_bytes() == breakhis


def test_a_byte_that_is_always_wrong_fails_in_the_account(file_server, breakhis, download, tmp_path):
    file_server.faults(flip={"BreaKHis_v1.tar.gz": 10**6})
    status, account, _ = download("breakhis", "--server", file_server.url)
    assert (status, account["complete"]) == (1, 0)
    assert "another content than such a file has (tried 5 times)" in account["failed"][0]["reason"]
    assert not (tmp_path / "data" / "BreaKHis_v1.tar.gz").exists()


# mirrors


@pytest.fixture(params=["file", "s3"])
def mirror_url(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/mirror"
    pytest.importorskip("s3fs", reason="mirrors in S3: pip install 'spicula[archives]'")
    return f"s3://{request.getfixturevalue('bucket')(f'mirror-{uuid.uuid4().hex}')}/breakhis"


def test_a_filled_mirror_spares_the_server(file_server, breakhis, download, tmp_path, mirror_url):
    options = ("--server", file_server.url, "--mirror", mirror_url)
    status, account, _ = download("breakhis", *options, "--fill-mirror")
    assert (status, account["from_mirror"]) == (0, 0)
    status, account, _ = download("breakhis", *options, to=tmp_path / "second")
    assert (status, account["complete"], account["from_mirror"]) == (0, 1, 1)
    assert (tmp_path / "second" / "BreaKHis_v1.tar.gz").read_bytes() == breakhis
    assert len(file_server.requests()) == 1
    assert "SHA-256 by the mirror" in Path(account["table"]).read_text()


def test_a_wrong_byte_in_the_mirror_is_named_and_mended(file_server, breakhis, download, tmp_path):
    options = ("--server", file_server.url, "--mirror", f"file://{tmp_path}/mirror", "--fill-mirror")
    download("breakhis", *options)
    there = tmp_path / "mirror" / "BreaKHis_v1.tar.gz"
    there.write_bytes(breakhis[:-1] + b"x")
    status, account, err = download("breakhis", *options, to=tmp_path / "second")
    assert (status, account["complete"], account["from_mirror"]) == (0, 1, 0)
    assert "BreaKHis_v1.tar.gz is damaged there (a file has the wrong SHA-256); it comes from upstream" in err
    assert (tmp_path / "second" / "BreaKHis_v1.tar.gz").read_bytes() == breakhis
    assert there.read_bytes() == breakhis
    assert download("breakhis", *options, to=tmp_path / "third")[1]["from_mirror"] == 1


@pytest.mark.usefixtures("breakhis", "s3_url")
def test_a_mirror_that_does_not_answer_is_one_line(file_server, tmp_path, capfd, monkeypatch):
    pytest.importorskip("s3fs", reason="mirrors in S3: pip install 'spicula[archives]'")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    command = ["download", "breakhis", "--to", str(tmp_path / "data"), "--mirror", "s3://bucket/x"]
    assert main([*command, "--server", file_server.url]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "the mirror s3://bucket/x cannot be read" in err
    assert file_server.requests() == []


# a login


@pytest.fixture
def exams(file_server):
    """Six exams of four images behind a login, as PhysioNet has them."""
    images = {f"images/exam{n}/{view}.dicom": os.urandom(20_000) for n in range(6) for view in "abcd"}
    contents = {"metadata.csv": b"a\n", "finding_annotations.csv": b"b\n"} | images
    for name, body in contents.items():
        path = file_server.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    lines = [f"{hashlib.sha256(body).hexdigest()} {name}\n" for name, body in contents.items()]
    (file_server.folder / "SHA256SUMS.txt").write_text("".join(lines))
    file_server.faults(auth=["marie", CANARY])
    return contents


@pytest.fixture
def credentials(tmp_path):
    path = tmp_path / "login.txt"
    path.write_text(f"marie\n{CANARY}\n", encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("password", [CANARY, "another"])
def test_the_password_is_nowhere(file_server, exams, credentials, tmp_path, password):
    file_server.faults(auth=["marie", password], flip={"metadata.csv": 1}, cut={"images/exam1/a.dicom": [10_000]})
    to, mirror = tmp_path / "data", tmp_path / "mirror"
    words = ["download", "vindr-mammo", "--server", file_server.url, "--to", to, "--patients", 2]
    words += ["--mirror", f"file://{mirror}", "--fill-mirror", "--credentials", credentials]
    done = subprocess.run([sys.executable, "-m", "spicula", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == (0 if password == CANARY else 1), done.stderr.decode()
    written = [path.read_bytes() for folder in (to, mirror) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > (20 if password == CANARY else 0)
    token = base64.b64encode(f"marie:{CANARY}".encode())
    for canary in (CANARY.encode(), token, b"c4nary"):
        assert all(canary not in text for text in (done.stdout, done.stderr, *written))
    if password != CANARY:
        assert len(done.stderr.splitlines()) == 1
        assert b"sign the data use agreement at https://physionet.org/content/vindr-mammo/1.0.0/" in done.stderr


def test_two_exams_of_vindr_mammo_with_every_table(file_server, exams, credentials, download, tmp_path):
    options = ("--server", file_server.url, "--credentials", credentials, "--patients", 2)
    status, account, _ = download("vindr-mammo", *options)
    assert (status, account["complete"]) == (0, 3 + 8)
    for name, body in exams.items():
        path = tmp_path / "data" / name
        wanted = not name.startswith("images") or name.split("/")[1] in ("exam0", "exam1")
        assert (path.read_bytes() == body) if wanted else not path.exists()
    assert all(entry["login"] for entry in file_server.requests())
    before = len(file_server.requests())
    account = download("vindr-mammo", "--server", file_server.url, "--credentials", credentials)[1]
    assert (account["complete"], account["skipped"]) == (16, 11)
    assert len(file_server.requests()) == before + 16


def test_a_filled_mirror_is_enough_when_the_archive_is_gone(file_server, exams, credentials, download, tmp_path):
    options = ("--credentials", credentials, "--mirror", f"file://{tmp_path}/mirror", "--patients", 1)
    download("vindr-mammo", "--server", file_server.url, "--fill-mirror", *options)
    file_server.stop()
    status, account, _ = download("vindr-mammo", "--server", file_server.url, *options, to=tmp_path / "second")
    assert (status, account["from_mirror"], account["failed"]) == (0, 3 + 4, [])
    for name in ("SHA256SUMS.txt", "metadata.csv", "images/exam0/a.dicom"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "data" / name).read_bytes()
    assert (tmp_path / "data" / "images/exam0/a.dicom").read_bytes() == exams["images/exam0/a.dicom"]


def test_without_a_login_nothing_is_asked(file_server, exams, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert main(["download", "vindr-mammo", "--to", str(tmp_path / "data"), "--server", file_server.url]) == 2
    assert "--credentials FILE" in capfd.readouterr().err
    assert file_server.requests() == []


# a kill


def arrived(to):
    """How many bytes of an unfinished file are there."""
    try:
        return sum(path.stat().st_size for path in (to / ".spicula" / "partial").rglob("*.part"))
    except FileNotFoundError:  # renamed meanwhile
        return 0


@pytest.mark.slow
def test_a_kill_costs_no_byte_that_had_arrived(file_server, tmp_path):
    body = packed(24_000_000)
    (file_server.folder / "BreaKHis_v1.tar.gz").write_bytes(body)
    file_server.faults(pace=8_000_000)
    to, had = tmp_path / "data", [0]
    words = [sys.executable, "-m", "spicula", "download", "breakhis", "--server", file_server.url, "--to", str(to)]
    chance = random.Random(7)
    for _ in range(5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        enough = had[-1] + chance.randrange(1_000_000, 4_000_000)
        while arrived(to) < enough and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        had.append(arrived(to))
        assert not (to / "BreaKHis_v1.tar.gz").exists()
    file_server.faults()
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert (to / "BreaKHis_v1.tar.gz").read_bytes() == body
    ranges = sorted(entry["range"] for entry in file_server.requests() if entry["range"])
    assert ranges == sorted(f"bytes={start}-" for start in had[1:])


# IDC


def test_a_collection_of_idc_from_end_to_end(bucket, s3_url, download, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    index_data = pytest.importorskip("idc_index_data", reason="IDC's index: pip install 'spicula[archives]'")
    from test_idc import dicom

    from spicula.acquire import idc

    name = bucket(f"idc-{uuid.uuid4().hex}")
    rows = []
    for number in range(6):
        uid = f"1.2.826.0.1.{number}"
        files = {f"{number}-{image}.dcm": dicom(uid, image, 5_000) for image in (1, 2)}
        for key, body in files.items():
            bucket.service.put_object(Bucket=name, Key=f"folder{number}/{key}", Body=body, ACL="public-read")
        known = {
            "collection_id": "cbis_ddsm",
            "PatientID": f"Mass-Training_P_0000{number // 2}_LEFT_CC",
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": uid,
            "StudyDate": "2020-02-29",
            "SeriesNumber": "1",
            "Modality": "MG",
            "instanceCount": 2,
            "license_short_name": "CC BY 3.0",
            "aws_bucket": name,
            "crdc_series_uuid": f"folder{number}",
            "series_size_MB": sum(map(len, files.values())) / 1e6,
        }
        rows.append(dict.fromkeys(idc.COLUMNS) | known)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    monkeypatch.setattr(index_data, "IDC_INDEX_PARQUET_FILEPATH", tmp_path / "index.parquet")
    (tmp_path / "data").mkdir()
    tables = [f"{kind}_case_description_{side}_set.csv" for kind in ("mass", "calc") for side in ("train", "test")]
    for table in tables:
        (tmp_path / "data" / table).write_text("patient_id\n")
    status, account, err = download("cbis-ddsm", "--from", "idc", "--server", s3_url, "--patients", 2)
    assert (status, account["complete"], account["failed"]) == (0, 4 + 4, []), err
    images = sorted(path.relative_to(tmp_path / "data") for path in (tmp_path / "data").rglob("*.dcm"))
    assert len(images) == 8
    assert images[0].parts[:2] == ("CBIS-DDSM", "Mass-Training_P_00000_LEFT_CC")
    assert images[0].name == "1-1.dcm"
    text = Path(account["table"]).read_text()
    assert "md5 of every file by the bucket's list" in text
    assert text.count("it was there already") == 4
    table = (tmp_path / "data" / "metadata.csv").read_text().splitlines()
    assert len(table) == 1 + 4
    assert "CC BY 3.0" in table[1]
