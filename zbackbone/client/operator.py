"""Operator: what a client that may administer asks of the hub."""

from typing import Any

from .. import protocol as p
from ..auth.keys import Invitation, Profile, parse_address, to_join_string
from ..auth.policy import EVERYTHING, Grants, to_wire
from ..topics import parse_name
from .sync import Client

ASK_S = 30.0


class Operator:
    """Administers through a client's connection. Every call raises Refused, Misuse or Silence."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def invite(self, name: str, grants: Grants = EVERYTHING, lifetime_s: int = 86_400, address: str = "") -> str:
        """A join string for a new client. lifetime_s: seconds. address: HOST:PORT to join at, if not the usual."""
        result = self._ask(p.Invite, parse_name(name), to_wire(grants), lifetime_s, again=False)
        return to_join_string(Invitation(self._address(address, result), self._client._connection.profile.hub_key,
                                         result["secret_key"]))

    def add(self, name: str, grants: Grants = EVERYTHING, address: str = "") -> Profile:
        """A new client's whole profile; its secret is in this answer and nowhere else."""
        result = self._ask(p.Register, parse_name(name), to_wire(grants), again=False)
        return self._profile(name, address, result)

    def rotate(self, name: str, now: bool = False, address: str = "") -> Profile:
        """A new profile for a client. The old key is taken until the new one is used; with `now`, no longer."""
        return self._profile(name, address, self._ask(p.Rotate, parse_name(name), now, again=False))

    def clients(self) -> list[dict[str, Any]]:
        """One map a client or invitation, by name: name, state ("connected", "away", "invited"), waiting, bytes."""
        rows: list[dict[str, Any]] = []
        while True:
            result = self._ask(p.Clients, rows[-1]["name"] if rows else "")
            rows += result["clients"]
            if not result["more"]:
                return rows

    def show(self, name: str) -> dict[str, Any]:
        """What clients() says of it, and its grants, keys, subscriptions."""
        return self._ask(p.Show, parse_name(name))

    def revoke(self, name: str) -> int:
        """Ends a client or an invitation. Returns how many waiting messages went with it."""
        return int(self._ask(p.Revoke, parse_name(name), again=False)["purged"])

    def grant(self, name: str, grants: Grants) -> None:
        """Replaces what a client may do."""
        self._ask(p.Grant, parse_name(name), to_wire(grants))

    def status(self) -> dict[str, Any]:
        """The hub's counters."""
        return self._ask(p.Status)

    def _ask(self, make: Any, *fields: Any, again: bool = True) -> dict[str, Any]:
        return self._client._ask(ASK_S, make, *fields, again=again)

    def _address(self, address: str, result: dict[str, Any]) -> str:
        return parse_address(address or result["address"] or self._client._connection.profile.address)

    def _profile(self, name: str, address: str, result: dict[str, Any]) -> Profile:
        return Profile(name, self._address(address, result), self._client._connection.profile.hub_key,
                       result["public_key"], result["secret_key"])
