"""Targets: what this project set out to reach, against what one run saw. No I/O, no clock.

Every target is a ratio or a figure from rows of the same run, so nothing is compared across machines.
Throughputs are ratios of medians, of 200-byte messages.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .rows import Row

LIVE = "live, one publisher to one listener"
BATCHES = "live, batch API, one publisher to one listener"
DURABLE = "durable, one sender to one inbox"
FANIN = "fan-in of lone messages"
FANOUT = "fan-out live, packed beforehand"
LATENCY = "one-way latency, live"
RECEIPT = "receipt of a lone durable message"
GROWTH_DURABLE, GROWTH_LIVE = "growth, durable throughput", "growth, live throughput"
CLIENTS, LISTENERS, LONE = "1,000 clients", "1,000 subscribers", "100 messages a second"
WAITING, SUBSCRIPTIONS, INBOXES = "messages waiting", "subscriptions", "inboxes"


LOST_MAX = 0.1           # per cent; a rate at which more is lost is not one that was reached


class Book:
    """The medians of a run, by work, what, title and figure. lost: the most that a row of ours, of those
    that were looked up, lost of its messages, in per cent."""

    def __init__(self, groups: Iterable[list[Row]]) -> None:
        self._row = {(row.case.work, row.case.what, row.case.title): row for rows in groups for row in rows}
        self.lost = 0.0

    def median(self, work: str, what: str, title: str, figure: str = "") -> float | None:
        """figure: the row's first, if it isn't named. None: not measured."""
        row = self._row.get((work, what, title))
        if row is None or not row.figures:
            return None
        if row.case.encrypted and "lost %" in row.figures:
            self.lost = max(self.lost, row.figures["lost %"][0])
        found = row.figures.get(figure or row.main)
        return found[0] if found else None

    def best(self, work: str, what: str, *titles: str) -> float | None:
        """The highest of these; None when one is missing, since it could have been that one."""
        medians = [self.median(work, what, title) for title in titles]
        return None if None in medians else max(median for median in medians if median is not None)

    def times(self, work: str, what: str, ours: str, *theirs: str) -> float | None:
        """Ours over the best of theirs."""
        return over(self.median(work, what, ours), self.best(work, what, *theirs))


class Target(NamedTuple):
    """aim: what `see` must be at least (or, is_most, at most), in `unit`."""

    what: str
    aim: float
    unit: str
    is_most: bool
    see: Callable[[Book], float | None]


class Verdict(NamedTuple):
    """seen: None when a row that it needs was not measured. lost: as in Book."""

    target: Target
    seen: float | None
    lost: float

    @property
    def word(self) -> str:
        return "not measured" if self.seen is None else "held" if self.is_held else "missed"

    @property
    def is_held(self) -> bool:
        return self.seen is not None and self.lost <= LOST_MAX and (
            self.seen <= self.target.aim if self.target.is_most else self.seen >= self.target.aim)

    @property
    def margin(self) -> float | None:
        """How far on the good side of the aim, as a share of it; below 0, on the bad side."""
        if self.seen is None:
            return None
        return (self.target.aim - self.seen if self.target.is_most else self.seen - self.target.aim) / self.target.aim


def over(mine: float | None, other: float | None) -> float | None:
    return mine / other if mine is not None and other else None


def _least(what: str, aim: float, see: Callable[[Book], float | None]) -> Target:
    return Target(what, aim, "x", False, see)


def _most(what: str, aim: float, unit: str, see: Callable[[Book], float | None]) -> Target:
    return Target(what, aim, unit, True, see)


def _lone_in_syncs(book: Book) -> float | None:
    return over(book.median(RECEIPT, "200 B", "zbackbone, durable", "p50"),
                book.median(RECEIPT, "200 B", "one fdatasync of 16 kB, this disk", "p50"))


def _grown(book: Book, label: str, figure: str) -> float | None:
    return book.median(GROWTH_DURABLE, WAITING, f"{label} waiting", figure)


TARGETS = (
    _least("live, each message by itself, against nats-py on NATS core", 5, lambda b: b.times(
        LIVE, "200 B", "zbackbone, live", "NATS core, nats-py")),
    _least("live, each message by itself, against Zenoh's Python binding through a router", 2, lambda b: b.times(
        LIVE, "200 B", "zbackbone, live", "Zenoh, its Python binding")),
    _least("live, batch API, against nats-server fed bytes packed beforehand (aim: 1 x)", 0.8, lambda b: b.times(
        BATCHES, "200 B", "zbackbone, batch API", "NATS core, bare sockets")),
    _least("durable with acks, against JetStream as it comes, nats-py, the better way", 15, lambda b: b.times(
        DURABLE, "200 B", "zbackbone, durable", "NATS JetStream, nats-py", "NATS JetStream, nats-py pulling")),
    _least("durable with acks, against RabbitMQ with confirms, the best way", 40, lambda b: b.times(
        DURABLE, "200 B", "zbackbone, durable", "RabbitMQ, persistent, confirms, pika",
        "RabbitMQ, persistent, confirms, aio-pika", "RabbitMQ, quorum queue, confirms, pika")),
    _least("durable with acks, against Mosquitto QoS 1, paho", 80, lambda b: b.times(
        DURABLE, "200 B", "zbackbone, durable", "Mosquitto QoS 1, paho")),
    _least("lone durable messages from 1,000 clients at once, against JetStream with sync always", 5, lambda b: b.times(
        FANIN, CLIENTS, "zbackbone", "NATS JetStream, sync always")),
    _least("delivered to 1,000 live subscribers, against NATS core", 2, lambda b: b.times(
        FANOUT, LISTENERS, "zbackbone", "NATS core")),
    _most("receipt of a lone durable message, p50, in fdatasyncs of the same disk", 3, "x", _lone_in_syncs),
    _most("one-way live latency at 100 messages a second, p50, against nats-py", 1, "x", lambda b: over(
        b.median(LATENCY, LONE, "zbackbone, live", "p50"), b.median(LATENCY, LONE, "NATS core, nats-py", "p50"))),
    _most("memory with 1 M messages waiting", 150, "MB", lambda b: _grown(b, "1,000,000", "memory busy")),
    _most("memory with 5 M messages waiting, against 1 M", 1.1, "x", lambda b: over(
        _grown(b, "5,000,000", "memory busy"), _grown(b, "1,000,000", "memory busy"))),
    _most("start with 1 M messages waiting", 2, "s", lambda b: _grown(b, "1,000,000", "start")),
    _least("durable throughput with 100,000 inboxes, against 1", 0.8, lambda b: b.times(
        GROWTH_DURABLE, INBOXES, "100,000 more inboxes", "1 more inboxes")),
    _least("live throughput with 100,000 subscriptions, against 1", 0.8, lambda b: b.times(
        GROWTH_LIVE, SUBSCRIPTIONS, "100,000 subscriptions", "1 subscriptions")),
)


def judge(groups: Iterable[list[Row]]) -> list[Verdict]:
    book, verdicts = Book(groups), []
    for target in TARGETS:
        book.lost = 0.0
        verdicts.append(Verdict(target, target.see(book), book.lost))
    return verdicts
