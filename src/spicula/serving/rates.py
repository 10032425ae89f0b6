"""How often somebody may ask: a token bucket for each, so that a pause is made good by a burst of a minute's size."""

import ipaddress
import time
from collections.abc import Callable

#: Beyond so many, those that have waited until their bucket was full again are forgotten: nothing is lost with them.
_MOST = 10_000


class Rates:
    """Buckets of requests.

    Args:
        a_minute: requests that each may make in a minute, in any rhythm.
        clock: seconds.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_minute, self._clock = a_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, key: str) -> float:
        """Take one request from a bucket.

        Returns:
            0 where there was one; else the seconds until there is.
        """
        now = self._clock()
        level, then = self._buckets.get(key, (float(self._a_minute), now))
        level = min(self._a_minute, level + (now - then) * self._a_minute / 60)
        if level < 1:
            self._buckets[key] = (level, now)
            return (1 - level) * 60 / self._a_minute
        self._buckets[key] = (level - 1, now)
        if len(self._buckets) > _MOST:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        full = [
            key
            for key, (level, then) in self._buckets.items()
            if level + (now - then) * self._a_minute / 60 >= self._a_minute
        ]
        # Where everybody was here within a minute, the first to come go: they get a full bucket.
        for key in full or list(self._buckets)[: _MOST // 10]:
            del self._buckets[key]


def address_key(client: str) -> str:
    """Return what stands for an address: an IPv6 host has 2^64 of them, which all count as one."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return client
