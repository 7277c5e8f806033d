"""Message: what a receiver or a listener gets. No I/O, no clock."""

from collections import deque
from collections.abc import Callable
from itertools import count, repeat
from operator import itemgetter

from .. import protocol as p

_NOTHING: deque[int] = deque(maxlen=0)


class Arrival:
    """The batch that messages came in.

    number: in the inbox of this store. missed: as Message.missed, of its first message.

    Acknowledging takes no lock but once a batch and a while: mark() notes an index, and unless
    the session was told that there are marks, tell() tells it. done() is the session's look at
    them, under its lock: it says first that it was not told, and then looks. So a mark that
    it doesn't see comes from somebody who will find that nobody was told.
    """

    __slots__ = ("envelope", "number", "missed", "store", "mark", "marks", "told", "tell")

    def __init__(self, envelope: p.Envelope, number: int, missed: int,
                 tell: "Callable[[Arrival], None] | None" = None, store: bytes | None = None) -> None:
        """tell: sets `told`, and sees that done() is called. None for live messages, which need no ack."""
        self.envelope = envelope
        self.number = number
        self.missed = missed
        self.store = store
        self.marks: list[int] = []
        self.mark: Callable[[int], None] = self.marks.append if tell else _NOTHING.append
        self.told = tell is None
        self.tell: Callable[[Arrival], None] = tell or (lambda arrival: None)

    def done(self) -> tuple[int, int] | None:
        """How far the marks go, as Ack has it; None without any. They are forgotten."""
        self.told = False
        marked = len(self.marks)
        if not marked:
            return None
        messages = max(self.marks[:marked]) + 1
        del self.marks[:marked]
        return (self.number, messages) if messages < self.envelope.messages else (self.number + 1, 0)


class Message(tuple[bytes, dict[str, str] | None, Arrival, int]):
    """One message.

    body: bytes, as sent. headers: text to text; empty when none were sent.
    sender: the client's name, which the hub took from its key. time: when the hub accepted
    it, seconds since 1970 UTC. id: text, the same wherever this message turns up.
    topic: of a published one. to: the client it was sent to. Both None for a broadcast.
    missed: live messages of this topic known to be lost just before this one.
    """

    # A tuple, as C makes those of a whole batch in one call: 0.17 us each, half of what an object costs
    # (2-core cloud machine). That it is one is nobody's business: each equals itself alone.
    __slots__ = ()
    __eq__, __ne__, __hash__ = object.__eq__, object.__ne__, object.__hash__

    def __new__(cls, body: bytes, headers: dict[str, str] | None, arrival: Arrival, index: int) -> "Message":
        return tuple.__new__(cls, (body, headers, arrival, index))

    body: bytes = property(itemgetter(0))  # type: ignore[assignment]

    @property
    def headers(self) -> dict[str, str]:
        return self[1] or {}

    @property
    def sender(self) -> str:
        return self[2].envelope.sender

    @property
    def topic(self) -> str | None:
        envelope = self[2].envelope
        return envelope.address if envelope.way == p.PUBLISH else None

    @property
    def to(self) -> str | None:
        envelope = self[2].envelope
        return envelope.address if envelope.way == p.SEND else None

    @property
    def is_broadcast(self) -> bool:
        return self[2].envelope.way == p.BROADCAST

    @property
    def time(self) -> float:
        return self[2].envelope.time_ms / 1000

    @property
    def id(self) -> str:
        envelope = self[2].envelope
        return f"{envelope.outbox.hex()}-{envelope.number}-{self[3]}"

    @property
    def missed(self) -> int:
        return self[2].missed if self[3] == 0 else 0

    @property
    def place(self) -> tuple[int, int]:
        """(number of its batch in the inbox, index in the batch)."""
        return self[2].number, self[3]

    def ack(self) -> None:
        """Done with this message and all before it in the inbox: the hub may forget them.

        It returns at once; flush() and close() wait until it is on the hub's disk. A live
        message needs none, and this does nothing.
        """
        _, _, arrival, index = self
        arrival.mark(index)
        if not arrival.told:                           # behind the mark: see Arrival
            arrival.tell(arrival)

    def __repr__(self) -> str:
        where = self.topic or self.to or "everybody"
        return f"<Message {self.id} from {self.sender} to {where}, {len(self[0])} bytes>"


def unpack(arrival: Arrival, body: bytes, skip: int) -> list[Message]:
    """The messages of a batch, without the first `skip`. Raises Garbled."""
    items = p.unpack_batch(body, arrival.envelope.messages)[skip:]
    if set(map(type, items)) <= {bytes}:
        rows = zip(items, repeat(None), repeat(arrival), count(skip))
        return list(map(tuple.__new__, repeat(Message), rows))
    return [
        Message(item, None, arrival, index) if type(item) is bytes else Message(item[0], item[1], arrival, index)  # type: ignore[arg-type]
        for index, item in enumerate(items, skip)
    ]
