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


def steady(size: int, rate: float, seconds: float) -> Iterator[tuple[float, list[bytes]]]:
    """So many a second, each stamped with when it was due, not with when it left: a sender that
    falls behind must not look quick. Above 1,000 a second, what is due in a millisecond goes together."""
    filler = os.urandom(size - STAMP_BYTES)
    step_s = max(STEP_S, 1 / rate)
    began_s = time.monotonic()
    sent, steps = 0, int(seconds / step_s)
    for step in range(1, steps + 1):
        due_s = began_s + step * step_s
        more = int(step * step_s * rate) - sent
        sent += more
        yield due_s, [int(due_s * 1e9).to_bytes(STAMP_BYTES, "little") + filler] * more


def steady_count(rate: float, seconds: float) -> int:
    """How many messages `steady` is."""
    step_s = max(STEP_S, 1 / rate)
    return int(int(seconds / step_s) * step_s * rate)


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

    def result(self) -> tuple[int, int]:
        return self.count, self.bytes


class Stopwatch(Counter):
    """Also keeps how long each took from its stamp to here, in seconds."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.took_s: list[float] = []

    def __call__(self, body: bytes) -> bool:
        self.took_s.append(time.monotonic() - int.from_bytes(body[:STAMP_BYTES], "little") / 1e9)
        return super().__call__(body)

    def result(self) -> tuple[int, int, list[float]]:  # type: ignore[override]
        return self.count, self.bytes, self.took_s


def percentiles(took_s: list[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in microseconds."""
    ordered = sorted(took_s)
    return {f"p{p}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] * 1e6 for p in (50, 99, 99.9)}
