"""Sizes: what live and durable do with 16 B, 4 KiB, 64 KiB and 1 MiB; shorter runs, and fewer."""

from .. import targets
from ..bench import Bench, Case
from ..peers import DURABLE, LIVE
from .live import pairs

SIZES = (16, 4096, 65536, 1 << 20)
SECONDS = 0.5


def groups(bench: Bench) -> list[list[Case]]:
    return [pairs(bench, work, title, size, SECONDS)
            for work, title in ((LIVE, targets.LIVE), (DURABLE, targets.DURABLE)) for size in SIZES]
