"""What a run writes that finds nothing to do: one commit; and one that is killed before it wrote anything: nothing."""

import os
import subprocess
import sys
import time

import pytest
from ledger_runs import exam, run, steps, work
from small_bundle import small_bundle
from small_exams import small_exams

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.exams.driver import bring_up_to_date
from spicula.exams.ledger import Ledger

EXAMS = [exam(name) for name in "abc"]


@pytest.fixture
def workspace(tmp_path):
    """Three exams that are done."""
    run(Ledger.open(tmp_path / "ws", create=True), steps(), EXAMS)
    return tmp_path / "ws"


def commits(workspace) -> dict[str, int]:
    return {
        name: len(list((workspace / name / "_delta_log").glob("*.json")))
        for name in ("exams", "steps", "predictions", "runs")
    }


def added(workspace, before) -> dict[str, int]:
    return {name: count - before[name] for name, count in commits(workspace).items() if count != before[name]}


def no_engine():
    raise AssertionError("an engine was made, with nothing to do")


def test_a_run_with_nothing_to_do_is_one_commit(workspace):
    before = commits(workspace)
    outcome = bring_up_to_date(Ledger.open(workspace), EXAMS, steps(), no_engine, "test")
    assert (outcome.worked_on, outcome.executed) == (0, {})
    assert added(workspace, before) == {"runs": 1}
    rows = [row for row in Ledger.open(workspace).read("runs").to_pylist() if row["run"] == outcome.run]
    assert [row["event"] for row in rows] == ["began", "ended"]
    assert rows[0]["commit"] == rows[1]["commit"]
    assert rows[0]["time"] == rows[1]["time"]


def test_its_configuration_is_what_counts_from_then_on(workspace):
    ledger = Ledger.open(workspace)
    older = steps()[:3]  # all of it is done
    assert ledger.status()["run"]["engine"] == "test"
    outcome = bring_up_to_date(ledger, EXAMS, older, no_engine, "another")
    status = Ledger.open(workspace).status()
    assert list(status["steps"]) == [step.name for step in older]
    assert (status["run"]["run"], status["run"]["engine"]) == (outcome.run, "another")
    assert status["run"]["began"] == status["run"]["ended"]
    assert status["run"]["summary"]["executed"] == {}


def test_a_run_that_is_killed_before_it_writes_anything_leaves_nothing(workspace):
    before, ledger = commits(workspace), Ledger.open(workspace)
    ledger.begin_run(steps(patch="patch 2"), "test", wait=True)
    assert added(workspace, before) == {}
    assert Ledger.open(workspace).configuration() == tuple(steps())


def test_a_run_that_takes_in_an_exam_is_there_before_the_exam(workspace):
    before, ledger = commits(workspace), Ledger.open(workspace)
    name = ledger.begin_run(steps(), "test", wait=True)
    assert ledger.add_exams(EXAMS, name) == 0
    assert added(workspace, before) == {}
    assert ledger.add_exams([*EXAMS, exam("d")], name) == 1
    assert added(workspace, before) == {"exams": 1, "runs": 1}
    began, taken = ledger.read("runs").to_pylist()[-1], ledger.read("exams").to_pylist()[-1]
    assert (began["event"], began["run"], taken["run"]) == ("began", name, name)
    assert began["time"] <= taken["time"]
    ledger.end_run(name, {})
    assert [row["event"] for row in ledger.read("runs").to_pylist() if row["run"] == name] == ["began", "ended"]


def test_a_run_that_commits_results_is_there_before_them(workspace):
    newer = steps(patch="patch 2")
    ledger = Ledger.open(workspace)
    name = ledger.begin_run(newer, "test", wait=True)
    results = list(work(ledger.plan(newer).left, newer))
    before = commits(workspace)
    ledger.commit(results[:1], {step.name: step for step in newer}, name, "test")
    assert added(workspace, before)["runs"] == 1
    assert Ledger.open(workspace).configuration() == tuple(newer)


def test_an_exam_that_another_run_takes_in_meanwhile_is_there_once(workspace):
    one, other = Ledger.open(workspace), Ledger.open(workspace)
    name = one.begin_run(steps(), "test", wait=True)
    note, taken = one.note_begin, []

    def note_late(run_id):  # the other one comes between the look at the table and the note
        taken.append(other.add_exams([exam("d")], other.begin_run(steps(), "other", wait=True)))
        note(run_id)

    one.note_begin = note_late
    assert one.add_exams([exam("d"), exam("e")], name) == 1
    assert taken == [1]
    assert sorted(row["exam_id"] for row in one.read("exams").to_pylist()) == ["a", "b", "c", "d", "e"]


def test_many_runs_with_nothing_to_do_leave_few_files(workspace, monkeypatch):
    from spicula.exams.ledger import storage

    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 5)
    for _ in range(12):
        bring_up_to_date(Ledger.open(workspace), EXAMS, steps(), no_engine, "test")
    ledger = Ledger.open(workspace)
    assert len(ledger.read("runs")) == 2 * 13
    assert len(ledger._tables["runs"]._delta.file_uris()) <= 5


def in_new_process(code, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_run_with_nothing_to_do_imports_nothing_that_only_work_needs(tmp_path):
    pytest.importorskip("openvino", reason="the networks need the extra exams")
    source, bundle = small_exams(tmp_path / "in", range(2)), small_bundle(tmp_path / "bundle")
    for path in source.rglob("*.png"):  # files that changed in the last seconds are read again
        os.utime(path, (1_700_000_000, 1_700_000_000))
    arguments = ("exams", "run", str(source), "--workspace", str(tmp_path / "ws"), "--bundle", str(bundle))
    code = (
        "import sys; from spicula.cli import main; assert main(sys.argv[1:]) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    first = in_new_process(code, *arguments)
    assert first.returncode == 0, first.stderr
    second = in_new_process(code, *arguments)
    assert "2 exams: nothing left to do" in second.stdout
    work_only = {"pandas", "cv2", "onnx", "onnxruntime", "openvino", "torch", "ray", "scipy", "PIL", "pydicom"}
    assert set(second.stdout.splitlines()[-1].split()) & work_only == set()


def test_pandas_is_left_out_and_comes_when_asked_for():
    pytest.importorskip("pandas", reason="the point is to leave it out where it is installed")
    code = (
        "import sys; from spicula.cli.exams.starting import leave_out_pandas; leave_out_pandas()\n"
        "import pyarrow as pa; table = pa.table({'a': [1, 2]}); assert 'pandas' not in sys.modules\n"
        "assert list(table.to_pandas()['a']) == [1, 2]; series = sys.modules['pandas'].Series([1])\n"
        "assert pa.array(series).to_pylist() == [1]"
    )
    done = in_new_process(code)
    assert done.returncode == 0, done.stderr


def test_two_processes_that_put_files_together_at_once_double_nothing(workspace, monkeypatch):
    """Of two that looked at the same files the library lets both replace them, unless something makes them conflict."""
    from spicula.exams.ledger import storage

    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 3)
    for name in "def":
        run(Ledger.open(workspace), steps(), [exam(name)])
    ledgers = [Ledger.open(workspace) for _ in range(3)]
    before = {name: len(ledgers[0].read(name)) for name in ("exams", "steps", "predictions", "runs")}
    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 1)
    for name, count in before.items():
        for ledger in ledgers:
            ledger._tables[name].tidy()
        assert [len(ledger.read(name)) for ledger in ledgers] == [count] * 3, name
    for ledger in ledgers:  # and all of them go on: of six exams two steps use that model
        run(ledger, steps(patch="patch 2"))
    assert len(Ledger.open(workspace).read("steps")) == before["steps"] + 6 * 2


def test_who_was_killed_while_putting_files_together_is_waited_for_an_hour(workspace, monkeypatch):
    from spicula.exams.ledger import storage

    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 2)
    run(Ledger.open(workspace), steps(patch="patch 2"))
    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 1)
    table = Ledger.open(workspace)._tables["steps"]
    table._mark_tidying(int(time.time()))
    other = Ledger.open(workspace)._tables["steps"]
    other.tidy()
    assert len(other._delta.file_uris()) == 2
    other._mark_tidying(int(time.time()) - storage.TIDYING_SECONDS - 1)
    other.tidy()
    assert len(other._delta.file_uris()) == 1
    assert other._delta.transaction_version(storage.TIDYING) == 0
