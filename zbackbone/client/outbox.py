"""Outbox: what the hub has not accepted yet: batches, their numbers, what may be sent. No I/O, no clock.

    put -> open -> sealed (unsent) -> sent -> settled
             full, another address,      Accepted
             or nobody to wait for
"""

from collections import deque
from typing import Any

from .. import protocol as p

BATCH_BYTES = 64 << 10        # a batch is full; larger ones gain nothing and make others wait
BATCH_MESSAGES = 512
LINGER_S = 0.001              # an open batch waits for more, while others are on their way
WINDOW_START = 256 << 10      # bytes sent and not settled; adapts to what the link carries
WINDOW_MIN = 64 << 10
WINDOW_MAX = 8 << 20
BATCHES_MAX = p.IN_FLIGHT_MAX // 2
FAST_S, SLOW_S = 0.5, 2.0     # answers sooner than this let the window grow, later ones shrink it


class Batch:
    """Messages to one address that share a fate. number: 0 until it is sealed.

    refusal: (code, sentence) once it is settled and refused. receipt: whatever the face hangs on it.
    """

    __slots__ = ("way", "address", "items", "size", "count", "opened_s", "number", "body", "sent_s",
                 "settled", "refusal", "receipt")

    def __init__(self, way: int, address: str, now_s: float) -> None:
        self.way = way
        self.address = address
        self.items: list[p.Item] = []
        self.size = 0
        self.count = 0
        self.opened_s = now_s
        self.number = 0
        self.body = b""
        self.sent_s = 0.0
        self.settled = False
        self.refusal: tuple[str, str] | None = None
        self.receipt: Any = None


class Outbox:
    def __init__(self, ident: bytes, bytes_max: int) -> None:
        """ident: 8 random bytes. bytes_max: what it may hold in all."""
        self.id = ident
        self.bytes_max = bytes_max
        self.size = 0                          # bytes held, open batch included
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

    def has_room(self, size: int) -> bool:
        # One message always fits: else a small outbox could never send a large one.
        return self.size + size <= self.bytes_max or self.is_empty

    def put(self, way: int, address: str, item: p.Item, size: int, now_s: float) -> Batch:
        """Adds a message of `size` packed bytes; the batch it went into."""
        batch = self.open
        if batch is not None and (batch.address != address or batch.way != way or batch.size + size > BATCH_BYTES):
            self.seal()
            batch = None
        if batch is None:
            batch = self.open = Batch(way, address, now_s)
        batch.items.append(item)
        batch.count += 1
        batch.size += size
        self.size += size
        if batch.count >= BATCH_MESSAGES or batch.size >= BATCH_BYTES:
            self.seal()
        return batch

    def seal(self) -> None:
        """Closes the open batch: it gets its number and its bytes."""
        batch = self.open
        if batch is None:
            return
        self.open = None
        self.last += 1
        batch.number = self.last
        batch.body = p.pack_batch(batch.items)
        batch.items = []
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
