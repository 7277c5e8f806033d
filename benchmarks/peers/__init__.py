"""Peers: one file each; this one says what such a file has.

    TITLE                what a row calls it
    WAYS                 the ways it can carry messages
    missing(way)         what to install, or "" when it is all there
    serve(kind, folder)  starts its server of that kind, in that folder: a Running

A way's functions run in processes of their own, and may import what they need there.
"""

import importlib
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

LIVE, DURABLE, BATCHES, DURABLE_BATCHES = "live", "durable", "live batches", "durable batches"
CLIENTS = ("nats-py", "paho", "pika", "pipelined")
NAMES = ("ours", "nats", "zenoh", "rabbitmq", "mosquitto", "redis")


class Running(NamedTuple):
    """A server that runs. door: what its clients need to know, as each way expects it.

    pid: whose memory and disk writes are counted. stop: ends it.
    """

    door: Any
    pid: int
    stop: Callable[[], None]


class Way:
    """One way of one peer to carry messages from a sender to a receiver.

    peer: its file's name. title: what a row says. work: LIVE, DURABLE, or either in whole
    batches, BATCHES and DURABLE_BATCHES. server: which kind of its peer's servers it needs. promise: what the system
    had done when it said yes; "" when it never says so. encrypted: whether the bytes on the wire
    are. is_second: another client of a peer, or another use of it, that is measured once, at 200
    bytes, so that nobody has to believe which one is the better.
    """

    peer = ""
    title = ""
    work = LIVE
    server = ""
    promise = ""
    encrypted = False
    is_second = False

    def send(self, door: Any, name: str, plan: Any, start: Callable[[], None]) -> None:
        """Connects, calls start(), sends the plan to `name`, returns when the other side has
        promised what it promises (where it promises nothing: when it is all on its way)."""
        raise NotImplementedError

    def receive(self, door: Any, name: str, heard: Callable[[bytes], bool], start: Callable[[], None]) -> None:
        """Connects, calls start() when `name` reaches it, calls heard(body) with each message,
        acknowledges it if it is durable, and returns when heard() says that it was the last."""
        raise NotImplementedError

    def lone(self, door: Any, name: str, bodies: Iterable[bytes], start: Callable[[], None]) -> list[float]:
        """Sends these, each after the last one's receipt; the seconds each receipt took."""
        raise NotImplementedError

    def receipts(self, door: Any, name: str, plan: Any, start: Callable[[], None]) -> list[float]:
        """Sends the plan; the seconds from each step's stamp until the receipt of its last message
        is in the sender's hands. It doesn't wait for one before it sends the next."""
        raise NotImplementedError

    @property
    def server_title(self) -> str:
        """The title where no client library is in the way."""
        return ", ".join(part for part in self.title.split(", ") if part not in CLIENTS)

    @property
    def has_receipts(self) -> bool:
        return type(self).lone is not Way.lone


def peer(name: str) -> Any:
    return importlib.import_module(f"benchmarks.peers.{name}")


def timed(send: Callable[[bytes], Any], bodies: Iterable[bytes]) -> list[float]:
    """The seconds that each call took."""
    out = []
    for body in bodies:
        began_s = time.perf_counter()
        send(body)
        out.append(time.perf_counter() - began_s)
    return out
