"""Inbox: one client's queue: numbers, credit, what is due, acknowledgement. No I/O, no clock.

The backlog stays on disk. In memory are numbers, and for a receiver that keeps up, the few
batches between "accepted" and "sent": `fresh`, which is bounded by the receiver's credit, or is
what was read from disk for it in one go.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeAlias

from ..protocol import BATCH_MESSAGES_MAX

Entry: TypeAlias = tuple[int, bytes, object]     # inbox number, envelope, body


class Due(NamedTuple):
    """A batch to send now; the fields of Deliver, and the body."""

    number: int
    previous: int
    skip: int
    envelope: bytes
    body: object


class Inbox:
    __slots__ = ("client", "next", "base", "skip", "messages", "size", "missed",
                 "peer", "cursor", "told", "sent", "credit", "fresh", "fresh_bytes", "is_stuck")

    def __init__(self, client: int) -> None:
        self.client = client
        self.next = 1             # number of the batch to come
        self.base = 1             # lowest batch not acknowledged
        self.skip = 0             # messages of `base` that are acknowledged
        self.messages = 0         # held
        self.size = 0             # held, bytes
        self.missed = 0           # messages that didn't fit
        self.peer: Hashable | None = None
        self.cursor = 0           # highest number sent to the peer
        self.told = 0             # the same as the peer knows it: see Deliver.previous
        self.sent = 0             # bytes, since the peer took it
        self.credit = 0           # bytes it may get, since then
        self.fresh: deque[Entry] = deque()
        self.fresh_bytes = 0
        self.is_stuck = False     # the peer's pipe is full: nothing is due until it may have room

    @property
    def waiting(self) -> int:
        """Messages not acknowledged."""
        return max(0, self.messages - self.skip)

    # What comes in ---------------------------------------------------------------------------
    def put(self, number: int, envelope: bytes, body: object, size: int, messages: int) -> bool:
        """Takes a batch. Returns whether it can go out without a look at the disk."""
        self.next = number + 1
        self.messages += messages
        self.size += size
        if self.peer is None or self.is_stuck or self.sent + self.fresh_bytes >= self.credit:
            return False
        last = self.fresh[-1][0] if self.fresh else self.cursor
        if last != number - 1:
            return False         # others wait on disk before it
        self.fresh.append((number, envelope, body))
        self.fresh_bytes += size
        return True

    def fill(self, entries: Iterable[Entry], upto: int) -> None:
        """Takes what the disk gave for the numbers behind the cursor up to `upto`."""
        for number, envelope, body in entries:
            self.fresh.append((number, envelope, body))
            self.fresh_bytes += _size(envelope, body)
        if not self.fresh:
            # Nothing is left there: it was damaged, or purged.
            self.cursor = max(self.cursor, min(upto, self.next - 1))

    # What goes out ---------------------------------------------------------------------------
    def attach(self, peer: Hashable, after: int, credit: int) -> None:
        """Deliveries go to this peer from behind `after`, or the acknowledged, whichever is later."""
        self.detach()
        self.peer = peer
        self.cursor = min(max(after, self.base - 1), self.next - 1)
        self.told = after
        self.credit = credit

    def detach(self) -> None:
        self.peer = None
        self.is_stuck = False
        self.cursor = self.told = self.sent = self.credit = self.fresh_bytes = 0
        self.fresh.clear()

    def due(self) -> list[Due]:
        """What may be sent now, within the credit (its last batch may go over it)."""
        out: list[Due] = []
        while self.fresh and self.sent < self.credit:
            number, envelope, body = self.fresh.popleft()
            size = _size(envelope, body)
            self.fresh_bytes -= size
            if number < self.base:
                continue                             # acknowledged meanwhile
            out.append(Due(number, self.told, self.skip if number == self.base else 0, envelope, body))
            self.cursor = self.told = number
            self.sent += size
        return out

    def unsend(self, due: list[Due]) -> None:
        """These could not be sent after all; they are read from disk when there is room."""
        self.is_stuck = True
        self.cursor, self.told = due[0].number - 1, due[0].previous
        self.sent -= sum(_size(d.envelope, d.body) for d in due)
        self.fresh.clear()
        self.fresh_bytes = 0

    @property
    def behind(self) -> bool:
        """Whether a receiver could take what only the disk has."""
        return (self.peer is not None and not self.is_stuck and not self.fresh and self.cursor < self.next - 1
                and self.sent < self.credit)

    # What is done with -----------------------------------------------------------------------
    def can_ack(self, number: int, skip: int) -> bool:
        """Whether this moves the acknowledged on, and not past what there is."""
        return (self.base, self.skip) < (number, skip) and skip <= BATCH_MESSAGES_MAX and (
            number < self.next or (number == self.next and not skip))

    def ack(self, number: int, skip: int) -> None:
        self.base, self.skip = number, skip
        self.cursor = max(self.cursor, number - 1) if self.peer is not None else 0


def _size(envelope: bytes, body: object) -> int:
    return len(envelope) + len(body)  # type: ignore[arg-type]
