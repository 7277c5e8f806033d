"""Live: one publisher to one listener, at most once, at five sizes."""

from collections.abc import Callable

from ..bench import Bench, Case
from ..peers import LIVE, Way
from ..targets import LIVE as TITLE

USUAL = 200
SIZES = (16, 200, 4096, 65536, 1 << 20)
NAMES = {16: "16 B", 200: "200 B", 4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}


def groups(bench: Bench) -> list[list[Case]]:
    return pairs(bench, LIVE, TITLE)


def pairs(bench: Bench, work: str, title: str) -> list[list[Case]]:
    """Every way of that work, at every size; second ways at the usual size alone."""
    def run(way: Way, size: int) -> Callable[[], dict[str, float]]:
        return lambda: bench.pair(way, size, _seconds(bench, size))
    return [[bench.case(title, NAMES[size], way, run(way, size)) for way in bench.of(work, every=size == USUAL)]
            for size in ((USUAL,) if bench.quick else SIZES)]


def _seconds(bench: Bench, size: int) -> float:
    """How long a run lasts: the usual size is the one that people quote."""
    return 0.7 if bench.quick else 1.5 if size == USUAL else 0.7
