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
            for result in schedule.take(task, *as_taken(outcome(task))):
                if result.record["step"] == task["step"]:
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


# what is lost


def losing(lost, steps_now, *, remade=answer):
    """Return what a store does of which the outputs of some steps are lost until they are made again, and a log."""
    gone, log = set(lost), []
    inputs = {step.name: step.inputs for step in steps_now}

    def outcome(task):
        log.append((task["step"], bool(task.get("anew"))))
        missing = next((one for one in inputs[task["step"]] if one in gone), None)
        if missing:
            return answer(task, status="failed") | {"lost": missing, "error": f"{missing}.png is missing"}
        if not task.get("anew"):
            return answer(task)
        gone.discard(task["step"])
        return remade(task)

    return outcome, log


def known_of(steps_then):
    return ledger_of(drain(Schedule(steps_then, [exam(1)], open_exams=2)))


@given(st.sets(st.sampled_from(["crop", "centers", "heatmaps"])), st.sets(st.sampled_from(["crop", "centers"])))
def test_what_is_lost_is_made_again_once_and_what_reads_it_goes_on(lost, found_before):
    now = steps(classify=2, visualize=2)
    outcome, log = losing(lost, now)
    found = found_before & lost
    schedule = Schedule(now, [exam(1, known_of(steps()).items())], open_exams=1, lost={"exam-1": found})
    kept = drain(schedule, outcome)
    assert {record["status"] for _, record in kept} == {"ok"}
    assert sorted(record["step"] for _, record in kept) == sorted(s.name for s in now if s.version == 2)
    again = [step for step, is_anew in log if is_anew]
    assert set(again) == lost == set(schedule.remade)
    assert all(count == 1 for count in schedule.remade.values())
    assert schedule.finished == 1


def test_what_was_handed_out_before_it_was_made_again_is_tried_once_more():
    now = steps(classify=2)
    schedule = Schedule(now, [exam(1, known_of(steps()).items())], open_exams=1)
    first, second = schedule.next("model"), schedule.next("model")

    def lost(task):
        return answer(task, status="failed") | {"lost": "crop"}

    assert schedule.take(first, lost(first), None) == []
    crop = schedule.next("cpu")
    assert (crop["step"], crop["anew"], crop["images"]) == ("crop", True, exam(1).images)
    assert schedule.take(crop, answer(crop), None) == []
    assert schedule.take(second, lost(second), None) == []  # it looked too early
    kept = drain(schedule)
    assert sorted(record["step"] for _, record in kept) == ["classify:image-and-heatmaps", "classify:image-only"]
    assert schedule.remade == {"crop": 1}
    assert len({first["id"], second["id"], crop["id"], *(task["id"] for task, _ in kept)}) == 5


def test_what_is_lost_once_more_fails_with_its_file():
    now = steps(classify=2)

    def outcome(task):
        if task["step"] == "classify:image-only":
            return answer(task, status="failed") | {"lost": "centers", "error": "centers.json is damaged"}
        return answer(task)

    schedule = Schedule(now, [exam(1, known_of(steps()).items())], open_exams=1)
    kept = drain(schedule, outcome)
    (bad,) = [record for _, record in kept if record["status"] == "failed"]
    assert (bad["step"], schedule.remade) == ("classify:image-only", {"centers": 1})
    assert bad["error"] == "centers.json is damaged, though it was made again; check the disk"


@pytest.mark.parametrize(
    ("remade", "said"),
    [
        (lambda task: answer(task, "other"), "made again, crop gives something else"),
        (lambda task: answer(task, status="refused"), "crop cannot make it again: because"),
        (lambda task: answer(task, status="failed"), "crop cannot make it again: because"),
        (lambda task: "its worker died of SIGSEGV", "crop cannot make it again: its worker died of SIGSEGV"),
    ],
)
def test_what_cannot_be_made_again_fails_and_says_so(remade, said):
    now = steps(heatmaps=2)
    outcome, _ = losing({"crop"}, now, remade=remade)
    schedule = Schedule(now, [exam(1, known_of(steps()).items()), exam(2)], open_exams=2)
    kept = drain(schedule, lambda task: outcome(task) if task["exam"] == "exam-1" else answer(task))
    of_first = {record["step"]: record for _, record in kept if record["exam"] == "exam-1"}
    assert {step: record["status"] for step, record in of_first.items()} == {"crop": "failed", "heatmaps": "failed"}
    assert of_first["crop"]["error"].startswith("its output is lost; ") and said in of_first["crop"]["error"]
    assert of_first["heatmaps"]["error"].startswith("crop.png is missing; ") and said in of_first["heatmaps"]["error"]
    assert of_first["crop"]["outputs"] is None
    assert len([record for _, record in kept if record["exam"] == "exam-2"]) == len(now)
    assert schedule.remade == {}


def test_what_a_look_found_lost_is_made_again_where_nothing_else_is_left():
    outcome, log = losing({"crop", "heatmaps"}, steps())
    one = exam(1, known_of(steps()).items())
    schedule = Schedule(steps(), [one], open_exams=1, lost={"exam-1": {"crop", "heatmaps", "classify:image-only"}})
    assert drain(schedule, outcome) == []
    assert schedule.remade == {"crop": 1, "heatmaps": 1, "classify:image-only": 1}
    assert all(is_anew for _, is_anew in log)


def test_a_step_that_failed_before_is_counted_when_its_key_is_known_only_later():
    failing = drain(
        Schedule(steps(), [exam(1)], open_exams=2),
        lambda task: answer(task, status="failed" if task["step"] == "classify:image-only" else "ok"),
    )
    for versions, counted in (({}, 0), ({"centers": 2}, 1)):  # the plan counts the first
        schedule = Schedule(steps(**versions), [exam(1, ledger_of(failing).items())], open_exams=2)
        assert [task["step"] for task, _ in drain(schedule)] == list(versions)
        assert schedule.failed_earlier == counted
