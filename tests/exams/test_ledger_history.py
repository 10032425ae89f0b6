"""What the ledger says of the past, and how models differ."""

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from ledger_runs import digest, exam, run, steps, work

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.errors import UsageError
from spicula.exams.ledger import Ledger
from spicula.exams.ledger.compare import LONG


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path / "ws", create=True)


def now():
    time.sleep(0.002)
    moment = datetime.now(UTC)
    time.sleep(0.002)
    return moment


def scores(rows):
    return {(row["model"], row["side"], row["target"]): row["score"] for row in rows}


def keys(shown):
    return {step["step"]: step.get("key") for step in shown["steps"]}


# one exam


def test_the_history_has_all_rows_in_order(ledger):
    run(ledger, steps(), [exam("a"), exam("b")])
    run(ledger, steps(patch="patch 2"), [exam("a", pixels=1)])
    rows = ledger.history("a")
    assert [row.get("step", row["what"]) for row in rows] == [
        "exam",
        *(step.name for step in steps()),
        "exam",
        *(step.name for step in steps()),
    ]
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert all(row["time"].utcoffset() == timedelta(0) for row in rows)
    first, second = rows[0], rows[6]
    assert first["digest"] != second["digest"]
    assert {row["images"] for row in rows[1:6]} == {first["digest"]}
    assert {row["images"] for row in rows[7:]} == {second["digest"]}
    assert rows[1]["reads"] == [first["digest"]]
    assert rows[2]["reads"] == [rows[1]["outputs"]]
    assert (rows[1]["engine"], rows[1]["attempts"], rows[1]["seconds"]) == ("test", 1, 0.25)
    assert abs(rows[1]["started"] - rows[1]["time"]) < timedelta(minutes=1)


def test_an_exam_as_it_stands_and_as_it_stood(ledger):
    before = now()
    run(ledger, steps(), [exam("a")])
    old, then = ledger.show("a"), now()
    run(ledger, steps(patch="patch 2"), [exam("a")])
    middle, later = ledger.show("a"), now()
    run(ledger, steps(patch="patch 2", crop=2), [exam("a", pixels=1)])
    new = ledger.show("a")

    def same(one, other):
        return {**one, "as_of": None} == {**other, "as_of": None}

    assert same({**ledger.show("a", then), "run": None}, {**old, "run": None})
    assert same({**ledger.show("a", later), "run": None}, {**middle, "run": None})
    assert same(ledger.show("a", now()), new)
    assert ledger.show("a", then)["as_of"] == then
    assert len({keys(shown)["crop"] for shown in (old, middle, new)}) == 2
    assert len({keys(shown)["classify:both"] for shown in (old, middle, new)}) == 3
    assert keys(old)["classify:image-only"] == keys(middle)["classify:image-only"]
    for shown in (old, middle, new):
        assert [step["state"] for step in shown["steps"]] == ["ok"] * 5
        assert len(scores(shown["predictions"])) == 8
    assert scores(old["predictions"])["both", "L", "benign"] != scores(middle["predictions"])["both", "L", "benign"]
    assert old["exam"]["digest"] == middle["exam"]["digest"] != new["exam"]["digest"]

    # a time without a zone is UTC; another zone is another way to say the same
    assert ledger.show("a", then.replace(tzinfo=None))["steps"] == old["steps"]
    assert ledger.show("a", then.astimezone(timezone(timedelta(hours=-9))))["as_of"] == then
    with pytest.raises(UsageError, match=rf"exam a was not there at {before:%Y-%m-%d %H:%M:%S} UTC"):
        ledger.show("a", before)


def test_the_past_stays_when_files_are_put_together_and_the_workspace_moves(ledger, tmp_path, monkeypatch):
    from spicula.exams.ledger import storage

    run(ledger, steps(), [exam("a")])
    then = now()
    run(ledger, steps(patch="patch 2"), [exam("b")])
    old = ledger.show("a", then)
    monkeypatch.setattr(storage, "MOST_SMALL_FILES", 1)
    ledger.begin_run(steps(), "test")
    (tmp_path / "ws").rename(tmp_path / "moved")
    assert ledger.place.endswith("ws")
    assert Ledger.open(tmp_path / "moved").show("a", then) == old


def test_steps_that_are_not_done_say_how_they_stand(ledger):
    def outcome(exam_id, step):
        return "failed" if step.name == "heatmaps" else "ok"

    ledger.add_exams([exam("r", refusal="no views")], "r")
    assert ledger.show("r")["run"] is None
    assert ledger.show("r")["steps"] == []
    run(ledger, steps(), [exam("a")], outcome)
    ledger.add_exams([exam("n")], "r")
    assert [step["state"] for step in ledger.show("a")["steps"]] == ["ok", "ok", "failed", "ok", "blocked"]
    assert ledger.show("a")["steps"][2]["error"] == "because failed"
    assert {row["model"] for row in ledger.show("a")["predictions"]} == {"image-only"}
    assert [step["state"] for step in ledger.show("r")["steps"]] == ["blocked"] * 5
    assert [step["state"] for step in ledger.show("n")["steps"]] == ["left"] * 5
    assert ledger.show("r")["exam"]["refusal"] == "no views"


@pytest.mark.parametrize("ask", [Ledger.history, Ledger.show])
def test_an_unknown_exam_is_named(ledger, ask):
    with pytest.raises(UsageError, match="ws has no exam it's"):
        ask(ledger, "it's")


def test_a_run_is_noted_when_it_begins_and_when_it_ends(ledger):
    run_id = ledger.begin_run(steps(), "local", "spicula exams run")
    began = ledger.status()["run"]
    assert (began["run"], began["ended"], began["engine"]) == (run_id, None, "local")
    ledger.end_run(run_id, {"executed": {"crop": 3}})
    ended = ledger.status()["run"]
    assert ended["ended"] >= began["began"]
    assert ended["summary"] == {"executed": {"crop": 3}}
    rows = ledger.read("runs").to_pylist()
    assert [(row["event"], row["started_by"]) for row in rows] == [("began", "spicula exams run"), ("ended", None)]


def test_the_status_is_that_of_the_last_configuration(ledger):
    run(ledger, steps(), [exam("a")])
    assert ledger.status()["steps"]["heatmaps"]["left"] == 0
    ledger.begin_run(steps(patch="patch 2")[:3], "test")
    assert list(ledger.status()["steps"]) == ["crop", "centers", "heatmaps"]
    assert ledger.status()["steps"]["heatmaps"]["why"] == {"new model": 1}


# predictions


def test_the_long_table_is_that_of_the_last_configuration_and_the_images_as_they_are(ledger):
    assert ledger.predictions().num_rows == 0
    run(ledger, steps(), [exam("b"), exam("a")])
    first = ledger.predictions()
    assert first.schema.names == list(LONG)
    ids = ["exam_id", "model", "side", "target"]
    rows = [tuple(row[name] for name in ids) for row in first.to_pylist()]
    expected = [
        (e, m, s, t) for e in "ab" for m in ("both", "image-only") for s in "LR" for t in ("benign", "malignant")
    ]
    assert rows == expected
    run(ledger, steps(patch="patch 2"), [exam("a")], exam_ids=["a"])
    second = ledger.predictions()
    assert [row["exam_id"] for row in second.to_pylist() if row["model"] == "both"] == ["a"] * 4
    assert [row["exam_id"] for row in second.to_pylist() if row["model"] == "image-only"] == ["a"] * 4 + ["b"] * 4
    ledger.add_exams([exam("a", pixels=1)], "r")
    assert set(ledger.predictions()["exam_id"].to_pylist()) == {"b"}
    ledger.add_exams([exam("a", refusal="not a mammogram")], "r")
    assert set(ledger.predictions()["exam_id"].to_pylist()) == {"b"}


def test_the_predictions_of_a_model_that_is_not_run_any_more(ledger):
    run(ledger, steps(), [exam("a"), exam("b")])
    run(ledger, steps(image="image 2"), [exam("a", pixels=1)])
    old = ledger.predictions(digest("image 1")[:10]).to_pylist()
    assert {row["exam_id"] for row in old} == {"a", "b"}
    assert {row["model_digest"] for row in old} == {digest("image 1")}
    assert ledger.predictions().num_rows == 16


# differences


def literal_diff(first, second):
    def as_map(rows):
        return {(row["exam_id"], row["side"], row["target"]): row["score"] for row in rows}

    a, b = as_map(first), as_map(second)
    rows = [(*where, a.get(where), b.get(where)) for where in {*a, *b}]

    def order(row):
        size = -1.0 if None in row[3:] else abs(row[4] - row[3])
        return -size, row[:3]

    return sorted(rows, key=order)


def test_the_largest_change_comes_first_and_nothing_is_left_out(ledger):
    run(ledger, steps(), [exam(f"{n}") for n in range(20)])
    old = ledger.predictions("both").to_pylist()
    run(ledger, steps(patch="patch 2"), [exam("new")], exam_ids=["new", *(f"{n}" for n in range(15))])
    bundles = [digest(patch, "image 1")[:8] for patch in ("patch 1", "patch 2")]
    new = ledger.predictions(f"both@{bundles[1]}").to_pylist()
    found = ledger.diff(*(f"both@{bundle}" for bundle in bundles)).to_pylist()
    assert [(r["exam_id"], r["side"], r["target"], r["score_a"], r["score_b"]) for r in found] == literal_diff(old, new)
    assert len(found) == 4 * 21
    for row in found[:60]:
        assert row["change"] == row["score_b"] - row["score_a"]
        assert row["same_images"] is True
    assert [row["change"] for row in found[60:]] == [None] * 24


def test_a_change_of_the_images_in_between_is_said(ledger):
    run(ledger, steps(), [exam("a"), exam("b")])
    run(ledger, steps(image="image 2"), [exam("a", pixels=1), exam("b")])
    found = ledger.diff(digest("image 1")[:12], digest("image 2")[:12]).to_pylist()
    assert {row["exam_id"]: row["same_images"] for row in found} == {"a": False, "b": True}


def test_the_last_score_of_a_model_counts(ledger):
    run(ledger, steps(), [exam("a")])
    old = scores(ledger.show("a")["predictions"])
    run(ledger, steps(), [exam("a", pixels=1)])
    new = scores(ledger.show("a")["predictions"])
    found = ledger.diff("both", "image-only").to_pylist()
    assert {row["score_a"] for row in found} == {value for (model, *_), value in new.items() if model == "both"}
    assert not {row["score_a"] for row in found} & set(old.values())


def test_how_models_are_called(ledger):
    with pytest.raises(UsageError, match="no model 'both': the ledger has no predictions yet"):
        ledger.diff("both", "both")
    run(ledger, steps(), [exam("a")])
    whole = digest("image 1")
    for name in ("image-only", "classify:image-only", whole, whole[:4], f"image-only@{whole[:6]}", f"@{whole[:6]}"):
        assert ledger.diff(name, "both").num_rows == 4
    bundle = digest("patch 1", "image 1")
    with pytest.raises(UsageError, match=r"is 2 models: both@\w{12} \(bundle \w{12}\), image-only@.*; add a digest"):
        ledger.diff(bundle[:8], "both")
    assert ledger.diff(f"both@{bundle[:8]}", "image-only").num_rows == 4
    for unknown in (whole[:3], "image", "image-only@zzzz", f"both@{whole[:6]}", "", "@"):
        with pytest.raises(UsageError, match=r"has predictions; there are: both@.*, image-only@"):
            ledger.diff(unknown, "both")
    run(ledger, steps(image="image 2"), [])
    with pytest.raises(UsageError, match=r"'image-only' is 2 models: .*NAME@DIGEST"):
        ledger.predictions("image-only")


def test_a_model_that_scores_without_bundle_is_one_too(ledger):
    from dataclasses import replace

    bare = [replace(step, bundle=None) for step in steps()]
    run(ledger, bare, [exam("a")])
    assert ledger.diff("both", "image-only").num_rows == 4
    assert len(list(work(ledger.plan(bare).left, bare))) == 0


# other programs


def examples():
    text = (Path(__file__).parents[2] / "docs" / "exam-ledger.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, number, capsys):
    code = examples()[number]
    if "duckdb" in code:
        pytest.importorskip("duckdb", reason="an example of the documentation reads the ledger with DuckDB")
    ledger = Ledger.open(tmp_path / "WS", create=True)
    run(ledger, steps(), [exam(f"{n}") for n in range(9)])
    high = [row for row in ledger.predictions().to_pylist() if row["score"] > 0.5]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    if number == 0:
        assert names["high"]["score"].to_pylist() == sorted((row["score"] for row in high), reverse=True)
        assert set(names["slow"]["step"].to_pylist()) == {step.name for step in steps()}
    else:
        assert str(max(row["score"] for row in high if row["target"] == "malignant"))[:8] in capsys.readouterr().out


def test_all_examples_are_tried():
    assert len(examples()) == 2
