"""Numbering: how far each sender's outbox has come, so that nothing is stored twice. No I/O, no clock."""

from .. import protocol as p


class Numbering:
    """One outbox. last: highest number decided. refused: number -> code, until the sender knows.

    gap: the number asked for again, so that a gap is told once.
    """

    __slots__ = ("last", "refused", "used_s", "gap")

    def __init__(self) -> None:
        self.last = 0
        self.refused: dict[int, str] = {}
        self.used_s = 0.0
        self.gap = 0

    def settle(self, number: int) -> None:
        """The sender knows the answers up to here."""
        if number > self.last:
            self.last = number
        if self.refused:
            self.refused = {n: code for n, code in self.refused.items() if n > number}


class Numberings:
    """All outboxes, by client."""

    def __init__(self) -> None:
        self._of: dict[int, dict[bytes, Numbering]] = {}

    def get(self, client: int, outbox: bytes) -> Numbering | None:
        return self._of.get(client, {}).get(outbox)

    def use(self, client: int, outbox: bytes, now_s: float) -> Numbering:
        """The outbox's, made if there is none."""
        numbering = self._made(client, outbox)
        numbering.used_s = now_s
        return numbering

    def _made(self, client: int, outbox: bytes) -> Numbering:
        numbering = self.get(client, outbox)
        if numbering is None:
            numbering = self._of.setdefault(client, {})[outbox] = Numbering()
        return numbering

    def surplus(self, client: int, in_use: set[bytes]) -> bytes | None:
        """The outbox to forget before a client may have one more: the longest unused of those
        that no connection names."""
        boxes = self._of.get(client, {})
        if len(boxes) < p.OUTBOXES_MAX:
            return None
        return min((box for box in boxes if box not in in_use), key=lambda box: boxes[box].used_s, default=None)

    def set(self, client: int, outbox: bytes, number: int, refused: tuple[tuple[int, str], ...]) -> None:
        numbering = self._made(client, outbox)
        numbering.last = number
        if refused or numbering.refused:
            numbering.refused = dict(refused)

    def forget(self, client: int, outbox: bytes) -> None:
        self._of.get(client, {}).pop(outbox, None)

    def forget_client(self, client: int) -> None:
        self._of.pop(client, None)
