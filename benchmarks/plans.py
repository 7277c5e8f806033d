"""Plans: what to send when; counting and timing what comes.

A plan is a series of (due_s, bodies): not before that moment of time.monotonic(), which all
processes of a machine share, send these. 0 is "at once".
"""

import itertools
import os
import time
from collections.abc import Iterable, Iterator

Plan = Iterable[tuple[float, Iterable[bytes]]]
STAMP_BYTES = 8
STEP_S = 0.001


def burst(size: int, count: int) -> Plan:
    """As fast as it goes. Every body has the same bytes, which don't compress."""
    yield 0.0, itertools.repeat(os.urandom(size), count)


def steady(size: int, rate: float, seconds: float) -> Iterator[tuple[float, Iterable[bytes]]]:
    """So many a second, each stamped. Above 1,000 a second, what is due in a millisecond goes together."""
    filler = os.urandom(size - STAMP_BYTES)
    step_s = max(STEP_S, 1 / rate)
    began_s = time.monotonic()
    sent, steps = 0, int(seconds / step_s)
    for step in range(1, steps + 1):
        due_s = began_s + step * step_s
        more = _by(step, step_s, rate) - sent
        sent += more
        if more:
            yield due_s, _stamped(due_s, time.monotonic() < due_s, filler, more)


def _stamped(due_s: float, is_awaited: bool, filler: bytes, count: int) -> Iterator[bytes]:
    """Bodies that are stamped when the first is taken.

    The stamp is when they were due, if the sender was still busy then with what came before: one that
    falls behind must not look quick. One that was waiting for the moment (is_awaited), and was woken
    late, stamps when it woke: timers of asyncio and pika count in milliseconds, and a clock's
    coarseness is not the system's delay.
    """
    stamp_s = max(due_s, time.monotonic()) if is_awaited else due_s
    body = int(stamp_s * 1e9).to_bytes(STAMP_BYTES, "little") + filler
    yield from itertools.repeat(body, count)


def stamp_s(body: bytes) -> float:
    """When that one was due, in seconds of time.monotonic()."""
    return int.from_bytes(body[:STAMP_BYTES], "little") / 1e9


def steady_count(rate: float, seconds: float) -> int:
    """How many messages `steady` is."""
    step_s = max(STEP_S, 1 / rate)
    return _by(int(seconds / step_s), step_s, rate)


def _by(step: int, step_s: float, rate: float) -> int:
    """How many are due by the end of that step; a hair's breadth below a whole number is one."""
    return int(step * step_s * rate + 1e-6)


def left_s(due_s: float) -> float:
    """Seconds to sleep until then."""
    return max(0.0, due_s - time.monotonic())


class Counter:
    """Called with every body that comes; true with the last."""

    def __init__(self, count: int) -> None:
        self.wanted = count
        self.count = 0
        self.bytes = 0
        self.done_s = 0.0            # when the last came

    def __call__(self, body: bytes) -> bool:
        self.count += 1
        self.bytes += len(body)
        if self.count < self.wanted:
            return False
        self.done_s = time.monotonic()
        return True

    def many(self, count: int, size: int) -> bool:
        """So many at once, of so many bytes together; true with the last."""
        self.count += count
        self.bytes += size
        if self.count < self.wanted:
            return False
        self.done_s = time.monotonic()
        return True

    def result(self) -> tuple[int, int]:
        return self.count, self.bytes


class Stopwatch(Counter):
    """Also keeps how long each took from its stamp to here, in seconds."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.took_s: list[float] = []

    def __call__(self, body: bytes) -> bool:
        self.took_s.append(time.monotonic() - stamp_s(body))
        return super().__call__(body)

    def result(self) -> tuple[int, int, list[float]]:  # type: ignore[override]
        return self.count, self.bytes, self.took_s


def percentiles(took_s: list[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in microseconds, of seconds; those that so many can tell: the 99.9th of a
    hundred would be the highest, whatever it is."""
    ordered = sorted(took_s)
    return {f"p{p}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] * 1e6
            for p, least in ((50, 1), (99, 100), (99.9, 1000)) if len(ordered) >= least}
