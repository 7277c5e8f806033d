"""Hub: the machine that hears commands, decides, remembers, and knows what to say. No I/O, no clock.

    hear(route, key, command, body)   decide -> facts -> apply; what to say waits
    take_facts()                      what the store must have on disk first
    committed(freed)                  now it may be said:
    answers(), live(), deliveries()   frames to send

The order is the promise: nothing that hangs on a fact is said before the fact is on disk.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .. import facts as f
from .. import protocol as p
from ..auth.policy import may_broadcast, may_publish, may_send, to_wire
from ..auth.registry import Client, Invitation, Registry
from ..errors import Misuse, Refused
from ..topics import BROADCAST_KEY, live_key, parse_topic
from . import admin, requests
from .audience import BROADCASTS, Audience
from .inbox import Due, Inbox
from .numbering import Numbering, Numberings
from .peer import Peer


class Settings(NamedTuple):
    """What an operator may set. version: the hub's. live, address: as in Welcome. *_max: bytes."""

    version: str = "0"
    live: str = ""
    address: str = ""
    inbox_bytes_max: int = p.INBOX_BYTES_MAX


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
        self.numberings = Numberings()
        self.audience = Audience(self.registry, self.inboxes, first_stream)
        self.peers: dict[bytes, Peer] = {}
        self.peers_of: dict[int, set[Peer]] = {}
        self.count: dict[str, int] = dict.fromkeys(admin.COUNTERS, 0)
        self.room = True                       # whether the disk takes more
        self._facts: list[f.Fact] = []
        self._lazy: dict[tuple[int, bytes], f.Moved] = {}
        self._answers: list[tuple[bytes, p.Command]] = []
        self._accepted: dict[tuple[bytes, bytes], Numbering] = {}
        self._live: list[tuple[bytes, p.Live, bytes]] = []
        self._live_to: list[tuple[Peer, p.Live, bytes]] = []
        self._due: dict[Inbox, None] = {}
        self._hungry: dict[Inbox, None] = {}
        self._notes: list[str] = []
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
        self.audience.leave(peer)

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
            self._close.append(route)
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
            self._notes.append(f"{who.name} joined")
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
        numbering = self.numberings.get(client.id, hello.outbox)
        self._answers.append((route, p.Welcome(
            client.name, self.settings.version, self.store_id, self.settings.live, self.settings.address,
            now_ms, {"body_bytes": p.BODY_BYTES_MAX, "batch_bytes": p.BATCH_BYTES_MAX,
                                "batch_messages": p.BATCH_MESSAGES_MAX, "in_flight": p.IN_FLIGHT_MAX,
                                "window_bytes": p.WINDOW_BYTES})))
        if numbering is not None:
            numbering.gap = 0
            numbering.used_s = now_s
            if numbering.last > hello.settled:
                self._accepted[route, hello.outbox] = numbering

    def _bye(self, peer: Peer, bye: p.Bye, _body: bytes, _now_ms: int, _now_s: float) -> None:
        numbering = self.numberings.get(peer.client.id, bye.outbox)
        if numbering is not None and bye.settled >= numbering.last:
            self._forget(peer.client.id, bye.outbox)
        self.lost(peer.route)

    def _join(self, *_: object) -> None:
        raise Refused("not-invited", p.REFUSALS["not-invited"])

    def _ping(self, peer: Peer, ping: p.Ping, _body: bytes, now_ms: int, _now_s: float) -> None:
        inbox = self.inboxes[peer.client.id]
        delivered = inbox.told + 1 if inbox.peer is peer else 0
        self._answers.append((peer.route, p.Pong(ping.request, delivered, now_ms)))

    def _numbering(self, client: int, outbox: bytes, now_s: float) -> Numbering:
        if self.numberings.get(client, outbox) is None:
            in_use = {peer.outbox for peer in self.peers_of.get(client, ())}
            surplus = self.numberings.surplus(client, in_use)
            if surplus is not None:
                self.count["outboxes_forgotten"] += 1
                self._forget(client, surplus)
        return self.numberings.use(client, outbox, now_s)

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
            return "", self.audience.of(send.address).inboxes
        if send.way == p.BROADCAST:
            if send.address:
                return "bad-batch", ()
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

    def _speak_live(self, send: p.Send, envelope: bytes, body: bytes) -> None:
        if send.way == p.BROADCAST:
            live = self.audience.number(BROADCASTS, envelope, send.messages)
            if self.audience.broadcast_listeners:
                self._live.append((BROADCAST_KEY, live, body))
            return
        live = self.audience.number(send.address, envelope, send.messages)
        route = self.audience.of(send.address)
        if route.public:
            self._live.append((live_key(send.address), live, body))
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

    # Requests --------------------------------------------------------------------------------
    def _request(self, peer: Peer, ask: Any, *_: object) -> None:
        facts, result = requests.decide(self, peer, ask)
        self._decided(facts)
        self._answers.append((peer.route, p.Done(ask.request, result)))

    def _administer(self, peer: Peer, ask: Any, _body: bytes, now_ms: int, now_s: float) -> None:
        facts, result = admin.decide(self, peer.client, ask, now_ms)
        if facts:
            self._notes.append(f"{peer.client.name} asked to {type(ask).__name__.lower()} {ask.name}")
        self._decided(facts)
        self._cut.extend(fact.key for fact in facts if type(fact) is f.InvitationEnded)
        self._answers.append((peer.route, p.Done(ask.request, result)))

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
                self.numberings.set(client, outbox, number, refused)
            case f.Acked(client, number, skip):
                self.inboxes[client].ack(number, skip)
            case f.Freed(client, messages, size):
                if client in self.inboxes:
                    self.inboxes[client].messages -= messages
                    self.inboxes[client].size -= size
            case f.OutboxForgotten(client, outbox):
                self.numberings.forget(client, outbox)
            case f.Subscribed(client, pattern):
                self.audience.subscriptions.add(pattern, client)
                self.audience.changed()
            case f.Unsubscribed(client, pattern):
                self.audience.subscriptions.remove(pattern, client)
                self.audience.changed()
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
        self.audience.changed()
        match fact:
            case f.Registered(client):
                self.inboxes[client] = Inbox(client)
            case f.KeyDropped(client, key):
                self._end([q for q in self.peers_of.get(client, ()) if q.key == key], [key])
            case f.Granted(client):
                for peer in self.peers_of.get(client, ()):
                    for pattern in self.audience.end_forbidden(peer):
                        self._deny(peer.route, 0, "forbidden",
                                   f"your grants changed: you no longer listen to {pattern}")
            case f.Revoked(client):
                self._end(list(self.peers_of.pop(client, ())), [])
                self.audience.subscriptions.drop(client)
                self.numberings.forget_client(client)
                self._lazy = {at: fact for at, fact in self._lazy.items() if at[0] != client}
                inbox = self.inboxes.pop(client)
                self._due.pop(inbox, None)
                self._hungry.pop(inbox, None)

    def _end(self, peers: list[Peer], keys: list[str]) -> None:
        self._cut.extend(keys)
        for peer in peers:
            self._close.append(peer.route)
            self.lost(peer.route)

    def skip_numbers(self, upto: int) -> None:
        """Gives no inbox number up to this again. Called once, behind load."""
        for inbox in self.inboxes.values():
            inbox.next = max(inbox.next, upto + 1)

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

    def take_notes(self) -> list[str]:
        """What an operator's log should hold of what was just committed, one line each."""
        notes, self._notes = self._notes, []
        return notes

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
        inbox.is_stuck = False
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
    p.Join: Hub._join, p.Receive: Hub._receive, p.Release: Hub._release, p.Bye: Hub._bye,
    **dict.fromkeys(requests.COMMANDS, Hub._request),
    **dict.fromkeys(admin.COMMANDS, Hub._administer),
}
