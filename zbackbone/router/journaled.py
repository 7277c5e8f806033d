"""Journaled: the hub's store: a journal for what comes and goes, a database for what stays.

Messages and acknowledgements are on disk once they are in the journal: one write of just their
bytes, one sync, in place. The database is told when the journal is full, in one transaction; what
was acknowledged by then never reaches it. Everything else (clients, keys, grants, subscriptions)
goes to the database at once, with what was pending. A start replays what the journal has more.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import facts as f
from ..errors import Damaged, Misuse
from ..protocol import DISK_RESERVE_BYTES
from .journal import JOURNAL_BYTES, SALT_BYTES, Journal
from .pending import Pending
from .store import EVERYTHING, Failure, Mark, NoRoom, SqliteStore, opening

log = logging.getLogger("zbackbone.hub")

NO_ROUND = bytes(SALT_BYTES)
PENDING_BYTES = 16 << 20    # of batches not acknowledged: more is a backlog, which the database takes in 0.1 s
PENDING_MAX = 16_384        # entries: what the database takes in 0.1 s, and some 10 MB of memory if they are small
DELETED_MAX = 4096          # of the database's, in one transaction: what takes them back is some 32 MB of disk, not as
                            # much as the backlog; and a start does not delete more anew. Draining is no slower for it


class JournaledStore:
    """A Store. Opens, or makes, the database in `path` and the journal beside it; replays what a crash left.

    Raises Damaged or Misuse, with a sentence, when it can't.
    """

    def __init__(self, path: Path, new_id: bytes, reserve_bytes: int = DISK_RESERVE_BYTES, may_make: bool = True, *,
                 journal_bytes: int = JOURNAL_BYTES, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """new_id, reserve_bytes, may_make: as of SqliteStore."""
        self._random_bytes = random_bytes
        self._pending = Pending(self._fetch)
        self._damaged = 0            # of what was in the journal
        self._db = SqliteStore(path, new_id, reserve_bytes, may_make)
        try:
            self._begin(path.with_name("hub.journal"), journal_bytes)
        except BaseException as error:
            self._db.close()
            if isinstance(error, NoRoom):
                raise Misuse("disk-full", f"the disk of {path} is full; make room, then start again") from None
            if isinstance(error, Failure):
                raise opening(path, error) from error
            raise

    def _begin(self, path: Path, size: int) -> None:
        mark = self._db.mark() or Mark(NO_ROUND, 0)
        self._journal = self._open_journal(path, size, mark)
        try:
            self._replay(mark)
            self._checkpoint()
        except BaseException as error:
            self._journal.close()
            if isinstance(error, OSError):
                raise Misuse("cannot-open", f"cannot use the journal {path}: {error.strerror};"
                                            " check the disk") from error
            raise

    def _open_journal(self, path: Path, size: int, mark: Mark) -> Journal:
        if mark.salt != NO_ROUND and (not path.exists() or path.stat().st_size < mark.size):
            raise Damaged("journal-missing", f"the journal {path}, with what was accepted last, is gone or was cut off:"
                                             " restore a backup of the whole data folder, nothing was changed")
        try:
            while True:
                try:
                    return Journal(path, size)
                except OSError as error:
                    if not self._db.make_room(error):
                        raise
        except OSError as error:
            raise Misuse("cannot-open", f"cannot open the journal {path}: {error.strerror};"
                                        " check the data folder") from None

    def _replay(self, mark: Mark) -> None:
        if mark.salt == NO_ROUND:
            return
        records = 0
        for payload in self._journal.replay(mark.salt):
            try:
                for fact in f.unpack(payload):
                    self._pending.take(fact)
            except Exception as error:               # whole, and no sense in it: msgpack's, ValueError, TypeError
                raise Damaged("store-damaged", f"the journal {self._journal.path} holds what this version can't read"
                                               f" ({error!r}); start the one that wrote it") from error
            records += 1
        if records:
            log.info("replayed %d commits from the journal", records)

    @property
    def id(self) -> bytes:
        return self._db.id

    @property
    def damaged(self) -> int:
        """Entries whose checksum was wrong, since the start."""
        return self._db.damaged + self._damaged + self._pending.damaged

    def _fetch(self, at: int, length: int) -> bytes:
        return self._journal.read(at, length)

    @property
    def is_squeezed(self) -> bool:
        return self._db.is_squeezed

    def room(self) -> bool:
        """As SqliteStore.room()."""
        return self._db.room()

    # Reading ---------------------------------------------------------------------------------
    def load(self) -> Iterator[f.Fact]:
        """As Store.load()."""
        if self._pending:
            self._checkpoint()
        return self._db.load()

    def read(self, client: int, after: int, bytes_max: int) -> tuple[list[tuple[int, bytes, bytes]], int]:
        """As Store.read()."""
        out: list[tuple[int, bytes, bytes]] = []
        if client in self._db.filled:
            out, upto = self._db.read(client, after, bytes_max)
            if upto < EVERYTHING:
                return out, upto
        held = sum(len(envelope) + len(body) for _, envelope, body in out)
        for entry in self._pending.read(client, after):
            out.append(entry)
            held += len(entry[1]) + len(entry[2])
            if held >= bytes_max:
                return out, entry[0]
        return out, EVERYTHING

    # Writing ---------------------------------------------------------------------------------
    def commit(self, facts: list[f.Fact]) -> list[f.Freed]:
        """As Store.commit(). Raises NoRoom as SqliteStore.commit(); OSError when the journal fails, after
        which, as after any sqlite3.Error, the caller stops for good."""
        acked: dict[int, f.Acked] = {}
        for fact in facts:
            kind = type(fact)
            if kind is f.Acked:
                acked[fact.client] = fact            # type: ignore[union-attr, assignment]
            elif kind not in f.MESSAGES:
                return self._checkpoint(facts)
        payload, places = f.pack(facts)              # type: ignore[arg-type]
        if (self._pending.count > PENDING_MAX or self._pending.size > PENDING_BYTES or self._db.deleted > DELETED_MAX
                or not self._journal.has_room(len(payload))):
            self._checkpoint()
            if not self._journal.has_room(len(payload)):
                return self._checkpoint(facts)       # larger than all of it
        # First, since a full disk may refuse it.
        in_database = self._db.free({client: ack.number for client, ack in acked.items()}) if acked else {}
        at, places_left = self._journal.append(payload), iter(places)
        for fact in facts:
            if type(fact) is f.Stored:
                self._pending.take(fact, at + next(places_left))
            elif type(fact) is not f.Acked:
                self._pending.take(fact)             # type: ignore[arg-type]
        freed = []
        for client, ack in acked.items():
            messages, size = self._pending.ack(ack)
            before = in_database[client]
            freed.append(f.Freed(client, before[0] + messages, before[1] + size))
        return freed

    def _checkpoint(self, facts: Sequence[f.Fact] = ()) -> list[f.Freed]:
        """Writes what is pending, and these facts, to the database, and begins the journal anew."""
        mark = Mark(self._random_bytes(SALT_BYTES), self._journal.size)
        self._journal.announce(mark.salt)
        freed = self._db.write(self._pending, facts, mark)
        self._damaged += self._pending.damaged
        self._pending = Pending(self._fetch)
        self._journal.begin()
        return freed

    def tidy(self, entries_max: int) -> bool:
        """As SqliteStore.tidy()."""
        return self._db.tidy(entries_max)

    def close(self) -> None:
        """Leaves all in the database, if nothing has failed so far; else the next start does it."""
        try:
            if not self._journal.is_broken and not self._db.is_broken:
                self._db.write(self._pending, (), Mark(NO_ROUND, 0))
        except (Failure, NoRoom) as error:
            log.warning("what is in the journal stays there until the next start: %s", error)
        self._journal.close()
        self._db.close()
