"""Reading: receive, listen, and the subscriptions that fill an inbox."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import Silence
from . import profiles
from .arrivals import Arrivals
from .output import Printer, as_json, as_line
from .running import forget_stdout, say

if TYPE_CHECKING:
    from ..client.message import Message
    from ..client.sync import Client

ACKS_S = 10.0      # for the hub to have our last acknowledgements on disk
AHEAD = 64         # messages fetched while others are printed; of the largest, 64 MiB

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Source = Callable[["Client"], "Iterator[Message]"]


def _reading_options(command: Decorated) -> Decorated:
    for option in (
        click.option("--json", "is_json", is_flag=True,
                     help="One JSON object a line: id, sender, to or topic, time, headers, body, base64."),
        click.option("-w", "--wait", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help="End after so long without one."),
        click.option("-n", "--count", type=click.IntRange(min=1), metavar="COUNT", help="End after so many messages."),
    ):
        command = option(command)
    return command


@click.command()
@_reading_options
@click.option("--no-ack", is_flag=True, help="Leave the messages in the inbox.")
@click.pass_context
def receive(ctx: click.Context, count: int | None, wait: float | None, is_json: bool, no_ack: bool) -> None:
    """Print the messages of this client's inbox.

    Each body and a newline. What was printed is acknowledged, and gone from the
    inbox; nothing else is. It goes on until Ctrl-C, COUNT messages, or SECONDS
    without one. Where COUNT was given and fewer came, the exit code is 5.

    \b
      zb receive                   all that is there and comes, until Ctrl-C
      zb receive -w 1              what is there, then end
      zb receive -n 1 -w 30        one message, or exit code 5 after 30 s
      zb receive --json | jq -r .sender
    """
    _print_all(ctx, lambda me: me.receive(timeout=wait), Printer(as_json if is_json else as_line, not no_ack), count)


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--broadcasts", is_flag=True, help="Broadcasts too, their live copies.")
@_reading_options
@click.pass_context
def listen(ctx: click.Context, patterns: tuple[str, ...], broadcasts: bool, count: int | None, wait: float | None,
           is_json: bool) -> None:
    """Print live messages from now on.

    Each body and a newline. Live is fastest, at most once, and nothing is stored:
    what comes while you don't listen, or can't keep up, is missed, and stderr tells
    how many were. In a PATTERN, * is one word and # any number of them. It ends
    like `zb receive`.

    \b
      zb listen 'soar.noc.#'
      zb listen '#' --broadcasts --json
    """
    if not (patterns or broadcasts):
        raise click.UsageError("name a PATTERN, or say --broadcasts", ctx)
    render = as_json if is_json else as_line

    def told(message: "Message") -> bytes:
        if message.missed:
            say(f"zb: {message.missed} live messages were missed before the next of"
                f" {message.topic or 'the broadcasts'} [missed]")
        return render(message)
    _print_all(ctx, lambda me: me.listen(*patterns, broadcasts=broadcasts, timeout=wait),
               Printer(told, acks=False), count)


def _print_all(ctx: click.Context, source: Source, printer: Printer, count: int | None) -> None:
    """Prints what comes until `count`, the source's end, or a signal. Raises Silence when fewer came."""
    def fetch() -> "Iterator[Message]":
        me.ping(profiles.CONNECT_S)
        yield from source(me)

    arrivals: Arrivals[Message] = Arrivals(AHEAD)
    with arrivals, profiles.client(ctx, connect_s=None) as me:
        arrivals.start(fetch)
        try:
            _drain(arrivals, printer, count)
        except BrokenPipeError:
            forget_stdout()      # the reader, `head` say, has all it wants
            count = None
        if printer.has_acked:
            me.flush(ACKS_S)
    if count is not None and printer.printed < count:
        raise Silence("timed-out", f"{printer.printed} of {count} messages came in time")


def _drain(arrivals: "Arrivals[Message]", printer: Printer, count: int | None) -> None:
    try:
        while count is None or printer.taken < count:
            if printer.is_full or not arrivals.at_hand:
                arrivals.done(printer.flush())
            message = arrivals.take()
            if message is None:
                break
            printer.hold(message)
    finally:
        printer.flush()


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.pass_context
def subscribe(ctx: click.Context, patterns: tuple[str, ...]) -> None:
    """Have topics' messages put into this client's inbox.

    What is published to a topic that PATTERN matches, from now on until `zb
    unsubscribe`, whether this client is connected or not.
    In a PATTERN, * is one word and # any number of them.

    \b
      zb subscribe 'soar.noc.#' 'alarm.*'
      zb receive
    """
    with profiles.client(ctx) as me:
        for pattern in patterns:
            me.subscribe(pattern)


@click.command()
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@click.pass_context
def unsubscribe(ctx: click.Context, patterns: tuple[str, ...]) -> None:
    """End subscriptions.

    What is in the inbox already stays there.

    \b
      zb unsubscribe 'alarm.*'
    """
    with profiles.client(ctx) as me:
        for pattern in patterns:
            me.unsubscribe(pattern)


@click.command()
@click.pass_context
def subscriptions(ctx: click.Context) -> None:
    """List this client's subscriptions, one pattern a line.

    \b
      zb subscriptions
    """
    with profiles.client(ctx) as me:
        for pattern in me.subscriptions():
            click.echo(pattern)
