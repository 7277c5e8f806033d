"""Ceilings: the hub without sockets and disk, and the store without hub: what bounds all the rest."""

import os
import time
from collections.abc import Callable

from zbackbone import facts as f
from zbackbone import protocol as p
from zbackbone.auth.keys import make_pair
from zbackbone.auth.policy import EVERYTHING, to_wire
from zbackbone.router.hub import Hub, Settings
from zbackbone.router.journaled import JournaledStore

from ..bench import Bench, Case

SIZE = 200
BATCHES = {1: 128, 500: 16}      # messages a batch: batches a turn
OUTBOX = bytes(8)
KEYS = "aa" * 32, "bb" * 32


def groups(bench: Bench) -> list[list[Case]]:
    seconds = 0.3 if bench.quick else 1.0
    out = []
    for messages, batches in BATCHES.items():
        what = "lone messages" if messages == 1 else f"batches of {messages}"
        out.append([Case("ceiling: the hub alone", what, "decode, decide, deliver, ack", "", False,
                         lambda m=messages, b=batches: hub_alone(m, b, seconds))])
        out.append([Case("ceiling: the store alone", what, f"{n} batches a commit", "synced to disk", False,
                         lambda m=messages, n=n: store_alone(bench, m, n, seconds)) for n in (batches, 1)])
    return out


def hub_alone(messages: int, batches: int, seconds: float) -> dict[str, float]:
    """A sender's and a receiver's commands, as bytes, and the hub's answers to bytes again."""
    hub = Hub(bytes(8), Settings(), make_pair, 1)
    for number, key in enumerate(KEYS, 1):
        hub.apply(f.Registered(number, f"c{number}", key, to_wire(EVERYTHING), 0))
        hub.hear(bytes([number]), key, p.Hello(p.VERSION, bytes(8), OUTBOX, 0, 60), b"", 0, 0.0)
    hub.hear(b"\2", KEYS[1], p.Receive(0, p.WINDOW_BYTES_MAX), b"", 0, 0.0)
    body = p.pack_batch([os.urandom(SIZE)] * messages)
    number = heard = 0

    def turn() -> int:
        nonlocal number, heard
        for _ in range(batches):
            number += 1
            header = p.encode(p.Send(OUTBOX, number, number - 1, p.SEND, "c2", messages))
            hub.hear(b"\1", KEYS[0], p.decode(header), body, 0, 0.0)
        hub.take_facts()
        hub.committed([])
        for _, answer in hub.answers():
            p.encode(answer)
        got = 0
        for _, _, due in hub.deliveries():
            for at, previous, skip, envelope, data in due:
                p.encode(p.Deliver(at, previous, skip, envelope))
                got, heard = at, heard + len(envelope) + len(data)
        hub.hear(b"\2", KEYS[1], p.decode(p.encode(p.Ack(got + 1, 0))), b"", 0, 0.0)
        hub.hear(b"\2", KEYS[1], p.decode(p.encode(p.Credit(heard + p.WINDOW_BYTES_MAX, 0, 0))), b"", 0, 0.0)
        inbox = hub.inboxes[2]
        hub.take_facts()
        hub.committed([f.Freed(2, inbox.messages, inbox.size)])
        return batches * messages
    return _rate(turn, seconds)


def store_alone(bench: Bench, messages: int, batches: int, seconds: float) -> dict[str, float]:
    """Commits of such batches, each commit with an acknowledgement of the last one's."""
    folder = bench.new_folder()
    store = JournaledStore(folder / "hub.db", bytes(8))
    store.commit([f.Registered(1, "c1", KEYS[0], to_wire(EVERYTHING), 0)])
    body = p.pack_batch([os.urandom(SIZE)] * messages)
    envelope = p.pack_envelope(p.Envelope("c1", 0, p.SEND, "c1", OUTBOX, 1, messages))
    number = 0

    def turn() -> int:
        nonlocal number
        facts: list[f.Fact] = [f.Acked(1, number + 1, 0)] if number else []
        for _ in range(batches):
            number += 1
            facts.append(f.Stored(messages, envelope, body, ((1, number),)))
        facts.append(f.Moved(1, OUTBOX, number, (), False))
        store.commit(facts)
        return batches * messages
    try:
        return _rate(turn, seconds)
    finally:
        store.close()


def _rate(turn: Callable[[], int], seconds: float) -> dict[str, float]:
    began_s = time.perf_counter()
    messages = turns = 0
    while (took_s := time.perf_counter() - began_s) < seconds:
        messages += turn()
        turns += 1
    return {"msg/s": messages / took_s, "turns/s": turns / took_s}
