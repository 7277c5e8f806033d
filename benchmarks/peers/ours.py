"""zbackbone: the hub and its client library. CURVE always; there is no other mode."""

import time
from pathlib import Path
from typing import NamedTuple

from zbackbone import Client, Profile
from zbackbone.testing import TestHub

from ..plans import left_s
from . import DURABLE, LIVE, Running, Way, timed

TITLE = "zbackbone"


class Door(NamedTuple):
    """The two clients, and the hub's operator."""

    sender: Profile
    receiver: Profile
    operator: Profile


class Live(Way):
    peer, title, work, encrypted = "ours", "zbackbone, live", LIVE, True
    promise = ""

    def send(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            start()
            publish, topic = me.publish, f"bench.{name}"
            for due_s, bodies in plan:
                if due_s:
                    time.sleep(left_s(due_s))
                for body in bodies:
                    publish(topic, body)
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver) as me:
            listener = me.listen(f"bench.{name}")
            start()
            for message in listener:
                if heard(message.body):
                    return


class Durable(Way):
    peer, title, work, encrypted = "ours", "zbackbone, durable", DURABLE, True
    promise = "synced to disk"

    def send(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            start()
            send, to = me.send, door.receiver.name
            for due_s, bodies in plan:
                if due_s:
                    time.sleep(left_s(due_s))
                for body in bodies:
                    send(to, body)
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver) as me:
            for message in me.receive(timeout=0.2):      # what an earlier run left, if it failed
                message.ack()
            start()
            for message in me.receive():
                message.ack()
                if heard(message.body):
                    break
            me.flush(timeout=120)

    def lone(self, door, name, bodies, start):
        with Client(door.sender) as me:
            me.ping()
            start()
            to = door.operator.name                      # an inbox that nobody counts
            return timed(lambda body: me.send(to, body).wait(timeout=10), bodies)


WAYS: list[Way] = [Live(), Durable()]


def missing(way: Way) -> str:
    return ""


def serve(kind: str, folder: Path) -> Running:
    return running(TestHub(folder / "hub").start())


def running(hub: TestHub) -> Running:
    """A hub that runs, with a sender and a receiver added to it."""
    assert hub.process is not None
    return Running(Door(hub.add("sender"), hub.add("receiver"), hub.operator), hub.process.pid, hub.kill)

