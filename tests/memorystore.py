"""MemoryStore: the store's contract in plain dicts, for simulations and as the real one's oracle.

It takes the facts of a commit one after the other, in their order, and undoes them all when
one of them fails. `reopened()` is a restart: what was committed, and nothing else.
"""

import json
from collections.abc import Iterator
from typing import Any

from zbackbone import facts as f

NOTHING_BEHIND = (1 << 40) - 1       # "up to which this is all there is", when that is everything
_GONE = object()


class MemoryStore:
    def __init__(self, id: bytes) -> None:
        """id: 8 bytes."""
        self.id = id
        self.commits = 0             # transactions so far
        # Tables of unchangeable values: easily copied, easily undone. An inbox's entries are a table of their own.
        self._tables: dict[str, dict[Any, Any]] = {name: {} for name in (
            "clients", "keys", "invitations", "subscriptions", "outboxes", "inboxes", "doomed")}
        self._entries: dict[int, dict[Any, Any]] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def reopened(self) -> "MemoryStore":
        """Another store that begins where this one's last commit ended."""
        store = MemoryStore(self.id)
        store._tables = {name: dict(table) for name, table in self._tables.items()}
        store._entries = {client: dict(entries) for client, entries in self._entries.items()}
        return store

    # The contract ----------------------------------------------------------------------------
    def load(self) -> Iterator[f.Fact]:
        t = self._tables
        pending: dict[int, list[str]] = {}
        taken: dict[int, str] = {}
        for key, (client, state) in t["keys"].items():
            if state == "dropped":
                yield f.KeyDropped(client, key)
            elif state == "pending":
                pending.setdefault(client, []).append(key)
            else:
                taken[client] = key
        for client, (name, grants, created_ms) in t["clients"].items():
            yield f.Registered(client, name, taken[client], json.loads(grants), created_ms)
            for key in pending.get(client, ()):
                yield f.KeyAdded(client, key)
        for key, (name, grants, expires_ms) in t["invitations"].items():
            yield f.Invited(key, name, json.loads(grants), expires_ms)
        for client, pattern in t["subscriptions"]:
            yield f.Subscribed(client, pattern)
        for (client, outbox), (number, refused) in t["outboxes"].items():
            yield f.Moved(client, outbox, number, refused, False)
        yield from t["inboxes"].values()

    def commit(self, facts: list[f.Fact]) -> list[f.Freed]:
        acked: dict[int, None] = {}
        freed: dict[int, list[int]] = {}
        self._undo = []
        try:
            for fact in facts:
                if type(fact) is f.Acked:
                    acked[fact.client] = None
                self._take(fact, freed)
        except BaseException:
            for table, key, before in reversed(self._undo):
                if before is _GONE:
                    table.pop(key, None)
                else:
                    table[key] = before
            raise
        self.commits += 1
        return [f.Freed(client, *freed[client]) for client in acked if client in self._tables["clients"]]

    def read(self, client: int, after: int, bytes_max: int) -> tuple[list[tuple[int, bytes, bytes]], int]:
        entries = self._entries.get(client, {}) if client in self._tables["clients"] else {}
        out: list[tuple[int, bytes, bytes]] = []
        held = 0
        for number in sorted(number for number in entries if number > after):
            _, envelope, body = entries[number]
            out.append((number, envelope, body))
            held += len(envelope) + len(body)
            if held >= bytes_max:
                return out, number
        return out, NOTHING_BEHIND

    def tidy(self, entries_max: int) -> bool:
        """Deletes some entries of a revoked client. Returns whether there is more to do."""
        self._undo = []
        for client in self._tables["doomed"]:
            entries = self._entries.get(client, {})
            gone = sorted(entries)[:entries_max]
            for number in gone:
                self._drop(entries, number)
            if len(gone) < entries_max:
                self._drop(self._tables["doomed"], client)
            return True
        return False

    def held(self) -> int:
        """Entries there are, those of revoked clients included."""
        return sum(len(entries) for entries in self._entries.values())

    # One fact --------------------------------------------------------------------------------
    def _take(self, fact: f.Fact, freed: dict[int, list[int]]) -> None:
        t = self._tables
        match fact:
            case f.Invited(key, name, grants, expires_ms):
                assert key not in t["invitations"] and key not in t["keys"], "a key twice"
                self._put(t["invitations"], key, (name, json.dumps(grants), expires_ms))
            case f.InvitationEnded(key):
                self._drop(t["invitations"], key)
                self._put(t["keys"], key, (0, "dropped"))
            case f.Registered(client, name, key, grants, time_ms):
                assert client not in t["clients"] and key not in t["keys"], "a client or a key twice"
                assert name not in [row[0] for row in t["clients"].values()], "a name twice"
                self._put(t["clients"], client, (name, json.dumps(grants), time_ms))
                self._put(t["keys"], key, (client, "taken"))
                self._put(t["inboxes"], client, f.InboxAt(client, 1, 1, 0, 0, 0, 0))
            case f.KeyAdded(client, key):
                assert key not in t["keys"], "a key twice"
                self._put(t["keys"], key, (client, "pending"))
            case f.KeyUsed(_, key):
                self._put(t["keys"], key, (t["keys"][key][0], "taken"))
            case f.KeyDropped(_, key):
                self._put(t["keys"], key, (t["keys"][key][0], "dropped"))
            case f.Granted(client, grants):
                name, _, created_ms = t["clients"][client]
                self._put(t["clients"], client, (name, json.dumps(grants), created_ms))
            case f.Revoked(client):
                self._revoke(client)
            case f.Subscribed(client, pattern):
                self._put(t["subscriptions"], (client, pattern), None)
            case f.Unsubscribed(client, pattern):
                self._drop(t["subscriptions"], (client, pattern))
            case f.Stored(count, envelope, body, places):
                for client, number in places:
                    inbox = t["inboxes"][client]
                    assert number >= inbox.next, "an inbox number twice"
                    self._put(self._entries.setdefault(client, {}), number, (count, envelope, body))
                    self._put(t["inboxes"], client, inbox._replace(
                        next=number + 1, messages=inbox.messages + count,
                        size=inbox.size + len(envelope) + len(body)))
            case f.Moved(client, outbox, number, refused, _):
                if client not in t["clients"]:
                    return               # a lazy one, behind the end of its client
                self._put(t["outboxes"], (client, outbox), (number, tuple((n, c) for n, c in refused)))
            case f.OutboxForgotten(client, outbox):
                self._drop(t["outboxes"], (client, outbox))
            case f.Acked(client, number, skip):
                self._free(client, number, skip, freed)
            case f.Missed(client, messages):
                inbox = t["inboxes"][client]
                self._put(t["inboxes"], client, inbox._replace(missed=inbox.missed + messages))
            case _:
                raise ValueError(f"no way to store {type(fact).__name__}")

    def _free(self, client: int, number: int, skip: int, freed: dict[int, list[int]]) -> None:
        t = self._tables
        inbox, messages, size = t["inboxes"][client], 0, 0
        entries = self._entries.get(client, {})
        for gone in [n for n in entries if n < number]:
            count, envelope, body = entries[gone]
            self._drop(entries, gone)
            messages, size = messages + count, size + len(envelope) + len(body)
        self._put(t["inboxes"], client, inbox._replace(
            base=number, skip=skip, messages=inbox.messages - messages, size=inbox.size - size))
        sums = freed.setdefault(client, [0, 0])
        sums[0] += messages
        sums[1] += size

    def _revoke(self, client: int) -> None:
        t = self._tables
        self._put(t["doomed"], client, None)
        self._drop(t["clients"], client)
        self._drop(t["inboxes"], client)
        for table in (t["subscriptions"], t["outboxes"]):
            for row in [row for row in table if row[0] == client]:
                self._drop(table, row)
        for key in [key for key, (whose, _) in t["keys"].items() if whose == client]:
            self._put(t["keys"], key, (client, "dropped"))

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((table, key, table.get(key, _GONE)))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        self._undo.append((table, key, table.pop(key, _GONE)))
