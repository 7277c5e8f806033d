"""Registry: names, keys and grants of clients and invitations. No I/O, no clock."""

from collections.abc import Iterator

from .. import facts as f
from .policy import Grants, PublicTopics, from_wire


class Client:
    """A registered name. keys: key -> whether it waits for its first use (a rotation)."""

    __slots__ = ("id", "name", "keys", "grants", "created_ms")

    def __init__(self, id: int, name: str, grants: Grants, created_ms: int) -> None:
        self.id = id
        self.name = name
        self.keys: dict[str, bool] = {}
        self.grants = grants
        self.created_ms = created_ms


class Invitation:
    """A one-time key by which a client of this name may join, and nothing else."""

    __slots__ = ("key", "name", "grants", "expires_ms")

    def __init__(self, key: str, name: str, grants: Grants, expires_ms: int) -> None:
        self.key = key
        self.name = name
        self.grants = grants
        self.expires_ms = expires_ms


class Registry:
    """All clients and invitations; changed by facts alone."""

    def __init__(self) -> None:
        self.by_name: dict[str, Client] = {}
        self.by_id: dict[int, Client] = {}
        self.by_key: dict[str, Client | Invitation] = {}
        self.invited: dict[str, Invitation] = {}     # by name
        self.dropped: set[str] = set()               # keys that were taken once and never will be again
        self.public = PublicTopics()
        self.last_id = 0

    def may_enter(self, key: str, domain: str) -> bool:
        """Whether a connection with this key may open: an invitation's only to the hub's ROUTER."""
        who = self.by_key.get(key)
        return who is not None and (domain == "hub" or (domain == "live" and type(who) is Client))

    def knows(self, key: str) -> bool:
        return key in self.by_key or key in self.dropped

    def names(self, after: str) -> Iterator[str]:
        return iter(sorted(n for n in self.by_name.keys() | self.invited.keys() if n > after))

    def expired(self, now_ms: int) -> list[Invitation]:
        return [i for i in self.invited.values() if i.expires_ms <= now_ms]

    def apply(self, fact: f.Fact) -> None:
        match fact:
            case f.Invited(key, name, grants, expires_ms):
                invitation = Invitation(key, name, from_wire(grants), expires_ms)
                self.by_key[key] = self.invited[name] = invitation
            case f.InvitationEnded(key):
                ended = self.by_key.pop(key)
                del self.invited[ended.name]
                self.dropped.add(key)
            case f.Registered(number, name, key, grants, time_ms):
                client = Client(number, name, from_wire(grants), time_ms)
                client.keys[key] = False
                self.by_key[key] = self.by_name[name] = self.by_id[number] = client
                self.last_id = max(self.last_id, number)
                self.public.add(client.grants.subscribe)
            case f.KeyAdded(number, key):
                client = self.by_id[number]
                client.keys[key] = True
                self.by_key[key] = client
            case f.KeyUsed(number, key):
                self.by_id[number].keys[key] = False
            case f.KeyDropped(number, key):
                if number in self.by_id:             # else a key of a client revoked long ago
                    self.by_id[number].keys.pop(key, None)
                    self.by_key.pop(key, None)
                self.dropped.add(key)
                self.last_id = max(self.last_id, number)
            case f.Granted(number, grants):
                client = self.by_id[number]
                self.public.remove(client.grants.subscribe)
                client.grants = from_wire(grants)
                self.public.add(client.grants.subscribe)
            case f.Revoked(number):
                client = self.by_id.pop(number)
                del self.by_name[client.name]
                for key in client.keys:
                    del self.by_key[key]
                    self.dropped.add(key)
                self.public.remove(client.grants.subscribe)
                self.last_id = max(self.last_id, number)
