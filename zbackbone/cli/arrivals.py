"""Arrivals: what a thread fetches while another prints it, until a signal says enough."""

import signal
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

# A signal that comes just before a wait begins does not wake it (7 of 1,200 came so, sent as soon
# as a line was printed), so nobody waits for longer than this at a time.
LOOK_S = 0.25

Item = TypeVar("Item")


class Arrivals(Generic[Item]):
    """While it is entered, SIGINT and SIGTERM end it; a second one ends the process.

    The handler raises nothing, it only puts a mark into a queue that allows that: an exception that
    comes out of a handler inside threading.Condition can leave its lock held for ever. With one,
    1 in 800 Ctrl-C's hung (2-core cloud machine, busy).
    ahead: how many may be fetched that are not done() with; their bodies are in memory.
    """

    def __init__(self, ahead: int) -> None:
        self._queue: SimpleQueue[Item | BaseException | None] = SimpleQueue()
        self._slots = threading.Semaphore(ahead)
        self._is_stopped = False
        self._before: dict[int, Any] = {}

    def start(self, fetch: Callable[[], Iterator[Item]]) -> None:
        threading.Thread(target=self._fetch, args=(fetch,), name="arrivals", daemon=True).start()

    def _fetch(self, fetch: Callable[[], Iterator[Item]]) -> None:
        end = None
        try:
            for item in fetch():
                self._queue.put(item)
                self._slots.acquire()
        except BaseException as error:
            end = error
        self._queue.put(end)

    @property
    def at_hand(self) -> bool:
        """Whether take() returns at once."""
        return self._is_stopped or not self._queue.empty()

    def take(self) -> Item | None:
        """The next one; None when there is no more, or a signal came. Raises what fetching raised."""
        while not self._is_stopped:
            try:
                item = self._queue.get(timeout=LOOK_S)
            except Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        return None

    def done(self, items: int) -> None:
        """So many of those taken are out of memory."""
        if items:
            self._slots.release(items)

    def _stop(self, *_: object) -> None:
        self._is_stopped = True
        self._queue.put(None)
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> "Arrivals[Item]":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
