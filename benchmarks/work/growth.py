"""Growth: throughput, memory and start-up as messages wait, and inboxes and subscriptions become many.

What waits lies in the inbox of a client who is away, each message in a batch of its own: the
most entries, and the most work, that so many messages can be. Of each group the first row is
the reference, so the last column says how much slower the grown hub is.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from zbackbone.testing import TestHub

from ..bench import Bench, Case
from ..hubs import Past, new_hub
from ..peers import Running, Way, ours
from ..servers import memory_mb
from ..targets import INBOXES as INBOXES_TITLE
from ..targets import SUBSCRIPTIONS as SUBSCRIPTIONS_TITLE
from ..targets import WAITING as WAITING_TITLE

SIZE = 200
WAITING, INBOXES, SUBSCRIPTIONS = (0, 10_000, 1_000_000, 5_000_000), (1, 1000, 100_000), (1, 1000, 100_000)
SUBSCRIBERS = 100


class Grown(NamedTuple):
    """A hub with a past, stopped, and who will talk over it."""

    hub: TestHub
    door: ours.Door


def groups(bench: Bench) -> list[list[Case]]:
    def case(what: str, label: str, way: Way, fill: Callable[[Past], None]) -> Case:
        return Case(f"growth, {way.work} throughput", what, label, way.promise, True,
                    lambda: measure(bench, label, way, fill))
    live, durable = ours.Live(), ours.Durable()
    cut = slice(0, 2) if bench.quick else slice(None)
    return [
        [case(WAITING_TITLE, f"{n:,} waiting", durable, lambda past, n=n: past.waiting("away0", n, SIZE))
         for n in WAITING[cut]],
        [case(INBOXES_TITLE, f"{n:,} more inboxes", durable, lambda past, n=n: past.clients(n, "idle") and None)
         for n in INBOXES[cut]],
        [case(SUBSCRIPTIONS_TITLE, f"{n:,} subscriptions", live, lambda past, n=n: past.subscriptions(
            [client.name for client in past.clients(SUBSCRIBERS, "idle")], _patterns(n)))
         for n in SUBSCRIPTIONS[cut]],
    ]


def _patterns(count: int) -> Iterator[str]:
    """Some exact, some with a wildcard in the middle; none of them wants what is measured."""
    return itertools.islice((f"fleet.{n}.position" if n % 2 else f"fleet.*.{n}.#" for n in itertools.count()), count)


def measure(bench: Bench, label: str, way: Way, fill: Callable[[Past], None]) -> dict[str, float]:
    """A restart of that hub, made when it is first asked for; then one sender, one receiver."""
    grown: Grown = bench.shared(f"growth {label}", lambda: _grow(bench, fill)).door
    began_s = time.monotonic()
    grown.hub.start()
    start_s = time.monotonic() - began_s
    assert grown.hub.process is not None
    pid = grown.hub.process.pid
    try:
        memory = memory_mb(pid)
        rate = bench.talk(way, grown.door, SIZE, 200_000 if bench.quick else 400_000)["msg/s"]
        return {"msg/s": rate, "start": start_s, "memory": memory, "memory busy": memory_mb(pid)}
    finally:
        grown.hub.stop()


def _grow(bench: Bench, fill: Callable[[Past], None]) -> Running:
    hub = new_hub(bench.new_folder())
    with Past(hub) as past:
        sender, receiver, _ = past.clients(1, "sender") + past.clients(1, "receiver") + past.clients(1, "away")
        fill(past)
    return Running(Grown(hub, ours.Door(sender, receiver, hub.operator)), 0, hub.kill)
