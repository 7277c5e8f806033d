"""Runner: every case, interleaved over rounds: a machine that slows down slows all of them."""

import time
from collections.abc import Callable

from . import peers
from .bench import Bench, Case
from .peers import Way
from .processes import SideFailed
from .rows import Row, row, with_ratios
from .servers import NotReady
from .work import work

# What takes long, or gives many figures in one run, is measured less often: the whole stays under 15 minutes.
ROUNDS_MAX = {"fanout": 2, "fanin": 1, "latency": 1, "bytes": 1, "storm": 1, "growth": 1}

Progress = Callable[[str], None]


def choose(names: list[str]) -> tuple[list[Way], dict[str, str]]:
    """The ways of these peers that can be measured here, and those that can't, with what to install."""
    ways, left_out = [], {}
    for name in names:
        for way in peers.peer(name).WAYS:
            lacks = peers.peer(name).missing(way)
            if lacks:
                left_out[way.title] = lacks
            else:
                ways.append(way)
    return ways, left_out


def measure(bench: Bench, kinds: list[str], rounds: int, progress: Progress,
            finished: Callable[[list[Row]], None]) -> list[list[Row]]:
    """All groups of these kinds of work; finished(rows) is told of each when it is done."""
    groups = []
    for kind in kinds:
        for group in work(kind).groups(bench):
            if group:
                rows = with_ratios(_group(group, min(rounds, ROUNDS_MAX.get(kind, rounds)), progress))
                finished(rows)
                groups.append(rows)
    return groups


def _group(cases: list[Case], rounds: int, progress: Progress) -> list[Row]:
    runs: list[list[dict[str, float]]] = [[] for _ in cases]
    errors = [""] * len(cases)
    for turn in range(rounds):
        # Each round begins with another, so that a disturbance doesn't always meet the same ones.
        first = turn * len(cases) // rounds
        for index in (*range(first, len(cases)), *range(first)):
            case = cases[index]
            if errors[index]:
                continue
            progress(f"{case.work}, {case.what}: {case.title}, round {turn + 1} of {rounds}")
            began_s = time.monotonic()
            try:
                runs[index].append(case.run())
            except (SideFailed, NotReady) as error:
                errors[index] = str(error).strip().splitlines()[-1][:300] if str(error).strip() else "failed"
                progress(f"failed after {time.monotonic() - began_s:.1f} s: {error}")
    return [row(case, done, error) for case, done, error in zip(cases, runs, errors, strict=True)]
