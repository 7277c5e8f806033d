"""The store: what is committed is there again, and nothing else; and what SQLite alone must do."""

import gc
import os
import random
import sqlite3
import stat
from types import SimpleNamespace

import pytest
from memorystore import NOTHING_BEHIND, MemoryStore

from zbackbone import facts as f
from zbackbone.auth.policy import EVERYTHING, NOTHING, to_wire
from zbackbone.errors import Damaged, Misuse
from zbackbone.router import store as store_module
from zbackbone.router.journaled import JournaledStore
from zbackbone.router.store import NoRoom, SqliteStore

ID = b"store-id"
OTHER_ID = b"other-id"
ALL, NONE = to_wire(EVERYTHING), to_wire(NOTHING)
BOX = b"outbox-1"


def key(n):
    return f"{n:064x}"


def registered(client, name=None, n=None, grants=ALL):
    return f.Registered(client, name or f"c{client}", key(client if n is None else n), grants, 1000 + client)


def stored(*places, messages=1, body=b"body", envelope=b"envelope"):
    return f.Stored(messages, envelope, body, places)


def moved(client, number, *refused, outbox=BOX):
    return f.Moved(client, outbox, number, refused, False)


class InMemory:
    def __init__(self, _folder):
        self.store = MemoryStore(ID)

    def reopen(self):
        self.store = self.store.reopened()
        return self.store

    def close(self):
        pass

    def entries(self):
        return self.store.held()


class OnDisk:
    def __init__(self, folder):
        self.path = folder / "hub.db"
        self.store = SqliteStore(self.path, ID, reserve_bytes=4096)

    def reopen(self):
        self.close()
        self.store = SqliteStore(self.path, OTHER_ID, reserve_bytes=4096)
        return self.store

    def close(self):
        self.store.close()

    def entries(self):
        return value(self.store, "SELECT count(*) FROM entries")


class Journaled:
    """The database with its journal. Stopped in order, it has all in the database."""

    def __init__(self, folder):
        self.path = folder / "hub.db"
        self.store = self._open(ID)

    def _open(self, new_id):
        return JournaledStore(self.path, new_id, reserve_bytes=4096, journal_bytes=1 << 18)

    def reopen(self):
        self.close()
        self.store = self._open(OTHER_ID)
        return self.store

    def close(self):
        self.store.close()

    def entries(self):
        """Whichever has them."""
        pending = sum(len(change.entries) for change in self.store._pending.inboxes.values())
        return pending + value(self.store._db, "SELECT count(*) FROM entries")


class Crashing(Journaled):
    """The same, never stopped in order: what is pending is in the journal alone."""

    def close(self):
        self.store._journal.close()
        self.store._db.close()


@pytest.fixture(params=[InMemory, OnDisk, Journaled, Crashing])
def place(request, tmp_path):
    place = request.param(tmp_path)
    yield place
    place.close()


@pytest.fixture
def disk(tmp_path):
    place = OnDisk(tmp_path)
    yield place
    place.close()


def facts_of(store):
    return sorted(store.load(), key=lambda fact: (type(fact).__name__, repr(fact)))


def of_kind(store, kind):
    return [fact for fact in facts_of(store) if type(fact) is kind]


def numbers(store, client=1, after=0, bytes_max=1 << 30):
    return [number for number, _, _ in store.read(client, after, bytes_max)[0]]


def value(store, sql):
    return store._db.execute(sql).fetchone()[0]


# The contract, of both stores

def test_a_new_store_is_empty_and_keeps_its_identity(place):
    assert place.store.id == ID
    assert facts_of(place.store) == []
    assert place.store.read(1, 0, 1000) == ([], NOTHING_BEHIND)
    assert place.reopen().id == ID


EMPTY = f.InboxAt(1, 1, 1, 0, 0, 0, 0)

#   what was committed, and what a restart is told
REMEMBERED = [
    ([f.Invited(key(9), "new", ALL, 5000)],
     [f.Invited(key(9), "new", ALL, 5000)]),
    ([f.Invited(key(9), "new", ALL, 5000), f.InvitationEnded(key(9))],
     [f.KeyDropped(0, key(9))]),
    ([registered(1, "a", grants=NONE)],
     [registered(1, "a", grants=NONE), EMPTY]),
    ([registered(1, "a"), f.Granted(1, NONE)],
     [registered(1, "a", grants=NONE), EMPTY]),
    ([registered(1, "a"), f.KeyAdded(1, key(8))],
     [registered(1, "a"), f.KeyAdded(1, key(8)), EMPTY]),
    ([registered(1, "a"), f.KeyAdded(1, key(8)), f.KeyUsed(1, key(8)), f.KeyDropped(1, key(1))],
     [registered(1, "a", n=8), f.KeyDropped(1, key(1)), EMPTY]),
    ([registered(1, "a"), f.KeyAdded(1, key(8)), f.KeyDropped(1, key(1)), f.KeyUsed(1, key(8))],
     [registered(1, "a", n=8), f.KeyDropped(1, key(1)), EMPTY]),
    ([registered(1, "a"), f.KeyAdded(1, key(8)), f.KeyUsed(1, key(8)), f.KeyDropped(1, key(1)), f.KeyAdded(1, key(7))],
     [registered(1, "a", n=8), f.KeyDropped(1, key(1)), f.KeyAdded(1, key(7)), EMPTY]),
    ([registered(1, "a"), f.KeyDropped(1, key(1)), f.Revoked(1)],
     [f.KeyDropped(1, key(1))]),
    ([registered(1, "a"), f.KeyAdded(1, key(8)), f.Revoked(1)],
     [f.KeyDropped(1, key(1)), f.KeyDropped(1, key(8))]),
    ([registered(1), f.Subscribed(1, "a.#"), f.Subscribed(1, "b"), f.Subscribed(1, "b")],
     [registered(1), EMPTY, f.Subscribed(1, "a.#"), f.Subscribed(1, "b")]),
    ([registered(1), f.Subscribed(1, "a.#"), f.Subscribed(1, "b"), f.Unsubscribed(1, "a.#")],
     [registered(1), EMPTY, f.Subscribed(1, "b")]),
    ([registered(1), moved(1, 1), moved(1, 2), moved(1, 7, outbox=b"outbox-2")],
     [registered(1), EMPTY, moved(1, 2), moved(1, 7, outbox=b"outbox-2")]),
    ([registered(1), f.Moved(1, BOX, 3, (), True)],
     [registered(1), EMPTY, moved(1, 3)]),
    ([registered(1), moved(1, 4, (2, "forbidden"), (4, "inbox-full"))],
     [registered(1), EMPTY, moved(1, 4, (2, "forbidden"), (4, "inbox-full"))]),
    ([registered(1), moved(1, 4, (2, "forbidden")), moved(1, 5)],
     [registered(1), EMPTY, moved(1, 5)]),
    ([registered(1), moved(1, 4), f.OutboxForgotten(1, BOX)],
     [registered(1), EMPTY]),
    ([registered(1), f.Missed(1, 3), f.Missed(1, 4)],
     [registered(1), EMPTY._replace(missed=7)]),
    ([registered(1), stored((1, 1), messages=3, body=b"12345", envelope=b"678")],
     [registered(1), EMPTY._replace(next=2, messages=3, size=8)]),
    ([registered(1), stored((1, 1), messages=3, body=b"12345", envelope=b"678"), f.Acked(1, 1, 2)],
     [registered(1), EMPTY._replace(next=2, messages=3, size=8, skip=2)]),
    ([registered(1), stored((1, 1), messages=3, body=b"12345", envelope=b"678"), f.Acked(1, 2, 0)],
     [registered(1), EMPTY._replace(next=2, base=2)]),
    ([registered(1), f.Subscribed(1, "a"), moved(1, 3), stored((1, 1)), f.Acked(1, 1, 0), f.Revoked(1)],
     [f.KeyDropped(1, key(1))]),
    ([registered(1), f.Missed(1, 3), f.Revoked(1), registered(2)],
     [f.KeyDropped(1, key(1)), registered(2), EMPTY._replace(client=2)]),
]


@pytest.mark.parametrize("together", [True, False], ids=["one commit", "one each"])
@pytest.mark.parametrize(("facts", "told"), REMEMBERED, ids=lambda facts: type(facts[-1]).__name__)
def test_a_restart_is_told_what_was_committed(place, facts, told, together):
    if together:
        place.store.commit(facts)
    else:
        for fact in facts:
            place.store.commit([fact])
    told = sorted(told, key=lambda fact: (type(fact).__name__, repr(fact)))
    assert facts_of(place.store) == told
    assert facts_of(place.reopen()) == told


def test_an_inbox_gives_back_its_batches_in_order_and_unchanged(place):
    place.store.commit([registered(1), registered(2)])
    place.store.commit([stored((1, 1), body=b"one", envelope=b"x"), stored((2, 1), body=b"other"),
                        stored((1, 2), body=b"\0\xff" * 5000, envelope=b"y")])
    expected = [(1, b"x", b"one"), (2, b"y", b"\0\xff" * 5000)]
    for _ in range(2):
        store = place.reopen()
        assert store.read(1, 0, 1 << 20) == (expected, NOTHING_BEHIND)
        assert store.read(1, 1, 1 << 20) == (expected[1:], NOTHING_BEHIND)
        assert store.read(1, 2, 1 << 20) == ([], NOTHING_BEHIND)
        assert store.read(3, 0, 1 << 20) == ([], NOTHING_BEHIND)


def test_an_empty_body_and_an_empty_envelope_are_kept_too(place):
    place.store.commit([registered(1), registered(2), stored((1, 1), body=b"", envelope=b""),
                        stored((1, 2), (2, 1), body=b"", envelope=b"")])
    assert place.reopen().read(1, 0, 1) == ([(1, b"", b""), (2, b"", b"")], NOTHING_BEHIND)
    assert place.store.read(2, 0, 1) == ([(1, b"", b"")], NOTHING_BEHIND)


#   budget   what is read of five batches of 10 bytes     up to
BUDGETS = [
    (1,      [1],                                         1),
    (10,     [1],                                         1),
    (11,     [1, 2],                                      2),
    (20,     [1, 2],                                      2),
    (49,     [1, 2, 3, 4, 5],                             5),
    (50,     [1, 2, 3, 4, 5],                             5),
    (51,     [1, 2, 3, 4, 5],                             NOTHING_BEHIND),
]


@pytest.mark.parametrize(("budget", "found", "upto"), BUDGETS)
def test_a_read_ends_with_the_batch_that_uses_up_its_bytes(place, budget, found, upto):
    place.store.commit([registered(1), *(stored((1, n), body=b"123456", envelope=b"7890") for n in range(1, 6))])
    entries, until = place.store.read(1, 0, budget)
    assert ([number for number, _, _ in entries], until) == (found, upto)


def test_one_batch_is_read_even_if_it_is_larger_than_what_was_asked_for(place):
    place.store.commit([registered(1), stored((1, 1), body=b"x" * 5000), stored((1, 2))])
    assert numbers(place.store, bytes_max=100) == [1]


def test_what_is_acknowledged_is_gone_and_its_size_is_told(place):
    place.store.commit([registered(1), *(stored((1, n), messages=n, body=b"x" * n, envelope=b"")
                                         for n in (1, 2, 3, 4))])
    assert place.store.commit([f.Acked(1, 3, 0)]) == [f.Freed(1, 3, 3)]
    assert numbers(place.store) == [3, 4]
    assert place.store.commit([f.Acked(1, 4, 2)]) == [f.Freed(1, 3, 3)]
    assert numbers(place.reopen()) == [4]
    assert of_kind(place.store, f.InboxAt) == [f.InboxAt(1, 5, 4, 2, 4, 4, 0)]
    assert place.store.commit([f.Acked(1, 4, 3)]) == [f.Freed(1, 0, 0)]
    assert place.entries() == 1


def test_several_acknowledgements_in_one_commit_are_told_once(place):
    place.store.commit([registered(1), registered(2), *(stored((1, n), (2, n), body=b"", envelope=b"12")
                                                        for n in (1, 2, 3))])
    freed = place.store.commit([f.Acked(1, 2, 0), f.Acked(2, 2, 0), f.Acked(1, 4, 0)])
    assert sorted(freed) == [f.Freed(1, 3, 6), f.Freed(2, 1, 2)]
    assert numbers(place.store, 1) == [] and numbers(place.store, 2) == [2, 3]


def test_a_batch_may_be_accepted_and_acknowledged_in_one_commit(place):
    place.store.commit([registered(1)])
    freed = place.store.commit([stored((1, 1), messages=2), stored((1, 2), messages=3), f.Acked(1, 2, 1)])
    assert freed == [f.Freed(1, 2, 12)]
    assert of_kind(place.reopen(), f.InboxAt) == [f.InboxAt(1, 3, 2, 1, 3, 12, 0)]
    assert numbers(place.store) == [2]


def test_an_acknowledgement_frees_nothing_of_another_s_inbox(place):
    place.store.commit([registered(n) for n in (1, 2, 3)])
    place.store.commit([stored((n, 1)) for n in (1, 2, 3)])
    place.store.commit([f.Acked(2, 2, 0)])
    assert [numbers(place.store, n) for n in (1, 2, 3)] == [[1], [], [1]]


def test_numbers_go_on_where_they_were_in_an_inbox_that_was_emptied(place):
    place.store.commit([registered(1), stored((1, 1)), stored((1, 2))])
    place.store.commit([f.Acked(1, 3, 0)])
    assert of_kind(place.reopen(), f.InboxAt) == [f.InboxAt(1, 3, 3, 0, 0, 0, 0)]
    place.store.commit([stored((1, 3))])
    assert numbers(place.reopen()) == [3]


def test_a_body_for_several_is_freed_when_its_last_reader_is_done(place):
    place.store.commit([registered(n) for n in (1, 2, 3)])
    place.store.commit([stored((1, 1), (2, 1), (3, 1), body=b"shared")])
    place.store.commit([f.Acked(1, 2, 0)])
    assert place.reopen().read(2, 0, 100)[0] == [(1, b"envelope", b"shared")]
    place.store.commit([f.Acked(2, 2, 0)])
    assert place.store.read(3, 0, 100)[0] == [(1, b"envelope", b"shared")]
    place.store.commit([f.Acked(3, 2, 0)])
    assert place.entries() == 0


def test_a_revoked_client_is_forgotten_but_for_its_keys(place):
    place.store.commit([registered(1), registered(2), f.KeyAdded(1, key(8)), f.Subscribed(1, "a"), moved(1, 3),
                        moved(2, 3), f.Subscribed(2, "a"), stored((1, 1), (2, 1))])
    assert place.store.commit([f.Acked(1, 2, 0), f.Revoked(1)]) == []
    assert facts_of(place.reopen()) == sorted(
        [f.KeyDropped(1, key(1)), f.KeyDropped(1, key(8)), registered(2), moved(2, 3), f.Subscribed(2, "a"),
         f.InboxAt(2, 2, 1, 0, 1, 12, 0)], key=lambda fact: (type(fact).__name__, repr(fact)))


def test_a_lazy_fact_behind_its_client_s_end_leaves_nothing(place):
    place.store.commit([registered(1)])
    place.store.commit([f.KeyDropped(1, key(1)), f.Revoked(1), f.Moved(1, BOX, 4, (), True)])
    assert facts_of(place.reopen()) == [f.KeyDropped(1, key(1))]


def test_a_name_is_free_again_after_its_revocation(place):
    place.store.commit([registered(1, "a"), f.Subscribed(1, "x"), stored((1, 1))])
    place.store.commit([f.Revoked(1)])
    place.store.commit([registered(2, "a")])
    assert of_kind(place.reopen(), f.Registered) == [registered(2, "a")]
    assert numbers(place.store, 2) == []


def test_a_name_may_be_revoked_and_given_anew_in_one_commit(place):
    place.store.commit([registered(1, "a"), stored((1, 1))])
    place.store.commit([f.KeyDropped(1, key(1)), f.Revoked(1), registered(2, "a")])
    assert of_kind(place.reopen(), f.Registered) == [registered(2, "a")]


def test_an_outbox_forgotten_and_used_again_in_one_commit_is_remembered(place):
    """As when a client has many outboxes, and one that made room for another sends again."""
    place.store.commit([registered(1), moved(1, 3)])
    place.store.commit([f.OutboxForgotten(1, BOX), moved(1, 4)])
    assert of_kind(place.reopen(), f.Moved) == [moved(1, 4)]


def test_what_a_revoked_client_had_is_tidied_away_bit_by_bit(place):
    place.store.commit([registered(1), registered(2)])
    place.store.commit([stored((1, 1), (2, 1)), *(stored((1, n)) for n in range(2, 8))])
    place.store.commit([f.Revoked(1)])
    assert place.store.tidy(3)
    assert place.entries() == 5
    place.reopen()
    rounds = 0
    while place.store.tidy(3):
        rounds += 1
        assert rounds < 5
    assert place.entries() == 1
    assert numbers(place.store, 2) == [1]
    assert place.store.commit([f.Acked(2, 2, 0)]) == [f.Freed(2, 1, 12)]
    assert place.entries() == 0


def test_there_is_nothing_to_tidy_where_nobody_was_revoked(place):
    place.store.commit([registered(1), stored((1, 1))])
    assert not place.store.tidy(100)
    assert numbers(place.store) == [1]


#   facts that can't be stored
FAILING = [
    [f.Freed(1, 1, 1)],
    [f.InboxAt(1, 1, 1, 0, 0, 0, 0)],
    [registered(1, "other", n=7)],
    [registered(7, "c1")],
    [f.KeyAdded(1, key(1))],
]


@pytest.mark.parametrize("failing", FAILING, ids=repr)
def test_a_commit_that_fails_leaves_nothing_of_itself(place, failing):
    place.store.commit([registered(1), f.Subscribed(1, "a"), stored((1, 1)), stored((1, 2)), moved(1, 2)])
    before, held = facts_of(place.store), place.store.read(1, 0, 1000)
    with pytest.raises((sqlite3.Error, ValueError, AssertionError)):
        place.store.commit([f.Acked(1, 2, 0), stored((1, 3)), moved(1, 3), f.Unsubscribed(1, "a"), f.Missed(1, 2),
                            registered(5), *failing, registered(6)])
    assert facts_of(place.reopen()) == before
    assert place.store.read(1, 0, 1000) == held


class History:
    """Random commits such as a hub makes."""

    def __init__(self, rng):
        self.rng = rng
        self.last_id = self.last_key = 0
        self.clients = {}
        self.invited = {}

    def commit(self):
        facts = []
        for _ in range(self.rng.randint(1, 9)):
            facts += self.rng.choices(
                [self.register, self.invite, self.join, self.rotate, self.use, self.revoke, self.subscribe,
                 self.unsubscribe, self.store, self.move, self.forget, self.ack, self.miss, self.grant],
                [3, 1, 1, 1, 1, 1, 2, 1, 14, 8, 1, 8, 1, 1])[0]()
        return facts

    def any_client(self):
        return self.rng.choice(sorted(self.clients)) if self.clients else None

    def new_key(self):
        self.last_key += 1
        return key(self.last_key)

    def free_name(self):
        taken = {*self.invited.values(), *(client.name for client in self.clients.values())}
        names = [f"n{n}" for n in range(9) if f"n{n}" not in taken]
        return self.rng.choice(names) if names else None

    def registered(self, name):
        self.last_id += 1
        new = self.new_key()
        self.clients[self.last_id] = SimpleNamespace(
            name=name, key=new, pending=[], next=1, base=1, skip=0, counts={}, boxes={}, patterns=set())
        return f.Registered(self.last_id, name, new, self.rng.choice([ALL, NONE]), self.rng.randrange(1 << 40))

    def register(self):
        name = self.free_name()
        return [self.registered(name)] if name else []

    def invite(self):
        name, new = self.free_name(), self.new_key()
        if not name:
            return []
        self.invited[new] = name
        return [f.Invited(new, name, ALL, 99)]

    def join(self):
        if not self.invited:
            return []
        invitation = self.rng.choice(sorted(self.invited))
        name = self.invited.pop(invitation)
        return [f.InvitationEnded(invitation), self.registered(name)]

    def rotate(self):
        if not (client := self.any_client()):
            return []
        me, new = self.clients[client], self.new_key()
        gone, me.pending = me.pending, [new]
        return [f.KeyAdded(client, new), *(f.KeyDropped(client, old) for old in gone)]

    def use(self):
        if not (client := self.any_client()) or not self.clients[client].pending:
            return []
        me = self.clients[client]
        old, me.key, me.pending = me.key, me.pending[0], []
        return [f.KeyUsed(client, me.key), f.KeyDropped(client, old)]

    def revoke(self):
        if not (client := self.any_client()):
            return []
        me = self.clients.pop(client)
        return [*(f.KeyDropped(client, k) for k in [me.key, *me.pending]), f.Revoked(client)]

    def subscribe(self):
        if not (client := self.any_client()):
            return []
        pattern = self.rng.choice("abcd")
        self.clients[client].patterns.add(pattern)
        return [f.Subscribed(client, pattern)]

    def unsubscribe(self):
        if not (client := self.any_client()) or not self.clients[client].patterns:
            return []
        return [f.Unsubscribed(client, self.clients[client].patterns.pop())]

    def store(self):
        places = []
        count = self.rng.randint(1, 5)
        for client in self.rng.sample(sorted(self.clients), min(len(self.clients), self.rng.choice([1, 1, 2, 4]))):
            me = self.clients[client]
            me.next += self.rng.choice((0, 0, 0, 0, 0, 1000))       # as a restart leaves some out
            places.append((client, me.next))
            me.counts[me.next] = count
            me.next += 1
        if not places:
            return []
        return [f.Stored(count, self.rng.randbytes(self.rng.randint(1, 30)),
                         self.rng.randbytes(self.rng.choice([1, 9, 300])), tuple(places))]

    def move(self):
        if not (client := self.any_client()):
            return []
        boxes, box = self.clients[client].boxes, self.rng.choice([b"outbox-1", b"outbox-2", b"outbox-3"])
        boxes[box] = boxes.get(box, 0) + 1
        refused = tuple((n, "forbidden") for n in range(max(1, boxes[box] - 3), boxes[box]) if self.rng.random() < 0.3)
        return [f.Moved(client, box, boxes[box], refused, self.rng.random() < 0.2)]

    def forget(self):
        if not (client := self.any_client()) or not self.clients[client].boxes:
            return []
        box = self.rng.choice(sorted(self.clients[client].boxes))
        del self.clients[client].boxes[box]
        return [f.OutboxForgotten(client, box)]

    def ack(self):
        if not (client := self.any_client()):
            return []
        me = self.clients[client]
        number = self.rng.choice([me.next, *(n for n in me.counts if n >= me.base)])
        skip = self.rng.randint(0, me.counts[number] - 1) if number < me.next else 0
        if (number, skip) <= (me.base, me.skip):
            return []
        me.base, me.skip = number, skip
        return [f.Acked(client, number, skip)]

    def miss(self):
        return [f.Missed(client, self.rng.randint(1, 9))] if (client := self.any_client()) else []

    def grant(self):
        return [f.Granted(client, self.rng.choice([ALL, NONE]))] if (client := self.any_client()) else []


def given_back(freed):
    """client -> messages and bytes, however many facts say it."""
    total = {}
    for client, messages, size in freed:
        before = total.get(client, (0, 0))
        total[client] = before[0] + messages, before[1] + size
    return total


@pytest.mark.parametrize("trial", range(4))
@pytest.mark.parametrize("kind", [OnDisk, Journaled, Crashing])
def test_a_random_history_leaves_the_same_in_both_stores(tmp_path, kind, trial):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    plain, real = InMemory(tmp_path), kind(tmp_path)
    history = History(rng)
    for step in range(150):
        facts = history.commit()
        assert given_back(real.store.commit(facts)) == given_back(plain.store.commit(facts)), step
        if rng.random() < 0.2:
            assert real.store.tidy(50) == plain.store.tidy(50)
        restarts = rng.random() < 0.05
        if restarts:
            real.reopen()
            plain.reopen()
        if restarts or kind is OnDisk or rng.random() < 0.02:        # asking a journaled one ends its round
            assert facts_of(real.store) == facts_of(plain.store), step
        for client in range(1, history.last_id + 1):
            if client in history.clients:
                after, budget = rng.randint(0, history.clients[client].next), rng.choice([1, 300, 1000, 1 << 20])
                assert real.store.read(client, after, budget) == plain.store.read(client, after, budget), step
    while real.store.tidy(5):
        pass
    while plain.store.tidy(5):
        pass
    assert real.entries() == plain.entries() == sum(
        number >= client.base for client in history.clients.values() for number in client.counts)
    real.store.commit([f.Acked(client, me.next, 0) for client, me in history.clients.items()])
    real.reopen()
    database = real.store if kind is OnDisk else real.store._db
    assert [value(database, f"SELECT count(*) FROM {table}") for table in ("entries", "shared", "wanted")] == [0] * 3
    assert real.store.damaged == 0
    real.close()


# SQLite: how it writes

def test_a_commit_waits_for_the_disk(disk):
    for _ in range(2):
        assert value(disk.store, "PRAGMA synchronous") == 2        # FULL
        assert value(disk.store, "PRAGMA journal_mode") == "persist"
        assert value(disk.store, "PRAGMA locking_mode") == "exclusive"
        disk.reopen()


def test_it_waits_for_the_disk_whatever_sqlite_was_built_to_do(tmp_path, monkeypatch):
    real = sqlite3.connect

    def careless(*args, **more):
        db = real(*args, **more)
        db.execute("PRAGMA synchronous = OFF")
        return db
    monkeypatch.setattr(sqlite3, "connect", careless)
    store = SqliteStore(tmp_path / "hub.db", ID, 4096)
    assert value(store, "PRAGMA synchronous") == 2
    store.close()


def test_where_no_journal_can_be_kept_there_is_no_store(tmp_path, monkeypatch):
    real = sqlite3.connect
    (tmp_path / "hub.db").touch()
    monkeypatch.setattr(sqlite3, "connect", lambda path, **more: real(":memory:", **more))
    with pytest.raises(Misuse, match="local disk") as caught:
        SqliteStore(tmp_path / "hub.db", ID, 4096)
    assert caught.value.code == "no-rollback"


def test_its_file_says_what_it_is(disk):
    """To `file`, and to every later version of this program: none of it may ever change."""
    disk.close()
    header = disk.path.read_bytes()[:100]
    assert header[68:72] == b"zbkb"                                  # application_id
    assert int.from_bytes(header[60:64], "big") == 2                 # user_version
    assert int.from_bytes(header[16:18], "big") == store_module.PAGE_BYTES


def test_however_many_facts_a_commit_is_one_transaction(disk):
    history = History(random.Random(1))
    facts = [fact for _ in range(30) for fact in history.commit() if type(fact) is not f.Revoked]
    said = []
    disk.store._db.set_trace_callback(said.append)
    disk.store.commit(facts[:1])
    disk.store.commit(facts[1:2])
    turns = [line.split()[0] for line in said if line.split()[0] in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT")]
    assert turns == ["BEGIN", "COMMIT"] * 2
    said.clear()
    disk.store.commit([registered(900), registered(901), stored((900, 1), (901, 1)), stored((900, 2)), moved(900, 1),
                       f.Acked(900, 2, 0), f.Subscribed(901, "a"), f.Missed(901, 1), f.Revoked(901)])
    assert said[0].startswith("BEGIN") and said[-1] == "COMMIT"
    assert sum(line.startswith(("BEGIN", "COMMIT")) for line in said) == 2


def test_a_store_that_was_never_closed_is_whole_again(disk, tmp_path):
    """As after kill -9: the files as they lie there, copied under a running store."""
    disk.store.commit([registered(1), stored((1, 1), body=b"precious"), moved(1, 1)])
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("hub.db*"):
        (left / file.name).write_bytes(file.read_bytes())
    other = SqliteStore(left / "hub.db", OTHER_ID, 4096)
    assert other.id == ID
    assert facts_of(other) == facts_of(disk.store)
    assert other.read(1, 0, 100) == disk.store.read(1, 0, 100)
    other.close()


def test_a_commit_that_the_disk_has_only_in_part_counts_for_nothing(disk, tmp_path):
    """Some of its pages are on disk, with the journal that takes them back; or only a piece of that journal."""
    disk.store.commit([registered(1), registered(2), *(stored((1, n), body=b"x" * 3000) for n in range(1, 30))])
    disk.store.commit([f.Acked(1, 12, 0)])           # pages that are free, and used again
    facts, before = facts_of(disk.store), (tmp_path / "hub.db").read_bytes()
    ended, whole = disk.store._commit, {}

    def end():
        whole["head"] = (tmp_path / "hub.db-journal").read_bytes()[:28]
        ended()
    disk.store._commit = end
    disk.store.commit([*(stored((1, n), body=b"y" * 9000) for n in range(30, 34)), f.Acked(1, 20, 0), moved(1, 2),
                       f.Subscribed(2, "a")])
    after, journal = (tmp_path / "hub.db").read_bytes(), (tmp_path / "hub.db-journal").read_bytes()
    # The commit was the wiping of the journal's head. It had been its magic, "all records there are", and the rest.
    assert journal[:28] == bytes(28) and whole["head"][12:] != bytes(16)
    hot = bytes.fromhex("d9d505f920a163d7ffffffff") + whole["head"][12:] + journal[28:]
    size = store_module.PAGE_BYTES
    changed = [at for at in range(0, len(after), size) if after[at:at + size] != before[at:at + size]]
    assert len(changed) > 5
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)

    def reopened(number, main, log):
        left = tmp_path / f"left-{number}"
        left.mkdir()
        (left / "hub.db").write_bytes(main)
        (left / "hub.db-journal").write_bytes(log)
        other = SqliteStore(left / "hub.db", OTHER_ID, 4096)
        found = facts_of(other), numbers(other)
        other.close()
        return found
    expected = facts, list(range(12, 30))
    for trial in range(40):
        main = bytearray(before.ljust(len(after), b"\0") if trial % 2 else before)
        for at in rng.sample(changed, rng.randrange(len(changed) + 1)):
            main[at:at + size] = after[at:at + size]
        assert reopened(trial, main, hot) == expected
    for cut in range(0, len(hot), 4999):             # the journal is on disk before a page is touched
        assert reopened(f"cut-{cut}", before, hot[:cut]) == expected
    assert reopened("whole", after, journal) == (facts_of(disk.store), numbers(disk.store)) != expected


def test_nobody_else_gets_at_an_open_store(disk):
    disk.store.commit([registered(1)])
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(disk.path, timeout=0).execute("SELECT * FROM clients")


def test_its_files_are_its_owner_s_alone(tmp_path):
    old = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "hub.db", ID, 4096)
        store.commit([registered(1)])
    finally:
        os.umask(old)
    for file in ("hub.db", "hub.db-journal", "reserve"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600, file
    store.close()


def test_a_body_for_many_is_stored_once(disk):
    disk.store.commit([registered(n) for n in range(1, 51)])
    disk.store.commit([stored(*((n, 1) for n in range(1, 51)), body=b"x" * 100_000)])
    assert value(disk.store, "SELECT count(*) FROM entries") == 50
    assert value(disk.store, "SELECT count(*) FROM shared") == 1
    assert value(disk.store, "PRAGMA page_count") * 4096 < 300_000
    disk.store.commit([f.Acked(n, 2, 0) for n in range(1, 50)])
    assert value(disk.store, "SELECT count(*) FROM shared") == 1
    disk.store.commit([f.Revoked(50)])
    assert disk.store.read(50, 0, 100)[0] == [] or disk.store.tidy(10)
    while disk.store.tidy(10):
        pass
    assert value(disk.store, "SELECT count(*) FROM shared") == value(disk.store, "SELECT count(*) FROM wanted") == 0


def test_a_body_of_before_a_restart_is_not_taken_for_one_of_after_it(disk):
    disk.store.commit([registered(1), registered(2), stored((1, 1), (2, 1), body=b"old")])
    disk.reopen().commit([stored((1, 2), (2, 2), body=b"new")])
    assert [body for _, _, body in disk.reopen().read(2, 0, 1000)[0]] == [b"old", b"new"]
    assert disk.store.damaged == 0


def test_space_is_used_again(disk):
    disk.store.commit([registered(1), registered(2)])
    next_number, pages = 1, []
    for _ in range(200):
        facts = [stored((1, next_number + n), (2, next_number + n), body=b"x" * 9000) for n in range(10)]
        disk.store.commit([*facts, *(stored((1, next_number + n), body=b"y" * 9000) for n in range(10, 20)),
                           *(stored((2, next_number + n), body=b"z" * 9000) for n in range(10, 20))])
        next_number += 20
        disk.store.commit([f.Acked(1, next_number, 0), f.Acked(2, next_number, 0)])
        pages.append(value(disk.store, "PRAGMA page_count"))
    assert pages[-1] <= pages[5]
    assert disk.path.stat().st_size <= store_module.PAGE_BYTES * pages[5]
    assert disk.path.with_name("hub.db-journal").stat().st_size <= store_module.ROLLBACK_BYTES


# SQLite: what it refuses to open

def refusal(path, kind):
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(kind) as caught:
        store = SqliteStore(path, OTHER_ID, 4096)
        list(store.load())
    error = caught.value
    assert str(path) in error.text and "\n" not in error.text and len(error.text) < 400
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    assert after.get(path.name) == before.get(path.name), "what was there was changed"
    return error


def make(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_store_of_a_newer_version_is_refused(disk):
    disk.store.commit([registered(1)])
    disk.close()
    make(disk.path, f"PRAGMA user_version = {store_module.SCHEMA + 1}")
    error = refusal(disk.path, Misuse)
    assert error.code == "store-too-new" and "install" in error.text
    make(disk.path, f"PRAGMA user_version = {store_module.SCHEMA}")
    assert of_kind(disk.reopen(), f.Registered) == [registered(1)]


#   a file that is no store                    how it is made
STRANGERS = {
    "another program's database": lambda path: make(path, "CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"),
    "another program's, marked": lambda path: make(path, "PRAGMA application_id = 7", "CREATE TABLE clients (id)"),
    "noise": lambda path: path.write_bytes(random.Random(1).randbytes(50_000)),
    "a text": lambda path: path.write_text("precious\n" * 1000),
    "a byte": lambda path: path.write_bytes(b"x"),
    "zeros": lambda path: path.write_bytes(bytes(20_000)),
}


def test_a_file_with_our_mark_and_nothing_else_of_ours_is_refused(tmp_path):
    make(tmp_path / "hub.db", f"PRAGMA application_id = {store_module.APPLICATION_ID}",
         f"PRAGMA user_version = {store_module.SCHEMA}", "CREATE TABLE t (x)")
    with pytest.raises((Damaged, Misuse), match="hub.db"):
        SqliteStore(tmp_path / "hub.db", OTHER_ID, 4096)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path, stranger):
    path = tmp_path / "hub.db"
    STRANGERS[stranger](path)
    assert refusal(path, Damaged).code == "store-damaged"


def filled(place, batches=60):
    place.store.commit([registered(n) for n in range(1, 11)])
    place.store.commit([stored((1, n), body=b"%04d" % n * 100) for n in range(1, batches + 1)])
    place.close()
    return place.path.read_bytes()


def test_a_store_that_was_cut_off_is_never_an_empty_one(disk):
    whole = filled(disk)
    refused = 0
    for size in range(1, len(whole), 4096 // 3):
        disk.path.write_bytes(whole[:size])
        try:
            store = SqliteStore(disk.path, OTHER_ID, 4096)
            try:
                assert len(of_kind(store, f.Registered)) == 10
                assert len(numbers(store)) + store.damaged == 60     # its last page alone
            finally:
                store.close()
        except (Damaged, Misuse, sqlite3.DatabaseError):
            refused += 1
    assert refused > 10


def test_a_file_of_no_length_is_a_new_store(tmp_path):
    """Whether there was one before is known to its folder, which holds the hub's key."""
    path = tmp_path / "hub.db"
    path.touch()
    store = SqliteStore(path, ID, 4096)
    store.commit([registered(1)])
    store.close()
    again = SqliteStore(path, OTHER_ID, 4096)
    assert again.id == ID and of_kind(again, f.Registered) == [registered(1)]
    again.close()


@pytest.mark.parametrize("left", ["no file", "an empty file", "a header"])
def test_where_a_store_must_be_none_is_made(tmp_path, left):
    """A hub that has a key has had a store: an empty one in its place would be silent loss."""
    path = tmp_path / "hub.db"
    if left == "an empty file":
        path.touch()
    elif left == "a header":
        make(path, "PRAGMA journal_mode = WAL")
        assert path.stat().st_size > 0
    with pytest.raises(Damaged, match="nothing in it"):
        SqliteStore(path, ID, 4096, may_make=False)
    gc.collect()
    store = SqliteStore(path, ID, 4096)
    assert store.id == ID
    store.commit([registered(1)])
    store.close()
    again = SqliteStore(path, OTHER_ID, 4096, may_make=False)
    assert of_kind(again, f.Registered) == [registered(1)]
    again.close()


def test_a_store_that_was_refused_is_let_go(tmp_path):
    path = tmp_path / "hub.db"
    make(path, "PRAGMA journal_mode = WAL")
    with pytest.raises(Damaged) as caught:
        SqliteStore(path, ID, 4096, may_make=False)
    db = sqlite3.connect(path, timeout=0)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("CREATE TABLE t (x)")
    db.close()
    del caught                                       # it holds what was under way, up to here


def test_a_store_that_lost_its_identity_is_refused(disk):
    disk.close()
    for change in ("UPDATE meta SET value = x'00'", "DELETE FROM meta", "DROP TABLE meta"):
        make(disk.path, change)
        assert refusal(disk.path, (Damaged, Misuse))


@pytest.mark.parametrize("change", [
    "UPDATE clients SET grants = 'x'", "UPDATE clients SET grants = x'ff'", "DELETE FROM keys",
    "UPDATE outboxes SET refused = '[1]'", "UPDATE outboxes SET refused = 'x'", "DROP TABLE subscriptions",
    "UPDATE invitations SET grants = '{'",
])
def test_a_row_that_makes_no_sense_is_damage(disk, change):
    disk.store.commit([registered(1), moved(1, 1), f.Invited(key(9), "new", ALL, 5)])
    disk.close()
    make(disk.path, change)
    error = refusal(disk.path, Damaged)
    assert error.code == "store-damaged" and "backup" in error.text


def test_a_file_whose_permissions_cannot_be_set_is_not_used(tmp_path, monkeypatch):
    def forbidden(path, mode):
        raise PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(os, "chmod", forbidden)
    with pytest.raises(Misuse, match="not permitted") as caught:
        SqliteStore(tmp_path / "hub.db", ID, 4096)
    assert caught.value.code == "cannot-open"


@pytest.mark.parametrize("where", ["nowhere/hub.db", "", "file/hub.db"])
def test_a_place_where_no_store_can_be_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    with pytest.raises(Misuse) as caught:
        SqliteStore(tmp_path / where, ID, 4096)
    assert caught.value.code == "cannot-open" and str(tmp_path / where) in caught.value.text


# SQLite: what was damaged is not delivered

DAMAGES = {
    "a body": "UPDATE {} SET body = CAST(substr(body, 1, 3) || x'00' || substr(body, 5) AS BLOB) WHERE id = {}",
    "an envelope": "UPDATE {} SET envelope = CAST('X' || substr(envelope, 2) AS BLOB) WHERE id = {}",
    "a body's end": "UPDATE {} SET body = substr(body, 1, length(body) - 1) WHERE id = {}",
    "a sum": "UPDATE {} SET sum = sum + 1 WHERE id = {}",
    "a body without a byte": "UPDATE {} SET body = x'' WHERE id = {}",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_batch_is_left_out_and_counted(disk, damage):
    disk.store.commit([registered(1), *(stored((1, n), body=b"body %d" % n) for n in (1, 2, 3))])
    disk.store._db.execute(DAMAGES[damage].format("entries", 1 << store_module.NUMBER_BITS | 2))
    assert disk.store.read(1, 0, 1000) == (
        [(1, b"envelope", b"body 1"), (3, b"envelope", b"body 3")], NOTHING_BEHIND)
    assert disk.store.damaged == 1
    assert disk.store.commit([f.Acked(1, 4, 0)]) == [f.Freed(1, 3, 42)]
    assert disk.entries() == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_body_of_many_is_given_to_none(disk, damage):
    disk.store.commit([registered(1), registered(2), stored((1, 1), (2, 1)), stored((1, 2)), stored((2, 2))])
    disk.store._db.execute(DAMAGES[damage].format("shared", 1))
    assert numbers(disk.store, 1) == numbers(disk.store, 2) == [2]
    assert disk.store.damaged == 2


def test_a_body_of_many_that_is_gone_is_damage(disk):
    disk.store.commit([registered(1), registered(2), stored((1, 1), (2, 1)), stored((1, 2))])
    disk.store._db.execute("DELETE FROM shared")
    assert disk.store.read(1, 0, 1000) == ([(2, b"envelope", b"body")], NOTHING_BEHIND)
    assert disk.store.damaged == 1


def test_a_batch_that_turns_up_in_another_place_is_damage(disk):
    disk.store.commit([registered(1), stored((1, 1), body=b"one"), stored((1, 2), body=b"two")])
    one, two = (1 << store_module.NUMBER_BITS | n for n in (1, 2))
    disk.store._db.execute(f"UPDATE entries SET id = 7 WHERE id = {one}")
    disk.store._db.execute(f"UPDATE entries SET id = {one} WHERE id = {two}")
    assert numbers(disk.store) == []
    assert disk.store.damaged == 1


@pytest.mark.parametrize("flip", [1 << store_module.NUMBER_BITS, 1 << 33], ids=["client", "number"])
def test_a_batch_that_turns_up_in_another_s_inbox_is_damage_too(disk, flip):
    disk.store.commit([registered(2), registered(3), stored((2, 1), body=b"for 2 alone")])
    disk.store._db.execute(f"UPDATE entries SET id = {(2 << store_module.NUMBER_BITS | 1) ^ flip}")
    assert numbers(disk.store, 2) == numbers(disk.store, 3) == []
    assert disk.store.damaged == 1


def test_damage_at_the_end_of_a_read_is_passed_over(disk):
    disk.store.commit([registered(1), *(stored((1, n), body=b"123456", envelope=b"7890") for n in range(1, 6))])
    disk.store._db.execute("UPDATE entries SET sum = sum + 1 WHERE id % 2 = 0")
    assert disk.store.read(1, 0, 20) == ([(1, b"7890", b"123456"), (3, b"7890", b"123456")], 3)
    assert disk.store.read(1, 3, 20) == ([(5, b"7890", b"123456")], NOTHING_BEHIND)


@pytest.mark.parametrize("column", ["envelope", "body"])
def test_a_batch_whose_bytes_have_become_text_is_damage_too(disk, column):
    """One bit in a row's header says whether its bytes are a BLOB or TEXT."""
    disk.store.commit([registered(1), stored((1, 1)), stored((1, 2))])
    ident = 1 << store_module.NUMBER_BITS | 1
    disk.store._db.execute(f"UPDATE entries SET {column} = CAST({column} AS TEXT) WHERE id = {ident}")
    assert numbers(disk.store) == [2]
    assert disk.store.damaged == 1


def test_any_single_bit_of_a_batch_is_missed_when_it_flips(disk):
    disk.store.commit([registered(1), stored((1, 1), body=b"0123456789", envelope=b"env")])
    for column, text in (("envelope", b"env"), ("body", b"0123456789")):
        for bit in range(8 * len(text)):
            flipped = (int.from_bytes(text, "big") ^ 1 << bit).to_bytes(len(text), "big")
            disk.store._db.execute(f"UPDATE entries SET {column} = ?", (flipped,))
            assert numbers(disk.store) == [], (column, bit)
        disk.store._db.execute(f"UPDATE entries SET {column} = ?", (text,))
    assert numbers(disk.store) == [1]


def test_a_flipped_bit_anywhere_in_the_file_never_changes_what_is_delivered(disk):
    whole = filled(disk)
    good = {n: b"%04d" % n * 100 for n in range(1, 61)}
    rng = random.Random(7)
    for trial in range(150):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        broken = bytearray(whole)
        broken[at] ^= 1 << bit
        disk.path.write_bytes(broken)
        try:
            store = SqliteStore(disk.path, OTHER_ID, 4096)
            try:
                for number, envelope, body in store.read(1, 0, 1 << 20)[0]:
                    assert (envelope, body) == (b"envelope", good[number]), (trial, at, bit)
            finally:
                store.close()
        except (Damaged, Misuse, sqlite3.DatabaseError):
            pass                         # refused is as good


# SQLite: a full disk

def full(store):
    """As if the disk had not one page left for the store; returns what gives it room again."""
    store._db.execute(f"PRAGMA max_page_count = {value(store, 'PRAGMA page_count')}")
    return lambda: store._db.execute("PRAGMA max_page_count = 1000000")


def too_much(first):
    return [stored((1, n), body=b"x" * 9000) for n in range(first, first + 20)]


def test_a_reserve_lies_beside_the_store(tmp_path):
    store = SqliteStore(tmp_path / "hub.db", ID, reserve_bytes=300_000)
    reserve = (tmp_path / "reserve").stat()
    assert reserve.st_size == 300_000 and reserve.st_blocks * 512 >= 300_000
    store.close()
    SqliteStore(tmp_path / "hub.db", ID, reserve_bytes=1 << 40).close()
    assert (tmp_path / "reserve").stat().st_size == store_module.RESERVE_BYTES


def test_without_any_reserve_wanted_there_is_none(tmp_path):
    store = SqliteStore(tmp_path / "hub.db", ID, reserve_bytes=0)
    assert store.room()
    store.commit([registered(1)])
    store.close()


def out_of_space(number):
    def allocate(fd, start, size):
        raise OSError(number, os.strerror(number))
    return allocate


def test_a_disk_too_full_for_the_reserve_takes_acknowledgements_only(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", out_of_space(28))
    store = SqliteStore(tmp_path / "hub.db", ID, 4096)
    assert store.is_squeezed and not store.reserve.exists()
    store.commit([registered(1)])
    store.close()


def test_a_reserve_that_cannot_be_kept_for_another_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", out_of_space(13))
    with pytest.raises(Misuse, match="Permission denied") as caught:
        SqliteStore(tmp_path / "hub.db", ID, 4096)
    assert caught.value.code == "cannot-write"


#   what SQLite says                                                  a full disk?
FULLNESS = [
    ("SQLITE_FULL", "database or disk is full",                        True),
    ("SQLITE_IOERR_WRITE", "disk I/O error",                           False),
    ("SQLITE_BUSY", "database is locked",                              False),
    ("SQLITE_READONLY", "attempt to write a readonly database",        False),
    ("SQLITE_ERROR", "no such table: full",                            False),
]


@pytest.mark.parametrize(("name", "text", "full_disk"), FULLNESS)
def test_only_a_full_disk_is_taken_for_one(name, text, full_disk):
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    assert store_module._is_full(error) is full_disk


@pytest.mark.parametrize(("free_bytes", "opened"), [(1000, True), (1 << 40, False)])
def test_a_store_that_cannot_be_opened_for_want_of_room_is_given_its_reserve(disk, monkeypatch, free_bytes, opened):
    """On a full disk the log of what was committed can't even be read back."""
    disk.store.commit([registered(1)])
    disk.close()
    blocks = SimpleNamespace(f_bavail=free_bytes, f_frsize=1)
    monkeypatch.setattr(store_module.os, "statvfs", lambda path: blocks)
    real = SqliteStore._open

    def without_room(self, *args):
        if self.reserve.exists():
            raise sqlite3.OperationalError("disk I/O error")
        real(self, *args)
    monkeypatch.setattr(SqliteStore, "_open", without_room)
    if not opened:
        with pytest.raises(Misuse):
            SqliteStore(disk.path, OTHER_ID, 4096)
        assert disk.store.reserve.exists()
        return
    store = SqliteStore(disk.path, OTHER_ID, 4096)
    assert store.is_squeezed and not store.reserve.exists()
    assert of_kind(store, f.Registered) == [registered(1)]
    store.close()


def test_a_full_disk_does_not_stop_the_tidying(disk):
    disk.store.commit([registered(1), *too_much(1)])
    disk.store.commit([f.Revoked(1)])
    real, tries = disk.store._tidy, []

    def full_once(*args):
        tries.append(disk.store.reserve.exists())
        if len(tries) == 1:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        return real(*args)
    disk.store._tidy = full_once
    while disk.store.tidy(50):
        assert len(tries) < 9
    assert tries[:2] == [True, False] and disk.entries() == 0


def test_when_the_disk_is_full_the_reserve_is_given_up_for_what_was_decided(disk):
    disk.store.commit([registered(1)])
    more = full(disk.store)
    give_up = disk.store._release_reserve

    def release():
        gave_up = give_up()
        more()
        return gave_up
    disk.store._release_reserve = release
    assert disk.store.reserve.exists() and not disk.store.is_squeezed
    disk.store.commit(too_much(1))
    assert not disk.store.reserve.exists() and disk.store.is_squeezed
    assert numbers(disk.reopen()) == list(range(1, 21))


def test_without_a_reserve_a_full_disk_changes_nothing_and_says_so(disk):
    disk.store.commit([registered(1), stored((1, 1)), moved(1, 1)])
    disk.store._release_reserve()
    more = full(disk.store)
    before = facts_of(disk.store)
    for _ in range(3):
        with pytest.raises(NoRoom):
            disk.store.commit([*too_much(2), moved(1, 21)])
        assert facts_of(disk.store) == before
        assert numbers(disk.store) == [1]
    more()
    disk.store.commit([*too_much(2), moved(1, 21)])
    assert numbers(disk.reopen()) == list(range(1, 22))
    assert of_kind(disk.store, f.Moved) == [moved(1, 21)]


def test_a_reserve_that_is_not_enough_is_a_full_disk_and_no_failure(disk):
    """As when something else takes what the reserve gave back."""
    disk.store.commit([registered(1)])
    more = full(disk.store)
    with pytest.raises(NoRoom):
        disk.store.commit(too_much(1))
    more()
    disk.store.commit(too_much(1))
    assert numbers(disk.reopen()) == list(range(1, 21))


def test_acknowledgements_are_taken_when_the_store_may_not_grow(disk):
    disk.store.commit([registered(1), *too_much(1)])
    full(disk.store)
    assert disk.store.commit([f.Acked(1, 11, 0)]) == [f.Freed(1, 10, 90080)]
    disk.store.commit([stored((1, 21), body=b"x" * 9000)])
    assert numbers(disk.reopen()) == list(range(11, 22))


def test_any_other_failure_is_not_taken_for_a_full_disk(disk):
    disk.store.commit([registered(1)])
    disk.store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(sqlite3.Error):
        disk.store.commit([stored((1, 1))])
    assert disk.store.reserve.exists() and not disk.store.is_squeezed


#   free on disk, in reserves     room?     told one after the other
ROOM = [
    (10.0,                        True),
    (1.01,                        True),
    (0.99,                        False),
    (1.01,                        False),    # not enough to come back
    (1.24,                        False),
    (1.26,                        True),
    (1.01,                        True),
    (0.5,                         False),
    (2.0,                         True),
]


def test_there_is_room_until_the_disk_is_low_and_again_when_it_is_well_above(tmp_path, monkeypatch):
    reserve_bytes = 100 << 12
    store = SqliteStore(tmp_path / "hub.db", ID, reserve_bytes)
    for free, room in ROOM:
        blocks = SimpleNamespace(f_bavail=int(free * reserve_bytes / 4096), f_frsize=4096, f_bfree=1 << 40)
        monkeypatch.setattr(store_module.os, "statvfs", lambda path, blocks=blocks: blocks)
        assert store.room() is room, free
        assert store.is_squeezed is not room
    store.close()


def test_the_reserve_comes_back_with_the_room(tmp_path, monkeypatch):
    store = SqliteStore(tmp_path / "hub.db", ID, 100 << 12)
    store._release_reserve()
    for free, there in ((50, False), (110, False), (200, True)):
        blocks = SimpleNamespace(f_bavail=free, f_frsize=4096)
        monkeypatch.setattr(store_module.os, "statvfs", lambda path, blocks=blocks: blocks)
        store.room()
        assert store.reserve.exists() is there
    assert store.reserve.stat().st_size == 100 << 12
    store.close()
