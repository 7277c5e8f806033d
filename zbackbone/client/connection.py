"""Connection: one client's sockets and its one I/O thread, around a session.

The caller's thread sends what is due itself, under the lock, so that a lone message leaves at
once and a burst is batched where it is made; the thread here hears, lingers, and reconnects.
A ZeroMQ socket may be used by several threads in turn under one lock (a full fence).

zmq.FD is edge-triggered: it tells of news once, and any use of the socket may eat it. So
whoever has used the DEALER looks at its events again before anybody sleeps.

A thread that waits for something leads: it hears by itself, and needn't be woken by the I/O
thread, which then leaves the sockets' news to it and keeps time only. One leads, others wait
for what it hears.
"""

import contextlib
import logging
import os
import random
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import zmq

from .. import protocol as p
from ..auth.keys import KeyPair, Profile
from ..errors import BackboneError, Garbled, KeyRefused, Misuse, OutboxFull, Refused, Silence, Unreachable
from ..topics import BROADCAST_KEY, ECHO_KEY, live_filter
from . import sockets
from .message import Arrival, Message, unpack
from .news import News, pipe
from .outbox import ITEM_BYTES, LINGER_S, Batch, Outbox
from .session import ACK_LINGER_S, Listening, Request, Session

log = logging.getLogger("zbackbone.client")

BACKOFF_S = (0.05, 2.0)        # between attempts, doubling, each a random half of it more or less
REFUSED_BACKOFF_S = (1.0, 60.0)    # when the hub has said no, or is the wrong one: only people mend that
CLOSE_S = 3.0
HEARD_MAX = 64                 # messages heard in one go, before the lock is given up
LED_S = 0.005                  # after somebody led, the I/O thread leaves the sockets to the next who will
PART_BYTES = 1 << 20           # of many messages put at once: so much before the first of it is sent


class Connection:
    """Everything both faces share. What blocks is in the faces; nothing here does.

    lock: reentrant; the faces wait on it. changed: called, under the lock, whenever something
    may have come true that a face waits for. receipt_for: as in Outbox.
    """

    def __init__(self, profile: Profile, lock: Any, changed: Callable[[], None], *,
                 outbox_bytes: int, live_bytes: int, keepalive_s: float,
                 receipt_for: Callable[[Batch], Any]) -> None:
        self.profile = profile
        self.lock = lock
        self.outbox = Outbox(os.urandom(8), outbox_bytes, receipt_for)
        self.session = Session(os.urandom(8), self.outbox, keepalive_s, live_bytes=live_bytes)
        self.session.on_settled = self._settled
        self.trouble: BackboneError | None = None      # why there is no connection, if there is none
        self._tell_waiting = changed
        self._leader: threading.Thread | None = None
        self._led_until_s = 0.0
        self._rests = False                            # the I/O thread sleeps until who leads has left
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
        self._waits_for_people = False
        self._is_trying = False                        # and has not been told yet why it fails
        self._next_try_s = 0.0
        self._closing = False
        self._closed = False
        self._wake_out, self._wake_in = pipe()
        self._awake = True
        self._has_more = False                         # a socket may have news that its FD won't tell again
        self._sleeps_until_s = 0.0
        self._news = News(self._wake_out)
        self._wakes = News(self._wake_out)            # the same without the sockets
        self._leader_news: News | None = None         # made for the first who leads
        self._call_in = self._call_out = -1            # calls a leader to look at what another heard
        self._thread = threading.Thread(target=self._run, name=f"zbackbone {profile.name}", daemon=True)
        self._thread.start()

    # For the faces: all of these take the lock and return at once ------------------------------
    def put(self, way: int, address: str, body: bytes, headers: dict[str, str] | None, size: int) -> Batch:
        """size: as check_message() has it. Raises Misuse "closed", OutboxFull, KeyRefused."""
        item: p.Item = (body, headers) if headers else body
        with self.lock:
            self._check_put(size, 1)
            now_s = time.monotonic()
            open_before, last_before = self.outbox.open, self.outbox.last
            batch = self.session.put(way, address, item, size, now_s)
            self._after_put(open_before, last_before, now_s)
            return batch

    def take_back(self, batch: Batch, body: bytes) -> bool:
        """As Outbox.take_back()."""
        with self.lock:
            return self.outbox.take_back(batch, body)

    def put_many(self, way: int, address: str, bodies: list[bytes], size: int) -> list[Batch]:
        """All or nothing. size: as bodies_size() has it. Raises OutboxFull, KeyRefused."""
        batches = []
        with self.lock:
            self._check_put(size, len(bodies))
            for part, _ in self.parts(bodies, size):
                now_s = time.monotonic()
                open_before, last_before = self.outbox.open, self.outbox.last
                batches += self.session.put_many(way, address, part, now_s)
                self._after_put(open_before, last_before, now_s)
        return batches

    def parts(self, bodies: list[bytes], size: int) -> Iterator[tuple[list[bytes], int]]:
        """Many messages, as many at once as neither hold the lock for long nor fill a quarter of the outbox.

        size: as bodies_size() has it; each part comes with its own.
        """
        most = min(PART_BYTES, self.outbox.bytes_max // 4)
        if size <= most:
            yield bodies, size
            return
        sizes = list(accumulate(map(ITEM_BYTES.__add__, map(len, bodies)), initial=0))
        start = 0
        while start < len(bodies):
            stop = max(start + 1, bisect_right(sizes, sizes[start] + most) - 1)
            yield bodies[start:stop], sizes[stop] - sizes[start]
            start = stop

    def _check_put(self, size: int, messages: int) -> None:
        self._check_open()
        if not self.outbox.has_room(size, messages):
            raise OutboxFull("outbox-full", f"{self.outbox.size} of {self.outbox.bytes_max} bytes wait here for the hub"
                                            f" to accept, and {size} don't fit; flush() waits for them, or construct"
                                            " with when_full='wait'")
        if type(self.trouble) is KeyRefused:
            raise self.trouble

    def _after_put(self, open_before: Batch | None, last_before: int, now_s: float) -> None:
        outbox = self.outbox
        if outbox.last != last_before or not (outbox.sent or outbox.unsent):
            self._send_due(now_s)                      # what is full; and a lone one leaves at once
        if outbox.open is not None and outbox.open is not open_before:
            self._wake_by(now_s + LINGER_S)            # for others to be sent when they have lingered

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

    def refill(self) -> bool:
        """As Session.refill()."""
        with self.lock:
            held = len(self.session.inbox)
            refilled = self.session.refill(self._acked)
            self._give_credit(held)
            return refilled

    def next_batch(self) -> list[Message]:
        """The inbox's next messages that came together; none when there are none now."""
        with self.lock:
            held = len(self.session.inbox)
            batch = self.session.rest()
            while not batch and self.session.inbox:
                batch = self.session.unpacked(self._acked)
            self._give_credit(held)
            return batch

    def _give_credit(self, held: int) -> None:
        if held and len(self.session.inbox) < 2:
            self._send_due(time.monotonic())

    def _acked(self, arrival: Arrival) -> None:
        with self.lock:
            now_s = time.monotonic()
            if self.session.acked(arrival, now_s):
                self._wake_by(now_s + ACK_LINGER_S)

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
        return self._unpack(Arrival(arrived.envelope, 0, arrived.missed), arrived.body, 0)

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
            self.outbox.seal()
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
        outbox = self.outbox
        with self.lock:
            return sum(b.count for b in (*outbox.sent, *outbox.unsent)) + (outbox.open.count if outbox.open else 0)

    @property
    def is_closed(self) -> bool:
        return self._closing

    def has_room_again(self, size: int) -> bool:
        """Whether a full outbox has emptied enough for so many bytes, and to be worth filling again."""
        outbox = self.outbox
        return outbox.size <= outbox.bytes_max * 3 // 4 and outbox.has_room(size)

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
            self.outbox.seal()                         # add() doesn't ask whether this is closed
            self._wake()
        if threading.current_thread() is not self._thread:
            # Bounded: a KeyboardInterrupt in a wait may leave the lock with this thread for good.
            self._thread.join(CLOSE_S)

    def _check_open(self) -> None:
        if self._closing:
            raise Misuse("closed", "this client is closed; make a new one")

    def lead(self, wait_s: float) -> bool:
        """Under the lock, held once: hears the hub in the caller's thread, within so many seconds.

        Releases the lock while it waits. False when it can't: another leads, or there is no connection.
        """
        if self._leader is not None or self._dealer is None or self._closing:
            return False
        if self._leader_news is None:
            self._call_out, self._call_in = pipe()
            self._leader_news = News(self._call_out)
        self._leader = threading.current_thread()
        try:
            if not self._has_more:
                self._leader_news.of(self._sockets())
                self.lock.release()
                try:
                    self._leader_news.wait(wait_s)
                finally:
                    self.lock.acquire()
            if not self._closing:
                _, until_s = self._turn(time.monotonic())
                self._wake_by(until_s)
        finally:
            self._leader = None
            self._led_until_s = time.monotonic() + LED_S
            if self._closed:
                self._close_call()
        return True

    def leave(self) -> None:
        """Under the lock: who led has what it waited for."""
        if (self._has_more or self._rests) and not self._closed:
            self._wake()

    # Under the lock ----------------------------------------------------------------------------
    def _changed(self) -> None:
        """Something may have come true that somebody waits for."""
        self._tell_waiting()
        if self._leader is not None and self._leader is not threading.current_thread():
            with contextlib.suppress(BlockingIOError):
                os.write(self._call_in, b"c")

    def _sockets(self) -> tuple[Any, ...]:
        return self._dealer, self._monitor, self._sub

    def _close_call(self) -> None:
        if self._call_in >= 0:
            os.close(self._call_in)
            os.close(self._call_out)
            self._call_in = self._call_out = -1

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
            self._has_more = True
            self._wake()
            return
        if frames and threading.current_thread() is not self._thread and dealer.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._has_more = True
            self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            try:
                os.write(self._wake_in, b"w")
            except BlockingIOError:
                pass                                   # full of wake-ups already

    def _wake_by(self, at_s: float) -> None:
        if self._sleeps_until_s > at_s:
            self._wake()

    # The I/O thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            while True:
                with self.lock:
                    if self._closing:
                        return
                    again, until_s = self._turn(time.monotonic())
                    self._awake, self._sleeps_until_s = again, until_s
                if not again:
                    self._sleep(until_s)
        except Exception:
            log.exception("the connection's thread failed; this client is closed")
            self.trouble = Silence("failed", "this client's connection has failed inside; make a new one, report it")
        finally:
            with self.lock:
                self._closing = self._closed = True
                self.outbox.seal()
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
                if self._leader is None:               # else it is still looking there
                    self._close_call()
            self._context.term()

    def _sleep(self, until_s: float) -> None:
        began_s = now_s = time.monotonic()
        while self._leader is not None or now_s < self._led_until_s:
            # Short looks at first: whoever waits for one receipt after the other leads for moments.
            self._rests = now_s - began_s > LED_S
            wait_s = until_s - now_s if self._rests and self._leader is not None else LED_S
            woken = now_s >= until_s or self._wakes.wait(min(until_s - now_s, wait_s))
            self._rests = False
            if woken:
                return
            now_s = time.monotonic()
        self._news.of(self._sockets())
        self._news.wait(until_s - now_s)

    def _turn(self, now_s: float) -> tuple[bool, float]:
        """Hears and sends what there is. Returns whether to go on at once, else until when to sleep."""
        self._has_more, until_s = self._take_turn(now_s)
        return self._has_more, until_s

    def _take_turn(self, now_s: float) -> tuple[bool, float]:
        if self._dealer is None:
            if now_s < self._next_try_s:
                return False, self._next_try_s
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
        return False, self.session.due_s(now_s)

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
            if self.trouble is None or type(trouble) is KeyRefused \
                    or (self._is_trying and type(self.trouble) is Unreachable):
                self.trouble = trouble
                self._is_trying = False
                if type(trouble) is KeyRefused:
                    self.outbox.seal()                 # put() tells whoever goes on, add() would not
        return gone

    def _connect(self, now_s: float) -> None:
        if type(self.trouble) is Unreachable and self.trouble.code == "unreachable":
            self.trouble = None                        # this attempt will find its own
        self._dealer = sockets.dealer(self._context, self.profile.hub_key, self._pair)
        self._monitor = sockets.watch(self._context, self._dealer)
        self._is_trying = True
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
        if people is not self._waits_for_people:
            self._waits_for_people = people
            self._attempts = 0                         # a hub killed in a handshake looks like the wrong one, once
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
