"""Audience: who gets a topic's messages, in their inboxes and live. No I/O, no clock."""

from typing import NamedTuple

from .. import protocol as p
from ..auth.policy import may_read, may_subscribe
from ..auth.registry import Registry
from .inbox import Inbox
from .peer import Peer
from .routes import Routes

CACHED_MAX = 1_000_000      # references in cached routes; 8 MB
BROADCASTS = ""     # the pattern of Listen, and the name of the stream, for live broadcasts


class Route(NamedTuple):
    """Where a topic's messages go. public: over XPUB, since every client may read it and one listens.

    peers: listeners over ROUTER, when not every client may read it.
    """

    inboxes: tuple[Inbox, ...]
    public: bool
    peers: tuple[Peer, ...]


class Audience:
    """Subscriptions and listeners, and the numbering of live streams."""

    def __init__(self, registry: Registry, inboxes: dict[int, Inbox], first_stream: int) -> None:
        self.subscriptions: Routes[int] = Routes()
        self.broadcast_listeners: set[Peer] = set()
        self._registry = registry
        self._inboxes = inboxes
        self._listeners: Routes[Peer] = Routes()
        self._routes: dict[str, Route] = {}
        self._cached = 0            # what they hold, in references
        self._streams: dict[str, list[int]] = {}
        self._next_stream = first_stream

    def changed(self) -> None:
        """A subscription, a listener or a grant is not what it was."""
        self._routes.clear()
        self._cached = 0

    def of(self, topic: str) -> Route:
        route = self._routes.get(topic)
        if route is None:
            if self._cached > CACHED_MAX:
                self.changed()
            by_id = self._registry.by_id
            peers = self._listeners.match(topic)
            public = self._registry.public.is_public(topic)
            route = self._routes[topic] = Route(
                tuple(self._inboxes[c] for c in self.subscriptions.match(topic) if may_read(by_id[c].grants, topic)),
                public and bool(peers),
                () if public else tuple(peer for peer in peers if may_read(peer.client.grants, topic)))
            self._cached += 10 + len(route.inboxes) + len(route.peers)
        return route

    def listen(self, peer: Peer, pattern: str) -> bool:
        """False when the peer listens to as many patterns as it may."""
        if pattern == BROADCASTS:
            self.broadcast_listeners.add(peer)
        elif self._listeners.count(peer) >= p.LISTENS_MAX:
            return pattern in self._listeners.of(peer)
        elif self._listeners.add(pattern, peer):
            self.changed()
        return True

    def unlisten(self, peer: Peer, pattern: str) -> None:
        if pattern == BROADCASTS:
            self.broadcast_listeners.discard(peer)
        elif self._listeners.remove(pattern, peer):
            self.changed()

    def leave(self, peer: Peer) -> None:
        self.broadcast_listeners.discard(peer)
        if self._listeners.drop(peer):
            self.changed()

    def end_forbidden(self, peer: Peer) -> list[str]:
        """Ends and returns what the peer listens to and may not, by the grants it has now."""
        ended = [q for q in self._listeners.of(peer) if not may_subscribe(peer.client.grants, q)]
        for pattern in ended:
            self.unlisten(peer, pattern)
        return ended

    def number(self, name: str, envelope: bytes, messages: int) -> p.Live:
        """The next live batch of a topic, or of the broadcasts."""
        stream = self._streams.get(name)
        if stream is None:
            if len(self._streams) >= p.STREAMS_MAX:
                del self._streams[next(iter(self._streams))]
            stream = self._streams[name] = [self._next_stream, 0]
            self._next_stream += 1
        live = p.Live(stream[0], stream[1], envelope)
        stream[1] += messages
        return live
