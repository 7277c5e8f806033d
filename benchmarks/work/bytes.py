"""Bytes: on the wire and on disk, per message, against its payload; in a burst, and sent alone.

The wire is the loopback interface, TCP and IP included, to the server and from it again, so twice
the payload is the least for a burst that is received; lone messages are only sent. Whatever else
talks over loopback meanwhile is counted too.

The disk: of those that sync before they say yes, what reached the disk, whoever wrote it; of the others,
what the server had the kernel write, which is later, or never if the file is gone by then.
"""

from pathlib import Path

from .. import processes
from ..bench import Bench, Case
from ..peers import DURABLE, LIVE, Way
from ..servers import device_bytes, written_bytes
from .live import USUAL

BURST, LONE = 20_000, 500


def groups(bench: Bench) -> list[list[Case]]:
    burst = [bench.case("bytes a message, sent and received", f"a burst of {USUAL} B", way,
                        lambda way=way: in_burst(bench, way)) for way in bench.of(LIVE) + bench.of(DURABLE)]
    lone = [bench.case("bytes a message, sent", f"alone, {USUAL} B", way, lambda way=way: alone(bench, way))
            for way in bench.of(DURABLE) if way.has_receipts]
    return [burst, lone]


def in_burst(bench: Bench, way: Way) -> dict[str, float]:
    bench.running(way)
    count = int(min(BURST, bench.rate.get((way.title, USUAL), 5000)))
    before = loopback_bytes(), disk_bytes(bench, way)
    bench.throughput(way, USUAL, count)
    return _figures(way, loopback_bytes() - before[0], disk_bytes(bench, way) - before[1], count)


def alone(bench: Bench, way: Way) -> dict[str, float]:
    running, name = bench.running(way), bench.new_name()
    before = loopback_bytes(), disk_bytes(bench, way)
    processes.run([(processes.asking, way, running.door, name, USUAL, LONE, 60.0)])
    return _figures(way, loopback_bytes() - before[0], disk_bytes(bench, way) - before[1], LONE)


def disk_bytes(bench: Bench, way: Way) -> int:
    device = device_bytes(bench.folder) if way.promise == "synced to disk" else None
    return written_bytes(bench.running(way).pid) if device is None else device


def _figures(way: Way, wire: int, disk: int, count: int) -> dict[str, float]:
    figures = {"wire": wire / count, "wire x payload": wire / count / USUAL}
    if way.work == DURABLE:
        figures |= {"disk": disk / count, "disk x payload": disk / count / USUAL}
    return figures


def loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0
