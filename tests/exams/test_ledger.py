"""The ledger of a workspace: opening, taking in, committing, and what is left and why."""

import math
import os
import sys
from collections import Counter
from dataclasses import replace

import pytest
from ledger_runs import digest, exam, result, run, steps, work

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.errors import SpiculaError, UsageError
from spicula.exams.ledger import Ledger, storage
from spicula.exams.steps import images_digest, key_of

ALL = {"crop", "centers", "heatmaps", "classify:image-only", "classify:both"}


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "ws", create=True)


def by_name(configuration):
    return {step.name: step for step in configuration}


def counts(ledger, configuration=None):
    """Per step, the numbers that are not 0."""
    found = ledger.status(configuration)["steps"]
    return {step: {name: value for name, value in count.items() if value} for step, count in found.items()}


# opening


def test_where_there_is_none_the_way_to_make_one_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no workspace at .*ws; make one with: spicula exams run DIR --workspace"):
        Ledger.open(tmp_path / "ws")
    assert not (tmp_path / "ws").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(SpiculaError, match=r"holds something else \(thesis.doc\); choose an empty folder"):
        Ledger.open(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]
    with pytest.raises(SpiculaError, match="is a file; a workspace is a folder"):
        Ledger.open(tmp_path / "thesis.doc", create=True)


def test_what_a_kill_left_of_making_one_is_completed(tmp_path):
    Ledger.open(tmp_path, create=True)
    (tmp_path / "runs").rename(tmp_path / ".runs")
    with pytest.raises(UsageError, match="no workspace"):
        Ledger.open(tmp_path)
    assert Ledger.open(tmp_path, create=True).status()["exams"] == 0


def test_a_table_of_another_version_is_refused(tmp_path):
    from deltalake import DeltaTable

    Ledger.open(tmp_path, create=True)
    for path in sorted((tmp_path / "exams").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    import pyarrow as pa

    DeltaTable.create(str(tmp_path / "exams"), pa.schema([("exam", pa.string())]))
    with pytest.raises(SpiculaError, match="exams was not made by this version of Spicula: its columns are exam;"):
        Ledger.open(tmp_path)


def test_a_damaged_table_is_one_line(tmp_path):
    ledger = Ledger.open(tmp_path, create=True)
    run(ledger, steps(), [exam("a")])
    for path in (tmp_path / "steps" / "_delta_log").iterdir():
        path.write_text("{")
    with pytest.raises(SpiculaError, match="steps cannot be read: ") as error:
        Ledger.open(tmp_path).status()
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["über exams #1", 'it\'s "quoted"', "a?b&c+d", "漢字"])
def test_odd_names_of_workspaces(tmp_path, name):
    ledger = Ledger.open(tmp_path / name, create=True)
    assert run(ledger, steps(), [exam("a")]) == dict.fromkeys(ALL, 1)
    assert Ledger.open(tmp_path / name).status()["exams"] == 1


@pytest.mark.parametrize("name", ["50%41", "[a]", "a|b", "a\nb", "a^b", "a\\b"])
def test_names_that_the_library_reads_as_others_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="Delta tables cannot lie where the path has"):
        Ledger.open(tmp_path / name, create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_workspace_is_one_line(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "ws").mkdir(mode=0o500)
    with pytest.raises(SpiculaError, match="cannot be written"):
        Ledger.open(tmp_path / "ws", create=True)


def test_a_full_disk_is_one_line(ledger, monkeypatch):
    """The library's own error, as it comes from a full disk, becomes a message that names table and way out."""
    import deltalake

    def full(*args, **options):
        raise OSError("Generic LocalFileSystem error\n ↳ No space left on device (os error 28)")

    monkeypatch.setattr(deltalake, "write_deltalake", full)
    with pytest.raises(SpiculaError, match=r"exams cannot be written: .*No space left.*; check .* the free space"):
        ledger.add_exams([exam("a")], "r")


def test_a_full_disk_is_the_same_line_every_time_and_threads_of_the_library_add_none(ledger, monkeypatch, capfd):
    import deltalake

    name = "exams/part-00000-35684eb0-4b5c-4a70-9c80-9d72b665aab3-c000.zstd.parquet#1"

    def full(*args, **options):
        os.write(2, b"thread 'tokio-rt-worker' panicked at buffered.rs: Already shut down")
        raise OSError(f"Unable to open file {ledger.place}/{name}: Read-only file system")

    monkeypatch.setattr(deltalake, "write_deltalake", full)
    with pytest.raises(SpiculaError, match="Read-only file system") as caught:
        ledger.add_exams([exam("a")], "r")
    assert "part-" not in str(caught.value)
    os.write(2, b"what others say")
    assert capfd.readouterr().err == "what others say"


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(UsageError, match=r"needs deltalake: pip install 'spicula\[exams\]'"):
        Ledger.open(tmp_path)


# exams


def test_unchanged_exams_write_nothing(ledger):
    exams = [exam("a"), exam("b", refusal="there is no R-MLO"), exam("c", notes=("two images left out",))]
    assert ledger.add_exams(exams, "r") == 3
    assert ledger.add_exams(exams, "r") == 0
    version = len(ledger.read("exams"))
    moved = exam("a", folder="/elsewhere")
    assert ledger.add_exams([moved, exam("b"), exam("c"), exam("d")], "r") == 4
    assert len(ledger.read("exams")) == version + 4
    assert ledger.status()["exams"] == 4
    assert ledger.status()["refused"] == 0


def test_an_exam_keeps_all_that_is_known_of_its_images(ledger):
    one = exam("a")
    images = tuple(
        replace(image, frame=n, mirrored=mirrored)
        for n, (image, mirrored) in enumerate(zip(one.images, (None, True, False, None), strict=True))
    )
    ledger.add_exams([replace(one, images=images)], "r")
    (left,) = ledger.plan(steps()).left
    assert left.images == [image.as_json() for image in images]
    assert left.digest == images_digest(left.images)
    assert left.known == {}


def test_one_id_twice_is_refused(ledger):
    with pytest.raises(SpiculaError, match="exam b was given twice"):
        ledger.add_exams([exam("a"), exam("b"), exam("b", pixels=1)], "r")
    assert ledger.status()["exams"] == 0


@pytest.mark.parametrize("name", ["it's", 'a "b"', "ü/漢/😀", "a\\b", "%00", "' OR 1=1 --", " ", "a\nb"])
def test_odd_exam_ids(ledger, name):
    assert run(ledger, steps(), [exam(name), exam("plain")]) == dict.fromkeys(ALL, 2)
    assert len(ledger.plan(steps()).left) == 0
    assert ledger.show(name)["exam"]["exam_id"] == name
    assert len(ledger.history(name)) == 6
    assert [one.exam_id for one in ledger.plan(steps(crop=2), [name]).left] == [name]
    assert Counter(ledger.predictions()["exam_id"].to_pylist()) == {name: 8, "plain": 8}
    assert ledger.diff("both", "image-only").num_rows == 8


# what is left, and why


def test_every_reason_is_named(ledger):
    assert counts(ledger) == {}
    assert ledger.status()["run"] is None
    run(ledger, steps(), [exam(name) for name in "abc"])
    ledger.add_exams([exam("d"), exam("a", pixels=1), exam("e", refusal="two views are missing")], "r")
    assert counts(ledger) == {
        "crop": {"done": 2, "blocked": 1, "left": 2, "why": {"new": 1, "changed image": 1}},
        **{name: {"done": 2, "blocked": 1, "left": 2, "why": {"waiting for upstream": 2}} for name in ALL - {"crop"}},
    }
    assert run(ledger, steps(), [exam("a", pixels=1), exam("d")]) == dict.fromkeys(ALL, 2)
    assert counts(ledger) == {name: {"done": 4, "blocked": 1} for name in ALL}
    assert counts(ledger, steps(patch="patch 2")) == {
        **{name: {"done": 4, "blocked": 1} for name in ALL - {"heatmaps", "classify:both"}},
        "heatmaps": {"left": 4, "blocked": 1, "why": {"new model": 4}},
        "classify:both": {"left": 4, "blocked": 1, "why": {"waiting for upstream": 4}},
    }
    assert counts(ledger, steps(centers=2))["centers"]["why"] == {"new stage version": 4}
    wider = [replace(step, parameters={"window": 4}) for step in steps()]
    assert counts(ledger, wider)["crop"]["why"] == {"new parameters": 4}


def test_a_step_whose_input_changed_says_so(ledger):
    """The run with the new patch model was killed after the heatmaps."""
    run(ledger, steps(), [exam("a")])
    newer = steps(patch="patch 2")
    results = list(work(ledger.plan(newer).left, newer))
    name = ledger.begin_run(newer, "test")
    ledger.commit([one for one in results if one.record["step"] == "heatmaps"], by_name(newer), name, "test")
    assert counts(ledger)["classify:both"] == {"left": 1, "why": {"changed input": 1}}


def test_a_model_that_was_there_before_is_all_hits(ledger):
    run(ledger, steps(), [exam("a")])
    assert run(ledger, steps(patch="patch 2")) == {"heatmaps": 1, "classify:both": 1}
    assert run(ledger, steps()) == {}


def test_a_new_version_with_equal_output_reruns_nothing_downstream(ledger):
    run(ledger, steps(), [exam(name) for name in "abc"])
    assert run(ledger, steps(centers=2)) == {"centers": 3}
    assert counts(ledger) == {name: {"done": 3} for name in ALL}


def test_what_failed_is_kept_and_tried_again_only_when_asked(ledger):
    def poison(exam_id, step):
        return "failed" if (exam_id, step.name) == ("b", "heatmaps") else "ok"

    run(ledger, steps(), [exam(name) for name in "ab"], poison)
    assert counts(ledger)["heatmaps"] == {"done": 1, "failed": 1}
    assert counts(ledger)["classify:both"] == {"done": 1, "blocked": 1}
    assert counts(ledger)["classify:image-only"] == {"done": 2}
    assert len(ledger.plan(steps()).left) == 0
    plan = ledger.plan(steps(), retry_failed=True)
    assert [one.exam_id for one in plan.left] == ["b"]
    assert plan.counts["heatmaps"].why == {"failed": 1}
    assert plan.counts["classify:both"].why == {"waiting for upstream": 1}
    (problem,) = ledger.problems()
    assert problem == {
        "exam_id": "b",
        "step": "heatmaps",
        "status": "failed",
        "error": "because failed",
        "attempts": 1,
    }

    (left,) = plan.left
    crop = next(outputs for key, (_, outputs) in left.known.items() if key == key_of_crop(left))
    step = by_name(steps())["heatmaps"]
    again = result("b", step, [crop], left.digest, "failed", error="a second time", attempts=3)
    assert ledger.commit([again], by_name(steps()), "r", "test") == 1
    assert [problem["error"] for problem in ledger.problems()] == ["a second time"]
    assert ledger.commit([result("b", step, [crop], left.digest)], by_name(steps()), "r", "test") == 1
    assert ledger.problems() == []
    assert ledger.commit([again], by_name(steps()), "r", "test") == 0  # too late
    assert run(ledger, steps()) == {"classify:both": 1}
    assert [row["status"] for row in ledger.history("b") if row.get("step") == "heatmaps"] == ["failed"] * 2 + ["ok"]


def key_of_crop(left):
    return key_of(left.exam_id, steps()[0].code(), [left.digest])


def test_refusals_are_final_and_block_what_follows(ledger):
    def refuse(exam_id, step):
        return "refused" if step.name == "crop" else "ok"

    ledger.add_exams([exam("i", refusal="there is no L-CC")], "r")
    run(ledger, steps(), [exam("a")], refuse)
    assert counts(ledger) == {"crop": {"refused": 1, "blocked": 1}, **{n: {"blocked": 2} for n in ALL - {"crop"}}}
    assert len(ledger.plan(steps(), retry_failed=True).left) == 0
    assert [(one["exam_id"], one["step"], one["error"]) for one in ledger.problems()] == [
        ("i", "intake", "there is no L-CC"),
        ("a", "crop", "because refused"),
    ]
    assert ledger.predictions().num_rows == 0


def test_a_plan_for_some_exams(ledger):
    run(ledger, steps(), [exam("a")])
    ledger.add_exams([exam(name) for name in "bcd"], "r")
    plan = ledger.plan(steps(), ["c", "a", "c"])
    assert [one.exam_id for one in plan.left] == ["c"]
    assert (plan.counts["crop"].done, plan.counts["crop"].left) == (1, 1)
    with pytest.raises(UsageError, match="has no exam x"):
        ledger.plan(steps(), ["a", "x"])
    assert len(ledger.plan(steps(), []).left) == 0


def test_many_exams_come_in_pieces_with_what_is_theirs(ledger):
    run(ledger, steps(), [exam(f"{n:04d}") for n in range(2500)])
    newer = steps(patch="patch 2")
    left = list(ledger.plan(newer).left)
    assert [one.exam_id for one in left] == [f"{n:04d}" for n in range(2500)]
    assert {len(one.known) for one in left} == {5}
    assert all(key_of_crop(one) in one.known for one in left)


# committing


def committed(ledger, exams="ab", configuration=None):
    configuration = configuration or steps()
    ledger.begin_run(configuration, "test")
    ledger.add_exams([exam(name) for name in exams], "r")
    return list(work(ledger.plan(configuration).left, configuration)), by_name(configuration)


def test_a_result_is_kept_once_whatever_is_committed(ledger, tmp_path):
    results, configuration = committed(ledger)
    assert ledger.commit(results[:3] + results[:3], configuration, "r", "test") == 3
    assert ledger.commit(results, configuration, "r", "test") == len(results) - 3
    other = Ledger.open(tmp_path / "ws")
    assert other.commit(results, configuration, "r2", "test") == 0
    assert ledger.commit([], configuration, "r", "test") == 0
    keys = ledger.read("steps")["key"].to_pylist()
    assert sorted(keys) == sorted({one.record["key"] for one in results})
    assert ledger.read("predictions").num_rows == 2 * 2 * 4


def test_predictions_without_their_result_are_completed_not_doubled(ledger, monkeypatch):
    """A kill came after the commit of the scores, before that of the results."""
    results, configuration = committed(ledger)
    append = storage.Table.append

    def killed(table, rows):
        if table.place.endswith("steps"):
            raise KeyboardInterrupt
        return append(table, rows)

    with monkeypatch.context() as patch:
        patch.setattr(storage.Table, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.commit(results, configuration, "r", "test")
    again = Ledger.open(ledger.place)
    assert again.read("predictions").num_rows == 16
    assert again.read("steps").num_rows == 0
    assert again.show("a")["predictions"] == []
    assert again.commit(results, configuration, "r", "test") == len(results)
    assert again.read("predictions").num_rows == 16
    assert len(again.show("a")["predictions"]) == 8


def test_one_commit_is_one_version_of_each_table(ledger):
    from deltalake import DeltaTable

    results, configuration = committed(ledger, "abcdefgh")
    before = [DeltaTable(f"{ledger.place}/{name}").version() for name in ("steps", "predictions")]
    ledger.commit(results, configuration, "r", "test")
    after = [DeltaTable(f"{ledger.place}/{name}").version() for name in ("steps", "predictions")]
    assert [new - old for old, new in zip(before, after, strict=True)] == [1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": digest("x")}, "the key is not that of what was read"),
        ({"outputs": None}, "ok, with outputs None"),
        ({"status": "failed"}, "failed, with outputs"),
        ({"scores": [{"side": "L", "target": "benign", "score": 0.5}]}, "scores of a step that gives none"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(ledger, change, said):
    results, configuration = committed(ledger, "a")
    wrong = replace(results[0], record={**results[0].record, **change})
    with pytest.raises(ValueError, match=said):
        ledger.commit([wrong, *results[1:]], configuration, "r", "test")
    assert ledger.read("steps").num_rows == ledger.read("predictions").num_rows == 0


def test_a_score_that_is_no_probability_is_refused(ledger):
    results, configuration = committed(ledger, "a")
    (scored,) = (one for one in results if one.record["step"] == "classify:both")
    for score in (math.nan, -0.1, 1.1):
        wrong = replace(scored, record={**scored.record, "scores": [{"side": "L", "target": "benign", "score": score}]})
        with pytest.raises(ValueError, match="is no probability"):
            ledger.commit([wrong], configuration, "r", "test")


def test_errors_are_kept_in_one_line(ledger):
    ledger.add_exams([exam("a")], "r")
    (left,) = ledger.plan(steps()).left
    failed = result("a", steps()[0], [left.digest], left.digest, "failed", error="ValueError:\n  two\n lines")
    ledger.commit([failed], by_name(steps()), "r", "test")
    assert ledger.problems(steps())[0]["error"] == "ValueError: two lines"


# many commits


def test_many_small_commits_leave_few_files(tmp_path):
    from deltalake import DeltaTable

    ledger = Ledger.open(tmp_path / "ws", create=True)
    results, configuration = committed(ledger, [str(n) for n in range(60)])
    reader = Ledger.open(tmp_path / "ws")
    for one in results:
        ledger.commit([one], configuration, "r", "test")
    assert len(results) == 300
    assert len(DeltaTable(f"{ledger.place}/steps").file_uris()) < storage.MOST_SMALL_FILES + 40
    ledger.begin_run(steps(), "test")
    assert len(DeltaTable(f"{ledger.place}/steps").file_uris()) < storage.MOST_SMALL_FILES
    checkpoints = list((tmp_path / "ws" / "steps" / "_delta_log").glob("*.checkpoint.parquet"))
    assert len(checkpoints) >= 300 // storage.CHECKPOINT_INTERVAL
    # nothing is lost, nothing is doubled; who had it open before sees it all, and writes what is new
    assert sorted(reader.read("steps")["key"].to_pylist()) == sorted(one.record["key"] for one in results)
    assert reader.read("steps")["commit"].to_pylist() == list(range(1, 301))
    assert reader.commit(results, configuration, "r", "test") == 0
    assert len(reader.plan(steps()).left) == 0


def test_rows_cannot_be_changed_or_deleted(ledger):
    from deltalake import DeltaTable

    run(ledger, steps(), [exam("a")])
    with pytest.raises(Exception, match="append-only"):
        DeltaTable(f"{ledger.place}/steps").delete("exam_id = 'a'")
