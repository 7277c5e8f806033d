"""Processes: the sides of a run, each in a process of its own, started afresh each time."""

import itertools
import gc
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

SILENCE_S = 5.0          # without a message for so long, the rest is taken for lost
FIRST_S = 30.0           # and so long for the first one
READY_S = 40.0           # until a side is connected; a thousand connections take their time
DONE_S = 60.0

# A server of processes that has imported what they need, and holds no thread or socket that a
# fork would copy.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["benchmarks.preload"])

Side = Callable[..., Any]


class SideFailed(Exception):
    """One side of a run failed; the text is its traceback."""


class Gate:
    """What a side waits at once it is ready, so that all sides begin together."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.began_s = 0.0

    def __call__(self) -> None:
        self._pipe.send(("ready", None))
        self._pipe.recv()
        self.began_s = time.monotonic()


def _main(pipe: Connection, side: Side, args: tuple[Any, ...]) -> None:
    # All clients' libraries are loaded here, not one as in life: a full collection would look through them
    # all, and stop whoever it meets for 30 ms.
    gc.freeze()
    gate = Gate(pipe)
    try:
        result = side(*args, gate)
        pipe.send(("done", (gate.began_s, time.monotonic(), result)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    pipe.close()
    os._exit(0)          # nobody's background thread may keep it


class Process:
    """One side. ready() and result() wait for it; release() opens its gate."""

    def __init__(self, side: Side, *args: Any) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, side, args), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        self._hear("ready", READY_S)

    def release(self) -> None:
        self._pipe.send("go")

    def result(self) -> tuple[float, float, Any]:
        """When its gate opened, when it ended, and what it returned."""
        out: tuple[float, float, Any] = self._hear("done", DONE_S)
        return out

    def _hear(self, word: str, timeout_s: float) -> Any:
        if not self._pipe.poll(timeout_s):
            raise SideFailed(f"not {word} within {timeout_s:.0f} s")
        try:
            said, what = self._pipe.recv()
        except EOFError:
            raise SideFailed(f"ended before it was {word}") from None
        if said != word:
            raise SideFailed(what if said == "failed" else f"said {said} instead of {word}")
        return what

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def run(sides: list[tuple[Any, ...]]) -> list[tuple[float, float, Any]]:
    """Runs sides, each (function, argument, ...), and gets a gate as one more argument.

    All are ready before any gate opens; the gates open in the list's order, so receivers come first.
    """
    processes = [Process(*side) for side in sides]
    try:
        for process in processes:
            process.ready()
        for process in processes:
            process.release()
        return [process.result() for process in processes]
    finally:
        for process in processes:
            process.end()


# The two usual sides ---------------------------------------------------------------------------
def receiving(way: Any, door: Any, name: str, counter: Any, gate: Gate) -> Any:
    """Receives until the counter has all. Returns when the last came, and what it counted."""
    failures: list[str] = []

    def serve() -> None:
        try:
            way.receive(door, name, counter, gate)
        except BaseException:
            failures.append(traceback.format_exc())

    # In a thread, so that a side that hears nothing any more can still say what it has.
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    seen, seen_s = 0, 0.0
    while thread.is_alive():
        thread.join(0.1)
        now_s = time.monotonic()
        if counter.count != seen:
            seen, seen_s = counter.count, now_s
        if gate.began_s and now_s - max(seen_s, gate.began_s) > (SILENCE_S if seen else FIRST_S):
            break
    if failures:
        raise SideFailed(failures[0])
    return counter.done_s or seen_s, counter.result()


def sending(way: Any, door: Any, name: str, make_plan: Callable[..., Any], plan_args: tuple[Any, ...],
            gate: Gate) -> None:
    """Sends a plan; returns once the other side has promised what it promises."""
    def plan() -> Any:
        yield from make_plan(*plan_args)
    way.send(door, name, plan(), gate)


def asking(way: Any, door: Any, name: str, size: int, count: int, seconds: float, gate: Gate) -> Any:
    """Sends lone messages, each after the last one's receipt; so many, or for so long.

    Returns the seconds each took.
    """
    def bodies() -> Iterator[bytes]:
        body = os.urandom(size)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            yield body
    return way.lone(door, name, itertools.islice(bodies(), count), gate)


def watching(way: Any, door: Any, name: str, make_plan: Callable[..., Any], plan_args: tuple[Any, ...],
             gate: Gate) -> Any:
    """Sends a plan. Returns the seconds that its receipts took, one a step."""
    def plan() -> Any:
        yield from make_plan(*plan_args)
    return way.receipts(door, name, plan(), gate)
