"""Store: what the hub remembers, on disk. The only SQL.

SQLite, one connection in one thread, a rollback journal that is kept (PERSIST) with
synchronous=FULL: commit() returns after the fsync. An entry's key is its inbox's client and
number in one integer, so an inbox is a range of one B-tree: appended at its end, read in
order, deleted from its start. A body that goes to one inbox lies in its entry; one that goes
to several is stored once, with a count of the entries that still want it.
"""

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from zlib import crc32

from .. import facts as f
from ..errors import Damaged, Misuse
from ..protocol import DISK_RESERVE_BYTES
from .pending import Kept, Pending

SCHEMA = 2                          # 2: there may be a journal beside it, which an older version would not read
APPLICATION_ID = 0x7A626B62         # "zbkb", so that a stranger's database is not taken for ours
NUMBER_BITS = 40                    # inbox numbers, 35 years of 1,000 batches a second; clients: 2**23
DAMAGED_SUM = -1                    # no sum that crc32 makes
EVERYTHING = (1 << NUMBER_BITS) - 1    # "up to which this is all there is", when nothing is behind it
PAGE_BYTES = 8192                   # of 4, 8, 16 and 32 kB the best or equal, for lone messages and full batches
ROLLBACK_BYTES = 16 << 20           # what is kept of the rollback journal after a large transaction
FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE_BYTES = 16 << 20            # freed when the disk is full after all, so that acks can be written

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clients (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, grants TEXT NOT NULL,
                      created_ms INTEGER NOT NULL);
CREATE TABLE keys (key TEXT PRIMARY KEY, client INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE invitations (key TEXT PRIMARY KEY, name TEXT NOT NULL, grants TEXT NOT NULL,
                          expires_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE subscriptions (client INTEGER NOT NULL, pattern TEXT NOT NULL,
                            PRIMARY KEY (client, pattern)) WITHOUT ROWID;
CREATE TABLE outboxes (client INTEGER NOT NULL, outbox BLOB NOT NULL, number INTEGER NOT NULL, refused TEXT NOT NULL,
                       PRIMARY KEY (client, outbox)) WITHOUT ROWID;
CREATE TABLE inboxes (client INTEGER PRIMARY KEY, next INTEGER NOT NULL, base INTEGER NOT NULL, skip INTEGER NOT NULL,
                      messages INTEGER NOT NULL, size INTEGER NOT NULL, missed INTEGER NOT NULL);
CREATE TABLE entries (id INTEGER PRIMARY KEY, count INTEGER NOT NULL, size INTEGER NOT NULL, shared INTEGER,
                      sum INTEGER, envelope BLOB, body BLOB);
CREATE TABLE shared (id INTEGER PRIMARY KEY, sum INTEGER NOT NULL, envelope BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE wanted (shared INTEGER PRIMARY KEY, entries INTEGER NOT NULL);
CREATE TABLE doomed (client INTEGER PRIMARY KEY);
"""


class Store(Protocol):
    """What the hub needs of a store; the embedded one is below, the tests have one in memory."""

    id: bytes

    def load(self) -> Iterator[f.Fact]:
        """The facts that make a hub what it was at the last commit."""

    def commit(self, facts: list[f.Fact]) -> list[f.Freed]:
        """All of it on disk, in one transaction, when this returns; none of it when it raises."""

    def read(self, client: int, after: int, bytes_max: int) -> tuple[list[tuple[int, bytes, bytes]], int]:
        """An inbox's entries (number, envelope, body) behind `after`, about `bytes_max` bytes of
        them, and the number up to which this is all there is. One whose checksum is wrong is left out."""


class Mark(NamedTuple):
    """The journal's round that follows what is in the store. salt: 16 bytes, all zeros when the hub
    was stopped and there is none. size: the journal's, in bytes."""

    salt: bytes
    size: int


Result = TypeVar("Result")
Failure = sqlite3.Error             # all that the database may raise, but for NoRoom


class NoRoom(Exception):
    """The disk is full, and the reserve is used up."""


class SqliteStore:
    """Opens the store in `path`, or makes it. Raises Damaged or Misuse, with a sentence, when it can't."""

    def __init__(self, path: Path, new_id: bytes, reserve_bytes: int = DISK_RESERVE_BYTES,
                 may_make: bool = True) -> None:
        """new_id: 8 random bytes, this store's if it is made now. reserve_bytes: see room().
        may_make: whether to make one where there is none, or an empty one."""
        self.path = path
        self.reserve_bytes = reserve_bytes
        self.reserve = path.with_name("reserve")
        self.damaged = 0                    # entries whose checksum was wrong, since the start
        self.is_squeezed = False
        self.is_broken = False              # something failed that was no full disk: nothing more is to be written
        self.filled: set[int] = set()       # clients that may have entries here
        self._emptied: set[int] = set()     # and that have none any more, once the transaction is on disk
        self.deleted = 0                    # entries, in the transaction under way
        self._freed: dict[int, int] = {}    # what free() told in this transaction: by client, up to which number
        try:
            try:
                self._open(new_id, may_make)
            except sqlite3.OperationalError:
                # What a crash or an older version left may want room to be opened. The reserve was kept for that.
                if not self._is_nearly_full() or not self._release_reserve():
                    raise
                self._open(new_id, may_make)
        except UnicodeDecodeError as error:              # of a damaged schema; no sqlite3.Error
            raise Damaged("store-damaged", _damaged(path, str(error))) from error
        except sqlite3.Error as error:
            raise opening(path, error) from error
        except OSError as error:
            raise Misuse("cannot-open", f"cannot open the store {path}: {error.strerror};"
                                        " check the data folder") from None
        if not self.is_squeezed:
            self._keep_reserve()

    def _open(self, new_id: bytes, may_make: bool) -> None:
        is_file = self.path.exists() and self.path.stat().st_size > 0
        self._db = sqlite3.connect(self.path, isolation_level=None, cached_statements=256)
        try:
            self._set_up(is_file, new_id, may_make)
        except BaseException:
            self._db.close()
            raise

    def _set_up(self, is_file: bool, new_id: bytes, may_make: bool) -> None:
        is_new = not is_file or self._is_empty()
        if is_new:
            if not may_make:
                raise Damaged("store-damaged", _damaged(self.path, "there is nothing in it"))
            os.chmod(self.path, 0o600)
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        else:
            self._check_header()
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")     # no shared memory file, one owner
        # Not WAL: what is appended is written once, not to a log and then again (1.6 times as fast for a
        # backlog of 64 KiB batches, and a third of its stalls); and commits here are rare, so its syncs are too.
        if self._value("PRAGMA journal_mode = PERSIST") != "persist":
            raise Misuse("no-rollback", f"SQLite can't keep its journal beside {self.path}; use a local disk")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA journal_size_limit = {ROLLBACK_BYTES}")
        self._db.execute("PRAGMA cache_size = -8192")           # 8 MB, whatever the backlog
        self._db.execute("PRAGMA temp_store = MEMORY")
        # Debian's SQLite overwrites what is deleted with zeros, and keeps a copy to take that back: a third of a
        # hub's time while a receiver catches up. Who can read the file could have read it before.
        self._db.execute("PRAGMA secure_delete = OFF")
        if is_new:
            self._make(new_id)
        self.id = bytes(self._value("SELECT value FROM meta WHERE name = 'id'") or b"")
        if len(self.id) != 8:
            raise Damaged("store-damaged", _damaged(self.path, "it has lost its identity"))
        if self._value("PRAGMA user_version") < SCHEMA:
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        self._next_shared = (self._value("SELECT max(id) FROM shared") or 0) + 1
        self.filled.update(row[0] for row in self._db.execute(
            "SELECT client FROM inboxes i WHERE EXISTS"
            f" (SELECT 1 FROM entries WHERE id > i.client << {NUMBER_BITS} AND id < i.client + 1 << {NUMBER_BITS})"))

    def _is_empty(self) -> bool:
        """Made, and no more: as a crash in the first start leaves it."""
        return (self.path.stat().st_size >= 512 and not self._value("PRAGMA application_id")
                and not self._value("PRAGMA user_version") and not self._value("SELECT count(*) FROM sqlite_master"))

    def _check_header(self) -> None:
        application, schema = self._value("PRAGMA application_id"), self._value("PRAGMA user_version")
        if application != APPLICATION_ID:
            raise Damaged("store-damaged", _damaged(self.path, "it is not a store of zbackbone"))
        if schema > SCHEMA:
            raise Misuse("store-too-new", f"{self.path} was written by a newer zbackbone (store version {schema},"
                                          f" this one reads {SCHEMA}); install that version or a later one")

    def _make(self, new_id: bytes) -> None:
        # The pragmas are part of the transaction: a store is made whole or not at all.
        self._db.execute("BEGIN IMMEDIATE")
        for statement in TABLES.split(";")[:-1]:
            self._db.execute(statement)
        self._db.execute("INSERT INTO meta VALUES ('id', ?)", (new_id,))
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")
        self._db.execute("COMMIT")

    def _value(self, sql: str) -> Any:
        row = self._db.execute(sql).fetchone()
        return row[0] if row else None

    def mark(self) -> Mark | None:
        """The last one written; None when there was none yet. Raises Damaged for what is none."""
        value = self._value("SELECT value FROM meta WHERE name = 'journal'")
        if value is None:
            return None
        if type(value) is not bytes or len(value) != 24:
            raise Damaged("store-damaged", _damaged(self.path, "it has lost its place in the journal"))
        return Mark(value[:16], int.from_bytes(value[16:]))

    # Reading ---------------------------------------------------------------------------------
    def load(self) -> Iterator[f.Fact]:
        try:
            yield from self._load()
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise Damaged("store-damaged", _damaged(self.path, str(error))) from error

    def _load(self) -> Iterator[f.Fact]:
        rows = self._db.execute
        known: dict[int, list[tuple[str, bool]]] = {}
        for key, client, state in rows("SELECT key, client, state FROM keys"):
            if state == "dropped":
                yield f.KeyDropped(client, key)
            else:
                known.setdefault(client, []).append((key, state == "pending"))
        for client, name, grants, created_ms in rows("SELECT id, name, grants, created_ms FROM clients"):
            keys = sorted(known[client], key=lambda k: k[1])
            yield f.Registered(client, name, keys[0][0], json.loads(grants), created_ms)
            for key, _pending in keys[1:]:
                yield f.KeyAdded(client, key)
        for key, name, grants, expires_ms in rows("SELECT key, name, grants, expires_ms FROM invitations"):
            yield f.Invited(key, name, json.loads(grants), expires_ms)
        for row in rows("SELECT client, pattern FROM subscriptions"):
            yield f.Subscribed(*row)
        for client, outbox, number, refused in rows("SELECT client, outbox, number, refused FROM outboxes"):
            yield f.Moved(client, outbox, number, tuple((n, c) for n, c in json.loads(refused)), False)
        for row in rows("SELECT client, next, base, skip, messages, size, missed FROM inboxes"):
            yield f.InboxAt(*row)

    def read(self, client: int, after: int, bytes_max: int) -> tuple[list[tuple[int, bytes, bytes]], int]:
        try:
            return self._read(client, after, bytes_max)
        except sqlite3.Error as error:
            if not _is_full(error):
                raise
            # It was to write down what free() began, for want of memory. That is given up; this then needs no disk.
            self._give_up()
            return self._read(client, after, bytes_max)

    def _read(self, client: int, after: int, bytes_max: int) -> tuple[list[tuple[int, bytes, bytes]], int]:
        first = client << NUMBER_BITS
        out, held, number = [], 0, after
        cursor = self._db.execute(
            "SELECT e.id, coalesce(s.sum, e.sum), e.shared, coalesce(s.envelope, e.envelope), coalesce(s.body, e.body)"
            " FROM entries e LEFT JOIN shared s ON s.id = e.shared WHERE e.id > ? AND e.id < ? ORDER BY e.id",
            (first + after, first + (1 << NUMBER_BITS)))
        for ident, total, shared, envelope, body in cursor:
            number = ident - first
            if (type(envelope) is not bytes or type(body) is not bytes or type(shared) not in (int, type(None))
                    or _sum(shared or ident, envelope, body) != total):
                self.damaged += 1
                continue
            out.append((number, envelope, body))
            held += len(envelope) + len(body)
            if held >= bytes_max:
                cursor.close()
                return out, number
        return out, EVERYTHING

    # Writing ---------------------------------------------------------------------------------
    def commit(self, facts: list[f.Fact]) -> list[f.Freed]:
        """Raises NoRoom when the disk is full to the last byte: nothing is changed, try it again.
        Raises sqlite3.Error when it can't be made durable; the caller then stops for good."""
        return self.write(Pending(), facts)

    def write(self, pending: Pending, facts: Sequence[f.Fact] = (), mark: Mark | None = None) -> list[f.Freed]:
        """What is pending, then these facts, in one transaction with what free() began. Raises as commit().

        mark: how far the journal is contained in it. Returns what the facts freed, not what was pending.
        """
        return self._with_reserve(lambda: self._write(pending, facts, mark))

    def free(self, numbers: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Deletes, by client, an inbox's entries before that number: how many messages and bytes they were.

        On disk with the next write(), which must be told the same acknowledgements again. When the
        transaction has to be given up meanwhile, the next one begins with the same. Raises as commit().
        """
        freed = self._with_reserve(lambda: {client: self._free(client, upto) for client, upto in numbers.items()})
        self._freed.update((client, upto) for client, upto in numbers.items() if freed[client][0])
        return freed

    def _with_reserve(self, run: Callable[[], Result]) -> Result:
        while True:
            try:
                return run()
            except BaseException as error:
                self._give_up()
                if not isinstance(error, sqlite3.Error) or not _is_full(error):
                    self.is_broken = True
                    raise
                if not self._release_reserve():
                    raise NoRoom(str(error)) from error

    def _give_up(self) -> None:
        self._emptied.clear()
        self.deleted = 0
        with contextlib.suppress(sqlite3.Error):             # SQLite may have done it already
            self._db.execute("ROLLBACK")

    def _begin(self) -> None:
        if self._db.in_transaction:
            return
        self._db.execute("BEGIN IMMEDIATE")
        for client, upto in self._freed.items():             # of one that was given up; told already
            self._free(client, upto)

    def _write(self, pending: Pending, facts: Sequence[f.Fact], mark: Mark | None) -> list[f.Freed]:
        self._begin()
        self._flush(pending)
        bulk, freed = Pending(), []
        revoked: set[int] = set()
        for fact in facts:
            if type(fact) in f.MESSAGES:
                if type(fact) is not f.Moved or fact.client not in revoked:
                    bulk.take(fact)                  # type: ignore[arg-type]
                continue
            if type(fact) is f.Revoked or type(fact) is f.OutboxForgotten:
                freed += self._flush(bulk)           # what came before goes before: it may be about the same
                bulk = Pending()
            if type(fact) is f.Revoked:
                revoked.add(fact.client)
            self._remember(fact)
        freed += self._flush(bulk)
        if mark is not None:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('journal', ?)", (mark.salt + mark.size.to_bytes(8),))
        self._commit()
        return [fact for fact in freed if fact.client not in revoked]

    def _commit(self) -> None:
        self._db.execute("COMMIT")
        self.filled -= self._emptied
        self._emptied.clear()
        self._freed.clear()
        self.deleted = 0

    def _flush(self, pending: Pending) -> list[f.Freed]:
        """Writes it; returns what its acknowledgements freed here and in itself."""
        if not pending:
            return []
        many, changes, freed = self._db.executemany, [], []
        for client, change in pending.inboxes.items():
            if change.entries:
                self.filled.add(client)
                self._emptied.discard(client)
            changes.append((change.next, sum(kept.messages for _, kept in change.entries),
                            sum(kept.size for _, kept in change.entries), change.missed, client))
        many("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", self._entries(pending))
        many("UPDATE inboxes SET next = max(next, ?), messages = messages + ?, size = size + ?, missed = missed + ?"
             " WHERE client = ?", changes)
        many("INSERT INTO outboxes VALUES (?, ?, ?, ?) ON CONFLICT (client, outbox)"
             " DO UPDATE SET number = excluded.number, refused = excluded.refused",
             [(x.client, x.outbox, x.number, json.dumps(x.refused) if x.refused else "[]")
              for x in pending.moved.values()])
        for client, change in pending.inboxes.items():
            if change.acked is not None:
                messages, size = self._free(client, change.acked.number)
                self._db.execute("UPDATE inboxes SET base = ?, skip = ? WHERE client = ?",
                                 (change.acked.number, change.acked.skip, client))
                freed.append(f.Freed(client, messages + change.messages, size + change.size))
        return freed

    def _entries(self, pending: Pending) -> Iterator[tuple[Any, ...]]:
        """The rows of its entries; bodies for several are written on the way, before the first that wants them."""
        shared: dict[Kept, int] = {}
        for client, change in pending.inboxes.items():
            for number, kept in change.entries:
                ident = client << NUMBER_BITS | number
                if kept.left == 1:
                    yield ident, kept.messages, kept.size, None, *_summed(ident, pending.blob_of(kept))
                    continue
                if kept not in shared:
                    shared[kept] = self._next_shared
                    self._next_shared += 1
                    self._db.execute("INSERT INTO shared VALUES (?, ?, ?, ?)",
                                     (shared[kept], *_summed(shared[kept], pending.blob_of(kept))))
                    self._db.execute("INSERT INTO wanted VALUES (?, ?)", (shared[kept], kept.left))
                yield ident, kept.messages, kept.size, shared[kept], None, None, None

    def _free(self, client: int, number: int) -> tuple[int, int]:
        if client not in self.filled or client in self._emptied:
            return 0, 0
        self._begin()
        first = client << NUMBER_BITS
        rows = self._db.execute("DELETE FROM entries WHERE id > ? AND id < ? RETURNING count, size, shared",
                                (first, first + number)).fetchall()
        self.deleted += len(rows)
        messages, size = sum(row[0] for row in rows), sum(row[1] for row in rows)
        self._unshare(row[2] for row in rows if row[2] is not None)
        self._db.execute("UPDATE inboxes SET messages = messages - ?, size = size - ? WHERE client = ?",
                         (messages, size, client))
        if not self._db.execute("SELECT 1 FROM entries WHERE id > ? AND id < ? LIMIT 1",
                                (first, first + (1 << NUMBER_BITS))).fetchall():
            self._emptied.add(client)
        return messages, size

    def _unshare(self, shared: Iterable[int]) -> None:
        """One entry each no longer wants these bodies; the last one takes the body with it."""
        for ident in shared:
            left = self._db.execute("UPDATE wanted SET entries = entries - 1 WHERE shared = ? RETURNING entries",
                                    (ident,)).fetchall()
            if not left or left[0][0] <= 0:
                self._db.execute("DELETE FROM wanted WHERE shared = ?", (ident,))
                self._db.execute("DELETE FROM shared WHERE id = ?", (ident,))

    def _remember(self, fact: f.Fact) -> None:
        run = self._db.execute
        match fact:
            case f.Invited(key, name, grants, expires_ms):
                run("INSERT INTO invitations VALUES (?, ?, ?, ?)", (key, name, json.dumps(grants), expires_ms))
            case f.InvitationEnded(key):
                run("DELETE FROM invitations WHERE key = ?", (key,))
                run("INSERT INTO keys VALUES (?, 0, 'dropped')", (key,))
            case f.Registered(client, name, key, grants, time_ms):
                run("INSERT INTO clients VALUES (?, ?, ?, ?)", (client, name, json.dumps(grants), time_ms))
                run("INSERT INTO keys VALUES (?, ?, 'taken')", (key, client))
                run("INSERT INTO inboxes VALUES (?, 1, 1, 0, 0, 0, 0)", (client,))
            case f.KeyAdded(client, key):
                run("INSERT INTO keys VALUES (?, ?, 'pending')", (key, client))
            case f.KeyUsed(_, key):
                run("UPDATE keys SET state = 'taken' WHERE key = ?", (key,))
            case f.KeyDropped(_, key):
                run("UPDATE keys SET state = 'dropped' WHERE key = ?", (key,))
            case f.Granted(client, grants):
                run("UPDATE clients SET grants = ? WHERE id = ?", (json.dumps(grants), client))
            case f.Subscribed(client, pattern):
                run("INSERT OR IGNORE INTO subscriptions VALUES (?, ?)", (client, pattern))
            case f.Unsubscribed(client, pattern):
                run("DELETE FROM subscriptions WHERE client = ? AND pattern = ?", (client, pattern))
            case f.OutboxForgotten(client, outbox):
                run("DELETE FROM outboxes WHERE client = ? AND outbox = ?", (client, outbox))
            case f.Revoked(client):
                self._revoke(client)
            case _:
                raise ValueError(f"no way to store {type(fact).__name__}")

    def _revoke(self, client: int) -> None:
        for table in ("clients WHERE id", "subscriptions WHERE client", "outboxes WHERE client",
                      "inboxes WHERE client"):
            self._db.execute(f"DELETE FROM {table} = ?", (client,))
        self._db.execute("UPDATE keys SET state = 'dropped' WHERE client = ?", (client,))
        self._db.execute("INSERT INTO doomed VALUES (?)", (client,))     # its entries go bit by bit: see tidy

    def tidy(self, entries_max: int) -> bool:
        """Deletes some entries of a revoked client. Returns whether there is more to do."""
        try:
            return self._with_reserve(lambda: self._tidy(entries_max))
        except NoRoom:
            return True                              # then later

    def _tidy(self, entries_max: int) -> bool:
        client = self._value("SELECT client FROM doomed LIMIT 1")
        if client is None:
            return False
        first = client << NUMBER_BITS
        self._begin()
        rows = self._db.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE id > ? AND id < ? LIMIT ?) RETURNING shared",
            (first, first + (1 << NUMBER_BITS), entries_max)).fetchall()
        self._unshare(row[0] for row in rows if row[0] is not None)
        if len(rows) < entries_max:
            self._db.execute("DELETE FROM doomed WHERE client = ?", (client,))
        self._commit()
        return True

    # Room ------------------------------------------------------------------------------------
    def room(self) -> bool:
        """Whether the disk has room for more than acknowledgements. Restores the reserve when it has."""
        disk = os.statvfs(self.path.parent)
        free = disk.f_bavail * disk.f_frsize
        # A margin on the way back, so that it doesn't flutter around the mark.
        self.is_squeezed = free < (self.reserve_bytes * 5 // 4 if self.is_squeezed else self.reserve_bytes)
        if not self.is_squeezed and not self.reserve.exists():
            self._keep_reserve()
        return not self.is_squeezed

    def make_room(self, error: OSError) -> bool:
        """Whether that was a full disk, and the reserve has been given back for it."""
        return error.errno in FULL and self._release_reserve()

    def _is_nearly_full(self) -> bool:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize < RESERVE_BYTES

    def _keep_reserve(self) -> None:
        size = min(RESERVE_BYTES, self.reserve_bytes)
        if size == 0:
            return
        try:
            fd = os.open(self.reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in FULL:
                raise Misuse("cannot-write", f"cannot keep the reserve file {self.reserve}: {error.strerror}") from None
            self.is_squeezed = True
            self.reserve.unlink(missing_ok=True)

    def _release_reserve(self) -> bool:
        """Gives the reserve back to the disk. False when there was none."""
        self.is_squeezed = True
        try:
            self.reserve.unlink()
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        self._db.close()


def _sum(ident: int, envelope: bytes, body: bytes) -> int:
    # The place is part of the sum: a row that turns up elsewhere is damage too.
    return crc32(body, crc32(envelope, crc32(ident.to_bytes(8, "little"))))


def _summed(ident: int, blob: tuple[bytes, bytes] | None) -> tuple[int, bytes, bytes]:
    """Sum, envelope and body of a row; of a batch that is damaged already, a row that is seen to be."""
    return (_sum(ident, *blob), *blob) if blob is not None else (DAMAGED_SUM, b"", b"")


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"


def _damaged(path: Path, why: str) -> str:
    return f"the store {path} is damaged ({why}); restore a backup of it, nothing was changed"


def opening(path: Path, error: sqlite3.Error) -> Damaged | Misuse:
    """What to tell of an error at the start."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Damaged("store-damaged", _damaged(path, str(error)))
    return Misuse("cannot-open", f"cannot open the store {path}: {error}; check the data folder and its disk")
