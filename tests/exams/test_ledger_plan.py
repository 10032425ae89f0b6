"""What is left to do, against a literal walk over every exam, after any course of runs, kills and changes."""

import hashlib
import json
import tempfile
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_runs import exam, outputs_of, result, steps, work

pytest.importorskip("deltalake", reason="the ledger needs the extra exams")

from spicula.exams.ledger import Ledger
from spicula.exams.steps import IMAGES, images_digest, key_of

NAMES = ("a", "b'", "ü")

CONFIGURATIONS = st.builds(
    lambda patch, image, crop, centers, window: [
        replace(step, parameters={"window": window}) for step in steps(patch, image, crop=crop, centers=centers)
    ],
    *(st.sampled_from(values) for values in (("p", "q"), ("i", "j"), (1, 2), (1, 2), (3, 4))),
)

#: A run: the exams as they are then (pixels; refused or not), the configuration, which outcomes there are, and after
#: how many results it is killed.
RUNS = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(0, 1), st.booleans()), min_size=1),
    CONFIGURATIONS,
    st.integers(0, 5),
    st.integers(0, 12),
    st.booleans(),
)


def outcome(seed):
    """Mostly ok; what becomes of a step depends on the exam, the step and the seed."""

    def choose(exam_id, step):
        return ("refused", "failed", *["ok"] * 6)[
            hashlib.sha256(f"{seed}{exam_id}{step.name}".encode()).digest()[0] % 8
        ]

    return choose


@dataclass
class Literal:
    """The same as the ledger, one exam and one key after the other."""

    exams: dict = field(default_factory=dict)  # exam -> (digest, refusal)
    rows: list = field(default_factory=list)  # (result, step) in order of commits

    def commit(self, results, by_name):
        for one in results:
            final = {row.record["key"] for row, _ in self.rows if row.record["status"] != "failed"}
            if one.record["key"] not in final:
                self.rows.append((one, by_name[one.record["step"]]))

    def known(self, exam_id):
        """Rows of a key: the last one, unless one before it was final (then none came after it)."""
        records = [one.record for one, _ in self.rows if one.record["exam"] == exam_id]
        return {record["key"]: (record["status"], record["outputs"]) for record in records}

    def walk(self, configuration, retry):
        """Per step and exam: state, and why."""
        found = {step.name: {} for step in configuration}
        for name, (digest, refusal) in self.exams.items():
            known, made, states = self.known(name), {IMAGES: digest}, {IMAGES: "done"}
            for step in configuration:
                upstream = [states[one] for one in step.inputs]
                if refusal or any(state in ("refused", "failed", "blocked") for state in upstream):
                    states[step.name], why = "blocked", None
                elif any(state != "done" for state in upstream):
                    states[step.name], why = "left", "waiting for upstream"
                else:
                    key = key_of(name, step.code(), [made[one] for one in step.inputs])
                    status, outputs = known.get(key, (None, None))
                    if status is None:
                        states[step.name], why = "left", self.reason(name, step, digest)
                    elif status == "failed" and retry:
                        states[step.name], why = "left", "failed"
                    else:
                        states[step.name], why = {"ok": "done"}.get(status, status), None
                        made[step.name] = outputs
                found[step.name][name] = (states[step.name], why)
        return found

    def reason(self, name, step, digest):
        before = [row for row in self.rows if (row[0].record["exam"], row[1].name) == (name, step.name)]
        if not before:
            return "new"
        last, made_by = before[-1]
        if last.images != digest:
            return "changed image"
        if json.dumps(dict(made_by.models)) != json.dumps(dict(step.models)):
            return "new model"
        if made_by.version != step.version:
            return "new stage version"
        return "new parameters" if made_by.parameters != step.parameters else "changed input"


@settings(max_examples=40)
@given(st.lists(RUNS, min_size=1, max_size=4), CONFIGURATIONS, st.booleans())
def test_the_plan_is_that_of_a_walk_over_every_exam(runs, configuration, retry):
    literal = Literal()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(f"{folder}/ws", create=True)
        for exams, current, seed, killed_after, retried in runs:
            inputs = [exam(name, pixels, refusal="no" if no else None) for name, (pixels, no) in exams.items()]
            ledger.add_exams(inputs, "r")
            for one in inputs:
                digest = images_digest([image.as_json() for image in one.images])
                literal.exams[one.exam_id] = (digest, one.refusal)
            left = ledger.plan(current, retry_failed=retried).left
            shown = [replace(one, known={k: v for k, v in one.known.items() if v[0] != "failed"}) for one in left]
            results = list(work(shown if retried else left, current, outcome(seed)))[:killed_after]
            by_name = {step.name: step for step in current}
            before = len(literal.rows)
            literal.commit(results, by_name)
            assert ledger.commit(results, by_name, "r", "test") == len(literal.rows) - before
        plan = ledger.plan(configuration, retry_failed=retry)
        left = list(plan.left)
    expected = literal.walk(configuration, retry)
    for step in configuration:
        states = list(expected[step.name].values())
        count = plan.counts[step.name]
        for state in ("done", "refused", "failed", "blocked", "left"):
            assert getattr(count, state) == sum(one == state for one, _ in states), (step.name, state)
        reasons = [why for state, why in states if state == "left"]
        assert count.why == {why: reasons.count(why) for why in reasons}, step.name
    now = {
        name
        for step in configuration
        for name, (state, why) in expected[step.name].items()
        if state == "left" and why != "waiting for upstream"
    }
    assert {one.exam_id for one in left} == now
    for one in left:
        assert one.digest == literal.exams[one.exam_id][0] == images_digest(one.images)
        assert one.known == literal.known(one.exam_id)


def test_the_walk_is_one_that_can_differ():
    """The outcomes that the test above draws from are of all kinds."""
    seen = {outcome(seed)(name, step) for seed in range(6) for name in NAMES for step in steps()}
    assert seen == {"ok", "refused", "failed"}
    assert outputs_of(steps()[1], ["x"]) == outputs_of(steps(centers=2)[1], ["x"])
    assert result("a", steps()[0], ["x"], "x").record["key"] != result("a", steps(crop=2)[0], ["x"], "x").record["key"]
