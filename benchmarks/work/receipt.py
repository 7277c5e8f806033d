"""Receipt: a lone durable message, and how long its sender waits for the yes. Beside it, one fdatasync."""

import os
import time

from .. import processes
from ..bench import Bench, Case
from ..peers import DURABLE, Way
from ..plans import percentiles
from .live import USUAL

TITLE = "receipt of a lone durable message"
SYNC_BYTES = 16384       # what a store writes for a small transaction: two pages or so


def groups(bench: Bench) -> list[list[Case]]:
    seconds = 0.4 if bench.quick else 1.5
    cases = [bench.case(TITLE, f"{USUAL} B", way, lambda way=way: lone(bench, way, seconds))
             for way in bench.of(DURABLE) if way.has_receipts]
    # Beside ours, so that a disk that changes its mind changes it for both.
    cases.insert(1, Case(TITLE, f"{USUAL} B", "one fdatasync of 16 kB, this disk", "synced to disk", False,
                         lambda: percentiles(fdatasync(bench))))
    return [cases]


def lone(bench: Bench, way: Way, seconds: float) -> dict[str, float]:
    door = bench.running(way).door
    took_s: list[float] = []
    until_s = time.monotonic() + seconds
    while not took_s or time.monotonic() < until_s:
        (_, _, more), = processes.run([(processes.asking, way, door, bench.new_name(), USUAL, 300)])
        took_s += more[len(more) // 20:]                 # without the first ones, which are warming up
    return percentiles(took_s)


def fdatasync(bench: Bench, count: int = 500) -> list[float]:
    """Seconds that each of so many took."""
    path, took_s = bench.folder / "sync-probe", []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for index in range(count):
        os.pwrite(fd, os.urandom(SYNC_BYTES), index % 64 * SYNC_BYTES)
        began_s = time.perf_counter()
        os.fdatasync(fd)
        took_s.append(time.perf_counter() - began_s)
    os.close(fd)
    path.unlink()
    return took_s
