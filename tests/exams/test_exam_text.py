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
