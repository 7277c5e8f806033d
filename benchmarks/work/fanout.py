"""Fan-out: one publisher to 1, 10, 100 and 1,000 subscribers, live and into inboxes.

Neither side's client library is in the way: what is published was packed beforehand, and the
subscribers, connections in one process, count what comes and don't open it. With one subscriber
it says what hub and server carry by themselves.
"""

import asyncio
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
from ..peers import LIVE, Running, Way, nats

SIZE, BATCH = 200, 500
COUNTS, QUICK_COUNTS = (1, 10, 100, 1000), (1, 100)
BARE = {"nats": "NATS core", "redis": "Redis pub/sub", "mosquitto": "Mosquitto QoS 0"}
STREAMS_MAX = 100        # consumers through nats-py in one process; more would measure nats-py
IN_FLIGHT = 32           # our unanswered batches


def groups(bench: Bench) -> list[list[Case]]:
    out = []
    counts = QUICK_COUNTS if bench.quick else COUNTS
    for count in counts:
        what = f"{count:,} subscriber" + "s" * (count > 1)
        cases = [Case("fan-out live, packed beforehand", what, "zbackbone", "", True,
                      _adaptive(bench, "ours live", count, lambda n, c=count: ours(bench, c, n, False)))]
        for way in (way for way in bench.of(LIVE) if way.peer in BARE):
            cases.append(Case("fan-out live, packed beforehand", what, BARE[way.peer], "", False, _adaptive(
                bench, way.peer, count, lambda n, way=way, c=count: theirs(bench, way, c, n))))
        out.append(cases)
    for count in () if bench.quick else counts:
        what = f"{count:,} inbox" + "es" * (count > 1)
        cases = [Case("fan-out to inboxes", what, "zbackbone, packed beforehand", "synced to disk", True,
                      _adaptive(bench, "ours durable", count, lambda n, c=count: ours(bench, c, n, True)))]
        if count <= STREAMS_MAX:
            cases += [bench.case("fan-out to inboxes", what, way, _adaptive(
                bench, way.title, count, lambda n, way=way, c=count: jetstream(bench, way, c, n)))
                for way in bench.ways if type(way) is nats.JetStream]
        out.append(cases)
    return out


def _adaptive(bench: Bench, key: str, subscribers: int, run: Callable[[int], float]) -> Callable[[], dict[str, float]]:
    """Enough messages for a second or so; a first small run says how many that is."""
    def measure() -> dict[str, float]:
        at = f"fan-out {key}", subscribers
        if at not in bench.rate:
            bench.rate[at] = run(max(BATCH, 20_000 // subscribers // BATCH * BATCH))
        seconds = 0.5 if bench.quick else 1.2
        messages = min(int(bench.rate[at] * seconds / subscribers), 2_000_000) // BATCH * BATCH
        delivered = run(max(BATCH, messages))
        bench.rate[at] = max(bench.rate[at], delivered)
        return {"delivered msg/s": delivered}
    return measure


def _rate(listener: tuple[Any, ...], publisher: tuple[Any, ...], messages: int, subscribers: int) -> float:
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
    return _rate((_listen, profiles[1:count + 1], topic, messages, durable), (_publish, profiles[0], topic, messages),
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
    return _rate((_bare_listen, way.peer, port, count, name, messages), (_bare_publish, way.peer, port, name, messages),
                 messages, count)


def _bare_listen(peer: str, port: int, count: int, name: str, messages: int, gate: Callable[[], None]) -> int:
    swarm = bare.Swarm(peer, port, count, name)
    left = wanted = messages * count
    gate()
    for some in swarm.hear(swarm.protocol.arrival_bytes(name, bytes(SIZE))):
        left -= some
        if left <= 0:
            break
    return wanted - left


def _bare_publish(peer: str, port: int, name: str, messages: int, gate: Callable[[], None]) -> None:
    swarm = bare.Swarm(peer, port, 1)
    sock: socket.socket = swarm._sockets[0]
    sock.setblocking(True)
    packed = swarm.protocol.publish(name, os.urandom(SIZE)) * BATCH
    gate()
    # Redis answers every publish; somebody has to read that. And to the end: closing a socket
    # with something unread resets it, and throws away what the server had not read.
    reader = threading.Thread(target=_read_all, args=(sock,), daemon=True)
    reader.start()
    for _ in range(messages // BATCH):
        sock.sendall(packed)
    sock.shutdown(socket.SHUT_WR)
    reader.join()


def _read_all(sock: socket.socket) -> None:
    buffer = bytearray(1 << 16)
    with contextlib.suppress(ConnectionError):
        while sock.recv_into(buffer):
            pass


def jetstream(bench: Bench, way: Way, count: int, messages: int) -> float:
    port, name = bench.running(way).door, bench.new_name()
    return _rate((_consume, way, port, name, count, messages), (_into_stream, way, port, name, messages),
                 messages, count)


def _into_stream(way: Way, port: int, name: str, messages: int, gate: Callable[[], None]) -> None:
    way.send(port, name, [(0.0, [os.urandom(SIZE)] * messages)], gate)


def _consume(way: Any, port: int, name: str, count: int, messages: int, gate: Callable[[], None]) -> int:
    return asyncio.run(_consume_all(way, port, name, count, messages, gate))


async def _consume_all(way: Any, port: int, name: str, count: int, messages: int, gate: Callable[[], None]) -> int:
    """One durable consumer and one connection each, on one stream."""
    from nats.js import api
    client = await nats.connect(port)
    await client.jetstream().add_stream(name=name, subjects=[name], storage=api.StorageType.FILE)
    heard, ready = [0] * count, [0]

    async def one(index: int) -> None:
        def on_message(_body: bytes) -> bool:
            heard[index] += 1
            return heard[index] == messages

        def is_ready() -> None:
            ready[0] += 1
            if ready[0] == count:
                gate()
        await way.receiving(port, f"{name}c{index}", on_message, is_ready, stream=name)
    await asyncio.gather(*(one(index) for index in range(count)))
    await client.jetstream().delete_stream(name)
    return sum(heard)
