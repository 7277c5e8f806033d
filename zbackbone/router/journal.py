"""Journal: what the database will hold a little later, one record after the other, in one file.

The file has a fixed size and is overwritten in place from its start, again and again: its blocks
are there already, so a sync writes a record and nothing else (half the time of one that grows a
file). Each record begins in a block of its own, so that writing one never touches another.

    record = magic 4, length 4, sum 4, number 8, salt 16, payload, zeros to the block's end

A record is one only with this life's salt: random, secret, and new each time the file is begun
anew. So no leftover of an earlier round, and nothing that a sender put into a body, is taken for one.
"""

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from ..errors import Damaged

BLOCK_BYTES = 4096                  # what a disk writes whole or not at all, and a file system's block
JOURNAL_BYTES = 8 << 20             # a round: what a restart reads, what waits in memory, how long a checkpoint takes
SALT_BYTES = 16
MAGIC = b"zbj1"
HEAD = struct.Struct(f"<4sIIQ{SALT_BYTES}s")
ZEROS = bytes(BLOCK_BYTES)


class Journal:
    """The file in `path`. Raises OSError when it can't be made, read or written."""

    def __init__(self, path: Path, size: int = JOURNAL_BYTES) -> None:
        """size: bytes, a multiple of BLOCK_BYTES; a file that is longer is left so."""
        self.path = path
        self.size = size
        self._salt = bytes(SALT_BYTES)
        self._number = 0             # of the last record in this round
        self._at = 0                 # where the next record begins
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._fill()
        except BaseException:
            os.close(self._fd)
            raise

    def _fill(self) -> None:
        """Makes the file as long as it will ever be: written, since a mere hole would grow at each sync."""
        length = os.fstat(self._fd).st_size
        if length >= self.size:
            self.size = length // BLOCK_BYTES * BLOCK_BYTES
            return
        chunk = bytes(1 << 20)
        while length < self.size:
            length += os.pwrite(self._fd, chunk[:self.size - length], length)
        os.fsync(self._fd)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def begin(self, salt: bytes) -> None:
        """A new round: the next record is its first. salt: 16 secret random bytes.

        The caller has made durable what the records so far are about, and the salt.
        """
        self._salt = salt
        self._number = self._at = 0

    def has_room(self, payload_bytes: int) -> bool:
        return self._at + _padded(payload_bytes) <= self.size

    def append(self, payload: bytes | memoryview) -> None:
        """On disk when it returns. Raises OSError, after which nothing more may be appended."""
        length = len(payload)
        number = self._number + 1
        head = HEAD.pack(MAGIC, length, _sum(number, self._salt, payload), number, self._salt)
        whole = _padded(length)
        parts = [head, payload, ZEROS[:whole - HEAD.size - length]]
        if os.pwritev(self._fd, parts, self._at) != whole:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
        os.fdatasync(self._fd)
        self._at += whole
        self._number = number

    def replay(self, salt: bytes) -> Iterator[bytes]:
        """The payloads of that round, in order, up to where a crash left off.

        Only the last record can be torn by one: each was on disk before the next was written. So
        one that is whole behind one that isn't is damage, and raises Damaged.
        """
        at, number = 0, 1
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
