"""Mosquitto: mosquitto, driven by paho-mqtt. No TLS.

QoS 0 is its live way, QoS 1 to a persistent session its durable one. Limits on what is in
flight and queued are lifted. Its persistence is on, but it writes its file every half an hour and at
its end (`autosave_interval`), so its yes is a promise of memory; it has no setting that syncs first.
"""

import importlib.util
import os
import pwd
import threading
import time
from pathlib import Path

from ..plans import left_s, stamp_s
from ..servers import Server, find, free_port
from . import DURABLE, LIVE, Running, Way, timed

TITLE = "Mosquitto"
CONFIG = """
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
set_tcp_nodelay true
user {user}
log_type error
"""
# Of messages unanswered. paho walks through all of them with every answer: 5,000 were a third as fast as 100.
UNANSWERED_MAX = 100


def connect(port, name, on_message=None, qos=0, clean=True):
    """A client that is connected, and subscribed to `name` if it listens; its thread runs."""
    import paho.mqtt.client as mqtt
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name if not clean else "", clean_session=clean)
    client.max_inflight_messages_set(UNANSWERED_MAX)
    client.max_queued_messages_set(0)
    ready = threading.Event()
    if on_message is None:
        client.on_connect = lambda *_: ready.set()
    else:
        client.on_message = on_message
        client.on_connect = lambda *_: client.subscribe(name, qos)
        client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    if not ready.wait(10):
        raise TimeoutError("the broker did not answer")
    return client


class Live(Way):
    peer, title, work = "mosquitto", "Mosquitto QoS 0, paho", LIVE
    qos = 0

    def send(self, door, name, plan, start):
        client = connect(door, name)
        room = threading.Semaphore(UNANSWERED_MAX)
        client.on_publish = lambda *_: room.release()        # QoS 0: it is in the socket; 1: it is answered
        start()
        for due_s, bodies in plan:
            if due_s:
                time.sleep(left_s(due_s))
            for body in bodies:
                room.acquire()
                client.publish(name, body, qos=self.qos)
        for _ in range(UNANSWERED_MAX):
            room.acquire()
        client.disconnect()
        client.loop_stop()

    def receive(self, door, name, heard, start):
        done = threading.Event()

        def on_message(_client, _data, message):
            if heard(message.payload):
                done.set()
        client = connect(door, name, on_message, self.qos, clean=self.qos == 0)
        start()
        done.wait()
        client.disconnect()
        client.loop_stop()


class Durable(Live):
    title, work, promise = "Mosquitto QoS 1, paho", DURABLE, "in memory, written every 30 min"
    qos = 1

    def lone(self, door, name, bodies, start):
        client = connect(door, name)
        start()
        took_s = timed(lambda body: client.publish(name, body, qos=1).wait_for_publish(10), bodies)
        client.disconnect()
        client.loop_stop()
        return took_s

    def receipts(self, door, name, plan, start):
        client, took_s, at_s, lock = connect(door, name), [], {}, threading.Lock()
        room = threading.Semaphore(UNANSWERED_MAX)

        def on_publish(_client, _data, mid, *_):
            now_s = time.monotonic()
            room.release()
            with lock:                           # an answer may come before its publish() has returned
                if mid in at_s:
                    took_s.append(now_s - at_s.pop(mid))
                else:
                    early[mid] = now_s
        early = {}
        client.on_publish = on_publish
        start()
        for due_s, bodies in plan:
            time.sleep(left_s(due_s))
            for body in bodies:
                room.acquire()
                mid = client.publish(name, body, qos=1).mid
            with lock:
                if mid in early:
                    took_s.append(early[mid] - stamp_s(body))
                else:
                    at_s[mid] = stamp_s(body)
                early.clear()
        for _ in range(UNANSWERED_MAX):
            room.acquire()
        client.disconnect()
        client.loop_stop()
        return took_s


WAYS: list[Way] = [Live(), Durable()]


def missing(way: Way) -> str:
    if find("mosquitto") is None:
        return "apt-get install mosquitto"
    return "" if importlib.util.find_spec("paho") else "pip install paho-mqtt"


def serve(kind: str, folder: Path) -> Running:
    port, program = free_port(), find("mosquitto")
    assert program is not None
    # Started as root it would become "mosquitto", who can't write in our folder.
    (folder / "mosquitto.conf").write_text(CONFIG.format(port=port, folder=folder,
                                                         user=pwd.getpwuid(os.getuid()).pw_name))
    server = Server(folder, port, [program, "-c", str(folder / "mosquitto.conf")]).wait_for_port()
    return Running(port, server.pid, server.stop)
