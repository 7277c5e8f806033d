"""Hubs: ours with a past: clients, subscriptions and waiting messages that were put there beforehand.

They are written through the hub's own store while it is stopped: registering 100,000 clients one
by one would take longer than all that is measured.
"""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from zbackbone import Profile
from zbackbone import facts as f
from zbackbone import protocol as p
from zbackbone.auth.keys import make_pair
from zbackbone.auth.policy import EVERYTHING, to_wire
from zbackbone.router.journaled import JournaledStore
from zbackbone.testing import TestHub

COMMIT = 5000            # facts in one transaction


class Past:
    """A stopped hub's store. Use it in a `with`, then start the hub."""

    def __init__(self, hub: TestHub) -> None:
        self._hub = hub
        self._store = JournaledStore(hub.data / "hub.db", os.urandom(8))
        clients = [fact.client for fact in self._store.load() if type(fact) is f.Registered]
        self._last = max(clients, default=0)
        self._id_of: dict[str, int] = {}

    def __enter__(self) -> "Past":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def clients(self, count: int, prefix: str = "c") -> list[Profile]:
        """So many clients who may do everything but administer."""
        operator, now_ms = self._hub.operator, int(time.time() * 1000)
        profiles, facts = [], []
        for number in range(count):
            self._last += 1
            pair, name = make_pair(), f"{prefix}{number}"
            profiles.append(Profile(name, operator.address, operator.hub_key, pair.public, pair.secret))
            facts.append(f.Registered(self._last, name, pair.public.hex(), to_wire(EVERYTHING), now_ms))
            self._id_of[name] = self._last
        self._commit(iter(facts))
        return profiles

    def subscriptions(self, names: list[str], patterns: Iterator[str]) -> None:
        """Deals the patterns out to these clients, in turns."""
        self._commit(f.Subscribed(self._id_of[name], pattern)
                     for name, pattern in zip(itertools.cycle(names), patterns, strict=False))

    def waiting(self, name: str, count: int, size: int) -> None:
        """So many messages in a client's inbox, each sent alone: an entry of its own."""
        client, now_ms, outbox = self._id_of[name], int(time.time() * 1000), os.urandom(8)
        body = p.pack_batch([os.urandom(size)])

        def facts() -> Iterator[f.Fact]:
            for number in range(1, count + 1):
                envelope = p.pack_envelope(p.Envelope("c0", now_ms, p.SEND, name, outbox, number, 1))
                yield f.Stored(1, envelope, body, ((client, number),))
        self._commit(facts())

    def _commit(self, facts: Iterator[f.Fact]) -> None:
        while chunk := list(itertools.islice(facts, COMMIT)):
            self._store.commit(chunk)


def new_hub(folder: Path, *options: str) -> TestHub:
    """A hub that has been started once, so that it has its key and its ports, and is stopped."""
    hub = TestHub(folder / "hub", *options).start()
    hub.stop()
    return hub


def hub_with(folder: Path, clients: int) -> tuple[TestHub, list[Profile]]:
    """A hub that runs, with so many clients."""
    hub = new_hub(folder)
    with Past(hub) as past:
        profiles = past.clients(clients)
    return hub.start(), profiles
