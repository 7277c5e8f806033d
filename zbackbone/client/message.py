"""Message: what a receiver or a listener gets. No I/O, no clock."""

from collections.abc import Callable

from .. import protocol as p


class Arrival:
    """The batch that messages came in. number: in the inbox. ack: takes (number, skip); None if live."""

    __slots__ = ("envelope", "number", "missed", "ack")

    def __init__(self, envelope: p.Envelope, number: int, missed: int,
                 ack: Callable[[int, int], None] | None) -> None:
        self.envelope = envelope
        self.number = number
        self.missed = missed
        self.ack = ack


class Message:
    """One message.

    body: bytes, as sent. headers: text to text; empty when none were sent.
    sender: the client's name, which the hub took from its key. time: when the hub accepted
    it, seconds since 1970 UTC. id: text, the same wherever this message turns up.
    topic: of a published one. to: the client it was sent to. Both None for a broadcast.
    missed: live messages of this topic known to be lost just before this one.
    """

    __slots__ = ("body", "headers", "_arrival", "_index")

    def __init__(self, body: bytes, headers: dict[str, str], arrival: Arrival, index: int) -> None:
        self.body = body
        self.headers = headers
        self._arrival = arrival
        self._index = index

    @property
    def sender(self) -> str:
        return self._arrival.envelope.sender

    @property
    def topic(self) -> str | None:
        envelope = self._arrival.envelope
        return envelope.address if envelope.way == p.PUBLISH else None

    @property
    def to(self) -> str | None:
        envelope = self._arrival.envelope
        return envelope.address if envelope.way == p.SEND else None

    @property
    def is_broadcast(self) -> bool:
        return self._arrival.envelope.way == p.BROADCAST

    @property
    def time(self) -> float:
        return self._arrival.envelope.time_ms / 1000

    @property
    def id(self) -> str:
        envelope = self._arrival.envelope
        return f"{envelope.outbox.hex()}-{envelope.number}-{self._index}"

    @property
    def missed(self) -> int:
        return self._arrival.missed if self._index == 0 else 0

    @property
    def place(self) -> tuple[int, int]:
        """(number of its batch in the inbox, index in the batch)."""
        return self._arrival.number, self._index

    def ack(self) -> None:
        """Done with this message and all before it in the inbox: the hub may forget them.

        It returns at once; flush() and close() wait until it is on the hub's disk. A live
        message needs none, and this does nothing.
        """
        arrival = self._arrival
        if arrival.ack is not None:
            if self._index + 1 < arrival.envelope.messages:
                arrival.ack(arrival.number, self._index + 1)
            else:
                arrival.ack(arrival.number + 1, 0)

    def __repr__(self) -> str:
        where = self.topic or self.to or "everybody"
        return f"<Message {self.id} from {self.sender} to {where}, {len(self.body)} bytes>"


def unpack(arrival: Arrival, body: bytes, skip: int) -> list[Message]:
    """The messages of a batch, without the first `skip`. Raises Garbled."""
    items = p.unpack_batch(body, arrival.envelope.messages)
    return [
        Message(item, {}, arrival, index) if type(item) is bytes else Message(item[0], item[1], arrival, index)  # type: ignore[arg-type]
        for index, item in enumerate(items) if index >= skip
    ]
