"""Messages: send, publish and broadcast."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from ..errors import Misuse, Refused, Silence, Unreachable
from ..protocol import BODY_BYTES_MAX
from . import profiles
from .values import Header

if TYPE_CHECKING:
    from ..client.sync import Client, Receipt

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Put = Callable[[bytes], "Receipt"]

# What may be on its way to the hub while lines are read: enough for a fast link, and less than the
# client's outbox holds, so that our timeout, not the outbox, ends a wait for a hub that is gone.
UNDER_WAY_BYTES = 32 << 20
UNDER_WAY_BATCHES = 256


def _sending_options(command: Decorated) -> Decorated:
    for decorate in (
        click.option("-v", "--verbose", is_flag=True, help="Print how many messages were accepted."),
        click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS",
                     help="How long to wait for the hub to accept a message."),
        click.option("-H", "--header", "headers", type=Header(), multiple=True,
                     help="A header of the message; may be repeated."),
        click.option("-l", "--lines", is_flag=True, help="Send stdin line by line, each a message of its own."),
        click.argument("body", required=False, type=click.UNPROCESSED, metavar="[BODY]"),
    ):
        command = decorate(command)
    return command


@click.command()
@click.argument("to")
@_sending_options
@click.pass_context
def send(ctx: click.Context, /, to: str, **options: Any) -> None:
    """Send a message to the inbox of the client called TO.

    BODY is the message; without one, or if it is -, all of stdin is. It returns
    when the hub has the message on disk; a refusal is exit code 4.

    \b
      zb send noc-c2 'surface at 12:00'
      zb send noc-c2 -H content-type=application/gzip < log.gz
      tail -f nmea.log | zb send noc-c2 -l
      zb send noc-c2 -- --a-body-that-begins-with-a-dash
    """
    _accept(ctx, lambda me, headers: lambda body: me.send(to, body, headers), **options)


@click.command()
@click.argument("topic")
@_sending_options
@click.pass_context
def publish(ctx: click.Context, /, topic: str, **options: Any) -> None:
    """Publish a message to TOPIC.

    It goes to the inboxes of all who subscribed to it, and to all who listen.

    BODY is the message; without one, or if it is -, all of stdin is. It returns
    when the hub has the message on disk; a refusal is exit code 4.

    \b
      zb publish soar.noc.slocum.position '57.1N 3.2E'
      gpspipe -r | zb publish ship.gps -l
    """
    _accept(ctx, lambda me, headers: lambda body: me.publish(topic, body, headers), **options)


@click.command()
@_sending_options
@click.pass_context
def broadcast(ctx: click.Context, /, **options: Any) -> None:
    """Send a message to the inbox of every other client.

    BODY is the message; without one, or if it is -, all of stdin is. It returns
    when the hub has the message on disk; a refusal is exit code 4.

    \b
      zb broadcast 'the hub moves at 18:00 UTC'
    """
    _accept(ctx, lambda me, headers: lambda body: me.broadcast(body, headers), **options)


def _accept(ctx: click.Context, way: "Callable[[Client, dict[str, str]], Put]", *, body: str | None, lines: bool,
            headers: tuple[tuple[str, str], ...], timeout: float, verbose: bool) -> None:
    if lines and body not in (None, "-"):
        raise click.UsageError("give either a BODY or -l, which reads stdin", ctx)
    log = logging.getLogger("zbackbone")
    if not log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.ERROR)      # the library warns of refusals, and we tell of them
    with profiles.client(ctx, connect_s=None) as me:
        transfer = Transfer(way(me, dict(headers)), timeout)
        try:
            transfer.run(_lines(_stdin()) if lines else [_whole(body)])
        except Silence as error:
            if isinstance(error, Unreachable):
                raise
            # The library says that nothing is done twice; a new command's outbox is another one.
            raise Silence("unknown", "the hub has not answered in time: it may have the message or not;"
                                     " sent again, it may come twice") from None
        finally:
            if verbose:
                click.echo(f"accepted {transfer.accepted}")


class Transfer:
    """Puts messages in and waits for their receipts, many on their way at once. accepted: messages so far."""

    def __init__(self, put: Put, timeout_s: float) -> None:
        self.accepted = 0
        self._put = put
        self._timeout_s = timeout_s
        self._under_way: deque[Batch] = deque()
        self._bytes = 0

    def run(self, bodies: Iterable[bytes]) -> None:
        """Returns when all are accepted. After a refusal no more are read, and those on their way waited for.

        Raises the first trouble there was; Silence when nothing is accepted for as long as the timeout.
        """
        trouble: BaseException | None = None
        try:
            self._put_all(bodies)
        except Silence:
            raise
        except (Misuse, Refused, KeyboardInterrupt, OSError) as error:
            trouble = error
        while self._under_way:
            try:
                self._settle()
            except Refused as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def _put_all(self, bodies: Iterable[bytes]) -> None:
        batch = None
        for number, body in enumerate(bodies, 1):
            try:
                receipt = self._put(body)
            except Misuse as error:
                raise Misuse(error.code, f"message {number}: {error.text}" if number > 1 else error.text) from None
            if batch is None or batch.receipt is not receipt:
                while self._under_way and (self._under_way[0].receipt.done or self._bytes > UNDER_WAY_BYTES
                                           or len(self._under_way) > UNDER_WAY_BATCHES):
                    self._settle()
                batch = Batch(receipt)
                self._under_way.append(batch)
            batch.messages += 1
            batch.size += len(body)
            self._bytes += len(body)

    def _settle(self) -> None:
        """Waits for the oldest batch. Raises Refused, when it was, and Silence."""
        batch, refused = self._under_way[0], None
        try:
            batch.receipt.wait(self._timeout_s)
        except Refused as error:
            refused = error
        self._under_way.popleft()
        self._bytes -= batch.size
        if refused is not None:
            raise refused
        self.accepted += batch.messages


class Batch:
    """Messages that have one receipt. size: bytes of their bodies."""

    __slots__ = ("receipt", "messages", "size")

    def __init__(self, receipt: "Receipt") -> None:
        self.receipt = receipt
        self.messages = self.size = 0


def _whole(body: str | None) -> bytes:
    if body is None or body == "-":
        return _stdin().read(BODY_BYTES_MAX + 1)      # one more than may be, for the library to refuse it
    # An argument's bytes that are not UTF-8 come as surrogates.
    return body.encode("utf-8", "surrogateescape")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Its lines, without their newlines, as they come."""
    while line := file.readline(BODY_BYTES_MAX + 2):
        yield line.removesuffix(b"\n")


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise Misuse("no-stdin", "there is no standard input to read; give a BODY")
    return sys.stdin.buffer
