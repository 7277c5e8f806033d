"""Latency at a steady pace: until a durable or live message is in the receiver's hands, and until
its receipt is in the sender's.

At 100 a second for everybody, and at 1, 50 and 90 % of each way's own top rate. The time counts
from when it was due, so a sender that stalls is not let off (see plans). Receipts are those of the
last message of each millisecond, and are measured in runs of their own, with a receiver that
takes and acknowledges: watching them costs a sender something.
"""

from collections.abc import Callable

from .. import processes
from ..bench import Bench, Case
from ..peers import DURABLE, LIVE, Way
from ..plans import Counter, Stopwatch, percentiles, steady, steady_count
from ..targets import LONE
from .live import USUAL

LOW = 100.0
SHARES = (0.01, 0.5, 0.9)
SECONDS, LOW_SECONDS = 0.8, 1.5


def groups(bench: Bench) -> list[list[Case]]:
    receipts = [way for way in bench.of(DURABLE) if way.has_receipts]
    return [*_groups(bench, f"one-way latency, {LIVE}", bench.of(LIVE), one_way),
            *_groups(bench, f"one-way latency, {DURABLE}", bench.of(DURABLE), one_way),
            *_groups(bench, "receipt latency", receipts, receipt)]


def _groups(bench: Bench, title: str, ways: list[Way],
            measure: Callable[[Bench, Way, float, float], dict[str, float]]) -> list[list[Case]]:
    low, seconds = (1.0, 0.5) if bench.quick else (LOW_SECONDS, SECONDS)
    return [
        [bench.case(title, LONE, way, lambda way=way: measure(bench, way, LOW, low)) for way in ways],
        *([bench.case(title, f"{share:.0%} of its own top rate", way, lambda way=way, share=share: measure(
            bench, way, share * bench.top(way, USUAL), seconds)) for way in ways] for share in SHARES)]


def one_way(bench: Bench, way: Way, rate: float, seconds: float) -> dict[str, float]:
    door, name, count = bench.running(way).door, bench.new_name(), steady_count(rate, seconds)
    received, _ = processes.run([
        (processes.receiving, way, door, name, Stopwatch(count)),
        (processes.sending, way, door, name, steady, (USUAL, rate, seconds))])
    _, (heard, _, took_s) = received[2]
    figures = _figures(took_s)
    if heard != count:
        figures["lost %"] = 100 * (count - heard) / count
    return figures


def receipt(bench: Bench, way: Way, rate: float, seconds: float) -> dict[str, float]:
    door, name, count = bench.running(way).door, bench.new_name(), steady_count(rate, seconds)
    _, watched = processes.run([
        (processes.receiving, way, door, name, Counter(count)),
        (processes.watching, way, door, name, steady, (USUAL, rate, seconds))])
    return _figures(watched[2])


def _figures(took_s: list[float]) -> dict[str, float]:
    if not took_s:
        raise processes.SideFailed("nothing came")
    return percentiles(took_s[len(took_s) // 10:])       # the first ones meet connections that are still cold
