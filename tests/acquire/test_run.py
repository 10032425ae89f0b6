"""The pool: one item's failure is nobody else's, and no fault of target, network or user leaves anything broken."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from nbia_server import Settings, series_uid, whole

from spicula import acquire
from spicula.acquire import records, transfer
from spicula.acquire.run import run
from spicula.acquire.transfer import Retry, Unreachable
from spicula.acquire.types import Item, Request
from spicula.errors import SpiculaError, UsageError
from spicula.headers import read_dicom


def item(key, content=b"content", *, place=None, fetch=None, size=None, **options):
    """An item that is a file, unless its place is told to be a folder's."""

    def write(folder, tell):
        (folder / Path(place or f"{key}.bin").name).write_bytes(content)
        tell(len(content))
        return "nothing"

    return Item(key, place or f"{key}.bin", size, fetch or write, **options)


def statuses(rows):
    return [row.status for row in rows]


def test_items_end_in_their_places_and_in_their_order(tmp_path):
    rows = run([item(str(number), bytes([number])) for number in range(20)], tmp_path, jobs=4)
    assert [(row.key, row.status, row.bytes) for row in rows] == [(str(n), "complete", 1) for n in range(20)]
    assert [(tmp_path / row.place).read_bytes() for row in rows] == [bytes([n]) for n in range(20)]


def test_what_is_whole_is_not_fetched_again_and_what_was_lost_is(tmp_path):
    fetched = []

    def fetch(folder, tell):
        fetched.append(1)
        (folder / "x").write_bytes(b"12345")
        return ""

    one = item("x", place="deep/er/x", fetch=fetch)
    assert statuses(run([one], tmp_path, jobs=1)) == ["complete"]
    assert statuses(run([one], tmp_path, jobs=1)) == ["skipped"]
    (tmp_path / "deep/er/x").write_bytes(b"1234")
    assert statuses(run([one], tmp_path, jobs=1)) == ["complete"]
    (tmp_path / "deep/er/x").unlink()
    assert statuses(run([one], tmp_path, jobs=1)) == ["complete"]
    assert len(fetched) == 3
    assert (tmp_path / "deep/er/x").read_bytes() == b"12345"


def fails(error):
    def fetch(folder, tell):
        raise error

    return fetch


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SpiculaError("the archive has nothing"), "the archive has nothing"),
        (Retry("no luck"), r"no luck \(tried 3 times\)"),
        (KeyError("mistake"), "unexpected KeyError: 'mistake'"),
        (FileNotFoundError(2, "No such file"), "cannot write it: No such file"),
    ],
)
def test_one_that_fails_fails_alone(tmp_path, hasty, error, reason):
    rows = run([item("a"), item("b", fetch=fails(error), retries=2), item("c")], tmp_path, jobs=2)
    assert statuses(rows) == ["complete", "failed", "complete"]
    assert re.fullmatch(reason, rows[1].reason)


def test_an_item_that_comes_to_nothing_is_a_failure(tmp_path):
    (row,) = run([item("a", fetch=lambda folder, tell: "")], tmp_path, jobs=1)
    assert (row.status, row.reason) == ("failed", "nothing came of it")


def test_a_retry_finds_what_was_left(tmp_path, hasty):
    def fetch(folder, tell):
        path = folder / "x"
        with path.open("ab") as stream:
            stream.write(b"ab")
        if path.stat().st_size < 6:
            raise Retry("cut")
        return ""

    (row,) = run([item("x", place="x", fetch=fetch)], tmp_path, jobs=1)
    assert (row.status, (tmp_path / "x").read_bytes()) == ("complete", b"ababab")


def test_a_short_outage_costs_no_try(tmp_path, hasty):
    calls = []

    def fetch(folder, tell):
        calls.append(1)
        if len(calls) < 4:
            raise Unreachable("away")
        (folder / "x").write_bytes(b"x")
        return ""

    assert statuses(run([item("x", place="x", fetch=fetch, retries=0)], tmp_path, jobs=1)) == ["complete"]


def test_a_long_outage_ends_all_that_is_left(tmp_path, hasty):
    calls = []

    def fetch(folder, tell):
        calls.append(1)
        raise Unreachable("cannot reach x")

    rows = run([item(str(n), fetch=fetch, retries=10**6) for n in range(500)], tmp_path, jobs=2)
    assert statuses(rows) == ["failed"] * 500
    assert {row.reason for row in rows} == {"cannot reach x", "not tried: cannot reach x"}
    assert len(calls) < 300


def test_two_items_with_one_place_get_one_each(tmp_path):
    rows = run([item("a", b"a", place="Same/x"), item("b", b"b", place="same/X")], tmp_path, jobs=1)
    assert rows[0].place == "Same/x"
    assert rows[1].place.startswith("same/X-")
    # and each keeps its own when it comes alone
    again = run([item("b", b"b", place="same/X")], tmp_path, jobs=1)
    assert (again[0].status, again[0].place) == ("skipped", rows[1].place)


def test_a_folder_that_is_in_the_way_is_replaced(tmp_path):
    def fetch(folder, tell):
        (folder / "new").write_bytes(b"new")
        (folder / "other").write_bytes(b"other")
        return ""

    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "old").write_text("of an earlier, unfinished state")
    run([item("x", place="a/b", fetch=fetch)], tmp_path, jobs=1)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["new", "other"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_what_cannot_fit_is_refused_before_it_is_fetched(tmp_path):
    fetched = []
    huge = item("x", fetch=lambda folder, tell: fetched.append(1), size=10**18)
    with pytest.raises(SpiculaError, match=r"has .* free, and 1000000\.0 TB are still to come: .*--patients"):
        run([huge], tmp_path, jobs=1)
    assert fetched == []


# kills between any two steps of bringing an item to its place


class Killed(BaseException):
    pass


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize("step", range(12))
def test_killed_at_any_step_of_publishing_the_item_is_whole_afterwards(tmp_path, monkeypatch, step, is_file):
    fetched, left = [], [step]

    def fetch(folder, tell):
        fetched.append(1)
        (folder / "x").write_bytes(b"content")
        if not is_file:
            (folder / "y").write_bytes(b"more")
        return "checked"

    def dying(function):
        def call(*args, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*args, **options)

        return call

    one = item("key", place="place/x", fetch=fetch)
    with monkeypatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "rename"), (os, "fsync")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        record = None
        try:
            folder = records.partial_path(tmp_path, "key")
            folder.mkdir(parents=True)
            checks = fetch(folder, None)
            record = records.describe(folder, key="key", place="place/x", checks=checks, source="upstream")
            records.publish(tmp_path, folder, record)
        except Killed:
            pass
    run([one], tmp_path, jobs=1)
    found = records.whole(tmp_path, "key")
    assert found is not None
    assert [file.path for file in found.files] == (["place/x"] if is_file else ["place/x/x", "place/x/y"])
    assert (tmp_path / found.files[0].path).read_bytes() == b"content"
    assert list((tmp_path / ".spicula" / "partial").iterdir()) == []
    assert len(fetched) <= 2


# real processes


def command(server, to, *more):
    return [
        sys.executable,
        "-m",
        "spicula",
        "download",
        "tcia:GENERATED",
        "--to",
        str(to),
        "--server",
        server.url,
        *more,
    ]


def images(to):
    return {str(read_dicom(path).SOPInstanceUID): path.read_bytes() for path in to.rglob("*.dcm")}


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_the_command_says_what_it_did(nbia, tmp_path):
    server = nbia(series=3)
    server.faults({"series": 1, "call": "getImageWithMD5Hash", "kind": "redirect", "to": "nowhere", "times": 99})
    done = subprocess.run(command(server, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"failed {series_uid(1)}: 127.0.0.1 does not have it (HTTP status 404)",
        f"{tmp_path}: 2 complete (16.0 KB), 0 skipped as already whole (0 B), 1 failed; "
        "the same command tries those again",
    ]
    assert "tcia:GENERATED: 3 items, 24.1 KB" in done.stderr
    server.faults()
    done = subprocess.run(command(server, tmp_path, "--json"), capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert (said["complete"], said["skipped"], said["failed"]) == (1, 2, [])
    assert images(tmp_path) == whole(Settings(series=3))
    assert Path(said["table"]).read_text().count("\n") == 4


def test_two_downloads_into_one_folder_do_not_meet(nbia, tmp_path):
    server = nbia(series=2, side=256, rate=100_000)
    with subprocess.Popen(command(server, tmp_path), stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: server.sent() > 0, first)
        second = subprocess.run(command(server, tmp_path), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stderr.strip() == (
            f"spicula: another download works in {tmp_path}: wait for it, or choose another --to"
        )
        first.communicate()
    assert first.returncode == 0
    assert images(tmp_path) == whole(Settings(series=2, side=256))


def test_control_c_stops_quickly_and_says_how_to_go_on(nbia, tmp_path):
    server = nbia(series=8, side=256)
    server.faults(*({"series": number, "kind": "stall", "at": 0.3} for number in range(8)))
    with subprocess.Popen(
        command(server, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: server.requests("getImageWithMD5Hash") == 8, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)  # the servers that are waited for would take 90 seconds
    assert process.returncode == 130
    assert err.splitlines()[-1] == "spicula: interrupted; the same command again takes up where it stopped"
    assert "Traceback" not in err
    server.faults()
    subprocess.run(command(server, tmp_path), capture_output=True, check=True)
    assert images(tmp_path) == whole(Settings(series=8, side=256))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_target_that_is_read_only_is_one_line(nbia, tmp_path):
    tmp_path.chmod(0o500)
    done = subprocess.run(command(nbia(), tmp_path / "to"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"spicula: cannot write to {tmp_path}/to: Permission denied")


def test_a_target_that_is_a_file_is_one_line(nbia, tmp_path):
    (tmp_path / "to").write_text("")
    done = subprocess.run(command(nbia(), tmp_path / "to"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"spicula: cannot write to {tmp_path}/to/.spicula: ")
    assert done.stderr.count("\n") == 1


def in_mounted(folder, options, script):
    """Run a script where `folder` is a small file system of its own, which only it and its children see."""
    prefix = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o {options} none {folder}"
    probe = subprocess.run([*prefix, "sh", "-c", mount], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs the right to mount a small file system (user namespaces)")
    return subprocess.run([*prefix, "sh", "-c", f"{mount} && {script}"], capture_output=True, text=True, check=False)


def test_a_full_disk_is_one_line_and_breaks_nothing(nbia, tmp_path):
    server = nbia(series=12, side=256, sizes=False)  # no sizes: what does not fit is not known before
    to, copy = tmp_path / "to", tmp_path / "copy"
    to.mkdir()
    words = " ".join(map(repr, command(server, to, "--jobs", "2")))
    done = in_mounted(to, "size=2500k", f"{words}; echo status $?; cp -a {to} {copy}")
    assert done.stdout == "status 1\n"
    assert done.stderr.splitlines()[-1] == (
        f"spicula: cannot write to {to}: No space left on device; check the folder's rights and free space, "
        "then the same command goes on where it stopped"
    )
    assert "Traceback" not in done.stderr
    finished = images_in_place(copy)
    expected = whole(Settings(series=12, side=256))
    assert 0 < len(finished) < len(expected)
    assert finished.items() <= expected.items()
    subprocess.run(command(server, copy), capture_output=True, check=True)
    assert images(copy) == expected
    assert list((copy / ".spicula" / "partial").iterdir()) == []


def images_in_place(to):
    return images(to / "GENERATED")


def test_a_read_only_file_system_is_one_line(nbia, tmp_path):
    server = nbia()
    to = tmp_path / "to"
    to.mkdir()
    words = " ".join(map(repr, command(server, to)))
    done = in_mounted(to, "size=1m,ro", f"{words}; echo status $?")
    assert done.stdout == "status 1\n"
    assert done.stderr == f"spicula: cannot write to {to}/.spicula: Read-only file system; check the folder's rights\n"


def test_a_file_that_is_larger_than_allowed_is_a_failure_of_its_series(nbia, tmp_path):
    server = nbia(series=1, side=512)
    words = " ".join(map(repr, command(server, tmp_path)))
    done = subprocess.run(["bash", "-c", f"ulimit -f 700; {words}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write it: File too large" in done.stdout
    assert images(tmp_path) == {}
    subprocess.run(command(server, tmp_path), capture_output=True, check=True)
    assert images(tmp_path) == whole(Settings(series=1, side=512))


def test_filling_a_mirror_needs_one(tmp_path):
    with pytest.raises(UsageError, match="--fill-mirror needs --mirror URL"):
        acquire.download(Request("tcia:GENERATED", tmp_path, fill_mirror=True))


def test_a_mirror_spares_the_archive(nbia, hasty, tmp_path):
    server = nbia()
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    options = {"server": server.url, "mirror": mirror.as_uri()}
    first = acquire.download(Request("tcia:GENERATED", tmp_path / "a", fill_mirror=True, **options))
    assert {row.source for row in first.rows} == {"upstream"}
    sent = server.sent()
    second = acquire.download(Request("tcia:GENERATED", tmp_path / "b", **options))
    assert {(row.status, row.source) for row in second.rows} == {("complete", "mirror")}
    assert all(row.checks.endswith("SHA-256 by the mirror") for row in second.rows)
    assert server.sent() == sent
    assert images(tmp_path / "b") == whole(Settings())
    # what is damaged in the mirror comes from upstream
    victim = next(mirror.rglob("1-2.dcm"))
    victim.write_bytes(b"x" * victim.stat().st_size)
    third = acquire.download(Request("tcia:GENERATED", tmp_path / "c", **options))
    assert sorted(row.source for row in third.rows) == ["mirror"] * 3 + ["upstream"]
    assert images(tmp_path / "c") == whole(Settings())


def test_no_thread_goes_on_after_an_interrupt(tmp_path, monkeypatch, hasty):
    begun = threading.Event()

    def fetch(folder, tell):
        begun.set()
        while True:
            time.sleep(0.01)
            tell(1)

    def interrupt(meter):
        if begun.is_set():
            raise KeyboardInterrupt

    from spicula.progress import Meter

    monkeypatch.setattr(Meter, "show", interrupt)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run([item("a", fetch=fetch), item("b", fetch=fetch)], tmp_path, jobs=2)
    assert threading.active_count() == before
    assert transfer.PATIENCE is hasty
