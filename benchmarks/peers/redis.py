"""Redis: redis-server, driven by redis-py with hiredis, as its documents advise. No TLS.

Durable: a stream with a consumer group, appended to in pipelines, with `appendfsync everysec`
(its default with AOF) and `always`. Pub/sub is its live way.
"""

import importlib.util
import itertools
import time
from pathlib import Path

from ..plans import left_s, stamp_s
from ..servers import Server, find, free_port
from . import DURABLE, LIVE, Running, Way, timed

TITLE = "Redis"
CONFIG = """
bind 127.0.0.1
port {port}
dir {folder}
save ""
client-output-buffer-limit pubsub 0 0 0
appendonly {appendonly}
appendfsync {sync}
auto-aof-rewrite-percentage 0
maxclients 20000
"""
PIPELINE = 500           # commands; 100 and 2,000 were no faster
READ = 1000
BYTES = 4 << 20          # and no more than this in a pipeline or in a read, when bodies are large


def chunks(bodies):
    """Lists of what goes into one pipeline."""
    bodies = iter(bodies)
    for first in bodies:
        yield [first, *itertools.islice(bodies, some(PIPELINE, first) - 1)]


def some(most, body):
    return max(1, min(most, BYTES // len(body)))


def connect(port):
    import redis
    return redis.Redis(host="127.0.0.1", port=port)


class Live(Way):
    peer, title, work, server = "redis", "Redis pub/sub, pipelined", LIVE, "memory"
    promise = "handed to the listeners' sockets"

    def send(self, door, name, plan, start):
        self._send(door, plan, start, lambda pipeline, body: pipeline.publish(name, body))

    def _send(self, door, plan, start, put):
        client = connect(door)
        client.ping()
        start()
        for due_s, bodies in plan:
            if due_s:
                time.sleep(left_s(due_s))
            for chunk in chunks(bodies):
                pipeline = client.pipeline(transaction=False)
                for body in chunk:
                    put(pipeline, body)
                pipeline.execute()

    def receive(self, door, name, heard, start):
        listener = connect(door).pubsub()
        listener.subscribe(name)
        listener.get_message(timeout=10)
        start()
        for message in listener.listen():
            if message["type"] == "message" and heard(message["data"]):
                return


class Stream(Live):
    title, work, server = "Redis stream, everysec, pipelined", DURABLE, "everysec"
    promise = "written, synced within 1 s"

    def send(self, door, name, plan, start):
        self._send(door, plan, start, lambda pipeline, body: pipeline.xadd(name, {b"b": body}))

    def receive(self, door, name, heard, start):
        client, group = connect(door), "g"
        client.xgroup_create(name, group, id="0", mkstream=True)
        start()
        count = 1
        while True:
            for _, entries in client.xreadgroup(group, "me", {name: ">"}, count=count, block=1000) or ():
                last, count = False, some(READ, entries[0][1][b"b"])
                for _, fields in entries:
                    last = heard(fields[b"b"])
                client.xack(name, group, *[ident for ident, _ in entries])
                if last:
                    client.delete(name)
                    return

    def lone(self, door, name, bodies, start):
        client = connect(door)
        client.ping()
        start()
        took_s = timed(lambda body: client.xadd(name, {b"b": body}), bodies)
        client.delete(name)
        return took_s

    def receipts(self, door, name, plan, start):
        client, took_s = connect(door), []
        client.ping()
        start()
        for due_s, bodies in plan:
            time.sleep(left_s(due_s))
            for chunk in chunks(bodies):
                pipeline = client.pipeline(transaction=False)
                for body in chunk:
                    pipeline.xadd(name, {b"b": body})
                pipeline.execute()
            took_s.append(time.monotonic() - stamp_s(body))
        return took_s


class StreamSynced(Stream):
    title, server = "Redis stream, sync always, pipelined", "always"
    promise = "synced to disk"


WAYS: list[Way] = [Live(), Stream(), StreamSynced()]


def missing(way: Way) -> str:
    if find("redis-server") is None:
        return "apt-get install redis-server"
    return "" if importlib.util.find_spec("redis") else "pip install redis hiredis"


def serve(kind: str, folder: Path) -> Running:
    port, program = free_port(), find("redis-server")
    assert program is not None
    (folder / "redis.conf").write_text(CONFIG.format(
        port=port, folder=folder, appendonly="no" if kind == "memory" else "yes",
        sync="always" if kind == "always" else "everysec"))
    server = Server(folder, port, [program, str(folder / "redis.conf")]).wait_for_port(b"PING\r\n", b"+PONG")
    return Running(port, server.pid, server.stop)
