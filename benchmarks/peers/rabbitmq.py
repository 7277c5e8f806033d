"""RabbitMQ: rabbitmq-server, driven by pika's asynchronous connection, and by aio-pika. No TLS.

Durable: a durable queue and persistent messages, with publisher confirms answered in bulk (as
its documents advise), and without confirms. The receiver prefetches, and acknowledges many at
once; pika's blocking one was faster here than its asynchronous one. Live: a topic exchange to an
exclusive queue without acknowledgements. A quorum queue, which its documents prefer for what must
not be lost, and aio-pika, which was a third as fast, are measured once.
"""

import asyncio
import importlib.util
import itertools
import os
import time
from collections import deque
from pathlib import Path

from ..plans import left_s, stamp_s
from ..servers import Server, free_port
from . import DURABLE, LIVE, Running, Way, timed

TITLE = "RabbitMQ"
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")      # what Debian's wrapper starts, as another user
PREFETCH = 500           # 2,000, here and below, was slower, if anything
ACK_EVERY = 200
UNCONFIRMED_MAX = 500
GATHERED = 500           # publishes that aio-pika awaits together
BURST = 100              # published between two looks at what has come
CONFIG = """
listeners.tcp.default = 127.0.0.1:{port}
disk_free_limit.absolute = 50MB
log.console = false
log.file.level = error
"""


def persistent():
    import pika
    return pika.BasicProperties(delivery_mode=2)


def connect(port):
    import pika
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, heartbeat=0))


class Publisher:
    """Publishes a plan over pika's SelectConnection, with so many unconfirmed at most.

    took_s: seconds from a step's stamp to its last confirm; of each step that has stamps.
    """

    def __init__(self, port, exchange, key, properties, confirms, plan, start):
        import pika
        self.exchange, self.key, self.properties, self.confirms, self.start = exchange, key, properties, confirms, start
        self.plan, self.bodies, self.sent, self.confirmed, self.is_waiting = iter(plan), iter(()), 0, 0, False
        self.took_s, self.steps, self.is_stamped = [], deque(), False
        self.connection = pika.SelectConnection(
            pika.ConnectionParameters("127.0.0.1", port, heartbeat=0),
            on_open_callback=lambda c: c.channel(on_open_callback=self.opened),
            on_close_callback=lambda c, _: c.ioloop.stop())

    def opened(self, channel):
        self.channel = channel
        if self.confirms:
            channel.confirm_delivery(self.answered, callback=lambda _: self.begin())
        else:
            self.begin()

    def begin(self):
        self.start()
        self.go()

    def answered(self, frame):
        self.confirmed = max(self.confirmed, frame.method.delivery_tag)
        while self.steps and self.steps[0][0] <= self.confirmed:
            self.took_s.append(time.monotonic() - self.steps.popleft()[1])
        if self.is_waiting and self.sent - self.confirmed < UNCONFIRMED_MAX // 2:
            self.is_waiting = False
            self.go()

    def go(self):
        """A burst, then a turn for the connection."""
        for _ in range(BURST):
            body = next(self.bodies, None)
            if body is None:
                if self.is_stamped and self.sent:
                    self.steps.append((self.sent, stamp_s(self.last)))
                due_s, bodies = next(self.plan, (0.0, None))
                if bodies is None:
                    self.end()
                    return
                self.bodies, self.is_stamped = iter(bodies), due_s > 0
                if due_s:
                    self.connection.ioloop.call_later(left_s(due_s), self.go)
                    return
                continue
            self.channel.basic_publish(self.exchange, self.key, body, self.properties)
            self.sent, self.last = self.sent + 1, body
            if self.confirms and self.sent - self.confirmed >= UNCONFIRMED_MAX:
                self.is_waiting = True
                return
        # Without confirms nothing else holds it back, and pika would pile it all up in memory.
        while not self.confirms and self.connection._transport.get_write_buffer_size() > 4 << 20:
            self.connection.ioloop.call_later(0.0005, self.go)
            return
        self.connection.ioloop.add_callback_threadsafe(self.go)

    def end(self):
        if self.confirms and self.confirmed < self.sent:
            self.connection.ioloop.call_later(0.001, self.end)
        else:
            self.connection.close()          # a handshake: behind it, all has reached the broker


class Live(Way):
    peer, title, work = "rabbitmq", "RabbitMQ, transient, pika", LIVE
    is_durable = confirms = False
    arguments: dict[str, str] | None = None          # of its queue

    def send(self, door, name, plan, start):
        exchange, properties = ("", persistent()) if self.is_durable else ("amq.topic", None)
        Publisher(door, exchange, name, properties, self.confirms, plan, start).connection.ioloop.start()

    def receive(self, door, name, heard, start):
        connection = connect(door)
        channel = connection.channel()
        channel.queue_declare(name, durable=self.is_durable, exclusive=not self.is_durable,
                              arguments=self.arguments)
        if not self.is_durable:
            channel.queue_bind(name, "amq.topic", name)
        channel.basic_qos(prefetch_count=PREFETCH)
        self.consume(channel, name, heard, start)
        channel.queue_delete(name)
        connection.close()

    def consume(self, channel, name, heard, start):
        """Until heard() has all."""
        def on_message(channel, method, _properties, body):
            last = heard(body)
            if self.is_durable and (last or method.delivery_tag % ACK_EVERY == 0):
                channel.basic_ack(method.delivery_tag, multiple=True)
            if last:
                channel.stop_consuming()
        channel.basic_consume(name, on_message, auto_ack=not self.is_durable)
        start()
        channel.start_consuming()


class Durable(Live):
    title, work, is_durable = "RabbitMQ, persistent, no confirms, pika", DURABLE, True


class Confirmed(Durable):
    title, confirms = "RabbitMQ, persistent, confirms, pika", True
    promise = "on disk, or acknowledged by its receiver"

    def lone(self, door, name, bodies, start):
        connection = connect(door)
        channel = connection.channel()
        channel.queue_declare(name, durable=True)
        channel.confirm_delivery()
        start()
        properties = persistent()
        took_s = timed(lambda body: channel.basic_publish("", name, body, properties), bodies)
        channel.queue_delete(name)
        return took_s

    def receipts(self, door, name, plan, start):
        publisher = Publisher(door, "", name, persistent(), True, plan, start)
        publisher.connection.ioloop.start()
        return publisher.took_s


class ConfirmedQuorum(Confirmed):
    title, is_second = "RabbitMQ, quorum queue, confirms, pika", True
    arguments = {"x-queue-type": "quorum"}
    promise = "synced to disk"


class ConfirmedAio(Way):
    peer, title, work = "rabbitmq", "RabbitMQ, persistent, confirms, aio-pika", DURABLE
    promise, is_second = Confirmed.promise, True

    def send(self, door, name, plan, start):
        asyncio.run(self._send(door, name, plan, start))

    async def _send(self, door, name, plan, start):
        import aio_pika
        connection = await aio_pika.connect(url(door))
        exchange = (await connection.channel(publisher_confirms=True)).default_exchange
        start()
        for due_s, bodies in plan:
            if due_s:
                await asyncio.sleep(left_s(due_s))
            bodies = iter(bodies)
            while some := list(itertools.islice(bodies, GATHERED)):
                await asyncio.gather(*(exchange.publish(aio_pika.Message(
                    body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), name) for body in some))
        await connection.close()

    def receive(self, door, name, heard, start):
        asyncio.run(self._receive(door, name, heard, start))

    async def _receive(self, door, name, heard, start):
        import aio_pika
        connection = await aio_pika.connect(url(door))
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue, done = await channel.declare_queue(name, durable=True), asyncio.Event()

        async def on_message(message):
            last = heard(message.body)
            if last or message.delivery_tag % ACK_EVERY == 0:
                await message.ack(multiple=True)
            if last:
                done.set()
        tag = await queue.consume(on_message)
        start()
        await done.wait()
        await queue.cancel(tag)
        await queue.delete(if_unused=False, if_empty=False)
        await connection.close()


WAYS: list[Way] = [Live(), Durable(), Confirmed(), ConfirmedQuorum(), ConfirmedAio()]


def url(port):
    return f"amqp://guest:guest@127.0.0.1:{port}/"


def missing(way: Way) -> str:
    if not PROGRAM.exists():
        return "apt-get install rabbitmq-server"
    package = "aio-pika" if type(way) is ConfirmedAio else "pika"
    return "" if importlib.util.find_spec(package.replace("-", "_")) else f"pip install {package}"


def serve(kind: str, folder: Path) -> Running:
    port, dist, epmd = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(CONFIG.format(port=port))
    (folder / "plugins").write_text("[].\n")
    env = {
        "HOME": str(folder), "ERL_EPMD_PORT": str(epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"bench{os.getpid()}@localhost", "RABBITMQ_DIST_PORT": str(dist),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"), "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"), "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
    }
    # Its port mapper would stay behind as a daemon; ours is a child, and goes with us.
    mapper = Server(_made(folder / "epmd"), epmd, ["epmd", "-port", str(epmd), "-address", "127.0.0.1"]).wait_for_port()
    try:
        server = Server(folder, port, [str(PROGRAM)], env).wait_for_port(b"AMQP\0\0\x09\x01", b"\x01")
    except BaseException:
        mapper.stop()
        raise

    def stop() -> None:
        server.stop()
        mapper.stop()
    return Running(port, server.pid, stop)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
