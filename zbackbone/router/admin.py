"""Admin: what an operator asks of the hub, decided. No I/O, no clock."""

from typing import TYPE_CHECKING, Any, TypeAlias

from .. import facts as f
from .. import protocol as p
from ..auth.policy import from_wire, may_administer, to_wire
from ..auth.registry import Client
from ..errors import Refused
from ..topics import parse_name

if TYPE_CHECKING:
    from .hub import Hub

INVITATION_S_MAX = 30 * 86400       # an invitation is a key; a month is long for one lying about

COUNTERS = (
    "accepted_messages", "accepted_batches", "delivered_batches", "refused_messages", "denied", "doubles",
    "garbled", "unknown_key", "silent_peers", "stuck_peers", "outboxes_forgotten", "live_dropped",
    "live_missed", "inbox_missed", "damaged_batches", "purged_messages", "cut_connections", "foreign_filters",
    "refused_handshakes", "faults",
)

COUNT_MAX = (1 << 63) - 1           # what fits into an answer

Decision: TypeAlias = tuple[list[f.Fact], dict[str, Any]]


def decide(hub: "Hub", client: Client, ask: Any, now_ms: int) -> Decision:
    """The facts and the answer to an operator's request. Raises Refused."""
    if not may_administer(client.grants):
        raise Refused("forbidden", p.REFUSALS["forbidden"])
    decision: Decision = COMMANDS[type(ask)](hub, client, ask, now_ms)
    return decision


def _free_name(hub: "Hub", name: str) -> str:
    name = parse_name(name)
    if name in hub.registry.by_name or name in hub.registry.invited:
        raise Refused("name-taken", p.REFUSALS["name-taken"])
    return name


def _client(hub: "Hub", name: str) -> Client:
    client = hub.registry.by_name.get(name)
    if client is None:
        raise Refused("no-such-client", p.REFUSALS["no-such-client"])
    return client


def _invite(hub: "Hub", _: Client, ask: p.Invite, now_ms: int) -> Decision:
    name, grants = _free_name(hub, ask.name), from_wire(ask.grants)
    lifetime_s = min(max(ask.lifetime_s, 1), INVITATION_S_MAX)
    public, secret = hub.make_pair()
    expires_ms = now_ms + lifetime_s * 1000
    return [f.Invited(public.hex(), name, to_wire(grants), expires_ms)], {
        "secret_key": secret, "expires_ms": expires_ms, "address": hub.settings.address}


def _register(hub: "Hub", _: Client, ask: p.Register, now_ms: int) -> Decision:
    name, grants = _free_name(hub, ask.name), from_wire(ask.grants)
    public, secret = hub.make_pair()
    return [f.Registered(hub.registry.last_id + 1, name, public.hex(), to_wire(grants), now_ms)], {
        "public_key": public, "secret_key": secret, "address": hub.settings.address}


def _clients(hub: "Hub", _: Client, ask: p.Clients, _now_ms: int) -> Decision:
    names = list(hub.registry.names(ask.after))
    return [], {"clients": [_row(hub, name) for name in names[:p.ANSWER_ROWS_MAX]],
                "more": len(names) > p.ANSWER_ROWS_MAX}


def _row(hub: "Hub", name: str) -> dict[str, Any]:
    client = hub.registry.by_name.get(name)
    if client is None:
        return {"name": name, "state": "invited", "expires_ms": hub.registry.invited[name].expires_ms}
    inbox = hub.inboxes[client.id]
    return {"name": name, "state": "connected" if hub.peers_of.get(client.id) else "away",
            "waiting": inbox.waiting, "bytes": inbox.size}


def _show(hub: "Hub", _: Client, ask: p.Show, _now_ms: int) -> Decision:
    invitation = hub.registry.invited.get(ask.name)
    if invitation is not None:
        return [], _row(hub, ask.name) | {"grants": to_wire(invitation.grants)}
    client = _client(hub, ask.name)
    inbox = hub.inboxes[client.id]
    patterns = hub.audience.subscriptions.of(client.id)
    return [], _row(hub, ask.name) | {
        "grants": to_wire(client.grants), "created_ms": client.created_ms, "missed": inbox.missed,
        "keys": [{"public_key": bytes.fromhex(k), "pending": pending} for k, pending in client.keys.items()],
        "connections": len(hub.peers_of.get(client.id, ())),
        "subscriptions": len(patterns), "patterns": patterns[:100]}


def _revoke(hub: "Hub", operator: Client, ask: p.Revoke, _now_ms: int) -> Decision:
    invitation = hub.registry.invited.get(ask.name)
    if invitation is not None:
        return [f.InvitationEnded(invitation.key)], {"purged": 0}
    client = _client(hub, ask.name)
    if client is operator:
        raise Refused("forbidden", "you cannot revoke yourself; have another operator do it")
    purged = hub.inboxes[client.id].waiting
    hub.count["purged_messages"] += purged
    return [*(f.KeyDropped(client.id, key) for key in client.keys), f.Revoked(client.id)], {"purged": purged}


def _rotate(hub: "Hub", _: Client, ask: p.Rotate, _now_ms: int) -> Decision:
    client = _client(hub, ask.name)
    public, secret = hub.make_pair()
    # A rotation begun and not finished is replaced; the key in use stays until the new one is used.
    gone = [key for key, pending in client.keys.items() if pending or ask.now]
    facts: list[f.Fact] = [f.KeyAdded(client.id, public.hex()), *(f.KeyDropped(client.id, key) for key in gone)]
    if ask.now:
        facts.append(f.KeyUsed(client.id, public.hex()))
    return facts, {"public_key": public, "secret_key": secret, "address": hub.settings.address}


def _grant(hub: "Hub", operator: Client, ask: p.Grant, _now_ms: int) -> Decision:
    client, grants = _client(hub, ask.name), from_wire(ask.grants)
    if client is operator and not grants.admin:
        raise Refused("forbidden", "you cannot take your own administration away; have another operator do it")
    return [f.Granted(client.id, to_wire(grants))], {}


def _status(hub: "Hub", *_: object) -> Decision:
    return [], {
        "hub": hub.settings.version, "clients": len(hub.registry.by_id), "invitations": len(hub.registry.invited),
        "connections": len(hub.peers), "subscriptions": len(hub.audience.subscriptions),
        "waiting_messages": sum(i.waiting for i in hub.inboxes.values()),
        "waiting_bytes": sum(i.size for i in hub.inboxes.values()),
        "room_on_disk": hub.room,
        # Some add up what peers claim, which may spoil a counter and nothing else.
        **{name: min(count, COUNT_MAX) for name, count in hub.count.items()}}


COMMANDS: dict[type, Any] = {
    p.Invite: _invite, p.Register: _register, p.Clients: _clients, p.Show: _show, p.Revoke: _revoke,
    p.Rotate: _rotate, p.Grant: _grant, p.Status: _status,
}
