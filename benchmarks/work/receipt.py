"""Receipt: a lone durable message, and how long its sender waits for the yes. Beside it, one fdatasync.

Runs are short and many, so that the disk's moods meet everybody, and the fdatasync next to ours.
"""

import os
import time

from .. import processes
from ..bench import Bench, Case
from ..peers import DURABLE, Way
from ..plans import percentiles
from ..targets import RECEIPT as TITLE
from .live import USUAL

SYNC_BYTES, BLOCKS = 16384, 64       # what a store writes for a small transaction, in a file of 1 MiB
LONE_MAX, SECONDS, QUICK_SECONDS = 2000, 0.7, 0.4
SYNCS_MAX = 1000


def groups(bench: Bench) -> list[list[Case]]:
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    cases = [bench.case(TITLE, f"{USUAL} B", way, lambda way=way: lone(bench, way, seconds))
             for way in bench.of(DURABLE) if way.has_receipts]
    # Beside ours, so that a disk that changes its mind changes it for both.
    cases.insert(1, Case(TITLE, f"{USUAL} B", "one fdatasync of 16 kB, this disk", "synced to disk", False,
                         lambda: percentiles(fdatasync(bench, seconds))))
    return [cases]


def lone(bench: Bench, way: Way, seconds: float) -> dict[str, float]:
    (_, _, took_s), = processes.run([
        (processes.asking, way, bench.running(way).door, bench.new_name(), USUAL, LONE_MAX, seconds)])
    return percentiles(took_s[len(took_s) // 20:])       # without the first ones, which are warming up


def fdatasync(bench: Bench, seconds: float) -> list[float]:
    """Seconds that each took: 16 kB overwritten in place, then fdatasync.

    The blocks were written and synced before, as those of a write-ahead log are once it has been
    around: the file doesn't grow and the filesystem has nothing of its own to write, so it is the least
    that a store can pay for a yes on this disk.
    """
    path, took_s = bench.folder / "sync-probe", []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.write(fd, os.urandom(SYNC_BYTES * BLOCKS))
        os.fsync(fd)
        data, until_s = os.urandom(SYNC_BYTES), time.monotonic() + seconds
        for index in range(SYNCS_MAX):
            if time.monotonic() > until_s:
                break
            os.pwrite(fd, data, index % BLOCKS * SYNC_BYTES)
            began_s = time.perf_counter()
            os.fdatasync(fd)
            took_s.append(time.perf_counter() - began_s)
    finally:
        os.close(fd)
        path.unlink()
    return took_s
