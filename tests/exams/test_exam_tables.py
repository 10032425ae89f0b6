"""Tables of predictions: the published form, the long form, and the exams without a score."""

import csv
import io
from datetime import datetime, timedelta, timezone

import pyarrow.parquet as pq
import pytest
from finished_workspace import BLACK, DONE, INCOMPLETE, ONE_WORKER, finished_workspace
from hypothesis import given
from hypothesis import strategies as st
from small_bundle import small_bundle

from spicula import RESEARCH_NOTICE, exams, predictions
from spicula.errors import UsageError
from spicula.exams import models
from spicula.exams.outputs import tables
from spicula.exams.outputs.detail import detail_of
from spicula.exams.types import ExamInput, ImageFile

WHEN = datetime(2026, 11, 21, 15, 4, 5, tzinfo=timezone(timedelta(hours=1)))
BEHIND = ["exam", "model", "version", "model_digest", "time", "notice"]
PUBLISHED = ["index", "left_benign", "right_benign", "left_malignant", "right_malignant"]


def rows(exam, model="image-only", scores=(0.1, 0.2, 0.3, 0.4)):
    """Scores in the published order."""
    at = [("L", "benign"), ("R", "benign"), ("L", "malignant"), ("R", "malignant")]
    common = {"exam_id": exam, "model": model, "bundle": "b" * 64, "version": "2", "time": WHEN}
    return [
        {**common, "side": side, "target": target, "score": score}
        for (side, target), score in zip(at, scores, strict=True)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("deltalake", reason="the ledger needs the extra exams")
    pytest.importorskip("openvino", reason="the networks need the extra exams")
    return finished_workspace(tmp_path_factory.mktemp("tables"))


def test_the_published_sample_output_comes_out_to_the_letter():
    # exam-pipeline.md, published results of the image-only model
    scores = [
        (0.0580, 0.0754, 0.0091, 0.0179),
        (0.0646, 0.9536, 0.0012, 0.7258),
        (0.4388, 0.3526, 0.2325, 0.1061),
        (0.3765, 0.6483, 0.0909, 0.2579),
    ]
    found = tables.published([row for n, one in enumerate(scores) for row in rows(f"e{n}", scores=one)], "image-only")
    behind = f"image-only,2,{'b' * 64},2026-11-21T14:04:05Z,Research use only. Not a medical device.\n"
    assert found == (
        "index,left_benign,right_benign,left_malignant,right_malignant,exam,model,version,model_digest,time,notice\n"
        f"0,0.0580,0.0754,0.0091,0.0179,e0,{behind}"
        f"1,0.0646,0.9536,0.0012,0.7258,e1,{behind}"
        f"2,0.4388,0.3526,0.2325,0.1061,e2,{behind}"
        f"3,0.3765,0.6483,0.0909,0.2579,e3,{behind}"
    )


NAMES = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1)


@given(st.dictionaries(NAMES, st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=6), st.randoms())
def test_sides_are_never_swapped_whatever_the_order_of_rows(scored, random):
    given_rows = [row for exam, scores in scored.items() for row in rows(exam, scores=scores)]
    random.shuffle(given_rows)
    found = list(csv.DictReader(io.StringIO(tables.published(given_rows, "image-only"), newline="")))
    assert [one["exam"] for one in found] == sorted(scored)
    for one in found:
        scores = [float(one[name]) for name in PUBLISHED[1:]]
        assert scores == pytest.approx(list(scored[one["exam"]]), abs=5.1e-5)


def test_a_model_without_all_four_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match="mine gives exam e L malignant: write Parquet"):
        tables.published([{**rows("e")[2], "model": "mine"}], "mine")


def test_an_unknown_model_is_refused_with_the_known():
    with pytest.raises(UsageError, match="'other'; there are some of a, b"):
        tables.published([*rows("e", "b"), *rows("e", "a")], "other")


def test_single_images_keep_their_view():
    row = {**rows("e")[0], "side": "L-MLO"}
    (found,) = tables.long([row]).to_pylist()
    assert (found["id"], found["exam_id"], found["side"]) == ("e:L-MLO", "e", "L")


def test_a_csv_of_a_workspace(finished, tmp_path):
    to = tmp_path / "predictions.csv"
    beside = tables.write(
        to, tables.scores_of(finished.ledger), tables.unscored_of(finished.ledger), "image-and-heatmaps"
    )
    found = list(csv.reader(to.read_text().splitlines()))
    assert found[0] == [*PUBLISHED, *BEHIND]
    assert [(row[0], row[5]) for row in found[1:]] == [(str(n), exam) for n, exam in enumerate(DONE)]
    (bundle,) = {one["bundle"] for one in finished.ledger.predictions().to_pylist()}
    assert {(row[6], row[7], row[8], row[10]) for row in found[1:]} == {
        ("image-and-heatmaps", "1", bundle, RESEARCH_NOTICE)
    }
    scores = {
        (one["exam_id"], one["side"], one["target"]): one["score"]
        for one in finished.ledger.predictions().to_pylist()
        if one["model"] == "image-and-heatmaps"
    }
    assert found[1][1:5] == [
        f"{scores[DONE[0], side, target]:.4f}" for target in ("benign", "malignant") for side in ("L", "R")
    ]
    unscored = list(csv.DictReader(beside.read_text().splitlines()))
    assert beside.name == "predictions-unscored.csv"
    assert [(row["exam_id"], row["step"], row["status"]) for row in unscored] == [
        (BLACK, "crop", "refused"),
        (INCOMPLETE, "intake", "refused"),
    ]
    assert "R_CC" in unscored[0]["reason"] and "R-MLO" in unscored[1]["reason"]


def test_a_parquet_of_a_workspace(finished, tmp_path):
    to = tmp_path / "predictions.parquet"
    beside = tables.write(to, tables.scores_of(finished.ledger), tables.unscored_of(finished.ledger))
    found = predictions.read(to)
    assert found.num_rows == len(DONE) * 2 * 4
    assert set(found["model"].to_pylist()) == {"image-only", "image-and-heatmaps"}
    assert set(found["model_digest"].to_pylist()) == {one["bundle"] for one in tables.scores_of(finished.ledger)}
    unscored = pq.read_table(beside).to_pylist()
    assert {(row["exam_id"], row["model"]) for row in unscored} == {
        (exam, model) for exam in (BLACK, INCOMPLETE) for model in ("image-only", "image-and-heatmaps")
    }
    assert len(unscored) == 4


def test_what_is_not_done_yet_is_listed_too(finished, tmp_path):
    images = tuple(ImageFile(view, view, f"/x/{view}", "0" * 64) for view in ("L-CC", "R-CC", "L-MLO", "R-MLO"))
    other = finished_workspace(tmp_path).ledger
    other.add_exams([ExamInput("exam-late", images)], "run")
    late = [row for row in tables.unscored_of(other) if row["exam_id"] == "exam-late"]
    assert [(row["model"], row["status"]) for row in late] == [("image-and-heatmaps", "left"), ("image-only", "left")]
    known = {row["exam_id"] for row in tables.unscored_of(other)} | {row["exam_id"] for row in tables.scores_of(other)}
    assert known == {*DONE, INCOMPLETE, BLACK, "exam-late"}, "every exam is in one table or the other"


def test_a_csv_needs_one_model(finished, tmp_path):
    with pytest.raises(UsageError, match="choose with --model one of image-and-heatmaps, image-only"):
        tables.write(tmp_path / "x.csv", tables.scores_of(finished.ledger), [])
    tables.write(tmp_path / "one.csv", rows("e"), [])
    assert "0.4000,e,image-only," in (tmp_path / "one.csv").read_text()


def test_without_any_score_there_are_headings_alone(tmp_path):
    beside = tables.write(tmp_path / "none.csv", [], [])
    assert (tmp_path / "none.csv").read_text() == ",".join([*PUBLISHED, *BEHIND]) + "\n"
    assert beside.read_text() == "exam_id,model,step,status,reason\n"
    tables.write(tmp_path / "none.parquet", [], [])
    assert predictions.read(tmp_path / "none.parquet").num_rows == 0


@pytest.mark.parametrize("model", [None, "image-only"])
def test_where_every_exam_is_refused_all_are_listed(tmp_path, model):
    refused = {"exam_id": "e", "model": "image-only", "step": "crop", "status": "refused", "reason": "no breast"}
    beside = tables.write(tmp_path / "p.csv", [], [refused], model)
    assert [row["exam_id"] for row in csv.DictReader(beside.read_text().splitlines())] == ["e"]
    tables.write(tmp_path / "p.parquet", [], [refused], model)
    assert pq.read_table(tmp_path / "p-unscored.parquet").num_rows == 1


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_model_that_no_run_had_is_refused_whatever_the_form(tmp_path, ending):
    with pytest.raises(UsageError, match="'other'; there are some of image-only"):
        tables.write(tmp_path / f"p{ending}", rows("e"), [], "other")
    assert not list(tmp_path.iterdir())


def refused_row(exam, reason="no breast"):
    return {"exam_id": exam, "model": "image-only", "step": "crop", "status": "refused", "reason": reason}


@pytest.mark.parametrize("exam", ["=1+2", "+x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "-", "+1e"])
@pytest.mark.parametrize("has_scores", [True, False])
def test_an_id_that_a_spreadsheet_would_run_is_refused_as_csv_and_kept_as_parquet(tmp_path, exam, has_scores):
    scores, unscored = (rows(exam), []) if has_scores else (rows("e"), [refused_row(exam)])
    with pytest.raises(UsageError, match="as a formula; write Parquet instead"):
        tables.write(tmp_path / "p.csv", scores, unscored)
    assert not list(tmp_path.iterdir())
    beside = tables.write(tmp_path / "p.parquet", scores, unscored)
    ids = predictions.read(tmp_path / "p.parquet")["exam_id"].to_pylist() + pq.read_table(beside)["exam_id"].to_pylist()
    assert exam in ids


@pytest.mark.parametrize("exam", ["-7", "+49", "-0.5", "1-2", "a=1", "exam @home", "0012"])
def test_ids_that_no_spreadsheet_runs_are_written_as_they_are(tmp_path, exam):
    tables.write(tmp_path / "p.csv", rows(exam), [])
    (found,) = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    assert found["exam"] == exam


def test_a_reason_that_a_spreadsheet_would_run_is_marked_as_text(tmp_path):
    unscored = [refused_row("e", "-2+3 (L-CC): is not there"), refused_row("f", "no breast"), refused_row("g", None)]
    beside = tables.write(tmp_path / "p.csv", [], unscored)
    reasons = [row["reason"] for row in csv.DictReader(beside.read_text().splitlines())]
    assert reasons == ["'-2+3 (L-CC): is not there", "no breast", ""]


def test_a_parquet_says_what_its_scores_are_for(tmp_path):
    tables.write(tmp_path / "p.parquet", rows("e"), [])
    assert pq.read_schema(tmp_path / "p.parquet").metadata[b"notice"].decode() == RESEARCH_NOTICE
    pandas = pytest.importorskip("pandas", reason="what pandas shows needs pandas")
    assert pandas.read_parquet(tmp_path / "p.parquet").attrs == {"notice": RESEARCH_NOTICE}


def test_the_version_is_that_of_the_bundle_that_made_the_score(tmp_path):
    """The same networks in a bundle with another version make nothing new: the scores stay those of the first."""
    finished = finished_workspace(tmp_path)
    (made_by,) = {row["bundle"] for row in tables.scores_of(finished.ledger)}
    newer = small_bundle(tmp_path / "newer", version="2")
    outcome = exams.run(finished.source, finished.workspace, models.load(newer), ONE_WORKER)
    assert outcome.executed == {}
    assert finished.ledger.configuration()[-1].about["version"] == "2"
    assert {(row["version"], row["bundle"]) for row in tables.scores_of(finished.ledger)} == {("1", made_by)}
    exam = detail_of(finished.ledger, finished.artefacts, DONE[0])
    assert {(one["version"], one["bundle"]) for one in exam["predictions"]} == {("1", made_by)}


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"name a \.csv"):
        tables.write(tmp_path / "x.xlsx", [], [])
