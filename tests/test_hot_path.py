"""The hot path: what a batch and a message may cost, counted, not timed.

A timing drifts with the machine; how often the disk, a socket, a lock or a function is used does
not. A limit here is what the code does today, with a little room; whoever needs more says why.
"""

import os
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

import zbackbone
from zbackbone import facts as f
from zbackbone import protocol as p
from zbackbone.auth.keys import KeyPair, Profile, make_pair
from zbackbone.auth.policy import EVERYTHING, to_wire
from zbackbone.client import sockets
from zbackbone.client.connection import Connection
from zbackbone.client.session import Listening
from zbackbone.client.sync import Client as ClientFace
from zbackbone.client.sync import Listener
from zbackbone.router import journal as journal_module
from zbackbone.router import server as server_module
from zbackbone.router.hub import Hub, Settings
from zbackbone.router.journaled import JournaledStore
from zbackbone.router.server import Server

PACKAGE = os.path.dirname(zbackbone.__file__)
BATCHES = 40
BOX = b"outbox-1"


@contextmanager
def calls_of(module, *names):
    """Counts calls of these functions of a module."""
    count, originals = Counter(), {name: getattr(module, name) for name in names}

    def counting(name):
        def call(*args, **kwargs):
            count[name] += 1
            return originals[name](*args, **kwargs)
        return call
    try:
        for name in names:
            setattr(module, name, counting(name))
        yield count
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


@contextmanager
def python_calls():
    """Counts calls of this project's functions, in this thread; a msgpack that is not compiled is not ours."""
    count = Counter()

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            count[frame.f_code.co_name] += 1
    sys.setprofile(profile)
    try:
        yield count
    finally:
        sys.setprofile(None)


# The store

@pytest.fixture
def store(tmp_path):
    store = JournaledStore(tmp_path / "hub.db", bytes(8))
    store.commit([f.Registered(1, "c1", "1" * 64, to_wire(EVERYTHING), 0)])
    yield store
    store.close()


def test_a_commit_of_messages_is_one_write_one_sync_and_no_sql(store):
    statements = []
    store._db._db.set_trace_callback(statements.append)
    number = 0
    with calls_of(journal_module.os, "pwritev", "pwrite", "fdatasync", "fsync", "pread") as system:
        for _turn in range(20):
            facts = [f.Acked(1, number - 10, 0)] if number > 10 else []
            for _ in range(BATCHES):
                number += 1
                facts.append(f.Stored(1, b"envelope", bytes(200), ((1, number),)))
            store.commit([*facts, f.Moved(1, BOX, number, (), False)])
    assert system == {"pwritev": 20, "fdatasync": 20}
    assert statements == []
    assert store._pending.count < 2 * BATCHES        # what was acknowledged waits for nothing


def test_a_checkpoint_is_a_few_statements_whatever_it_holds(store):
    """One a kind of row, and none a batch; what was acknowledged is in none."""
    statements = []
    for number in range(1, 1001):
        store.commit([f.Stored(1, b"envelope", bytes(200), ((1, number),)), f.Moved(1, BOX, number, (), False)])
    store.commit([f.Acked(1, 901, 0)])
    store._db._db.set_trace_callback(statements.append)
    store._checkpoint()
    kinds = Counter(" ".join(statement.split()[:3]) for statement in statements)
    assert kinds["INSERT INTO entries"] == 100       # executemany tells of each row
    assert sum(kinds.values()) - 100 <= 10, kinds


# The hub

def test_a_batch_costs_the_hub_some_dozens_of_calls_however_many_messages_it_has():
    def calls(messages):
        hub = Hub(bytes(8), Settings(), make_pair, 1)
        for number in (1, 2):
            hub.apply(f.Registered(number, f"c{number}", str(number) * 64, to_wire(EVERYTHING), 0))
            hub.hear(bytes([number]), str(number) * 64, p.Hello(p.VERSION, bytes(8), BOX, 0, 60), b"", 0, 0.0)
        hub.hear(b"\2", "2" * 64, p.Receive(0, p.WINDOW_BYTES), b"", 0, 0.0)
        body = p.pack_batch([bytes(100)] * messages)
        hub.committed([])
        with python_calls() as count:
            for number in range(1, BATCHES + 1):
                hub.hear(b"\1", "1" * 64, p.Send(BOX, number, number - 1, p.SEND, "c2", messages), body, 0, 0.0)
            hub.take_facts()
            hub.committed([])
            hub.answers()
            assert sum(len(due) for *_, due in hub.deliveries()) == BATCHES
        return sum(count.values()) / BATCHES
    assert calls(1) == calls(500) < 35


# The server

class Counting:
    """A socket whose sends and receives are counted."""

    def __init__(self, sock):
        self._sock = sock
        self.count = Counter()

    def __hash__(self):
        return hash(self._sock)

    def __eq__(self, other):
        return self._sock is other

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def recv(self, *args, **kwargs):
        self.count["recv"] += 1
        return self._sock.recv(*args, **kwargs)

    def send(self, *args, **kwargs):
        self.count["send"] += 1
        return self._sock.send(*args, **kwargs)


@pytest.fixture
def server(tmp_path):
    store = JournaledStore(tmp_path / "hub.db", bytes(8))
    hub = Hub(store.id, Settings(), make_pair, 1)
    public, secret = make_pair()
    server = Server(hub, store, KeyPair(public, secret), "127.0.0.1:0", "127.0.0.1:0")
    server.key = public
    yield server
    server.close()
    store.close()


class Client:
    """A bare connection of a new client; its words are heard when the test lets the server take a turn."""

    def __init__(self, server, context, number):
        self.name, self.server = f"c{number}", server
        public, secret = make_pair()
        fact = f.Registered(number, self.name, public.hex(), to_wire(EVERYTHING), 0)
        server.hub.apply(fact)
        server.store.commit([fact])
        self.dealer = sockets.dealer(context, server.key, KeyPair(public, secret))
        self.dealer.connect(f"tcp://{server.address}")
        self.say(p.Hello(p.VERSION, os.urandom(8), BOX, 0, 60))
        self.hear(p.Welcome)

    def say(self, command, body=b""):
        self.dealer.send_multipart((p.encode(command), body))

    def hear(self, kind):
        """The next of that kind; the server takes turns until it has said it."""
        for _ in range(200):
            while self.dealer.poll(20):
                command = p.decode(self.dealer.recv_multipart()[0])
                if type(command) is kind:
                    return command
            self.server.turn()
        raise AssertionError(f"no {kind.__name__} came")


def test_a_turn_reads_syncs_and_answers_once_for_all_that_it_hears(server):
    context = sockets.zmq.Context()
    me, you = Client(server, context, 1), Client(server, context, 2)
    you.say(p.Receive(0, p.WINDOW_BYTES))
    you.say(p.Ping(1))
    you.hear(p.Pong)
    body = p.pack_batch([bytes(200)] * 300)
    for number in range(1, BATCHES + 1):
        me.say(p.Send(BOX, number, 0, p.SEND, you.name, 300), body)
    me.say(p.Ping(1))
    arrived, frames = 0, []
    while arrived < BATCHES + 1:                     # all of them, before a turn is taken
        frames += server._drain_router()
        arrived = len(frames)
    server._drain_router = lambda: frames
    router = server._router = Counting(server._router)
    server._poller.poll = lambda _: [(server._router, 1)]
    with calls_of(server_module.p, "decode", "encode", "unpack_batch", "unpack_envelope") as wire, \
            calls_of(journal_module.os, "pwritev", "fdatasync") as system:
        server.turn()
    assert system == {"pwritev": 1, "fdatasync": 1}
    # A header each is read, none of the bodies; one answer covers all batches, one says Pong.
    assert wire == {"decode": BATCHES + 1, "encode": BATCHES + 2}
    assert router.count == {"send": 3 * (BATCHES + 2)}
    assert me.hear(p.Accepted).number == BATCHES
    assert you.hear(p.Deliver).number == 1
    context.destroy(linger=0)


def test_what_the_router_has_is_read_frame_by_frame_and_once_more(server):
    context = sockets.zmq.Context()
    me = Client(server, context, 1)
    for number in range(10):
        me.say(p.Ping(number + 1))
    while server._poller.poll(0) == []:
        pass
    router = server._router = Counting(server._router)
    heard = 0
    while heard < 10:
        router.count.clear()
        heard += (some := len(server._drain_router()))
        assert router.count == {"recv": 3 * some + 1}
    context.destroy(linger=0)


def test_sqlite_is_asked_for_nothing_by_a_receiver_that_keeps_up(server):
    context = sockets.zmq.Context()
    me, you = Client(server, context, 1), Client(server, context, 2)
    you.say(p.Receive(0, p.WINDOW_BYTES))
    you.say(p.Ping(1))
    you.hear(p.Pong)
    statements = []
    server.store._db._db.set_trace_callback(statements.append)
    server._next_tick_s, server._patience_ms = float("inf"), lambda: 20    # a tick looks for revoked clients' entries
    for number in range(1, BATCHES + 1):
        me.say(p.Send(BOX, number, number - 1, p.SEND, you.name, 1), p.pack_batch([b"x"]))
        delivered = you.hear(p.Deliver)
        you.say(p.Ack(delivered.number + 1, 0))
    you.say(p.Ping(2))
    you.hear(p.Pong)
    assert statements == []
    assert not server.store._pending.count
    context.destroy(linger=0)


def test_who_is_behind_gets_more_in_a_turn_than_a_turn_hears(server):
    """Else a receiver who once fell behind would never catch up with a sender."""
    assert server_module.READ_TURN_BYTES >= 2 * server_module.TURN_BYTES
    context = sockets.zmq.Context()
    me, you = Client(server, context, 1), Client(server, context, 2)
    body = p.pack_batch([bytes(1 << 19)])
    for number in range(1, 13):
        me.say(p.Send(BOX, number, number - 1, p.SEND, you.name, 1), body)
        while me.hear(p.Accepted).number < number:
            pass
    you.say(p.Receive(0, p.WINDOW_BYTES_MAX))
    before = server.hub.count["delivered_batches"]
    while server.hub.count["delivered_batches"] == before:
        server.turn()
    assert server.hub.count["delivered_batches"] - before >= server_module.READ_TURN_BYTES // len(body)
    context.destroy(linger=0)


# The client

@pytest.fixture
def deaf(monkeypatch):
    """A Client whose I/O thread does nothing, as if there were no network; and its connection."""
    monkeypatch.setattr(Connection, "_take_turn", lambda self, now_s: (False, now_s + 1.0))
    public, secret = make_pair()
    client = ClientFace(Profile("me", "127.0.0.1:1", public, public, secret), outbox_bytes=1 << 30)
    yield client, client._connection
    client._connection.session.welcome = None
    client._connection.close()


class CountingLock:
    def __init__(self, lock):
        self._lock = lock
        self.count = 0

    def __enter__(self):
        self.count += 1
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._lock, name)


def deliver(session, number, messages, size=200):
    """A batch arrives in the inbox."""
    body = p.pack_batch([bytes(size)] * messages)
    envelope = p.pack_envelope(p.Envelope("you", 0, p.SEND, "me", BOX, number, messages))
    session.hear(p.encode(p.Deliver(number, number - 1, 0, envelope)), body, 0.0)


def test_a_message_of_a_burst_costs_its_sender_one_call_and_a_batch_a_few_locks(deaf):
    count = 20_000
    client, connection = deaf
    lock = connection.lock = CountingLock(connection.lock)
    body = bytes(200)
    with python_calls() as calls:
        for _ in range(count):
            client.send("you", body)
    batches = connection.outbox.last
    assert batches == pytest.approx(count * 205 / 65536, abs=2)
    assert calls["send"] == count
    assert sum(calls.values()) - count < 60 * batches
    assert lock.count < 4 * batches


def test_a_message_of_many_costs_its_sender_no_call_at_all(deaf):
    client, connection = deaf
    bodies = [bytes(200)] * 20_000
    with python_calls() as calls:
        client.send_many("you", bodies)
    assert sum(calls.values()) < 80 * connection.outbox.last


def test_a_message_costs_its_receiver_a_resumed_generator_and_an_ack(deaf):
    messages, batches = 300, 30
    client, connection = deaf
    session = connection.session
    session.welcome, session.store = object(), b"store-id"
    received = client.receive()
    with connection.lock:
        session._receiving = True
        for number in range(1, batches + 1):
            deliver(session, number, messages)
        connection.receive = lambda: None          # it has taken the inbox; there is no hub to tell
    lock = connection.lock = CountingLock(connection.lock)
    blocks = sys.getallocatedblocks()
    with python_calls() as calls:
        for _ in range(messages * batches):
            next(received).ack()
    assert calls["receive"] == calls["ack"] == messages * batches
    assert sum(calls.values()) - 2 * messages * batches < 60 * batches
    assert lock.count < 6 * batches
    assert sys.getallocatedblocks() - blocks < messages * batches         # what was handed over is given back


def test_a_live_message_costs_its_listener_next_to_no_call(deaf):
    messages, batches = 300, 30
    client, connection = deaf
    session, listening = connection.session, Listening(("a",), False)
    session.listeners.append(listening)
    listener = iter(Listener(client, listening, None))
    body = p.pack_batch([bytes(200)] * messages)
    for number in range(1, batches + 1):
        envelope = p.pack_envelope(p.Envelope("you", 0, p.PUBLISH, "a", BOX, number, messages))
        session.hear_live(p.Live(1, (number - 1) * messages, envelope), body)
    with python_calls() as calls:
        for _ in range(messages * batches):
            next(listener)
    assert calls["__iter__"] == messages * batches     # resumed, which is all that is left of a call
    assert sum(calls.values()) - messages * batches < 40 * batches
    session.listeners.clear()
