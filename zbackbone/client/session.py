"""Session: the client's machine: greeting, requests, inbox, live messages, credit. No I/O, no clock.

A connection shell feeds it and sends what due() gives; it survives any number of connections.

    opened() hear(header, body) broken()      what the connection tells it
    put() ask() receive() listen()            what the application wants
    due(now_s) -> frames, due_s()             what to send, and when to look again
    inbox, listeners, ...                     what came for the application

Two things are done without the lock that all else here is called under, since both are done
once a message: ready.popleft(), and message.ack(), which tells us by acked() that it has.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import protocol as p
from ..errors import BackboneError, Garbled, Refused, Silence
from ..topics import matches
from .message import Arrival, Message, unpack
from .outbox import Batch, Outbox

ACK_LINGER_S = 0.005          # acknowledgements are cumulative: a few milliseconds save most of them
ANSWER_S = 30.0               # in silence for so long with a question open: the connection is dead
RESEND_S = 30.0               # a batch or a request without an answer, though the hub talks, goes again
LIVE_BYTES_MAX = 32 << 20     # live messages waiting for a listener, unless it is told otherwise; the next are missed
SEEN_MAX = 10_000             # topics and outboxes whose last live number is remembered


class Request:
    """A question to the hub. done: answered, by `result` or by `error`."""

    __slots__ = ("command", "again", "asked_s", "done", "result", "error")

    def __init__(self, command: Any, again: bool) -> None:
        self.command = command
        self.again = again                # may be asked again when the answer was lost
        self.asked_s = -1.0
        self.done = False
        self.result: dict[str, Any] = {}
        self.error: BackboneError | None = None


class Arrived(NamedTuple):
    """A batch for the application, not unpacked yet. number: in the inbox, 0 for a live one.

    size: bytes of credit it holds. skip: messages at its start that are done with. missed: as in Message.
    """

    size: int
    number: int
    skip: int
    missed: int
    envelope: p.Envelope
    body: bytes


class Listening:
    """One listener's patterns and what has come for it. broadcasts: their live copies as well."""

    __slots__ = ("patterns", "broadcasts", "queue", "size", "requests")

    def __init__(self, patterns: tuple[str, ...], broadcasts: bool) -> None:
        self.patterns = patterns
        self.broadcasts = broadcasts
        self.queue: deque[Arrived] = deque()
        self.size = 0
        self.requests: list[Request] = []            # one a pattern, as in `wanted`

    @property
    def error(self) -> BackboneError | None:
        """Why the hub won't let it listen, if it won't."""
        return next((request.error for request in self.requests if request.error is not None), None)

    @property
    def wanted(self) -> tuple[str, ...]:
        """As LISTEN names them."""
        return (*self.patterns, "") if self.broadcasts else self.patterns

    def wants_from(self, stream: str) -> bool:
        """Whether it listens to this topic, or to broadcasts, whose stream has no name."""
        return any(matches(pattern, stream) for pattern in self.patterns) if stream else self.broadcasts


class Session:
    def __init__(self, ident: bytes, outbox: Outbox, keepalive_s: float,
                 window_bytes: int = p.WINDOW_BYTES, live_bytes: int = LIVE_BYTES_MAX) -> None:
        """ident: 8 random bytes. keepalive_s: seconds, the longest silence towards the hub.
        live_bytes: what may wait for one listener; behind that it misses messages, and is told."""
        self.id = ident
        self.outbox = outbox
        self.keepalive_s = keepalive_s
        self.window_bytes = window_bytes
        self.live_bytes = live_bytes
        self.welcome: p.Welcome | None = None        # of the connection now open
        self.store: bytes | None = None              # the store that inbox numbers belong to
        self.requests: dict[int, Request] = {}
        self.listeners: list[Listening] = []
        self.inbox: deque[Arrived] = deque()
        self.ready: deque[Message] = deque()         # the rest of a batch, unpacked, for whoever pops it first
        self.inbox_error: BackboneError | None = None
        self.missed = 0                              # live messages, as far as numbers tell
        self.garbled = 0                             # batches and frames that made no sense
        self.denied: BackboneError | None = None     # the hub won't have this connection, and why
        self.notices: list[BackboneError] = []       # what the hub told without being asked
        self.on_settled: Callable[[Batch], None] = lambda batch: None
        self._frames: list[tuple[bytes, bytes]] = []
        self._last_request = 0
        self._receiving = False
        self._received = 0                           # highest inbox number that came
        self._handed = 0                             # and that the application got, or is being given
        self._resume = (0, 0)                        # a batch given in part before it was dropped, and how much
        self._ack = (0, 0)
        self._acked: list[Arrival] = []              # they have marks that _ack doesn't know yet
        self._ack_at: float | None = None
        self._held = 0                               # bytes in `inbox`
        self._used = self._granted = 0               # inbox bytes since the last Receive
        self._live_used = 0                          # live bytes over this connection
        self._live_granted = p.WINDOW_BYTES
        self._regap_s = 0.0
        self._attached_at = 0                        # the last request before our Receive
        self._unconfirmed = False                    # acks or credit said since the last ping
        self._streams: dict[str, tuple[int, int]] = {}
        self._seen: dict[tuple[str, bytes], int] = {}
        self._heard_s = self._said_s = self._progress_s = 0.0
        self._ping: tuple[int, float] | None = None
        self._greeted = False

    # The connection --------------------------------------------------------------------------
    def opened(self, now_s: float) -> None:
        """A new connection: greet."""
        self.broken()
        self._greeted = True
        self.denied = None
        self._heard_s = self._said_s = now_s
        self._say(p.Hello(p.VERSION, self.id, self.outbox.id, self.outbox.settled, max(1, int(self.keepalive_s))))

    def broken(self) -> None:
        """The connection is gone; what was under way waits for the next."""
        self.welcome = None
        self._greeted = False
        self._look_at_acks()                         # from here on acked() looks at once
        self._frames.clear()
        self._ping = None
        self.outbox.rewind()
        for number, request in list(self.requests.items()):
            if request.asked_s >= 0 and not request.again:
                self._answer(number, error=Silence(
                    "unknown", "the connection broke before the hub answered; look whether it was done"))
            request.asked_s = -1.0

    def is_dead(self, now_s: float) -> bool:
        """Whether the hub has been silent for too long, with a question open."""
        if not self._greeted:
            return False
        if self.welcome is None:
            return now_s - self._said_s > ANSWER_S
        return self._ping is not None and now_s - max(self._ping[1], self._heard_s) > ANSWER_S

    # What the application wants --------------------------------------------------------------
    def put(self, way: int, address: str, item: p.Item, size: int, now_s: float) -> Batch:
        if not self.outbox.sent and not self.outbox.unsent:
            self._progress_s = now_s
        return self.outbox.put(way, address, item, size, now_s)

    def put_many(self, way: int, address: str, bodies: Sequence[bytes], now_s: float) -> list[Batch]:
        if not self.outbox.sent and not self.outbox.unsent:
            self._progress_s = now_s
        return self.outbox.put_many(way, address, bodies, now_s)

    def ask(self, make: Callable[..., Any], *fields: Any, again: bool = True) -> Request:
        """Sends make(request number, *fields) when it can. again: asking twice does no harm."""
        self._last_request += 1
        request = self.requests[self._last_request] = Request(make(self._last_request, *fields), again)
        return request

    def forget(self, request: Request) -> None:
        """Nobody waits for the answer any more; what was not sent yet is not sent at all."""
        self.requests = {number: other for number, other in self.requests.items() if other is not request}

    def receive(self) -> None:
        """Takes the inbox to this session, from here on and over reconnects.

        Not when another took it and the application doesn't know yet: two would take turns
        in taking it, unseen.
        """
        if not self._receiving and self.inbox_error is None:
            self._receiving = True
            self._attach()

    def release(self) -> None:
        if self._receiving:
            self._receiving = False
            self._drop_inbox()
            if self.welcome is not None:
                self._say(p.Release())

    def take(self) -> Arrived | None:
        """The next batch of the inbox, for the application; its credit comes back."""
        if not self.inbox:
            return None
        arrived = self.inbox.popleft()
        self._used += arrived.size
        self._held -= arrived.size
        self._handed = arrived.number
        return arrived

    @property
    def has_messages(self) -> bool:
        """Whether refill() would have some."""
        return bool(self.ready or self.inbox)

    def refill(self, tell: Callable[[Arrival], None]) -> bool:
        """Whether there are messages in `ready`, or were just now. tell: as in Arrival; calls acked()."""
        while not self.ready:
            if not self.inbox:
                return False
            self.ready.extend(self.unpacked(tell))
        return True

    def unpacked(self, tell: Callable[[Arrival], None]) -> list[Message]:
        """The messages that came together next, as they are; none when they make no sense, or nothing came."""
        arrived = self.take()
        if arrived is None:
            return []
        try:
            return unpack(Arrival(arrived.envelope, arrived.number, 0, tell, self.store), arrived.body, arrived.skip)
        except Garbled:
            self.garbled += 1                        # its sender packed nonsense; nobody can read it
            return []

    def rest(self) -> list[Message]:
        """What is left in `ready`, taken from those who would pop it.

        From behind, so that it is whole however many are popped meanwhile in front.
        """
        out: deque[Message] = deque()
        try:
            while True:
                out.appendleft(self.ready.pop())
        except IndexError:
            return list(out)

    def acked(self, arrival: Arrival, now_s: float) -> bool:
        """Messages of this batch were acknowledged. Returns whether due() must be looked at sooner than before."""
        if arrival.store != self.store:
            arrival.done()                           # another store's numbers mean other messages
            return False
        if not arrival.told:
            arrival.told = True
            self._acked.append(arrival)
        if self.welcome is None:
            self._look_at_acks()                     # nobody else would, for a while
        if self._ack_at is None:
            self._ack_at = now_s + ACK_LINGER_S
            return True
        return False

    def _look_at_acks(self) -> bool:
        """Whether they go further than before."""
        acked, self._acked = self._acked, []
        places = [place for arrival in acked if (place := arrival.done()) is not None]
        if not places or max(places) <= self._ack:
            return False
        self._ack = max(places)
        return True

    @property
    def has_acks(self) -> bool:
        """Whether an acknowledgement may not be on the hub's disk yet."""
        return self._ack_at is not None or self._unconfirmed or self._ping is not None

    def ack_now(self) -> None:
        if self._ack_at is not None:
            self._ack_at = 0.0

    def listen(self, listening: Listening) -> None:
        self.listeners.append(listening)
        listening.requests = [self.ask(p.Listen, pattern) for pattern in listening.wanted]

    def unlisten(self, listening: Listening) -> None:
        if listening in self.listeners:
            self.listeners.remove(listening)
            for request in listening.requests:
                self.forget(request)
            # What is published while nobody here listens is not missed.
            self._streams = {name: at for name, at in self._streams.items()
                             if any(other.wants_from(name) for other in self.listeners)}
            still = {pattern for other in self.listeners for pattern in other.wanted}
            for pattern in listening.wanted:
                if pattern not in still and self.welcome is not None:
                    self.ask(p.Unlisten, pattern)

    def bye(self) -> None:
        self._say_acks()
        if self.welcome is not None:
            self._say(p.Bye(self.outbox.id, self.outbox.settled))

    # What to send ----------------------------------------------------------------------------
    def due(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """The frames (header, body) to send now."""
        if self.welcome is not None:
            self._say_batches(now_s)
            for request in self.requests.values():
                if request.asked_s < 0 or (request.again and now_s - request.asked_s > RESEND_S):
                    request.asked_s = now_s
                    self._say(request.command)
            if self._ack_at is not None and now_s >= self._ack_at:
                self._ack_at = None
                if self._look_at_acks():
                    self._say_acks()
            self._say_credit()
            if self._ping is None and (now_s - self._said_s >= self.keepalive_s
                                       or now_s - self._heard_s >= self.keepalive_s):
                self.ping(now_s)
        frames, self._frames = self._frames, []
        if frames:
            self._said_s = now_s
        return frames

    def due_s(self, now_s: float) -> float:
        """When to call due() again at the latest."""
        if self.welcome is None:
            return now_s + 1.0
        times = [self._said_s + self.keepalive_s, self._heard_s + self.keepalive_s, now_s + 1.0]
        if self._ping is not None:
            times = [now_s + 1.0]
        linger_s = self.outbox.due_s()
        if linger_s is not None:
            times.append(linger_s)
        if self._ack_at is not None:
            times.append(self._ack_at)
        return min(times)

    def ping(self, now_s: float) -> Request:
        """Asks for a sign of life, behind whatever the hub has not confirmed yet."""
        if self._unconfirmed:
            self._say_acks()
            self._say(p.Credit(self._granted, self._live_granted, self.missed))
        request = self.ask(p.Ping)
        self._ping = (self._last_request, now_s)
        request.asked_s = now_s
        self._say(request.command)
        self._unconfirmed = False
        return request

    def _say(self, command: p.Command, body: bytes = b"") -> None:
        self._frames.append((p.encode(command), body))

    def _say_batches(self, now_s: float) -> None:
        outbox = self.outbox
        if outbox.sent and now_s - self._progress_s > RESEND_S:
            outbox.rewind()
            self._progress_s = now_s
        for batch in outbox.due(now_s):
            self._say(p.Send(outbox.id, batch.number, outbox.settled, batch.way, batch.address, batch.count),
                      batch.body)

    def _say_acks(self) -> None:
        self._ack_at = None
        self._look_at_acks()
        if self.welcome is not None and self._ack > (0, 0):
            self._say(p.Ack(*self._ack))
            self._unconfirmed = True

    def _say_credit(self) -> None:
        inbox, live = self._used + self.window_bytes, self._live_used + p.WINDOW_BYTES
        if (self._receiving and inbox - self._granted >= self.window_bytes // 4) \
                or live - self._live_granted >= p.WINDOW_BYTES // 4:
            self._granted, self._live_granted = inbox, live
            self._say(p.Credit(inbox, live, self.missed))
            self._unconfirmed = True

    def _attach(self) -> None:
        self._used = -self._held                     # what still waits here takes room in the new window
        if self.welcome is not None:
            self._granted = max(0, self._used + self.window_bytes)
            self._attached_at = self._last_request
            self._say(p.Receive(self._received, self._granted))

    # What the hub says -----------------------------------------------------------------------
    def hear(self, header: bytes, body: bytes, now_s: float) -> None:
        """One message of the hub. What makes no sense is counted, and changes nothing."""
        self._heard_s = now_s
        try:
            command = p.decode(header, p.FRAME_BYTES_MAX)
            hear = _HEAR.get(type(command))
            if hear is None:
                raise Garbled("garbled", f"a hub doesn't say {type(command).__name__}")
            hear(self, command, body, now_s)
        except Garbled:
            self.garbled += 1

    def _hear_welcome(self, welcome: p.Welcome, _body: bytes, now_s: float) -> None:
        self.welcome = welcome
        self._progress_s = now_s
        if self.store != welcome.store:
            # Another store: its inbox numbers are not ours.
            if self.store is not None:
                self._drop_inbox()
                self._look_at_acks()
                self._handed, self._received, self._resume, self._ack, self._ack_at = 0, 0, (0, 0), (0, 0), None
            self.store = welcome.store
        self._live_used = 0
        self._live_granted = p.WINDOW_BYTES
        for listening in self.listeners:             # what was granted, and what still waits, is asked again
            listening.requests = [self.ask(p.Listen, pattern) if request.done and request.error is None else request
                                  for pattern, request in zip(listening.wanted, listening.requests, strict=True)]
        self._say_acks()                             # before Receive, so that it starts behind them
        if self._receiving:
            self._attach()

    def _hear_accepted(self, accepted: p.Accepted, _body: bytes, now_s: float) -> None:
        if accepted.outbox != self.outbox.id:
            return
        self._progress_s = now_s
        refused = {row[0]: (str(row[1]), str(row[2])) for row in accepted.refused
                   if type(row) is list and len(row) >= 3}
        for batch in self.outbox.accepted(accepted.number, refused, now_s):
            self.on_settled(batch)

    def _hear_resend(self, resend: p.Resend, _body: bytes, now_s: float) -> None:
        if resend.outbox == self.outbox.id:
            self.outbox.rewind(resend.number)
            self._progress_s = now_s

    def _hear_deliver(self, deliver: p.Deliver, body: bytes, now_s: float) -> None:
        size = len(deliver.envelope) + len(body)
        if not self._receiving or deliver.number <= self._received:
            self._used += size                       # a second time, or too late
            return
        if deliver.previous > self._received:
            self._used += size
            self._close_gap(now_s)
            return
        self._received = deliver.number
        self.inbox_error = None
        try:
            envelope = p.unpack_envelope(deliver.envelope)
        except Garbled:
            self._used += size                       # nobody can read it, and it holds no credit
            raise
        self._held += size
        skip = deliver.skip
        if deliver.number == self._resume[0]:
            skip = max(skip, self._resume[1])        # we have handed over its first messages before
        self.inbox.append(Arrived(size, deliver.number, skip, 0, envelope, body))

    def _close_gap(self, now_s: float) -> None:
        """Something was lost on the way: ask for it again, but not for each message behind it."""
        if now_s >= self._regap_s:
            self._regap_s = now_s + RESEND_S / 10
            self._attach()

    def _hear_live(self, live: p.Live, body: bytes, _now_s: float) -> None:
        self._live_used += len(live.envelope) + len(body)     # at once: the queues are bounded by themselves
        self.hear_live(live, body)

    def hear_live(self, live: p.Live, body: bytes) -> None:
        """A live batch, by whichever way it came."""
        envelope = p.unpack_envelope(live.envelope)
        wanting = [listening for listening in self.listeners if listening.wants_from(envelope.address)]
        if not wanting:
            return
        stream, expected = self._streams.get(envelope.address, (0, 0))
        if stream == live.stream and live.before < expected:
            return                                   # late, and counted as missed
        if self._seen.get((envelope.address, envelope.outbox), 0) >= envelope.number:
            return                                   # a second time, after the hub's restart
        missed = 0 if not stream else live.before - expected if stream == live.stream else live.before
        if self.welcome is not None and envelope.way == p.BROADCAST and envelope.sender == self.welcome.name:
            # Our own: numbered with the others, and not for us. What was missed before it, the next one tells.
            _remember(self._streams, envelope.address, (live.stream, live.before + envelope.messages - missed))
            return
        if all(listening.size > self.live_bytes for listening in wanting):
            return                                   # the numbers will tell when the next one finds room
        arrived = Arrived(len(live.envelope) + len(body), 0, 0, missed, envelope, body)
        self.missed += missed
        _remember(self._streams, envelope.address, (live.stream, live.before + envelope.messages))
        _remember(self._seen, (envelope.address, envelope.outbox), envelope.number)
        for listening in wanting:
            if listening.size > self.live_bytes:
                self.missed += envelope.messages        # this one is behind, the others are not
            else:
                listening.size += arrived.size
                listening.queue.append(arrived)

    def _hear_taken(self, *_: Any) -> None:
        self._receiving = False
        self._drop_inbox()
        self.inbox_error = Refused("inbox-taken", "another connection of this client reads its inbox now;"
                                                  " stop that one, or use a client of its own, then receive again")

    def _hear_pong(self, pong: p.Pong, _body: bytes, now_s: float) -> None:
        if self._ping is not None and self._ping[0] == pong.request:
            self._ping = None
        if self._receiving and pong.request > self._attached_at and pong.delivered != self._received + 1:
            self._close_gap(now_s)                   # a delivery was lost, or our Receive was
        self._answer(pong.request, result={"time_ms": pong.time_ms})

    def _hear_done(self, done: p.Done, *_: Any) -> None:
        self._answer(done.request, result=done.result)

    def _hear_denied(self, denied: p.Denied, *_: Any) -> None:
        error = Refused(denied.code, denied.sentence)
        if denied.request:
            self._answer(denied.request, error=error)
        elif denied.code == "hello-first":
            self._greeted = False                    # the shell sees it, and connects anew
            self.welcome = None
        elif self.welcome is None:
            self.denied = error
        else:
            self.notices.append(error)

    @property
    def is_open(self) -> bool:
        """Greeted, or greeting; False when the connection must be made anew."""
        return self._greeted

    def _answer(self, number: int, result: dict[str, Any] | None = None, error: BackboneError | None = None) -> None:
        request = self.requests.pop(number, None)
        if request is not None:
            request.done = True
            request.result = result or {}
            request.error = error

    def _drop_inbox(self) -> None:
        """What waits here comes again, to whoever receives next; what was handed over does not, to us."""
        rest = self.rest()
        if rest:
            self._resume = rest[0].place
            self._handed = self._resume[0] - 1
        self.inbox.clear()
        self._held = 0
        self._received = self._handed


def _remember(table: dict[Any, Any], key: Any, value: Any) -> None:
    table.pop(key, None)
    table[key] = value
    if len(table) > SEEN_MAX:
        del table[next(iter(table))]


_HEAR: dict[type, Callable[..., None]] = {
    p.Welcome: Session._hear_welcome, p.Accepted: Session._hear_accepted, p.Resend: Session._hear_resend,
    p.Deliver: Session._hear_deliver, p.Live: Session._hear_live, p.Taken: Session._hear_taken,
    p.Pong: Session._hear_pong, p.Done: Session._hear_done, p.Denied: Session._hear_denied,
}
