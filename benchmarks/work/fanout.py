"""Fan-out: one publisher to 1, 10, 100 and 1,000 live subscribers.

Neither side's client library is in the way: what is published was packed beforehand, and the
subscribers, connections in one process, count what comes and don't open it. With one subscriber
it says what hub and server carry by themselves.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from zbackbone import Profile
from zbackbone import protocol as p

from .. import bare, processes, raw
from ..bench import Bench, Case
from ..hubs import hub_with
from ..peers import LIVE, Running, Way
from ..targets import FANOUT

SIZE, BATCH = 200, 500
COUNTS, QUICK_COUNTS = (1, 10, 100, 1000), (100,)
BARE = {"nats": "NATS core", "redis": "Redis pub/sub", "mosquitto": "Mosquitto QoS 0",
        "rabbitmq": "RabbitMQ, transient"}
IN_FLIGHT = 32           # our unanswered batches
LEAST = 20               # of a slow one a thousand subscribers' 500 messages would take a minute


def groups(bench: Bench) -> list[list[Case]]:
    out = []
    counts = QUICK_COUNTS if bench.quick else COUNTS
    for count in counts:
        what = f"{count:,} subscriber" + "s" * (count > 1)
        cases = [Case(FANOUT, what, "zbackbone", "", True, adaptive(
            bench, "zbackbone, live", count, BATCH, lambda n, c=count: ours(bench, c, n, False)))]
        for way in (way for way in bench.of(LIVE) if way.peer in BARE):
            cases.append(Case(FANOUT, what, BARE[way.peer], way.promise, False, adaptive(
                bench, way.title, count, LEAST, lambda n, way=way, c=count: theirs(bench, way, c, n))))
        out.append(cases)
    return out


def adaptive(bench: Bench, key: str, subscribers: int, least: int,
              run: Callable[[int], float]) -> Callable[[], dict[str, float]]:
    """Enough messages for a second or so, a multiple of `least`; a first small run says how many that is."""
    def whole(messages: float) -> int:
        return max(least, int(messages) // least * least)

    def measure() -> dict[str, float]:
        at, seconds = (f"fan-out {key}", subscribers), 0.5 if bench.quick else 1.2
        if at not in bench.rate:
            messages = whole(20_000 / subscribers)
            delivered = bench.rate[at] = run(messages)
            if messages * subscribers / delivered > seconds:
                return {"delivered msg/s": delivered}        # long enough to count
        delivered = run(whole(min(bench.rate[at] * seconds / subscribers, 2_000_000)))
        bench.rate[at] = max(bench.rate[at], delivered)
        return {"delivered msg/s": delivered}
    return measure


def rate_of(listener: tuple[Any, ...], publisher: tuple[Any, ...], messages: int, subscribers: int) -> float:
    """Messages delivered a second, to all together."""
    received, sent = processes.run([listener, publisher])
    done_s, heard = received[1], received[2]
    if heard != messages * subscribers:
        raise processes.SideFailed(f"{heard} of {messages * subscribers} messages were delivered")
    return heard / (done_s - sent[0])


# Ours ------------------------------------------------------------------------------------------
def ours(bench: Bench, count: int, messages: int, durable: bool) -> float:
    profiles = bench.shared("fan-out hub", lambda: _start(bench)).door
    topic = f"durable.{count}" if durable else f"live.{count}"
    return rate_of((_listen, profiles[1:count + 1], topic, messages, durable), (_publish, profiles[0], topic, messages),
                 messages, count)


def _start(bench: Bench) -> Running:
    hub, profiles = hub_with(bench.new_folder(), 1 + max(COUNTS))
    assert hub.process is not None
    return Running(profiles, hub.process.pid, hub.kill)


def _publish(profile: Profile, topic: str, messages: int, gate: Callable[[], None]) -> None:
    swarm = raw.Swarm([profile])
    swarm.welcome()
    peer, batch = swarm.peers[0], p.pack_batch([os.urandom(SIZE)] * BATCH)
    gate()
    for _ in range(messages // BATCH):
        peer.send(p.PUBLISH, topic, BATCH, batch)
        while peer.sent - peer.settled >= IN_FLIGHT:
            for _ in swarm.poll(1):
                pass
    while peer.settled < peer.sent:
        for _ in swarm.poll(1):
            pass
    swarm.close()


def _listen(profiles: list[Profile], topic: str, messages: int, durable: bool, gate: Callable[[], None]) -> int:
    swarm = raw.Swarm(profiles)
    swarm.welcome()
    left = wanted = messages * len(profiles)
    if durable:
        for peer in swarm.peers:
            peer.say(p.Subscribe(1, topic))
        done = 0
        while done < len(profiles):
            done += sum(type(command) is p.Done for _, command, _ in swarm.poll(5))
        batches = swarm.receive()
    else:
        batches = raw.Ears(swarm, profiles, topic).hear()
    gate()
    for count in batches:
        left -= count
        if left <= 0:
            break
    return wanted - left


# Theirs ----------------------------------------------------------------------------------------
def theirs(bench: Bench, way: Way, count: int, messages: int) -> float:
    port, name = bench.running(way).door, bench.new_name()
    return rate_of((_bare_listen, bare.PROTOCOLS[way.peer](), port, count, name, messages),
                 (_bare_publish, bare.PROTOCOLS[way.peer](), port, name, messages), messages, count)


def _bare_listen(protocol: Any, port: int, count: int, name: str, messages: int, gate: Callable[[], None]) -> int:
    swarm = bare.Swarm(protocol, port, count, name)
    gate()
    return hear(swarm, name, messages)


def hear(swarm: bare.Swarm, name: str, messages: int) -> int:
    left = wanted = messages * len(swarm)
    for some in swarm.hear(swarm.protocol.arrival_bytes(name, bytes(SIZE))):
        left -= some
        if left <= 0:
            break
    return wanted - left


def _bare_publish(protocol: Any, port: int, name: str, messages: int, gate: Callable[[], None]) -> None:
    swarm = bare.Swarm(protocol, port, 1)
    sock: socket.socket = swarm.sockets[0]
    one = protocol.publish(name, os.urandom(SIZE))
    packed = one * BATCH
    gate()
    # Redis answers every publish; somebody has to read that. And to the end: closing a socket
    # with something unread resets it, and throws away what the server had not read.
    reader = threading.Thread(target=_read_all, args=(sock, protocol.goodbye), daemon=True)
    reader.start()
    for _ in range(messages // BATCH):
        sock.sendall(packed)
    sock.sendall(one * (messages % BATCH) + protocol.farewell)
    if not protocol.goodbye:
        sock.shutdown(socket.SHUT_WR)
    reader.join()


def _read_all(sock: socket.socket, goodbye: bytes) -> None:
    """Until that comes, or the end."""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            if goodbye and data.endswith(goodbye):
                return
