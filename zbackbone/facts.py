"""Facts: what the hub remembers. Each is one change of its state; nothing else changes it.

Facts are plain tuples of numbers, text and bytes, so that they can be stored, sent and replayed.
A key is the 64 hex digits of its 32 public bytes; a client is the hub's number for a name.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import msgpack  # type: ignore[import-untyped]


class Invited(NamedTuple):
    key: str
    name: str
    grants: dict[str, Any]
    expires_ms: int


class InvitationEnded(NamedTuple):
    """Used, expired or withdrawn."""

    key: str


class Registered(NamedTuple):
    client: int
    name: str
    key: str
    grants: dict[str, Any]
    time_ms: int


class KeyAdded(NamedTuple):
    """A second key for a client, pending until it is first used."""

    client: int
    key: str


class KeyDropped(NamedTuple):
    """The key is no longer taken, and never will be again."""

    client: int
    key: str


class KeyUsed(NamedTuple):
    """A pending key was used: it is the client's key now."""

    client: int
    key: str


class Granted(NamedTuple):
    client: int
    grants: dict[str, Any]


class Revoked(NamedTuple):
    """The client is no more: its keys, subscriptions, outboxes and inbox go with it."""

    client: int


class Subscribed(NamedTuple):
    client: int
    pattern: str


class Unsubscribed(NamedTuple):
    client: int
    pattern: str


class Stored(NamedTuple):
    """A batch accepted, with a place in one inbox or more.

    places: (client, inbox number) of each inbox. envelope, body: the bytes as they go out.
    """

    messages: int
    envelope: bytes
    body: bytes
    places: tuple[tuple[int, int], ...]


class Moved(NamedTuple):
    """A sender's numbering moved on: every batch up to `number` is decided.

    refused: (number, code) of those refused that the sender may not know yet.
    lazy: nothing was stored or refused by it, so it needn't reach the disk by itself: a
        batch that no inbox wanted leaves nothing that a second one could double.
    """

    client: int
    outbox: bytes
    number: int
    refused: tuple[tuple[int, str], ...]
    lazy: bool


class OutboxForgotten(NamedTuple):
    client: int
    outbox: bytes


class Acked(NamedTuple):
    """Inbox batches before `number` are done with, and `skip` messages of batch `number`."""

    client: int
    number: int
    skip: int


class Missed(NamedTuple):
    """Messages of a publish or a broadcast that a full inbox could not take."""

    client: int
    messages: int


# What only the store tells ---------------------------------------------------------------------
class Freed(NamedTuple):
    """What an Acked gave back: messages and bytes that the inbox no longer holds."""

    client: int
    messages: int
    size: int


class InboxAt(NamedTuple):
    """An inbox as it stands in the store.

    next: number of the batch to come. base, skip: as in Acked. messages, size: held (size in
    bytes). missed: messages it could not take so far.
    """

    client: int
    next: int
    base: int
    skip: int
    messages: int
    size: int
    missed: int


Fact: TypeAlias = (
    Invited | InvitationEnded | Registered | KeyAdded | KeyDropped | KeyUsed | Granted | Revoked
    | Subscribed | Unsubscribed | Stored | Moved | OutboxForgotten | Acked | Missed | Freed | InboxAt
)

# What sending and receiving bring about, all day long; the others are rare.
Message: TypeAlias = Stored | Moved | Acked | Missed
MESSAGES: tuple[type, ...] = (Stored, Moved, Acked, Missed)


def pack(facts: Sequence[Message]) -> tuple[bytes, list[int]]:
    """Facts of the kinds in MESSAGES, as bytes; and at which of them each Stored has its envelope and body.

        length of the index 4, index, then the envelopes and bodies, one behind the other
        index = msgpack array of an array a kind; of a Stored, the two lengths in place of the bytes

    Their order is kept within a kind, and doesn't matter between kinds: an acknowledgement is
    never of what is stored behind it.
    """
    stored = [fact for fact in facts if type(fact) is Stored]
    blobs = [blob for fact in stored for blob in (fact.envelope, fact.body)]
    index = msgpack.packb([
        [(fact.messages, len(fact.envelope), len(fact.body), fact.places) for fact in stored],
        *([fact for fact in facts if type(fact) is kind] for kind in MESSAGES[1:])])
    places = list(accumulate(map(len, blobs), initial=4 + len(index)))
    return b"".join((len(index).to_bytes(4), index, *blobs)), places[:-1:2]


def unpack(data: bytes) -> list[Message]:
    """What was packed. Raises ValueError, TypeError or msgpack's errors for what never was."""
    at = 4 + int.from_bytes(data[:4])
    stored, *others = msgpack.unpackb(data[4:at], use_list=False)
    out: list[Message] = []
    for messages, envelope_bytes, body_bytes, places in stored:
        middle = at + envelope_bytes
        out.append(Stored(messages, data[at:middle], data[middle:middle + body_bytes], places))
        at = middle + body_bytes
    if at != len(data):
        raise ValueError(f"{len(data)} bytes, but {at} by their index")
    for kind, rows in zip(MESSAGES[1:], others, strict=True):
        out += map(kind._make, rows)                 # type: ignore[attr-defined]
    return out
