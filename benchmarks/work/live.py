"""Live: one publisher to one listener, at most once, 200 bytes."""

from collections.abc import Callable

from ..bench import Bench, Case
from ..peers import LIVE, Way
from ..targets import LIVE as TITLE

USUAL = 200
NAMES = {16: "16 B", 200: "200 B", 4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}
SECONDS, QUICK_SECONDS = 1.5, 0.5


def groups(bench: Bench) -> list[list[Case]]:
    return [pairs(bench, LIVE, TITLE, USUAL, QUICK_SECONDS if bench.quick else SECONDS)]


def pairs(bench: Bench, work: str, title: str, size: int, seconds: float) -> list[Case]:
    """Every way of that work, one sender to one receiver; second ways at the usual size alone."""
    def run(way: Way) -> Callable[[], dict[str, float]]:
        return lambda: bench.pair(way, size, seconds)
    return [bench.case(title, NAMES[size], way, run(way)) for way in bench.of(work, every=size == USUAL)]
