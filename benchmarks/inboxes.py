"""Inboxes: durable subscribers of peers over bare connections, which acknowledge what they take.

NATS: a stream, and a durable consumer each, which pushes. Redis: a stream, and a consumer group
each. Mosquitto: a persistent session each, at QoS 1. RabbitMQ: a durable queue each, of one exchange.
"""

import asyncio
import re
import struct
from typing import Any

from . import bare
from .amqp import Amqp

READ = 200               # entries a read of Redis


class Nats(bare.Nats):
    """Acknowledges with the last message of what came together (ack policy "all")."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        return super().greeting(index, f"{topic}.to{index}" if topic else None)

    def take(self, index: int, data: bytes, arrival: int) -> tuple[int, bytes, bytes]:
        # MSG subject sid $JS.ACK.and.so.on size: its length varies, so its replies are counted. A line
        # that has not come whole is left for the next time.
        end = data.rfind(b"\r\n") + 2
        whole = data[:end] if end > 1 else b""
        count = whole.count(b" $JS.ACK.")
        if not count:
            return 0, b"", data[end:] if whole else data
        last = whole.rfind(b" $JS.ACK.") + 1
        return count, b"PUB " + whole[last:whole.index(b" ", last)] + b" 4\r\n+ACK\r\n", data[end:]


class Redis(bare.Redis):
    """Acknowledges a read's entries, and reads on."""

    def greeting(self, index: int, topic: str | None) -> bytes:
        if topic is None:
            self.ready = b"+PONG\r\n"
            return b"PING\r\n"
        self._topic, self.ready = topic.encode(), b"+OK\r\n"
        return self._command(b"XGROUP", b"CREATE", self._topic, b"g%d" % index, b"0", b"MKSTREAM")

    def begin(self, index: int) -> bytes:
        """A read; behind an XACK, whose answer is a number."""
        return self._command(b"XREADGROUP", b"GROUP", b"g%d" % index, b"me", b"COUNT", b"%d" % READ,
                             b"BLOCK", b"60000", b"STREAMS", self._topic, b">")

    def take(self, index: int, data: bytes, arrival: int) -> tuple[int, bytes, bytes]:
        head = re.match(rb"(?::\d+\r\n)?\*1\r\n\*2\r\n\$\d+\r\n[^\r]+\r\n\*(\d+)\r\n", data)
        ids = re.findall(rb"\r\n(\d+-\d+)\r\n\*2\r\n\$1\r\nb\r\n", data) if head else []
        # arrival: its body and the line end, of the last entry too
        if head is None or len(ids) < int(head[1]) or len(data) < data.rfind(ids[-1]) + len(ids[-1]) + arrival:
            return 0, b"", data
        return len(ids), self._command(b"XACK", self._topic, b"g%d" % index, *ids) + self.begin(index), b""

    def arrival_bytes(self, name: str, body: bytes) -> int:
        return len(b"\r\n*2\r\n$1\r\nb\r\n$%d\r\n" % len(body)) + len(body) + 2


class Mosquitto(bare.Mosquitto):
    """A PUBACK for each, as QoS 1 wants it."""

    is_inbox = True

    def take(self, index: int, data: bytes, arrival: int) -> tuple[int, bytes, bytes]:
        count, rest = divmod(len(data), arrival)
        at = 2 + (arrival > 129) + 2                     # behind its kind, its length (two bytes then), and its topic's
        at += struct.unpack(">H", data[at - 2:at])[0] if count else 0
        acks = b"".join(b"\x40\x02" + data[one + at:one + at + 2] for one in range(0, count * arrival, arrival))
        return count, acks, data[count * arrival:] if rest else b""

    def arrival_bytes(self, name: str, body: bytes) -> int:
        return len(self.request(0, name, body, 1))


PROTOCOLS: dict[str, Any] = {"nats": Nats, "redis": Redis, "mosquitto": Mosquitto, "rabbitmq": lambda: Amqp(True)}


# What a server has to have before anybody listens, by client libraries, since that isn't timed ---------------
def prepare(peer: str, port: int, name: str) -> None:
    """Before the subscribers connect."""
    if peer == "nats":
        asyncio.run(_stream(port, name))


def attach(swarm: bare.Swarm, peer: str, port: int, name: str) -> None:
    """Once they have: whatever makes the server send."""
    if peer == "nats":
        asyncio.run(_consumers(port, name, len(swarm)))
    elif peer == "redis":
        for index, sock in enumerate(swarm.sockets):
            sock.sendall(swarm.protocol.begin(index))


def clear(peer: str, port: int, name: str) -> None:
    """Behind a run: what would be in the next one's way."""
    if peer == "nats":
        asyncio.run(_no_stream(port, name))
    elif peer == "redis":
        from .peers import redis
        redis.connect(port).delete(name)


async def _stream(port: int, name: str) -> None:
    from .peers import nats
    client = await nats.connect(port)
    await nats.add_stream(client.jetstream(), name)
    await client.close()


async def _no_stream(port: int, name: str) -> None:
    from .peers import nats
    client = await nats.connect(port)
    await client.jetstream().delete_stream(name)
    await client.close()


async def _consumers(port: int, name: str, count: int) -> None:
    from .peers import nats
    client = await nats.connect(port)
    stream = client.jetstream(timeout=60)
    await asyncio.gather(*(stream.add_consumer(name, config=nats.consumer(), durable_name=f"c{index}",
                                               deliver_subject=f"{name}.to{index}") for index in range(count)))
    await client.close()
