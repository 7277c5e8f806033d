"""Pending: what messages changed, and the database does not have yet. No I/O, no clock.

What comes and is acknowledged before the database is told leaves nothing to write but numbers.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from .. import facts as f


class Kept:
    """A batch, in `left` inboxes. is_shared: it was meant for more than one. size: bytes."""

    __slots__ = ("messages", "envelope", "body", "size", "is_shared", "left")

    def __init__(self, fact: f.Stored) -> None:
        self.messages, self.envelope, self.body, places = fact
        self.size = len(self.envelope) + len(self.body)
        self.left = len(places)
        self.is_shared = self.left > 1


class Change:
    """What became of one inbox. next: 0, or the number behind its last new batch. acked: the last Acked.

    messages, size: of batches that came and went here. missed: as in Missed.
    """

    __slots__ = ("entries", "next", "acked", "messages", "size", "missed")

    def __init__(self) -> None:
        self.entries: deque[tuple[int, Kept]] = deque()
        self.next = 0
        self.acked: f.Acked | None = None
        self.messages = 0
        self.size = 0
        self.missed = 0


class Pending:
    """inboxes: what changed, by client. moved: the last Moved of each outbox. size: bytes of batches held.

    count: their places in inboxes.
    """

    __slots__ = ("inboxes", "moved", "size", "count")

    def __init__(self) -> None:
        self.inboxes: dict[int, Change] = {}
        self.moved: dict[tuple[int, bytes], f.Moved] = {}
        self.size = 0
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self.inboxes or self.moved)

    def of(self, client: int) -> Change:
        change = self.inboxes.get(client)
        if change is None:
            change = self.inboxes[client] = Change()
        return change

    def take(self, fact: f.Message) -> None:
        kind = type(fact)
        if kind is f.Stored:
            kept = Kept(fact)
            self.size += kept.size
            self.count += kept.left
            for client, number in fact.places:
                change = self.of(client)
                change.entries.append((number, kept))
                change.next = number + 1
        elif kind is f.Moved:
            self.moved[fact.client, fact.outbox] = fact
        elif kind is f.Acked:
            self.ack(fact)
        else:
            self.of(fact.client).missed += fact.messages

    def ack(self, fact: f.Acked) -> tuple[int, int]:
        """How many messages and bytes it took out of what is pending."""
        change = self.of(fact.client)
        change.acked = fact
        entries, messages, size = change.entries, 0, 0
        while entries and entries[0][0] < fact.number:
            _, kept = entries.popleft()
            messages += kept.messages
            size += kept.size
            kept.left -= 1
            self.count -= 1
            if not kept.left:
                self.size -= kept.size
        change.messages += messages
        change.size += size
        return messages, size

    def read(self, client: int, after: int) -> Iterator[tuple[int, bytes, bytes]]:
        """An inbox's entries (number, envelope, body) behind `after`."""
        change = self.inboxes.get(client)
        if change is None or not change.entries:
            return
        entries, first = change.entries, change.entries[0][0]
        # Numbers follow each other but where a restart skipped some; then it is looked for.
        is_dense = entries[-1][0] - first == len(entries) - 1
        for number, kept in islice(entries, max(0, after + 1 - first) if is_dense else 0, None):
            if number > after:
                yield number, kept.envelope, kept.body
