"""Sockets: a client's CURVE sockets, and what their monitors' events mean."""

import os
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..auth.keys import KeyPair
from ..errors import BackboneError, KeyRefused, Unreachable
from ..protocol import FRAME_BYTES_MAX

HANDSHAKE_MS = 15_000      # three satellite round trips, and a hub that is busy with others
EVENTS = (zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
          | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
          | zmq.EVENT_HANDSHAKE_FAILED_AUTH)


def dealer(context: Any, hub_key: bytes, pair: KeyPair) -> Any:
    """For one connection: it never reconnects. A new one gets a routing id of its own, since the
    hub may still hold the old one's."""
    sock = _curve(context, zmq.DEALER, hub_key, pair)
    sock.setsockopt(zmq.RECONNECT_IVL, -1)
    sock.setsockopt(zmq.ROUTING_ID, b"\1" + os.urandom(16))    # a zero byte first is libzmq's own
    sock.setsockopt(zmq.SNDHWM, 0)                 # the outbox's window bounds it
    sock.setsockopt(zmq.RCVHWM, 0)                 # credit does
    return sock


def subscriber(context: Any, hub_key: bytes, pair: KeyPair) -> Any:
    """For the live side; libzmq reconnects it while the DEALER's connection lasts."""
    sock = _curve(context, zmq.SUB, hub_key, pair)
    sock.setsockopt(zmq.RECONNECT_IVL, 200)
    sock.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    sock.setsockopt(zmq.HEARTBEAT_IVL, 20_000)
    sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
    sock.setsockopt(zmq.RCVHWM, 0)                 # drained at once, into queues that are bounded
    sock.setsockopt(zmq.SNDHWM, 0)                 # filters are sent too, and would be dropped unseen
    return sock


def _curve(context: Any, kind: int, hub_key: bytes, pair: KeyPair) -> Any:
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.IPV6, 1)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    sock.setsockopt(zmq.CURVE_SERVERKEY, hub_key)
    sock.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
    sock.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    return sock


def watch(context: Any, sock: Any) -> Any:
    """The monitor of a socket. Close the socket only after disable_monitor() on it."""
    address = f"inproc://monitor-{id(sock)}"
    sock.monitor(address, EVENTS)
    monitor = context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    return monitor


def next_event(monitor: Any) -> int | None:
    """The next event, or None when there is none now."""
    try:
        return int(parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))["event"])
    except zmq.Again:
        return None


def trouble(event: int, address: str) -> BackboneError | None:
    """Why the connection is gone, by an event of its monitor; None when it isn't."""
    match event:
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return KeyRefused("key-refused", f"the hub at {address} does not accept this client's key:"
                                             " unknown or revoked; ask its operator")
        case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return Unreachable("wrong-hub", f"the hub at {address} does not own the key in your profile, or went"
                                            " away in the handshake; check the address, or join it anew")
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return Unreachable("no-hub", f"what answers at {address} is no hub; check the address")
        case zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED:
            return unreachable(address)
    return None


def unreachable(address: str) -> Unreachable:
    return Unreachable("unreachable", f"cannot reach the hub at {address}; is it running?")
