"""Server: the hub's sockets, one poller, and turn(): hear what waits, remember it, then speak."""

import ctypes
import logging
import os
import socket
import sqlite3
import time
from collections import deque
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from .. import facts as f
from .. import protocol as p
from ..auth import zap
from ..auth.keys import KeyPair
from ..errors import Garbled, Misuse
from ..topics import BROADCAST_KEY, ECHO_KEY
from .connections import Connections
from .hub import Hub
from .inbox import Inbox
from .journaled import JournaledStore
from .store import NoRoom

log = logging.getLogger("zbackbone.hub")

HANDSHAKE_MS = 5000      # libzmq's 30 s let half-open connections lock everybody out; a satellite needs 3
CLAIM_S = 20             # handshake, then HELLO or a filter
TURN_MESSAGES = 512      # heard before they are committed: a longer turn makes the first one wait
TURN_BYTES = 2 << 20
READ_BYTES = 1 << 20     # read from disk for one inbox at a time
READ_INBOXES = 32        # and for so many inboxes
READ_TURN_BYTES = 4 << 20    # in a turn: twice what it hears, or who is behind would never catch up
TICK_S = 1.0
RETRY_S = 0.05           # a full pipe is tried again after
FULL_S = 0.25            # a full disk is tried again after
TIDY_ENTRIES = 5000      # of a revoked client's entries, deleted a tick
CONTROL_MAX = 1024       # handshakes, connections and filters heard a turn, so that nobody floods it
FILTER_FRAMES_MAX = 4 * p.LISTENS_MAX    # a connection and tick; a whole set of filters, there and back
STALL_S = 10.0
RECEIVE_HWM = 64         # messages a peer may have in our memory unheard; then TCP holds it back
SEND_HWM = 512           # messages to a peer that doesn't read; credit stops us long before
HELD_MAX = 5000          # answers held for a peer whose pipe is full
LIVE_HWM = 500           # live batches to a listener that doesn't read; then it misses some, and knows
ECHO_BYTES = 1 + len(ECHO_KEY) + 16
FILTER_BYTES_MAX = 260   # a live filter: "t." and a topic


class StorageFailed(Exception):
    """The store failed; nothing more may be accepted."""


class Server:
    """Serves one hub. Sockets are bound when it is made; raises Misuse when they can't be."""

    def __init__(self, hub: Hub, store: JournaledStore, pair: KeyPair, bind: str, live: str) -> None:
        """bind, live: HOST:PORT, port 0 for a free one. `address` and `live_address` say what came of it."""
        # libzmq numbers anonymous peers from rand(); unseeded, a peer could claim the next number
        # as its routing id, and libzmq would abort the process.
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
        self.hub = hub
        self.store = store
        self._context = zmq.Context()
        self._zap = self._socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        self._router = self._curve(zmq.ROUTER, "hub", pair)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.RCVHWM, RECEIVE_HWM)
        self._router.setsockopt(zmq.SNDHWM, SEND_HWM)
        self._xpub = self._curve(zmq.XPUB, "live", pair)
        self._xpub.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._xpub.setsockopt(zmq.SNDHWM, LIVE_HWM)
        self._peers = Connections(CLAIM_S)
        self._listeners = Connections(CLAIM_S)
        self._filters: dict[int, int] = {}           # descriptor -> filters set
        self._filter_frames: dict[int, int] = {}     # descriptor -> frames heard since the last tick
        self._echoes: dict[int, bytes] = {}          # descriptor -> its one echo filter
        self._monitors = [(self._monitor(self._router), self._peers), (self._monitor(self._xpub), self._listeners)]
        self._stuck: dict[Inbox, float] = {}
        self._held: dict[bytes, deque[bytes]] = {}   # routing id -> answers its pipe had no room for
        self._poller = zmq.Poller()
        for sock in (self._zap, self._router, self._xpub, *(m for m, _ in self._monitors)):
            self._poller.register(sock, zmq.POLLIN)  # by default a ROUTER would always be ready, to write
        try:
            self.address = _bind(self._router, bind)
            self.live_address = _bind(self._xpub, live)
        except Misuse:
            self.close()
            raise
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poller.register(self._wake_out, zmq.POLLIN)
        self.wake_fd = self._wake_in.fileno()        # for signal.set_wakeup_fd
        self._stopping = False
        self._next_tick_s = 0.0

    def _socket(self, kind: int) -> Any:
        sock = self._context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        return sock

    def _curve(self, kind: int, domain: str, pair: KeyPair) -> Any:
        sock = self._socket(kind)
        sock.setsockopt(zmq.CURVE_SERVER, 1)
        sock.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        sock.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
        sock.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)   # without it a missing handler lets everybody in
        sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        sock.setsockopt(zmq.MAXMSGSIZE, p.FRAME_BYTES_MAX)
        sock.setsockopt(zmq.BACKLOG, 1024)
        sock.setsockopt(zmq.TCP_KEEPALIVE, 1)
        sock.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 120)
        return sock

    def _monitor(self, sock: Any) -> Any:
        address = f"inproc://monitor-{id(sock)}"
        sock.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        pair = self._socket(zmq.PAIR)
        pair.setsockopt(zmq.RCVHWM, 0)               # a full one would block libzmq's I/O thread
        pair.connect(address)
        return pair

    # One turn --------------------------------------------------------------------------------
    def run(self) -> None:
        """Serves until stop(). Raises StorageFailed."""
        while not self._stopping:
            self.turn()
        self._remember(lazy_too=True)

    def stop(self) -> None:
        """Ends run() after the turn under way. May be called from a signal handler."""
        self._stopping = True

    def turn(self) -> None:
        """One breath: hear what waits, remember it, then speak."""
        # Only who has something is asked: each "nothing yet" is an exception, 4 us (pyzmq 27).
        ready = dict(self._poller.poll(self._patience_ms()))
        now_ms, now_s = int(time.time() * 1000), time.monotonic()
        if self._wake_out.fileno() in ready:
            self._wake_out.recv(64)
        frames = self._drain_router() if self._router in ready else []
        gone: list[bytes] = []
        for monitor, connections in self._monitors:  # behind the frames: whose connection is gone is known
            if monitor in ready:
                gone += self._hear_monitor(monitor, connections, now_s)
        if self._zap in ready:
            self._hear_zap()
        if self._xpub in ready:
            self._hear_filters()
        for route, frame, header, body in frames:
            self._hear(route, frame, header, body, now_ms, now_s)
        for route in gone:                           # their last words were heard above
            self.hub.lost(route)
        tick = now_s >= self._next_tick_s
        if tick:
            self._tick(now_ms, now_s)
        self._remember(lazy_too=tick)
        self._cut()                                  # before a word of it is said: revoked is revoked
        self._say()
        self._deliver(now_s)

    def _patience_ms(self) -> int:
        if self._stopping or self.hub.is_hungry:
            return 0
        wait_s = self._next_tick_s - time.monotonic()
        return int(max(0.0, min(wait_s, RETRY_S if self._stuck or self._held else wait_s)) * 1000) + 1

    def _tick(self, now_ms: int, now_s: float) -> None:
        was_stalled = now_s > self._next_tick_s + STALL_S
        self._next_tick_s = now_s + TICK_S
        self._filter_frames.clear()
        if not was_stalled:                          # else what peers said meanwhile may not be heard yet
            self.hub.tick(now_ms, now_s)
        try:
            self.hub.room = self.store.room()
            self.store.tidy(TIDY_ENTRIES)
        except (sqlite3.Error, OSError, Misuse) as error:
            raise StorageFailed(str(error)) from error
        self._peers.cut_silent(now_s)
        self._listeners.cut_silent(now_s)
        count = self.hub.count
        count["cut_connections"] = self._peers.cut_count + self._listeners.cut_count
        if count["damaged_batches"] < self.store.damaged:
            log.error("%d batches on disk fail their checksum and are held back; the disk is not to be trusted",
                      self.store.damaged - count["damaged_batches"])
            count["damaged_batches"] = self.store.damaged

    # Hear ------------------------------------------------------------------------------------
    def _drain_router(self) -> list[tuple[bytes, Any, bytes | None, bytes]]:
        """(routing id, a frame that knows the connection, header, body) of what has come.

        No header: there were not two frames.
        """
        frames: list[tuple[bytes, Any, bytes | None, bytes]] = []
        recv, room = self._router.recv, TURN_BYTES
        while room > 0 and len(frames) < TURN_MESSAGES:
            try:
                route = recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            parts: list[Any] = []
            more = route.more
            while more:
                part = recv(copy=False)
                more = part.more
                room -= len(part)
                if len(parts) < 3:
                    parts.append(part)
            if len(parts) == 2:
                frames.append((route.bytes, parts[0], parts[0].bytes, parts[1].bytes))
            else:
                # libzmq before 4.3.5 tells a connection's key on its parts alone, not on the routing id.
                frames.append((route.bytes, parts[0] if parts else route, None, b""))
        return frames

    def _hear(self, route: bytes, frame: Any, header: bytes | None, body: bytes, now_ms: int, now_s: float) -> None:
        try:
            key = frame.get("User-Id")               # from the handshake: the one thing that is proved
        except zmq.ZMQError:
            self.hub.garbled(route, "")              # no part, and no key: nobody to answer
            return
        try:
            if header is None:
                raise Garbled("garbled", "a message is two frames")
            command = p.decode(header)
            if type(command) not in p.FROM_CLIENT:
                raise Garbled("garbled", "a command that only a hub may send")
        except Garbled:
            self.hub.garbled(route, key)
            return
        is_known = key in self.hub.registry.by_key
        try:
            self.hub.hear(route, key, command, body, now_ms, now_s)
            if not is_known:
                self._peers.cut_fd(frame.get(zmq.SRCFD))
            # Only a welcome makes it one that may stay: the others are cut when their time is up.
            if type(command) is p.Hello and route in self.hub.peers \
                    and not self._peers.claim(frame.get(zmq.SRCFD), key, route):
                self.hub.lost(route)                 # gone before it was heard
        except Exception as error:
            # A fault of ours must not take the others down: that peer goes, and it is told here.
            line = error.__traceback__
            while line and line.tb_next:
                line = line.tb_next
            log.error("fault in %s: %r at %s:%s; its connection is cut", type(command).__name__, error,
                      line and os.path.basename(line.tb_frame.f_code.co_filename), line and line.tb_lineno)
            self.hub.count["faults"] += 1
            self._peers.cut_route(route)

    def _hear_zap(self) -> None:
        for _ in range(CONTROL_MAX):
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            reply = zap.judge(request, self.hub.registry.may_enter)
            if reply[2] != b"200":
                self.hub.count["refused_handshakes"] += 1
            self._zap.send_multipart(reply)

    def _hear_monitor(self, monitor: Any, connections: Connections, now_s: float) -> list[bytes]:
        """The routing ids whose connections are gone."""
        gone: list[bytes] = []
        for _ in range(CONTROL_MAX):
            try:
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            if event["event"] == zmq.EVENT_ACCEPTED:
                route = connections.opened(event["value"], now_s)
            else:
                route = connections.closed(event["value"])
            if route is not None:
                gone.append(route)
            if connections is self._listeners:
                for table in (self._filters, self._filter_frames, self._echoes):
                    table.pop(event["value"], None)  # type: ignore[attr-defined]
        return gone

    def _hear_filters(self) -> None:
        """Live filters, checked for form and number; libzmq never gives their memory back."""
        for _ in range(CONTROL_MAX):
            try:
                frame = self._xpub.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            more = frame.more
            odd = more
            while more:
                more = self._xpub.recv(copy=False).more
            try:
                key, fd = frame.get("User-Id"), frame.get(zmq.SRCFD)
            except zmq.ZMQError:
                continue                             # libzmq's own, for a listener that is gone
            data = frame.bytes
            self._filter_frames[fd] = self._filter_frames.get(fd, 0) + 1
            if self._filter_frames[fd] > FILTER_FRAMES_MAX:
                self.hub.count["foreign_filters"] += 1
                self._listeners.cut_fd(fd)
                continue
            if not odd and data[:1] == b"\0":
                if not data.startswith(ECHO_KEY, 1):
                    self._filters[fd] = self._filters.get(fd, 1) - 1
                continue
            if (not odd and data.startswith(b"\1" + ECHO_KEY) and len(data) == ECHO_BYTES
                    and key in self.hub.registry.by_key and self._echoes.setdefault(fd, data) == data
                    and self._listeners.claim(fd, key)):
                # A listener asks whether its filters so far are in force; they are, so say so.
                self._xpub.send_multipart((data[1:], b"", b""))
                continue
            self._filters[fd] = self._filters.get(fd, 0) + 1
            if (odd or data[:1] != b"\1" or data[1:3] not in (b"t.", BROADCAST_KEY) or len(data) > FILTER_BYTES_MAX
                    or self._filters[fd] > p.LISTENS_MAX or key not in self.hub.registry.by_key):
                self.hub.count["foreign_filters"] += 1
                self._listeners.cut_fd(fd)
            elif self._listeners.claim(fd, key) and self._listeners.count_of(key) > p.PEERS_MAX:
                self._listeners.cut_fd(fd)

    # Remember --------------------------------------------------------------------------------
    def _remember(self, lazy_too: bool) -> None:
        facts = self.hub.take_facts(lazy_too)
        if not facts:
            return
        try:
            self.hub.committed(self._commit(facts))
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(str(error)) from error
        self.hub.room = self.hub.room and not self.store.is_squeezed
        for note in self.hub.take_notes():
            log.info("%s", note)

    def _commit(self, facts: list[f.Fact]) -> list[f.Freed]:
        """Commits, however long a full disk makes it wait: what was decided can't be taken back."""
        is_told = False
        while True:
            try:
                return self.store.commit(facts)
            except NoRoom as error:
                if not is_told:
                    log.error("the disk is full, the reserve too: waiting for room")
                    is_told = True
                if self._stopping:
                    raise StorageFailed(str(error)) from error
                time.sleep(FULL_S)

    # Speak -----------------------------------------------------------------------------------
    def _say(self) -> None:
        live, live_to = self.hub.live()              # first: who listens wants it soonest
        for key, command, body in live:
            self._xpub.send(key, zmq.SNDMORE)
            self._xpub.send(p.encode(command), zmq.SNDMORE)
            self._xpub.send(body)
        for peer, command, body in live_to:
            if self._send(peer.route, p.encode(command), body) is False:
                self.hub.count["live_dropped"] += p.unpack_envelope(command.envelope).messages
        for route in list(self._held):
            self._answer(route, self._held.pop(route))
        for route, answer in self.hub.answers():
            header = p.encode(answer)
            if route in self._held:                  # behind what its pipe has no room for
                self._held[route].append(header)
            elif self._send(route, header, b"") is False:
                self._held[route] = deque((header,))
        for route in [route for route, headers in self._held.items() if len(headers) > HELD_MAX]:
            self._give_up(route)

    def _answer(self, route: bytes, headers: deque[bytes]) -> None:
        """Sends a peer its answers; what its pipe has no room for is held for the next turns."""
        while headers:
            sent = self._send(route, headers[0], b"")
            if sent is None:
                return
            if not sent:
                break
            headers.popleft()
        if headers:
            self._held[route] = headers

    def _give_up(self, route: bytes) -> None:
        """It does not read, and asks on. Without its answers it can't go on; it will come back."""
        del self._held[route]
        self.hub.count["stuck_peers"] += 1
        self._peers.cut_route(route)
        self.hub.lost(route)

    def _deliver(self, now_s: float) -> None:
        for inbox in [i for i, since_s in self._stuck.items() if now_s - since_s >= RETRY_S]:
            del self._stuck[inbox]
            self.hub.retry(inbox)
        self._deliver_due(now_s)
        room = READ_TURN_BYTES
        while room > 0 and (hungry := self.hub.hungry(READ_INBOXES)):
            for inbox in hungry:
                try:
                    entries, upto = self.store.read(inbox.client, inbox.cursor, READ_BYTES)
                except (sqlite3.Error, OSError) as error:
                    raise StorageFailed(str(error)) from error
                self.hub.fed(inbox, entries, upto)
                room -= inbox.fresh_bytes
            self._deliver_due(now_s)

    def _deliver_due(self, now_s: float) -> None:
        for inbox, peer, due in self.hub.deliveries():
            for index, (number, previous, skip, envelope, body) in enumerate(due):
                sent = self._send(peer.route, p.encode(p.Deliver(number, previous, skip, envelope)), body)
                if sent is None:
                    self.hub.lost(peer.route)
                    break
                if not sent:
                    self.hub.undelivered(inbox, due[index:])
                    self._stuck[inbox] = now_s
                    break
                self.hub.count["delivered_batches"] += 1

    def _send(self, route: bytes, header: bytes, body: Any) -> bool | None:
        """True: on its way. False: the peer's pipe is full. None: there is no such peer."""
        try:
            self._router.send(route, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return None
            raise
        self._router.send(header, zmq.SNDMORE)
        self._router.send(body)
        return True

    def _cut(self) -> None:
        keys, routes = self.hub.cuts()
        for key in keys:
            self._peers.cut_key(key)
            self._listeners.cut_key(key)
        for route in routes:
            self._peers.cut_route(route)

    def close(self) -> None:
        # Half a second for the last answers; what is lost then is asked again.
        self._router.setsockopt(zmq.LINGER, 500)
        self._context.destroy()


def _bind(sock: Any, address: str) -> str:
    host = address.rpartition(":")[0]
    sock.setsockopt(zmq.IPV6, int(":" in host or host == "*"))
    try:
        sock.bind(f"tcp://{address.removesuffix(':0') + ':*' if address.endswith(':0') else address}")
    except zmq.ZMQError as error:
        why = "is another hub running there?" if error.errno == zmq.EADDRINUSE else "it must be one of this machine's:"
        raise Misuse("cannot-bind", f"cannot listen on {address}: {error.strerror}; {why}"
                                    " choose another --bind or --live") from None
    endpoint: str = sock.getsockopt_string(zmq.LAST_ENDPOINT)
    return endpoint.removeprefix("tcp://")
