"""Token buckets: a minute's requests in any rhythm, and no more."""

from hypothesis import given
from hypothesis import strategies as st

from spicula.serving import rates
from spicula.serving.rates import Rates, address_key


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def test_a_burst_then_a_steady_rate():
    clock = Clock()
    buckets = Rates(60, clock)
    assert [buckets.wait("a") for _ in range(60)] == [0] * 60
    assert buckets.wait("a") == 1.0
    assert buckets.wait("b") == 0  # another has a bucket of his own
    clock.time += 0.5
    assert buckets.wait("a") == 0.5
    clock.time += 0.5
    assert buckets.wait("a") == 0
    assert buckets.wait("a") > 0
    clock.time += 3600
    assert [buckets.wait("a") > 0 for _ in range(61)] == [False] * 60 + [True]


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 50))
def test_never_more_than_two_minutes_worth_in_a_minute(pauses, a_minute):
    clock = Clock()
    buckets = Rates(a_minute, clock)
    times = []
    for pause in pauses:
        clock.time += pause
        if buckets.wait("a") == 0:
            times.append(clock.time)
    for time in times:
        assert sum(1 for other in times if time <= other < time + 60) <= 2 * a_minute


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(rates, "_MOST", 100)
    buckets = Rates(10, Clock())
    for number in range(1000):
        buckets.wait(str(number))
    assert len(buckets._buckets) <= 100


def test_addresses():
    assert address_key("10.0.0.1") == "10.0.0.1"
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("") == ""
