"""Lines for people: what a terminal would act on is shown, and never done."""

from datetime import UTC, datetime

import exam_details

from spicula.exams.outputs import text

HOSTILE = "\x1b[31mred\x1b[0m\n1 refused:"
SHOWN = r"\x1b[31mred\x1b[0m\n1 refused:"


def test_an_exam_with_a_hostile_name_is_shown_in_one_line():
    detail = exam_details.detail()
    detail |= {"exam_id": HOSTILE, "status": "refused", "reasons": [HOSTILE], "notes": [HOSTILE]}
    found = text.exam(detail)
    assert "\x1b" not in found
    assert found.splitlines()[:2] == [f"{SHOWN}: refused", f"  {SHOWN}"]
    assert SHOWN in found.splitlines()[2:]


def test_problems_with_hostile_names_are_listed_a_line_each():
    run = {"run": "r", "engine": "local cpu", "began": datetime(2026, 1, 1, tzinfo=UTC), "ended": None}
    found = {"workspace": "ws", "exams": 1, "refused": 1, "run": run, "steps": {}}
    problems = [{"exam_id": HOSTILE, "step": "intake", "status": "refused", "error": HOSTILE}]
    shown = text.status(found, problems)
    assert "\x1b" not in shown
    assert shown.splitlines()[-1] == f"  {SHOWN} at intake: {SHOWN}"


def test_scores_name_the_bundle_and_its_version_where_they_are_known():
    detail = exam_details.detail()
    line = next(line for line in text.exam(detail).splitlines() if line.startswith("image-only"))
    assert line.endswith(f"  a bundle 2.3 {'b' * 12}")
    for one in detail["predictions"]:
        one |= {"bundle_name": None, "version": None}
    line = next(line for line in text.exam(detail).splitlines() if line.startswith("image-only"))
    assert line.endswith(f"  {'b' * 12}") and "None" not in line


def test_history_names_the_bundle_and_its_version_where_they_are_known():
    row = {"what": "step", "time": datetime(2026, 1, 1, tzinfo=UTC), "step": "heatmaps", "status": "ok", "version": 3}
    row |= {"key": "k" * 64, "outputs": "o" * 64, "error": None, "run": "r"}
    known, unknown = text.history([{**row, "about": {"name": "small", "version": "2.3"}}, row]).splitlines()
    assert "ok, version 3, bundle small 2.3, key kkkk" in known
    assert "ok, version 3, key kkkk" in unknown
