"""Durable: one sender to one receiver's inbox, with receipts and acknowledgements, 200 bytes."""

from ..bench import Bench, Case
from ..peers import DURABLE
from ..targets import DURABLE as TITLE
from .live import QUICK_SECONDS, SECONDS, USUAL, pairs


def groups(bench: Bench) -> list[list[Case]]:
    return [pairs(bench, DURABLE, TITLE, USUAL, QUICK_SECONDS if bench.quick else SECONDS)]
