"""What the workers of a run did when: a Gantt chart as lines of text, and how much the two kinds overlapped."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spicula.exams.engines.types import Done, stage_of
from spicula.exams.stages import STAGES

#: Columns of the chart.
WIDTH = 72

Span = tuple[float, float]


@dataclass(frozen=True)
class Shares:
    """Shares of the time from the first start to the last end, 0 to 1.

    Attributes:
        cpu: in which a CPU worker was at work.
        model: in which a model worker was at work.
        both: in which workers of both kinds were.
    """

    cpu: float
    model: float
    both: float


def shares(done: Sequence[Done]) -> Shares:
    """Return how much of the time which kinds of workers were at work; all 0 where nothing was done."""
    if not done:
        return Shares(0.0, 0.0, 0.0)
    first, last = _ends(done)
    spans = {pool: _union(one for one in done if one.pool == pool) for pool in ("cpu", "model")}
    total = max(last - first, 1e-9)
    cpu, model = (sum(end - start for start, end in spans[pool]) for pool in ("cpu", "model"))
    return Shares(cpu / total, model / total, _common(spans["cpu"], spans["model"]) / total)


def timeline(done: Sequence[Done]) -> str:
    """Return a chart with a line for each worker, and a last line with the shares of `shares`.

    A column shows the stage that took most of it, by its letter in the legend; "x" is a task that was lost, and a
    point that nothing was done.
    """
    if not done:
        return "nothing was done"
    first, last = _ends(done)
    seen = {stage_of(one.task) for one in done}
    letters = _letters([stage for stage in STAGES if stage in seen])
    workers = sorted({one.worker for one in done}, key=_natural)
    widest = max(len(worker) for worker in workers)
    lines = ["  ".join(f"{letter} {stage}" for stage, letter in letters.items()) + "  x lost"]
    for worker in workers:
        own = [one for one in done if one.worker == worker]
        lines.append(f"{worker:<{widest}} |{_row(own, letters, first, last)}|")
    share = shares(done)
    lines.append(
        f"{last - first:.1f} s from the first start to the last end: CPU stages at work {share.cpu:.0%} of it, model "
        f"stages {share.model:.0%}, both at once {share.both:.0%}"
    )
    return "\n".join(lines)


def _ends(done: Sequence[Done]) -> Span:
    return min(one.started for one in done), max(one.started + one.seconds for one in done)


def _union(done: Iterable[Done]) -> list[Span]:
    """Return the times in which any of these was under way, without overlaps, in order."""
    union: list[Span] = []
    for start, end in sorted((one.started, one.started + one.seconds) for one in done):
        if union and start <= union[-1][1]:
            union[-1] = union[-1][0], max(union[-1][1], end)
        else:
            union.append((start, end))
    return union


def _common(spans: Sequence[Span], others: Sequence[Span]) -> float:
    """Return how long both of two unions are under way."""
    seconds, one, other = 0.0, 0, 0
    while one < len(spans) and other < len(others):
        end = min(spans[one][1], others[other][1])
        seconds += max(0.0, end - max(spans[one][0], others[other][0]))
        if spans[one][1] == end:
            one += 1
        else:
            other += 1
    return seconds


def _letters(stages: Sequence[str]) -> dict[str, str]:
    """Return a letter for each stage: the first of its name that no stage before it has."""
    taken: dict[str, str] = {}
    for stage in stages:
        taken[stage] = next(letter for letter in stage if letter not in taken.values())
    return taken


def _row(done: Sequence[Done], letters: dict[str, str], first: float, last: float) -> str:
    column = max(last - first, 1e-9) / WIDTH
    filled: list[dict[str, float]] = [{} for _ in range(WIDTH)]
    for one in done:
        letter = "x" if one.record is None else letters[stage_of(one.task)]
        start, end = (one.started - first) / column, (one.started + one.seconds - first) / column
        begin = min(int(start), WIDTH - 1)
        for position in range(begin, max(begin + 1, min(math.ceil(end), WIDTH))):
            part = min(end, position + 1) - max(start, position)
            filled[position][letter] = filled[position].get(letter, 0.0) + part
    return "".join(max(cell, key=lambda letter: cell[letter]) if cell else "." for cell in filled)


def _natural(worker: str) -> tuple[str, int, str]:
    kind, _, rest = worker.partition(" ")
    number, _, where = rest.partition(" ")
    return kind, int(number) if number.isdecimal() else 0, where
