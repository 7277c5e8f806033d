"""zbackbone: the hub and its client library. CURVE always; there is no other mode."""

import itertools
import queue
import threading
import time
from pathlib import Path
from typing import NamedTuple

from zbackbone import Client, Profile
from zbackbone.testing import TestHub

from ..plans import left_s, stamp_s
from . import BATCHES, DURABLE, DURABLE_BATCHES, LIVE, Running, Way, timed

TITLE = "zbackbone"
LIVE_BYTES = 1 << 30      # may wait for a listener that is slower than the publisher, as NATS's and Redis's may
LIST = 1000               # bodies given to one call of the batch API
ACK_EVERY = 200           # as the peers that can acknowledge many at once


class Door(NamedTuple):
    """The two clients, and the hub's operator."""

    sender: Profile
    receiver: Profile
    operator: Profile


def put_all(plan, put, address):
    """What is due, when it is due."""
    for due_s, bodies in plan:
        if due_s:
            time.sleep(left_s(due_s))
        for body in bodies:
            put(address, body)


def lists(plan):
    """A burst's bodies, as the batch API is given them."""
    (_, bodies), = plan
    bodies = iter(bodies)
    return list(iter(lambda: list(itertools.islice(bodies, LIST)), []))


def empty(me):
    """Takes what an earlier run left in the inbox, if it failed."""
    for message in me.receive(timeout=0.2):
        message.ack()


class Live(Way):
    peer, title, work, encrypted = "ours", "zbackbone, live", LIVE, True
    promise = ""

    def send(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            start()
            put_all(plan, me.publish, f"bench.{name}")
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver, live_bytes=LIVE_BYTES) as me:
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
            put_all(plan, me.send, door.receiver.name)
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver) as me:
            empty(me)
            start()
            for index, message in enumerate(me.receive(), 1):
                last = heard(message.body)
                if last or index % ACK_EVERY == 0:
                    message.ack()
                if last:
                    break
            me.flush(timeout=120)

    def lone(self, door, name, bodies, start):
        with Client(door.sender) as me:
            me.ping()
            start()
            to = door.operator.name                      # an inbox that nobody counts
            return timed(lambda body: me.send(to, body).wait(timeout=10), bodies)

    def receipts(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            # In the order in which they were sent, as a program would that writes down what is safe.
            waiting, took_s = queue.SimpleQueue(), []

            def wait():
                while (one := waiting.get()) is not None:
                    one[0].wait(timeout=60)
                    took_s.append(time.monotonic() - one[1])
            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            start()
            send, to = me.send, door.receiver.name
            for due_s, bodies in plan:
                time.sleep(left_s(due_s))
                for body in bodies:
                    receipt = send(to, body)
                waiting.put((receipt, stamp_s(body)))
            waiting.put(None)
            thread.join()
            return took_s


class InBatches(Way):
    """The batch API: lists of bodies in, lists of messages out."""

    peer, title, work, encrypted = "ours", "zbackbone, batch API", BATCHES, True

    def send(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            topic, packed = f"bench.{name}", lists(plan)
            start()
            for some in packed:
                me.publish_many(topic, some)
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver, live_bytes=LIVE_BYTES) as me:
            listener = me.listen(f"bench.{name}")
            start()
            for messages in listener.batches():
                if heard.many(len(messages), sum([len(message.body) for message in messages])):
                    return


class InboxInBatches(Way):
    """The batch API, into an inbox: one acknowledgement a list."""

    peer, title, work, encrypted = "ours", "zbackbone, durable, batch API", DURABLE_BATCHES, True
    promise = "synced to disk"

    def send(self, door, name, plan, start):
        with Client(door.sender, when_full="wait") as me:
            me.ping()
            packed = lists(plan)
            start()
            for some in packed:
                me.send_many(door.receiver.name, some)
            me.flush(timeout=120)

    def receive(self, door, name, heard, start):
        with Client(door.receiver) as me:
            empty(me)
            start()
            for messages in me.receive_batches():
                messages[-1].ack()
                if heard.many(len(messages), sum([len(message.body) for message in messages])):
                    break
            me.flush(timeout=120)


WAYS: list[Way] = [Live(), Durable(), InBatches(), InboxInBatches()]


def missing(way: Way) -> str:
    return "a client library with publish_many" if "batch API" in way.title and not hasattr(
        Client, "publish_many") else ""


def serve(kind: str, folder: Path) -> Running:
    return running(TestHub(folder / "hub").start())


def running(hub: TestHub) -> Running:
    """A hub that runs, with a sender and a receiver added to it."""
    assert hub.process is not None
    return Running(Door(hub.add("sender"), hub.add("receiver"), hub.operator), hub.process.pid, hub.kill)

