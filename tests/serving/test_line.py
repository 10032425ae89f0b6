"""A bounded line, and doing several things at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicula.serving.line import Line
from spicula.serving.problems import Problem
from spicula.serving.together import together


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 4))
def test_everybody_who_stays_is_answered_once_in_order_whoever_leaves(stays, most, answerers):
    async def main():
        line, order = Line(len(stays)), []

        async def answer():
            while True:
                for asked in await line.take(most):
                    order.append(asked.question)
                    asked.give(asked.question * 2)

        asking = [asyncio.create_task(line.ask(number)) for number in range(len(stays))]
        await asyncio.sleep(0)
        assert len(line) == len(stays)
        for task, stay in zip(asking, stays, strict=True):
            if not stay:
                task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(line) == sum(stays)
        working = [asyncio.create_task(answer()) for _ in range(answerers)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        for task in working:
            task.cancel()
        return order, found

    order, found = asyncio.run(main())
    assert order == [number for number, stay in enumerate(stays) if stay]
    assert [one for one in found if not isinstance(one, asyncio.CancelledError)] == [number * 2 for number in order]


def test_a_full_line_takes_nobody():
    async def main():
        line = Line(2)
        asking = [asyncio.create_task(line.ask(number)) for number in range(3)]
        with pytest.raises(Problem) as caught:
            await asking[2]
        for task in asking[:2]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        line.refuse_if_full()
        return caught.value

    assert asyncio.run(main()).code == "queue"


def test_a_reason_is_raised_to_whoever_asked():
    async def main():
        line = Line(2)
        asking = asyncio.create_task(line.ask("question"))
        (asked,) = await line.take()
        asked.give(ValueError("no"))
        asked.give("too late")
        with pytest.raises(ValueError, match="no"):
            await asking

    asyncio.run(main())


@pytest.mark.parametrize("at_a_time", [1, 3, 50])
def test_answers_come_in_order_and_no_more_are_under_way_than_allowed(at_a_time):
    under_way, most = 0, 0

    async def double(number):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (number % 3))
        under_way -= 1
        return number * 2

    assert asyncio.run(together(double, range(20), at_a_time)) == [2 * number for number in range(20)]
    assert most == min(at_a_time, 20)


def test_the_first_failure_ends_the_others():
    ended = []

    async def work(number):
        if number == 1:
            raise ValueError("no")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(number)
            raise

    with pytest.raises(ValueError, match="no"):
        asyncio.run(together(work, range(5), 3))
    assert ended == [0, 2]
