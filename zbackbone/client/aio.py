"""AsyncClient: the same verbs, with await and async for."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
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


class AsyncReceipt:
    """As Receipt; `await receipt` is `await receipt.wait()`."""

    __slots__ = ("_batches", "_client")

    def __init__(self, batches: tuple[Batch, ...], client: "AsyncClient") -> None:
        self._batches = batches
        self._client = client

    @property
    def done(self) -> bool:
        return not self._batches or self._batches[-1].settled

    async def wait(self, timeout: float | None = None) -> None:
        """As Receipt.wait()."""
        if not self.done:
            await self._client._wait(lambda: self.done, timeout, "the hub has not accepted the message")
        outcome(self._batches)

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()


class AsyncClient:
    """As Client, for one event loop: the one that is running when it is made.

        async with AsyncClient(profile="noc-c2.profile") as me:
            await (await me.send("noc-sfmc", b"hello")).wait(timeout=5)
    """

    def __init__(self, profile: "str | os.PathLike[str] | Profile", *, outbox_bytes: int = OUTBOX_BYTES,
                 live_bytes: int = LIVE_BYTES_MAX, when_full: str = "raise", keepalive: float = KEEPALIVE_S) -> None:
        check_option(when_full)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.RLock()
        self._waits = when_full == "wait"
        self._waiters: set[asyncio.Future[None]] = set()
        self._told = False
        self._connection = Connection(profile_of(profile), self._lock, self._tell,
                                      outbox_bytes=outbox_bytes, live_bytes=live_bytes, keepalive_s=keepalive,
                                      receipt_for=lambda batch: AsyncReceipt((batch,), self))
        self._add = self._connection.outbox.add

    def _tell(self) -> None:
        # From the I/O thread: wake the loop once, however much has changed.
        if not self._told and not self._loop.is_closed():
            self._told = True
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._told = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def name(self) -> str:
        """As Client.name."""
        welcome = self._connection.session.welcome
        return welcome.name if welcome else self._connection.profile.name

    @property
    def connected(self) -> bool:
        return self._connection.session.welcome is not None

    @property
    def missed(self) -> int:
        """As Client.missed."""
        return self._connection.session.missed

    async def send(self, to: str, body: bytes, headers: dict[str, str] | None = None) -> AsyncReceipt:
        """As Client.send; waits only for room, when when_full="wait"."""
        batch = None if headers else self._add(p.SEND, to, body)
        if batch is None or batch.sealed:
            return await self._put(p.SEND, to, body, headers, batch)
        return batch.receipt  # type: ignore[no-any-return]

    async def publish(self, topic: str, body: bytes, headers: dict[str, str] | None = None) -> AsyncReceipt:
        """As Client.publish."""
        batch = None if headers else self._add(p.PUBLISH, topic, body)
        if batch is None or batch.sealed:
            return await self._put(p.PUBLISH, topic, body, headers, batch)
        return batch.receipt  # type: ignore[no-any-return]

    async def broadcast(self, body: bytes, headers: dict[str, str] | None = None) -> AsyncReceipt:
        """As Client.broadcast."""
        return await self._put(p.BROADCAST, "", body, headers, None)

    async def _put(self, way: int, address: str, body: bytes, headers: dict[str, str] | None,
                   added: Batch | None) -> AsyncReceipt:
        connection = self._connection
        if added is not None and not connection.take_back(added, body):
            return added.receipt  # type: ignore[no-any-return]
        address = address_of(way, address)
        size = p.check_message(body, headers)
        batch = await self._when_room(size, lambda: connection.put(way, address, body, headers, size))
        return batch.receipt  # type: ignore[no-any-return]

    async def send_many(self, to: str, bodies: Iterable[bytes]) -> AsyncReceipt:
        """As Client.send_many."""
        return await self._put_many(p.SEND, to, bodies)

    async def publish_many(self, topic: str, bodies: Iterable[bytes]) -> AsyncReceipt:
        """As Client.publish_many."""
        return await self._put_many(p.PUBLISH, topic, bodies)

    async def _put_many(self, way: int, address: str, bodies: Iterable[bytes]) -> AsyncReceipt:
        connection = self._connection
        address = address_of(way, address)
        checked = bodies_of(bodies)
        batches: list[Batch] = []
        whole = (checked, bodies_size(checked))
        for part in connection.parts(*whole) if self._waits else [whole]:
            batches += await self._when_room(
                part[1], lambda part=part: connection.put_many(way, address, *part))  # type: ignore[misc]
        return AsyncReceipt(tuple(batches), self)

    async def _when_room(self, size: int, put: Callable[[], Any]) -> Any:
        while True:
            try:
                return put()
            except OutboxFull:
                if not self._waits:
                    raise
            await self._wait(lambda: self._connection.has_room_again(size), None, "the outbox has not emptied")

    async def flush(self, timeout: float | None = None) -> None:
        """As Client.flush."""
        connection = self._connection
        request = connection.flush()
        last = connection.session.outbox.last
        await self._wait(lambda: connection.session.outbox.settled >= last and request.done, timeout,
                         "the hub has not accepted everything")
        refused = connection.first_refused()
        if refused is not None:
            raise refused

    async def receive(self, timeout: float | None = None) -> AsyncIterator[Message]:
        """As Client.receive: `async for message in me.receive(timeout=1)`."""
        connection = self._connection
        connection.receive()
        pop = connection.session.ready.popleft
        while True:
            try:
                message = pop()
            except IndexError:
                if not connection.refill() and not await self._poll(connection.has_messages, timeout):
                    if not self.connected:
                        raise connection.silence("nothing came") from None
                    return
            else:
                yield message

    async def receive_batches(self, timeout: float | None = None) -> AsyncIterator[list[Message]]:
        """As Client.receive_batches."""
        connection = self._connection
        connection.receive()
        while True:
            batch = connection.next_batch()
            if batch:
                yield batch
            elif not await self._poll(connection.has_messages, timeout):
                if not self.connected:
                    raise connection.silence("nothing came")
                return

    def release(self) -> None:
        """As Client.release."""
        with self._lock:
            self._connection.session.release()

    async def subscribe(self, pattern: str, timeout: float | None = 30.0) -> None:
        """As Client.subscribe."""
        await self._ask(timeout, p.Subscribe, parse_pattern(pattern))

    async def unsubscribe(self, pattern: str, timeout: float | None = 30.0) -> None:
        """As Client.unsubscribe."""
        await self._ask(timeout, p.Unsubscribe, parse_pattern(pattern))

    async def subscriptions(self, timeout: float | None = 30.0) -> list[str]:
        """As Client.subscriptions."""
        patterns: list[str] = []
        while True:
            result = await self._ask(timeout, p.Subscriptions, patterns[-1] if patterns else "")
            patterns += result["patterns"]
            if not result["more"]:
                return patterns

    async def listen(self, *patterns: str, broadcasts: bool = False,
                     timeout: float | None = None) -> AsyncIterator[Message]:
        """As Client.listen: `async for message in me.listen("soar.#", timeout=1)`."""
        batches = self.listen_batches(*patterns, broadcasts=broadcasts, timeout=timeout)
        try:
            async for batch in batches:
                for message in batch:
                    yield message
        finally:
            await batches.aclose()

    async def listen_batches(self, *patterns: str, broadcasts: bool = False,
                             timeout: float | None = None) -> AsyncGenerator[list[Message], None]:
        """As Client.listen(...).batches(): `async for batch in me.listen_batches("soar.#", timeout=1)`."""
        connection = self._connection
        listening: Listening = listening_of(patterns, broadcasts)
        connection.listen(listening)
        try:
            await self._wait(lambda: connection.is_listening(listening), 30.0, "the hub has not let us listen")
            while True:
                batch = connection.take_live(listening)
                if batch:
                    yield batch
                elif batch is None and not await self._poll(lambda: connection.has_live(listening), timeout):
                    return
        finally:
            connection.unlisten(listening)

    async def ping(self, timeout: float | None = 10.0) -> float:
        """As Client.ping, in seconds."""
        await self._wait(lambda: self.connected, timeout, "the hub has not answered")
        began_s = time.perf_counter()
        await self._ask(timeout, p.Ping)
        return time.perf_counter() - began_s

    async def _ask(self, timeout: float | None, make: Callable[..., Any], *fields: Any) -> dict[str, Any]:
        request: Request = self._connection.ask(make, *fields)
        try:
            await self._wait(lambda: request.done, timeout, "the hub has not answered")
        finally:
            self._connection.forget(request)
        if request.error is not None:
            raise request.error
        return request.result

    async def _wait(self, true: Callable[[], bool], timeout: float | None, what: str) -> None:
        if not await self._poll(true, timeout):
            raise self._connection.silence(what)

    async def _poll(self, true: Callable[[], bool], timeout: float | None) -> bool:
        """Whether it came true in time. Raises when it never will."""
        until_s = None if timeout is None else time.monotonic() + timeout
        while True:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.add(waiter)                # before the look, so that no change slips by
            try:
                with self._lock:
                    if true():
                        return True
                    stop_waiting(self._connection)
                left_s = None if until_s is None else until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                await asyncio.wait((waiter,), timeout=left_s)
            finally:
                self._waiters.discard(waiter)

    async def close(self, timeout: float = 5.0) -> None:
        """As Client.close."""
        connection = self._connection
        if connection.is_closed:
            return
        try:
            if connection.unaccepted() or connection.session.has_acks:
                request = connection.flush()
                if not await self._poll(lambda: connection.session.outbox.is_empty and request.done, timeout) \
                        and connection.unaccepted():
                    raise connection.silence(f"{connection.unaccepted()} messages were not accepted")
        finally:
            await self._loop.run_in_executor(None, connection.close)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: BaseException | None,
                        __: TracebackType | None) -> None:
        if kind is None:
            await self.close()
        else:
            await self._loop.run_in_executor(None, self._connection.close)
