"""Runner: every case, interleaved over rounds: a machine that slows down slows all of them."""

import time
from collections.abc import Callable

from . import peers
from .bench import Bench, Case
from .peers import Way
from .rows import Row, row, with_ratios
from .work import work

# What takes long, or gives many figures in one run, is measured less often: the whole stays under 15 minutes.
ROUNDS_MAX = {"fanout": 2, "inboxes": 1, "fanin": 2, "latency": 1, "sizes": 2, "bytes": 1, "ceilings": 2, "storm": 1,
              "growth": 2}
# What is quick and leans on the disk's mood takes more turns, so that everybody meets the same moods.
TURNS = {"receipt": 2}

Progress = Callable[[str], None]


def turns(kind: str, rounds: int) -> int:
    """How often each case of that kind is measured."""
    return min(rounds, ROUNDS_MAX.get(kind, rounds)) * TURNS.get(kind, 1)


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
            finished: Callable[[list[Row]], None]) -> tuple[list[list[Row]], dict[str, float]]:
    """All groups of these kinds of work, and the seconds each kind took. finished(rows) is told of
    each group when it is done."""
    groups, took_s = [], {}
    for at, kind in enumerate(kinds, 1):
        began_s = time.monotonic()

        def tell(text: str, where: str = f"[{at}/{len(kinds)}] ") -> None:
            progress(where + text)
        for group in work(kind).groups(bench):
            if group:
                rows = with_ratios(run_group(group, turns(kind, rounds), tell))
                finished(rows)
                groups.append(rows)
        took_s[kind] = time.monotonic() - began_s
    return groups, took_s


def run_group(cases: list[Case], rounds: int, progress: Progress) -> list[Row]:
    """Every case once a round, in turns. One that fails is not tried again, and is a row that says why."""
    runs: list[list[dict[str, float]]] = [[] for _ in cases]
    errors = [""] * len(cases)
    for turn in range(rounds):
        for index in order(len(cases), turn, rounds):
            case = cases[index]
            if errors[index]:
                continue
            progress(f"{case.work}, {case.what}: {case.title}, round {turn + 1} of {rounds}")
            try:
                runs[index].append(case.run())
            except Exception as error:       # whatever one peer does, the others are still to be measured
                errors[index] = _last_line(error)
                progress(f"failed: {case.title}: {error!r}")
    # Some rounds of one that failed in another would be a figure that looks like the others' medians.
    return [row(case, [] if error else done, error) for case, done, error in zip(cases, runs, errors, strict=True)]


def order(count: int, turn: int, rounds: int) -> list[int]:
    """Each round begins with another, so that a disturbance doesn't always meet the same ones."""
    first = turn * count // rounds
    return [*range(first, count), *range(first)]


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__
