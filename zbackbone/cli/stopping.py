"""Stopping: SIGINT and SIGTERM end a wait at once, and anything else when it is done."""

import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")


class Stopped(BaseException):
    """A signal came during a wait. Like KeyboardInterrupt nobody's `except Exception` may swallow it."""


class Stopping:
    """While it is entered, signals raise Stopped from the start; once next() was called, only within it.

    A second signal raises KeyboardInterrupt wherever it finds us.
    """

    def __init__(self) -> None:
        self._asked = False
        self._waiting = True
        self._before: dict[int, Any] = {}

    def next(self, items: Iterator[Item]) -> Item | None:
        """The next one; None when there is none, or a signal came."""
        self._waiting = True
        try:
            return None if self._asked else next(items, None)
        except Stopped:
            return None
        finally:
            self._waiting = False

    def _heard(self, *_: object) -> None:
        again, self._asked = self._asked, True
        if self._waiting:
            raise Stopped
        if again:
            raise KeyboardInterrupt

    def __enter__(self) -> "Stopping":
        self._before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
