"""Storm: 1,000, 5,000 and 9,000 clients connect at once; until all are welcome, and what each costs.

Bare DEALER sockets with CURVE, in a few processes; keys as different as in life.
"""

import contextlib
import resource
import time
from typing import Any

from .. import raw
from ..bench import Bench, Case
from ..hubs import hub_with
from ..peers import Running
from ..processes import Process
from ..servers import memory_mb

COUNTS = (1000, 5000, 9000)
PROCESSES = 3


def groups(bench: Bench) -> list[list[Case]]:
    counts = (200,) if bench.quick else COUNTS
    return [[Case("connect storm", f"{count:,} clients", "zbackbone", "", True,
                  lambda count=count: storm(bench, count, max(counts)))] for count in counts]


def storm(bench: Bench, count: int, most: int) -> dict[str, float]:
    running = bench.shared("storm hub", lambda: _start(bench, most))
    try:
        before_mb = memory_mb(running.pid)
        profiles = running.door[:count]
        sides = [Process(_connect, profiles[index::PROCESSES]) for index in range(PROCESSES)]
        try:
            for side in sides:
                side.ready()
            began_s = time.monotonic()
            for side in sides:
                side.release()
            for side in sides:
                side.ready()                     # its second gate: all its clients are welcome
            took_s = time.monotonic() - began_s
            each_kb = (memory_mb(running.pid) - before_mb) * 1024 / count
        finally:
            for side in sides:
                side.end()
    finally:
        bench.stop("storm hub")                  # memory that libzmq keeps would flatter the next
    return {"all welcome": took_s, "clients/s": count / took_s, "memory each": each_kb}


def _start(bench: Bench, clients: int) -> Running:
    hub, profiles = hub_with(bench.new_folder(), clients)
    assert hub.process is not None
    return Running(profiles, hub.process.pid, hub.kill)


def _connect(profiles: list[Any], gate: Any) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))     # a socket is two descriptors
    gate()
    swarm = raw.Swarm(profiles)
    swarm.welcome()
    gate()
