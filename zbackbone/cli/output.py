"""Output: what commands print: messages as they are or as JSON, tables, objects."""

import base64
import json
import select
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ..errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.message import Message

PRINT_MESSAGES = 256      # printed at once at most: a burst costs few writes, and a crash few repetitions
PRINT_BYTES = 1 << 20


class Printer:
    """Prints messages, and acknowledges those that are out: whole, and every one before them.

    render: a message's bytes. acks: whether to acknowledge.
    """

    def __init__(self, render: "Callable[[Message], bytes]", acks: bool) -> None:
        self.printed = 0
        self.has_acked = False
        self._render = render
        self._acks = acks
        self._held: list[tuple[Message, bytes]] = []
        self._size = 0

    @property
    def taken(self) -> int:
        """Printed, or held to be."""
        return self.printed + len(self._held)

    @property
    def is_full(self) -> bool:
        return len(self._held) >= PRINT_MESSAGES or self._size >= PRINT_BYTES

    def hold(self, message: "Message") -> None:
        """Keeps it for the next flush."""
        data = self._render(message)
        self._held.append((message, data))
        self._size += len(data)

    def flush(self) -> int:
        """Writes what it holds; returns how many that were. Raises BrokenPipeError when nobody reads, or OSError."""
        held, self._held, self._size = self._held, [], 0
        if not held:
            return 0
        # Straight to the descriptor, which says how much it took; a buffer would keep that to itself.
        stdout = _stdout()
        left = memoryview(b"".join(data for _, data in held))
        size = len(left)
        try:
            while left:
                left = left[_write(stdout, left):]
        finally:
            self._acknowledge(held, size - len(left))
        return len(held)

    def _acknowledge(self, held: "list[tuple[Message, bytes]]", written: int) -> None:
        last = None
        for message, data in held:
            written -= len(data)
            if written < 0:
                break
            last = message
            self.printed += 1
        if last is not None and self._acks:
            last.ack()
            self.has_acked = True


def _stdout() -> BinaryIO:
    if sys.stdout is None:
        raise Misuse("no-stdout", "there is no standard output to print to; open one")
    return getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)  # type: ignore[no-any-return]


def _write(file: BinaryIO, data: memoryview) -> int:
    written: int | None = file.write(data)
    if written is None:                              # somebody made it non-blocking, and it is full
        select.select([], [file], [])
        return 0
    return written


# Messages ------------------------------------------------------------------------------------
def as_line(message: "Message") -> bytes:
    """The body as it is, and a newline."""
    return message.body + b"\n"


def as_json(message: "Message") -> bytes:
    """One object in one line; a body that is not UTF-8 is in base64, and `base64` true."""
    try:
        body, is_base64 = message.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(message.body).decode(), True
    where: dict[str, Any] = {"broadcast": True}
    if message.to is not None:
        where = {"to": message.to}
    elif message.topic is not None:
        where = {"topic": message.topic}
    return json.dumps({"id": message.id, "sender": message.sender, **where, "time": moment(message.time),
                       "headers": message.headers, "body": body, "base64": is_base64},
                      ensure_ascii=False).encode() + b"\n"


def moment(time_s: float) -> str:
    """Seconds since 1970 as 2026-01-31T23:59:59.123Z."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Answers -------------------------------------------------------------------------------------
def print_json(value: Any) -> None:
    """Keys come as bytes, and are shown in Z85."""
    from ..auth.keys import shown
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=shown))


def print_table(rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as they need to be; those with numbers in them to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        width, side = max(len(str(cell)) for cell in column), ">" if any(type(c) is int for c in column) else "<"
        columns.append([f"{cell!s:{side}{width}}" for cell in column])
    for row in zip(*columns, strict=True):
        click.echo("  ".join(row).rstrip())
