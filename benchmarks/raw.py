"""Raw: many connections to a hub in one process, below the client library.

A thousand Clients are a thousand threads, and would be what is measured. Here a connection is
its sockets and a few numbers; one epoll watches them all.

zmq.FD tells of news once, and any use of the socket may eat it, a send too: so a socket that was
used is read until nothing is there before anybody sleeps.
"""

import os
import select
import time
from collections.abc import Iterator

import zmq

from zbackbone import Profile
from zbackbone import protocol as p
from zbackbone.auth.keys import KeyPair
from zbackbone.client import sockets
from zbackbone.topics import ECHO_KEY, live_filter

from .processes import SILENCE_S

KEEPALIVE_S = 600


class Peer:
    """One connection. sent: batches sent. settled: batches answered. heard: bytes of inbox batches."""

    __slots__ = ("index", "name", "dealer", "outbox", "sent", "settled", "heard", "is_welcome", "live", "_used")

    def __init__(self, index: int, context: zmq.Context, profile: Profile, used: dict["Peer", None]) -> None:
        """used: where it puts itself when its socket was used."""
        self.index = index
        self.name = profile.name
        self._used = used
        self.outbox = os.urandom(8)
        self.sent = self.settled = self.heard = 0
        self.is_welcome = False
        self.live = ""
        self.dealer = sockets.dealer(context, profile.hub_key, KeyPair(profile.public_key, profile.secret_key))
        # A handshake that a busy hub gave up is tried again; a connection that breaks later is not
        # mended, and whoever measures sees that something is missing.
        self.dealer.setsockopt(zmq.RECONNECT_IVL, 100)
        self.dealer.connect(f"tcp://{profile.address}")
        self.say(p.Hello(p.VERSION, os.urandom(8), self.outbox, 0, KEEPALIVE_S))

    def say(self, command: p.Command, body: bytes = b"") -> None:
        self.dealer.send(p.encode(command), zmq.SNDMORE)
        self.dealer.send(body)
        self._used[self] = None

    def send(self, way: int, address: str, count: int, batch: bytes) -> None:
        """A packed batch of `count` messages."""
        self.sent += 1
        self.say(p.Send(self.outbox, self.sent, self.settled, way, address, count), batch)


class Swarm:
    """Peers of these clients, one each. Connecting: welcome() says when they are all in."""

    def __init__(self, profiles: list[Profile]) -> None:
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 2 * len(profiles) + 100)
        self._epoll = select.epoll()
        self._of_fd: dict[int, Peer] = {}
        self._used: dict[Peer, None] = {}
        self._is_receiving = False
        self.peers = []
        for index, profile in enumerate(profiles):
            peer = Peer(index, self.context, profile, self._used)
            self.peers.append(peer)
            self._of_fd[peer.dealer.getsockopt(zmq.FD)] = peer
        for fd in self._of_fd:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def __len__(self) -> int:
        return len(self.peers)

    @property
    def unanswered(self) -> int:
        """Batches."""
        return sum(peer.sent - peer.settled for peer in self.peers)

    def welcome(self, timeout_s: float = 35) -> None:
        """Returns once all are welcome. Raises TimeoutError."""
        until_s = time.monotonic() + timeout_s
        while not all(peer.is_welcome for peer in self.peers):
            if time.monotonic() > until_s:
                raise TimeoutError(f"{sum(not q.is_welcome for q in self.peers)} of {len(self)} are not welcome")
            for _ in self.poll(0.5):
                pass

    def send(self, index: int, address: str, batch: bytes) -> None:
        """One lone message of that client, to that client's inbox."""
        self.peers[index].send(p.SEND, address, 1, batch)

    def poll(self, wait_s: float) -> Iterator[tuple[Peer, p.Command, bytes]]:
        """What has come, within so long for the first of it."""
        while self._used:
            peer = self._used.popitem()[0]
            if not peer.dealer.getsockopt(zmq.EVENTS) & zmq.POLLIN:    # half the price of a recv() in vain
                continue
            for come in self._drain(peer):
                wait_s = 0
                yield come
        for fd, _ in self._epoll.poll(wait_s):
            yield from self._drain(self._of_fd[fd])

    def _drain(self, peer: Peer) -> Iterator[tuple[Peer, p.Command, bytes]]:
        while True:
            try:
                header, body = peer.dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            command = p.decode(header)
            if type(command) is p.Accepted:
                if command.refused:
                    raise RuntimeError(f"refused: {command.refused[0][1]}")
                peer.settled = command.number
            elif type(command) is p.Welcome:
                peer.is_welcome, peer.live = True, command.live
            elif type(command) is p.Denied:
                raise RuntimeError(f"denied: {command.code}")
            yield peer, command, body
            if peer.settled == peer.sent and not self._is_receiving and type(command) is p.Accepted:
                return                               # nothing more is due, until it is used again

    def answers(self, wait_s: float) -> Iterator[tuple[int, int]]:
        """(peer's index, how many of its batches are answered), as often as an answer came."""
        for peer, command, _ in self.poll(wait_s):
            if type(command) is p.Accepted:
                yield peer.index, peer.settled

    # Receiving -------------------------------------------------------------------------------
    def receive(self) -> Iterator[int]:
        """Takes and acknowledges inboxes; yields how many messages came, batch by batch, until
        none came for a while.

        The bodies stay packed: what is counted is what the hub says of them.
        """
        self._is_receiving = True
        for peer in self.peers:
            peer.say(p.Receive(0, p.WINDOW_BYTES))
        heard_s = time.monotonic()
        while time.monotonic() - heard_s < SILENCE_S:
            for peer, command, body in self.poll(0.5):
                if type(command) is p.Deliver:
                    heard_s = time.monotonic()
                    peer.heard += len(command.envelope) + len(body)
                    peer.say(p.Ack(command.number + 1, 0))
                    peer.say(p.Credit(peer.heard + p.WINDOW_BYTES, 0, 0))
                    yield p.unpack_envelope(command.envelope).messages

    def close(self) -> None:
        self.context.destroy(linger=500)


class Ears:
    """Live sides of these clients, listening to one topic."""

    def __init__(self, swarm: Swarm, profiles: list[Profile], topic: str) -> None:
        self._epoll = select.epoll()
        self._of_fd: dict[int, zmq.Socket] = {}
        for profile, peer in zip(profiles, swarm.peers, strict=True):
            sub = sockets.subscriber(swarm.context, profile.hub_key, KeyPair(profile.public_key, profile.secret_key))
            sub.connect(peer.live.replace("//*:", f"//{profile.address.rpartition(':')[0]}:"))
            sub.setsockopt(zmq.SUBSCRIBE, live_filter(topic))
            sub.setsockopt(zmq.SUBSCRIBE, ECHO_KEY + os.urandom(8).hex().encode())
            self._of_fd[sub.getsockopt(zmq.FD)] = sub
            peer.say(p.Listen(1, topic))
        for fd in self._of_fd:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        echoed: set[int] = set()
        self._fresh = list(self._of_fd)
        while len(echoed) < len(self._of_fd):
            for fd, frames in self._poll(0.5):
                if frames[0].startswith(ECHO_KEY):
                    echoed.add(fd)
            for _ in swarm.poll(0):
                pass                     # the hub's answers to Listen; nothing else is due

    def _poll(self, wait_s: float) -> Iterator[tuple[int, list[bytes]]]:
        fresh, self._fresh = self._fresh, []
        for fd in fresh or [fd for fd, _ in self._epoll.poll(wait_s)]:
            recv = self._of_fd[fd].recv_multipart
            while True:
                try:
                    yield fd, recv(zmq.NOBLOCK)
                except zmq.Again:
                    break

    def hear(self) -> Iterator[int]:
        """How many messages came, batch by batch, until none came for a while; bodies stay packed."""
        heard_s = time.monotonic()
        while time.monotonic() - heard_s < SILENCE_S:
            for _, frames in self._poll(0.5):
                heard_s = time.monotonic()
                if frames[1]:
                    yield p.unpack_envelope(p.decode(frames[1]).envelope).messages
