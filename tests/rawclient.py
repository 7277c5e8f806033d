"""A client written from docs/protocol.md alone, with pyzmq and msgpack: the package is not imported.

It keeps no state for its user: a test says each command itself, and reads each answer.
"""

import base64
import itertools
import json
import os
import time
from collections import deque

import msgpack
import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

KINDS = {
    "HELLO": 1, "JOIN": 2, "SEND": 3, "RECEIVE": 4, "CREDIT": 5, "ACK": 6, "RELEASE": 7, "SUBSCRIBE": 8,
    "UNSUBSCRIBE": 9, "SUBSCRIPTIONS": 10, "LISTEN": 11, "UNLISTEN": 12, "PING": 13, "BYE": 14, "INVITE": 15,
    "REGISTER": 16, "CLIENTS": 17, "SHOW": 18, "REVOKE": 19, "ROTATE": 20, "GRANT": 21, "STATUS": 22,
    "WELCOME": 64, "ACCEPTED": 65, "RESEND": 66, "DELIVER": 67, "LIVE": 68, "TAKEN": 69, "PONG": 70, "DONE": 71,
    "DENIED": 72,
}
WORDS = {kind: word for word, kind in KINDS.items()}
DIRECT, TOPIC, EVERYBODY = 1, 2, 3
WINDOW = 4 << 20
PATIENCE_S = 10

EVENTS = {
    zmq.EVENT_CONNECTED: "connected", zmq.EVENT_CLOSED: "closed", zmq.EVENT_DISCONNECTED: "disconnected",
    zmq.EVENT_CONNECT_RETRIED: "retried", zmq.EVENT_HANDSHAKE_SUCCEEDED: "succeeded",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "no detail", zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "auth",
}

context = zmq.Context()
serials = itertools.count()


def header(word, *fields):
    return msgpack.packb([KINDS[word], *fields])


def batch(*items):
    """items: bytes, or (bytes, {text: text})."""
    return msgpack.packb(items)


class Keys:
    """Whose connection it is. address: HOST:PORT. Keys are 40 characters of Z85, as in a profile."""

    def __init__(self, address, hub_key, public=None, secret=None):
        if secret is None:
            public, secret = (key.decode() for key in zmq.curve_keypair())
        self.address, self.hub_key, self.public, self.secret = address, hub_key, public, secret

    def other(self):
        """A new key pair for the same hub."""
        return Keys(self.address, self.hub_key)

    @property
    def public_bytes(self):
        return z85.decode(self.public)


def keys_of_profile(path):
    fields = json.loads(path.read_text())
    assert fields["zbackbone"] == "profile 1"
    return Keys(fields["address"], fields["hub_key"], fields["public_key"], fields["secret_key"])


def keys_of_join_string(text):
    prefix, rest = text.split(":", 1)
    assert prefix == "zbjoin1"
    address, *two = rest.rsplit(":", 2)
    hub_key, secret = (z85.encode(base64.urlsafe_b64decode(key + "=")).decode() for key in two)
    return Keys(address, hub_key, zmq.curve_public(secret.encode()).decode(), secret)


def issued(keys, result):
    """The keys in an answer to REGISTER or ROTATE."""
    return Keys(keys.address, keys.hub_key, *(z85.encode(result[k]).decode() for k in ("public_key", "secret_key")))


class Said:
    """What the hub said: its word, the fields behind it, the body."""

    def __init__(self, frames):
        assert len(frames) == 2, frames
        kind, *self.fields = msgpack.unpackb(frames[0])
        self.word = WORDS[kind]
        self.body = frames[1]

    def __repr__(self):
        return f"{self.word} {self.fields} + {len(self.body)} bytes"

    def __getitem__(self, index):
        return self.fields[index]

    @property
    def items(self):
        """The messages of a DELIVER or LIVE, checked against its envelope."""
        items = msgpack.unpackb(self.body, use_list=False)
        assert len(items) == self.envelope[6]
        return list(items)

    @property
    def envelope(self):
        """sender, time_ms, way, address, outbox, number, messages."""
        return msgpack.unpackb(self.fields[-1])


class Peer:
    """One connection. It greets when it is told to: `hello`."""

    def __init__(self, keys, route=None, session=None, outbox=None, plain=False):
        """plain: without encryption, as nobody gets in."""
        self.keys = keys
        self.session = session or os.urandom(8)
        self.outbox = outbox or os.urandom(8)
        self.waiting = deque()
        self.requests = 0
        self.dealer = curve(zmq.DEALER, None if plain else keys)
        self.dealer.setsockopt(zmq.ROUTING_ID, route or b"\1" + os.urandom(16))
        self.monitor = monitor_of(self.dealer)
        self.dealer.connect(f"tcp://{keys.address}")

    def close(self):
        close(self.dealer, self.monitor)

    # Speak -----------------------------------------------------------------------------------
    def say(self, word, *fields, body=b""):
        self.say_frames(header(word, *fields), body)

    def say_frames(self, *frames):
        self.dealer.send_multipart(frames)

    def send(self, number, way, address, *items, settled=0, outbox=None):
        self.say("SEND", outbox or self.outbox, number, settled, way, address, len(items), body=batch(*items))

    def hello(self, settled=0, keepalive_s=60, version=1):
        self.say("HELLO", version, self.session, self.outbox, settled, keepalive_s)
        return self.hear("WELCOME", "DENIED")

    def ask(self, word, *fields):
        """A request under a number of its own; DONE's result, or DENIED's code."""
        self.requests += 1
        self.say(word, self.requests, *fields)
        answer = self.hear("DONE", "DENIED")
        assert answer[0] == self.requests, answer
        return answer[1]

    # Hear ------------------------------------------------------------------------------------
    def hear(self, *words):
        """The next of these words, or of any; what comes before it waits."""
        for index, said in enumerate(self.waiting):
            if not words or said.word in words:
                del self.waiting[index]
                return said
        until_s = time.monotonic() + PATIENCE_S
        while True:
            if not self.dealer.poll(max(0, until_s - time.monotonic()) * 1000):
                raise AssertionError(f"no {' or '.join(words)} came, only {list(self.waiting)}")
            said = Said(self.dealer.recv_multipart())
            if not words or said.word in words:
                return said
            self.waiting.append(said)

    def pong(self):
        self.requests += 1
        self.say("PING", self.requests)
        pong = self.hear("PONG")
        assert pong[0] == self.requests
        return pong

    def all(self):
        """All that the hub has to say by now: a second PING is heard behind what the first let out."""
        self.pong()
        self.pong()
        out = list(self.waiting)
        self.waiting.clear()
        return out

    def happened(self, *events):
        """The next of these events of the connection."""
        return happened(self.monitor, events)

    def is_gone(self, within_s=PATIENCE_S):
        """Whether the hub cuts the connection."""
        return happened(self.monitor, ("disconnected",), within_s) == "disconnected"


class Ear:
    """The live side: a SUB socket."""

    def __init__(self, keys, endpoint):
        self.sub = curve(zmq.SUB, keys)
        self.monitor = monitor_of(self.sub)
        host = keys.address.rpartition(":")[0]
        self.sub.connect(endpoint.replace("//*:", f"//{host}:"))
        self.echo = b"e." + os.urandom(16)

    def add(self, *filters):
        """Sets filters, and waits until the hub has them."""
        for wanted in (*filters, self.echo):
            self.sub.setsockopt(zmq.SUBSCRIBE, wanted)
        assert self.hear() == [self.echo, b"", b""]

    def hear(self):
        """The next three frames: key, header, body."""
        if not self.sub.poll(PATIENCE_S * 1000):
            raise AssertionError("nothing came live")
        return self.sub.recv_multipart()

    def live(self):
        key, *rest = self.hear()
        said = Said(rest)
        assert said.word == "LIVE"
        return key, said

    def is_gone(self, within_s=PATIENCE_S):
        """Whether the hub cuts the connection."""
        return happened(self.monitor, ("disconnected",), within_s) == "disconnected"

    def happened(self, *events):
        return happened(self.monitor, events)

    def close(self):
        close(self.sub, self.monitor)


def curve(kind, keys):
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.IPV6, 1)
    sock.setsockopt(zmq.RCVHWM, 0)
    sock.setsockopt(zmq.SNDHWM, 0)      # at its high-water mark a SUB drops filters, silently
    sock.setsockopt(zmq.RECONNECT_IVL, -1)
    if keys is not None:
        sock.setsockopt(zmq.CURVE_SERVERKEY, keys.hub_key.encode())
        sock.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
        sock.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    return sock


def monitor_of(sock):
    address = f"inproc://monitor-{next(serials)}"
    sock.monitor(address, zmq.EVENT_ALL)
    pair = context.socket(zmq.PAIR)
    pair.setsockopt(zmq.LINGER, 0)
    pair.connect(address)
    return pair


def close(sock, monitor):
    if not sock.closed:
        sock.disable_monitor()
        monitor.close()
        sock.close()


def happened(monitor, events, within_s=PATIENCE_S):
    """The next of these events, or None."""
    until_s = time.monotonic() + within_s
    while monitor.poll(max(0, until_s - time.monotonic()) * 1000):
        event = EVENTS.get(parse_monitor_message(monitor.recv_multipart())["event"])
        if event in events:
            return event
    return None
