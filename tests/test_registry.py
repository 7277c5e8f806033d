"""The registry: from facts to who may enter where, and under which name."""

import itertools
import random

import pytest

from zbackbone import facts as f
from zbackbone.auth.policy import EVERYTHING, NOTHING, to_wire
from zbackbone.auth.registry import Client, Invitation, Registry

ALL, NONE = to_wire(EVERYTHING), to_wire(NOTHING)


def key(n):
    return f"{n:064x}"


def registry_of(*facts):
    registry = Registry()
    for fact in facts:
        registry.apply(fact)
    return registry


def registered(client, name=None, n=None, grants=ALL):
    return f.Registered(client, name or f"c{client}", key(client if n is None else n), grants, 1000 + client)


ANN = registered(1, "ann")
GUEST = f.Invited(key(50), "guest", ALL, 5000)
REVOKED = (f.KeyDropped(1, key(1)), f.Revoked(1))

#   what happened                                              key   ROUTER  live side  seen before
ENTRANCES = [
    ([],                                                        1,    False,  False,     False),
    ([ANN],                                                     1,    True,   True,      True),
    ([ANN],                                                     2,    False,  False,     False),
    ([ANN, f.Granted(1, NONE)],                                 1,    True,   True,      True),
    ([GUEST],                                                   50,   True,   False,     True),
    ([GUEST, f.InvitationEnded(key(50))],                       50,   False,  False,     True),
    ([GUEST, f.InvitationEnded(key(50)), registered(1, "guest", 51)], 51, True, True,    True),
    ([GUEST, f.InvitationEnded(key(50)), registered(1, "guest", 51)], 50, False, False,  True),
    ([ANN, f.KeyAdded(1, key(9))],                              1,    True,   True,      True),
    ([ANN, f.KeyAdded(1, key(9))],                              9,    True,   True,      True),
    ([ANN, f.KeyAdded(1, key(9)), f.KeyUsed(1, key(9)), f.KeyDropped(1, key(1))], 9, True, True, True),
    ([ANN, f.KeyAdded(1, key(9)), f.KeyUsed(1, key(9)), f.KeyDropped(1, key(1))], 1, False, False, True),
    ([ANN, f.KeyAdded(1, key(9)), f.KeyDropped(1, key(9))],     9,    False,  False,     True),
    ([ANN, f.KeyAdded(1, key(9)), f.KeyDropped(1, key(9))],     1,    True,   True,      True),
    ([ANN, *REVOKED],                                           1,    False,  False,     True),
    ([ANN, f.Revoked(1)],                                       1,    False,  False,     True),
    ([ANN, f.KeyAdded(1, key(9)), f.Revoked(1)],                9,    False,  False,     True),
    ([ANN, *REVOKED, registered(2, "ann", 2)],                  1,    False,  False,     True),
    ([ANN, *REVOKED, registered(2, "ann", 2)],                  2,    True,   True,      True),
    ([f.KeyDropped(7, key(1))],                                 1,    False,  False,     True),
    ([f.KeyDropped(0, key(50))],                                50,   False,  False,     True),
]


@pytest.mark.parametrize(("facts", "n", "hub", "live", "known"), ENTRANCES)
def test_who_may_enter_where(facts, n, hub, live, known):
    registry = registry_of(*facts)
    assert registry.may_enter(key(n), "hub") is hub
    assert registry.may_enter(key(n), "live") is live
    assert registry.knows(key(n)) is known


@pytest.mark.parametrize("domain", ["", "*", "Hub", "HUB", "hub ", "hub\0", "hublive", "gateway"])
def test_nobody_enters_a_domain_that_is_not_ours(domain):
    registry = registry_of(ANN, GUEST)
    assert not registry.may_enter(key(1), domain) and not registry.may_enter(key(50), domain)


@pytest.mark.parametrize("odd", ["", key(1).upper().replace("0", "O"), key(1)[:-1], key(1) + "0", "ann", "1"])
def test_nothing_but_the_very_key_enters(odd):
    assert not registry_of(ANN).may_enter(odd, "hub")


def test_a_key_leads_to_its_client_or_to_its_invitation():
    registry = registry_of(ANN, GUEST)
    ann, guest = registry.by_key[key(1)], registry.by_key[key(50)]
    assert type(ann) is Client and (ann.id, ann.name, ann.grants, ann.created_ms) == (1, "ann", EVERYTHING, 1001)
    assert registry.by_name["ann"] is registry.by_id[1] is ann
    assert type(guest) is Invitation and (guest.name, guest.grants, guest.expires_ms) == ("guest", EVERYTHING, 5000)
    assert registry.invited["guest"] is guest and guest.key == key(50) and "guest" not in registry.by_name


def test_in_a_rotation_both_keys_are_the_same_client_s():
    registry = registry_of(ANN, f.KeyAdded(1, key(9)))
    ann = registry.by_name["ann"]
    assert registry.by_key[key(1)] is registry.by_key[key(9)] is ann
    assert ann.keys == {key(1): False, key(9): True}
    registry.apply(f.KeyUsed(1, key(9)))
    assert ann.keys == {key(1): False, key(9): False}
    registry.apply(f.KeyDropped(1, key(1)))
    assert ann.keys == {key(9): False}


def test_a_revocation_leaves_nothing_but_the_keys_never_to_be_taken_again():
    registry = registry_of(ANN, f.KeyAdded(1, key(9)), f.KeyDropped(1, key(1)), f.KeyDropped(1, key(9)), f.Revoked(1))
    assert not registry.by_name and not registry.by_id and not registry.by_key
    assert registry.dropped == {key(1), key(9)}


def test_an_invitation_that_ended_is_nobody_s():
    registry = registry_of(GUEST, f.InvitationEnded(key(50)))
    assert not registry.invited and not registry.by_key and list(registry.names("")) == []
    assert registry.expired(9999) == []


def test_ids_only_grow():
    registry = registry_of(registered(1), registered(2), registered(3))
    assert registry.last_id == 3
    registry.apply(f.Revoked(3))
    assert registry.last_id == 3
    again = registry_of(registered(1), registered(2), f.KeyDropped(3, key(3)))     # as a restart is told
    assert again.last_id == 3
    assert registry_of(f.KeyDropped(3, key(3)), registered(1)).last_id == 3
    assert registry_of(f.KeyDropped(0, key(50))).last_id == 0


def test_names_are_listed_in_order_invitations_among_them():
    registry = registry_of(registered(1, "bob"), registered(2, "ann"), GUEST, registered(3, "zoe"))
    assert list(registry.names("")) == ["ann", "bob", "guest", "zoe"]
    assert list(registry.names("bob")) == ["guest", "zoe"]
    assert list(registry.names("c")) == ["guest", "zoe"]
    assert list(registry.names("zoe")) == []


@pytest.mark.parametrize(("now_ms", "expired"), [(4999, False), (5000, True), (9999, True)])
def test_an_invitation_expires_at_its_time(now_ms, expired):
    assert [i.name for i in registry_of(GUEST).expired(now_ms)] == ["guest"] * expired


def test_what_everybody_may_read_follows_who_is_registered():
    registry = registry_of(ANN)
    assert registry.public.is_public("t")
    for fact, public in [
        (GUEST._replace(grants=NONE), True), (registered(2, grants=NONE), False), (f.Granted(2, ALL), True),
        (f.Granted(1, NONE), False), (f.Revoked(1), True), (f.Granted(2, NONE), False), (f.Revoked(2), True),
    ]:
        registry.apply(fact)
        assert registry.public.is_public("t") is public, fact


def test_a_random_history_admits_exactly_the_keys_that_are_good():
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    registry, fresh, ids = Registry(), itertools.count(1), itertools.count(1)
    clients, invitations, used, highest = {}, {}, set(), 0      # id -> keys, key -> name
    for _ in range(600):
        new = key(next(fresh))
        match rng.choice(["register", "invite", "join", "end", "add", "drop", "revoke"]):
            case "register":
                client = next(ids)
                clients[client] = [new]
                registry.apply(f.Registered(client, f"c{client}", new, rng.choice([ALL, NONE]), 0))
            case "invite":
                invitations[new] = f"g{new}"
                registry.apply(f.Invited(new, f"g{new}", ALL, 5))
            case "join" | "end" as what if invitations:
                old = rng.choice(sorted(invitations))
                name = invitations.pop(old)
                used.add(old)
                registry.apply(f.InvitationEnded(old))
                if what == "join":
                    client = next(ids)
                    clients[client] = [new]
                    registry.apply(f.Registered(client, name, new, ALL, 0))
            case "add" if clients:
                client = rng.choice(sorted(clients))
                clients[client].append(new)
                registry.apply(f.KeyAdded(client, new))
            case "drop" if clients:
                client = rng.choice(sorted(clients))
                if len(clients[client]) > 1:
                    old = clients[client].pop(rng.randrange(len(clients[client])))
                    used.add(old)
                    registry.apply(f.KeyDropped(client, old))
            case "revoke" if clients:
                client = rng.choice(sorted(clients))
                used.update(clients[client])
                del clients[client]
                registry.apply(f.Revoked(client))
        good = {k for keys in clients.values() for k in keys}
        assert {k for k in registry.by_key if registry.may_enter(k, "live")} == good
        assert {k for k in registry.by_key if registry.may_enter(k, "hub")} == good | set(invitations)
        assert not any(registry.may_enter(k, "hub") for k in used) and all(registry.knows(k) for k in used)
        highest = max([highest, *clients])
        assert registry.last_id == highest
