"""zbackbone: a message backbone in one daemon.

The map, from the ground floor up; a file imports only from above itself in this list:

    errors             whose fault, a stable code, the next step
    topics             names, topics, patterns: parse and match
    protocol           the wire: commands, their bytes, every limit with its reason
    facts              what the hub remembers
    auth/policy        grants -> may
    auth/registry      names, keys and grants of clients and invitations
    auth/zap           judge one authentication request
    auth/keys          make, save and load secrets: profiles and join strings
    router/routes      pattern -> holders
    router/inbox       one client's queue: numbers, credit, acknowledgement
    router/peer        one live connection of a client
    router/audience    who gets a topic's messages: subscribers, listeners, live numbering
    router/numbering   how far each sender's outbox has come
    router/requests    what a client asks about its subscriptions, decided
    router/admin       what an operator asks, decided
    router/hub         the machine: hear, decide, remember, say
    router/pending     what messages changed, and the database does not have yet
    router/store       the database: the only SQL
    router/journal     what the database will hold a little later, in a file
    router/journaled   the hub's store: journal and database
    router/connections descriptors and keys; cutting a connection
    router/server      ROUTER, XPUB and ZAP sockets, one poller, turn()
    router/daemon      a data folder: lock, key, store, operator, and the hub's life
    client/outbox      what the hub has not accepted: batches and their numbers
    client/message     what a receiver gets
    client/session     the machine: greeting, resending, deduplicating, crediting
    client/sockets     CURVE sockets, and what their monitors' events mean
    client/news        waiting for a word in a pipe, or for what sockets have
    client/connection  one I/O thread around a session
    client/joining     from an invitation to a profile
    client/face        what both faces share
    client/sync        Client
    client/aio         AsyncClient
    client/operator    what an operator asks for
    testing            a hub in a test
    cli/               the commands: zbackbone-hub, and zb

Kept pure (no I/O, no clock, no chance): errors to auth/zap, routes to pending, outbox to session.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth.keys import Profile
    from .client.aio import AsyncClient, AsyncReceipt
    from .client.joining import join
    from .client.message import Message
    from .client.operator import Operator
    from .client.sync import Client, Listener, Receipt
    from .errors import (BackboneError, Damaged, Garbled, KeyRefused, Misuse, OutboxFull, Refused, Silence,
                         Unreachable)

__version__ = "0.1.0"
__all__ = [
    "AsyncClient", "AsyncReceipt", "BackboneError", "Client", "Damaged", "Garbled", "KeyRefused", "Listener",
    "Message", "Misuse", "Operator", "OutboxFull", "Profile", "Receipt", "Refused", "Silence", "Unreachable",
    "join",
]

_HOMES = {
    "Profile": "auth.keys", "AsyncClient": "client.aio", "AsyncReceipt": "client.aio", "join": "client.joining",
    "Message": "client.message", "Operator": "client.operator", "Client": "client.sync", "Listener": "client.sync",
    "Receipt": "client.sync",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: a hub needs no client, a command no asyncio (70 of zb's 110 ms).
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
