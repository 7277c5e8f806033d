"""Hub: the machine that hears commands, decides, remembers, and knows what to say. No I/O, no clock.

    hear(route, key, command, body)   decide -> facts -> apply; what to say waits
    take_facts()                      what the store must have on disk first
    committed(freed)                  now it may be said:
    answers(), live(), deliveries()   frames to send

The order is the promise: nothing that hangs on a fact is said before the fact is on disk.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from .. import facts as f
from .. import protocol as p
from ..auth.policy import may_broadcast, may_publish, may_read, may_send, may_subscribe, to_wire
from ..auth.registry import Client, Invitation, Registry
from ..errors import Misuse, Refused
from ..topics import BROADCAST_KEY, live_key, parse_pattern, parse_topic
from . import admin
from .inbox import Due, Inbox
from .routes import Routes

BROADCASTS = ""     # the pattern of Listen, and the name of the stream, for live broadcasts


class Settings(NamedTuple):
    """What an operator may set. version: the hub's. live, address: as in Welcome. *_max: bytes."""

    version: str = "0"
    live: str = ""
    address: str = ""
    inbox_bytes_max: int = p.INBOX_BYTES_MAX


class Peer:
    """One live connection of a client. route: its routing id; names nobody, proves nothing."""

    __slots__ = ("route", "key", "client", "session", "heard_s", "silent_s", "live_sent", "live_credit", "missed")

    def __init__(self, route: bytes, key: str, client: Client, hello: p.Hello, now_s: float) -> None:
        self.route = route
        self.key = key
        self.client = client
        self.session = hello.session
        self.heard_s = now_s
        self.silent_s = 3 * min(max(hello.keepalive_s, 1), p.KEEPALIVE_S_MAX)
        self.live_sent = 0
        self.live_credit = p.WINDOW_BYTES
        self.missed = 0


class Numbering:
    """A sender's outbox as the hub knows it. last: highest number decided. refused: number -> code."""

    __slots__ = ("last", "refused", "used_s", "gap")

    def __init__(self) -> None:
        self.last = 0
        self.refused: dict[int, str] = {}
        self.used_s = 0.0
        self.gap = 0            # the number asked for again, so that a gap is told once

    def settle(self, number: int) -> None:
        """The sender knows the answers up to here."""
        if number > self.last:
            self.last = number
        if self.refused:
            self.refused = {n: code for n, code in self.refused.items() if n > number}


class Route(NamedTuple):
    """Where a topic's messages go. public: a listener may get them over XPUB, and one wants them."""

    inboxes: tuple[Inbox, ...]
    public: bool
    peers: tuple[Peer, ...]


class Hub:
    def __init__(self, store_id: bytes, settings: Settings, make_pair: Callable[[], tuple[bytes, bytes]],
                 first_stream: int) -> None:
        """store_id: 8 bytes. make_pair: a new (public, secret) key pair, 32 bytes each.
        first_stream: numbers of live streams start here; never the same in two runs."""
        self.store_id = store_id
        self.settings = settings
        self.make_pair = make_pair
        self.registry = Registry()
        self.inboxes: dict[int, Inbox] = {}
        self.outboxes: dict[int, dict[bytes, Numbering]] = {}
        self.subscriptions: Routes[int] = Routes()
        self.listeners: Routes[Peer] = Routes()
        self.broadcast_listeners: set[Peer] = set()
        self.peers: dict[bytes, Peer] = {}
        self.peers_of: dict[int, set[Peer]] = {}
        self.count: dict[str, int] = dict.fromkeys(admin.COUNTERS, 0)
        self.room = True                       # whether the disk takes more
        self._routes: dict[str, Route] = {}    # cache, emptied when a route or a grant changes
        self._streams: dict[str, list[int]] = {}
        self._next_stream = first_stream
        self._facts: list[f.Fact] = []
        self._lazy: dict[tuple[int, bytes], f.Moved] = {}
        self._answers: list[tuple[bytes, p.Command]] = []
        self._accepted: dict[tuple[bytes, bytes], Numbering] = {}
        self._live: list[tuple[bytes, p.Live, bytes]] = []
        self._live_to: list[tuple[Peer, p.Live, bytes]] = []
        self._due: dict[Inbox, None] = {}
        self._hungry: dict[Inbox, None] = {}
        self._cut: list[str] = []
        self._close: list[bytes] = []

    # Hear ------------------------------------------------------------------------------------
    def hear(self, route: bytes, key: str, command: p.Command, body: bytes, now_ms: int, now_s: float) -> None:
        """One command from the connection `route`, whose key was proved by its handshake.

        key: 64 hex digits. now_ms: wall clock, milliseconds since 1970. now_s: monotonic seconds.
        """
        who = self.registry.by_key.get(key)
        if not isinstance(who, Client):
            self._hear_stranger(route, key, who, command, now_ms)
            return
        peer = self.peers.get(route)
        if peer is None or peer.key != key:
            if type(command) is p.Hello:
                self._hello(route, key, who, command, now_ms, now_s)
            else:
                # A request keeps its number, so that its caller hears of it.
                request = 0 if type(command) is not p.Join else command.request
                self._deny(route, request, "not-invited" if request else "hello-first")
            return
        peer.heard_s = now_s
        handler = HANDLERS.get(type(command))
        if handler is None:
            self._deny(route, 0, "garbled")
            return
        try:
            handler(self, peer, command, body, now_ms, now_s)
        except (Refused, Misuse) as no:
            self._deny(route, getattr(command, "request", 0), no.code, no.text)

    def garbled(self, route: bytes, key: str) -> None:
        """Something came that no decoder could read."""
        self.count["garbled"] += 1
        if key in self.registry.by_key:
            self._answers.append((route, p.Denied(0, "garbled", p.REFUSALS["garbled"])))

    def lost(self, route: bytes) -> None:
        """The connection is gone."""
        peer = self.peers.pop(route, None)
        if peer is None:
            return
        self.peers_of[peer.client.id].discard(peer)
        inbox = self.inboxes.get(peer.client.id)
        if inbox is not None and inbox.peer is peer:
            inbox.detach()
        self.broadcast_listeners.discard(peer)
        if self.listeners.drop(peer):
            self._routes.clear()

    def tick(self, now_ms: int, now_s: float) -> None:
        """Once a second or so: what time alone brings about."""
        for invitation in self.registry.expired(now_ms):
            self._decided([f.InvitationEnded(invitation.key)])
            self._cut.append(invitation.key)
        for peer in [q for q in self.peers.values() if now_s - q.heard_s > q.silent_s]:
            self.count["silent_peers"] += 1
            self._close.append(peer.route)
            self.lost(peer.route)

    def _hear_stranger(self, route: bytes, key: str, who: Invitation | None, command: p.Command,
                       now_ms: int) -> None:
        if who is None:                       # a key revoked after its handshake
            self.count["unknown_key"] += 1
            self._cut.append(key)
        elif type(command) is not p.Join:
            self._deny(route, getattr(command, "request", 0), "join-only")
        elif who.expires_ms <= now_ms:
            self._deny(route, command.request, "forbidden", "this invitation has expired; ask for a new one")
        elif self.registry.knows(command.public_key.hex()):
            self._deny(route, command.request, "key-known")
        else:
            self._decided([
                f.InvitationEnded(who.key),
                f.Registered(self.registry.last_id + 1, who.name, command.public_key.hex(), to_wire(who.grants),
                             now_ms),
            ])
            self._answers.append((route, p.Done(command.request, {"name": who.name})))

    # Sessions --------------------------------------------------------------------------------
    def _hello(self, route: bytes, key: str, client: Client, hello: p.Hello, now_ms: int, now_s: float) -> None:
        if hello.version != p.VERSION:
            self._deny(route, 0, "version")
            return
        self.lost(route)                      # an id that was somebody else's a moment ago
        mine = self.peers_of.setdefault(client.id, set())
        for old in [q for q in mine if q.session == hello.session]:
            self._close.append(old.route)     # the same session, over an older connection
            self.lost(old.route)
        if len(mine) >= p.PEERS_MAX:
            self._deny(route, 0, "too-many")
            return
        if client.keys[key]:                  # a new key, used for the first time: the old ones go
            old_keys = [k for k in client.keys if k != key]
            self._decided([f.KeyUsed(client.id, key), *(f.KeyDropped(client.id, k) for k in old_keys)])
        peer = Peer(route, key, client, hello, now_s)
        self.peers[route] = peer
        mine.add(peer)
        numbering = self.outboxes.get(client.id, {}).get(hello.outbox)
        self._answers.append((route, p.Welcome(
            client.name, self.settings.version, self.store_id, self.settings.live, self.settings.address,
            now_ms, {"body_bytes": p.BODY_BYTES_MAX, "batch_bytes": p.BATCH_BYTES_MAX,
                                "batch_messages": p.BATCH_MESSAGES_MAX, "in_flight": p.IN_FLIGHT_MAX,
                                "window_bytes": p.WINDOW_BYTES})))
        if numbering is not None and numbering.last > hello.settled:
            self._accepted[route, hello.outbox] = numbering

    def _bye(self, peer: Peer, bye: p.Bye, _body: bytes, _now_ms: int, _now_s: float) -> None:
        numbering = self.outboxes.get(peer.client.id, {}).get(bye.outbox)
        if numbering is not None and bye.settled >= numbering.last:
            self._forget(peer.client.id, bye.outbox)
        self.lost(peer.route)

    def _ping(self, peer: Peer, ping: p.Ping, _body: bytes, now_ms: int, _now_s: float) -> None:
        inbox = self.inboxes[peer.client.id]
        delivered = inbox.told + 1 if inbox.peer is peer else 0
        self._answers.append((peer.route, p.Pong(ping.request, delivered, now_ms)))

    def _numbering(self, client: int, outbox: bytes, now_s: float) -> Numbering:
        boxes = self.outboxes.setdefault(client, {})
        numbering = boxes.get(outbox)
        if numbering is None:
            if len(boxes) >= p.OUTBOXES_MAX:
                self.count["outboxes_forgotten"] += 1
                self._forget(client, min(boxes, key=lambda b: boxes[b].used_s))
            numbering = boxes[outbox] = Numbering()
        numbering.used_s = now_s
        return numbering

    def _forget(self, client: int, outbox: bytes) -> None:
        self._lazy.pop((client, outbox), None)
        self._decided([f.OutboxForgotten(client, outbox)])

    # Sending ---------------------------------------------------------------------------------
    def _send(self, peer: Peer, send: p.Send, body: bytes, now_ms: int, now_s: float) -> None:
        number = send.number
        if not send.settled < number <= send.settled + p.IN_FLIGHT_MAX:
            raise Refused("bad-batch", p.REFUSALS["bad-batch"])
        client = peer.client
        numbering = self._numbering(client.id, send.outbox, now_s)
        numbering.settle(send.settled)
        if number > numbering.last + 1:
            if numbering.gap != numbering.last + 1:
                numbering.gap = numbering.last + 1
                self._answers.append((peer.route, p.Resend(send.outbox, numbering.gap)))
            return
        numbering.gap = 0
        self._accepted[peer.route, send.outbox] = numbering
        if number <= numbering.last:
            self.count["doubles"] += 1
            return
        envelope = p.pack_envelope(p.Envelope(client.name, now_ms, send.way, send.address, send.outbox,
                                              number, send.messages))
        code, targets = self._decide(client, send, len(envelope) + len(body))
        if code == "disk-full":               # it can't be written down, and needn't be
            numbering.last = number
            numbering.refused[number] = code
            self.count["refused_messages"] += send.messages
            return
        refused = (*numbering.refused.items(), (number, code)) if code else tuple(numbering.refused.items())
        facts: list[f.Fact] = []
        if targets:
            facts.extend(self._place(targets, send.messages, envelope, body))
        lazy = not facts and not code
        self._decided([*facts, f.Moved(client.id, send.outbox, number, refused, lazy)])
        if code:
            self.count["refused_messages"] += send.messages
            return
        self.count["accepted_messages"] += send.messages
        self.count["accepted_batches"] += 1
        if send.way != p.SEND:
            self._speak_live(send, envelope, body)

    def _decide(self, client: Client, send: p.Send, size: int) -> tuple[str, Iterable[Inbox]]:
        """Whether the batch may go, as a refusal's code or "", and to which inboxes."""
        if not 0 < send.messages:
            return "bad-batch", ()
        if send.messages > p.BATCH_MESSAGES_MAX or size > p.BATCH_BYTES_MAX + p.ENVELOPE_BYTES_MAX:
            return "batch-too-large", ()
        if not self.room:
            return "disk-full", ()
        if send.way == p.PUBLISH:
            try:
                parse_topic(send.address)
            except Misuse as error:
                return error.code, ()
            if not may_publish(client.grants, send.address):
                return "forbidden", ()
            return "", self._route(send.address).inboxes
        if send.way == p.BROADCAST:
            if not may_broadcast(client.grants):
                return "forbidden", ()
            return "", [inbox for number, inbox in self.inboxes.items() if number != client.id]
        target = self.registry.by_name.get(send.address)
        if target is None or not may_send(client.grants, send.address):
            return "unknown-client", ()       # one answer for both, so that names can't be probed
        inbox = self.inboxes[target.id]
        if inbox.size + size > self.settings.inbox_bytes_max:
            return "inbox-full", ()
        return "", (inbox,)

    def _place(self, targets: Iterable[Inbox], count: int, envelope: bytes, body: bytes) -> Iterator[f.Fact]:
        """The facts of a batch that goes to these inboxes; a full one misses it, and is counted."""
        size = len(envelope) + len(body)
        places = []
        for inbox in targets:
            if inbox.size + size > self.settings.inbox_bytes_max:
                yield f.Missed(inbox.client, count)
            else:
                places.append((inbox.client, inbox.next))
        if places:
            yield f.Stored(count, envelope, body, tuple(places))

    def _route(self, topic: str) -> Route:
        route = self._routes.get(topic)
        if route is None:
            by_id = self.registry.by_id
            inboxes = tuple(self.inboxes[c] for c in self.subscriptions.match(topic)
                            if may_read(by_id[c].grants, topic))
            peers: tuple[Peer, ...] = self.listeners.match(topic)
            public = self.registry.public.is_public(topic)
            if len(self._routes) >= p.STREAMS_MAX:
                self._routes.clear()
            route = self._routes[topic] = Route(
                inboxes, public and bool(peers),
                () if public else tuple(q for q in peers if may_read(q.client.grants, topic)))
        return route

    def _speak_live(self, send: p.Send, envelope: bytes, body: bytes) -> None:
        name = send.address if send.way == p.PUBLISH else BROADCASTS
        stream = self._streams.get(name)
        if stream is None:
            if len(self._streams) >= p.STREAMS_MAX:
                self._streams.pop(next(iter(self._streams)))
            stream = self._streams[name] = [self._next_stream, 0]
            self._next_stream += 1
        live = p.Live(stream[0], stream[1], envelope)
        stream[1] += send.messages
        if send.way == p.BROADCAST:
            if self.broadcast_listeners:
                self._live.append((BROADCAST_KEY, live, body))
            return
        route = self._route(name)
        if route.public:
            self._live.append((live_key(name), live, body))
        for peer in route.peers:
            if peer.live_sent < peer.live_credit:
                peer.live_sent += len(envelope) + len(body)
                self._live_to.append((peer, live, body))
            else:
                self.count["live_dropped"] += send.messages

    # Receiving -------------------------------------------------------------------------------
    def _receive(self, peer: Peer, receive: p.Receive, _body: bytes, _now_ms: int, _now_s: float) -> None:
        inbox = self.inboxes[peer.client.id]
        if inbox.peer is not None and inbox.peer is not peer:
            self._answers.append((inbox.peer.route, p.Taken()))  # type: ignore[attr-defined]
        inbox.attach(peer, receive.after, min(receive.credit, p.WINDOW_BYTES_MAX))
        self._hungry[inbox] = None

    def _credit(self, peer: Peer, credit: p.Credit, _body: bytes, _now_ms: int, _now_s: float) -> None:
        inbox = self.inboxes[peer.client.id]
        if inbox.peer is peer:
            inbox.credit = max(inbox.credit, min(credit.inbox, inbox.sent + p.WINDOW_BYTES_MAX))
            self._due[inbox] = None
            self._hungry[inbox] = None
        peer.live_credit = max(peer.live_credit, min(credit.live, peer.live_sent + p.WINDOW_BYTES_MAX))
        if credit.missed > peer.missed:
            self.count["live_missed"] += credit.missed - peer.missed
            peer.missed = credit.missed

    def _release(self, peer: Peer, *_: object) -> None:
        inbox = self.inboxes[peer.client.id]
        if inbox.peer is peer:
            inbox.detach()

    def _ack(self, peer: Peer, ack: p.Ack, _body: bytes, _now_ms: int, _now_s: float) -> None:
        if self.inboxes[peer.client.id].can_ack(ack.number, ack.skip):
            self._decided([f.Acked(peer.client.id, ack.number, ack.skip)])

    # Subscriptions ---------------------------------------------------------------------------
    def _subscribe(self, peer: Peer, ask: p.Subscribe, _body: bytes, _now_ms: int, _now_s: float) -> None:
        client = peer.client
        pattern = parse_pattern(ask.pattern)
        if not may_subscribe(client.grants, pattern):
            raise Refused("forbidden", p.REFUSALS["forbidden"])
        if pattern not in self.subscriptions.of(client.id):
            if self.subscriptions.count(client.id) >= p.SUBSCRIPTIONS_MAX:
                raise Refused("too-many", p.REFUSALS["too-many"])
            self._decided([f.Subscribed(client.id, pattern)])
        self._answers.append((peer.route, p.Done(ask.request, {})))

    def _unsubscribe(self, peer: Peer, ask: p.Unsubscribe, _body: bytes, _now_ms: int, _now_s: float) -> None:
        pattern = parse_pattern(ask.pattern)
        if pattern not in self.subscriptions.of(peer.client.id):
            raise Refused("not-subscribed", p.REFUSALS["not-subscribed"])
        self._decided([f.Unsubscribed(peer.client.id, pattern)])
        self._answers.append((peer.route, p.Done(ask.request, {})))

    def _list_subscriptions(self, peer: Peer, ask: p.Subscriptions, *_: object) -> None:
        rows = [s for s in self.subscriptions.of(peer.client.id) if s > ask.after]
        self._answers.append((peer.route, p.Done(ask.request, {
            "patterns": rows[:p.ANSWER_ROWS_MAX], "more": len(rows) > p.ANSWER_ROWS_MAX})))

    def _listen(self, peer: Peer, ask: p.Listen, *_: object) -> None:
        if ask.pattern == BROADCASTS:
            self.broadcast_listeners.add(peer)
        else:
            pattern = parse_pattern(ask.pattern)
            if not may_subscribe(peer.client.grants, pattern):
                raise Refused("forbidden", p.REFUSALS["forbidden"])
            if self.listeners.count(peer) >= p.LISTENS_MAX:
                raise Refused("too-many", p.REFUSALS["too-many"])
            if self.listeners.add(pattern, peer):
                self._routes.clear()
        self._answers.append((peer.route, p.Done(ask.request, {})))

    def _unlisten(self, peer: Peer, ask: p.Unlisten, *_: object) -> None:
        if ask.pattern == BROADCASTS:
            self.broadcast_listeners.discard(peer)
        elif self.listeners.remove(parse_pattern(ask.pattern), peer):
            self._routes.clear()
        self._answers.append((peer.route, p.Done(ask.request, {})))

    def _administer(self, peer: Peer, ask: p.Command, _body: bytes, now_ms: int, now_s: float) -> None:
        facts, result = admin.decide(self, peer.client, ask, now_ms)
        self._decided(facts)
        self._answers.append((peer.route, p.Done(ask.request, result)))  # type: ignore[attr-defined]

    # Remember --------------------------------------------------------------------------------
    def _decided(self, facts: list[f.Fact]) -> None:
        for fact in facts:
            self.apply(fact)
            if type(fact) is f.Moved and fact.lazy:
                self._lazy[fact.client, fact.outbox] = fact
            else:
                self._facts.append(fact)

    def apply(self, fact: f.Fact) -> None:
        """The only way state that outlives the hub changes: now by a decision, later by `load`."""
        match fact:
            case f.Stored(count, envelope, body, places):
                size = len(envelope) + len(body)
                for client, number in places:
                    inbox = self.inboxes[client]
                    if inbox.put(number, envelope, body, size, count):
                        self._due[inbox] = None
                    elif inbox.peer is not None:
                        self._hungry[inbox] = None
            case f.Moved(client, outbox, number, refused):
                numbering = self.outboxes.setdefault(client, {}).setdefault(outbox, Numbering())
                numbering.last = number
                numbering.refused = dict(refused)
            case f.Acked(client, number, skip):
                self.inboxes[client].ack(number, skip)
            case f.Freed(client, messages, size):
                if client in self.inboxes:
                    self.inboxes[client].messages -= messages
                    self.inboxes[client].size -= size
            case f.OutboxForgotten(client, outbox):
                self.outboxes.get(client, {}).pop(outbox, None)
            case f.Subscribed(client, pattern):
                self.subscriptions.add(pattern, client)
                self._routes.clear()
            case f.Unsubscribed(client, pattern):
                self.subscriptions.remove(pattern, client)
                self._routes.clear()
            case f.Missed(client, count):
                self.inboxes[client].missed += count
                self.count["inbox_missed"] += count
            case f.InboxAt(client):
                inbox = self.inboxes[client]
                (_, inbox.next, inbox.base, inbox.skip, inbox.messages, inbox.size, inbox.missed) = fact
            case _:
                self._apply_to_registry(fact)

    def _apply_to_registry(self, fact: f.Fact) -> None:
        self.registry.apply(fact)
        self._routes.clear()
        match fact:
            case f.Registered(client):
                self.inboxes[client] = Inbox(client)
            case f.KeyDropped(client, key):
                self._end([q for q in self.peers_of.get(client, ()) if q.key == key], [key])
            case f.Granted(client):
                for peer in self.peers_of.get(client, ()):
                    self._end_listens(peer)
            case f.Revoked(client):
                self._end(list(self.peers_of.pop(client, ())), [])
                self.subscriptions.drop(client)
                self.outboxes.pop(client, None)
                inbox = self.inboxes.pop(client)
                self._due.pop(inbox, None)
                self._hungry.pop(inbox, None)

    def _end(self, peers: list[Peer], keys: list[str]) -> None:
        self._cut.extend(keys)
        for peer in peers:
            self._close.append(peer.route)
            self.lost(peer.route)

    def _end_listens(self, peer: Peer) -> None:
        """What a peer listens to was checked against grants that it no longer has."""
        for pattern in self.listeners.of(peer):
            if not may_subscribe(peer.client.grants, pattern):
                self.listeners.remove(pattern, peer)
                self._deny(peer.route, 0, "forbidden", f"your grants changed: you no longer listen to {pattern}")

    def take_facts(self, lazy_too: bool = False) -> list[f.Fact]:
        """The facts to commit now, in order. Lazy ones alone wait, unless they are asked for."""
        if not self._facts and not lazy_too:
            return []
        facts, self._facts = self._facts, []
        if self._lazy:
            # Behind the others: for one outbox a lazy fact may be newer, but never older.
            moved = {(x.client, x.outbox): x.number for x in facts if type(x) is f.Moved}
            facts += [x for at, x in self._lazy.items() if moved.get(at, 0) < x.number]
            self._lazy = {}
        return facts

    def committed(self, freed: Iterable[f.Freed]) -> None:
        for fact in freed:
            self.apply(fact)

    # Say -------------------------------------------------------------------------------------
    def _deny(self, route: bytes, request: int, code: str, sentence: str = "") -> None:
        self.count["denied"] += 1
        self._answers.append((route, p.Denied(request, code, sentence or p.REFUSALS[code])))

    def answers(self) -> list[tuple[bytes, p.Command]]:
        """What to tell whom, by routing id: first what was asked, then what was accepted."""
        answers, self._answers = self._answers, []
        for (route, outbox), numbering in self._accepted.items():
            answers.append((route, p.Accepted(outbox, numbering.last, [
                [number, code, p.REFUSALS[code]] for number, code in numbering.refused.items()])))
        self._accepted.clear()
        return answers

    def live(self) -> tuple[list[tuple[bytes, p.Live, bytes]], list[tuple[Peer, p.Live, bytes]]]:
        """Live batches: (key, command, body) for XPUB, and (peer, command, body) for ROUTER."""
        out = self._live, self._live_to
        self._live, self._live_to = [], []
        return out

    def deliveries(self) -> Iterator[tuple[Inbox, Peer, list[Due]]]:
        """What inboxes may send now. Tell undelivered() what could not go."""
        while self._due:
            inbox, _ = self._due.popitem()
            due = inbox.due()
            if due:
                yield inbox, inbox.peer, due  # type: ignore[misc]
            if inbox.behind:
                self._hungry[inbox] = None

    def undelivered(self, inbox: Inbox, due: list[Due]) -> None:
        """These could not be sent: the peer's pipe is full. Tell retry() when it may have room."""
        inbox.unsend(due)

    def retry(self, inbox: Inbox) -> None:
        self._hungry[inbox] = None

    @property
    def is_hungry(self) -> bool:
        return bool(self._hungry)

    def hungry(self, most: int) -> list[Inbox]:
        """Some inboxes whose receivers could take what only the disk has, the longest waiting first."""
        out: list[Inbox] = []
        for inbox in list(self._hungry):
            if len(out) == most:
                break
            del self._hungry[inbox]
            if inbox.behind:
                out.append(inbox)
        return out

    def fed(self, inbox: Inbox, entries: Iterable[tuple[int, bytes, object]], upto: int) -> None:
        """What the disk had for a hungry inbox, up to that number."""
        inbox.fill(entries, upto)
        self._due[inbox] = None

    def cuts(self) -> tuple[list[str], list[bytes]]:
        """Keys whose connections must end now, and single connections, by routing id."""
        out = self._cut, self._close
        self._cut, self._close = [], []
        return out


HANDLERS: dict[type, Callable[..., None]] = {
    p.Send: Hub._send, p.Ack: Hub._ack, p.Credit: Hub._credit, p.Ping: Hub._ping,
    p.Receive: Hub._receive, p.Release: Hub._release, p.Bye: Hub._bye,
    p.Subscribe: Hub._subscribe, p.Unsubscribe: Hub._unsubscribe, p.Subscriptions: Hub._list_subscriptions,
    p.Listen: Hub._listen, p.Unlisten: Hub._unlisten,
    **dict.fromkeys(admin.COMMANDS, Hub._administer),
}
