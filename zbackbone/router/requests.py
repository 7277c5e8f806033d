"""Requests: what a client asks of the hub about its subscriptions and what it listens to. No I/O, no clock."""

from typing import TYPE_CHECKING, Any, TypeAlias

from .. import facts as f
from .. import protocol as p
from ..auth.policy import may_subscribe
from ..errors import Refused
from ..topics import parse_pattern
from .audience import BROADCASTS
from .peer import Peer

if TYPE_CHECKING:
    from .hub import Hub

Decision: TypeAlias = tuple[list[f.Fact], dict[str, Any]]


def decide(hub: "Hub", peer: Peer, ask: Any) -> Decision:
    """The facts and the answer to a request. Raises Refused, and Misuse for a malformed pattern."""
    decision: Decision = COMMANDS[type(ask)](hub, peer, ask)
    return decision


def _subscribe(hub: "Hub", peer: Peer, ask: p.Subscribe) -> Decision:
    pattern, mine = _readable(peer, ask.pattern), hub.audience.subscriptions.of(peer.client.id)
    if pattern in mine:
        return [], {}
    if len(mine) >= p.SUBSCRIPTIONS_MAX:
        raise Refused("too-many", p.REFUSALS["too-many"])
    return [f.Subscribed(peer.client.id, pattern)], {}


def _unsubscribe(hub: "Hub", peer: Peer, ask: p.Unsubscribe) -> Decision:
    pattern = parse_pattern(ask.pattern)
    if pattern not in hub.audience.subscriptions.of(peer.client.id):
        raise Refused("not-subscribed", p.REFUSALS["not-subscribed"])
    return [f.Unsubscribed(peer.client.id, pattern)], {}


def _subscriptions(hub: "Hub", peer: Peer, ask: p.Subscriptions) -> Decision:
    rows = [pattern for pattern in hub.audience.subscriptions.of(peer.client.id) if pattern > ask.after]
    return [], {"patterns": rows[:p.ANSWER_ROWS_MAX], "more": len(rows) > p.ANSWER_ROWS_MAX}


def _listen(hub: "Hub", peer: Peer, ask: p.Listen) -> Decision:
    pattern = _readable(peer, ask.pattern) if ask.pattern else BROADCASTS
    if not hub.audience.listen(peer, pattern):
        raise Refused("too-many", p.REFUSALS["too-many"])
    return [], {}


def _unlisten(hub: "Hub", peer: Peer, ask: p.Unlisten) -> Decision:
    hub.audience.unlisten(peer, parse_pattern(ask.pattern) if ask.pattern else BROADCASTS)
    return [], {}


def _readable(peer: Peer, text: str) -> str:
    pattern = parse_pattern(text)
    if not may_subscribe(peer.client.grants, pattern):
        raise Refused("forbidden", p.REFUSALS["forbidden"])
    return pattern


COMMANDS: dict[type, Any] = {
    p.Subscribe: _subscribe, p.Unsubscribe: _unsubscribe, p.Subscriptions: _subscriptions,
    p.Listen: _listen, p.Unlisten: _unlisten,
}
