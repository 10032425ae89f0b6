"""Watching folders: what is whole, what is waited for, what is picked up again; models; the loop as a real process."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from exam_dicoms import CANARIES, VIEWS, mammogram, study
from small_bundle import small_bundle
from small_exams import NAMES, small_exam, small_exams

from spicula import stores
from spicula.errors import SpiculaError, UsageError
from spicula.exams.watching import ModelState, Patience, State, hand_on_models, scan, scan_models, watch

PATIENCE = Patience(settle=10, timeout=600)


class Looker:
    """Looks at a folder at the times that a test says, and hands on what arrives."""

    def __init__(self, folder, patience=PATIENCE):
        self.folder, self.patience, self.state = folder, patience, State()
        folder.mkdir(exist_ok=True)

    def at(self, now):
        found = scan(self.folder, self.state, now, self.patience)
        self.state.hand_on(found.arrived + found.refused)
        arrived = [exam.exam_id for exam in found.arrived]
        return arrived, {exam.exam_id: exam.refusal for exam in found.refused}, found.waiting


@pytest.fixture
def looker(tmp_path):
    return Looker(tmp_path / "in")


def test_an_exam_arrives_once_when_its_files_have_settled(looker):
    assert looker.at(0) == ([], {}, {})
    small_exam(looker.folder / "a", 1)
    assert looker.at(100) == ([], {}, {})
    assert looker.at(109) == ([], {}, {})
    assert looker.at(110) == (["a"], {}, {})
    assert looker.at(120) == ([], {}, {})
    small_exam(looker.folder / "b", 2)
    looker.at(130)
    assert looker.at(140) == (["b"], {}, {})


def test_a_file_that_grows_is_waited_for(looker):
    small_exam(looker.folder / "a", 1)
    whole = (looker.folder / "a/R_MLO.png").read_bytes()
    for now, share in ((0, 0.2), (8, 0.5), (16, 0.9), (24, 1)):
        (looker.folder / "a/R_MLO.png").write_bytes(whole[: int(len(whole) * share)])
        arrived, refused, _ = looker.at(now)
        assert (arrived, refused) == ([], {})
    assert looker.at(33)[0] == []
    assert looker.at(34)[0] == ["a"]


def test_nothing_is_handed_on_while_files_beside_it_are_written(looker):
    small_exam(looker.folder / "a", 1)
    looker.at(0)
    shutil.copy(looker.folder / "a/L_CC.png", looker.folder / "a/L_CC_2.png")
    (looker.folder / "a/series").mkdir()
    assert looker.at(12) == ([], {}, {"a": "files beside it are still being written"})
    (looker.folder / "a/series/more").write_bytes(b"x")
    assert looker.at(23) == ([], {}, {"a": "files beside it are still being written"})
    assert looker.at(33)[0] == ["a"]


def test_a_folder_of_many_exams_holds_none_of_them_back(looker):
    study(looker.folder, 1)
    for path in list(looker.folder.iterdir()):
        path.rename(path.with_name(f"first-{path.name}"))
    looker.at(0)
    study(looker.folder, 2)
    for now in (10, 11):
        arrived, _, waiting = looker.at(now)
        assert arrived == []  # the only exam that can be told yet; the other may be part of it
        assert waiting == {"1.2.826.0.2.1": "files beside it are still being written"}
    assert sorted(looker.at(20)[0]) == ["1.2.826.0.2.1", "1.2.826.0.2.2"]
    mammogram(looker.folder / "third", "3.1", "L", "CC")
    looker.at(30)
    mammogram(looker.folder / "fourth", "4.1", "L", "CC")
    assert looker.at(40)[2] == {"1.2.826.0.2.3": "no R-CC, L-MLO, R-MLO yet"}


def test_a_missing_view_is_waited_for_and_then_refused(looker):
    small_exam(looker.folder / "a", 1, NAMES[:3])
    looker.at(0)
    assert looker.at(10) == ([], {}, {"a": "no R-MLO yet"})
    assert looker.at(609) == ([], {}, {"a": "no R-MLO yet"})
    assert looker.at(610) == ([], {"a": "no R-MLO after 600 s"}, {})
    assert looker.at(2000) == ([], {}, {})
    small_exam(looker.folder / "a", 1)
    looker.at(2010)
    assert looker.at(2020) == (["a"], {}, {})


def test_every_new_view_starts_the_wait_anew(looker):
    small_exam(looker.folder / "a", 1, NAMES[:2])
    looker.at(0)
    looker.at(10)
    small_exam(looker.folder / "a", 1, NAMES[2:3])
    looker.at(500)
    looker.at(510)
    assert looker.at(1109)[1] == {}
    assert looker.at(1110)[1] == {"a": "no R-MLO after 600 s"}


def test_single_images_are_not_waited_for(tmp_path):
    looker = Looker(tmp_path / "in", Patience(settle=10, timeout=600, single_image=True))
    small_exam(looker.folder / "a", 1, NAMES[:1])
    looker.at(0)
    assert looker.at(10) == (["a"], {}, {})


def test_contradictions_are_refused_without_waiting(looker):
    study(looker.folder / "a", 1)
    mammogram(looker.folder / "a/IM-R-MLO", "1.4", "R", "MLO", PatientID="another")
    looker.at(0)
    assert looker.at(10)[1] == {"1.2.826.0.2.1": "its images are of 2 patients"}


def test_a_new_or_changed_image_brings_an_exam_again(looker):
    small_exams(looker.folder, range(3))
    looker.at(0)
    assert looker.at(10)[0] == ["exam-0000", "exam-0001", "exam-0002"]
    shutil.copy(looker.folder / "exam-0000/L_CC.png", looker.folder / "exam-0001/R_MLO_2.png")
    looker.at(20)
    assert looker.at(30)[0] == ["exam-0001"]
    small_exam(looker.folder / "exam-0002", 9, ("L_CC",))
    assert looker.at(40) == ([], {}, {"exam-0002": "files beside it are still being written"})
    assert looker.at(50)[0] == ["exam-0002"]
    os.utime(looker.folder / "exam-0000/L_CC.png")  # the same content
    looker.at(60)
    assert looker.at(70) == ([], {}, {})


def test_an_exam_that_went_and_came_back_arrives_again(looker, tmp_path):
    small_exam(looker.folder / "a", 1)
    looker.at(0)
    assert looker.at(10)[0] == ["a"]
    (looker.folder / "a").rename(tmp_path / "away")
    assert looker.at(20) == ([], {}, {})
    (tmp_path / "away").rename(looker.folder / "a")
    looker.at(30)
    assert looker.at(40)[0] == ["a"]


def test_what_was_not_handed_on_arrives_again(looker):
    small_exam(looker.folder / "a", 1)
    for now, arrived in ((0, []), (10, ["a"]), (20, ["a"])):
        found = scan(looker.folder, looker.state, now, PATIENCE)
        assert [exam.exam_id for exam in found.arrived] == arrived
    looker.state.hand_on(found.arrived)
    assert looker.at(30)[0] == []


def test_temporary_names_are_passed_over_and_problems_told_once(looker):
    small_exam(looker.folder / "a", 1)
    shutil.copytree(looker.folder / "a", looker.folder / ".part-b")
    shutil.copytree(looker.folder / "a", looker.folder / "c.tmp")
    shutil.copy(looker.folder / "a/L_CC.png", looker.folder / "a/L_CC_2.png.part")
    (looker.folder / "broken").write_bytes(b"noise")
    scan(looker.folder, looker.state, 0, PATIENCE)
    found = scan(looker.folder, looker.state, 10, PATIENCE)
    assert [exam.exam_id for exam in found.arrived] == ["a"]
    assert len(found.arrived[0].images) == 4
    assert [problem["path"] for problem in found.problems] == ["broken"]
    assert scan(looker.folder, looker.state, 20, PATIENCE).problems == []
    (looker.folder / "a/L_CC_2.png.part").rename(looker.folder / "a/L_CC_2.png")
    scan(looker.folder, looker.state, 30, PATIENCE)
    found = scan(looker.folder, looker.state, 40, PATIENCE)
    assert (found.arrived[0].notes, found.problems) == (("L_CC_2 (L-CC) is set aside: a copy of L_CC",), [])


# buckets


@pytest.fixture
def bucket(s3_store, tmp_path):
    """Looks at a prefix of a bucket at the times that a test says, and hands on what arrives."""
    stores.shared.cache_clear()
    looker = Looker(tmp_path / "in")
    looker.folder = f"{s3_store.address}/in"
    return looker


def test_exams_in_a_bucket_arrive_as_in_a_folder(bucket, s3_store, tmp_path):
    assert bucket.at(0) == ([], {}, {})
    s3_store.upload(small_exam(tmp_path / "a", 1), "in/a")
    s3_store.upload(small_exam(tmp_path / "b", 2, NAMES[:3]), "in/b")
    assert bucket.at(100) == ([], {}, {})
    assert bucket.at(110) == (["a"], {}, {"b": "no R-MLO yet"})
    s3_store.record()
    assert bucket.at(120) == ([], {}, {"b": "no R-MLO yet"})
    assert s3_store.fetched() == []
    s3_store.upload(small_exam(tmp_path / "c", 3), "in/c")
    assert bucket.at(130) == ([], {}, {"b": "no R-MLO yet"})
    assert bucket.at(140)[0] == ["c"]
    assert bucket.at(710) == ([], {"b": "no R-MLO after 600 s"}, {})
    s3_store.put("in/a/L_CC.png", (tmp_path / "c/R_CC.png").read_bytes())
    assert bucket.at(720) == ([], {}, {"a": "files beside it are still being written"})
    s3_store.record()
    assert bucket.at(730)[0] == ["a"]
    assert s3_store.fetched() == ["in/a/L_CC.png"]


def test_what_could_not_be_read_is_tried_again_though_nothing_changed(bucket, s3_store, tmp_path, monkeypatch):
    s3_store.upload(small_exam(tmp_path / "a", 1), "in/a")
    fetched, refused = stores.fetched, ["R_MLO.png"]

    def fetch(address, suffix=""):
        if address.rpartition("/")[2] in refused:
            raise PermissionError
        return fetched(address, suffix)

    monkeypatch.setattr(stores, "fetched", fetch)
    bucket.at(0)
    assert bucket.at(10)[2] == {"a": "no R-MLO yet"}
    refused.clear()
    assert bucket.at(20)[0] == ["a"]


def test_a_bucket_that_cannot_be_reached_for_a_while_ends_nothing(bucket, s3_store, tmp_path, monkeypatch, capsys):
    s3_store.upload(small_exam(tmp_path / "a", 1), "in/a")
    objects, failures = stores.objects, [SpiculaError("s3://x cannot be listed: TimeoutError")] * 2
    monkeypatch.setattr(stores, "objects", lambda place: fail(failures.pop()) if failures else objects(place))
    calls = run_until(bucket.folder, bool)
    assert [exam.exam_id for exam in calls[0].exams] == ["a"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"watching {bucket.folder}; end with Ctrl-C"
    assert lines[1] == "spicula: s3://x cannot be listed: TimeoutError; trying again every 0.1 s"
    assert not lines[2].startswith("spicula: ")


def fail(error):
    raise error


def test_a_bucket_that_is_not_there_is_no_place_to_watch(bucket):
    with pytest.raises(UsageError, match="there is no bucket s3://no-such-bucket-at-all"):
        watch("s3://no-such-bucket-at-all/in", lambda arrivals: None, stop=lambda: False)


# models


def look(folder, state, now):
    found = scan_models(folder, state, now, settle=10)
    hand_on_models(state, found)
    names = [[path.name for path in paths] for paths in (found.arrived, found.whole)]
    return (*names, [Path(problem["path"]).name for problem in found.problems])


def test_whole_bundles_are_picked_up_and_half_ones_told_once(tmp_path):
    models, state = tmp_path / "models", ModelState()
    small_bundle(models / "first")
    small_bundle(tmp_path / "source", seed=1)
    shutil.copytree(tmp_path / "source", models / ".part-second")
    (models / "README").write_text("x")
    assert look(models, state, 0) == ([], [], [])
    assert look(models, state, 10) == (["first"], ["first"], [])
    assert look(models, state, 20) == ([], ["first"], [])
    (models / "second").mkdir()
    for number, file in enumerate(sorted((tmp_path / "source").iterdir(), reverse=True)):
        shutil.copy(file, models / "second")
        assert look(models, state, 30 + 5 * number) == ([], ["first"], [])
    now = 30 + 5 * number + 10
    assert look(models, state, now) == (["second"], ["first", "second"], [])


def test_a_broken_bundle_is_tried_again_when_it_changes(tmp_path):
    models, state = tmp_path / "models", ModelState()
    small_bundle(models / "one")
    card = (models / "one/MODEL_CARD.md").read_bytes()
    (models / "one/MODEL_CARD.md").unlink()
    look(models, state, 0)
    found = scan_models(models, state, 10, settle=10)
    assert (found.whole, [Path(problem["path"]).name for problem in found.problems]) == ([], ["one"])
    assert "MODEL_CARD.md is missing" in found.problems[0]["reason"]
    assert look(models, state, 20) == ([], [], [])
    (models / "one/MODEL_CARD.md").write_bytes(card)
    look(models, state, 30)
    assert look(models, state, 40) == (["one"], ["one"], [])


def test_a_bundle_that_is_replaced_arrives_again(tmp_path):
    models, state = tmp_path / "models", ModelState()
    small_bundle(models / "one")
    look(models, state, 0)
    assert look(models, state, 10)[0] == ["one"]
    shutil.rmtree(models / "one")
    small_bundle(models / "one", seed=5)
    look(models, state, 20)
    assert look(models, state, 30) == (["one"], ["one"], [])
    shutil.rmtree(models / "one")
    assert look(models, state, 40) == ([], [], [])


def test_a_folder_of_models_is_not_a_bundle(tmp_path):
    small_bundle(tmp_path / "one")
    with pytest.raises(UsageError, match="is a bundle; name the folder that it lies in"):
        scan_models(tmp_path / "one", ModelState(), 0, 10)
    with pytest.raises(UsageError, match="no folder of models"):
        scan_models(tmp_path / "missing", ModelState(), 0, 10)


# the loop

QUICK = Patience(settle=0.3, timeout=2.0)


def run_until(folder, is_done, handle=None, seconds=60, **options):
    """Watch until what arrived is enough; return it, one entry a call of `handle`."""
    calls, end = [], time.monotonic() + seconds

    def take(arrivals):
        if handle is not None:
            handle(arrivals)
        calls.append(arrivals)

    watch(
        folder,
        take,
        patience=options.pop("patience", QUICK),
        every=0.1,
        stop=lambda: is_done(calls) or time.monotonic() > end,
        **options,
    )
    assert is_done(calls), "nothing arrived in time"
    return calls


WRITER = """
    import sys, time
    from pathlib import Path

    source, to = map(Path, sys.argv[1:])
    (to / "slow").mkdir()
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        with (to / "slow" / path.name).open("wb") as stream:
            for at in range(0, len(data), len(data) // 4 + 1):
                stream.write(data[at : at + len(data) // 4 + 1])
                stream.flush()
                time.sleep(0.15)
"""


def test_an_exam_that_another_process_writes_slowly_arrives_whole(tmp_path):
    source, folder = small_exam(tmp_path / "source", 1), tmp_path / "in"
    folder.mkdir()
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(source), str(folder)])
    try:
        calls = run_until(folder, bool, patience=Patience(settle=2.0, timeout=60))
    finally:
        assert writer.wait() == 0
    (exam,) = calls[0].exams
    assert (exam.exam_id, exam.refusal, len(exam.images)) == ("slow", None, 4)
    for image in exam.images:
        assert Path(image.path).read_bytes() == (source / Path(image.path).name).read_bytes()


def test_lines_are_said_for_what_is_picked_up_and_patients_are_not_named(tmp_path, capsys):
    study(tmp_path / "in/a", 1)
    study(tmp_path / "in/b", 2, VIEWS[:3])
    mammogram(tmp_path / "in/c", "3.1", "L", "CC", ViewPosition="CANARY^NAME")
    calls = run_until(tmp_path / "in", lambda calls: sum(len(call.exams) for call in calls) == 3)
    assert [len(call.present) for call in calls][-1] == 3
    said = capsys.readouterr().err
    assert said.splitlines()[0] == f"watching {tmp_path / 'in'}; end with Ctrl-C"
    assert "exam 1.2.826.0.2.1: 4 images" in said
    assert "exam 1.2.826.0.2.2: refused: no R-MLO after 2 s" in said
    assert said.count("c: names no view") == 1
    assert [canary for canary in CANARIES if canary in said + repr(calls)] == []


def test_many_exams_are_not_many_lines(tmp_path, capsys):
    small_exams(tmp_path / "in", range(30))
    run_until(tmp_path / "in", bool)
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("exam exam-") for line in lines) == 20
    assert "and 10 more exams" in lines


def test_what_fails_is_handed_on_again(tmp_path, capsys):
    small_exam(tmp_path / "in/a", 1)
    tries = []

    def handle(arrivals):
        tries.append(arrivals)
        if len(tries) < 3:
            raise SpiculaError("the store is out of reach")

    calls = run_until(tmp_path / "in", bool, handle)
    assert len(tries) == 3
    assert [exam.exam_id for exam in calls[0].exams] == ["a"]
    said = capsys.readouterr().err
    assert said.count("the store is out of reach; trying again every 0.1 s") == 1
    assert said.count("exam a: 4 images") == 1

    def refuse(arrivals):
        raise UsageError("no such engine")

    with pytest.raises(UsageError, match="no such engine"):
        run_until(tmp_path / "in", bool, refuse)


def test_a_folder_that_goes_away_for_a_while_ends_nothing(tmp_path, capsys):
    folder, away = tmp_path / "in", tmp_path / "away"
    with pytest.raises(UsageError, match=r"no folder .* to watch"):
        watch(folder, lambda arrivals: None)
    small_exam(folder / "a", 1)

    def come_back():
        small_exam(away / "b", 2)
        away.rename(folder)

    def lose(arrivals):
        if not away.exists() and not (folder / "b").exists():
            folder.rename(away)
            threading.Timer(0.7, come_back).start()

    calls = run_until(folder, lambda calls: len(calls) == 2, lose)
    assert [exam.exam_id for call in calls for exam in call.exams] == ["a", "b"]
    assert capsys.readouterr().err.count(f"spicula: cannot list {folder}") == 1


def test_a_new_model_comes_with_all_exams(tmp_path, capsys):
    small_exam(tmp_path / "in/a", 1)
    small_exam(tmp_path / "in/b", 2, NAMES[:2])
    small_bundle(tmp_path / "models/first")

    def handle(arrivals):
        if any(exam.exam_id == "b" for exam in arrivals.exams):
            small_bundle(tmp_path / "made", seed=1)
            (tmp_path / "made").rename(tmp_path / "models/second")

    def is_done(calls):
        return any(path.name == "second" for call in calls for path in call.models)

    last = run_until(tmp_path / "in", is_done, handle, models=tmp_path / "models")[-1]
    assert [path.name for path in last.bundles] == ["first", "second"]
    assert {exam.exam_id: exam.refusal for exam in last.present} == {"a": None, "b": "no L-MLO, R-MLO after 2 s"}
    assert last.exams == []
    assert "model second" in capsys.readouterr().err


LOOP = """
    import sys
    from pathlib import Path
    from spicula.exams.watching import Patience, watch

    def handle(arrivals):
        print(*(exam.exam_id for exam in arrivals.exams), flush=True)

    watch(Path(sys.argv[1]), handle, patience=Patience(settle=0.2), every=0.1)
    print("ended", flush=True)
"""


def test_ctrl_c_ends_it_cleanly(tmp_path):
    small_exam(tmp_path / "in/a", 1)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LOOP), str(tmp_path / "in")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "a\n"
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ended\n")
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"no longer watching {tmp_path / 'in'}"


# with the ledger


@pytest.mark.slow
def test_a_restart_repeats_nothing_and_a_new_model_is_used_on_all(tmp_path, capsys):
    deltalake = pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
    pytest.importorskip("openvino", reason="the networks need the extra exams")
    from spicula import exams
    from spicula.exams import models

    folder, workspace = small_exams(tmp_path / "in", range(2)), tmp_path / "ws"
    small_exam(folder / "partial", 9, NAMES[:2])
    small_bundle(tmp_path / "models/first", heatmaps=False)

    def steps():
        if not (workspace / "steps").exists():
            return []
        return deltalake.DeltaTable(str(workspace / "steps")).to_pyarrow_table().to_pylist()

    def watch_until(is_done):
        end = time.monotonic() + 120
        exams.watch(
            folder,
            workspace,
            lambda bundles: models.load(bundles[-1]),
            exams.EngineOptions(cpu_workers=1, model_workers=1, streams=1),
            models=tmp_path / "models",
            patience=QUICK,
            every=0.1,
            stop=lambda: is_done() or time.monotonic() > end,
        )
        assert is_done(), "it took too long"
        return capsys.readouterr().err

    said: list[str] = []
    said.append(watch_until(lambda: len(steps()) == 6))
    assert {(row["exam_id"], row["status"]) for row in steps()} == {("exam-0000", "ok"), ("exam-0001", "ok")}

    stop_at = time.monotonic() + 8  # longer than the time-out for the exam that is not whole
    said.append(watch_until(lambda: time.monotonic() > stop_at))
    assert len(steps()) == 6
    assert "exam partial: refused: no L-MLO, R-MLO after 2 s" in said[-1]
    assert "exam exam-0000: 4 images" in said[-1]

    small_bundle(tmp_path / "models/second", heatmaps=False, image_seed=3)
    watch_until(lambda: len(steps()) == 8)
    new = steps()
    assert (
        sorted(row["exam_id"] for row in new if row["step"] == "classify:image-only")
        == ["exam-0000"] * 2 + ["exam-0001"] * 2
    )
