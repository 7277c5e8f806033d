"""CPU: what a message costs each process in processor time, and so what bounds the rest.

    python -m benchmarks.cpu [live|durable|lone ...]

For live and durable, a burst of 200-byte messages through the per-message API; for lone, one after the
other, each receipt awaited. User and system time, from the kernel's own account, in microseconds a
message: of the two clients' processes as a whole, of the hub thread by thread (ZMQbg/IO is libzmq's,
which encrypts). A machine's cores divided by their sum is the most that it can carry of this work.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from . import processes
from .bench import Bench
from .peers import ours
from .plans import Counter, burst

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
COUNTS = {"live": 1_000_000, "durable": 1_000_000, "lone": 4_000}
SIZE = 200

Spent = tuple[float, float]             # user, system: microseconds so far


def threads(pid: int) -> dict[str, Spent]:
    """What each thread of a process has used, by its name and number."""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):           # it has ended meanwhile
            head, _, tail = (task / "stat").read_text().rpartition(")")
            fields = tail.split()
            out[f"{head.partition('(')[2]} {task.name}"] = int(fields[11]) * TICK_US, int(fields[12]) * TICK_US
    return out


def accounted(side: Any, *args: Any) -> tuple[Any, Spent]:
    """A side of a run, and what its process used from its gate's opening on."""
    gate, began = args[-1], []

    def opened() -> None:
        gate()
        began.append(os.times())
    result = side(*args[:-1], _Gate(gate, opened))
    end = os.times()
    return result, ((end.user - began[0].user) * 1e6, (end.system - began[0].system) * 1e6)


class _Gate:
    """A gate that does something more when it is open."""

    def __init__(self, gate: Any, open_it: Any) -> None:
        self._gate, self._open = gate, open_it

    @property
    def began_s(self) -> float:
        began_s: float = self._gate.began_s
        return began_s

    def __call__(self) -> None:
        self._open()


def measure(bench: Bench, what: str) -> None:
    count, way = COUNTS[what], ours.WAYS[0] if what == "live" else ours.WAYS[1]
    running, name = bench.running(way), bench.new_name()
    sides: dict[str, tuple[Any, ...]] = {}
    if what == "lone":
        sides["sender"] = accounted, processes.asking, way, running.door, name, SIZE, count, 60.0
    else:
        sides["receiver"] = accounted, processes.receiving, way, running.door, name, Counter(count)
        sides["sender"] = accounted, processes.sending, way, running.door, name, burst, (SIZE, count)
    before = threads(running.pid)
    results = processes.run(list(sides.values()))
    click.echo(f"{what}, {count:,} messages of {SIZE} B: us a message, user + system")
    for side, result in zip(sides, results, strict=True):
        _show(side, result[2][1], count)
    for thread, (user, system) in sorted(threads(running.pid).items()):
        then = before.get(thread, (0.0, 0.0))
        if user + system - sum(then) > count / 100:
            _show("hub, " + thread.rpartition(" ")[0], (user - then[0], system - then[1]), count)


def _show(title: str, spent: Spent, count: int) -> None:
    click.echo(f"  {title:<20}{spent[0] / count:8.2f} +{spent[1] / count:6.2f}")


@click.command(help=__doc__)
@click.argument("kinds", nargs=-1, type=click.Choice(list(COUNTS)))
def main(kinds: tuple[str, ...]) -> None:
    with Bench(list(ours.WAYS[:2]), quick=False) as bench:
        for what in kinds or tuple(COUNTS):
            measure(bench, what)


if __name__ == "__main__":
    main()
