"""The plays of docs/protocol.md, section 16: a client that knows nothing but that document, against a real hub."""

import json
import os
from pathlib import Path

import msgpack
import pytest
import zmq
from rawclient import (DIRECT, EVERYBODY, TOPIC, WINDOW, Ear, Keys, Peer, batch, header, issued, keys_of_join_string,
                       keys_of_profile)

from zbackbone.client.operator import Operator
from zbackbone.client.sync import Client
from zbackbone.testing import running_hub

ALL = {"send": ["#"], "publish": ["#"], "subscribe": ["#"], "admin": False}
NOBODY = {"send": [], "publish": [], "subscribe": [], "admin": False}
VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))


class Place:
    """A hub, an operator's connection to it, and what a test makes and must not leave behind."""

    def __init__(self, hub):
        self.hub = hub
        self.keys = keys_of_profile(hub.data / "operator.profile")
        self.things = []
        self.names = []
        self.operator = self.greet(self.keys)

    def new(self, grants=ALL, name=None):
        """A new client's keys. Its name is in `names`."""
        name = name or f"c-{os.urandom(4).hex()}"
        keys = issued(self.keys, self.operator.ask("REGISTER", name, grants))
        self.names.append(name)
        keys.name = name
        return keys

    def open(self, keys, **how):
        peer = Peer(keys, **how)
        self.things.append(peer)
        return peer

    def greet(self, keys=None, settled=0, **how):
        """A connection that has been welcomed, of these keys or of a new client."""
        peer = self.open(keys or self.new(), **how)
        peer.welcome = peer.hello(settled)
        assert peer.welcome.word == "WELCOME", peer.welcome
        return peer

    def listen(self, keys, *filters):
        """Its filters are in force."""
        ear = Ear(keys, self.operator.welcome[3])
        self.things.append(ear)
        if filters:
            ear.add(*filters)
        return ear

    def invite(self, lifetime_s=60):
        """The keys of a join string, as an operator's tool prints it."""
        name = f"c-{os.urandom(4).hex()}"
        with Client(self.hub.operator) as client:
            keys = keys_of_join_string(Operator(client).invite(name, lifetime_s=lifetime_s))
        self.names.append(name)
        keys.name = name
        return keys

    def close(self):
        for name in self.names:
            self.operator.ask("REVOKE", name)
        for thing in self.things:
            thing.close()


@pytest.fixture(scope="module")
def hub():
    yield from running_hub()


@pytest.fixture
def place(hub):
    place = Place(hub)
    yield place
    place.close()


@pytest.fixture
def own_place(zbackbone_hub):
    """A hub that the test may end. Its connections die with it."""
    return Place(zbackbone_hub)


def delivered(peer, after=0, credit=WINDOW):
    """What RECEIVE brings: (number, previous, skip, items)."""
    peer.say("RECEIVE", after, credit)
    return [(said[0], said[1], said[2], said.items) for said in peer.all() if said.word == "DELIVER"]


def accepted(peer, number=0):
    """The next ACCEPTED that reaches that number: its own, and {number: code} of the refused."""
    said = peer.hear("ACCEPTED")
    while said[1] < number:
        said = peer.hear("ACCEPTED")
    return said[1], {number: code for number, code, sentence in said[2]}


# Connecting

def nowhere(keys):
    return Keys("127.0.0.1:1", keys.hub_key, keys.public, keys.secret)


def wrong_hub(keys):
    return Keys(keys.address, keys.public, keys.public, keys.secret)


@pytest.mark.parametrize("changed, event", [
    (nowhere, "closed"), (wrong_hub, "no detail"), (Keys.other, "auth")], ids=["nowhere", "wrong hub", "unknown key"])
def test_each_way_not_to_get_in_shows_on_the_monitor(place, changed, event):
    assert place.open(changed(place.new())).happened("closed", "no detail", "auth", "protocol", "succeeded") == event


def test_nobody_gets_in_without_encryption(place):
    peer = place.open(place.keys, plain=True)
    assert peer.happened("protocol", "no detail", "succeeded") in ("protocol", "no detail")


def test_an_invitation_does_not_open_the_live_side(place):
    ear = place.listen(place.invite())
    assert ear.happened("auth", "succeeded") == "auth"


def test_a_connection_whose_routing_id_is_in_use_is_ignored(place):
    first = place.greet(route=b"\1 not random")
    second = place.open(first.keys, route=b"\1 not random")
    second.say("HELLO", 1, second.session, second.outbox, 0, 60)
    assert second.happened("succeeded") == "succeeded"
    assert first.all() == []
    assert not second.dealer.poll(0)


def test_a_frame_above_the_limit_ends_the_connection(place):
    peer = place.greet()
    peer.say_frames(header("PING", 7), bytes(2_131_968 - 33))
    assert peer.hear("PONG")[0] == 7
    peer.say_frames(header("PING", 8), bytes(2_131_968 - 32))
    assert peer.is_gone()


# Joining

def test_a_join_string_turns_into_a_client_once(place):
    invited = place.invite()
    guest, mine = place.open(invited), invited.other()
    assert guest.ask("JOIN", mine.public_bytes) == {"name": invited.name}
    assert place.greet(mine).welcome[0] == invited.name
    assert place.open(invited).happened("auth", "succeeded") == "auth"


@pytest.mark.parametrize("command", [
    ("PING", 5), ("SUBSCRIBE", 5, "a"), ("STATUS", 5), ("HELLO", 1, bytes(8), bytes(8), 0, 60), ("RECEIVE", 0, WINDOW)],
    ids=lambda c: c[0])
def test_an_invitations_key_may_only_join(place, command):
    guest = place.open(place.invite())
    guest.say(*command)
    assert guest.hear().fields[:2] == [5 if command[1] == 5 else 0, "join-only"]


def test_a_key_that_the_hub_knows_cannot_join(place):
    invited, client = place.invite(), place.new()
    guest = place.open(invited)
    assert guest.ask("JOIN", client.public_bytes) == "key-known"
    assert guest.ask("JOIN", invited.public_bytes) == "key-known"
    assert guest.ask("JOIN", invited.other().public_bytes) == {"name": invited.name}


def test_a_client_cannot_join(place):
    keys = place.new()
    assert place.open(keys).ask("JOIN", bytes(32)) == "not-invited"
    assert place.greet(keys).ask("JOIN", bytes(32)) == "not-invited"


# Session

BEFORE_HELLO = [
    ("SEND", bytes(8), 1, 0, DIRECT, "a", 1), ("RECEIVE", 0, WINDOW), ("CREDIT", 0, 0, 0), ("ACK", 1, 0), ("RELEASE",),
    ("SUBSCRIBE", 1, "a"), ("LISTEN", 1, "a"), ("PING", 1), ("BYE", bytes(8), 0), ("STATUS", 1),
]


@pytest.mark.parametrize("command", BEFORE_HELLO, ids=lambda c: c[0])
def test_nothing_is_heard_before_hello(place, command):
    peer = place.open(place.keys)
    peer.say(*command, body=batch(b"x"))
    assert peer.hear().fields[:2] == [0, "hello-first"]
    assert peer.hello().word == "WELCOME"


def test_welcome_tells_what_a_client_needs(place):
    keys = place.new()
    name, version, store, live, address, time_ms, limits = place.greet(keys).welcome.fields
    assert (name, address, len(store)) == (keys.name, "", 8)
    assert version and live.startswith("tcp://") and time_ms > 1_700_000_000_000
    assert limits == {"body_bytes": 1_048_576, "batch_bytes": 1_065_984, "batch_messages": 4096, "in_flight": 1024,
                      "window_bytes": WINDOW}


def test_another_version_is_refused(place):
    assert place.open(place.new()).hello(version=2).fields[:2] == [0, "version"]


def test_fields_behind_the_known_ones_are_ignored(place):
    peer = place.greet()
    peer.say("PING", 7, "later", {"a": [1]})
    assert peer.hear("PONG")[0] == 7


def test_a_second_hello_makes_no_sense(place):
    assert place.greet().hello().fields[:2] == [0, "garbled"]


def test_a_hello_of_the_same_session_cuts_the_older_connection(place):
    older = place.greet()
    other = place.greet(older.keys)
    place.greet(older.keys, session=older.session)
    assert older.is_gone()
    assert other.pong()


def test_a_client_may_have_so_many_connections_and_no_more(place):
    keys = place.new()
    peers = [place.greet(keys) for _ in range(32)]
    late = place.open(keys)
    assert late.hello().fields[:2] == [0, "too-many"]
    peers[0].say("BYE", peers[0].outbox, 0)
    assert peers[0].hello()     # and by then BYE was heard
    peers[1].say("BYE", peers[1].outbox, 0)
    peers[1].say("PING", 1)
    assert peers[1].hear()[1] == "hello-first"
    assert late.hello().word == "WELCOME"


def test_a_connection_that_breaks_its_own_keepalive_is_cut(place):
    peer = place.open(place.new())
    peer.hello(keepalive_s=1)
    assert peer.is_gone()


def test_bye_ends_the_session_and_an_outbox_that_is_settled(place):
    me, you = place.greet(), place.greet()
    me.send(1, DIRECT, you.keys.name, b"one")
    me.say("BYE", me.outbox, 0)                     # not settled: it is remembered
    me.say("PING", 1)
    assert me.hear("DENIED")[1] == "hello-first"
    me = place.greet(me.keys, session=me.session, outbox=me.outbox)
    me.send(1, DIRECT, you.keys.name, b"one")
    assert accepted(me) == (1, {})
    me.say("BYE", me.outbox, 1)                     # settled: it is forgotten
    me = place.greet(me.keys, session=me.session, outbox=me.outbox)
    me.send(1, DIRECT, you.keys.name, b"another first")
    me.pong()
    assert [items for *_, items in delivered(you)] == [[b"one"], [b"another first"]]


# What makes no sense

ODD_FRAMES = {
    "one frame": [b"\x92\x0d\x08"], "one empty frame": [b""], "three frames": [b"\x92\x0d\x08", b"", b""],
    "a header too long": [msgpack.packb([13, 8, bytes(98_304)]), b""], "no msgpack": [b"\xc1", b""],
    **{f"kind {kind}": [msgpack.packb([kind, 1, 1, 1]), b""] for kind in (0, 23, 63, 73, 127, 2**40, -1)},
    "a pattern too long": [header("SUBSCRIBE", 1, "p" * 256), b""],
    "a name too long": [header("SHOW", 1, "n" * 65), b""],
}
HUB_ONLY = [v for v in VECTORS if v.get("command") in (
    "WELCOME", "ACCEPTED", "RESEND", "DELIVER", "LIVE", "TAKEN", "PONG", "DONE", "DENIED")]
MALFORMED = [v for v in VECTORS if "garbled" in v and "header" in v]


@pytest.mark.parametrize("frames", [
    *ODD_FRAMES.values(), *([bytes.fromhex(v["header"]), b""] for v in HUB_ONLY + MALFORMED)],
    ids=[*ODD_FRAMES, *(v["name"] for v in HUB_ONLY + MALFORMED)])
def test_frames_that_make_no_sense_are_answered_and_change_nothing(place, frames):
    peer = place.operator
    peer.say_frames(*frames)
    assert peer.hear().fields[:2] == [0, "garbled"]
    assert peer.pong()


def test_a_routing_id_is_never_taken_for_a_header(place):
    peer = place.greet(route=header("PING", 77))
    peer.say_frames(b"x")
    assert peer.hear().fields[:2] == [0, "garbled"]


# Sending

def test_a_batch_goes_to_whom_it_is_addressed(place):
    me, one, two = place.greet(), place.greet(), place.greet()
    one.ask("SUBSCRIBE", "plays.#")
    me.ask("SUBSCRIBE", "plays.*")
    me.send(1, DIRECT, one.keys.name, b"direct", (b"with headers", {"unit": "deg"}))
    me.send(2, TOPIC, "plays.first", b"published")
    me.send(3, EVERYBODY, "", b"broadcast")
    me.pong()
    assert [items for *_, items in delivered(one)] == [
        [b"direct", (b"with headers", {"unit": "deg"})], [b"published"], [b"broadcast"]]
    assert [items for *_, items in delivered(two)] == [[b"broadcast"]]
    assert [items for *_, items in delivered(me)] == [[b"published"]]


def test_the_envelope_is_the_hubs_word(place):
    me, you = place.greet(), place.greet()
    me.send(1, DIRECT, you.keys.name, b"x", b"y")
    me.pong()
    you.say("RECEIVE", 0, WINDOW)
    sender, time_ms, way, address, outbox, number, messages = you.hear("DELIVER").envelope
    assert (sender, way, address, outbox, number, messages) == (me.keys.name, 1, you.keys.name, me.outbox, 1, 2)
    assert abs(time_ms - you.pong()[2]) < 60_000


def test_a_batch_sent_again_is_accepted_again_and_stored_once(place):
    me, you = place.greet(), place.greet()
    for _ in range(3):
        me.send(1, DIRECT, you.keys.name, b"once")
        assert accepted(me) == (1, {})
    me.send(2, DIRECT, you.keys.name, b"twice")
    me.send(1, DIRECT, you.keys.name, b"once")
    me.send(2, DIRECT, you.keys.name, b"twice")
    me.pong()
    assert [items for *_, items in delivered(you)] == [[b"once"], [b"twice"]]


def test_a_batch_behind_a_hole_is_asked_for_once(place):
    me, you = place.greet(), place.greet()
    for number in (1, 3, 4):
        me.send(number, DIRECT, you.keys.name, b"%d" % number)
    heard = me.all()
    assert [said.fields for said in heard if said.word == "RESEND"] == [[me.outbox, 2]]
    assert [said[1] for said in heard if said.word == "ACCEPTED"] == [1]
    for number in (2, 3, 4):
        me.send(number, DIRECT, you.keys.name, b"%d" % number)
    me.pong()
    assert [items for *_, items in delivered(you)] == [[b"1"], [b"2"], [b"3"], [b"4"]]


@pytest.mark.parametrize("number, settled, is_taken", [
    (1, 0, True), (0, 0, False), (5, 5, False), (5, 9, False), (1024, 0, True), (1025, 0, False), (1029, 5, True)])
def test_a_number_is_within_its_window_or_nothing_happens(place, number, settled, is_taken):
    me = place.greet()
    me.send(number, DIRECT, me.keys.name, b"x", settled=settled)
    said = me.hear("ACCEPTED", "RESEND", "DENIED")
    assert said.fields[:2] == [0, "bad-batch"] if not is_taken else said.word in ("ACCEPTED", "RESEND")


def test_outboxes_count_by_themselves_whatever_their_names(place):
    me, you = place.greet(), place.greet(outbox=b"the same")
    me.send(1, DIRECT, you.keys.name, b"mine", outbox=b"the same")
    me.send(1, DIRECT, you.keys.name, b"mine too", outbox=b"another ")
    me.pong()
    you.send(1, DIRECT, you.keys.name, b"yours", outbox=b"the same")
    you.pong()
    assert [items for *_, items in delivered(you)] == [[b"mine"], [b"mine too"], [b"yours"]]


def test_a_hundred_outboxes_are_remembered(place):
    me = place.greet()
    for number in range(101):
        me.send(1, DIRECT, me.keys.name, b"x", outbox=b"%08d" % number)
        me.hear("ACCEPTED")
    for number in (100, 2, 0):                       # the longest unused one is forgotten
        me.send(1, DIRECT, me.keys.name, b"again", outbox=b"%08d" % number)
        me.hear("ACCEPTED")
    assert [items for *_, items in delivered(me, after=101)] == [[b"again"]]


def test_settled_moves_the_hub_on_where_it_forgot(place):
    me = place.greet()
    me.send(8, DIRECT, me.keys.name, b"eight", settled=7)
    assert accepted(me) == (8, {})
    assert [items for *_, items in delivered(me)] == [[b"eight"]]


def test_a_refusal_is_told_until_it_is_settled(place):
    me = place.greet()
    me.send(1, DIRECT, "nobody", b"x")
    assert accepted(me) == (1, {1: "unknown-client"})
    me.send(2, DIRECT, me.keys.name, b"x")
    assert accepted(me) == (2, {1: "unknown-client"})
    me.send(1, DIRECT, "nobody", b"x")
    assert accepted(me) == (2, {1: "unknown-client"})
    me = place.greet(me.keys, outbox=me.outbox)
    assert accepted(me) == (2, {1: "unknown-client"})
    me.send(3, DIRECT, me.keys.name, b"x", settled=2)
    assert accepted(me) == (3, {})


def test_a_hello_is_told_what_was_decided_behind_its_settled(place):
    me = place.greet()
    for number in (1, 2):
        me.send(number, DIRECT, me.keys.name, b"x")
    me.pong()
    again = place.greet(me.keys, outbox=me.outbox, settled=1)
    assert accepted(again) == (2, {})
    again = place.greet(me.keys, outbox=me.outbox, settled=2)
    assert again.all() == []


#  way        address            messages  body                          code
REFUSED_BATCHES = [
    (DIRECT,    "nobody",          1,        batch(b"x"),                "unknown-client"),
    (DIRECT,    "operator",        1,        batch(b"x"),                "unknown-client"),
    (DIRECT,    "",                1,        batch(b"x"),                "unknown-client"),
    (DIRECT,    "not a name",      1,        batch(b"x"),                "unknown-client"),
    (TOPIC,     "closed.to.me",    1,        batch(b"x"),                "forbidden"),
    (TOPIC,     "with.*.wildcard", 1,        batch(b"x"),                "bad-topic"),
    (TOPIC,     "",                1,        batch(b"x"),                "bad-topic"),
    (TOPIC,     "with space",      1,        batch(b"x"),                "bad-topic"),
    (EVERYBODY, "",                1,        batch(b"x"),                "forbidden"),
    (TOPIC,     "open.to.me",      0,        batch(),                    "bad-batch"),
    (TOPIC,     "open.to.me",      4097,     batch(*[b""] * 4097),       "batch-too-large"),
    (TOPIC,     "open.to.me",      1,        batch(bytes(1_066_496)),    "batch-too-large"),
]


@pytest.mark.parametrize("way, address, messages, body, code", REFUSED_BATCHES,
                         ids=[f"{row[-1]} {row[0]} {row[1]} {row[2]}" for row in REFUSED_BATCHES])
def test_a_batch_that_may_not_go_is_refused_by_its_code(place, way, address, messages, body, code):
    me = place.greet(place.new({**NOBODY, "send": ["friend.*"], "publish": ["open.#"]}))
    me.say("SEND", me.outbox, 1, 0, way, address, messages, body=body)
    assert accepted(me) == (1, {1: code})


def test_the_largest_batches_go(place):
    me = place.greet()
    me.send(1, DIRECT, me.keys.name, *[b""] * 4096)
    me.send(2, DIRECT, me.keys.name, bytes(1_048_576))
    me.pong()
    assert accepted(me)[1] == {}
    assert [len(items) for *_, items in delivered(me)] == [4096, 1]


def test_a_full_inbox_refuses_what_is_sent_and_misses_what_is_published():
    for hub in running_hub("--inbox-bytes", "1000"):
        place = Place(hub)
        me, you = place.greet(), place.greet()
        you.ask("SUBSCRIBE", "plays")
        me.send(1, DIRECT, you.keys.name, bytes(900))
        me.send(2, DIRECT, you.keys.name, bytes(900))
        me.send(3, TOPIC, "plays", bytes(900))
        me.pong()
        assert accepted(me, 3) == (3, {2: "inbox-full"})
        assert [number for number, *_ in delivered(you)] == [1]
        assert place.operator.ask("SHOW", you.keys.name)["missed"] == 1
        you.say("ACK", 2, 0)
        you.pong()
        me.send(4, DIRECT, you.keys.name, bytes(900), settled=3)
        assert accepted(me) == (4, {})
        place.close()


def test_a_full_disk_refuses_what_is_sent():
    for hub in running_hub("--disk-reserve-bytes", str(1 << 60)):
        place = Place(hub)
        me = place.greet()
        me.send(1, DIRECT, me.keys.name, b"x")
        assert accepted(me) == (1, {1: "disk-full"})
        assert delivered(me) == []
        place.close()


# The inbox

def filled(place, *batches):
    """A peer with these batches in its inbox, and the sender."""
    me, you = place.greet(), place.greet()
    for number, items in enumerate(batches, 1):
        me.send(number, DIRECT, you.keys.name, *items)
    me.pong()
    return you, me


def test_an_inbox_is_delivered_until_it_is_acknowledged(place):
    you, me = filled(place, [b"1a", b"1b", b"1c"], [b"2"], [b"3"])
    assert delivered(you) == [(1, 0, 0, [b"1a", b"1b", b"1c"]), (2, 1, 0, [b"2"]), (3, 2, 0, [b"3"])]
    you.say("ACK", 1, 2)
    you.pong()
    you.close()
    you = place.greet(you.keys)                    # a new process: it has nothing
    assert delivered(you) == [(1, 0, 2, [b"1a", b"1b", b"1c"]), (2, 1, 0, [b"2"]), (3, 2, 0, [b"3"])]
    you.say("ACK", 2, 0)
    you.pong()
    you = place.greet(you.keys, session=you.session)
    assert delivered(you) == [(2, 0, 0, [b"2"]), (3, 2, 0, [b"3"])]
    you = place.greet(you.keys, session=you.session)
    assert delivered(you, after=2) == [(3, 2, 0, [b"3"])]          # the same session: it has 2 already
    me.send(4, DIRECT, you.keys.name, b"4")
    assert you.hear("DELIVER").fields[:3] == [4, 3, 0]
    you.say("ACK", 5, 0)
    you.pong()
    you = place.greet(you.keys)
    assert delivered(you) == []


def test_an_ack_that_moves_backwards_or_past_the_end_is_ignored(place):
    you, _ = filled(place, [b"1"], [b"2", b"2b"], [b"3"])
    for number, skip in ((2, 1), (2, 0), (1, 0), (5, 0), (4, 1), (2**63 - 1, 0), (2, 4097), (2, 1)):
        you.say("ACK", number, skip)
    assert delivered(you) == [(2, 0, 1, [b"2", b"2b"]), (3, 2, 0, [b"3"])]
    other = place.greet(you.keys)
    other.say("ACK", 3, 0)                          # from any connection of the client
    other.pong()
    assert delivered(you) == [(3, 0, 0, [b"3"])]


def test_a_receive_starts_over_from_its_own_after(place):
    you, _ = filled(place, [b"1"], [b"2"], [b"3"])
    assert [row[:2] for row in delivered(you)] == [(1, 0), (2, 1), (3, 2)]
    assert [row[:2] for row in delivered(you, after=1)] == [(2, 1), (3, 2)]
    assert [row[:2] for row in delivered(you)] == [(1, 0), (2, 1), (3, 2)]


def test_no_more_is_delivered_than_credit_allows(place):
    you, _ = filled(place, *([bytes(10_000)] for _ in range(10)))
    assert [row[0] for row in delivered(you, credit=0)] == []
    you.say("CREDIT", 1, WINDOW, 0)
    first = you.hear("DELIVER")
    size = len(first[3]) + len(first.body)
    assert (first[0], you.all()) == (1, [])
    you.say("CREDIT", size, WINDOW, 0)
    assert you.all() == []
    you.say("CREDIT", size + 1, WINDOW, 0)
    assert [said[0] for said in you.all()] == [2]
    you.say("CREDIT", 0, WINDOW, 0)                 # never taken back
    you.say("CREDIT", 4 * size, WINDOW, 0)
    assert [said[0] for said in you.all()] == [3, 4]
    you.say("CREDIT", WINDOW, WINDOW, 0)
    assert [said[0] for said in you.all()] == [5, 6, 7, 8, 9, 10]
    assert [row[0] for row in delivered(you, after=4, credit=2 * size)] == [5, 6]      # a new RECEIVE, a new total


def test_credit_also_bounds_what_comes_while_it_is_received(place):
    you, me = filled(place, [b"1"])
    assert [row[0] for row in delivered(you, credit=1)] == [1]
    me.send(2, DIRECT, you.keys.name, b"2")
    me.pong()
    assert you.all() == []
    you.say("CREDIT", WINDOW, WINDOW, 0)
    assert [said.fields[:2] for said in you.all()] == [[2, 1]]


def test_no_more_credit_is_believed_than_sixteen_mebibytes(place):
    you, _ = filled(place, *([bytes(1_000_000)] for _ in range(18)))
    you.say("RECEIVE", 0, 2**62)
    assert [you.hear("DELIVER")[0] for _ in range(17)] == list(range(1, 18))       # the 17th goes over it
    assert you.all() == []
    you.say("CREDIT", 2**62, WINDOW, 0)
    assert you.hear("DELIVER")[0] == 18


def test_an_inbox_goes_to_the_connection_that_last_received(place):
    you, me = filled(place, [b"1"])
    assert [row[0] for row in delivered(you)] == [1]
    other = place.greet(you.keys)
    assert [row[0] for row in delivered(other)] == [1]
    assert you.hear().word == "TAKEN"
    me.send(2, DIRECT, you.keys.name, b"2")
    assert other.hear("DELIVER")[0] == 2
    other.say("RELEASE")
    other.pong()
    me.send(3, DIRECT, you.keys.name, b"3")
    me.pong()
    assert other.all() == you.all() == []
    assert [row[0] for row in delivered(you)] == [1, 2, 3]


def test_pong_tells_how_far_an_inbox_is_delivered(place):
    you, me = filled(place, [b"1"], [b"2"])
    assert you.pong()[1] == 0
    delivered(you)
    assert you.pong()[1] == 3
    other = place.greet(you.keys)
    delivered(other, after=2)
    assert (you.pong()[1], other.pong()[1]) == (0, 3)
    other.say("RELEASE")
    assert other.pong()[1] == 0


# Subscriptions

def test_a_subscription_lasts_until_it_is_ended(place):
    me, you = place.greet(), place.greet()
    assert you.ask("SUBSCRIBE", "plays.#.#") == {}
    assert you.ask("SUBSCRIBE", "plays.#") == {}
    assert you.ask("SUBSCRIBE", "and.*.this") == {}
    assert you.ask("SUBSCRIPTIONS", "") == {"patterns": ["and.*.this", "plays.#"], "more": False}
    assert you.ask("SUBSCRIPTIONS", "and.*.this") == {"patterns": ["plays.#"], "more": False}
    you.close()
    me.send(1, TOPIC, "plays", b"while away")
    me.pong()
    you = place.greet(you.keys)
    assert you.ask("UNSUBSCRIBE", "plays.#") == {}
    assert you.ask("UNSUBSCRIBE", "plays.#") == "not-subscribed"
    me.send(2, TOPIC, "plays", b"no longer wanted")
    me.pong()
    assert [items for *_, items in delivered(you)] == [[b"while away"]]


def test_patterns_are_granted_and_well_formed_or_refused(place):
    you = place.greet(place.new({**NOBODY, "subscribe": ["open.#"]}))
    for word in ("SUBSCRIBE", "LISTEN"):
        assert you.ask(word, "open.*.#") == {}
        for pattern in ("#", "*", "open", "closed", "closed.open"):
            assert you.ask(word, pattern) == ({} if pattern == "open" else "forbidden")
        for pattern in ("a..b", "a b", "a*", ".") + (("",) if word == "SUBSCRIBE" else ()):
            assert you.ask(word, pattern) == "bad-pattern"
    assert you.ask("UNSUBSCRIBE", "a*") == you.ask("UNLISTEN", "a*") == "bad-pattern"
    assert you.ask("UNLISTEN", "never.listened") == {}


@pytest.mark.parametrize("word", ["SUBSCRIBE", "LISTEN"])
def test_there_may_be_a_thousand_patterns_and_no_more(place, word):
    you = place.greet()
    for first in range(0, 1000, 250):               # so many requests may be open at once
        for number in range(first, first + 250):
            you.say(word, number + 1, f"p{number:04}")
        assert {str(you.hear("DONE", "DENIED")[1]) for _ in range(250)} == {"{}"}
    assert you.ask(word, "one more") == "bad-pattern"
    assert you.ask(word, "one-more") == "too-many"
    if word == "SUBSCRIBE":
        patterns, more = [], True
        while more:
            answer = you.ask("SUBSCRIPTIONS", patterns[-1] if patterns else "")
            assert len(answer["patterns"]) == 100
            patterns += answer["patterns"]
            more = answer["more"]
        assert len(patterns) == 1000


# Live

def test_a_public_topic_is_live_on_the_sub_side(place):
    me, you = place.greet(), place.greet()
    ear = place.listen(you.keys, b"t.plays.")
    assert you.ask("LISTEN", "plays.#") == {}
    me.send(1, TOPIC, "plays.one", b"x", b"y")
    me.send(2, TOPIC, "playsome", b"not wanted")
    me.send(3, TOPIC, "plays.one", b"z")
    key, first = ear.live()
    assert (key, first[1], first.items, first.envelope[0]) == (b"t.plays.one.", 0, [b"x", b"y"], me.keys.name)
    key, second = ear.live()
    assert (key, second[0], second[1], second.items) == (b"t.plays.one.", first[0], 2, [b"z"])
    assert not [said for said in you.all() if said.word == "LIVE"]


def test_before_counts_what_a_listener_did_not_hear(place):
    me, you = place.greet(), place.greet()
    ear = place.listen(you.keys, b"t.")
    me.send(1, TOPIC, "plays.gaps", b"1", b"2")
    me.pong()
    you.ask("LISTEN", "plays.gaps")
    me.send(2, TOPIC, "plays.gaps", b"3")
    assert ear.live()[1].fields[1] == 2
    you.ask("UNLISTEN", "plays.gaps")
    me.send(3, TOPIC, "plays.gaps", b"4")
    me.pong()
    you.ask("LISTEN", "plays.gaps")
    me.send(4, TOPIC, "plays.gaps", b"5")
    assert ear.live()[1].fields[1] == 4            # 3 expected: one message was missed


def test_a_topic_not_everybody_may_read_is_live_on_the_dealer_side(place):
    me, you, other = place.greet(), place.greet(), place.greet(place.new(NOBODY))
    ear = place.listen(other.keys, b"t.")
    you.ask("LISTEN", "plays.#")
    me.ask("LISTEN", "#")
    assert other.ask("LISTEN", "plays.secret") == "forbidden"
    me.send(1, TOPIC, "plays.secret", b"x")
    for peer in (you, me):
        live = peer.hear("LIVE")
        assert (live[1], live.items, live.envelope[3]) == (0, [b"x"], "plays.secret")
    ear.add(b"t.another.")                         # an echo comes behind all that was published
    assert other.all() == []


def test_live_messages_beyond_credit_are_missed_and_the_numbers_tell(place):
    me, you = place.greet(), place.greet()
    place.new(NOBODY)
    you.ask("LISTEN", "plays.#")
    for number in range(1, 8):
        me.send(number, TOPIC, "plays.fast", bytes(1_000_000))
        me.pong()
    heard = [said for said in you.all() if said.word == "LIVE"]
    assert [said[1] for said in heard] == [0, 1, 2, 3, 4]           # the last one goes over the 4 MiB
    you.say("CREDIT", 0, 2 * WINDOW, 2)
    you.pong()
    me.send(8, TOPIC, "plays.fast", b"x")
    assert you.hear("LIVE")[1] == 7
    assert place.operator.ask("STATUS")["live_missed"] >= 2


def test_broadcasts_are_live_for_who_listens_to_them(place):
    me, you = place.greet(), place.greet(place.new(NOBODY))
    ear = place.listen(you.keys, b"b.")
    assert you.ask("LISTEN", "") == {}
    me.send(1, EVERYBODY, "", b"x")
    key, first = ear.live()
    assert (key, first.items, first.envelope[2:4]) == (b"b.", [b"x"], [3, ""])
    me.send(2, EVERYBODY, "", b"y", b"z")
    second = ear.live()[1]
    assert (second[0], second[1]) == (first[0], first[1] + 1)
    assert you.ask("UNLISTEN", "") == {}
    me.send(3, EVERYBODY, "", b"unheard")
    me.pong()
    ear.add(b"t.x.")


def test_a_listen_ends_with_its_grant(place):
    you = place.greet()
    you.ask("LISTEN", "plays.#")
    you.ask("LISTEN", "still.mine")
    place.operator.ask("GRANT", you.keys.name, {**NOBODY, "subscribe": ["still.#"]})
    said = you.hear("DENIED")
    assert said.fields[:2] == [0, "forbidden"] and "plays.#" in said[2]
    assert you.all() == []


@pytest.mark.parametrize("wanted", [b"", b"x", b"t", b"e.", b"e.short", b"T.plays.", b"t." + b"x" * 258],
                         ids=lambda w: w[:9].decode() or "empty")
def test_a_foreign_filter_ends_the_live_connection(place, wanted):
    ear = place.listen(place.keys, b"t.", b"t." + b"x" * 257)
    ear.sub.setsockopt(zmq.SUBSCRIBE, wanted)
    assert ear.is_gone()


def test_there_may_be_a_thousand_filters_and_no_more(place):
    ear = place.listen(place.keys, *(b"t.%d." % number for number in range(1000)))
    ear.sub.setsockopt(zmq.SUBSCRIBE, b"t.more.")
    assert ear.is_gone()


def test_an_echo_gives_no_room_for_more_filters(place):
    ear = place.listen(place.keys)
    for _ in range(30):
        ear.add()
        ear.sub.setsockopt(zmq.UNSUBSCRIBE, ear.echo)
    for number in range(1001):
        ear.sub.setsockopt(zmq.SUBSCRIBE, b"t.%d." % number)
    assert ear.is_gone(within_s=2)


# Administration

def test_an_operators_requests_are_for_operators(place):
    you = place.greet()
    for word, *fields in (("INVITE", "x", ALL, 60), ("REGISTER", "x", ALL), ("CLIENTS", ""), ("SHOW", "x"),
                          ("REVOKE", "x"), ("ROTATE", "x", False), ("GRANT", "x", ALL), ("STATUS",)):
        assert you.ask(word, *fields) == "forbidden"


def test_an_operators_answers_have_the_documents_keys(place):
    ask = place.operator.ask
    you = place.greet()
    name, guest = you.keys.name, "guest-of-the-keys"
    you.ask("SUBSCRIBE", "plays")
    you.send(1, DIRECT, name, b"x", b"y")
    you.pong()
    invited = ask("INVITE", guest, NOBODY, 0)
    assert set(invited) == {"secret_key", "expires_ms", "address"} and len(invited["secret_key"]) == 32
    row = {"name": name, "state": "connected", "waiting": 2, "bytes": ask("SHOW", name)["bytes"]}
    rows = ask("CLIENTS", "")
    assert row in rows["clients"] and rows["more"] is False
    shown = ask("SHOW", name)
    assert shown.items() >= row.items() and shown["created_ms"] > 1_700_000_000_000
    assert {k: v for k, v in shown.items() if k not in row and k != "created_ms"} == {
        "grants": ALL, "missed": 0, "keys": [{"public_key": you.keys.public_bytes, "pending": False}],
        "connections": 1, "subscriptions": 1, "patterns": ["plays"]}
    invitation = {"name": guest, "state": "invited", "expires_ms": invited["expires_ms"]}
    shown = ask("SHOW", guest)
    if shown != "no-such-client":                   # its second may be over
        assert shown == invitation | {"grants": NOBODY}
    assert ask("REVOKE", name) == {"purged": 2}
    assert set(issued(place.keys, ask("REGISTER", name, NOBODY)).__dict__) and ask("GRANT", name, ALL) == {}
    status = ask("STATUS")
    assert {"hub", "clients", "invitations", "connections", "subscriptions", "waiting_messages", "waiting_bytes",
            "room_on_disk"} < set(status)
    assert all(type(status[k]) is int for k in status if k not in ("hub", "room_on_disk"))


def test_an_operators_mistakes_have_their_codes(place):
    you = place.new()
    ask = place.operator.ask
    for word in ("INVITE", "REGISTER"):
        more = (60,) if word == "INVITE" else ()
        assert ask(word, you.name, ALL, *more) == "name-taken"
        for name in ("", "a b", "a..b", "a*", "é"):
            assert ask(word, name, ALL, *more) == "bad-name"
        for grants in ({}, {**ALL, "more": []}, {**ALL, "send": "#"}, {**ALL, "send": ["a..b"]},
                       {**ALL, "publish": [f"p{n}" for n in range(101)]}, {**ALL, "admin": 1}):
            assert ask(word, "fresh", grants, *more) == "bad-grants"
    for word, *more in (("SHOW",), ("REVOKE",), ("ROTATE", False), ("GRANT", ALL)):
        assert ask(word, "nobody", *more) == "no-such-client"
    assert ask("GRANT", you.name, {}) == "bad-grants"
    assert ask("REVOKE", "operator") == ask("GRANT", "operator", ALL) == "forbidden"


def test_a_rotated_key_ends_the_old_one_when_it_is_used(place):
    old = place.greet()
    void = issued(place.keys, place.operator.ask("ROTATE", old.keys.name, False))
    new = issued(place.keys, place.operator.ask("ROTATE", old.keys.name, False))
    assert place.open(void).happened("auth", "succeeded") == "auth"
    assert old.pong()
    assert place.greet(new).welcome[0] == old.keys.name
    assert old.is_gone()
    assert place.open(old.keys).happened("auth", "succeeded") == "auth"
    last = issued(place.keys, place.operator.ask("ROTATE", old.keys.name, True))
    assert place.open(new).happened("auth", "succeeded") == "auth"
    assert place.greet(last).welcome[0] == old.keys.name


def test_a_revoked_client_is_gone_from_both_sides(place):
    you = place.greet()
    ear = place.listen(you.keys, b"t.")
    name = you.keys.name
    assert place.operator.ask("REVOKE", name) == {"purged": 0}
    assert you.is_gone(within_s=2) and ear.is_gone(within_s=2)
    assert place.open(you.keys).happened("auth", "succeeded") == "auth"
    assert place.operator.ask("REVOKE", name) == "no-such-client"
    assert place.greet(issued(place.keys, place.operator.ask("REGISTER", name, ALL))).welcome[0] == name


def test_a_revoked_invitation_is_gone(place):
    invited = place.invite()
    guest = place.open(invited)
    assert guest.ask("JOIN", place.keys.public_bytes) == "key-known"
    place.operator.ask("REVOKE", invited.name)
    place.names.remove(invited.name)
    assert guest.is_gone(within_s=2)


# A hub's end

def test_what_was_accepted_outlives_the_hub(own_place):
    place, hub = own_place, own_place.hub
    me, you = place.greet(), place.greet()
    you.ask("SUBSCRIBE", "plays")
    ear = place.listen(you.keys, b"t.")
    you.ask("LISTEN", "plays")
    me.send(1, DIRECT, you.keys.name, b"before")
    me.send(2, DIRECT, "nobody", b"refused")
    me.send(3, TOPIC, "plays", b"published")
    while accepted(me)[0] < 3:
        pass
    stream = ear.live()[1][0]
    hub.kill()
    assert me.is_gone()
    hub.start()
    me = place.greet(me.keys, session=me.session, outbox=me.outbox)
    assert accepted(me) == (3, {2: "unknown-client"})
    me.send(1, DIRECT, you.keys.name, b"before")
    me.send(2, DIRECT, "nobody", b"refused")
    me.send(3, TOPIC, "plays", b"published")
    assert accepted(me) == (3, {2: "unknown-client"})
    store = you.welcome[2]
    you = place.greet(you.keys, session=you.session)
    assert you.welcome[2] == store
    assert [items for *_, items in delivered(you)] == [[b"before"], [b"published"]]
    ear = Ear(you.keys, you.welcome[3])
    ear.add(b"t.")
    you.ask("LISTEN", "plays")
    me.send(4, TOPIC, "plays", b"after")
    live = ear.live()[1]
    assert live[0] != stream and live[1] == 0


def test_no_number_that_a_client_says_ends_the_hub(own_place):
    most = 2**63 - 1
    me, you = own_place.greet(), own_place.greet()
    me.send(1, DIRECT, me.keys.name, b"x")
    me.send(2, DIRECT, you.keys.name, b"x")
    me.pong()
    for peer in (me, you):
        peer.say("ACK", 1, most)
        peer.say("CREDIT", most, most, most)
        peer.say("RECEIVE", most, most)
        for number in (11, 12, 13):
            peer.say("SEND", peer.outbox, number, 10, DIRECT, "nobody", most, body=b"")
        peer.say("SEND", peer.outbox, most, most - 1, DIRECT, "nobody", most, body=b"")
        peer.all()
    own_place.operator.say("STATUS", 1)
    assert own_place.operator.dealer.poll(2000)
    assert own_place.operator.hear("DONE")[1]["waiting_messages"] >= 0
