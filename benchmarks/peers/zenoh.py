"""Zenoh: a session in router mode in a process of its own, driven by its Python binding. No TLS.

Its router forwards and keeps nothing, so it has no durable work to measure here. A publisher
that blocks when the network is slower than itself (congestion control BLOCK) loses nothing on
this machine; the default would drop.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

from ..plans import left_s
from ..servers import Server, free_port
from . import LIVE, Running, Way

TITLE = "Zenoh"
ROUTER = """
import sys, threading, zenoh
config = zenoh.Config()
config.insert_json5("mode", '"router"')
config.insert_json5("listen/endpoints", sys.argv[1])
config.insert_json5("scouting/multicast/enabled", "false")
session = zenoh.open(config)
threading.Event().wait()
"""


class Live(Way):
    peer, title, work = "zenoh", "Zenoh, its Python binding", LIVE

    def send(self, door, name, plan, start):
        import zenoh
        session = connect(door)
        publisher = session.declare_publisher(name, congestion_control=zenoh.CongestionControl.BLOCK)
        start()
        put = publisher.put
        for due_s, bodies in plan:
            if due_s:
                time.sleep(left_s(due_s))
            for body in bodies:
                put(body)
        session.close()

    def receive(self, door, name, heard, start):
        session = connect(door)
        subscriber = session.declare_subscriber(name)    # its own queue; a callback was up to a tenth slower here
        time.sleep(0.3)          # its declaration has to reach the router, and nothing says when it has
        start()
        for sample in subscriber:
            if heard(sample.payload.to_bytes()):
                break
        subscriber.undeclare()
        session.close()


WAYS: list[Way] = [Live()]


def connect(port):
    import zenoh
    config = zenoh.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", _endpoint(port))
    config.insert_json5("scouting/multicast/enabled", "false")
    return zenoh.open(config)


def _endpoint(port: int) -> str:
    return json.dumps([f"tcp/127.0.0.1:{port}"])


def missing(way: Way) -> str:
    return "" if importlib.util.find_spec("zenoh") else "pip install eclipse-zenoh"


def serve(kind: str, folder: Path) -> Running:
    port = free_port()
    server = Server(folder, port, [sys.executable, "-c", ROUTER, _endpoint(port)]).wait_for_port()
    return Running(port, server.pid, server.stop)
