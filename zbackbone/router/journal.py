"""Journal: what the database will hold a little later, one record after the other, in one file.

The file has a fixed size and is overwritten in place from its start, again and again: its blocks
are there already, so a sync writes a record and nothing else (half the time of one that grows a
file). Each record begins in a block of its own, so that writing one never touches another.

    file   = two announcements, a block each; then a round's records
    record = magic 4, length 4, sum 4, number 8, salt 16, payload, zeros to the block's end

A record is one only with its round's salt: random, secret, and new each time the file is begun
anew. So no leftover of an earlier round, and nothing that a sender put into a body, is taken for one.
A round is announced, in a record without payload and with number 0, before the database is told of it,
and beside the announcement of the one under way: so a journal that does not know the database's round
is not the one that belongs to it, and is not taken for an empty one.
"""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from ..errors import Damaged

BLOCK_BYTES = 4096                  # what a disk writes whole or not at all, and a file system's block
JOURNAL_BYTES = 32 << 20            # a round: what a receiver may lag behind without a word to the database
SALT_BYTES = 16
MAGIC = b"zbj1"
HEAD = struct.Struct(f"<4sIIQ{SALT_BYTES}s")
ZEROS = bytes(BLOCK_BYTES)
ROUND_AT = 2 * BLOCK_BYTES          # where a round's first record is; before that, the announcements


class Journal:
    """The file in `path`. Raises OSError when it can't be made, read or written."""

    def __init__(self, path: Path, size: int = JOURNAL_BYTES) -> None:
        """size: bytes, a multiple of BLOCK_BYTES; a file that is longer is left so."""
        self.path = path
        self.size = size
        self.is_broken = False       # a write or a sync failed: nothing more is written
        self._salt = self._announced = bytes(SALT_BYTES)
        self._slot = 0               # which of the announcements is of the round under way
        self._number = 0             # of the last record in this round
        self._at = ROUND_AT          # where the next record begins
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._fill()
        except BaseException:
            os.close(self._fd)
            raise

    def _fill(self) -> None:
        """Makes the file as long as it will ever be: written, since a mere hole would grow at each sync."""
        length = os.fstat(self._fd).st_size
        self.size = max(self.size, length // BLOCK_BYTES * BLOCK_BYTES)
        chunk = bytes(1 << 20)
        while length < self.size:
            length += os.pwrite(self._fd, chunk[:self.size - length], length)
        os.fsync(self._fd)           # even if it was long enough: a start that was killed here has left it so
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def announce(self, salt: bytes) -> None:
        """Says what salt the next round will have: 16 secret random bytes. On disk when it returns.

        It may be said again, if it was no use. Raises OSError as append().
        """
        self._write(BLOCK_BYTES * (1 - self._slot), 0, salt, b"")
        self._announced = salt

    def begin(self) -> None:
        """The round announced last: the next record is its first.

        The caller has made durable what the records so far are about, and the salt.
        """
        self._slot = 1 - self._slot
        self._salt = self._announced
        self._number = 0
        self._at = ROUND_AT

    def has_room(self, payload_bytes: int) -> bool:
        return self._at + _padded(payload_bytes) <= self.size

    def append(self, payload: bytes | memoryview) -> int:
        """On disk when it returns, which says where in the file. Raises OSError, after which nothing more can
        be written."""
        at = self._at
        self._at += self._write(at, self._number + 1, self._salt, payload)
        self._number += 1
        return at + HEAD.size

    def read(self, at: int, length: int) -> bytes:
        """Bytes of a payload of this round. Raises OSError."""
        return os.pread(self._fd, length, at)

    def _write(self, at: int, number: int, salt: bytes, payload: bytes | memoryview) -> int:
        """How many bytes it took."""
        if self.is_broken:
            raise OSError(errno.EIO, "it failed before, and takes nothing more", str(self.path))
        self.is_broken = True        # until all went well: no second sync makes good what a first one failed to write
        length = len(payload)
        head = HEAD.pack(MAGIC, length, _sum(number, salt, payload), number, salt)
        whole = _padded(length)
        if os.pwritev(self._fd, [head, payload, ZEROS[:whole - HEAD.size - length]], at) != whole:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
        os.fdatasync(self._fd)
        self.is_broken = False
        return whole

    def replay(self, salt: bytes) -> Iterator[bytes]:
        """The payloads of that round, in order, up to where a crash left off.

        Only the last record can be torn by one: each was on disk before the next was written. So
        one that is whole behind one that isn't is damage, and raises Damaged; as does a round that
        was never announced here.
        """
        slots = [slot for slot in (0, 1) if self._read(BLOCK_BYTES * slot, salt, 0) is not None]
        if not slots:
            raise Damaged("journal-missing", f"the journal {self.path} is not the one that belongs to the store beside"
                                             " it; restore a backup of the whole data folder, nothing was changed")
        self._slot = slots[0]
        at, number = ROUND_AT, 1
        while (payload := self._read(at, salt, number)) is not None:
            yield payload
            at += _padded(len(payload))
            number += 1
        for later in range(at, self.size, BLOCK_BYTES):
            if self._read(later, salt, None) is not None:
                raise Damaged("store-damaged", f"the journal {self.path} is damaged at byte {at}, and holds more behind"
                                               " that; restore a backup of the whole data folder, nothing was changed")

    def _read(self, at: int, salt: bytes, number: int | None) -> bytes | None:
        """The payload of the round's record there, if one is: the one of that number, or any."""
        head = os.pread(self._fd, HEAD.size, at)
        if len(head) < HEAD.size:
            return None
        magic, length, total, its_number, its_salt = HEAD.unpack(head)
        if magic != MAGIC or its_salt != salt or number not in (None, its_number) or at + _padded(length) > self.size:
            return None
        payload = os.pread(self._fd, length, at + HEAD.size)
        return payload if _sum(its_number, salt, payload) == total else None

    def close(self) -> None:
        os.close(self._fd)


def _padded(payload_bytes: int) -> int:
    """What a record takes of the file."""
    return -(-(HEAD.size + payload_bytes) // BLOCK_BYTES) * BLOCK_BYTES


def _sum(number: int, salt: bytes, payload: bytes | memoryview) -> int:
    return crc32(payload, crc32(salt, number))
