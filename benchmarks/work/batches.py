"""Batches: our batch API, live beside a nats-server fed bytes packed beforehand, and durable, alone.

The comparison is with the fastest that NATS can be: neither of its processes packs, parses or
copies a message, while both of ours do, and encrypt. Only 200 bytes and 4 KiB: larger bodies are
carried as in `live`.
"""

from ..bench import Bench, Case
from ..peers import BATCHES, DURABLE_BATCHES
from ..targets import BATCHES as TITLE
from .live import NAMES, USUAL

SIZES = (USUAL, 4096)
DURABLE_TITLE = "durable, batch API, one sender to one inbox"


def groups(bench: Bench) -> list[list[Case]]:
    seconds = 0.7 if bench.quick else 1.5
    return [[bench.case(title, NAMES[size], way, lambda way=way, size=size: bench.pair(way, size, seconds))
             for way in bench.of(work)]
            for work, title in ((BATCHES, TITLE), (DURABLE_BATCHES, DURABLE_TITLE))
            for size in ((USUAL,) if bench.quick else SIZES)]
