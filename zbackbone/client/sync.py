"""Client: the blocking face."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from .. import protocol as p
from ..auth.keys import Profile
from ..errors import OutboxFull
from ..topics import parse_pattern
from .connection import Connection
from .face import (KEEPALIVE_S, OUTBOX_BYTES, address_of, bodies_of, check_option, listening_of, outcome,
                   profile_of, stop_waiting)
from .message import Message
from .outbox import Batch, bodies_size
from .session import LIVE_BYTES_MAX, Listening, Request

WAIT_S = 1.0
SEND, PUBLISH = p.SEND, p.PUBLISH


class Receipt:
    """What the verbs of sending return: done when the hub has the message, or all of them, on disk."""

    __slots__ = ("_batches", "_client")

    def __init__(self, batches: tuple[Batch, ...], client: "Client") -> None:
        self._batches = batches
        self._client = client

    @property
    def done(self) -> bool:
        """Accepted or refused."""
        return not self._batches or self._batches[-1].settled      # they are settled in order

    def wait(self, timeout: float | None = None) -> None:
        """Returns once the hub has the message on disk. timeout: seconds, None for ever.

        Raises Refused when the hub said no, to the first refused one if there are many;
        Silence (Unreachable, if it is that) in time's lack.
        """
        if not self.done:
            self._client._wait(lambda: self.done, timeout, "the hub has not accepted the message")
        outcome(self._batches)


class Client:
    """A client of the hub: an outbox, an inbox, live topics. Any thread may use it.

        with Client(profile="noc-c2.profile") as me:
            me.send("noc-sfmc", b"hello").wait(timeout=5)

    profile: a file, or a Profile. outbox_bytes: how much may wait here for the hub. live_bytes:
    how much may wait here for one listener; it misses what comes then, and is told.
    when_full: "raise" (OutboxFull) or "wait", for when more is put in than the hub takes.
    keepalive: seconds; the longest silence towards the hub, which takes three times as long
    for a dead connection. Connecting, and connecting again after any outage, is its own
    business: nothing here waits for it but what has a timeout.
    """

    def __init__(self, profile: "str | os.PathLike[str] | Profile", *, outbox_bytes: int = OUTBOX_BYTES,
                 live_bytes: int = LIVE_BYTES_MAX, when_full: str = "raise", keepalive: float = KEEPALIVE_S) -> None:
        check_option(when_full)
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waits = when_full == "wait"
        self._connection = Connection(profile_of(profile), self._lock, self._condition.notify_all,
                                      outbox_bytes=outbox_bytes, live_bytes=live_bytes, keepalive_s=keepalive,
                                      receipt_for=lambda batch: Receipt((batch,), self))
        self._outbox = self._connection.outbox

    @property
    def name(self) -> str:
        """This client's name, as the hub knows it, or before the first connection as the profile does."""
        welcome = self._connection.session.welcome
        return welcome.name if welcome else self._connection.profile.name

    @property
    def connected(self) -> bool:
        return self._connection.session.welcome is not None

    @property
    def missed(self) -> int:
        """Live messages that this client knows it has missed."""
        return self._connection.session.missed

    # Sending ---------------------------------------------------------------------------------
    def send(self, to: str, body: bytes, headers: dict[str, str] | None = None) -> Receipt:
        """Puts a message for a client's inbox into the outbox; returns at once.

        body: at most 1 MiB. headers: text to text, at most 16 KiB. Raises Misuse for a malformed
        argument, OutboxFull. What the hub says comes with the receipt, or from flush().
        """
        # Outbox.add(), written out here and below: a call is a fifth of what a message costs.
        batch = self._outbox.open
        if (batch is not None and batch.address == to and batch.way == SEND and type(body) is bytes
                and len(body) <= batch.quick_bytes and not headers and next(batch.slots, 0)):
            batch.items.append(body)
            if not batch.sealed:
                return batch.receipt  # type: ignore[no-any-return]
            return self._put(SEND, to, body, headers, batch)
        return self._put(SEND, to, body, headers, None)

    def publish(self, topic: str, body: bytes, headers: dict[str, str] | None = None) -> Receipt:
        """The same for all who subscribed to the topic, and, live, for those who listen to it."""
        batch = self._outbox.open
        if (batch is not None and batch.address == topic and batch.way == PUBLISH and type(body) is bytes
                and len(body) <= batch.quick_bytes and not headers and next(batch.slots, 0)):
            batch.items.append(body)
            if not batch.sealed:
                return batch.receipt  # type: ignore[no-any-return]
            return self._put(PUBLISH, topic, body, headers, batch)
        return self._put(PUBLISH, topic, body, headers, None)

    def broadcast(self, body: bytes, headers: dict[str, str] | None = None) -> Receipt:
        """The same for every client but this one."""
        return self._put(p.BROADCAST, "", body, headers, None)

    def _put(self, way: int, address: str, body: bytes, headers: dict[str, str] | None,
             added: Batch | None) -> Receipt:
        """added: the batch that the message was added to when it was sealed, perhaps too late."""
        connection = self._connection
        if added is not None and not connection.take_back(added, body):
            return added.receipt  # type: ignore[no-any-return]
        address = address_of(way, address)
        size = p.check_message(body, headers)
        batch = self._when_room(size, lambda: connection.put(way, address, body, headers, size))
        return batch.receipt  # type: ignore[no-any-return]

    def send_many(self, to: str, bodies: Iterable[bytes]) -> Receipt:
        """As send() for each of these, at a fraction of its cost; in order, with one receipt for all.

        bodies: bytes, each at most 1 MiB; no headers. Raises Misuse, which names the index of a
        wrong body, and OutboxFull before anything is put; with when_full="wait" it puts what
        there is room for, and waits for more.
        """
        return self._put_many(p.SEND, to, bodies)

    def publish_many(self, topic: str, bodies: Iterable[bytes]) -> Receipt:
        """As publish() for each of these; else as send_many()."""
        return self._put_many(p.PUBLISH, topic, bodies)

    def _put_many(self, way: int, address: str, bodies: Iterable[bytes]) -> Receipt:
        connection = self._connection
        address = address_of(way, address)
        checked = bodies_of(bodies)
        batches: list[Batch] = []
        whole = (checked, bodies_size(checked))
        for part in connection.parts(*whole) if self._waits else [whole]:
            batches += self._when_room(
                part[1], lambda part=part: connection.put_many(way, address, *part))  # type: ignore[misc]
        return Receipt(tuple(batches), self)

    def _when_room(self, size: int, put: Callable[[], Any]) -> Any:
        while True:
            try:
                return put()
            except OutboxFull:
                if not self._waits:
                    raise
            self._wait(lambda: self._connection.has_room_again(size), None, "the outbox has not emptied")

    def flush(self, timeout: float | None = None) -> None:
        """Returns once everything sent so far is accepted, and every ack() is on the hub's disk.

        timeout: seconds, None for ever. Raises Refused for the first message refused since the
        last flush, Silence when time is up.
        """
        until_s = None if timeout is None else time.monotonic() + timeout
        connection = self._connection
        request = connection.flush()
        last = connection.session.outbox.last
        self._wait(lambda: connection.session.outbox.settled >= last and request.done, timeout,
                   "the hub has not accepted everything", until_s)
        refused = connection.first_refused()
        if refused is not None:
            raise refused

    # Receiving -------------------------------------------------------------------------------
    def receive(self, timeout: float | None = None) -> Iterator[Message]:
        """The inbox's messages, in order, until none came for `timeout` seconds (None: for ever).

        A message stays in the inbox until it, or a later one, is acknowledged: message.ack().
        Within one Client none comes twice; two threads that receive share what comes, and
        the one's ack() covers what the other got before it. Raises Refused "inbox-taken" when another
        connection of this client receives, Unreachable when time is up without a connection.
        """
        connection = self._connection
        connection.receive()
        pop = connection.session.ready.popleft
        while True:
            try:
                message = pop()
            except IndexError:
                if not connection.refill() and not self._poll(connection.has_messages, timeout):
                    if not self.connected:
                        raise connection.silence("nothing came") from None
                    return
            else:
                yield message

    def receive_batches(self, timeout: float | None = None) -> Iterator[list[Message]]:
        """As receive(), but gives lists, none of them empty: the messages that came together.

        batch[-1].ack() acknowledges all of one, and all before it. One list may hold some
        thousands of small messages; how they are cut says nothing.
        """
        connection = self._connection
        connection.receive()
        while True:
            batch = connection.next_batch()
            if batch:
                yield batch
            elif not self._poll(connection.has_messages, timeout):
                if not self.connected:
                    raise connection.silence("nothing came")
                return

    def release(self) -> None:
        """Gives the inbox back, for another connection of this client to receive."""
        with self._condition:
            self._connection.session.release()

    def subscribe(self, pattern: str, timeout: float | None = 30.0) -> None:
        """From now on, the pattern's messages go to this client's inbox, whether it is here or not.

        pattern: words joined by dots; * is one word, # is none or more. Raises Misuse,
        Refused "forbidden", Silence.
        """
        self._ask(timeout, p.Subscribe, parse_pattern(pattern))

    def unsubscribe(self, pattern: str, timeout: float | None = 30.0) -> None:
        """Ends a subscription. Raises Refused "not-subscribed" when there is none."""
        self._ask(timeout, p.Unsubscribe, parse_pattern(pattern))

    def subscriptions(self, timeout: float | None = 30.0) -> list[str]:
        """This client's patterns, in order."""
        patterns: list[str] = []
        while True:
            result = self._ask(timeout, p.Subscriptions, patterns[-1] if patterns else "")
            patterns += result["patterns"]
            if not result["more"]:
                return patterns

    def listen(self, *patterns: str, broadcasts: bool = False, timeout: float | None = None) -> "Listener":
        """Live messages from now on: at most once, nothing stored. Ends when none came for
        `timeout` seconds (None: never). broadcasts: their live copies too.

        When this returns, the hub knows; message.missed tells what was lost on the way.
        Raises Misuse, Refused "forbidden", Silence.
        """
        listening = listening_of(patterns, broadcasts)
        self._connection.listen(listening)
        try:
            self._wait(lambda: self._connection.is_listening(listening), 30.0, "the hub has not let us listen")
        except BaseException:
            self._connection.unlisten(listening)
            raise
        return Listener(self, listening, timeout)

    def ping(self, timeout: float | None = 10.0) -> float:
        """A round trip to the hub and back, in seconds."""
        self._wait(lambda: self.connected, timeout, "the hub has not answered")
        began_s = time.perf_counter()
        self._ask(timeout, p.Ping)
        return time.perf_counter() - began_s

    # Waiting ---------------------------------------------------------------------------------
    def _ask(self, timeout: float | None, make: Callable[..., Any], *fields: Any, again: bool = True) -> dict[str, Any]:
        request: Request = self._connection.ask(make, *fields, again=again)
        try:
            self._wait(lambda: request.done, timeout, "the hub has not answered")
        finally:
            self._connection.forget(request)
        if request.error is not None:
            raise request.error
        return request.result

    def _wait(self, true: Callable[[], bool], timeout: float | None, what: str,
              until_s: float | None = None) -> None:
        if not self._poll(true, timeout, until_s):
            raise self._connection.silence(what)

    def _poll(self, true: Callable[[], bool], timeout: float | None, until_s: float | None = None) -> bool:
        """Whether it came true in time. Raises when it never will."""
        if until_s is None and timeout is not None:
            until_s = time.monotonic() + timeout
        connection, led = self._connection, False
        with self._condition:
            try:
                while not true():
                    stop_waiting(connection)
                    left_s = None if until_s is None else until_s - time.monotonic()
                    if left_s is not None and left_s <= 0:
                        return False
                    # Bounded, since a signal that comes just before an endless wait would not end it.
                    wait_s = WAIT_S if left_s is None else min(left_s, WAIT_S)
                    if connection.lead(wait_s):
                        led = True
                    else:
                        self._condition.wait(wait_s)
                return True
            finally:
                if led:
                    connection.leave()
                    self._condition.notify()           # another one who waits may lead now

    # Ending ----------------------------------------------------------------------------------
    def close(self, timeout: float = 5.0) -> None:
        """Waits until all is accepted, `timeout` seconds at most, then disconnects.

        Raises Silence (or its cause) when messages were given up because the hub has not
        accepted them.
        """
        connection = self._connection
        if connection.is_closed:
            return
        try:
            if connection.unaccepted() or connection.session.has_acks:
                request = connection.flush()
                if not self._poll(lambda: connection.session.outbox.is_empty and request.done, timeout) \
                        and connection.unaccepted():
                    raise connection.silence(f"{connection.unaccepted()} messages were not accepted")
        finally:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._connection.close()


class Listener:
    """Live messages, as an iterator; close() or leaving its `with` ends it. One thread may use it."""

    def __init__(self, client: Client, listening: Listening, timeout: float | None) -> None:
        self._client = client
        self._listening = listening
        self._timeout = timeout
        self._rest: Iterator[Message] = iter(())       # of what came together last

    def __iter__(self) -> Iterator[Message]:
        # Calling __next__ costs 0.09 us a message, resuming a generator 0.07, passing on an iterator 0.04.
        yield from self._rest
        while self._refill():
            yield from self._rest

    def __next__(self) -> Message:
        while True:
            for message in self._rest:
                return message
            if not self._refill():
                raise StopIteration

    def batches(self) -> Iterator[list[Message]]:
        """The messages in lists, none of them empty, as they came together; else as iterating."""
        while True:
            batch = list(self._rest)
            if batch:
                yield batch
            elif not self._refill():
                return

    def _refill(self) -> bool:
        """Fetches what came together next. False, and the end, when nothing came in time."""
        connection, listening = self._client._connection, self._listening
        while True:
            batch = connection.take_live(listening)
            if batch is not None:
                self._rest = iter(batch)
                return True
            if not self._client._poll(lambda: connection.has_live(listening), self._timeout):
                self.close()
                return False

    def close(self) -> None:
        self._client._connection.unlisten(self._listening)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
