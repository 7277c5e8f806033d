"""Connection: one client's sockets and its one I/O thread, around a session.

The caller's thread sends what is due itself, under the lock, so that a lone message leaves at
once and a burst is batched where it is made; the thread here hears, lingers, and reconnects.
A ZeroMQ socket may be used by several threads in turn under one lock (a full fence).

zmq.FD is edge-triggered: it tells of news once, and any use of the socket may eat it. So
whoever has used the DEALER looks at its events again before anybody sleeps.
"""

import contextlib
import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from .. import protocol as p
from ..auth.keys import KeyPair, Profile
from ..errors import BackboneError, Garbled, KeyRefused, Misuse, OutboxFull, Refused, Silence, Unreachable
from ..topics import BROADCAST_KEY, ECHO_KEY, live_filter
from . import sockets
from .message import Arrival, Message, unpack
from .outbox import Batch, Outbox
from .session import Listening, Request, Session

log = logging.getLogger("zbackbone.client")

BACKOFF_S = (0.05, 2.0)        # between attempts, doubling, each a random half of it more or less
REFUSED_BACKOFF_S = (1.0, 60.0)    # when the hub has said no, or is the wrong one: only people mend that
CLOSE_S = 3.0
HEARD_MAX = 64                 # messages heard in one go, before the lock is given up


class Connection:
    """Everything both faces share. What blocks is in the faces; nothing here does.

    lock: reentrant; the faces wait on it. changed: called, under the lock, whenever something
    may have come true that a face waits for.
    """

    def __init__(self, profile: Profile, lock: Any, changed: Callable[[], None], *,
                 outbox_bytes: int, keepalive_s: float) -> None:
        self.profile = profile
        self.lock = lock
        self.session = Session(os.urandom(8), Outbox(os.urandom(8), outbox_bytes), keepalive_s)
        self.session.on_settled = self._settled
        self.trouble: BackboneError | None = None      # why there is no connection, if there is none
        self._changed = changed
        self._refused: list[Batch] = []
        self._pair = KeyPair(profile.public_key, profile.secret_key)
        self._context: Any = zmq.Context()
        self._dealer: Any = None
        self._monitor: Any = None
        self._sub: Any = None
        self._filters: set[bytes] = set()
        self._echo = ECHO_KEY + os.urandom(8).hex().encode()
        self._echoes_due = 0
        self._attempts = 0
        self._next_try_s = 0.0
        self._closing = False
        self._closed = False
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._awake = True
        self._thread = threading.Thread(target=self._run, name=f"zbackbone {profile.name}", daemon=True)
        self._thread.start()

    # For the faces: all of these take the lock and return at once ------------------------------
    def put(self, way: int, address: str, body: bytes, headers: dict[str, str] | None) -> Batch:
        """Raises Misuse, OutboxFull, KeyRefused."""
        size = p.check_message(body, headers)
        item: p.Item = (body, headers) if headers else body
        with self.lock:
            self._check_open()
            if not self.session.outbox.has_room(size):
                raise OutboxFull("outbox-full", f"{self.session.outbox.size} bytes wait here for the hub to accept;"
                                                " flush() waits for them, or construct with when_full='wait'")
            if type(self.trouble) is KeyRefused:
                raise self.trouble
            now_s = time.monotonic()
            batch = self.session.put(way, address, item, size, now_s)
            if batch.number:                           # it is full
                self._send_due(now_s)
            elif batch.count == 1:
                outbox = self.session.outbox
                if not outbox.sent and not outbox.unsent:
                    self._send_due(now_s)              # a lone one leaves at once
                else:
                    self._wake()                       # to be sent when it has lingered
            return batch

    def ask(self, make: Callable[..., Any], *fields: Any, again: bool = True) -> Request:
        with self.lock:
            self._check_open()
            request = self.session.ask(make, *fields, again=again)
            self._send_due(time.monotonic())
            return request

    def forget(self, request: Request) -> None:
        """Its caller has given up waiting."""
        with self.lock:
            self.session.forget(request)

    def has_messages(self) -> bool:
        """Whether next() may have a message; raises, once, when another connection took the inbox."""
        if self.session.inbox_error is not None:
            error, self.session.inbox_error = self.session.inbox_error, None
            raise error
        return self.session.has_messages

    def has_live(self, listening: Listening) -> bool:
        """Whether something came for it; raises when nothing more will."""
        if not listening.queue and listening.error is not None:
            raise listening.error
        return bool(listening.queue)

    def receive(self) -> None:
        """Takes the inbox to this connection. A second time: notices that another took it."""
        with self.lock:
            self._check_open()
            self.session.receive()
            self._send_due(time.monotonic())

    def next(self) -> Message | None:
        """The inbox's next message, or None."""
        with self.lock:
            session = self.session
            held = len(session.inbox)
            message = session.next(self.ack)
            if held and len(session.inbox) < 2:
                self._send_due(time.monotonic())       # gives its credit back
            return message

    def ack(self, number: int, skip: int) -> None:
        session = self.session
        with self.lock:
            if session.ack(number, skip, time.monotonic()):
                self._wake()

    def listen(self, listening: Listening) -> None:
        with self.lock:
            self._check_open()
            self.session.listen(listening)
            self._set_filters()
            self._send_due(time.monotonic())

    def is_listening(self, listening: Listening) -> bool:
        """Whether its live messages come from now on, for certain; raises when they never will."""
        if listening.error is not None:
            raise listening.error
        return all(r.done for r in listening.requests) and self._sub is not None and self._echoes_due == 0

    def unlisten(self, listening: Listening) -> None:
        with self.lock:
            if not self._closed:
                self.session.unlisten(listening)
                self._set_filters()
                self._send_due(time.monotonic())

    def take_live(self, listening: Listening) -> list[Message] | None:
        with self.lock:
            if not listening.queue:
                return None
            arrived = listening.queue.popleft()
            listening.size -= arrived.size
        return self._unpack(Arrival(arrived.envelope, 0, arrived.missed, None), arrived.body, 0)

    def _unpack(self, arrival: Arrival, body: bytes, skip: int) -> list[Message]:
        try:
            return unpack(arrival, body, skip)
        except Garbled:
            with self.lock:
                self.session.garbled += 1
            log.warning("a batch of %s makes no sense, and was passed over", arrival.envelope.sender)
            return []

    def flush(self) -> Request:
        """Everything so far is on its way; the answer comes behind all acknowledgements."""
        with self.lock:
            self._check_open()
            self.session.outbox.seal()
            self.session.ack_now()
            now_s = time.monotonic()
            self._send_due(now_s)
            request = self.session.ask(p.Ping)
            self._send_due(now_s)
            return request

    def first_refused(self) -> Refused | None:
        """The first refusal since the last call, so that nobody who only flushes misses it."""
        with self.lock:
            refused, self._refused = self._refused, []
        return Refused(*refused[0].refusal) if refused and refused[0].refusal else None

    def unaccepted(self) -> int:
        """Messages that the hub has not answered for."""
        outbox = self.session.outbox
        with self.lock:
            return sum(b.count for b in (*outbox.sent, *outbox.unsent)) + (outbox.open.count if outbox.open else 0)

    @property
    def is_closed(self) -> bool:
        return self._closing

    def has_room_again(self) -> bool:
        """Whether a full outbox has emptied enough to be worth filling again."""
        return self.session.outbox.size <= self.session.outbox.bytes_max * 3 // 4

    def silence(self, what: str) -> BackboneError:
        """The error for `what` that didn't happen in time: the cause, if one is known."""
        if self.trouble is not None:
            return self.trouble
        if self.session.welcome is None:
            return sockets.unreachable(self.profile.address)
        return Silence("timed-out", f"{what} in time; try again, nothing is done twice")

    def close(self) -> None:
        """Ends the thread and the sockets. What is not accepted is given up; unaccepted() said how much."""
        with self.lock:
            if self._closing:
                return
            self._closing = True
            self._wake()
        if threading.current_thread() is not self._thread:
            # Bounded: a KeyboardInterrupt in a wait may leave the lock with this thread for good.
            self._thread.join(CLOSE_S)

    def _check_open(self) -> None:
        if self._closing:
            raise Misuse("closed", "this client is closed; make a new one")

    # Under the lock ----------------------------------------------------------------------------
    def _settled(self, batch: Batch) -> None:
        if batch.refusal is not None:
            log.warning("%d message(s) to %s were refused: %s [%s]", batch.count, batch.address or "everybody",
                        batch.refusal[1], batch.refusal[0])
            if len(self._refused) < 100:
                self._refused.append(batch)

    def _send_due(self, now_s: float) -> None:
        dealer = self._dealer
        if dealer is None:
            return
        frames = self.session.due(now_s)
        try:
            for header, body in frames:
                dealer.send(header, zmq.SNDMORE | zmq.NOBLOCK)
                dealer.send(body)
        except zmq.Again:
            # The connection has just gone, and with it the socket's only pipe: a send that waits
            # would wait for ever, under the lock. What was due is due again on the next one.
            self.session.broken()
            self._wake()
            return
        if frames and threading.current_thread() is not self._thread and dealer.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            try:
                os.write(self._wake_in, b"w")
            except BlockingIOError:
                pass                                   # full of wake-ups already

    # The I/O thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while True:
                with self.lock:
                    if self._closing:
                        return
                    again, wait_s = self._turn(time.monotonic())
                    self._awake = again
                if not again:
                    self._sleep(wait_s)
        except Exception:
            log.exception("the connection's thread failed; this client is closed")
            self.trouble = Silence("failed", "this client's connection has failed inside; make a new one, report it")
        finally:
            with self.lock:
                self._closing = self._closed = True
                if self._dealer is not None:
                    self.session.bye()
                    with contextlib.suppress(zmq.Again):
                        for header, body in self.session.due(time.monotonic()):
                            self._dealer.send_multipart((header, body), zmq.NOBLOCK)
                    self._dealer.setsockopt(zmq.LINGER, 500)
                self._drop_sockets()
                os.close(self._wake_in)
                os.close(self._wake_out)
                self._wake_in = self._wake_out = -1
                self._awake = True
                self._changed()
            self._context.term()

    def _sleep(self, wait_s: float) -> None:
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        for sock in (self._dealer, self._monitor, self._sub):
            if sock is not None:
                poll.register(sock.getsockopt(zmq.FD), select.POLLIN)
        poll.poll(max(0.0, wait_s) * 1000)
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            pass

    def _turn(self, now_s: float) -> tuple[bool, float]:
        """Hears and sends what there is. Returns whether to go on at once, else seconds to sleep."""
        if self._dealer is None:
            if now_s < self._next_try_s:
                return False, self._next_try_s - now_s
            self._connect(now_s)
        heard = self._hear(now_s)
        heard += self._hear_live()
        broken = self._hear_monitor() or not self.session.is_open or self.session.is_dead(now_s)
        if self.session.denied is not None:
            self.trouble = self.session.denied
            broken = True
        if broken:
            self._disconnected(now_s)
            self._changed()
            return True, 0.0
        self._send_due(now_s)
        if heard:
            self._changed()
            for notice in self.session.notices:
                log.warning("%s", notice.text)
            self.session.notices.clear()
        if heard >= HEARD_MAX or self._dealer.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            return True, 0.0
        return False, self.session.due_s(now_s) - time.monotonic()

    def _hear(self, now_s: float) -> int:
        heard = 0
        was_open = self.session.welcome is not None
        while heard < HEARD_MAX:
            try:
                frames = self._dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            heard += 1
            if len(frames) == 2:
                self.session.hear(frames[0], frames[1], now_s)
        if not was_open and self.session.welcome is not None:
            self.trouble = None
            self._attempts = 0
            self._set_filters()
            log.info("connected to %s as %s", self.profile.address, self.session.welcome.name)
        return heard

    def _hear_live(self) -> int:
        heard = 0
        while self._sub is not None and heard < HEARD_MAX:
            try:
                frames = self._sub.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            heard += 1
            if frames[0] == self._echo:
                self._echoes_due = max(0, self._echoes_due - 1)
                continue
            try:
                command = p.decode(frames[1])
                if len(frames) != 3 or type(command) is not p.Live:
                    raise Garbled("garbled", "no live message")
                self.session.hear_live(command, frames[2])
            except (Garbled, IndexError):
                self.session.garbled += 1
        return heard

    def _hear_monitor(self) -> bool:
        """Whether the connection is gone; `trouble` then says why."""
        gone = False
        while (event := sockets.next_event(self._monitor)) is not None:
            trouble = sockets.trouble(event, self.profile.address)
            if trouble is None:
                continue
            gone = True
            # What comes first says more: behind a refused key the connection is merely closed.
            if self.trouble is None or type(trouble) is KeyRefused:
                self.trouble = trouble
        return gone

    def _connect(self, now_s: float) -> None:
        if type(self.trouble) is Unreachable and self.trouble.code == "unreachable":
            self.trouble = None                        # this attempt will find its own
        self._dealer = sockets.dealer(self._context, self.profile.hub_key, self._pair)
        self._monitor = sockets.watch(self._context, self._dealer)
        self.session.opened(now_s)
        try:
            self._dealer.connect(f"tcp://{self.profile.address}")
        except zmq.ZMQError as error:
            self.trouble = Misuse("bad-address", f"cannot connect to {self.profile.address}: {error.strerror}")
            self.session.broken()

    def _disconnected(self, now_s: float) -> None:
        """Drops the sockets and waits a little.

        libzmq would reconnect by itself, but stops for good when a key is refused, under the
        same routing id, which the hub may still hold for the old connection, and all clients
        of a hub that restarts would come at once.
        """
        self._drop_sockets()
        self.session.broken()
        people = self.trouble is not None and self.trouble.code != "unreachable"
        low_s, high_s = REFUSED_BACKOFF_S if people else BACKOFF_S
        wait_s = min(low_s * 2 ** self._attempts, high_s)
        self._attempts = min(self._attempts + 1, 16)
        self._next_try_s = now_s + wait_s * random.uniform(0.5, 1.5)
        if self._attempts == 1:
            log.info("no connection to %s; trying again", self.profile.address)

    def _drop_sockets(self) -> None:
        if self._dealer is not None:
            self._dealer.disable_monitor()
        for sock in (self._monitor, self._dealer, self._sub):
            if sock is not None:
                sock.close()
        self._monitor = self._dealer = self._sub = None
        self._filters = set()

    def _set_filters(self) -> None:
        """Makes the live side's filters what the listeners want, and asks for an echo behind them.

        The echo is a filter of our own that the hub answers at once: when it comes, all filters
        before it are in force.
        """
        wanted = {BROADCAST_KEY if pattern == "" else live_filter(pattern)
                  for listening in self.session.listeners for pattern in listening.wanted}
        welcome = self.session.welcome
        if welcome is None or (not wanted and self._sub is None):
            return
        if self._sub is None:
            host = self.profile.address.rpartition(":")[0]
            self._sub = sockets.subscriber(self._context, self.profile.hub_key, self._pair)
            self._sub.connect(welcome.live.replace("//*:", f"//{host}:"))
            self._filters = set()
            self._echoes_due = 0
        if wanted == self._filters:
            return
        for key in self._filters - wanted:
            self._sub.setsockopt(zmq.UNSUBSCRIBE, key)
        for key in wanted - self._filters:
            self._sub.setsockopt(zmq.SUBSCRIBE, key)
        self._filters = wanted
        self._sub.setsockopt(zmq.SUBSCRIBE, self._echo)
        self._echoes_due += 1
