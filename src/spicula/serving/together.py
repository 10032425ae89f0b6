"""Several waits at once, and what ends them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")
Q = TypeVar("Q")


async def together(do: Callable[[Q], Awaitable[T]], questions: Sequence[Q], at_a_time: int) -> list[T]:
    """Do something for each of several questions, and return what came of them, in their order.

    The first failure ends the others, and is raised.

    Args:
        do: called with each question.
        questions: in the order in which they are begun.
        at_a_time: how many are under way at most.
    """
    if len(questions) == 1:
        return [await do(questions[0])]
    found: dict[int, T] = {}
    remaining = iter(enumerate(questions))

    async def work() -> None:
        for number, question in remaining:
            found[number] = await do(question)

    tasks = [asyncio.create_task(work()) for _ in range(min(at_a_time, len(questions)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [found[number] for number in range(len(questions))]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; it is cancelled when the client leaves.

    Args:
        request: whose body has been read to its end.
        work: what is done for it.

    Raises:
        ClientDisconnect: the client has left, and nobody waits for an answer.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    leaving.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if not leaving.done() or (this := asyncio.current_task()) is None or this.cancelling():
            raise
        raise ClientDisconnect from None
    finally:
        leaving.cancel()


async def _left(request: Request) -> None:
    with suppress(Exception):  # whatever ends the connection
        while (await request.receive())["type"] != "http.disconnect":
            pass
