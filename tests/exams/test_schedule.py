"""The order of steps, hits in the ledger, attempts: against a literal walk over every exam."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.exams.ledger import LeftExam
from spicula.exams.schedule import MOST_ATTEMPTS, Schedule
from spicula.exams.steps import IMAGES, Step, images_digest, key_of


def steps(**versions: int) -> list[Step]:
    """The steps of a four-view classifier, of given versions (default 1)."""

    def step(name, pool, *inputs):
        return Step(name, name.partition(":")[0], versions.get(name.partition(":")[0], 1), pool, inputs)

    return [
        step("crop", "cpu", IMAGES),
        step("centers", "cpu", "crop"),
        step("heatmaps", "model", "crop"),
        step("visualize", "cpu", "crop", "heatmaps"),
        step("classify:image-only", "model", "crop", "centers"),
        step("classify:image-and-heatmaps", "model", "crop", "centers", "heatmaps"),
    ]


def exam(number: int, known=()):
    images = [{"name": "a", "view": "L-CC", "path": "/x", "sha256": f"{number}"}]
    return LeftExam(f"exam-{number}", images_digest(images), images, dict(known))


def answer(task, outputs=None, status="ok"):
    made = outputs or f"{task['step']} of {task['exam']}"
    return {
        "exam": task["exam"],
        "step": task["step"],
        "key": task["key"],
        "status": status,
        "outputs": made if status == "ok" else None,
        "error": None if status == "ok" else "because",
        "scores": [],
        "started": 0.0,
        "seconds": 0.0,
    }


def drain(schedule, outcome=answer):
    """Run everything, one task at a time from every pool in turn; return what was kept, in order."""
    kept = []
    while not schedule.is_done:
        tasks = [task for pool in schedule.pools if (task := schedule.next(pool)) is not None]
        assert tasks, "nothing is due, and yet it is not done"
        for task in tasks:
            result = schedule.take(task, *as_taken(outcome(task)))
            if result is not None:
                assert result.attempts == task["attempt"]
                kept.append((task, result.record))
    return kept


def as_taken(result):
    return (None, result) if isinstance(result, str) else (result, None)


def ledger_of(kept):
    return {record["key"]: (record["status"], record["outputs"]) for _, record in kept}


def test_every_step_of_every_exam_runs_once_and_after_what_it_reads():
    kept = drain(Schedule(steps(), [exam(n) for n in range(5)], open_exams=2))
    order = [(task["exam"], task["step"]) for task, _ in kept]
    assert sorted(order) == sorted(itertools.product([f"exam-{n}" for n in range(5)], [s.name for s in steps()]))
    for step in steps():
        for one in step.inputs:
            if one != IMAGES:
                for number in range(5):
                    assert order.index((f"exam-{number}", one)) < order.index((f"exam-{number}", step.name))


def test_no_more_exams_are_open_than_allowed():
    schedule = Schedule(steps(), (exam(n) for n in range(100)), open_exams=3)
    begun = set()
    while (task := schedule.next("cpu")) is not None:
        begun.add(task["exam"])
    assert len(begun) == 3


def test_what_the_ledger_has_is_not_run_again():
    known = ledger_of(drain(Schedule(steps(), [exam(1)], open_exams=2)))
    schedule = Schedule(steps(), [exam(1, known.items())], open_exams=2)
    assert schedule.is_done
    assert schedule.finished == 1


def test_a_new_version_with_equal_output_reruns_nothing_downstream():
    known = ledger_of(drain(Schedule(steps(), [exam(1)], open_exams=2)))
    kept = drain(Schedule(steps(centers=2), [exam(1, known.items())], open_exams=2))
    assert [task["step"] for task, _ in kept] == ["centers"]


def test_a_new_version_with_other_output_reruns_what_reads_it():
    known = ledger_of(drain(Schedule(steps(), [exam(1)], open_exams=2)))
    schedule = Schedule(steps(centers=2), [exam(1, known.items())], open_exams=2)
    kept = drain(schedule, lambda task: answer(task, "other" if task["step"] == "centers" else None))
    assert {task["step"] for task, _ in kept} == {"centers", "classify:image-only", "classify:image-and-heatmaps"}


def test_the_key_of_a_task_is_made_of_what_it_reads():
    by_name = {step.name: step for step in steps()}
    for task, _ in drain(Schedule(steps(), [exam(1)], open_exams=2)):
        step = by_name[task["step"]]
        digest = exam(1).digest
        read = [digest if one == IMAGES else f"{one} of exam-1" for one in step.inputs]
        assert task["key"] == key_of("exam-1", step.code(), read)
        assert bool(task["images"]) == (IMAGES in step.inputs)


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_what_reads_a_step_that_gave_nothing_is_not_run(status):
    schedule = Schedule(steps(), [exam(1), exam(2)], open_exams=2)
    kept = drain(
        schedule,
        lambda task: answer(task, status=status if (task["exam"], task["step"]) == ("exam-1", "heatmaps") else "ok"),
    )
    ran = {task["step"] for task, _ in kept if task["exam"] == "exam-1"}
    assert ran == {"crop", "centers", "heatmaps", "classify:image-only"}
    assert len([task for task, _ in kept if task["exam"] == "exam-2"]) == len(steps())
    assert schedule.finished == 2


def test_a_lost_task_is_tried_three_times_and_then_listed():
    schedule = Schedule(steps(), [exam(1), exam(2)], open_exams=2)
    tries = []

    def outcome(task):
        if (task["exam"], task["step"]) == ("exam-1", "crop"):
            tries.append(task["attempt"])
            return "its worker died of SIGKILL"
        return answer(task)

    kept = drain(schedule, outcome)
    assert tries == list(range(1, MOST_ATTEMPTS + 1))
    (bad,) = [record for _, record in kept if record["status"] == "failed"]
    assert (bad["exam"], bad["error"]) == ("exam-1", "its worker died of SIGKILL")
    assert len([task for task, _ in kept if task["exam"] == "exam-2"]) == len(steps())


def test_failed_steps_run_again_only_when_asked():
    known = ledger_of(
        drain(
            Schedule(steps(), [exam(1)], open_exams=2),
            lambda task: answer(task, status="failed" if task["step"] == "heatmaps" else "ok"),
        )
    )
    assert Schedule(steps(), [exam(1, known.items())], open_exams=2).is_done
    kept = drain(Schedule(steps(), [exam(1, known.items())], open_exams=2, retry_failed=True))
    assert {task["step"] for task, _ in kept} == {"heatmaps", "visualize", "classify:image-and-heatmaps"}


@given(
    versions=st.dictionaries(st.sampled_from(["crop", "centers", "heatmaps", "visualize", "classify"]), st.just(2)),
    changing=st.sets(st.sampled_from(["crop", "centers", "heatmaps"])),
    is_new_image=st.booleans(),
)
def test_exactly_what_a_change_touches_is_run(versions, changing, is_new_image):
    known = ledger_of(drain(Schedule(steps(), [exam(1)], open_exams=1)))
    one = exam(1, known.items())
    if is_new_image:
        images = [{**one.images[0], "sha256": "another"}]
        one = replace(one, images=images, digest=images_digest(images))
    expected, differs = [], {IMAGES: is_new_image}
    for step in steps(**versions):
        runs = step.stage in versions or any(differs[one] for one in step.inputs)
        differs[step.name] = runs and step.name in changing
        expected += [step.name] if runs else []
    schedule = Schedule(steps(**versions), [one], open_exams=1)
    kept = drain(schedule, lambda task: answer(task, "other" if task["step"] in changing else None))
    assert sorted(task["step"] for task, _ in kept) == sorted(expected)
