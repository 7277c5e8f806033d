"""AMQP 0-9-1, as much of it as a benchmark needs, its bytes written by hand: what `bare` asks of a protocol.

Everything is on channel 1. A greeting is all that opens a connection, sent at once, without
waiting for the server's part in between; RabbitMQ takes that.
"""

import struct

FRAME_MAX = 131072
METHOD, HEADER, BODY, END = 1, 2, 3, b"\xce"
ACKED = struct.pack(">HH", 60, 80)               # Basic.Ack
PREFETCH = 2000
ACK_BYTES = 7 + 4 + 8 + 1 + 1
PERSISTENT = b"\x02"


def method(class_id: int, method_id: int, arguments: bytes, channel: int = 1) -> bytes:
    return frame(METHOD, struct.pack(">HH", class_id, method_id) + arguments, channel)


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + END


def short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Amqp:
    """is_inbox: through durable queues, with persistent messages and acknowledgements. exchange: where
    to publish; to "" the name is a queue's."""

    def __init__(self, is_inbox: bool = False, exchange: str = "amq.topic") -> None:
        self._is_inbox, self._exchange = is_inbox, exchange
        self._ready = b""
        self._confirmed: dict[int, int] = {}             # up to which, by connection
        self._single: dict[int, set[int]] = {}           # and which beyond
        self._taken: dict[int, int] = {}

    @property
    def ready(self) -> bytes:
        return self._ready

    def greeting(self, index: int, topic: str | None) -> bytes:
        queue = f"{topic}q{index}"
        out = [
            b"AMQP\x00\x00\x09\x01",
            method(10, 11, struct.pack(">I", 0) + short("PLAIN") + long(b"\0guest\0guest") + short("en_US"), 0),
            method(10, 31, struct.pack(">HIH", 1, FRAME_MAX, 0), 0),                     # Tune-Ok: no heartbeat
            method(10, 40, short("/") + short("") + b"\0", 0),                           # Connection.Open
            method(20, 10, short("")),                                                   # Channel.Open
        ]
        if topic is None and self._is_inbox:
            out.append(method(85, 10, b"\0"))                                            # Confirm.Select
            self._ready = struct.pack(">HH", 85, 11) + END
        elif topic is None:
            self._ready = struct.pack(">HHI", 20, 11, 0) + END                           # Channel.Open-Ok
        else:
            # durable 2, exclusive 4, auto-delete 8: an inbox's queue goes with its consumer, when all is over
            flags = 2 | 8 if self._is_inbox else 4 | 8
            out += [
                method(50, 10, b"\0\0" + short(queue) + bytes([flags]) + struct.pack(">I", 0)),
                method(50, 20, b"\0\0" + short(queue) + short("amq.topic") + short(topic) + b"\0"
                       + struct.pack(">I", 0)),                                          # Queue.Bind
                method(60, 10, struct.pack(">IHB", 0, PREFETCH, 0)),                     # Basic.Qos
                method(60, 20, b"\0\0" + short(queue) + short("c") + (b"\0" if self._is_inbox else b"\2")
                       + struct.pack(">I", 0)),                                          # Basic.Consume; 2: no acks
            ]
            self._ready = struct.pack(">HH", 60, 21) + short("c") + END
        return b"".join(out)

    # A connection that just ends takes along what its channel had not routed.
    farewell = method(20, 40, struct.pack(">H", 200) + short("") + bytes(4))            # Channel.Close
    goodbye = struct.pack(">HH", 20, 41) + END                                          # Close-Ok

    def publish(self, name: str, body: bytes) -> bytes:
        return self._content(method(60, 40, b"\0\0" + short(self._exchange) + short(name) + b"\0"), body)

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return self.publish(name, body)

    def _content(self, first: bytes, body: bytes) -> bytes:
        flags, properties = (1 << 12, PERSISTENT) if self._is_inbox else (0, b"")
        header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
        return first + frame(HEADER, header) + b"".join(
            frame(BODY, body[at:at + FRAME_MAX - 8]) for at in range(0, len(body), FRAME_MAX - 8))

    def arrival_bytes(self, name: str, body: bytes) -> int:
        deliver = method(60, 60, short("c") + bytes(9) + short("amq.topic") + short(name))
        return len(self._content(deliver, body))

    def answers(self, index: int, data: bytes) -> tuple[int, bytes]:
        """How many more are confirmed, and the rest of the bytes."""
        up_to, single = self._confirmed.get(index, 0), self._single.setdefault(index, set())
        before = up_to + len(single)
        whole = len(data) // ACK_BYTES * ACK_BYTES
        for at in range(0, whole, ACK_BYTES):
            if data[at + 7:at + 11] != ACKED:
                raise RuntimeError(f"not a confirm: {data[at:at + 60]!r}")
            tag, is_multiple = struct.unpack(">QB", data[at + 11:at + 20])
            if is_multiple:
                up_to = max(up_to, tag)
                single.difference_update([one for one in single if one <= up_to])
            elif tag > up_to:
                single.add(tag)
        while up_to + 1 in single:
            up_to += 1
            single.remove(up_to)
        self._confirmed[index] = up_to
        return up_to + len(single) - before, data[whole:]

    def take(self, index: int, data: bytes, arrival: int) -> tuple[int, bytes, bytes]:
        """How many whole messages of so many bytes came, what to answer, and the rest of the bytes."""
        count, rest = divmod(len(data), arrival)
        if not count:
            return 0, b"", data
        self._taken[index] = self._taken.get(index, 0) + count
        reply = method(60, 80, struct.pack(">QB", self._taken[index], 1)) if self._is_inbox else b""
        return count, reply, data[len(data) - rest:]
