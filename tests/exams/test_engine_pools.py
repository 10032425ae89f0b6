"""The bookkeeping of a pool, in a world where anything can happen to workers at any time."""

from collections import deque
from dataclasses import dataclass, field

import pytest
from engine_bench import task
from hypothesis import given
from hypothesis import strategies as st

from spicula.errors import SpiculaError
from spicula.exams.engines import pools
from spicula.exams.engines.pools import Pool
from spicula.exams.types import Record, Task


@dataclass(eq=False)
class Worker:
    number: int
    tasks: deque[Task] = field(default_factory=deque)
    is_ready: bool = False
    is_ended: bool = False


def record(one: Task) -> Record:
    return {
        **{"exam": one["exam"], "step": one["step"], "key": one["key"], "status": "ok", "error": None},
        **{"outputs": "", "scores": [], "started": 100.0, "seconds": 2.0},
    }


class World:
    """Workers that do nothing by themselves."""

    def __init__(self, fewest: int = 1, most: int = 2, seconds: float = 10.0) -> None:
        self.hired: list[Worker] = []
        self.has_room = True
        self.pool: Pool[Worker] = Pool(
            "cpu",
            fewest,
            most,
            {"crop": seconds},
            hire=self.hire,
            give=self.give,
            end=self.end,
            is_placed=lambda worker: self.has_room,
        )

    def hire(self, number: int) -> Worker:
        self.hired.append(Worker(number))
        return self.hired[-1]

    def give(self, worker: Worker, one: Task) -> None:
        assert worker.is_ready
        worker.tasks.append(one)

    def end(self, worker: Worker) -> None:
        worker.is_ended = True

    def get_ready(self, worker: Worker) -> None:
        worker.is_ready = True
        self.pool.ready(worker)

    def finish(self, worker: Worker):
        return self.pool.done(worker, record(worker.tasks.popleft()))


def submitted(world: World, count: int) -> list[Task]:
    tasks = [task(f"ok-{number}") for number in range(count)]
    for one in tasks:
        world.pool.submit(one)
    return tasks


def test_every_worker_gets_one_before_any_gets_one_ahead():
    world = World(fewest=2, most=2)
    world.pool.start()
    for worker in world.hired:
        world.get_ready(worker)
    tasks = submitted(world, 4)
    assert [list(worker.tasks) for worker in world.hired] == [[tasks[0], tasks[2]], [tasks[1], tasks[3]]]


def test_what_a_worker_that_gets_ready_can_do_is_not_sent_ahead_to_another():
    world = World(most=2)
    world.pool.start()
    tasks = submitted(world, 2)
    world.get_ready(world.hired[0])
    assert list(world.hired[0].tasks) == [tasks[0]]
    world.get_ready(world.hired[1])
    assert list(world.hired[1].tasks) == [tasks[1]]


def test_there_is_room_for_two_tasks_a_worker_and_no_more():
    world = World(most=3)
    submitted(world, 6)
    assert world.pool.room == 0
    with pytest.raises(ValueError, match="no room for another task in the pool 'cpu'"):
        world.pool.submit(task("ok-7"))


def test_a_pool_grows_with_the_backlog_and_shrinks_when_idle():
    world = World(fewest=1, most=3)
    world.pool.start()
    assert len(world.hired) == 1
    submitted(world, 2)
    assert len(world.hired) == 2
    submitted(world, 4)
    assert len(world.hired) == 3
    for worker in world.hired:
        world.get_ready(worker)
    while at_work := [worker for worker in world.hired if worker.tasks]:
        world.finish(at_work[0])
    world.pool.tick(pools.IDLE_SECONDS)
    assert len(world.pool.workers) == 3
    world.pool.tick(1.0)
    assert len(world.pool.workers) == 1
    assert sum(worker.is_ended for worker in world.hired) == 2
    submitted(world, 6)
    assert len(world.pool.workers) == 3
    assert sorted(worker.number for worker in world.pool.workers) == [1, 2, 3]


def test_a_pool_may_shrink_to_nothing():
    world = World(fewest=0, most=1)
    world.pool.start()
    assert world.hired == []
    submitted(world, 1)
    world.get_ready(world.hired[0])
    world.finish(world.hired[0])
    world.pool.tick(pools.IDLE_SECONDS + 1)
    assert world.pool.workers == []


def test_the_death_of_a_worker_costs_the_task_that_it_was_at():
    world = World(most=1)
    first, second = submitted(world, 2)
    world.get_ready(world.hired[0])
    (lost,) = world.pool.ended(world.hired[0], "struck by lightning")
    assert (lost.task, lost.record, lost.lost) == (first, None, "struck by lightning")
    world.get_ready(world.hired[1])
    assert list(world.hired[1].tasks) == [second]


def test_a_stuck_worker_is_ended_and_its_task_lost_with_the_limit():
    world = World(most=1, seconds=10)
    submitted(world, 2)
    world.get_ready(world.hired[0])
    world.pool.tick(10.0)
    assert not world.hired[0].is_ended
    world.pool.tick(0.1)
    assert world.hired[0].is_ended
    assert [done.lost for done in world.pool.ended(world.hired[0], "killed")] == ["crop took more than 10 s"]


def test_one_that_finishes_just_when_it_is_ended_costs_nothing():
    world = World(most=1, seconds=10)
    first, second = submitted(world, 2)
    world.get_ready(world.hired[0])
    world.pool.tick(11.0)
    assert world.finish(world.hired[0]).task == first
    assert world.pool.ended(world.hired[0], "killed") == []
    world.get_ready(world.hired[1])
    assert list(world.hired[1].tasks) == [second]


def test_every_task_has_the_time_of_its_own_stage():
    world = World(most=1, seconds=10)
    submitted(world, 2)
    world.get_ready(world.hired[0])
    world.pool.tick(9.0)
    world.finish(world.hired[0])
    world.pool.tick(9.0)
    assert not world.hired[0].is_ended
    world.finish(world.hired[0])
    world.pool.submit(task("ok-3", "visualize"))
    world.pool.tick(1e6)
    assert not world.hired[0].is_ended


def test_workers_that_never_get_ready_are_given_up():
    world = World(most=1)
    submitted(world, 1)
    for _ in range(pools.MOST_STARTS - 1):
        assert world.pool.ended(world.hired[-1], "killed") == []
    with pytest.raises(SpiculaError, match=r"workers of the pool 'cpu' cannot start \(killed\)"):
        world.pool.ended(world.hired[-1], "killed")


def fail_to_start(world: World, times: int) -> None:
    for _ in range(times):
        (starting,) = [worker for worker in world.pool.workers if not worker.is_ready]
        assert world.pool.ended(starting, "killed") == []


def test_those_that_are_ready_go_on_when_no_other_gets_ready(capsys):
    world = World(most=2)
    submitted(world, 4)
    world.get_ready(world.hired[0])
    fail_to_start(world, pools.MOST_STARTS)
    assert world.pool.workers == world.hired[:1]
    line = "workers of the pool 'cpu' cannot start (killed); it goes on with the 1 that is ready\n"
    assert capsys.readouterr().err == line
    for _ in range(4):
        world.finish(world.hired[0])
    assert world.pool.room == 2
    assert world.pool.workers == world.hired[:1]


def test_when_the_last_that_was_ready_is_gone_workers_that_cannot_start_are_an_error():
    world = World(most=2)
    submitted(world, 4)
    world.get_ready(world.hired[0])
    fail_to_start(world, pools.MOST_STARTS)
    assert len(world.pool.ended(world.hired[0], "killed")) == 1
    fail_to_start(world, pools.MOST_STARTS - 1)
    with pytest.raises(SpiculaError, match="workers of the pool 'cpu' cannot start"):
        world.pool.ended(world.pool.workers[0], "killed")


def test_one_that_gets_ready_after_all_counts_again():
    world = World(fewest=3, most=3)
    world.pool.start()
    submitted(world, 6)
    world.get_ready(world.hired[0])
    for _ in range(pools.MOST_STARTS):
        world.pool.ended(world.pool.workers[-1], "killed")
    late = world.pool.workers[1]
    assert world.pool.workers == [world.hired[0], late]
    world.get_ready(late)
    while at_work := [worker for worker in world.hired if worker.tasks]:
        world.finish(at_work[0])
    assert world.pool.room == 4


def test_a_worker_that_is_stuck_at_its_start_is_ended_and_cannot_start():
    world = World(most=1)
    submitted(world, 1)
    for number in range(pools.MOST_STARTS):
        world.pool.tick(pools.START_SECONDS)
        assert not world.hired[number].is_ended
        world.pool.tick(0.1)
        assert world.hired[number].is_ended
        if number < pools.MOST_STARTS - 1:
            assert world.pool.ended(world.hired[number], "killed") == []
    with pytest.raises(SpiculaError, match=r"'cpu' cannot start \(took more than 600 s to start\)"):
        world.pool.ended(world.hired[-1], "killed")


def test_one_that_gets_ready_just_when_it_is_ended_costs_nothing():
    world = World(most=1)
    (one,) = submitted(world, 1)
    world.pool.tick(pools.START_SECONDS + 0.1)
    assert world.hired[0].is_ended
    world.get_ready(world.hired[0])
    assert not world.hired[0].tasks
    assert world.pool.ended(world.hired[0], "killed") == []
    world.get_ready(world.hired[1])
    assert list(world.hired[1].tasks) == [one]


def test_to_wait_for_a_machine_is_no_start():
    world = World(most=1)
    world.has_room = False
    submitted(world, 1)
    world.pool.tick(100 * pools.START_SECONDS)
    assert not world.hired[0].is_ended
    world.has_room = True
    world.pool.tick(pools.START_SECONDS)
    assert not world.hired[0].is_ended
    world.pool.tick(0.1)
    assert world.hired[0].is_ended


def test_idle_workers_may_die_as_often_as_they_like():
    world = World(fewest=1, most=1)
    for _ in range(3 * pools.MOST_STARTS):
        submitted(world, 1)
        world.get_ready(world.hired[-1])
        world.finish(world.hired[-1])
        assert world.pool.ended(world.hired[-1], "killed") == []


def test_a_task_carries_who_did_it_and_when():
    world = World(most=1)
    submitted(world, 1)
    worker = world.hired[0]
    worker.is_ready = True
    world.pool.ready(worker, "node-7")
    done = world.finish(worker)
    assert (done.pool, done.worker, done.started, done.seconds) == ("cpu", "cpu 1 on node-7", 100.0, 2.0)


@given(st.randoms(use_true_random=True), st.integers(1, 4), st.integers(0, 30))
def test_whatever_happens_every_task_has_exactly_one_outcome(dice, most, count):
    world = World(fewest=dice.randint(0, most), most=most, seconds=10)
    world.pool.start()
    tasks, told = [task(f"ok-{number}") for number in range(count)], []
    waiting = deque(tasks)
    unlucky = 0
    while len(told) < count:
        while waiting and world.pool.room and dice.random() < 0.5:
            world.pool.submit(waiting.popleft())
        assert len(world.pool.workers) <= most
        held = [one["id"] for worker in world.pool.workers for one in worker.tasks]
        assert len(held) == len(set(held)) <= 2 * most
        if not world.pool.workers:
            continue
        worker = dice.choice(world.pool.workers)
        happens = dice.choice(["go on", "go on", "go on", "die", "time"])
        if not worker.is_ready and unlucky == pools.MOST_STARTS - 1 and not world.pool.ready_count:
            unlucky = 0
            world.get_ready(worker)
        elif happens == "time":
            world.pool.tick(dice.choice([0.1, 3.0, 11.0, 61.0, pools.START_SECONDS + 1]))
        elif happens == "die" or worker.is_ended:
            unlucky = (unlucky + (not worker.is_ready)) % pools.MOST_STARTS
            told += [done.task["id"] for done in world.pool.ended(worker, "killed")]
            assert worker not in world.pool
        elif not worker.is_ready:
            unlucky = 0
            world.get_ready(worker)
        elif worker.tasks:
            told.append(world.finish(worker).task["id"])
    assert sorted(told) == [one["id"] for one in tasks]
