"""Outbox: what the hub has not accepted yet: batches, their numbers, what may be sent. No I/O, no clock.

    add, put -> open -> sealed (unsent) -> sent -> settled
                  full, another address,      Accepted
                  or nobody to wait for

add() takes no lock: `with lock:` costs 0.22 us and a whole add() 0.2 (2-core cloud machine). All
else here is called under one. What makes that sound, however threads take turns:

    A slot is a right to add one small message to a batch. next() on an iterator of C is one
    step under the GIL, so that no slot is taken twice, and room is given out before it is used.
    seal() says `sealed` before it looks at the items; who adds one looks at `sealed` behind that.
    So what is added too late is known to its adder, who takes it back and puts it into the next.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, repeat
from typing import Any

from .. import protocol as p

BATCH_BYTES = 64 << 10        # a batch is full; larger ones gain nothing and make others wait
BATCH_MESSAGES = p.BATCH_MESSAGES_MAX
QUICK_BYTES = 4096            # larger bodies are put under the lock, whose price they don't feel
ITEM_BYTES = 5                # msgpack's own bytes around a body, at most
LINGER_S = 0.001              # an open batch waits for more, while others are on their way
WINDOW_START = 256 << 10      # bytes sent and not settled; adapts to what the link carries
WINDOW_MIN = 64 << 10
WINDOW_MAX = 8 << 20
BATCHES_MAX = p.IN_FLIGHT_MAX // 2
FAST_S, SLOW_S = 0.5, 2.0     # answers sooner than this let the window grow, later ones shrink it

NO_SLOTS: Iterator[int] = repeat(1, 0)


class Batch:
    """Messages to one address that share a fate. number: 0 until it is sealed.

    size: bytes of the items that were counted. slots: one 1 for each small message that may be
    added without the lock. quick_bytes: how small. promised: how many items it has, or will when
    all who took a slot have used it. refusal: (code, sentence) once it is settled and refused.
    receipt: whatever the face hangs on it.
    """

    __slots__ = ("way", "address", "items", "size", "counted", "promised", "slots", "quick_bytes", "sealed",
                 "opened_s", "number", "body", "sent_s", "settled", "refusal", "receipt")

    def __init__(self, way: int, address: str, now_s: float) -> None:
        self.way = way
        self.address = address
        self.items: list[p.Item] = []
        self.size = 0
        self.counted = 0
        self.promised = 0
        self.slots = NO_SLOTS
        self.quick_bytes = 0
        self.sealed = False
        self.opened_s = now_s
        self.number = 0
        self.body = b""
        self.sent_s = 0.0
        self.settled = False
        self.refusal: tuple[str, str] | None = None
        self.receipt: Any = None

    @property
    def count(self) -> int:
        """Messages in it."""
        return self.counted if self.sealed else len(self.items)


def bodies_size(bodies: Sequence[bytes]) -> int:
    """As much as they take in an outbox."""
    return sum(map(len, bodies)) + ITEM_BYTES * len(bodies)


class Outbox:
    def __init__(self, ident: bytes, bytes_max: int, receipt_for: Callable[[Batch], Any] = lambda batch: None) -> None:
        """ident: 8 random bytes. bytes_max: what it may hold in all. receipt_for: makes a new batch's receipt."""
        self.id = ident
        self.bytes_max = bytes_max
        self.receipt_for = receipt_for
        self.size = 0                          # bytes held, those of the open batch that were counted included
        self.settled = 0                       # every number up to here is answered
        self.last = 0                          # highest number given
        self.window = WINDOW_START
        self.in_flight = 0                     # bytes sent and not settled
        self.open: Batch | None = None
        self.unsent: deque[Batch] = deque()
        self.sent: deque[Batch] = deque()

    @property
    def is_empty(self) -> bool:
        return self.open is None and not self.unsent and not self.sent

    # Without the lock ------------------------------------------------------------------------
    def add(self, way: int, address: str, body: bytes) -> Batch | None:
        """Adds a message to the open batch, if that is to this address and has a slot for it.

        Returns the batch, or None: then put() it. When the batch is `sealed` by now, the
        message may have come too late: take_back() knows.
        """
        batch = self.open
        if (batch is not None and batch.address == address and batch.way == way and type(body) is bytes
                and len(body) <= batch.quick_bytes and next(batch.slots, 0)):
            batch.items.append(body)
            return batch
        return None

    # Under the lock --------------------------------------------------------------------------
    def take_back(self, batch: Batch, body: bytes) -> bool:
        """Takes out what was added to a batch when it was sealed already, and went nowhere.

        False: it went with the batch. Of two who added the very same object at once either may
        find the other's; nobody can tell the two messages apart.
        """
        for index, item in enumerate(batch.items):     # what went with it is no longer among them
            if item is body:
                del batch.items[index]
                return True
        return False

    def has_room(self, size: int, messages: int = 1) -> bool:
        # One message always fits: else a small outbox could never send a large one.
        return self._room() >= size or (messages == 1 and self.is_empty)

    def put(self, way: int, address: str, item: p.Item, size: int, now_s: float) -> Batch:
        """Adds a message of `size` packed bytes; the batch it went into."""
        batch = self._open_for(way, address, size, now_s)
        batch.promised += 1
        batch.items.append(item)
        self.open = batch
        more = size - len(item) - ITEM_BYTES           # than _count() will find
        batch.size += more
        self.size += more
        self._go_on(batch, len(item) if type(item) is bytes else 0)
        return batch

    def put_many(self, way: int, address: str, bodies: Sequence[bytes], now_s: float) -> list[Batch]:
        """Adds messages; the batches they went into, in order."""
        out = []
        ends = list(accumulate(map(len, bodies), initial=0))

        def size(upto: int) -> int:
            return ends[upto] + ITEM_BYTES * upto

        largest = max(map(len, bodies), default=0)
        start = 0
        while start < len(bodies):
            batch = self._open_for(way, address, size(start + 1) - size(start), now_s)
            fit = bisect_right(range(len(ends)), size(start) + self._left(batch), key=size) - 1
            stop = max(start + 1, min(fit, start + BATCH_MESSAGES - batch.promised))
            out.append(batch)
            if batch is not self.open and stop < len(bodies):      # nobody else has seen it, and it is full
                batch.counted, batch.size = stop - start, size(stop) - size(start)
                self.size += batch.size
                self._close(batch, bodies[start:stop])
                start = stop
                continue
            batch.promised += stop - start
            batch.items.extend(bodies[start:stop])
            self.open = batch
            if stop < len(bodies):
                self.seal()
            else:
                self._go_on(batch, largest)
            start = stop
        return out

    def _open_for(self, way: int, address: str, size: int, now_s: float) -> Batch:
        """The open batch, when a message of `size` bytes may go there, else a new one. It has no slots."""
        batch = self.open
        if batch is not None:
            self._count(batch)
            if batch.address == address and batch.way == way and size <= self._left(batch) \
                    and batch.promised < BATCH_MESSAGES:
                return batch
            self.seal()
        batch = Batch(way, address, now_s)
        batch.receipt = self.receipt_for(batch)
        return batch

    def _go_on(self, batch: Batch, body_bytes: int) -> None:
        """After messages were put, of at most `body_bytes`: seals the batch if it is full, else gives out slots."""
        self._count(batch)
        if batch.size >= BATCH_BYTES or batch.promised >= BATCH_MESSAGES:
            self.seal()
            return
        if batch.quick_bytes < body_bytes <= QUICK_BYTES:
            # Messages that are all of a size fill a batch to the brim; others get some leeway.
            batch.quick_bytes = body_bytes if batch.quick_bytes == 0 else min(2 * body_bytes, QUICK_BYTES)
        each = batch.quick_bytes + ITEM_BYTES
        slots = min(min(self._left(batch), self._room()) // each, BATCH_MESSAGES - batch.promised)
        if slots > 0:
            batch.promised += slots
            batch.slots = repeat(1, slots)

    def _count(self, batch: Batch) -> None:
        """Takes its slots back, and counts the bytes that were added."""
        batch.promised -= sum(batch.slots)             # one step under the GIL, as next() is
        count = len(batch.items)
        size = bodies_size(batch.items[batch.counted:count])  # type: ignore[arg-type]
        batch.counted = count
        batch.size += size
        self.size += size

    def _pending(self, batch: Batch) -> int:
        """Bytes that those who took a slot may still add, at most."""
        return (batch.promised - batch.counted) * (batch.quick_bytes + ITEM_BYTES)

    def _left(self, batch: Batch) -> int:
        """Bytes that a batch without slots may still hold."""
        return BATCH_BYTES - batch.size - self._pending(batch)

    def _room(self) -> int:
        """Bytes that the outbox may still hold. Takes the open batch's slots back."""
        batch = self.open
        if batch is None:
            return self.bytes_max - self.size
        self._count(batch)
        return self.bytes_max - self.size - self._pending(batch)

    def seal(self) -> None:
        """Closes the open batch: it gets its number and its bytes."""
        batch = self.open
        if batch is None:
            return
        self.open = None
        batch.sealed = True                            # before the look at its items: see above
        self._count(batch)
        self._close(batch, batch.items[:batch.counted])
        del batch.items[:batch.counted]                # what is left came too late

    def _close(self, batch: Batch, items: Sequence[p.Item]) -> None:
        batch.sealed = True
        self.last += 1
        batch.number = self.last
        batch.body = p.pack_batch(items)
        self.unsent.append(batch)

    def due(self, now_s: float) -> list[Batch]:
        """The batches to send now. An open one goes too when nothing is on its way, or it lingered."""
        if self.open is not None and (
                not (self.sent or self.unsent) or now_s - self.open.opened_s >= LINGER_S):
            self.seal()
        out = []
        while self.unsent and len(self.sent) < BATCHES_MAX and (
                not self.sent or self.in_flight + self.unsent[0].size <= self.window):
            batch = self.unsent.popleft()
            batch.sent_s = now_s
            self.in_flight += batch.size
            self.sent.append(batch)
            out.append(batch)
        return out

    def due_s(self) -> float | None:
        """When an open batch has lingered long enough, on the clock of put()."""
        return self.open.opened_s + LINGER_S if self.open is not None else None

    def accepted(self, number: int, refused: dict[int, tuple[str, str]], now_s: float) -> list[Batch]:
        """The batches that this answer settles, in order."""
        out = []
        while self.sent and self.sent[0].number <= number:
            batch = self.sent.popleft()
            self._settle(batch, refused.get(batch.number))
            self.in_flight -= batch.size
            out.append(batch)
        while self.unsent and self.unsent[0].number <= number:     # sent before a reconnect
            batch = self.unsent.popleft()
            self._settle(batch, refused.get(batch.number))
            out.append(batch)
        if out:
            self.settled = out[-1].number
            self._adapt(now_s - out[-1].sent_s)
        return out

    def _settle(self, batch: Batch, refusal: tuple[str, str] | None) -> None:
        self.size -= batch.size
        batch.settled = True
        batch.refusal = refusal
        batch.body = b""

    def _adapt(self, took_s: float) -> None:
        if took_s < FAST_S:
            self.window = min(self.window * 2, WINDOW_MAX)
        elif took_s > SLOW_S:
            self.window = max(self.window // 2, WINDOW_MIN)

    def rewind(self, number: int = 0) -> None:
        """What was sent from `number` on, and isn't settled, is to be sent again."""
        again = [batch for batch in self.sent if batch.number >= number]
        self.unsent.extendleft(reversed(again))
        for batch in again:
            self.sent.pop()
            self.in_flight -= batch.size
