"""Bare: many connections to a peer in one process, its bytes written by hand.

The same for peers as raw is for us: their client libraries would be what is measured. An
answer is only counted, a message only measured, nothing is parsed.
"""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator

from .processes import SILENCE_S


class Nats:
    """nats-server's text protocol. A request is a JetStream publish; its answer ends in `}`."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        options = json.dumps({"verbose": False, "pedantic": False})
        return (f"CONNECT {options}\r\nSUB {topic or f'_INBOX.{index}'} 1\r\nPING\r\n").encode()

    ready = b"PONG\r\n"

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return f"PUB {name} _INBOX.{index} {len(body)}\r\n".encode() + body + b"\r\n"

    def answers(self, data: bytes) -> int:
        return data.count(b"}\r\n")

    def publish(self, name: str, body: bytes) -> bytes:
        return f"PUB {name} {len(body)}\r\n".encode() + body + b"\r\n"

    def arrival_bytes(self, name: str, body: bytes) -> int:
        """What one message is on its way to a subscriber."""
        return len(f"MSG {name} 1 {len(body)}\r\n") + len(body) + 2


class Redis:
    """RESP. A request is an XADD."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        return self._command(b"SUBSCRIBE", topic.encode()) if topic else b"PING\r\n"

    ready = b"\r\n"

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return self._command(b"XADD", name.encode(), b"*", b"b", body)

    def answers(self, data: bytes) -> int:
        return data.count(b"\r\n") // 2                  # $15, then the entry's number

    def publish(self, name: str, body: bytes) -> bytes:
        return self._command(b"PUBLISH", name.encode(), body)

    def arrival_bytes(self, name: str, body: bytes) -> int:
        return len(self._command(b"message", name.encode(), body))

    def _command(self, *words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Mosquitto:
    """MQTT 3.1.1. A request is a PUBLISH at QoS 1; its answer is the four bytes of a PUBACK."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        ident = f"bench{time.monotonic_ns()}n{index}".encode()
        connect = b"\x00\x04MQTT\x04\x02\x00\x00" + self._text(ident)
        out = self._packet(0x10, connect)
        return out + self._packet(0x82, b"\x00\x01" + self._text(topic.encode()) + b"\x00") if topic else out

    ready = b"\x20\x02\x00\x00"

    def request(self, index: int, name: str, body: bytes, number: int) -> bytes:
        return self._packet(0x32, self._text(name.encode()) + struct.pack(">H", number % 65535 + 1) + body)

    def answers(self, data: bytes) -> int:
        return len(data) // 4

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


PROTOCOLS = {"nats": Nats, "redis": Redis, "mosquitto": Mosquitto}


class Swarm:
    """Connections to a server of that peer. topic: what they subscribe to, if they listen."""

    def __init__(self, peer: str, port: int, count: int, topic: str | None = None) -> None:
        self.protocol = PROTOCOLS[peer]()
        self._epoll = select.epoll()
        self._sockets: list[socket.socket] = []
        self._index_of: dict[int, int] = {}
        self._unread = [b""] * count
        self.sent = [0] * count
        self.settled = [0] * count
        for index in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(self.protocol.greeting(index, topic))
            data = b""
            while self.protocol.ready not in data:
                data += sock.recv(4096)
            self._sockets.append(sock)
            self._index_of[sock.fileno()] = index
        time.sleep(0.2)                                  # what else a greeting brings
        for sock in self._sockets:
            sock.setblocking(False)
            try:
                sock.recv(65536)
            except BlockingIOError:
                pass
            self._epoll.register(sock, select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._sockets)

    def send(self, index: int, name: str, body: bytes) -> None:
        """One lone message of that client."""
        self.sent[index] += 1
        self._sockets[index].sendall(self.protocol.request(index, name, body, self.sent[index]))

    def answers(self, wait_s: float) -> Iterator[tuple[int, int]]:
        """(client's index, how many of its messages are answered)."""
        for fd, _ in self._epoll.poll(wait_s):
            index = self._index_of[fd]
            data = self._unread[index] + self._sockets[index].recv(65536)
            count = self.protocol.answers(data)
            # An answer in two pieces is kept; whole ones leave nothing behind.
            self._unread[index] = b"" if count else data
            if count:
                self.settled[index] += count
                yield index, self.settled[index]

    def hear(self, message_bytes: int) -> Iterator[int]:
        """How many messages came, piece by piece, until none came for a while."""
        buffer, rest = bytearray(1 << 20), dict.fromkeys(self._index_of, 0)
        while events := self._epoll.poll(SILENCE_S):
            for fd, _ in events:
                got = rest[fd] + self._sockets[self._index_of[fd]].recv_into(buffer)
                count, rest[fd] = divmod(got, message_bytes)
                yield count

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
