"""Batches: our batch API, live beside a nats-server fed bytes packed beforehand, and durable, alone.

The comparison is with the fastest that NATS can be: neither of its processes packs, parses or
copies a message, while both of ours do, and encrypt.
"""

from ..bench import Bench, Case
from ..peers import BATCHES, DURABLE_BATCHES
from ..targets import BATCHES as TITLE
from .live import QUICK_SECONDS, SECONDS, USUAL, pairs

DURABLE_TITLE = "durable, batch API, one sender to one inbox"


def groups(bench: Bench) -> list[list[Case]]:
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    return [pairs(bench, BATCHES, TITLE, USUAL, seconds), pairs(bench, DURABLE_BATCHES, DURABLE_TITLE, USUAL, seconds)]
