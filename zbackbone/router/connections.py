"""Connections: which descriptor belongs to which key, and how to cut one.

libzmq asks for a key once, at the handshake, so a key that is revoked keeps its connections
until they are cut here: shutdown() on the descriptor, never close(), which would free a
number that libzmq still uses. libzmq owns the descriptors and may reuse one at
any time; at worst a bystander's connection is cut, and comes back.
"""

import socket


class Connections:
    """The open connections of one socket, as its monitor tells them.

    claim_s: seconds after which a connection that has said nothing is cut.
    """

    def __init__(self, claim_s: float) -> None:
        self.claim_s = claim_s
        self.cut_count = 0
        self._silent: dict[int, float] = {}          # descriptor -> opened at, until it says something
        self._key: dict[int, str] = {}               # descriptor -> key
        self._of_key: dict[str, set[int]] = {}
        self._route: dict[int, bytes] = {}           # descriptor -> routing id, and back
        self._fd: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._silent) + len(self._key)

    def opened(self, fd: int, now_s: float) -> bytes | None:
        """Returns the routing id that was on this descriptor before, if its end was not told."""
        route = self.closed(fd)
        self._silent[fd] = now_s
        return route

    def is_open(self, fd: int) -> bool:
        return fd in self._silent or fd in self._key

    def closed(self, fd: int) -> bytes | None:
        """Returns the routing id that was on it, if one was claimed."""
        self._silent.pop(fd, None)
        self._disown(fd)
        route = self._route.pop(fd, None)
        if route is not None:
            self._fd.pop(route, None)
        return route

    def claim(self, fd: int, key: str, route: bytes = b"") -> bool:
        """Says whose it is. False when it is closed already."""
        if not self.is_open(fd):
            return False
        self._silent.pop(fd, None)
        self._disown(fd)
        self._key[fd] = key
        self._of_key.setdefault(key, set()).add(fd)
        if route:
            self._route[fd] = route
            self._fd[route] = fd
        return True

    def _disown(self, fd: int) -> None:
        key = self._key.pop(fd, None)
        if key is not None:
            self._of_key[key].discard(fd)
            if not self._of_key[key]:
                del self._of_key[key]

    def count_of(self, key: str) -> int:
        return len(self._of_key.get(key, ()))

    def cut_key(self, key: str) -> None:
        """Cuts the key's connections, and those that have not said whose they are."""
        for fd in [*self._of_key.get(key, ()), *self._silent]:
            self._cut(fd)

    def cut_route(self, route: bytes) -> None:
        fd = self._fd.get(route)
        if fd is not None:
            self._cut(fd)

    def cut_fd(self, fd: int) -> None:
        if self.is_open(fd):
            self._cut(fd)

    def cut_silent(self, now_s: float) -> None:
        for fd in [fd for fd, opened_s in self._silent.items() if now_s - opened_s > self.claim_s]:
            self._cut(fd)
            self._silent.pop(fd, None)

    def _cut(self, fd: int) -> None:
        # No descriptor of our own is needed, so this works when none is left.
        try:
            borrowed = socket.socket(fileno=fd)
        except OSError:
            return                                   # closed by the other side meanwhile: as wanted
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
            self.cut_count += 1
        except OSError:
            pass                                     # not connected any more
        finally:
            borrowed.detach()
