"""Inboxes: fan-out of one publisher into 1, 10, 100 and 1,000 durable inboxes, all acknowledged.

As in fanout, no client library is in the way; the publisher has what it sends confirmed.
"""

import os
import time
from collections.abc import Callable

from .. import bare, inboxes, processes
from ..bench import Bench, Case
from ..peers import DURABLE, Way
from .fanout import BATCH, COUNTS, LEAST, QUICK_COUNTS, SIZE, adaptive, hear, ours, rate_of

TITLE = "fan-out to inboxes, packed beforehand"
UNANSWERED_MAX, SOME = 2000, 20      # unanswered messages, and how many are written at once


def groups(bench: Bench) -> list[list[Case]]:
    out = []
    for count in QUICK_COUNTS if bench.quick else COUNTS:
        what = f"{count:,} inbox" + "es" * (count > 1)
        cases = [Case(TITLE, what, "zbackbone", "synced to disk", True, adaptive(
            bench, "zbackbone, durable", count, BATCH, lambda n, c=count: ours(bench, c, n, True)))]
        for way in (way for way in bench.of(DURABLE) if way.peer in inboxes.PROTOCOLS and way.has_receipts):
            cases.append(Case(TITLE, what, way.server_title, way.promise, False, adaptive(
                bench, way.title, count, LEAST, lambda n, way=way, c=count: theirs(bench, way, c, n))))
        out.append(cases)
    return out


def theirs(bench: Bench, way: Way, count: int, messages: int) -> float:
    port, name = bench.running(way).door, bench.new_name()
    try:
        return rate_of((_listen, way.peer, port, count, name, messages),
                     (_publish, way.peer, port, name, messages), messages, count)
    finally:
        inboxes.clear(way.peer, port, name)


def _listen(peer: str, port: int, count: int, name: str, messages: int, gate: Callable[[], None]) -> int:
    inboxes.prepare(peer, port, name)
    swarm = bare.Swarm(inboxes.PROTOCOLS[peer](), port, count, name)
    inboxes.attach(swarm, peer, port, name)
    gate()
    return hear(swarm, name, messages)


def _publish(peer: str, port: int, name: str, messages: int, gate: Callable[[], None]) -> None:
    swarm = bare.Swarm(inboxes.PROTOCOLS[peer](), port, 1)
    body = os.urandom(SIZE)
    packed = [b"".join(swarm.protocol.request(0, name, body, number) for number in range(at, at + SOME))
              for at in range(0, messages, SOME)]
    gate()
    for sent, some in enumerate(packed):
        while sent * SOME - swarm.settled[0] > UNANSWERED_MAX - SOME:
            for _ in swarm.answers(5):
                pass
        swarm.sockets[0].sendall(some)
    until_s = time.monotonic() + processes.SILENCE_S
    while swarm.settled[0] < messages and time.monotonic() < until_s:
        for _ in swarm.answers(1):
            until_s = time.monotonic() + processes.SILENCE_S
