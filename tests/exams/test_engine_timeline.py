import pytest
from engine_bench import task

from spicula.exams.engines.timeline import WIDTH, Shares, shares, timeline
from spicula.exams.engines.types import Done
from spicula.exams.types import Record


def done(worker: str, step: str, start: float, end: float, lost: str | None = None) -> Done:
    one = task("ok-1", step)
    record: Record = {
        **{"exam": one["exam"], "step": step, "key": one["key"], "status": "ok", "error": None, "outputs": ""},
        **{"scores": [], "started": start, "seconds": end - start},
    }
    return Done(one, None if lost else record, lost, worker.split(maxsplit=1)[0], worker, start, end - start)


def test_shares_of_the_time():
    run = [
        *[done("cpu 1", "crop", 0, 4), done("cpu 2", "crop", 2, 5), done("cpu 1", "centers", 8, 9)],
        *[done("model 1", "heatmaps", 3, 8), done("model 1", "classify:image-only", 8.5, 10)],
    ]
    assert shares(run) == Shares(cpu=pytest.approx(0.6), model=pytest.approx(0.65), both=pytest.approx(0.25))


def test_one_kind_alone_overlaps_with_nothing():
    assert shares([done("cpu 1", "crop", 0, 4), done("cpu 2", "crop", 0, 4)]) == Shares(1.0, 0.0, 0.0)


def test_nothing_was_done():
    assert shares([]) == Shares(0.0, 0.0, 0.0)
    assert timeline([]) == "nothing was done"


def test_a_line_for_each_worker():
    text = timeline(
        [
            *[done("cpu 10", "crop", 0, 36), done("cpu 2", "visualize", 54, 72), done("cpu 2", "crop", 0, 18, "died")],
            *[done("model 1", "heatmaps", 36, 54), done("model 1", "classify:own", 54, 72)],
        ]
    )
    assert text.splitlines() == [
        "c crop  h heatmaps  v visualize  l classify  x lost",
        "cpu 2   |" + "x" * 18 + "." * 36 + "v" * 18 + "|",
        "cpu 10  |" + "c" * 36 + "." * 36 + "|",
        "model 1 |" + "." * 36 + "h" * 18 + "l" * 18 + "|",
        "72.0 s from the first start to the last end: CPU stages at work 75% of it, model stages 50%, both at once 25%",
    ]
    assert WIDTH == 72


def test_an_instant_is_drawn_too():
    assert timeline([done("cpu 1", "crop", 5, 5)]).splitlines()[1] == "cpu 1 |c" + "." * 71 + "|"
