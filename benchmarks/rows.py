"""Rows: figures to rows: medians, spread, ratios. No I/O, no clock."""

import statistics
from typing import NamedTuple

from .bench import Case

# What is measured: its unit, and whether more is better.
FIGURES = {
    "msg/s": ("msg/s", True), "accepted msg/s": ("msg/s", True), "MB/s": ("MB/s", True),
    "delivered msg/s": ("msg/s", True), "saturated msg/s": ("msg/s", True), "held msg/s": ("msg/s", True),
    "clients/s": ("1/s", True), "turns/s": ("1/s", True),
    "p50": ("us", False), "p99": ("us", False), "p99.9": ("us", False), "lost %": ("%", False),
    "behind msg/s": ("msg/s", False), "all welcome": ("s", False), "start": ("s", False),
    "memory": ("MB", False), "memory each": ("kB", False), "memory busy": ("MB", False),
    "wire": ("B/msg", False), "disk": ("B/msg", False),
    "wire x payload": ("x", False), "disk x payload": ("x", False),
}


class Row(NamedTuple):
    """What came of one case. figures: name -> (median, lowest, highest, values). error: why there
    are none. ratio: how many times better the reference is; below 1, it is worse."""

    case: Case
    figures: dict[str, tuple[float, float, float, list[float]]]
    error: str
    ratio: float | None

    @property
    def main(self) -> str:
        return next(iter(self.figures), "")


def row(case: Case, runs: list[dict[str, float]], error: str) -> Row:
    names = list(dict.fromkeys(name for run in runs for name in run))
    figures = {}
    for name in names:
        values = [run[name] for run in runs if name in run]
        figures[name] = (statistics.median(values), min(values), max(values), values)
    return Row(case, figures, error, None)


def with_ratios(rows: list[Row]) -> list[Row]:
    """Of rows that are compared: the first one is the reference, if it has figures and there are others."""
    if len(rows) < 2 or not rows[0].figures:
        return rows
    reference = rows[0]
    return [reference, *(r._replace(ratio=_ratio(reference, r)) for r in rows[1:])]


def _ratio(reference: Row, other: Row) -> float | None:
    name = other.main
    if name != reference.main:
        return None
    ours, theirs = reference.figures[name][0], other.figures[name][0]
    if not ours or not theirs:
        return None
    return ours / theirs if FIGURES[name][1] else theirs / ours
