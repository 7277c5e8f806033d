"""Latency: from when a message was due to be sent until it is in the receiver's hands, at a steady pace.

At 100 a second for everybody, and at 1, 50 and 90 % of each way's own top rate. The time counts
from when it was due, so a sender that stalls is not let off. Receipts: see receipt.
"""

from .. import processes
from ..bench import Bench, Case
from ..peers import DURABLE, LIVE, Way
from ..plans import Stopwatch, percentiles, steady, steady_count
from .live import USUAL

LOW = 100.0
SHARES = (0.01, 0.5, 0.9)


def groups(bench: Bench) -> list[list[Case]]:
    out = []
    for work in (LIVE, DURABLE):
        title = f"one-way latency, {work}"
        ways = bench.of(work)
        out.append([bench.case(title, f"{LOW:.0f} messages a second", way, lambda way=way: one_way(bench, way, LOW))
                    for way in ways])
        for share in SHARES:
            out.append([bench.case(title, f"{share:.0%} of its own top rate", way,
                                   lambda way=way, share=share: one_way(bench, way, share * top(bench, way)))
                        for way in ways])
    return out


def top(bench: Bench, way: Way) -> float:
    if (way.title, USUAL) not in bench.rate:
        bench.pair(way, USUAL, 0.5)
    return bench.rate[way.title, USUAL]


def one_way(bench: Bench, way: Way, rate: float) -> dict[str, float]:
    seconds = 0.7 if bench.quick else 1.0
    door, name, count = bench.running(way).door, bench.new_name(), steady_count(rate, seconds)
    received, _ = processes.run([
        (processes.receiving, way, door, name, Stopwatch(count)),
        (processes.sending, way, door, name, steady, (USUAL, rate, seconds))])
    _, (heard, _, took_s) = received[2]
    figures = percentiles(took_s[len(took_s) // 10:])        # the first ones meet connections that are still cold
    if heard != count:
        figures["lost %"] = 100 * (count - heard) / count
    return figures
