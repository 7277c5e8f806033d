"""Peer: one live connection of a client. No I/O, no clock."""

from .. import protocol as p
from ..auth.registry import Client


class Peer:
    """route: its routing id, which names nobody and proves nothing. key: proved by the handshake.

    live_sent, live_credit: bytes of Live over this connection, sent and allowed.
    """

    __slots__ = ("route", "key", "client", "session", "outbox", "heard_s", "silent_s", "live_sent", "live_credit",
                 "missed")

    def __init__(self, route: bytes, key: str, client: Client, hello: p.Hello, now_s: float) -> None:
        self.route = route
        self.key = key
        self.client = client
        self.session = hello.session
        self.outbox = hello.outbox
        self.heard_s = now_s
        self.silent_s = 3 * min(max(hello.keepalive_s, 1), p.KEEPALIVE_S_MAX)
        self.live_sent = 0
        self.live_credit = p.WINDOW_BYTES
        self.missed = 0
