"""Bare: many connections to a peer in one process, its bytes written by hand.

The same for peers as raw is for us: their client libraries would be what is measured. An
answer is only counted, a message only measured. See amqp for RabbitMQ's, and inboxes for durable ones.

    greeting(index, topic)             what opens a connection, and listens to the topic if there is one
    ready                              what the answer to that ends with
    request(index, name, body, number) a publish that is answered
    answers(index, data)               how many answers these bytes are, and the rest of them
    publish(name, body)                one that isn't
    farewell, goodbye                  what ends a connection that published those, and its answer
    arrival_bytes(name, body)          how long that message is on its way to a subscriber
    take(index, data, arrival)         how many messages these bytes are, what to answer, and the rest
"""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from .amqp import Amqp
from .processes import SILENCE_S


class Counted:
    """Messages that all have the same length, and no answer."""

    farewell = goodbye = b""         # sent at the end of a connection that published without answers; its answer

    def take(self, index: int, data: bytes, arrival: int) -> tuple[int, bytes, bytes]:
        count, rest = divmod(len(data), arrival)
        return count, b"", data[len(data) - rest:]


class Nats(Counted):
    """nats-server's text protocol. A request is a JetStream publish; its answer ends in `}`."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        options = json.dumps({"verbose": False, "pedantic": False})
        return (f"CONNECT {options}\r\nSUB {topic or f'_INBOX.{index}'} 1\r\nPING\r\n").encode()

    ready = b"PONG\r\n"

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return f"PUB {name} _INBOX.{index} {len(body)}\r\n".encode() + body + b"\r\n"

    def answers(self, index: int, data: bytes) -> tuple[int, bytes]:
        whole, end, rest = data.rpartition(b"}\r\n")
        if b'"error"' in whole:
            raise RuntimeError(f"refused: {whole[-200:]!r}")
        return (whole + end).count(b"}\r\n"), rest

    def publish(self, name: str, body: bytes) -> bytes:
        return f"PUB {name} {len(body)}\r\n".encode() + body + b"\r\n"

    def arrival_bytes(self, name: str, body: bytes) -> int:
        """What one message is on its way to a subscriber."""
        return len(f"MSG {name} 1 {len(body)}\r\n") + len(body) + 2


class Redis(Counted):
    """RESP. A request is an XADD."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        self.ready = b":1\r\n" if topic else b"+PONG\r\n"
        return self._command(b"SUBSCRIBE", topic.encode()) if topic else b"PING\r\n"

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return self._command(b"XADD", name.encode(), b"*", b"b", body)

    def answers(self, index: int, data: bytes) -> tuple[int, bytes]:
        lines = data.split(b"\r\n")                      # $15, then the entry's number
        if data.startswith(b"-"):
            raise RuntimeError(f"refused: {lines[0]!r}")
        count = (len(lines) - 1) // 2
        return count, b"\r\n".join(lines[2 * count:])

    def publish(self, name: str, body: bytes) -> bytes:
        return self._command(b"PUBLISH", name.encode(), body)

    def arrival_bytes(self, name: str, body: bytes) -> int:
        return len(self._command(b"message", name.encode(), body))

    def _command(self, *words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Mosquitto(Counted):
    """MQTT 3.1.1. A request is a PUBLISH at QoS 1; its answer is the four bytes of a PUBACK."""

    is_inbox = False

    def greeting(self, index: int, topic: str | None) -> bytes:
        ident = f"bench{time.monotonic_ns()}n{index}".encode()
        flags = b"\x00" if self.is_inbox and topic else b"\x02"            # 2: a clean session
        out = self._packet(0x10, b"\x00\x04MQTT\x04" + flags + b"\x00\x00" + self._text(ident))
        self.ready = b"\x90\x03\x00\x01" + bytes([self.is_inbox]) if topic else b"\x20\x02\x00\x00"
        qos = bytes([self.is_inbox])
        return out + self._packet(0x82, b"\x00\x01" + self._text(topic.encode()) + qos) if topic else out

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return self._packet(0x32, self._text(name.encode()) + struct.pack(">H", number % 65535 + 1) + body)

    def answers(self, index: int, data: bytes) -> tuple[int, bytes]:
        return len(data) // 4, data[len(data) // 4 * 4:]

    def publish(self, name: str, body: bytes) -> bytes:
        return self._packet(0x30, self._text(name.encode()) + body)

    def arrival_bytes(self, name: str, body: bytes) -> int:
        return len(self.publish(name, body))

    def _text(self, text: bytes) -> bytes:
        return struct.pack(">H", len(text)) + text

    def _packet(self, kind: int, rest: bytes) -> bytes:
        size, length = b"", len(rest)
        while True:
            length, low = divmod(length, 128)
            size += bytes([low | (0x80 if length else 0)])
            if not length:
                return bytes([kind]) + size + rest


PROTOCOLS: dict[str, Any] = {"nats": Nats, "redis": Redis, "mosquitto": Mosquitto, "rabbitmq": Amqp}


class Swarm:
    """Connections to a server that speaks that protocol. topic: what they subscribe to, if they listen."""

    def __init__(self, protocol: Any, port: int, count: int, topic: str | None = None) -> None:
        self.protocol = protocol
        self._epoll = select.epoll()
        self.sockets: list[socket.socket] = []
        self._index_of: dict[int, int] = {}
        self._unread = [b""] * count
        self.sent = [0] * count
        self.settled = [0] * count
        for index in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(protocol.greeting(index, topic))
            data = b""
            while not data.endswith(protocol.ready):
                more = sock.recv(4096)
                if not more:
                    raise ConnectionError(f"the server closed it: {data[-200:]!r}")
                data += more
            self.sockets.append(sock)
            self._index_of[sock.fileno()] = index
            self._epoll.register(sock, select.EPOLLIN)

    def __len__(self) -> int:
        return len(self.sockets)

    @property
    def unanswered(self) -> int:
        return sum(self.sent) - sum(self.settled)

    def send(self, index: int, name: str, body: bytes) -> None:
        """One lone message of that client."""
        self.sent[index] += 1
        self.sockets[index].sendall(self.protocol.request(index, name, body, self.sent[index]))

    def answers(self, wait_s: float) -> Iterator[tuple[int, int]]:
        """(client's index, how many of its messages are answered)."""
        for fd, _ in self._epoll.poll(wait_s):
            index = self._index_of[fd]
            count, self._unread[index] = self.protocol.answers(index, self._unread[index] + self._read(index))
            if count:
                self.settled[index] += count
                yield index, self.settled[index]

    def hear(self, arrival: int) -> Iterator[int]:
        """How many messages of so many bytes came, piece by piece, until none came for a while."""
        while events := self._epoll.poll(SILENCE_S):
            for fd, _ in events:
                index = self._index_of[fd]
                count, reply, self._unread[index] = self.protocol.take(
                    index, self._unread[index] + self._read(index), arrival)
                if reply:
                    self.sockets[index].sendall(reply)
                if count:
                    yield count

    def _read(self, index: int) -> bytes:
        data = self.sockets[index].recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed it")
        return data

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
