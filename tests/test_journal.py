"""The journal: its torn end is a crash, all else that is wrong with it is damage; and the store that writes to it
first loses nothing and counts nothing twice, whenever it is killed, and whatever fails."""

import errno
import logging
import os
import random
import shutil
import sqlite3
import stat
import struct
import tempfile
from pathlib import Path
from zlib import crc32

import pytest
from memorystore import NOTHING_BEHIND, MemoryStore
from test_store import (ID, OTHER_ID, History, OnDisk, facts_of, full, given_back, key, make, moved, of_kind,
                        registered, stored, too_much)

from zbackbone import facts as f
from zbackbone.cli.hub import hub as hub_command
from zbackbone.errors import Damaged, Misuse
from zbackbone.router import daemon
from zbackbone.router import journal as journal_module
from zbackbone.router import journaled as journaled_module
from zbackbone.router.journal import BLOCK_BYTES as BLOCK
from zbackbone.router.journal import HEAD, MAGIC, ROUND_AT, Journal
from zbackbone.router.journaled import JournaledStore
from zbackbone.router.pending import HELD_BYTES
from zbackbone.router.store import NoRoom, SqliteStore

SALT, OLD_SALT = b"this life's salt", b"an older one's.."
SIZE = 24 * BLOCK
HEAD_BYTES = HEAD.size
seeds = random.Random(20)


def noise(size):
    return seeds.randbytes(size)


@pytest.fixture
def tmp_path(tmp_path):
    """In memory, where that is: thousands of syncs are made here, and none of them needs a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="zbackbone-") as folder:
        yield Path(folder)


# The file alone

class Place:
    """A journal's file, and what can be done to it while nobody has it open."""

    def __init__(self, folder):
        self.path = folder / "hub.journal"

    def write(self, *payloads, salt=SALT, size=SIZE):
        """A round; returns where each record begins, and where the last one ends."""
        journal = Journal(self.path, size)
        journal.announce(salt)
        journal.begin()
        starts = [ROUND_AT]
        for payload in payloads:
            journal.append(payload)
            starts.append(journal._at)
        journal.close()
        return starts

    def read(self, salt=SALT, size=SIZE):
        journal = Journal(self.path, size)
        try:
            return list(journal.replay(salt))
        finally:
            journal.close()

    def put(self, at, data):
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def flip(self, at, bit=0):
        self.put(at, bytes([self.path.read_bytes()[at] ^ 1 << bit]))

    def refusal(self, salt=SALT):
        """The file's damage as told, in a sentence; and the file is as it was."""
        before = self.path.read_bytes()
        with pytest.raises(Damaged) as caught:
            self.read(salt)
        assert self.path.read_bytes() == before
        assert str(self.path) in caught.value.text and "\n" not in caught.value.text
        return caught.value


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


#   a record's payload, bytes: a block and its edges, and several blocks
SIZES = [0, 1, BLOCK - HEAD_BYTES - 1, BLOCK - HEAD_BYTES, BLOCK - HEAD_BYTES + 1, 2 * BLOCK - HEAD_BYTES, 3 * BLOCK]


def test_what_was_appended_is_replayed_in_order(place):
    payloads = [noise(size) for size in SIZES]
    place.write(*payloads)
    assert place.read() == payloads == place.read()


def test_a_round_without_a_record_is_an_empty_one(place):
    place.write()
    assert place.read() == []


def test_a_journal_is_filled_to_its_last_block_and_no_further(place):
    payloads = [noise(1) for _ in range(22)]
    place.write(*payloads)
    assert place.read() == payloads
    journal = Journal(place.path, SIZE)
    journal.announce(SALT)
    journal.begin()
    assert journal.has_room(22 * BLOCK - HEAD_BYTES) and not journal.has_room(22 * BLOCK - HEAD_BYTES + 1)
    journal.append(noise(21 * BLOCK - HEAD_BYTES))
    assert journal.has_room(BLOCK - HEAD_BYTES) and not journal.has_room(BLOCK - HEAD_BYTES + 1)
    journal.append(b"x")
    assert not journal.has_room(0)
    journal.close()
    assert place.path.stat().st_size == SIZE


def test_its_blocks_are_there_from_the_start_and_it_is_its_owner_s_alone(place, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd)))
    old = os.umask(0)
    try:
        journal = Journal(place.path, SIZE)
    finally:
        os.umask(old)
    file = place.path.stat()
    assert stat.S_IMODE(file.st_mode) == 0o600
    assert file.st_size == SIZE and file.st_blocks * 512 >= SIZE
    assert synced == [file.st_ino, place.path.parent.stat().st_ino]
    journal.close()


def test_one_that_a_killed_start_left_unsynced_is_synced_by_the_next(place, monkeypatch):
    Journal(place.path, SIZE).close()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    Journal(place.path, SIZE).close()
    assert synced == [place.path.stat().st_ino, place.path.parent.stat().st_ino]


@pytest.mark.parametrize("length", [0, 1, BLOCK, SIZE - 1])
def test_one_that_was_made_in_part_is_made_whole(place, length):
    place.path.write_bytes(bytes(length))
    place.write(b"one", b"two")
    assert place.path.stat().st_size == SIZE and place.read() == [b"one", b"two"]


def test_a_longer_one_is_used_whole_blocks_of_it(place):
    place.path.write_bytes(bytes(SIZE + 2 * BLOCK + 7))
    payloads = [b"x"] * 24
    place.write(*payloads)
    assert place.read() == payloads
    assert place.path.stat().st_size == SIZE + 2 * BLOCK + 7


def fillers(place, at, size):
    """What may lie there where a write did not come through."""
    yield bytes(size)
    yield noise(size)
    yield place.old[at:at + size]


@pytest.mark.parametrize("size", SIZES)
def test_a_torn_last_record_is_a_crash(place, size):
    """Each part of its blocks, in any order, and within a block each part of its sectors."""
    before = [b"first", noise(5000)]
    last = noise(size)
    place.write(*[noise(700)] * 22, salt=OLD_SALT)       # leftovers, whole ones, in each block
    place.old = place.path.read_bytes()
    *_, at, end = place.write(*before, last)
    whole = place.path.read_bytes()
    assert place.read() == [*before, last]
    blocks = (end - at) // BLOCK
    for there in range((1 << blocks) - 1):
        for filler in fillers(place, at, end - at):
            data = b"".join((whole if there >> n & 1 else bytes(at) + filler)[at + n * BLOCK:at + (n + 1) * BLOCK]
                            for n in range(blocks))
            place.put(at, data)
            assert place.read() == before, (there, filler[:8])
    for cut in range(0, HEAD_BYTES + size, 512):
        for filler in fillers(place, at, end - at):
            place.put(at, whole[at:at + cut] + filler[cut:])
            assert place.read() == before, cut
    place.put(at, whole[at:end])
    assert place.read() == [*before, last]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_bit_that_flips_in_an_earlier_record_is_damage(place, size, which):
    payloads = [noise(size), noise(size), noise(size), b"the last one"]
    at = place.write(*payloads)[which]
    for offset in {*range(HEAD_BYTES), *(HEAD_BYTES + size * n // 9 for n in range(9) if size)}:
        bit = seeds.randrange(8)
        place.flip(at + offset, bit)
        error = place.refusal()
        assert error.code == "store-damaged" and "backup" in error.text and f"byte {at}," in error.text
        place.flip(at + offset, bit)
    assert place.read() == payloads


@pytest.mark.parametrize("filler", ["zeros", "noise", "leftovers"])
def test_a_block_that_is_lost_from_an_earlier_record_is_damage(place, filler):
    place.write(*[noise(700)] * 22, salt=OLD_SALT)
    old = place.path.read_bytes()
    starts = place.write(noise(10), noise(9000), noise(4000), noise(10), noise(9000), noise(10))
    whole = place.path.read_bytes()
    for at in range(ROUND_AT, starts[-2], BLOCK):
        place.put(at, {"zeros": bytes(BLOCK), "noise": noise(BLOCK), "leftovers": old[at:at + BLOCK]}[filler])
        assert place.refusal().code == "store-damaged"
        place.put(at, whole[at:at + BLOCK])
    assert len(place.read()) == 6


def test_a_flipped_bit_in_the_zeros_behind_a_record_is_none_of_its_business(place):
    at, *_ = place.write(b"one", b"two")
    place.flip(at + BLOCK - 1)
    assert place.read() == [b"one", b"two"]


def test_records_that_changed_places_are_damage(place):
    first, second, *_ = place.write(b"one", b"two", b"three")
    whole = place.path.read_bytes()
    place.put(first, whole[second:second + BLOCK])
    assert place.refusal().code == "store-damaged"
    place.put(second, whole[first:first + BLOCK])
    assert place.refusal().code == "store-damaged"


def test_leftovers_of_an_earlier_round_are_never_taken(place):
    for count in range(22):
        place.write(*[noise(10)] * 22, salt=OLD_SALT)
        payloads = [noise(10) for _ in range(count)]
        place.write(*payloads)
        assert place.read() == payloads


def forged(payload, number, salt):
    """A whole record, as a sender may make one up who knows everything but the salt."""
    total = crc32(payload, crc32(salt, number))
    record = struct.pack("<4sIIQ16s", b"zbj1", len(payload), total, number, salt) + payload
    return record + bytes(-len(record) % BLOCK)


def test_a_record_is_what_this_test_takes_it_for(place):
    at, end, *_ = place.write(b"payload")
    assert place.path.read_bytes()[at:end] == forged(b"payload", 1, SALT)
    assert place.path.read_bytes()[BLOCK:ROUND_AT] == forged(b"", 0, SALT)
    assert MAGIC == b"zbj1" and ROUND_AT == 2 * BLOCK


#   a salt that a sender may know
KNOWN_SALTS = [bytes(16), b"\xff" * 16, ID * 2, ID + bytes(8), OLD_SALT, b"zbj1" * 4]


@pytest.mark.parametrize("salt", KNOWN_SALTS, ids=repr)
def test_a_forged_record_in_a_body_is_never_taken(place, salt):
    """Whatever of the body's record is lost. The forged ones begin where blocks do, with the numbers to come."""
    forgeries = b"".join(forged(b"forged %d" % n, n, salt) for n in (0, 1, 2, 3, 4))
    body = bytes(BLOCK - HEAD_BYTES) + forgeries
    *_, at, end = place.write(b"one", body)
    assert place.read() == [b"one", body]
    for blocks in range((end - at) // BLOCK):            # the record's head and some more did not come through
        place.put(at + blocks * BLOCK, bytes(BLOCK))
        assert place.read() == [b"one"]
    place.write(b"one", body, b"three")
    place.write(b"other", salt=b"the next round's")      # a shorter one: what is behind it is all forged
    assert place.read(b"the next round's") == [b"other"]


def test_a_record_whose_length_goes_beyond_the_file_is_none(place):
    at, *_ = place.write(b"one")
    for length in (SIZE, SIZE - ROUND_AT - HEAD_BYTES + 1, 0xFFFFFFFF):
        place.put(at + 4, struct.pack("<I", length))
        assert place.read() == []


#   a file that is not this round's journal               how it comes to be there
STRANGERS = {
    "zeros": lambda place: place.path.write_bytes(bytes(SIZE)),
    "nothing": lambda place: place.path.write_bytes(b""),
    "noise": lambda place: place.path.write_bytes(noise(SIZE)),
    "another hub's": lambda place: place.write(b"theirs", salt=b"theirs, not ours"),
    "an older copy": lambda place: place.path.write_bytes(place.older),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_journal_that_does_not_know_the_round_is_damage(place, stranger):
    place.write(b"old", salt=OLD_SALT)
    place.older = place.path.read_bytes()
    place.write(b"precious")
    STRANGERS[stranger](place)
    place.path.write_bytes(place.path.read_bytes().ljust(SIZE, b"\0"))
    error = place.refusal()
    assert error.code == "journal-missing" and "backup" in error.text


def test_a_round_that_was_announced_in_vain_changes_nothing(place):
    journal = Journal(place.path, SIZE)
    journal.announce(SALT)
    journal.begin()
    journal.append(b"one")
    for n in range(3):                                   # as on a full disk
        journal.announce(b"never to begin %d" % n)
        assert len(place.read()) == 1 + n
        journal.append(b"and %d" % n)
    journal.announce(b"the next round's")
    assert place.read() == [b"one", b"and 0", b"and 1", b"and 2"]
    assert place.read(b"the next round's") == []         # the database has it, and no record is there yet
    journal.begin()
    journal.append(b"new")
    assert place.read(b"the next round's") == [b"new"]
    journal.close()


#   what fails                  how
FAILURES = {
    "a write":           ("pwritev", lambda *_: failing(errno.EIO)),
    "a write on a full disk": ("pwritev", lambda *_: failing(errno.ENOSPC)),
    "half a write":      ("pwritev", lambda fd, parts, at: os.pwrite(fd, b"".join(parts)[:BLOCK // 2], at)),
    "a sync":            ("fdatasync", lambda *_: failing(errno.EIO)),
}


def failing(number):
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("failure", FAILURES)
def test_when_a_write_has_failed_nothing_more_is_written(place, monkeypatch, failure):
    journal = Journal(place.path, SIZE)
    journal.announce(SALT)
    journal.begin()
    journal.append(b"one")
    name, how = FAILURES[failure]
    with monkeypatch.context() as broken:
        broken.setattr(os, name, how)
        with pytest.raises(OSError):
            journal.append(b"two")
    after = place.path.read_bytes()
    for attempt in (lambda: journal.append(b"three"), lambda: journal.announce(b"x" * 16)):
        with pytest.raises(OSError):
            attempt()
    assert place.path.read_bytes() == after
    journal.close()
    assert place.read() in ([b"one"], [b"one", b"two"])  # unknown


# The store behind it

class Stores:
    """A journaled store in a folder, and beside it one in memory that is told the same."""

    def __init__(self, folder, journal_bytes=SIZE):
        self.folder = folder
        self.journal_bytes = journal_bytes
        self.store = self.opened(folder)
        self.plain = MemoryStore(ID)

    def opened(self, folder, new_id=ID):
        return JournaledStore(folder / "hub.db", new_id, reserve_bytes=4096, journal_bytes=self.journal_bytes)

    def commit(self, *facts):
        """Returns what was freed, which must be the same."""
        freed = given_back(self.store.commit(list(facts)))
        assert freed == given_back(self.plain.commit(list(facts)))
        return freed

    def crash(self):
        """As kill -9 does it."""
        self.store._journal.close()
        self.store._db.close()

    def reopen(self, crash=True):
        self.crash() if crash else self.store.close()
        self.store = self.opened(self.folder, OTHER_ID)

    def check(self, budgets=(1 << 30,)):
        """What is read, from a few places."""
        for client, inbox in self.plain._tables["inboxes"].items():
            numbers = [n for n in self.plain._entries.get(client, ()) if n >= inbox.base]
            for after in {inbox.base - 1, *numbers[:3], *numbers[-3:]}:
                for budget in budgets:
                    assert self.store.read(client, after, budget) == self.plain.read(client, after, budget)

    def check_all(self, crash=True):
        self.check()
        self.reopen(crash)
        assert state(self.store) == state(self.plain)
        self.check()

    def rounds(self):
        """The salt says which round it is."""
        return self.store._journal._salt


def state(store):
    """All that a store tells: its facts, and each inbox's entries."""
    facts = facts_of(store)
    return facts, {fact.client: store.read(fact.client, fact.base - 1, 1 << 30) for fact in facts
                   if type(fact) is f.InboxAt}


@pytest.fixture
def both(tmp_path):
    stores = Stores(tmp_path)
    yield stores
    stores.crash()


def pending(store):
    return sum(len(change.entries) for change in store._pending.inboxes.values())


def in_database(store, table="entries"):
    return store._db._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def batches(first, last, *clients, body=b"body"):
    return [stored(*((client, n) for client in clients), body=b"%d %s" % (n, body)) for n in range(first, last + 1)]


def move_to_database(both):
    """What is pending, by a fact that is no message."""
    both.commit(f.Subscribed(1, f"topic-{both.plain.commits}"))
    assert pending(both.store) == 0


def test_messages_wait_in_the_journal_and_a_restart_has_them(both):
    both.commit(registered(1), registered(2))
    both.commit(*batches(1, 3, 1, 2), moved(1, 3), f.Missed(2, 4))
    assert pending(both.store) == 6 and in_database(both.store) == 0
    both.check_all()
    assert pending(both.store) == 0 and in_database(both.store) == 6


def test_what_came_and_went_in_the_journal_leaves_numbers_alone(both):
    both.commit(registered(1))
    both.commit(*batches(1, 5, 1))
    assert both.commit(f.Acked(1, 6, 0)) == {1: (5, 5 * 14)}
    assert of_kind(both.store, f.InboxAt) == [f.InboxAt(1, 6, 6, 0, 0, 0, 0)]
    assert in_database(both.store) == 0
    both.check_all()


def test_a_full_journal_begins_a_new_round(both):
    both.commit(registered(1))
    for n in range(1, 23):
        before = both.rounds()
        both.commit(*batches(n, n, 1))
        assert both.rounds() == before
    both.commit(*batches(23, 23, 1))
    assert both.rounds() != before
    assert in_database(both.store) == 22 and pending(both.store) == 1
    both.check_all()


def test_so_do_many_entries(both, monkeypatch):
    monkeypatch.setattr(journaled_module, "PENDING_MAX", 10)
    both.commit(registered(1), registered(2))
    before = both.rounds()
    both.commit(*batches(1, 5, 1, 2))
    both.commit(*batches(6, 6, 1))
    assert both.rounds() == before and pending(both.store) == 11
    both.commit(*batches(7, 7, 1))
    assert both.rounds() != before and pending(both.store) == 1
    both.commit(f.Acked(1, 8, 0), f.Acked(2, 6, 0))
    assert both.store._pending.count == both.store._pending.size == 0
    both.check_all()


def test_so_does_much_that_is_acknowledged_of_a_backlog(both, monkeypatch):
    """Else what SQLite keeps to take it back grows with the backlog, on a disk that may be full."""
    monkeypatch.setattr(journaled_module, "DELETED_MAX", 10)
    both.commit(registered(1), registered(2))
    both.commit(*batches(1, 40, 1, 2))
    move_to_database(both)
    before = both.rounds()
    for number in range(2, 13):
        both.commit(f.Acked(1, number, 0))
    assert both.rounds() == before and both.store._db.deleted == 11
    both.commit(f.Acked(1, 13, 0))
    assert both.rounds() != before and both.store._db.deleted == 1
    both.commit(f.Acked(1, 40, 0), f.Acked(2, 41, 0))
    both.check_all()


@pytest.mark.parametrize("some_before", [False, True])
def test_a_commit_larger_than_the_journal_goes_to_the_database(both, some_before):
    both.commit(registered(1), registered(2))
    if some_before:
        both.commit(*batches(1, 2, 1), moved(1, 2))
    both.commit(*batches(3, 3 + 40, 1, 2, body=noise(BLOCK)), moved(1, 9), f.Acked(1, 4, 1))
    assert pending(both.store) == 0 and in_database(both.store) == 40 + 41
    both.check_all()
    both.commit(*batches(50, 50, 1))
    assert both.commit(f.Acked(1, 51, 0))[1][0] == 41
    both.check_all()


@pytest.mark.parametrize("size", [22 * BLOCK - 200, 22 * BLOCK - 20, 22 * BLOCK])
def test_a_commit_of_just_the_journal_s_size_is_whole(both, size):
    both.commit(registered(1))
    both.commit(stored((1, 1), body=noise(size)))
    both.commit(stored((1, 2), body=noise(size)))
    both.check_all()


#   facts that are no messages, amid pending ones of clients 1 and 2
OTHERS = [
    [registered(3)],
    [f.Invited(key(9), "new", {}, 1)],
    [f.Granted(1, {"send": []})],
    [f.Subscribed(1, "a")],
    [f.Revoked(1)],
    [f.KeyDropped(1, key(1)), f.Revoked(1), registered(4, "c1")],
    [f.OutboxForgotten(1, b"outbox-1")],
    [f.OutboxForgotten(1, b"outbox-1"), moved(1, 9)],
    [f.KeyAdded(1, key(7)), f.KeyUsed(1, key(7)), f.KeyDropped(1, key(1))],
    [f.Acked(1, 5, 0), f.Subscribed(1, "a"), f.Acked(2, 3, 0)],
    [f.Acked(1, 5, 0), f.Revoked(1), f.Acked(2, 3, 0)],
    [stored((1, 7), (2, 7)), f.Revoked(1), stored((2, 8)), f.Acked(2, 8, 0)],
    [registered(3), stored((1, 7), (3, 1)), f.Missed(3, 2), moved(3, 1), f.Acked(3, 2, 0)],
]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "stop"])
@pytest.mark.parametrize("others", OTHERS, ids=lambda facts: "-".join(type(fact).__name__ for fact in facts))
def test_other_facts_take_what_is_pending_along(both, others, crash):
    both.commit(registered(1), registered(2))
    both.commit(*batches(1, 3, 1, 2), moved(1, 3, (2, "forbidden")), f.Missed(1, 1))
    both.commit(f.Acked(1, 2, 1))
    move_to_database(both)
    both.commit(*batches(4, 6, 1, 2), moved(1, 6))
    both.commit(f.Acked(1, 3, 0))
    both.commit(*others)
    assert pending(both.store) == 0
    both.check_all(crash)
    while both.store.tidy(2):
        both.plain.tidy(2)
    both.commit(*(f.Acked(c, inbox.next, 0) for c, inbox in both.plain._tables["inboxes"].items() if c < 3))
    both.check_all(crash)
    both.commit(f.Acked(2, 9, 0))
    assert [in_database(both.store, t) for t in ("entries", "shared", "wanted")] == [0, 0, 0]


#   acknowledged up to    of 1..4 in the database and 5..8 in the journal
ACKS = [
    [2], [5], [6], [9], [2, 3], [2, 5], [3, 7], [5, 6], [6, 9], [2, 4, 6, 8, 9],
]


@pytest.mark.parametrize("crash", [True, False], ids=["crash", "stop"])
@pytest.mark.parametrize("acks", ACKS, ids=str)
def test_acks_of_what_is_in_the_database_in_the_journal_or_both(both, acks, crash):
    both.commit(registered(1), registered(2))
    both.commit(*batches(1, 4, 1, 2))
    move_to_database(both)
    both.commit(*batches(5, 8, 1, 2))
    before = 1
    for number in acks:
        freed = both.commit(f.Acked(1, number, 0))
        assert freed == {1: (number - before, 14 * (number - before))}
        before = number
        both.check((1, 20, 50, 1 << 20))
    both.check_all(crash)
    both.commit(f.Acked(1, 9, 0), f.Acked(2, 9, 0))
    both.reopen()
    assert [in_database(both.store, t) for t in ("entries", "shared", "wanted")] == [0, 0, 0]


@pytest.mark.parametrize("readers", range(1, 5))
def test_a_shared_body_some_of_whose_readers_were_done_before_the_database_had_it(both, readers):
    clients = [1, 2, 3, 4]
    both.commit(*map(registered, clients))
    both.commit(stored(*((c, 1) for c in clients), body=b"shared"))
    both.commit(*(f.Acked(c, 2, 0) for c in clients[:readers]))
    move_to_database(both)
    left = 4 - readers
    assert in_database(both.store) == left
    assert in_database(both.store, "shared") == in_database(both.store, "wanted") == (left > 1)
    both.check_all()
    for client in clients[readers:]:
        both.check_all()
        assert both.commit(f.Acked(client, 2, 0)) == {client: (1, 14)}
    move_to_database(both)
    assert [in_database(both.store, t) for t in ("entries", "shared", "wanted")] == [0, 0, 0]
    assert both.store.damaged == 0


#   numbers in the database          and in the journal             of batches of 10 bytes
CROSSINGS = [
    ([1, 2, 3],                      [4, 5, 6]),
    ([],                             [1, 2, 3, 4, 5, 6]),
    ([1, 2, 3, 4, 5, 6],             []),
    ([1, 2, 900],                    [1_000_000, 1_000_001, 1_000_007]),
    ([5],                            [7, 8, 9, 11, 13]),
]


@pytest.mark.parametrize(("old", "new"), CROSSINGS, ids=str)
def test_reads_cross_from_the_database_to_what_is_pending(both, old, new):
    both.commit(registered(1))
    both.commit(*(stored((1, n), body=b"123456", envelope=b"7890") for n in old))
    move_to_database(both)
    for n in new:
        both.commit(stored((1, n), body=b"123456", envelope=b"7890"))
    numbers = [*old, *new]
    for after in sorted({0, *(n + d for n in numbers for d in (-1, 0, 1))}):
        due = [n for n in numbers if n > after]
        for budget in (1, 10, 11, 25, 30, 31, 45, 60, 61):
            entries, upto = both.store.read(1, after, budget)
            assert (entries, upto) == both.plain.read(1, after, budget)
            taken = [n for n, _, _ in entries]
            assert taken == due[:len(taken)]
            assert upto == (taken[-1] if 10 * len(taken) >= budget else NOTHING_BEHIND)
    both.commit(f.Acked(1, numbers[2], 0))
    for budget in (1, 15, 60):
        assert both.store.read(1, numbers[2] - 1, budget) == both.plain.read(1, numbers[2] - 1, budget)


def test_an_inbox_whose_count_in_the_database_is_wrong_is_read_all_the_same(both):
    """A bit may flip there as anywhere; what is in the inbox is not to be passed over for that."""
    both.commit(registered(1))
    both.commit(*batches(1, 3, 1))
    both.store.close()
    make(both.folder / "hub.db", "UPDATE inboxes SET messages = 0, size = 0")
    both.store = both.opened(both.folder)
    both.check()


def test_a_batch_of_messages_without_bytes_crosses_over_too(both):
    both.commit(registered(1), registered(2))
    both.commit(stored((1, 1), (2, 1), body=b"", envelope=b""), stored((1, 2), body=b"", envelope=b""))
    both.check_all()
    both.check_all()


class Busy(History):
    """Mostly messages, so that many are pending."""

    def commit(self):
        if self.rng.random() < 0.1 or len(self.clients) < 3:
            return [*super().commit(), *self.register()]
        return [fact for _ in range(self.rng.randint(1, 9)) for fact in self.rng.choices(
            [self.store, self.move, self.ack, self.miss], [5, 3, 3, 1])[0]()]


@pytest.mark.parametrize("trial", range(3))
def test_a_random_history_of_mostly_messages(tmp_path, trial):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    both, history = Stores(tmp_path), Busy(rng)
    for _step in range(250):
        both.commit(*history.commit())
        both.check(budgets=(rng.choice([1, 300, 5000]),))
        if rng.random() < 0.1:
            assert both.store.tidy(5) == both.plain.tidy(5)
        if rng.random() < 0.03:
            both.check_all(rng.random() < 0.7)
    both.check_all()
    both.commit(*(f.Acked(c, me.next, 0) for c, me in history.clients.items() if me.next > me.base))
    while both.store.tidy(50):
        pass
    both.reopen()
    assert [in_database(both.store, t) for t in ("entries", "shared", "wanted")] == [0, 0, 0]
    assert both.store.damaged == 0
    both.crash()


# The folder as a crash leaves it

def image(source, target):
    """The store's files as they lie there."""
    target.mkdir()
    for file in source.glob("hub.*"):
        shutil.copyfile(file, target / file.name)


class Images:
    """Copies of the folder at interesting moments, with what a start on it may find: one of these states."""

    def __init__(self, both, folder):
        self.both = both
        self.folder = folder
        self.left = []
        self.states = [state(both.plain)]

    def take(self, moment, *states):
        target = self.folder / f"image-{len(self.left)}"
        image(self.both.folder, target)
        self.left.append((moment, target, states))

    def check(self):
        for moment, target, states in self.left:
            store = self.both.opened(target, OTHER_ID)
            try:
                assert store.id == ID
                assert state(store) in states, moment
                assert store.damaged == 0
            finally:
                store.close()


@pytest.mark.parametrize("trial", range(2))
def test_a_crash_at_any_moment_leaves_what_was_committed(tmp_path, monkeypatch, trial):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    (tmp_path / "store").mkdir()
    both, history = Stores(tmp_path / "store", 8 * BLOCK), Busy(rng)
    images = Images(both, tmp_path)
    now, after = state(both.plain), None
    step = 0

    def interesting(kind, name, before=True):
        real = getattr(kind, name)

        def watched(*args):
            if before and rng.random() < 0.4:
                images.take(f"{step}: before {name}", now, after)
            out = real(*args)
            if rng.random() < 0.4:
                images.take(f"{step}: behind {name}", now, after)
            return out
        monkeypatch.setattr(kind, name, watched)
    for kind, name in ((Journal, "announce"), (Journal, "begin"), (Journal, "append"), (SqliteStore, "_flush"),
                       (SqliteStore, "_commit"), (SqliteStore, "free")):
        interesting(kind, name)
    for step in range(70):
        facts = history.commit()
        both.plain.commit(facts)
        after = state(both.plain)
        both.store.commit(facts)
        now = after
        if rng.random() < 0.3:
            images.take(f"behind commit {step}", now)
        if rng.random() < 0.1:
            both.store.tidy(3)
            images.take(f"tidied {step}", now)
        if rng.random() < 0.05:
            both.store.close()
            images.take(f"stopped {step}", now)
            both.store = both.opened(both.folder)
            images.take(f"started {step}", now)
    monkeypatch.undo()
    both.store.close()
    assert len(images.left) > 30
    images.check()


def test_a_crash_in_a_start_that_replays_changes_nothing(both, tmp_path, monkeypatch):
    both.commit(registered(1))
    both.commit(*batches(1, 4, 1), moved(1, 4))
    both.crash()
    images = Images(both, tmp_path)

    def stopping(name):
        real = getattr(SqliteStore, name)

        def watched(*args):
            images.take(f"before {name}", state(both.plain))
            out = real(*args)
            images.take(f"behind {name}", state(both.plain))
            return out
        monkeypatch.setattr(SqliteStore, name, watched)
    for name in ("mark", "write", "_flush", "_commit"):
        stopping(name)
    both.store = both.opened(both.folder)
    monkeypatch.undo()
    assert len(images.left) == 10
    images.check()


class Power:
    """The journal's writes and syncs, as the disk sees them; the database's are its own affair, and durable.

    cuts(): what the journal's file may hold when the power fails now.
    """

    def __init__(self, monkeypatch, path):
        self.path = path
        self.writes = []
        self.durable = path.read_bytes()
        real_write, real_sync = os.pwritev, os.fdatasync

        def pwritev(fd, parts, at):
            data = b"".join(parts)
            assert not self.writes, "the one before was not synced"
            self.writes.append((at, data))
            done = real_write(fd, parts, at)
            self.on_write()
            return done

        def fdatasync(fd):
            real_sync(fd)
            for at, data in self.writes:
                self.durable = self.durable[:at] + data + self.durable[at + len(data):]
            self.writes.clear()
        monkeypatch.setattr(journal_module.os, "pwritev", pwritev)
        monkeypatch.setattr(journal_module.os, "fdatasync", fdatasync)

    def on_write(self):
        raise NotImplementedError

    def cuts(self):
        """(whether the write under way is whole, the file's bytes)."""
        yield False, self.durable
        for at, data in self.writes:
            end = at + len(data)
            blocks = range(0, len(data), BLOCK)
            yield True, self.durable[:at] + data + self.durable[end:]
            for cut in blocks[1:]:                        # a prefix; and that part alone that it lacks
                yield False, self.durable[:at] + data[:cut] + self.durable[at + cut:]
                yield False, self.durable[:at + cut] + data[cut:] + self.durable[end:]
            cut = random.Random(len(data)).randrange(1, HEAD_BYTES)
            yield False, self.durable[:at] + data[:cut] + self.durable[at + cut:]
            yield False, self.durable[:at] + noise(BLOCK) + data[BLOCK:] + self.durable[end:]
            yield False, self.durable[:end - BLOCK] + bytes(BLOCK) + self.durable[end:]


def test_a_power_cut_at_any_write_leaves_what_was_committed(tmp_path, monkeypatch):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    (tmp_path / "store").mkdir()
    both, history = Stores(tmp_path / "store", 12 * BLOCK), Busy(rng)
    for _ in range(5):
        both.commit(*history.commit())
    both.reopen()
    now, after, left, cut = state(both.plain), None, [], 0
    with monkeypatch.context() as recorded:
        power = Power(recorded, tmp_path / "store" / "hub.journal")

        def on_write():
            is_record = power.writes[0][0] >= ROUND_AT    # an announcement changes nothing
            for whole, data in power.cuts():
                target = tmp_path / f"cut-{len(left)}"
                image(both.folder, target)
                (target / "hub.journal").write_bytes(data)
                left.append((target, [after] if whole and is_record else [now]))
        power.on_write = on_write
        real_commit = SqliteStore._commit

        def commit(self):
            assert not power.writes
            real_commit(self)
        recorded.setattr(SqliteStore, "_commit", commit)
        for _ in range(25):
            facts = history.commit()
            if rng.random() < 0.2 and history.clients:
                client = history.any_client()
                me = history.clients[client]
                facts.append(f.Stored(1, b"envelope", rng.randbytes(2 * BLOCK), ((client, me.next),)))
                me.counts[me.next] = 1
                me.next += 1
            both.plain.commit(facts)
            after = state(both.plain)
            both.store.commit(facts)
            now = after
    both.crash()
    assert len(left) > 80
    for cut, (target, states) in enumerate(left):
        store = both.opened(target, OTHER_ID)
        assert state(store) in states, cut
        store.close()


def test_between_the_database_s_commit_and_the_round_s_first_record(both, tmp_path):
    both.commit(registered(1))
    for n in range(1, 9):
        both.commit(*batches(n, n, 1))
    move_to_database(both)
    image(both.folder, tmp_path / "left")
    store = both.opened(tmp_path / "left")
    assert state(store) == state(both.plain)
    store.close()
    both.commit(f.Acked(1, 3, 0))                         # one record over the eight of the round before
    both.check_all()


# The journal damaged, gone, another's

class Crashed:
    """A folder in which a hub was killed. Batches 1 to 3 are in the database, 4 to 8 in the journal alone; client 1
    acknowledged up to 5."""

    def __init__(self, folder):
        self.both = both = Stores(folder)
        both.commit(registered(1), registered(2))
        both.commit(*batches(1, 3, 1, 2))
        move_to_database(both)
        for n in range(4, 9):
            both.commit(*batches(n, n, 1, 2), moved(1, n))
        both.commit(f.Acked(1, 6, 0))
        both.crash()
        self.folder = folder
        self.place = Place(folder)
        self.whole = self.place.path.read_bytes()

    def refusal(self, code):
        """Twice, and the journal and what the database says are as they were."""
        before = self.place.path.read_bytes() if self.place.path.exists() else None
        for _ in range(2):
            with pytest.raises(Damaged) as caught:
                self.both.opened(self.folder, OTHER_ID)
            assert caught.value.code == code
            assert "hub.journal" in caught.value.text and "\n" not in caught.value.text
        assert (self.place.path.read_bytes() if self.place.path.exists() else None) == before
        return caught.value

    def is_whole_again(self):
        self.place.path.write_bytes(self.whole)
        store = self.both.opened(self.folder)
        assert state(store) == state(self.both.plain)
        store.close()


@pytest.fixture
def crashed(tmp_path):
    return Crashed(tmp_path)


def test_a_damaged_journal_is_refused_and_nothing_is_changed(crashed):
    for record in range(5):
        at = ROUND_AT + record * BLOCK + seeds.randrange(HEAD_BYTES + 30)
        crashed.place.flip(at)
        error = crashed.refusal("store-damaged")
        assert "backup" in error.text and "nothing was changed" in error.text
        crashed.place.path.write_bytes(crashed.whole)
    crashed.is_whole_again()


def test_a_last_record_that_is_torn_is_left_out(crashed):
    crashed.place.put(ROUND_AT + 5 * BLOCK, bytes(BLOCK))
    store = crashed.both.opened(crashed.folder)
    assert [n for n, _, _ in store.read(1, 0, 1 << 20)[0]] == list(range(1, 9))
    assert of_kind(store, f.InboxAt)[0] == f.InboxAt(1, 9, 1, 0, 8, 8 * 14, 0)
    store.close()


#   what became of the journal                how
LOSSES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-BLOCK]),
    "cut off by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zeros": lambda path: path.write_bytes(bytes(SIZE)),
    "noise": lambda path: path.write_bytes(noise(SIZE)),
    "another hub's": lambda path: Place(path.parent).write(b"x", salt=b"of another hub.."),
    "another hub's, new": lambda path: (path.unlink(), Journal(path, SIZE).close()),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_journal_that_is_gone_cut_off_or_foreign_is_refused(crashed, loss):
    LOSSES[loss](crashed.place.path)
    error = crashed.refusal("journal-missing")
    assert "backup" in error.text and "nothing was changed" in error.text
    crashed.is_whole_again()


def test_an_older_copy_of_the_journal_is_refused(crashed):
    """As when its backup is put back without the database's, or the other way round."""
    store = crashed.both.opened(crashed.folder)
    database = (crashed.folder / "hub.db").read_bytes()
    store.commit(batches(9, 9, 1))
    store._journal.close()
    store._db.close()
    newer = crashed.place.path.read_bytes()
    crashed.place.path.write_bytes(crashed.whole)
    crashed.refusal("journal-missing")
    crashed.place.path.write_bytes(newer)
    store = crashed.both.opened(crashed.folder)
    store.commit([f.Subscribed(1, "x")])
    store._journal.close()
    store._db.close()
    (crashed.folder / "hub.db").write_bytes(database)     # two rounds ago
    crashed.refusal("journal-missing")


def test_a_folder_is_no_journal(crashed):
    crashed.place.path.unlink()
    crashed.place.path.mkdir()
    with pytest.raises((Damaged, Misuse), match="hub.journal"):
        crashed.both.opened(crashed.folder)


def test_a_record_that_makes_no_sense_is_refused_in_a_sentence(crashed):
    salt = crashed.place.path.read_bytes()[ROUND_AT + 20:ROUND_AT + 36]
    for payload in (b"", b"\xc1", b"\x90", b"\x94\x91\x01\x90\x90\x90", b"\x94\x91\x94\x01\x02\x03\x04\x90\x90\x90"):
        crashed.place.put(ROUND_AT + 6 * BLOCK, forged(payload, 7, salt))
        crashed.refusal("store-damaged")


def test_a_journal_that_cannot_be_read_or_written_at_the_start_is_named(crashed, monkeypatch):
    for name in ("pread", "pwritev", "fdatasync", "fsync"):
        with monkeypatch.context() as broken:
            broken.setattr(journal_module.os, name, lambda *_: failing(errno.EIO))
            with pytest.raises(Misuse, match="hub.journal: Input/output error") as caught:
                crashed.both.opened(crashed.folder, OTHER_ID)
            assert caught.value.code == "cannot-open"
    crashed.is_whole_again()


@pytest.mark.parametrize("change", ["UPDATE meta SET value = x'00' WHERE name = 'journal'",
                                    "UPDATE meta SET value = 'text' WHERE name = 'journal'",
                                    "DROP TABLE entries", "DROP TABLE outboxes"])
def test_a_database_that_cannot_take_the_journal_is_told_in_a_sentence(crashed, change):
    make(crashed.folder / "hub.db", change)
    for _ in range(2):
        with pytest.raises((Damaged, Misuse), match="hub.db") as caught:
            crashed.both.opened(crashed.folder)
        assert "\n" not in caught.value.text


def test_a_stopped_store_needs_no_journal(crashed):
    crashed.both.opened(crashed.folder).close()
    crashed.place.path.unlink()
    store = crashed.both.opened(crashed.folder)
    assert state(store) == state(crashed.both.plain)
    store.close()
    crashed.place.path.write_bytes(noise(SIZE))
    store = crashed.both.opened(crashed.folder)
    assert state(store) == state(crashed.both.plain)
    store.close()


def test_a_longer_journal_of_an_older_version_is_read_to_its_end(tmp_path):
    both = Stores(tmp_path, 40 * BLOCK)
    both.commit(registered(1))
    for n in range(1, 36):
        both.commit(*batches(n, n, 1))
    both.journal_bytes = SIZE
    both.check_all()
    both.journal_bytes = 50 * BLOCK                       # and a shorter one is made longer
    both.commit(*batches(36, 36, 1))
    both.check_all()
    both.crash()


def test_a_store_of_before_the_journal_is_taken_over(tmp_path):
    old = OnDisk(tmp_path)
    facts = [registered(1), registered(2), *batches(1, 3, 1, 2), moved(1, 3)]
    old.store.commit(facts)
    old.close()
    make(tmp_path / "hub.db", "PRAGMA user_version = 1", "PRAGMA journal_mode = WAL")
    both = Stores(tmp_path)
    both.plain.commit(facts)
    both.commit(*batches(4, 5, 1, 2), f.Acked(1, 3, 1))
    both.check_all()
    both.store.close()
    db = sqlite3.connect(tmp_path / "hub.db")
    assert db.execute("PRAGMA user_version").fetchone() == (2,)       # so that an older version refuses it
    db.close()
    both.store = both.opened(tmp_path)
    both.check_all()
    both.crash()


# What fails while it runs

@pytest.mark.parametrize("failure", FAILURES)
def test_when_the_journal_fails_nothing_more_is_taken_and_the_next_start_has_it(both, monkeypatch, failure):
    both.commit(registered(1))
    both.commit(*batches(1, 3, 1))
    move_to_database(both)
    both.commit(*batches(4, 6, 1), moved(1, 6))
    name, how = FAILURES[failure]
    with monkeypatch.context() as broken:
        broken.setattr(journal_module.os, name, how)
        with pytest.raises(OSError):
            both.store.commit([*batches(7, 7, 1), f.Acked(1, 5, 0), moved(1, 7)])
    before = (both.folder / "hub.db").read_bytes()
    for facts in (batches(7, 7, 1), [f.Acked(1, 6, 0)], [f.Subscribed(1, "a")], [registered(2)]):
        with pytest.raises(OSError):
            both.store.commit(facts)
    both.store.close()
    assert (both.folder / "hub.db").read_bytes() == before
    both.store = both.opened(both.folder)
    lost = state(both.plain)
    both.plain.commit([*batches(7, 7, 1), f.Acked(1, 5, 0), moved(1, 7)])
    assert state(both.store) in (lost, state(both.plain))
    if failure in ("a write", "a write on a full disk"):
        assert state(both.store) == lost


class Failing:
    """A database's connection, the statements of which fail from the `after`-th on: a disk that is full,
    or broken. SQLite gives the transaction up then, or does not. While after is None all goes well."""

    def __init__(self, db, name="SQLITE_FULL", gives_up=False):
        self.db = db
        self.name = name
        self.gives_up = gives_up
        self.after = None

    def _meet(self, sql):
        if self.after is None or sql.startswith(("ROLLBACK", "SELECT")):
            return
        self.after -= 1
        if self.after < 0:
            if self.gives_up and self.db.in_transaction:
                self.db.execute("ROLLBACK")
            error = sqlite3.OperationalError(self.name)
            error.sqlite_errorname = self.name
            raise error

    def execute(self, sql, *more):
        self._meet(sql)
        return self.db.execute(sql, *more)

    def executemany(self, sql, rows):
        self._meet(sql)
        return self.db.executemany(sql, rows)

    def __getattr__(self, name):
        return getattr(self.db, name)


def without_reserve(both, **how):
    both.store._db._release_reserve()
    both.store._db._db = Failing(both.store._db._db, **how)
    return both.store._db._db


#   commits behind one another; clients 1 to 3 have 1..9 in the database and 10..12 pending, 1 acknowledged up to 4
STORIES = [
    [[f.Acked(1, 6, 0)]],
    [[f.Acked(1, 6, 0), f.Acked(2, 3, 0), f.Acked(3, 12, 1)]],
    [[f.Acked(2, 13, 0)], [stored((2, 13)), f.Acked(1, 13, 0), f.Acked(2, 14, 0)]],
    [[f.Acked(1, 6, 0), *batches(13, 14, 1, 2, 3)], [f.Acked(1, 7, 0), f.Acked(2, 5, 0)], [f.Acked(1, 15, 0)]],
    [[f.Acked(1, 6, 0), f.Acked(2, 4, 0), f.Subscribed(1, "a")]],
    [[f.Acked(1, 6, 0)], [f.Acked(2, 6, 0), f.Revoked(1), moved(2, 1)]],
    [batches(13, 14, 1, 2, 3, body=noise(12 * BLOCK)), [f.Acked(1, 7, 0), *batches(15, 15, 3)]],
    [[*batches(13, 40, 1, body=noise(BLOCK)), f.Acked(1, 12, 0), f.Acked(2, 12, 0)]],
]


STEPS = [*range(20), *range(20, 100, 5)]     # the statement that is the first to fail


@pytest.mark.parametrize("gives_up", [False, True])
@pytest.mark.parametrize("story", STORIES, ids=range(len(STORIES)))
def test_a_full_disk_loses_nothing_and_counts_nothing_twice(tmp_path, story, gives_up):
    """Wherever in a commit it is met; tried again when there is room, and the disk full again a little later."""
    for after in STEPS:
        folder = tmp_path / str(after)
        folder.mkdir()
        both = Stores(folder)
        both.commit(*map(registered, (1, 2, 3)))
        both.commit(*batches(1, 9, 1, 2, 3), moved(1, 9))
        move_to_database(both)
        both.commit(*batches(10, 12, 1, 2, 3))
        disk = without_reserve(both, gives_up=gives_up)
        both.commit(f.Acked(1, 4, 0))
        met = False
        for facts in story:
            disk.after, tries = after, 0
            while True:
                try:
                    freed = given_back(both.store.commit(facts))
                    break
                except NoRoom:
                    met, tries = True, tries + 1
                    disk.after = None
                    both.check()
                    if tries < 3:
                        disk.after = after + tries
            disk.after = None
            assert freed == given_back(both.plain.commit(facts)), after
            both.check()
        both.check_all(crash=after % 2 == 0)
        clients = both.plain._tables["inboxes"]
        both.commit(*(f.Acked(client, inbox.next, 0) for client, inbox in clients.items() if inbox.next > inbox.base))
        while both.store.tidy(50):
            pass
        both.check_all()
        assert [in_database(both.store, t) for t in ("entries", "shared", "wanted")] == [0, 0, 0]
        both.crash()
        if not met:
            return
    raise AssertionError("it was met at every statement")


def test_a_database_that_may_not_grow_waits_for_room(both):
    """SQLite's own word for it, at a checkpoint."""
    both.commit(registered(1))
    both.commit(*too_much(1)[:8])
    both.store._db._release_reserve()
    more = full(both.store._db)
    for _ in range(3):
        with pytest.raises(NoRoom):
            both.store.commit(too_much(9)[:8])
        both.check()
    more()
    both.commit(*too_much(9)[:8])
    both.check_all()
    both.store._db._release_reserve()
    both.commit(*too_much(29)[:8])
    full(both.store._db)
    assert both.commit(f.Acked(1, 10, 0)) == {1: (9, 9 * 9008)}      # acknowledgements still work
    both.check()


def test_a_reserve_makes_room_for_a_checkpoint(both):
    both.commit(registered(1))
    both.commit(*too_much(1)[:8])
    more = full(both.store._db)
    give_up = both.store._db._release_reserve
    both.store._db._release_reserve = lambda: (more(), give_up())[1]
    both.commit(*too_much(9)[:8])
    assert both.store.is_squeezed
    both.check_all()


@pytest.mark.parametrize("gives_up", [False, True])
def test_an_inbox_that_was_emptied_in_vain_is_emptied_again(both, gives_up):
    both.commit(*map(registered, (1, 2)))
    both.commit(*batches(1, 3, 1, 2))
    disk = without_reserve(both, gives_up=gives_up)
    move_to_database(both)
    both.commit(f.Acked(1, 4, 0))                         # all there is
    disk.after = 0
    with pytest.raises(NoRoom):
        both.store.commit([f.Acked(2, 2, 0)])
    disk.after = None
    both.commit(f.Acked(2, 2, 0))
    both.check_all(crash=False)
    assert in_database(both.store) == 2


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_full_disk_in_the_tidying_counts_nothing_twice(both, gives_up):
    both.commit(*map(registered, (1, 2)))
    both.commit(*batches(1, 9, 1, 2))
    both.commit(f.Revoked(2))
    disk = without_reserve(both, gives_up=gives_up)
    both.commit(f.Acked(1, 4, 0))
    for after in range(4):
        disk.after = after
        assert both.store.tidy(2)
        disk.after = None
        assert both.commit(f.Acked(1, 5 + after, 0)) == {1: (1, 14)}
    assert both.store.tidy(2)
    assert both.commit(f.Acked(1, 10, 0)) == {1: (2, 28)}
    both.check_all()


def test_a_read_that_finds_the_disk_full_reads_all_the_same(both):
    """With much acknowledged, SQLite's memory is full of it, and a read makes it write: on a full disk it can't."""
    both.commit(registered(1), registered(2))
    both.commit(*batches(1, 9, 1, 2))
    move_to_database(both)
    both.commit(f.Acked(1, 5, 0))
    database, real = both.store._db, both.store._db._db

    class Spilling:
        def execute(self, sql, *more):
            if real.in_transaction and sql.startswith("SELECT e.id"):
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorname = "SQLITE_FULL"
                raise error
            return real.execute(sql, *more)

        def __getattr__(self, name):
            return getattr(real, name)
    database._db = Spilling()
    assert both.store.read(1, 4, 1 << 20) == both.plain.read(1, 4, 1 << 20)
    assert both.store.read(2, 0, 1 << 20) == both.plain.read(2, 0, 1 << 20)
    assert both.commit(f.Acked(1, 7, 0)) == {1: (2, 28)}
    both.check_all()


@pytest.mark.parametrize("story", STORIES, ids=range(len(STORIES)))
def test_when_the_database_fails_the_next_start_has_what_was_committed(tmp_path, story):
    """Wherever it fails. What was under way is there or is not; nothing is written any more."""
    for after in STEPS:
        folder = tmp_path / str(after)
        folder.mkdir()
        both = Stores(folder)
        both.commit(*map(registered, (1, 2, 3)))
        both.commit(*batches(1, 9, 1, 2, 3), moved(1, 9))
        move_to_database(both)
        both.commit(*batches(10, 12, 1, 2, 3), f.Acked(1, 4, 0))
        disk = without_reserve(both, name="SQLITE_IOERR")
        disk.after = after
        states = [state(both.plain)]
        met = False
        for facts in story:
            both.plain.commit(facts)
            states = [states[-1], state(both.plain)]
            try:
                both.store.commit(facts)
            except sqlite3.Error:
                met = True
                break
            states = states[1:]
        disk.after = None                                # as if it were well again: it is not to be trusted
        salt = both.rounds()
        both.store.close()
        both.store = both.opened(folder)
        assert state(both.store) in states
        if met:
            assert salt != bytes(16)
        both.crash()
        if not met:
            return
    raise AssertionError("it failed at every statement")


def test_what_a_store_could_not_leave_in_the_database_stays_in_the_journal(both, caplog):
    both.commit(registered(1))
    both.commit(*too_much(1)[:8])
    both.store._db._release_reserve()
    full(both.store._db)
    with caplog.at_level(logging.WARNING):
        both.store.close()
    assert "stays there until the next start" in caplog.text
    both.store = both.opened(both.folder)
    assert pending(both.store) == 0 and in_database(both.store) == 8
    assert state(both.store) == state(both.plain)


def test_a_failed_database_is_left_alone_when_the_store_is_closed(both):
    both.commit(registered(1))
    both.commit(*batches(1, 3, 1))
    disk = without_reserve(both, name="SQLITE_IOERR")
    disk.after = 0
    with pytest.raises(sqlite3.Error):
        both.store.commit([f.Subscribed(1, "a")])
    disk.after = None
    before = (both.folder / "hub.db").read_bytes()
    both.store.close()
    assert (both.folder / "hub.db").read_bytes() == before
    both.store = both.opened(both.folder)
    assert state(both.store) == state(both.plain)


def test_a_start_on_a_full_disk_says_so_and_works_when_there_is_room(both, monkeypatch):
    both.commit(registered(1))
    both.commit(*too_much(1)[:8])
    both.crash()

    def no_room(*_):
        raise NoRoom
    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "write", no_room)
            with pytest.raises(Misuse, match="make room") as caught:
                both.opened(both.folder)
            assert caught.value.code == "disk-full"
    both.store = both.opened(both.folder)
    assert state(both.store) == state(both.plain)


def test_a_journal_there_is_no_room_for_gets_the_reserve(tmp_path, monkeypatch):
    SqliteStore(tmp_path / "hub.db", ID, reserve_bytes=4096).close()
    real = os.pwrite

    def pwrite(fd, data, at):
        if (tmp_path / "reserve").exists():
            failing(errno.ENOSPC)
        return real(fd, data, at)
    with monkeypatch.context() as broken:
        broken.setattr(journal_module.os, "pwrite", lambda *_: failing(errno.ENOSPC))
        with pytest.raises(Misuse, match="No space left") as caught:
            JournaledStore(tmp_path / "hub.db", ID, 4096, journal_bytes=SIZE)
        assert caught.value.code == "cannot-open"
    monkeypatch.setattr(journal_module.os, "pwrite", pwrite)
    store = JournaledStore(tmp_path / "hub.db", ID, 4096, journal_bytes=SIZE)
    assert not (tmp_path / "reserve").exists() and store.is_squeezed
    store.commit([registered(1)])
    store.close()


def test_memory_is_given_back_with_what_is_acknowledged(both):
    both.commit(registered(1), registered(2))
    for n in range(1, 200):
        both.commit(*batches(n, n, 1, 2, body=b"x" * 500), moved(1, n), f.Acked(1, n, 0))
        held = both.store._pending
        assert held.count == pending(both.store)
        assert held.size == sum(kept.size for kept in {kept for change in held.inboxes.values()
                                                       for _, kept in change.entries})
    both.commit(f.Acked(1, 200, 0), f.Acked(2, 200, 0))
    assert held.count == held.size == 0


def test_each_round_has_a_new_salt_of_the_system_s(both, monkeypatch):
    salts = {both.rounds()}
    for n in range(5):
        both.commit(f.Subscribed(1, f"{n}"))
        salts.add(both.rounds())
    assert len(salts) == 6
    both.reopen()
    assert both.rounds() not in salts
    assert JournaledStore.__init__.__kwdefaults__["random_bytes"] is os.urandom


# The daemon's folder

def settings(folder):
    return daemon.Settings(folder, "127.0.0.1:0", "127.0.0.1:0", "test", disk_reserve_bytes=4096)


def started(folder):
    daemon.keys.make_folder(folder)
    server, _ = daemon._prepare(settings(folder))
    return server


def killed(server):
    server._context.destroy()
    server.store._journal.close()
    server.store._db.close()


def stopped(server):
    server.close()
    server.store.close()


#   of hub.key, hub.db and hub.journal, after kill -9 or a stop, this is removed        then a start says
COMBINATIONS = [
    ("killed",  (),                                                                     None),
    ("stopped", (),                                                                     None),
    ("killed",  ("hub.journal",),                                                       "journal-missing"),
    ("stopped", ("hub.journal",),                                                       None),
    ("killed",  ("hub.db",),                                                            "store-missing"),
    ("stopped", ("hub.db", "hub.journal"),                                              "store-missing"),
    ("killed",  ("hub.key",),                                                           "key-missing"),
    ("stopped", ("hub.key",),                                                           "key-missing"),
    ("killed",  ("hub.key", "hub.journal"),                                             "journal-missing"),
    ("killed",  ("hub.key", "hub.db"),                                                  None),
    ("stopped", ("hub.key", "hub.db"),                                                  None),
]


@pytest.mark.parametrize(("end", "removed", "code"), COMBINATIONS, ids=str)
def test_a_start_on_what_is_left_of_a_folder(tmp_path, capsys, end, removed, code):
    """What is refused is refused in a line, again and again; and put back it starts."""
    folder = tmp_path / "data"
    server = started(folder)
    ident = server.store.id
    server.store.commit([f.Missed(1, 5)])
    {"killed": killed, "stopped": stopped}[end](server)
    kept = {name: (folder / name).read_bytes() for name in removed}
    for name in removed:
        (folder / name).unlink()
    if code:
        for _ in range(2):
            with pytest.raises(SystemExit) as exited:
                hub_command.main(["--data", str(folder), "--bind", "127.0.0.1:0", "--live", "127.0.0.1:0"])
            lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("zbackbone-hub:")]
            assert exited.value.code == 1 and len(lines) == 1 and lines[0].endswith(f"[{code}]")
        for name, data in kept.items():
            assert not (folder / name).exists()
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o600)
    if "hub.db" in removed and not code:
        (folder / "operator.profile").unlink()
    server = started(folder)
    if "hub.db" in removed and not code:
        assert server.store.id != ident                  # begun anew, and the old journal is not taken for its own
        assert server.hub.inboxes[1].missed == 0
    else:
        assert server.store.id == ident
        assert server.hub.inboxes[1].missed == 5
    stopped(server)


# Bodies that only the journal holds

LARGE = HELD_BYTES + 100


def large(first, last, *clients):
    return [stored(*((client, n) for client in clients), body=noise(LARGE)) for n in range(first, last + 1)]


def test_large_bodies_are_not_held_in_memory_and_come_back_from_the_journal(both):
    both.commit(registered(1), registered(2))
    both.commit(*large(1, 3, 1), *batches(4, 4, 1), *large(1, 2, 2), moved(1, 9))
    kept = [kept for change in both.store._pending.inboxes.values() for _, kept in change.entries]
    assert sum(one.blob is None for one in kept) == 5 and len(kept) == 6
    assert both.store.read(1, 0, 1 << 20) == both.plain.read(1, 0, 1 << 20)
    assert both.store.read(1, 1, LARGE) == both.plain.read(1, 1, LARGE)
    both.commit(f.Acked(1, 3, 0))
    assert both.store.read(1, 2, 1 << 20) == both.plain.read(1, 2, 1 << 20)
    both.check_all()
    move_to_database(both)
    both.check_all()


def test_a_body_for_many_lies_in_the_journal_once_and_in_the_database_once(both):
    both.commit(*(registered(n) for n in range(1, 5)))
    both.commit(*large(1, 3, 1, 2, 3, 4))
    both.commit(f.Acked(1, 4, 0))
    assert both.store._pending.size == 3 * (LARGE + len(b"envelope"))
    move_to_database(both)
    assert (in_database(both.store), in_database(both.store, "shared")) == (9, 3)
    both.check_all()


@pytest.mark.parametrize("moves", [False, True], ids=["in the journal", "moved to the database"])
def test_a_large_body_that_the_journal_gives_back_changed_is_not_delivered(both, moves):
    both.commit(registered(1))
    both.commit(*large(1, 3, 1))
    [at] = [kept.at for number, kept in both.store._pending.inboxes[1].entries if number == 2]
    with open(both.store._journal.path, "r+b") as file:
        file.seek(at + LARGE // 2)
        byte = file.read(1)
        file.seek(at + LARGE // 2)
        file.write(bytes([byte[0] ^ 1]))
    if moves:
        move_to_database(both)
        assert both.store.damaged == 1
    expected = [entry for entry in both.plain.read(1, 0, 1 << 20)[0] if entry[0] != 2]
    assert both.store.read(1, 0, 1 << 20)[0] == expected
    assert both.store.damaged == (2 if moves else 1)     # counted where it was found, each time
    assert both.commit(f.Acked(1, 4, 0)) == {1: (3, 3 * (LARGE + 8))}


def test_what_a_receiver_leaves_for_long_goes_to_the_database_before_the_journal_is_full(both, monkeypatch):
    monkeypatch.setattr(journaled_module, "PENDING_BYTES", 3 * LARGE)
    both.commit(registered(1))
    for n in range(1, 4):
        both.commit(*large(n, n, 1))
    assert pending(both.store) == 3
    both.commit(*large(4, 4, 1))
    assert (pending(both.store), in_database(both.store)) == (1, 3)
    both.check_all()


def test_a_journal_that_cannot_be_read_stops_the_hub_and_loses_nothing(both, monkeypatch):
    both.commit(registered(1))
    both.commit(*large(1, 2, 1))

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")
    with monkeypatch.context() as broken:
        broken.setattr(both.store._journal, "read", failing)
        with pytest.raises(OSError, match="Input/output"):
            both.store.read(1, 0, 100)
        with pytest.raises(OSError, match="Input/output"):
            both.store.commit([f.Subscribed(1, "a")])
    both.check_all()                                 # crashed, and opened again


def test_facts_are_packed_and_unpacked_and_each_body_is_where_it_is_said_to_be():
    facts = [*large(1, 2, 1, 2), f.Acked(2, 1, 3), moved(1, 4, (2, "forbidden")), f.Missed(1, 2), *batches(3, 4, 1),
             stored((1, 9), body=b"", envelope=b"")]
    data, places = f.pack(facts)
    batch = [fact for fact in facts if type(fact) is f.Stored]
    assert [data[at:at + len(b.envelope) + len(b.body)] for at, b in zip(places, batch, strict=True)] == [
        b.envelope + b.body for b in batch]
    again = f.unpack(data)
    assert sorted(again, key=repr) == sorted(facts, key=repr)
    assert [type(fact) for fact in again] == sorted((type(fact) for fact in facts), key=f.MESSAGES.index)
    for wrong in (data[:-1], data + b"x", data[:3], b"", b"\0\0\0\1\x90"):
        with pytest.raises(Exception):               # noqa: B017 (msgpack's are many)
            f.unpack(wrong)
