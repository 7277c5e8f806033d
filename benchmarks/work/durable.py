"""Durable: one sender to one receiver's inbox, with receipts and acknowledgements, at five sizes."""

from ..bench import Bench, Case
from ..peers import DURABLE
from ..targets import DURABLE as TITLE
from .live import pairs


def groups(bench: Bench) -> list[list[Case]]:
    return pairs(bench, DURABLE, TITLE)
