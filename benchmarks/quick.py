"""Quick: one sender process, one receiver process, a hub between them, everything over CURVE.

    python -m benchmarks.quick [--messages 500000] [--bytes 200] [--rounds 3]

durable  send() to an inbox, receive(), ack() each message; the hub has fsynced before its receipt
live     publish() to a topic, listen()
lone     one message at a time, each receipt awaited; beside it, what fdatasync alone takes here

Batches are those the library makes by itself. The time runs from the first send() to the last
message in the receiver's hands. Medians over the rounds, with the lowest and the highest.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

import click

from zbackbone import Client, Profile
from zbackbone.testing import TestHub, running_hub

LONE = 2000


def send(profile: Profile, way: str, messages: int, size: int, go: Event, out: Any) -> None:
    with Client(profile, when_full="wait") as me:
        me.ping()
        body = os.urandom(size)
        put: Callable[..., Any] = me.send if way == "durable" else me.publish
        address = "receiver" if way == "durable" else "bench.topic"
        go.wait()
        began_s = time.time()
        for _ in range(messages):
            put(address, body)
        me.flush(timeout=300)
        out.put((began_s, time.time()))


def receive(profile: Profile, way: str, messages: int, go: Event, out: Any) -> None:
    with Client(profile) as me:
        me.ping()
        count = 0
        if way == "durable":
            go.set()
            for message in me.receive(timeout=30):
                message.ack()
                count += 1
                if count == messages:
                    break
        else:
            listener = me.listen("bench.#", timeout=5)
            go.set()
            for _ in listener:
                count += 1
                if count == messages:
                    break
        out.put((time.time(), count))


def measure(hub: TestHub, way: str, messages: int, size: int, profiles: tuple[Profile, Profile]) -> tuple[float, float]:
    """Messages a second: end to end, and accepted by the hub."""
    go = multiprocessing.Event()
    sent: Any = multiprocessing.Queue()
    got: Any = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=receive, args=(profiles[1], way, messages, go, got)),
                 multiprocessing.Process(target=send, args=(profiles[0], way, messages, size, go, sent))]
    for process in processes:
        process.start()
    began_s, accepted_s = sent.get(timeout=300)
    done_s, count = got.get(timeout=300)
    for process in processes:
        process.join()
    if count != messages:
        raise SystemExit(f"{way}: {messages - count} of {messages} messages did not arrive in time")
    return messages / (done_s - began_s), messages / (accepted_s - began_s)


def lone(hub: TestHub, size: int, profiles: tuple[Profile, Profile]) -> tuple[float, float]:
    """Median microseconds: a lone message's receipt, and an fdatasync of 16 kB on the same disk."""
    with Client(profiles[0]) as me:
        me.ping()
        body, receipts = os.urandom(size), []
        for _ in range(LONE):
            began_s = time.perf_counter()
            me.send("receiver", body).wait(timeout=10)
            receipts.append(time.perf_counter() - began_s)
    path, syncs = hub.data / "sync-probe", []
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(fd, os.urandom(64 * 16384))     # so that what is timed writes in place
    os.fsync(fd)
    for index in range(LONE):
        os.pwrite(fd, bytes(16384), index % 64 * 16384)
        began_s = time.perf_counter()
        os.fdatasync(fd)
        syncs.append(time.perf_counter() - began_s)
    os.close(fd)
    path.unlink()
    return statistics.median(receipts) * 1e6, statistics.median(syncs) * 1e6


def row(name: str, values: list[float]) -> str:
    return f"{name:<34}{statistics.median(values):>12,.0f}   ({min(values):,.0f} to {max(values):,.0f})"


@click.command(help=__doc__)
@click.option("--messages", default=500_000, show_default=True)
@click.option("--bytes", "size", default=200, show_default=True, help="A message's body.")
@click.option("--rounds", default=3, show_default=True)
def main(messages: int, size: int, rounds: int) -> None:
    results: dict[str, list[float]] = {}
    for hub in running_hub():
        profiles = hub.add("sender"), hub.add("receiver")
        for _ in range(rounds):
            for way in ("durable", "live"):
                end, accepted = measure(hub, way, messages, size, profiles)
                results.setdefault(f"{way}, end to end, msg/s", []).append(end)
                results.setdefault(f"{way}, accepted, msg/s", []).append(accepted)
            receipt, sync = lone(hub, size, profiles)
            results.setdefault("lone message's receipt, us", []).append(receipt)
            results.setdefault("fdatasync here, us", []).append(sync)
            with Client(profiles[1]) as rest:        # the lone ones
                for message in rest.receive(timeout=0.5):
                    message.ack()
    click.echo(f"{size} B messages, {messages:,} a round, {rounds} rounds, CURVE, {os.cpu_count()} cores")
    for name, values in results.items():
        click.echo(row(name, values))


if __name__ == "__main__":
    main()
