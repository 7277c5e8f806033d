"""Fan-in: 1,000 clients that each send lone messages, and wait for each one's receipt.

First as fast as receipts come (saturated). Then at a steady pace, whatever comes back: the
highest of these rates at which all is accepted, and 99 of 100 receipts come within a second.
Connections in one process, none of the client libraries: see raw and bare.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from zbackbone import protocol as p

from .. import bare, inboxes, processes, raw
from ..amqp import Amqp
from ..bench import Bench, Case
from ..hubs import hub_with
from ..peers import DURABLE, Running, Way
from ..plans import percentiles
from ..targets import FANIN as TITLE

CLIENTS, SIZE = 1000, 200
SHARES = (0.9, 0.75, 0.6, 0.4)       # of the saturated rate, until one is held
LATE_S = 1.0
DRAIN_S = 10


def groups(bench: Bench) -> list[list[Case]]:
    clients = 100 if bench.quick else CLIENTS
    what, seconds = f"{clients:,} clients", 0.5 if bench.quick else 1.5
    cases = [Case(TITLE, what, "zbackbone", "synced to disk", True, lambda: _run(
        _ours, bench.shared("fan-in hub", lambda: _start(bench, clients)).door, seconds))]
    for way in (way for way in bench.of(DURABLE) if way.peer in bare.PROTOCOLS and way.has_receipts):
        cases.append(Case(TITLE, what, way.server_title, way.promise, way.encrypted, lambda way=way: _run(
            _theirs, way, bench.running(way).door, bench.new_name(), clients, seconds)))
    return [cases]


def _run(*side: Any) -> dict[str, float]:
    figures: dict[str, float] = processes.run([side])[0][2]
    return figures


def _start(bench: Bench, clients: int) -> Running:
    hub, profiles = hub_with(bench.new_folder(), 1 + clients)
    assert hub.process is not None
    return Running(profiles, hub.process.pid, hub.kill)


def _ours(profiles: list[Any], seconds: float, gate: Callable[[], None]) -> dict[str, float]:
    swarm = raw.Swarm(profiles[1:])
    swarm.welcome()
    gate()
    return drive(swarm, profiles[0].name, p.pack_batch([os.urandom(SIZE)]), seconds)


def _theirs(way: Way, port: int, name: str, clients: int, seconds: float, gate: Callable[[], None]) -> dict[str, float]:
    _PREPARE.get(way.peer, lambda *_: None)(port, name)
    # RabbitMQ's messages go straight into the one queue, as in its pairs.
    protocol = Amqp(True, exchange="") if way.peer == "rabbitmq" else bare.PROTOCOLS[way.peer]()
    swarm = bare.Swarm(protocol, port, clients)
    gate()
    return drive(swarm, name, os.urandom(SIZE), seconds)


def _session(port: int, name: str) -> None:
    """A persistent session that is subscribed and away: without one the broker would drop it all."""
    from ..peers import mosquitto
    client = mosquitto.connect(port, name, lambda *_: None, qos=1, clean=False)
    client.disconnect()
    client.loop_stop()


def _queue(port: int, name: str) -> None:
    from ..peers import rabbitmq
    connection = rabbitmq.connect(port)
    connection.channel().queue_declare(name, durable=True)
    connection.close()


_PREPARE: dict[str, Callable[[int, str], None]] = {
    "nats": lambda port, name: inboxes.prepare("nats", port, name), "mosquitto": _session, "rabbitmq": _queue}


# Either swarm ----------------------------------------------------------------------------------
def drive(swarm: Any, name: str, body: bytes, seconds: float) -> dict[str, float]:
    top = saturate(swarm, name, body, seconds)
    for share in SHARES:
        drain(swarm)
        took_s = steady(swarm, name, body, top * share, seconds)
        if took_s is not None:
            return {"saturated msg/s": top, "held msg/s": top * share, **percentiles(took_s)}
    return {"saturated msg/s": top}


def saturate(swarm: Any, name: str, body: bytes, seconds: float) -> float:
    """Every client sends its next when its last is answered; answers a second."""
    for index in range(len(swarm)):
        swarm.send(index, name, body)
    began_s, answered, on_way = time.monotonic(), 0, len(swarm)
    while on_way:
        is_over = time.monotonic() - began_s > seconds
        for index, _ in swarm.answers(1):
            if is_over:
                on_way -= 1
                continue
            answered += 1
            swarm.send(index, name, body)
        if time.monotonic() - began_s > seconds + 10:
            raise RuntimeError(f"{on_way} of {len(swarm)} clients got no answer")
    return answered / seconds


def steady(swarm: Any, name: str, body: bytes, rate: float, seconds: float) -> list[float] | None:
    """Seconds each receipt took since its message was due; None when the rate was not held."""
    total, sent, took_s = int(rate * seconds), 0, []
    due_s: list[deque[float]] = [deque() for _ in range(len(swarm))]
    answered = list(_settled(swarm))
    began_s = time.monotonic()
    while len(took_s) < total:
        now_s = time.monotonic()
        while sent < total and began_s + sent / rate <= now_s:
            index = sent % len(swarm)
            due_s[index].append(began_s + sent / rate)
            swarm.send(index, name, body)
            sent += 1
        if now_s > began_s + seconds + 5:
            return None
        for index, settled in swarm.answers(min(0.05, max(0.0, began_s + sent / rate - now_s))):
            for _ in range(settled - answered[index]):
                took_s.append(time.monotonic() - due_s[index].popleft())
            answered[index] = settled
    is_held = sorted(took_s)[len(took_s) * 99 // 100] < LATE_S
    return took_s if is_held else None


def drain(swarm: Any) -> None:
    """Takes the answers that a rate which was too high left on their way."""
    until_s = time.monotonic() + DRAIN_S
    while swarm.unanswered:
        for _ in swarm.answers(1):
            pass
        if time.monotonic() > until_s:
            raise RuntimeError(f"{swarm.unanswered} messages got no answer")


def _settled(swarm: Any) -> list[int]:
    return [peer.settled for peer in swarm.peers] if isinstance(swarm, raw.Swarm) else swarm.settled
