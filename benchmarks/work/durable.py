"""Durable: one sender to one receiver's inbox, with receipts and acknowledgements, at five sizes."""

from ..bench import Bench, Case
from ..peers import DURABLE
from .live import pairs

TITLE = "durable, one sender to one inbox"


def groups(bench: Bench) -> list[list[Case]]:
    return pairs(bench, DURABLE, TITLE)
