"""News: a word in a pipe, or what sockets have: waiting for whichever comes first."""

import contextlib
import os
import select
from typing import Any

import zmq


class News:
    """Waits for a word in a pipe, or for what sockets have."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._sockets: tuple[Any, ...] = ()
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)

    def of(self, sockets: tuple[Any, ...]) -> None:
        """These, from now on; None among them are none."""
        if sockets != self._sockets:
            self._sockets = sockets
            self._poll = select.poll()
            self._poll.register(self._pipe, select.POLLIN)
            for sock in sockets:
                if sock is not None:
                    self._poll.register(sock.getsockopt(zmq.FD), select.POLLIN)

    def wait(self, wait_s: float) -> bool:
        """Whether the pipe had a word, which is taken out."""
        for fd, _ in self._poll.poll(max(0.0, wait_s) * 1000):
            if fd == self._pipe:
                with contextlib.suppress(BlockingIOError):
                    return bool(os.read(fd, 4096))
        return False


def pipe() -> tuple[int, int]:
    """A pipe that nobody blocks on: (to read, to write)."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
