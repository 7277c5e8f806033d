"""Protocol: the commands that clients and hub exchange, and their bytes. No I/O, no clock.

docs/protocol.md is the specification; this file is its grammar.

    message   = header body            two frames
    header    = msgpack array [kind, field, ...]
    body      = opaque to the hub; empty where a command has none
    batch     = msgpack array of items, the body of SEND, DELIVER and LIVE
    item      = bin | [bin, {str: str}]       a body without headers | with headers
    envelope  = msgpack array [sender, time_ms, way, address, outbox, number, messages]
                made by the hub once a batch, then carried as it is

A reader ignores fields behind those it knows, so that later versions may add some.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgpack  # type: ignore[import-untyped]

from .errors import Garbled, Misuse

VERSION = 1

# Every limit of the backbone stands here, with its reason. -----------------------------------
BODY_BYTES_MAX = 1 << 20            # a message's body; a hub's memory is a few of these a peer
HEADERS_BYTES_MAX = 16 << 10        # a message's headers, packed; they are labels, not content
BATCH_BYTES_MAX = BODY_BYTES_MAX + HEADERS_BYTES_MAX + 1024   # the largest message, alone
BATCH_MESSAGES_MAX = 4096           # unpacked at once by a receiver; 16-byte messages still fill it
HEADER_BYTES_MAX = 96 << 10         # a client's header frame; the longest grants 300 patterns of 255 bytes
ENVELOPE_BYTES_MAX = 512            # sender 64, address 255, numbers
FRAME_BYTES_MAX = 2 * BATCH_BYTES_MAX    # ZMQ_MAXMSGSIZE; over it libzmq cuts the connection, so
                                    # that a batch a little too large gets a refusal in words
IN_FLIGHT_MAX = 1024                # unsettled batches an outbox; bounds the refusals remembered
OUTBOXES_MAX = 100                  # outboxes remembered a client; the longest unused one goes first
SUBSCRIPTIONS_MAX = 1000            # a client; each costs the hub about half a kilobyte
LISTENS_MAX = 1000                  # a peer; libzmq never gives a filter's 1.4 kB back
PEERS_MAX = 32                      # connections a client; a process needs one
KEEPALIVE_S_MAX = 3600              # a link that is silent for three hours is no connection
STREAMS_MAX = 100_000               # topics whose live numbering is remembered; 200 bytes each
INBOX_BYTES_MAX = 1 << 30           # an inbox; a month of a chatty vehicle, and no disk-filler
WINDOW_BYTES = 4 << 20              # credit a receiver grants, unless it asks for less
WINDOW_BYTES_MAX = 16 << 20         # the most credit the hub believes: what one peer may hold of it
DISK_RESERVE_BYTES = 64 << 20       # free disk below which sends are refused, so that acks still work
ANSWER_ROWS_MAX = 100               # rows in one answer (clients, subscriptions); ask on from the last

SEND, PUBLISH, BROADCAST = 1, 2, 3  # way: to a client's inbox, to a topic, to every client

# Every refusal has a code, and a sentence with the next step.
REFUSALS = {
    "unknown-client": "no client of that name that you may send to; check the name with the hub's operator",
    "forbidden": "your grants do not allow it; ask the hub's operator",
    "inbox-full": "the receiver's inbox holds all it may; send again when it has read some",
    "disk-full": "the hub's disk is nearly full; send again when its operator has made room",
    "bad-name": "that is no client's name: words of letters, digits, _ and - joined by dots, at most 64 bytes",
    "bad-topic": "that is no topic: words joined by dots, no wildcards or spaces, at most 255 bytes",
    "bad-pattern": "that is no pattern: words, * or # joined by dots, at most 255 bytes",
    "bad-grants": "those grants make no sense: patterns for send, publish and subscribe, at most 100 each",
    "bad-batch": "an empty batch, one of too many messages, or one that is numbered wrongly; mend the client",
    "batch-too-large": f"a batch holds at most {BATCH_BYTES_MAX} bytes and {BATCH_MESSAGES_MAX} messages; split it",
    "too-many": "you hold as many of these as one client may; give one back first",
    "not-subscribed": "you hold no such subscription; list them to see which you do",
    "name-taken": "a client or an invitation has that name; choose another, or revoke it first",
    "no-such-client": "no client or invitation has that name; list the clients to see which do",
    "key-known": "the hub knows that key already; make a new key pair",
    "hello-first": "say HELLO on this connection before anything else",
    "join-only": "an invitation's key may do nothing but JOIN; join, then use the client's own key",
    "not-invited": "only an invitation's key may JOIN; this client has joined already",
    "version": "this hub speaks another version of the protocol; bring client and hub to the same one",
    "garbled": "the hub could not read that; mend the client",
}

Check: TypeAlias = Callable[[Any], bool]


def _uint(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _text(bytes_max: int) -> Check:
    # A UTF-8 text's bytes are at least its characters: the cheap test first.
    return lambda v: type(v) is str and len(v) <= bytes_max and len(v.encode("utf-8", "replace")) <= bytes_max


def _bin(size: int) -> Check:
    return lambda v: type(v) is bytes and len(v) == size


def _blob(value: Any) -> bool:
    return type(value) is bytes


def _flag(value: Any) -> bool:
    return type(value) is bool


def _way(value: Any) -> bool:
    return type(value) is int and SEND <= value <= BROADCAST


def _map(value: Any) -> bool:
    return type(value) is dict


def _list(value: Any) -> bool:
    return type(value) is list


_address = _text(255)
_name = _text(64)
_code = _text(64)
_sentence = _text(1024)
_key = _bin(32)
_id8 = _bin(8)


# Client to hub -------------------------------------------------------------------------------
class Hello(NamedTuple):
    """Opens a session on this connection; the hub answers Welcome.

    session: 8 random bytes, the same over reconnects of one client object.
    outbox: 8 random bytes, naming the sender's numbering.
    settled: every batch number up to this one has been answered.
    keepalive_s: seconds; the client says something at least that often (a Ping, if nothing
        else), and the hub drops the connection after three times as long in silence.
    """

    version: int
    session: bytes
    outbox: bytes
    settled: int
    keepalive_s: int


class Join(NamedTuple):
    """Turns an invitation into a client; the one command an invitation's key may use.

    public_key: the new client's own, 32 bytes.
    """

    request: int
    public_key: bytes


class Send(NamedTuple):
    """One batch; its body frame is the packed messages. Answered by Accepted.

    number: 1, 2, 3 ... an outbox. settled: as in Hello. way: SEND, PUBLISH or BROADCAST.
    address: a client's name, a topic, or "" for a broadcast. messages: how many the batch has.
    """

    outbox: bytes
    number: int
    settled: int
    way: int
    address: str
    messages: int


class Receive(NamedTuple):
    """Takes this client's inbox to this connection, from behind `after` on.

    after: the highest inbox number this session already has, 0 for none.
    credit: bytes (envelopes and bodies) that Deliver may carry from here on.
    """

    after: int
    credit: int


class Credit(NamedTuple):
    """Raises what the hub may send, in bytes of envelopes and bodies.

    inbox: for Deliver, since the last Receive. live: for Live over this socket, since
    Welcome. missed: live messages this session has missed so far, for the operator's counters.
    """

    inbox: int
    live: int
    missed: int


class Ack(NamedTuple):
    """All inbox batches before `number` are done with, and `skip` messages of batch `number`."""

    number: int
    skip: int


class Release(NamedTuple):
    """Gives the inbox back; deliveries to this connection end."""


class Subscribe(NamedTuple):
    request: int
    pattern: str


class Unsubscribe(NamedTuple):
    request: int
    pattern: str


class Subscriptions(NamedTuple):
    """Asks for this client's patterns, ANSWER_ROWS_MAX at a time, those behind `after`."""

    request: int
    after: str


class Listen(NamedTuple):
    """Live messages from now on. pattern: a topic pattern, or "" for broadcasts."""

    request: int
    pattern: str


class Unlisten(NamedTuple):
    request: int
    pattern: str


class Ping(NamedTuple):
    """Answered by Pong, behind all that was said before it (and is then on disk)."""

    request: int


class Bye(NamedTuple):
    """The session ends. settled: as in Hello; when it covers all, the outbox is forgotten."""

    outbox: bytes
    settled: int


class Invite(NamedTuple):
    """Makes an invitation. grants: see auth/policy. lifetime_s: seconds until it expires."""

    request: int
    name: str
    grants: dict[str, Any]
    lifetime_s: int


class Register(NamedTuple):
    """Makes a client; the hub issues its key pair and answers with it, once."""

    request: int
    name: str
    grants: dict[str, Any]


class Clients(NamedTuple):
    """Asks for clients in the order of their names, those behind `after`."""

    request: int
    after: str


class Show(NamedTuple):
    request: int
    name: str


class Revoke(NamedTuple):
    request: int
    name: str


class Rotate(NamedTuple):
    """Issues a new key pair. now: cut the old key at once, else when the new one is first used."""

    request: int
    name: str
    now: bool


class Grant(NamedTuple):
    request: int
    name: str
    grants: dict[str, Any]


class Status(NamedTuple):
    """Asks for the hub's counters."""

    request: int


# Hub to client -------------------------------------------------------------------------------
class Welcome(NamedTuple):
    """The session is open.

    name: who the hub takes this key for. hub: its version. store: 8 bytes, a new store has
    new ones. live: endpoint of the live side, its host `*` for "the host you reached me at".
    address: HOST:PORT the hub wants to be called by, or "". time_ms: the hub's clock.
    limits: name to number. An Accepted follows when batches behind Hello's `settled` are decided.
    """

    name: str
    hub: str
    store: bytes
    live: str
    address: str
    time_ms: int
    limits: dict[str, Any]


class Accepted(NamedTuple):
    """Every batch up to `number` is settled: on disk, but for those in `refused`.

    refused: list of [number, code, sentence].
    """

    outbox: bytes
    number: int
    refused: list[Any]


class Resend(NamedTuple):
    """The hub has not seen batch `number`, though a later one came: send again from there."""

    outbox: bytes
    number: int


class Deliver(NamedTuple):
    """One batch of the inbox; its body frame is the packed messages.

    number: in this inbox. previous: the number delivered before it since the last Receive, or
    that Receive's `after`: when it is higher than what was seen, something was lost on the way.
    skip: messages at the batch's start that are acknowledged already.
    """

    number: int
    previous: int
    skip: int
    envelope: bytes


class Live(NamedTuple):
    """One live batch. stream: names the numbering, new when the hub forgot the old one.

    before: messages published in this stream (a topic's, or the broadcasts') before it.
    """

    stream: int
    before: int
    envelope: bytes


class Taken(NamedTuple):
    """Another connection of this client took the inbox; nothing more is delivered here."""


class Pong(NamedTuple):
    """delivered: 1 + the highest inbox number sent on this connection, 0 when the inbox is not
    delivered here. time_ms: the hub's clock."""

    request: int
    delivered: int
    time_ms: int


class Done(NamedTuple):
    request: int
    result: dict[str, Any]


class Denied(NamedTuple):
    """A request's refusal; request 0: about the connection itself."""

    request: int
    code: str
    sentence: str


Command: TypeAlias = NamedTuple

# One table: kind on the wire, type, a check for each field.
TABLE: dict[int, tuple[type, tuple[Check, ...]]] = {
    1: (Hello, (_uint, _id8, _id8, _uint, _uint)),
    2: (Join, (_uint, _key)),
    3: (Send, (_id8, _uint, _uint, _way, _address, _uint)),
    4: (Receive, (_uint, _uint)),
    5: (Credit, (_uint, _uint, _uint)),
    6: (Ack, (_uint, _uint)),
    7: (Release, ()),
    8: (Subscribe, (_uint, _address)),
    9: (Unsubscribe, (_uint, _address)),
    10: (Subscriptions, (_uint, _address)),
    11: (Listen, (_uint, _address)),
    12: (Unlisten, (_uint, _address)),
    13: (Ping, (_uint,)),
    14: (Bye, (_id8, _uint)),
    15: (Invite, (_uint, _name, _map, _uint)),
    16: (Register, (_uint, _name, _map)),
    17: (Clients, (_uint, _name)),
    18: (Show, (_uint, _name)),
    19: (Revoke, (_uint, _name)),
    20: (Rotate, (_uint, _name, _flag)),
    21: (Grant, (_uint, _name, _map)),
    22: (Status, (_uint,)),
    64: (Welcome, (_name, _code, _id8, _address, _address, _uint, _map)),
    65: (Accepted, (_id8, _uint, _list)),
    66: (Resend, (_id8, _uint)),
    67: (Deliver, (_uint, _uint, _uint, _blob)),
    68: (Live, (_uint, _uint, _blob)),
    69: (Taken, ()),
    70: (Pong, (_uint, _uint, _uint)),
    71: (Done, (_uint, _map)),
    72: (Denied, (_uint, _code, _sentence)),
}
KIND_OF: dict[type, int] = {command: kind for kind, (command, _) in TABLE.items()}
FROM_CLIENT = frozenset(command for kind, (command, _) in TABLE.items() if kind < 64)

def encode(command: Command) -> bytes:
    """The header frame of a command."""
    return bytes(msgpack.packb((KIND_OF[type(command)], *command)))


def decode(header: bytes | memoryview, bytes_max: int = HEADER_BYTES_MAX) -> Any:
    """The command of a header frame. Raises Garbled for whatever is not one.

    bytes_max: a hub's answer may be as long as a frame.
    """
    if len(header) > bytes_max:
        raise Garbled("garbled", f"a header of {len(header)} bytes is longer than {bytes_max}")
    try:
        fields = msgpack.unpackb(header)
    except Exception as error:  # msgpack raises more kinds than it names (OverflowError, for one)
        raise Garbled("garbled", "a header that is not msgpack") from error
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise Garbled("garbled", "a header that is not an array with a kind")
    row = TABLE.get(fields[0])
    if row is None:
        raise Garbled("garbled", f"no command has the kind {fields[0]}")
    command, checks = row
    if len(fields) <= len(checks):
        raise Garbled("garbled", f"{command.__name__} has {len(checks)} fields, not {len(fields) - 1}")
    index = 0
    for check in checks:
        index += 1
        if not check(fields[index]):
            raise Garbled("garbled", f"{command.__name__}.{command._fields[index - 1]} is malformed")  # type: ignore[attr-defined]
    return command._make(fields[1:index + 1])  # type: ignore[attr-defined]


class Envelope(NamedTuple):
    """What the hub stamps on a batch: nothing in it is the peer's own claim but the address.

    time_ms: the hub's wall clock at acceptance, milliseconds since 1970 UTC.
    """

    sender: str
    time_ms: int
    way: int
    address: str
    outbox: bytes
    number: int
    messages: int


_ENVELOPE_CHECKS: tuple[Check, ...] = (_name, _uint, _way, _address, _id8, _uint, _uint)


def pack_envelope(envelope: Envelope) -> bytes:
    return bytes(msgpack.packb(tuple(envelope)))


def unpack_envelope(data: bytes) -> Envelope:
    """Raises Garbled for what is not an envelope."""
    try:
        fields = msgpack.unpackb(data)
    except Exception as error:
        raise Garbled("garbled", "an envelope that is not msgpack") from error
    if type(fields) is not list or len(fields) < 7 or not all(
            check(field) for check, field in zip(_ENVELOPE_CHECKS, fields[:7], strict=True)):
        raise Garbled("garbled", "an envelope that is malformed")
    return Envelope._make(fields[:7])


Item: TypeAlias = bytes | tuple[bytes, dict[str, str]]


def pack_batch(items: Sequence[Item]) -> bytes:
    """The body frame of a batch: bodies, each alone or with its headers."""
    return bytes(msgpack.packb(items))


def unpack_batch(data: bytes | memoryview, count: int) -> list[Item]:
    """The items of a batch of `count` messages; as packed, or Garbled."""
    try:
        items = msgpack.unpackb(data, use_list=False, max_array_len=BATCH_MESSAGES_MAX)
    except Exception as error:
        raise Garbled("garbled", "a batch that is not msgpack") from error
    if type(items) is not tuple or len(items) != count:
        raise Garbled("garbled", "a batch without the messages it announces")
    if set(map(type, items)) <= {bytes}:               # as most are; the loop below takes three times as long
        return items  # type: ignore[return-value]
    for item in items:
        if type(item) is not bytes and not _is_item_with_headers(item):
            raise Garbled("garbled", "a batch with something that is no message")
    return items  # type: ignore[return-value]


def _is_item_with_headers(item: Any) -> bool:
    return (type(item) is tuple and len(item) == 2 and type(item[0]) is bytes and type(item[1]) is dict
            and all(type(k) is str and type(v) is str for k, v in item[1].items()))


def check_message(body: Any, headers: Any) -> int:
    """The packed size of one message, in bytes. Raises Misuse when it breaks a limit."""
    if type(body) is not bytes:
        raise Misuse("bad-body", f"a body is bytes, not {type(body).__name__}; encode it first")
    size = len(body)
    if size > BODY_BYTES_MAX:
        raise Misuse("body-too-large", f"a body holds at most {BODY_BYTES_MAX} bytes, not {size}; split it")
    if not headers:
        return size + 5
    if type(headers) is not dict or not all(type(k) is str and type(v) is str for k, v in headers.items()):
        raise Misuse("bad-headers", "headers map text to text; convert keys and values to str")
    try:
        packed = len(msgpack.packb(headers))
    except UnicodeEncodeError as error:
        raise Misuse("bad-headers", "headers hold text that is not valid Unicode; encode it first") from error
    if packed > HEADERS_BYTES_MAX:
        raise Misuse("headers-too-large",
                     f"headers hold at most {HEADERS_BYTES_MAX} bytes, not {packed}; put the rest into the body")
    return size + packed + 6
