"""RabbitMQ: rabbitmq-server, driven by pika's asynchronous connection. No TLS.

Durable: a durable queue and persistent messages, with publisher confirms answered in bulk (as
its documents advise), and without confirms. The receiver prefetches, and acknowledges many at
once. Live: a topic exchange to an exclusive queue without acknowledgements.
"""

import importlib.util
import os
from pathlib import Path

from ..plans import left_s
from ..servers import Server, free_port
from . import DURABLE, LIVE, Running, Way, timed

TITLE = "RabbitMQ"
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")      # what Debian's wrapper starts, as another user
PREFETCH = 2000
ACK_EVERY = 200
UNCONFIRMED_MAX = 2000
BURST = 200              # published between two looks at what has come
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
    """Publishes a plan over pika's SelectConnection, with so many unconfirmed at most."""

    def __init__(self, port, exchange, key, properties, confirms, plan, start):
        import pika
        self.exchange, self.key, self.properties, self.confirms, self.start = exchange, key, properties, confirms, start
        self.plan, self.bodies, self.sent, self.confirmed, self.is_waiting = iter(plan), iter(()), 0, 0, False
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
        if self.is_waiting and self.sent - self.confirmed < UNCONFIRMED_MAX // 2:
            self.is_waiting = False
            self.go()

    def go(self):
        """A burst, then a turn for the connection."""
        for _ in range(BURST):
            body = next(self.bodies, None)
            if body is None:
                due_s, bodies = next(self.plan, (0.0, None))
                if bodies is None:
                    self.end()
                    return
                self.bodies = iter(bodies)
                if due_s:
                    self.connection.ioloop.call_later(left_s(due_s), self.go)
                    return
                continue
            self.channel.basic_publish(self.exchange, self.key, body, self.properties)
            self.sent += 1
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

    def send(self, door, name, plan, start):
        exchange, properties = ("", persistent()) if self.is_durable else ("amq.topic", None)
        Publisher(door, exchange, name, properties, self.confirms, plan, start).connection.ioloop.start()

    def receive(self, door, name, heard, start):
        connection = connect(door)
        channel = connection.channel()
        channel.queue_declare(name, durable=self.is_durable, exclusive=not self.is_durable)
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


WAYS: list[Way] = [Live(), Durable(), Confirmed()]


def missing(way: Way) -> str:
    if not PROGRAM.exists():
        return "apt-get install rabbitmq-server"
    return "" if importlib.util.find_spec("pika") else "pip install pika"


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
