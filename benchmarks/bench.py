"""Bench: what every kind of work needs: the ways there are, servers that run, how much to do."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import peers, processes
from .peers import Running, Way
from .plans import Counter, Stopwatch, burst

BYTES_MAX = 256 << 20        # sent in one run: what a receiver that falls behind lets pile up somewhere
MESSAGES_MAX = 4_000_000


class Case(NamedTuple):
    """One thing to measure. work: its kind. what: a size, a number of subscribers ... promise,
    encrypted: as of a way. run: measures once; figures by name, as in rows.FIGURES."""

    work: str
    what: str
    title: str
    promise: str
    encrypted: bool
    run: Callable[[], dict[str, float]]


class Bench:
    """ways: those to measure. quick: the short suite. A context: what it starts, it ends."""

    def __init__(self, ways: list[Way], quick: bool) -> None:
        self.ways = ways
        self.quick = quick
        self.folder = Path(tempfile.mkdtemp(prefix="zbackbone-bench-"))
        self.rate: dict[tuple[str, int], float] = {}     # the highest messages a second seen, by way and size
        self._running: dict[str, Running] = {}
        self._names = itertools.count()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with contextlib.ExitStack() as stack:        # one that can't be stopped must not keep the others running
                for running in self._running.values():
                    stack.callback(running.stop)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def of(self, work: str, every: bool = False) -> list[Way]:
        """The ways that do that work. every: a peer's second ones, too."""
        return [way for way in self.ways if way.work == work and (every or not way.is_second)]

    def case(self, work: str, what: str, way: Way, run: Callable[[], dict[str, float]]) -> Case:
        return Case(work, what, way.title, way.promise, way.encrypted, run)

    # Servers ---------------------------------------------------------------------------------
    def running(self, way: Way) -> Running:
        """The way's server; started when it is first asked for, and left running."""
        return self.shared(f"{way.peer} {way.server}",
                           lambda: peers.peer(way.peer).serve(way.server, self.new_folder()))

    def shared(self, name: str, start: Callable[[], Running]) -> Running:
        """The server of that name; started when it is first asked for, and left running."""
        if name not in self._running:
            self._running[name] = start()
        return self._running[name]

    def stop(self, name: str) -> None:
        """Ends the server of that name; the next to ask gets a fresh one."""
        running = self._running.pop(name, None)
        if running is not None:
            running.stop()

    def new_folder(self) -> Path:
        folder = self.folder / str(next(self._names))
        folder.mkdir(mode=0o700)
        return folder

    def new_name(self) -> str:
        """A topic, stream or queue that nobody has used."""
        return f"b{os.getpid()}n{next(self._names)}"

    # One sender, one receiver ------------------------------------------------------------------
    def pair(self, way: Way, size: int, seconds: float) -> dict[str, float]:
        """One sender, one receiver, as fast as it goes, for about that long."""
        if (way.title, size) not in self.rate:
            self._warm_up(way, size)
        rate = self.rate[way.title, size]
        return self.throughput(way, size, max(10, min(int(rate * seconds), BYTES_MAX // size, MESSAGES_MAX)))

    def _warm_up(self, way: Way, size: int) -> None:
        """A first guess at the rate; the first run of a server is never counted."""
        count = max(10, min(500, (8 << 20) // size))
        self.throughput(way, size, count)
        if self.rate[way.title, size] > count * 10:
            self.throughput(way, size, min(count * 20, BYTES_MAX // 4 // size))

    def top(self, way: Way, size: int) -> float:
        """Messages a second, at most, with a receiver that reads a clock for every message."""
        if (way.title, -size) not in self.rate:
            if (way.title, size) not in self.rate:
                self._warm_up(way, size)
            count = max(10, min(int(self.rate[way.title, size] * 0.7), BYTES_MAX // size, MESSAGES_MAX))
            self.rate[way.title, -size] = self.talk(way, self.running(way).door, size, count, Stopwatch)["msg/s"]
        return self.rate[way.title, -size]

    def throughput(self, way: Way, size: int, count: int) -> dict[str, float]:
        """So many messages over the way's server."""
        figures = self.talk(way, self.running(way).door, size, count)
        self.rate[way.title, size] = max(self.rate.get((way.title, size), 0.0), figures["msg/s"])
        return figures

    def talk(self, way: Way, door: object, size: int, count: int,
             counter: type[Counter] = Counter) -> dict[str, float]:
        """So many messages through that door."""
        name = self.new_name()
        received, sent = processes.run([
            (processes.receiving, way, door, name, counter(count)),
            (processes.sending, way, door, name, burst, (size, count))])
        done_s, (heard, heard_bytes, *_) = received[2]
        if heard_bytes != heard * size:
            raise processes.SideFailed(f"{heard} messages of {size} bytes came as {heard_bytes} bytes")
        began_s, accepted_s, _ = sent
        end_to_end = heard / (done_s - began_s) if heard else 0.0
        figures = {"msg/s": end_to_end, "MB/s": end_to_end * size / 1e6}
        if way.promise:
            figures["accepted msg/s"] = count / (accepted_s - began_s)
        if heard != count:
            figures["lost %"] = 100 * (count - heard) / count
        return figures
