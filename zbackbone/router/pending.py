"""Pending: what messages changed, and the database does not have yet. No I/O, no clock.

What comes and is acknowledged before the database is told leaves nothing to write but numbers.
Larger bodies are not held here: the journal has them, and is asked for them when need be.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from zlib import crc32

from .. import facts as f

HELD_BYTES = 512        # larger batches stay in the journal alone: what many small ones hold is bounded by their number


class Kept:
    """A batch, in `left` inboxes. size: bytes of envelope and body.

    blob: both, if they are held here; else they are at `at` of the journal, one behind the other, with
    that sum. envelope_bytes: where the one ends.
    """

    __slots__ = ("messages", "size", "left", "envelope_bytes", "blob", "at", "sum")

    def __init__(self, fact: f.Stored, at: int | None) -> None:
        self.messages, envelope, body, places = fact
        self.envelope_bytes = len(envelope)
        self.size = self.envelope_bytes + len(body)
        self.left = len(places)
        self.blob: tuple[bytes, bytes] | None = None
        self.at = self.sum = 0
        if at is None or self.size <= HELD_BYTES:
            self.blob = envelope, body
        else:
            self.at, self.sum = at, crc32(body, crc32(envelope))


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

    count: their places in inboxes. fetch: gives so many bytes at that place of the journal.
    damaged: how often what it gave was not what had been put there.
    """

    __slots__ = ("inboxes", "moved", "size", "count", "damaged", "_fetch")

    def __init__(self, fetch: Callable[[int, int], bytes] = lambda at, length: b"") -> None:
        self._fetch = fetch
        self.damaged = 0
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

    def take(self, fact: f.Message, at: int | None = None) -> None:
        """at: where in the journal a Stored's envelope and body are, if they are there."""
        if type(fact) is f.Stored:
            kept = Kept(fact, at)
            self.size += kept.size
            self.count += kept.left
            for client, number in fact.places:
                change = self.of(client)
                change.entries.append((number, kept))
                change.next = number + 1
        elif type(fact) is f.Moved:
            self.moved[fact.client, fact.outbox] = fact
        elif type(fact) is f.Acked:
            self.ack(fact)
        elif type(fact) is f.Missed:
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
            if number > after and (blob := self.blob_of(kept)) is not None:
                yield number, *blob

    def blob_of(self, kept: Kept) -> tuple[bytes, bytes] | None:
        """Envelope and body; None, and counted, when they are damaged. Raises what `fetch` does."""
        if kept.blob is not None:
            return kept.blob
        data = self._fetch(kept.at, kept.size)
        if len(data) != kept.size or crc32(data) != kept.sum:
            self.damaged += 1
            return None
        return data[:kept.envelope_bytes], data[kept.envelope_bytes:]
