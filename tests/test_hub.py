"""The hub, as conversations: who may say what, what is remembered first, and what is said then."""

import pytest
from plays import BOX, FIRST_STREAM, HubPlay, key_of, refusals

from zbackbone import facts as f
from zbackbone import protocol as p
from zbackbone.auth.policy import EVERYTHING, NOTHING, OPERATOR, Grants, parse_grants, to_wire
from zbackbone.router import admin
from zbackbone.router.hub import HANDLERS, Settings

ALL = to_wire(EVERYTHING)
MINUTE, DAY = 60, 86_400


def grants(send=(), publish=(), subscribe=()):
    return parse_grants(list(send), list(publish), list(subscribe), False)


def accepted(number, *refused, outbox=BOX):
    return p.Accepted(outbox, number, [[n, code, p.REFUSALS[code]] for n, code in refused])


def kinds(facts):
    return [type(fact) for fact in facts]


def result(answers):
    [answer] = answers
    assert type(answer) is p.Done, answer
    return answer.result


# Sessions

def test_hello_is_answered_with_who_and_where_one_is():
    play = HubPlay("ann")
    line = play.plug(key_of("ann"))
    [welcome] = line.asks(p.Hello(1, b"session1", BOX, 0, 20))
    assert welcome[:6] == ("ann", "9.9", b"thestore", "tcp://*:5571", "hub.example:5570", play.now_ms)
    assert welcome.limits["body_bytes"] == p.BODY_BYTES_MAX
    assert welcome.limits["window_bytes"] == p.WINDOW_BYTES
    assert p.decode(p.encode(welcome)) == welcome


@pytest.mark.parametrize("version", [0, 2, 1 << 62])
def test_another_version_of_the_protocol_is_refused_in_words(version):
    play = HubPlay("ann")
    line = play.plug(key_of("ann"))
    assert line.asks(p.Hello(version, b"session1", BOX, 0, 20)) == [p.Denied(0, "version", p.REFUSALS["version"])]
    assert refusals(line.asks(p.Ping(1))) == ["hello-first"]


EVERY_COMMAND = [
    p.Send(BOX, 1, 0, p.SEND, "ann", 1), p.Receive(0, 1000), p.Credit(1, 1, 0), p.Ack(1, 1), p.Release(),
    p.Subscribe(7, "a"), p.Unsubscribe(7, "a"), p.Subscriptions(7, ""), p.Listen(7, "a"), p.Unlisten(7, "a"),
    p.Ping(7), p.Bye(BOX, 0), p.Invite(7, "new", ALL, 60), p.Register(7, "new", ALL), p.Clients(7, ""),
    p.Show(7, "ann"), p.Revoke(7, "ann"), p.Rotate(7, "ann", True), p.Grant(7, "ann", ALL), p.Status(7),
]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda c: type(c).__name__)
def test_nothing_is_heard_before_hello(command):
    play = HubPlay("ann")
    assert refusals(play.plug(key_of("op")).asks(command)) == ["hello-first"]
    assert play.facts == []


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda c: type(c).__name__)
def test_a_key_that_the_hub_does_not_know_is_told_nothing_and_cut(command):
    """One revoked after its handshake, or of an invitation that was used."""
    play = HubPlay("ann")
    line = play.plug("ab" * 32)
    assert line.asks(command) == []
    assert not line.is_open
    assert play.facts == []
    assert play.hub.count["unknown_key"] == 1


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda c: type(c).__name__)
def test_a_command_that_only_an_operator_may_use_is_refused_to_others(command):
    play = HubPlay("ann")
    is_admin = type(command) in admin.COMMANDS
    answers = play.connect("ann").asks(command)
    if is_admin:
        assert answers == [p.Denied(7, "forbidden", p.REFUSALS["forbidden"])]
        assert play.facts == []
    else:
        assert "forbidden" not in refusals(answers)


@pytest.mark.parametrize("command", [
    p.Welcome("a", "1", b"12345678", "", "", 0, {}), p.Accepted(BOX, 1, []), p.Deliver(1, 0, 0, b""), p.Taken(),
    p.Done(1, {}), p.Hello(1, b"session1", BOX, 0, 20)], ids=lambda c: type(c).__name__)
def test_what_makes_no_sense_from_a_client_is_answered_and_changes_nothing(command):
    play = HubPlay("ann")
    assert play.connect("ann").asks(command) == [p.Denied(0, "garbled", p.REFUSALS["garbled"])]
    assert play.facts == []


def test_garbled_frames_are_counted_and_answered_to_those_we_know():
    play = HubPlay("ann")
    known, stranger = play.connect("ann"), play.plug("cd" * 32)
    play.hub.garbled(known.route, known.key)
    play.hub.garbled(stranger.route, stranger.key)
    play.turn()
    assert known.answers() == [p.Denied(0, "garbled", p.REFUSALS["garbled"])]
    assert stranger.answers() == []
    assert play.hub.count["garbled"] == 2
    known.asks(p.Subscribe(1, "a..b"))
    assert play.hub.count["denied"] == 1


def test_a_routing_id_proves_nothing():
    """Another key on a connection's routing id is another connection: it has to greet first."""
    play = HubPlay("ann", "bob", "eve")
    ann = play.connect("ann")
    eve = play.plug(key_of("eve"))
    eve.route = ann.route
    eve.say(p.Send(BOX, 1, 0, p.SEND, "bob", 1), b"as ann")
    play.turn()
    assert refusals(ann.answers()) == ["hello-first"]
    assert play.inbox_of("bob").messages == 0


def test_a_greeting_on_a_routing_id_ends_whatever_was_on_it_before():
    play = HubPlay("ann", "bob")
    ann = play.receives("ann")
    ann.asks(p.Listen(1, "t"))
    ann.key = key_of("bob")                       # libzmq gave the id to another connection
    assert ann.asks(p.Hello(1, b"session1", BOX, 0, 20))[0].name == "bob"
    assert play.inbox_of("ann").peer is None
    assert play.hub.audience.of("t") == ((), False, ())
    rows = result(play.connect("op").asks(p.Clients(1, "")))["clients"]
    assert [(row["name"], row["state"]) for row in rows] == [("ann", "away"), ("bob", "connected"),
                                                             ("op", "connected")]


def test_the_sender_s_name_and_the_time_are_the_hub_s_word():
    play = HubPlay("ann", "bob")
    bob = play.receives("bob")
    play.connect("ann").puts(1, "bob", b"hello", messages=3)
    play.turn()
    [(deliver, body)] = bob.heard
    assert body == b"hello"
    assert p.unpack_envelope(deliver.envelope) == p.Envelope("ann", play.now_ms, p.SEND, "bob", BOX, 1, 3)


def test_the_same_session_over_a_newer_connection_ends_the_older_one():
    play = HubPlay("ann")
    old = play.receives("ann", session=b"session1")
    other = play.connect("ann", session=b"session2")
    new = play.connect("ann", session=b"session1")
    assert (old.is_open, other.is_open, new.is_open) == (False, True, True)
    again = play.plug(key_of("ann"))
    again.say(p.Hello(1, b"session1", BOX, 0, 20))
    assert len(play.hub.peers) == 2                 # at once, whatever becomes of the connection
    assert play.inbox_of("ann").peer is None
    assert old.answers() == []


def test_another_client_s_session_of_the_same_name_is_left_alone():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann", session=b"session1")
    play.connect("bob", session=b"session1")
    assert ann.is_open


def test_a_client_has_so_many_connections_and_no_more(monkeypatch):
    monkeypatch.setattr(p, "PEERS_MAX", 3)
    play = HubPlay("ann", "bob")
    lines = [play.connect("ann") for _ in range(3)]
    late = play.plug(key_of("ann"))
    assert late.asks(p.Hello(1, b"session9", BOX, 0, 20)) == [p.Denied(0, "too-many", p.REFUSALS["too-many"])]
    assert refusals(late.asks(p.Ping(1))) == ["hello-first"]
    play.connect("bob")
    play.unplug(lines[0])
    play.connect("ann")


#   keepalive_s    silent for    dropped?
SILENCES = [
    (20,           60,           False),
    (20,           61,           True),
    (0,            3,            False),
    (0,            4,            True),
    (3600,         10800,        False),
    (3600,         10801,        True),
    (1 << 62,      10801,        True),
]


@pytest.mark.parametrize(("keepalive_s", "silent_s", "dropped"), SILENCES)
def test_a_peer_is_dropped_after_three_times_its_keepalive_in_silence(keepalive_s, silent_s, dropped):
    play = HubPlay("ann")
    ann = play.receives("ann", keepalive_s=keepalive_s)
    play.hub.tick(play.now_ms, play.now_s + silent_s)
    assert bool(play.hub.peers) is not dropped
    play.turn()
    assert ann.is_open is not dropped
    assert play.hub.count["silent_peers"] == dropped
    assert (play.inbox_of("ann").peer is None) is dropped


def test_whatever_a_peer_says_breaks_its_silence():
    play = HubPlay("ann")
    ann = play.connect("ann", keepalive_s=10)
    for _ in range(5):
        play.later(29)
        ann.asks(p.Release())
    assert ann.is_open


def test_a_ping_is_answered_behind_what_was_said_before_it():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.puts(1)
    ann.say(p.Subscribe(1, "a"))
    assert ann.asks(p.Ping(2)) == [p.Done(1, {}), p.Pong(2, 0, play.now_ms), accepted(1)]
    assert {f.Stored, f.Subscribed} <= set(kinds(play.facts))


def test_a_ping_tells_a_receiver_what_it_must_have_by_now():
    play = HubPlay("ann", "bob")
    bob = play.receives("bob", after=0)
    assert bob.asks(p.Ping(1)) == [p.Pong(1, 1, play.now_ms)]
    ann = play.connect("ann")
    ann.sends(1)
    ann.sends(2)
    assert bob.asks(p.Ping(2)) == [p.Pong(2, 3, play.now_ms)]
    elsewhere = play.connect("bob")
    assert elsewhere.asks(p.Ping(3)) == [p.Pong(3, 0, play.now_ms)]


def test_bye_ends_the_session_and_forgets_an_outbox_that_is_settled():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1)
    assert ann.asks(p.Bye(BOX, 1)) == []
    assert play.facts == [f.OutboxForgotten(play.id_of("ann"), BOX)]
    assert refusals(ann.asks(p.Ping(1))) == ["hello-first"]


def test_bye_keeps_an_outbox_that_has_not_heard_all():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1)
    ann.sends(2, settled=1)
    ann.asks(p.Bye(BOX, 1))
    assert play.facts == []
    play.connect("ann", settled=1).sends(2, settled=1)
    assert play.inbox_of("bob").messages == 2


# What must be on disk before anything is said of it

#   said                                              remembered first
DURABLE = [
    (p.Send(BOX, 1, 0, p.SEND, "bob", 1),              [f.Stored, f.Moved]),
    (p.Send(BOX, 1, 0, p.PUBLISH, "t", 1),             [f.Stored, f.Moved]),
    (p.Send(BOX, 1, 0, p.BROADCAST, "", 1),            [f.Stored, f.Moved]),
    (p.Send(BOX, 1, 0, p.SEND, "nobody", 1),           [f.Moved]),
    (p.Send(BOX, 1, 0, p.PUBLISH, "not a topic", 1),   [f.Moved]),
    (p.Subscribe(1, "new.#"),                          [f.Subscribed]),
    (p.Unsubscribe(1, "mine"),                         [f.Unsubscribed]),
    (p.Ack(2, 0),                                      [f.Acked]),
    (p.Ack(1, 1),                                      [f.Acked]),
    (p.Bye(b"anything", 0),                            []),
    (p.Invite(1, "new", ALL, 60),                      [f.Invited]),
    (p.Register(1, "new", ALL),                        [f.Registered]),
    (p.Grant(1, "bob", ALL),                           [f.Granted]),
    (p.Rotate(1, "bob", False),                        [f.KeyAdded]),
    (p.Rotate(1, "bob", True),                         [f.KeyAdded, f.KeyDropped, f.KeyUsed]),
    (p.Revoke(1, "bob"),                               [f.KeyDropped, f.Revoked]),
    (p.Revoke(1, "guest"),                             [f.InvitationEnded]),
    (p.Show(1, "bob"),                                 []),
    (p.Status(1),                                      []),
    (p.Clients(1, ""),                                 []),
    (p.Ping(1),                                        []),
    (p.Listen(1, "a"),                                 []),
    (p.Receive(0, 1000),                               []),
]


@pytest.mark.parametrize(("said", "remembered"), DURABLE, ids=lambda x: type(x).__name__)
def test_what_an_answer_promises_is_among_the_facts_to_commit(said, remembered):
    play = HubPlay("bob")
    bob, op = play.connect("bob"), play.connect("op")
    bob.asks(p.Subscribe(1, "t"))
    op.asks(p.Subscribe(1, "mine"))
    op.asks(p.Invite(2, "guest", ALL, 60))
    op.sends(1, "op", body=b"two", messages=2, outbox=b"outbox-9")
    op.say(said, b"body")
    play.turn()
    assert kinds(play.facts) == remembered


def test_what_was_decided_in_a_turn_is_remembered_in_its_order():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.puts(1)
    bob.say(p.Subscribe(1, "a"))
    ann.puts(2, way=p.PUBLISH, to="a")
    bob.say(p.Unsubscribe(2, "a"))
    ann.puts(3, way=p.PUBLISH, to="a")
    ann.puts(4)
    play.turn()
    assert [k for k in kinds(play.facts) if k is not f.Moved] == [
        f.Stored, f.Subscribed, f.Stored, f.Unsubscribed, f.Stored]
    assert play.facts[-1][:3] == (play.id_of("ann"), BOX, 4)
    assert play.hub.take_facts(lazy_too=True) == []


def test_a_hub_that_was_killed_is_the_same_again():
    play = HubPlay("ann", "bob", "cyd")
    ann, bob, op = play.connect("ann"), play.connect("bob"), play.connect("op")
    ann.sends(1, body=b"one", messages=2)
    ann.sends(2, "nobody")
    bob.asks(p.Subscribe(1, "a.#"))
    ann.sends(3, "a.b", way=p.PUBLISH, body=b"three")
    ann.sends(4, "", way=p.BROADCAST, body=b"four")
    bob.asks(p.Ack(1, 1))
    op.asks(p.Invite(1, "guest", ALL, 60))
    op.asks(p.Rotate(2, "cyd", False))
    op.asks(p.Grant(3, "cyd", to_wire(NOTHING)))
    op.asks(p.Register(4, "dan", ALL))
    op.asks(p.Revoke(5, "dan"))
    for line in (ann, bob):
        play.unplug(line)
    before = [op.asks(p.Show(9, name)) for name in ("ann", "bob", "cyd", "guest")]
    play.restart()
    op = play.connect("op")
    assert [op.asks(p.Show(9, name)) for name in ("ann", "bob", "cyd", "guest")] == before
    ann = play.plug(key_of("ann"))
    assert ann.asks(p.Hello(1, b"session1", BOX, 1, 20))[1:] == [accepted(4, (2, "unknown-client"))]
    assert refusals(op.asks(p.Register(5, "dan", ALL))) == []
    assert play.id_of("dan") == 6
    bob = play.receives("bob")
    play.turns()
    assert bob.delivered() == [(1, b"one"), (2, b"three"), (3, b"four")]


# Numbers

def test_a_batch_sent_twice_is_stored_once_and_answered_alike():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    assert ann.sends(1) == [accepted(1)]
    assert ann.sends(1) == [accepted(1)]
    assert play.facts == []
    ann.puts(2, settled=1)
    ann.puts(2, settled=1)
    play.turn()
    assert ann.answers() == [accepted(2)]
    assert play.inbox_of("bob").messages == 2
    assert play.hub.count["doubles"] == 2
    assert play.hub.count["accepted_messages"] == 2


def test_a_double_is_known_after_a_restart_and_over_another_connection():
    play = HubPlay("ann", "bob")
    play.connect("ann").puts(1)
    play.turn()
    assert play.connect("ann").sends(1) == [accepted(1), accepted(1)]     # to Hello, and to the batch
    play.restart()
    assert play.connect("ann", settled=0).sends(1) == [accepted(1), accepted(1)]
    assert play.inbox_of("bob").messages == 1


def test_a_double_of_what_was_refused_is_refused_again_even_if_it_would_be_taken_now():
    play = HubPlay("ann", "bob")
    ann, op = play.connect("ann"), play.connect("op")
    assert ann.sends(1, "cyd") == [accepted(1, (1, "unknown-client"))]
    op.asks(p.Register(1, "cyd", ALL))
    for _ in range(2):
        assert ann.sends(1, "cyd")[-1] == accepted(1, (1, "unknown-client"))
        assert play.inbox_of("cyd").messages == 0
        play.restart()
        ann = play.connect("ann")
        assert ann.answers() == [accepted(1, (1, "unknown-client"))]


def test_refusals_are_repeated_until_the_sender_knows_them():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    assert ann.sends(1, "x") == [accepted(1, (1, "unknown-client"))]
    assert ann.sends(2) == [accepted(2, (1, "unknown-client"))]
    assert ann.sends(3, "not a topic", way=p.PUBLISH) == [accepted(3, (1, "unknown-client"), (3, "bad-topic"))]
    assert ann.sends(4, settled=1) == [accepted(4, (3, "bad-topic"))]
    play.restart()
    ann = play.connect("ann", settled=1)
    assert ann.answers() == [accepted(4, (3, "bad-topic"))]
    assert ann.sends(5, settled=4) == [accepted(5)]


def test_hello_is_told_what_was_settled_while_it_was_away():
    play = HubPlay("ann", "bob")
    play.connect("ann").sends(1)
    assert play.connect("ann", settled=0).answers() == [accepted(1)]
    assert play.connect("ann", settled=1).answers() == []
    assert play.connect("ann", outbox=b"another-").answers() == []


def test_a_gap_is_asked_for_once():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1)
    ann.puts(3)
    ann.puts(4)
    play.turn()
    assert ann.answers() == [p.Resend(BOX, 2)]
    assert ann.sends(5) == []
    assert play.inbox_of("bob").messages == 1
    ann.puts(2)
    ann.puts(3)
    play.turn()
    assert ann.answers() == [accepted(3)]
    assert ann.sends(5) == [p.Resend(BOX, 4)]
    assert ann.sends(4) == [accepted(4)]
    assert ann.sends(6) == [p.Resend(BOX, 5)]


def test_a_gap_is_asked_for_again_when_the_sender_began_anew():
    """The first answer may be lost with the connection that it was for."""
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1)
    assert ann.sends(3) == [p.Resend(BOX, 2)]
    play.unplug(ann)
    ann = play.connect("ann", settled=1)
    assert ann.sends(3, settled=1) == [p.Resend(BOX, 2)]
    assert ann.sends(1) == [accepted(1)]
    assert ann.sends(3) == [p.Resend(BOX, 2)]


def test_a_gap_before_the_first_batch_is_a_gap_too():
    play = HubPlay("ann", "bob")
    assert play.connect("ann").sends(2) == [p.Resend(BOX, 1)]
    assert play.facts == []


def test_a_hub_that_has_forgotten_an_outbox_begins_behind_what_is_settled():
    play = HubPlay("ann", "bob")
    assert play.connect("ann").sends(41, settled=40) == [accepted(41)]
    assert play.connect("ann", outbox=b"outbox-2").sends(43, settled=40, outbox=b"outbox-2") == [
        p.Resend(b"outbox-2", 41)]


@pytest.mark.parametrize(("number", "settled"), [
    (0, 0), (1, 1), (5, 9), (p.IN_FLIGHT_MAX + 1, 0), ((1 << 63) - 1, 0)])
def test_a_batch_numbered_beside_its_window_is_refused(number, settled):
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    assert ann.sends(number, settled=settled) == [p.Denied(0, "bad-batch", p.REFUSALS["bad-batch"])]
    assert play.facts == [] and play.hub.numberings.get(play.id_of("ann"), BOX) is None
    assert ann.sends(1) == [accepted(1)]


def test_the_last_number_of_the_window_is_in_it():
    play = HubPlay("ann", "bob")
    assert play.connect("ann").sends(p.IN_FLIGHT_MAX + 7, settled=7) == [p.Resend(BOX, 8)]


def test_outboxes_are_told_apart_by_client_and_by_name():
    play = HubPlay("ann", "bob", "cyd")
    ann, cyd = play.connect("ann"), play.connect("cyd")
    assert ann.sends(1) == [accepted(1)]
    assert cyd.sends(1) == [accepted(1)]
    assert ann.sends(1, outbox=b"outbox-2") == [accepted(1, outbox=b"outbox-2")]
    assert play.inbox_of("bob").messages == 3


def test_the_outbox_unused_for_longest_is_forgotten_for_a_new_one(monkeypatch):
    monkeypatch.setattr(p, "OUTBOXES_MAX", 3)
    play = HubPlay("ann", "bob", "cyd")
    ann, cyd = play.connect("ann"), play.connect("cyd")
    cyd.sends(1)
    for box in (b"outbox-1", b"outbox-2", b"outbox-3"):
        play.now_s += 1
        ann.sends(1, outbox=box)
    play.now_s += 1
    ann.sends(2, outbox=b"outbox-1")
    play.now_s += 1
    ann.sends(1, outbox=b"outbox-4")
    assert play.facts[0] == f.OutboxForgotten(play.id_of("ann"), b"outbox-2")
    assert play.hub.count["outboxes_forgotten"] == 1
    for _ in range(2):
        known = [b"outbox-%d" % n for n in range(1, 5)
                 if play.hub.numberings.get(play.id_of("ann"), b"outbox-%d" % n) is not None]
        assert known == [b"outbox-1", b"outbox-3", b"outbox-4"]
        assert play.hub.numberings.get(play.id_of("cyd"), BOX) is not None
        play.restart()


def test_an_outbox_that_a_connection_names_is_not_forgotten_however_long_unused(monkeypatch):
    monkeypatch.setattr(p, "OUTBOXES_MAX", 3)
    play = HubPlay("ann", "bob")
    quiet = play.connect("ann", outbox=b"outbox-1")
    quiet.sends(1, outbox=b"outbox-1")
    ann = play.connect("ann", outbox=b"outbox-2")
    for box in (b"outbox-2", b"outbox-3", b"outbox-4", b"outbox-5"):
        play.now_s += 1
        ann.sends(1, outbox=box)
    known = [n for n in range(1, 6) if play.hub.numberings.get(play.id_of("ann"), b"outbox-%d" % n) is not None]
    assert known == [1, 2, 5]
    play.unplug(quiet)
    play.now_s += 1
    ann.sends(1, outbox=b"outbox-6")
    assert play.hub.numberings.get(play.id_of("ann"), b"outbox-1") is None


def test_a_greeting_is_a_use_of_its_outbox(monkeypatch):
    monkeypatch.setattr(p, "OUTBOXES_MAX", 2)
    play = HubPlay("ann", "bob")
    ann = play.connect("ann", outbox=b"outbox-9")
    for box in (b"outbox-1", b"outbox-2"):
        play.now_s += 1
        ann.sends(1, outbox=box)
    play.now_s += 1
    play.unplug(play.connect("ann", outbox=b"outbox-1", settled=1))
    play.now_s += 1
    ann.sends(1, outbox=b"outbox-3")
    assert play.hub.numberings.get(play.id_of("ann"), b"outbox-1") is not None
    assert play.hub.numberings.get(play.id_of("ann"), b"outbox-2") is None


# Lazy numbers

def test_a_batch_that_no_inbox_wanted_is_answered_without_the_disk():
    play = HubPlay("ann")
    ann = play.connect("ann")
    assert ann.sends(1, "t", way=p.PUBLISH) == [accepted(1)]
    assert ann.sends(2, "t", way=p.PUBLISH) == [accepted(2)]
    assert play.facts == []
    play.turn(lazy_too=True)
    assert play.facts == [f.Moved(play.id_of("ann"), BOX, 2, (), True)]
    play.turn(lazy_too=True)
    assert play.facts == []


def test_lazy_numbers_go_along_with_the_next_commit():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.sends(1, "t", way=p.PUBLISH)
    bob.asks(p.Subscribe(1, "x"))
    assert kinds(play.facts) == [f.Subscribed, f.Moved]


def test_a_lazy_number_never_comes_behind_a_later_one():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1, "t", way=p.PUBLISH)
    ann.sends(2)
    assert [x.number for x in play.facts if type(x) is f.Moved] == [2]
    ann.puts(3)
    ann.puts(4, "t", way=p.PUBLISH)
    play.turn()
    assert [x.number for x in play.facts if type(x) is f.Moved] == [3, 4]
    play.restart()
    assert play.connect("ann", settled=3).answers() == [accepted(4)]


def test_a_forgotten_outbox_leaves_no_lazy_number_behind():
    play = HubPlay("ann")
    ann = play.connect("ann")
    ann.sends(1, "t", way=p.PUBLISH)
    ann.say(p.Bye(BOX, 1))
    play.turn(lazy_too=True)
    assert play.facts == [f.OutboxForgotten(play.id_of("ann"), BOX)]


# What a batch may be, and to whom

#   way          address          messages                    body bytes           refused with
BATCHES = [
    (p.SEND,      "bob",           1,                          1,                    None),
    (p.SEND,      "bob",           p.BATCH_MESSAGES_MAX,       1,                    None),
    (p.SEND,      "bob",           1,                          p.BATCH_BYTES_MAX,    None),
    (p.SEND,      "bob",           1,                          0,                    None),
    (p.SEND,      "bob",           0,                          1,                    "bad-batch"),
    (p.SEND,      "bob",           p.BATCH_MESSAGES_MAX + 1,   1,                    "batch-too-large"),
    (p.SEND,      "bob",           1,                          p.BATCH_BYTES_MAX + p.ENVELOPE_BYTES_MAX,
     "batch-too-large"),
    (p.PUBLISH,   "t",             p.BATCH_MESSAGES_MAX + 1,   1,                    "batch-too-large"),
    (p.BROADCAST, "",              0,                          1,                    "bad-batch"),
    (p.BROADCAST, "bob",           1,                          1,                    "bad-batch"),
    (p.SEND,      "ann",           1,                          1,                    None),
    (p.SEND,      "nobody",        1,                          1,                    "unknown-client"),
    (p.SEND,      "",              1,                          1,                    "unknown-client"),
    (p.SEND,      "b*b",           1,                          1,                    "unknown-client"),
    (p.SEND,      "#",             1,                          1,                    "unknown-client"),
    (p.SEND,      "BOB",           1,                          1,                    "unknown-client"),
    (p.PUBLISH,   "a.b",           1,                          1,                    None),
    (p.PUBLISH,   "",              1,                          1,                    "bad-topic"),
    (p.PUBLISH,   "a.*",           1,                          1,                    "bad-topic"),
    (p.PUBLISH,   "#",             1,                          1,                    "bad-topic"),
    (p.PUBLISH,   "a b",           1,                          1,                    "bad-topic"),
    (p.BROADCAST, "",              1,                          1,                    None),
]


@pytest.mark.parametrize(("way", "address", "messages", "size", "code"), BATCHES)
def test_what_batch_may_go_where(way, address, messages, size, code):
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    answers = ann.sends(1, address, b"x" * size, way=way, messages=messages)
    assert answers == ([accepted(1, (1, code))] if code else [accepted(1)])
    assert play.hub.count["refused_messages"] == (messages if code else 0)
    assert play.hub.count["accepted_messages"] == (0 if code else messages)
    assert (f.Stored in kinds(play.facts)) == (not code and way != p.PUBLISH)
    assert ann.sends(2) == [accepted(2, (1, code))] if code else [accepted(2)]


def test_a_batch_may_be_as_large_as_it_may_be_and_not_a_byte_larger():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    ann.sends(1, body=b"")
    envelope = play.inbox_of("bob").size
    most = p.BATCH_BYTES_MAX + p.ENVELOPE_BYTES_MAX - envelope
    assert ann.sends(2, body=bytes(most), settled=1) == [accepted(2)]
    assert ann.sends(3, body=bytes(most + 1), settled=2) == [accepted(3, (3, "batch-too-large"))]


@pytest.mark.parametrize(("way", "address"), [(p.SEND, "bob"), (p.PUBLISH, "t"), (p.BROADCAST, "")])
def test_an_inbox_may_be_as_full_as_it_may_be_and_not_a_byte_fuller(way, address):
    play = HubPlay("ann", "bob")
    play.connect("bob").asks(p.Subscribe(1, "t"))
    play.connect("ann").sends(1, address, way=way)
    size = play.inbox_of("bob").size
    for room, messages in ((2 * size, 2), (2 * size - 1, 1)):
        play = HubPlay("ann", "bob", settings=Settings(inbox_bytes_max=room))
        play.connect("bob").asks(p.Subscribe(1, "t"))
        ann = play.connect("ann")
        ann.sends(1, address, way=way)
        ann.sends(2, address, way=way)
        assert play.inbox_of("bob").messages == messages


#   granted                        verb                                  allowed?
GRANTED = [
    (grants(send=["bob"]),          p.Send(BOX, 1, 0, p.SEND, "bob", 1),      True),
    (grants(send=["cyd"]),          p.Send(BOX, 1, 0, p.SEND, "bob", 1),      False),
    (grants(publish=["#"]),         p.Send(BOX, 1, 0, p.SEND, "bob", 1),      False),
    (grants(publish=["a.*"]),       p.Send(BOX, 1, 0, p.PUBLISH, "a.b", 1),   True),
    (grants(publish=["a.*"]),       p.Send(BOX, 1, 0, p.PUBLISH, "a", 1),     False),
    (grants(["#"], [], ["#"]),      p.Send(BOX, 1, 0, p.PUBLISH, "a", 1),     False),
    (grants(send=["#"]),            p.Send(BOX, 1, 0, p.BROADCAST, "", 1),    True),
    (grants(["*", "*.#"], ["#"]),   p.Send(BOX, 1, 0, p.BROADCAST, "", 1),    False),
    (grants(subscribe=["a.#"]),     p.Subscribe(7, "a.b.#"),                  True),
    (grants(subscribe=["a.#"]),     p.Subscribe(7, "#"),                      False),
    (grants(["#"], ["#"]),          p.Subscribe(7, "a"),                      False),
    (grants(subscribe=["a.#"]),     p.Listen(7, "a.b.#"),                     True),
    (grants(subscribe=["a.#"]),     p.Listen(7, "*"),                         False),
    (grants(["#"], ["#"]),          p.Listen(7, "a"),                         False),
    (NOTHING,                       p.Listen(7, ""),                          True),
    (NOTHING,                       p.Receive(0, 1000),                       True),
    (NOTHING,                       p.Ping(7),                                True),
    (NOTHING,                       p.Subscriptions(7, ""),                   True),
    (EVERYTHING,                    p.Status(7),                              False),
    (EVERYTHING,                    p.Register(7, "new", ALL),                False),
    (OPERATOR,                      p.Status(7),                              True),
]


@pytest.mark.parametrize(("granted", "said", "allowed"), GRANTED)
def test_what_a_client_may_do_is_what_its_grants_say(granted, said, allowed):
    play = HubPlay("bob")
    play.register("ann", granted)
    answers = play.connect("ann").asks(said, b"body")
    codes = refusals(answers) + [row[1] for a in answers if type(a) is p.Accepted for row in a.refused]
    if allowed:
        assert codes == []
    else:
        assert codes == ["unknown-client" if getattr(said, "way", 0) == p.SEND else "forbidden"]
        assert not {f.Stored, f.Subscribed, f.Registered} & set(kinds(play.facts))
        assert play.hub.audience.of("a.b") == ((), False, ())


def test_a_name_that_one_may_not_use_and_one_that_is_not_there_get_the_same_answer():
    play = HubPlay("bob")
    play.register("ann", grants(send=["cyd"], publish=["a"]))
    ann = play.connect("ann")
    ann.puts(1, "bob")
    ann.puts(2, "nobody")
    play.turn()
    [[_, *of_bob], [_, *of_nobody]] = ann.answers()[0].refused
    assert of_bob == of_nobody
    [hidden] = ann.asks(p.Show(1, "bob"))
    [absent] = ann.asks(p.Show(1, "nobody"))
    assert hidden == absent


def test_every_refusal_has_a_code_and_a_sentence():
    play = HubPlay("ann")
    answers = play.connect("ann").asks(p.Show(1, "bob"))
    assert p.decode(p.encode(answers[0])) == answers[0]
    assert p.REFUSALS.keys() >= {"unknown-client", "forbidden", "inbox-full", "disk-full", "bad-batch"}
    assert all(0 < len(text) < 200 for text in p.REFUSALS.values())


# Inboxes

def test_a_message_goes_to_its_receiver_in_order_and_once():
    play = HubPlay("ann", "bob")
    bob = play.receives("bob")
    ann = play.connect("ann")
    for number in (1, 2, 3):
        ann.sends(number, body=b"%d" % number)
    assert bob.delivered() == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert bob.answers() == []


def test_what_came_while_nobody_received_is_read_from_disk():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    for number in range(1, 31):
        ann.puts(number, body=b"%099d" % number)
    play.turn()
    bob = play.receives("bob")
    play.turns()
    assert bob.delivered() == [(n, b"%099d" % n) for n in range(1, 31)]


def test_an_unacknowledged_message_comes_again_to_the_next_who_receives():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    for number in (1, 2, 3):
        ann.puts(number, body=b"%d" % number)
    play.turn()
    bob = play.receives("bob")
    bob.delivered()
    assert bob.asks(p.Ack(2, 0)) == []
    play.restart()
    bob = play.receives("bob")
    assert bob.delivered() == [(2, b"2"), (3, b"3")]
    bob.asks(p.Ack(4, 0))
    play.restart()
    assert play.receives("bob").delivered() == []


def test_an_acknowledgement_inside_a_batch_is_told_with_it():
    play = HubPlay("ann", "bob")
    play.connect("ann").sends(1, messages=5)
    play.connect("bob").asks(p.Ack(1, 3))
    play.restart()
    bob = play.receives("bob")
    [(deliver, _)] = bob.heard
    assert (deliver.number, deliver.skip) == (1, 3)


#   acknowledged                                      remembered?     of an inbox with batches 1 and 2
ACKS = [
    ((1, 0),                                           False),
    ((0, 5),                                           False),
    ((1, 1),                                           True),
    ((2, 0),                                           True),
    ((2, 9),                                           True),
    ((3, 0),                                           True),
    ((3, 1),                                           False),
    ((4, 0),                                           False),
    (((1 << 63) - 1, 0),                               False),
]


@pytest.mark.parametrize(("ack", "remembered"), ACKS)
def test_only_what_is_there_can_be_acknowledged(ack, remembered):
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.sends(1)
    ann.sends(2)
    bob.asks(p.Ack(*ack))
    assert kinds(play.facts) == ([f.Acked] if remembered else [])


def test_an_acknowledgement_is_never_taken_back():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.sends(1)
    ann.sends(2)
    bob.asks(p.Ack(2, 3))
    for ack in ((1, 0), (1, 7), (2, 2), (2, 3)):
        bob.asks(p.Ack(*ack))
        assert play.facts == []
    assert play.receives("bob").delivered() == [(2, b"x")]


def test_an_acknowledgement_gives_room_once_it_is_on_disk():
    play = HubPlay("ann", "bob", settings=Settings(inbox_bytes_max=300))
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.sends(1, body=b"x" * 200)
    size = play.inbox_of("bob").size
    assert size > 200
    bob.say(p.Ack(2, 0))
    assert ann.sends(2, body=b"x" * 200) == [accepted(2, (2, "inbox-full"))]
    assert play.inbox_of("bob").size == play.inbox_of("bob").messages == 0
    assert ann.sends(3, body=b"x" * 200, settled=2) == [accepted(3)]


def test_credit_is_never_overdrawn_but_by_its_last_batch():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    bob = play.receives("bob", credit=0)
    for number in range(1, 11):
        ann.sends(number, body=b"x" * 100)
    assert bob.delivered() == []
    bob.say(p.Credit(1, 0, 0))
    play.turns()
    assert len(bob.delivered()) == 1
    size = play.inbox_of("bob").sent
    bob.say(p.Credit(size, 0, 0))
    play.turns()
    assert bob.delivered() == []
    bob.say(p.Credit(4 * size, 0, 0))
    play.turns()
    assert [n for n, _ in bob.delivered()] == [2, 3, 4]
    bob.say(p.Credit(2 * size, 0, 0))             # late on the wire: what was granted stays so
    bob.say(p.Credit(4 * size + 1, 0, 0))
    play.turns()
    assert [n for n, _ in bob.delivered()] == [5]


def test_however_much_credit_is_claimed_the_hub_believes_so_much(monkeypatch):
    monkeypatch.setattr(p, "WINDOW_BYTES_MAX", 1000)
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    bob = play.receives("bob", credit=1 << 62)
    assert play.inbox_of("bob").credit == 1000
    for number in range(1, 30):
        ann.sends(number, body=b"x" * 90)
    assert len(bob.delivered()) < 12
    bob.asks(p.Credit((1 << 63) - 1, (1 << 63) - 1, 0))
    inbox = play.inbox_of("bob")
    assert inbox.sent <= inbox.credit + 200 and inbox.credit <= 2200


def test_credit_without_an_inbox_gives_none():
    play = HubPlay("ann", "bob")
    receiver, other = play.receives("bob", credit=0), play.connect("bob")
    other.asks(p.Credit(1 << 20, 0, 0))
    play.connect("ann").sends(1)
    assert receiver.delivered() == other.delivered() == []


def test_who_receives_next_takes_the_inbox_and_the_other_is_told():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    first = play.receives("bob")
    ann.sends(1, body=b"one")
    second = play.receives("bob", after=0)
    assert first.delivered() == [(1, b"one")]
    assert first.answers() == [p.Taken()]
    ann.sends(2, body=b"two")
    play.turns()
    assert first.delivered() == []
    assert second.delivered() == [(1, b"one"), (2, b"two")]
    assert second.answers() == []
    first.say(p.Release())                        # not its own any more
    ann.sends(3, body=b"three")
    assert second.delivered() == [(3, b"three")]


def test_the_end_of_another_connection_takes_the_inbox_from_nobody():
    play = HubPlay("ann", "bob")
    bob, other = play.receives("bob"), play.connect("bob")
    play.unplug(other)
    play.connect("bob").asks(p.Bye(BOX, 0))
    play.connect("ann").sends(1)
    assert bob.delivered() == [(1, b"x")]


def test_to_receive_again_on_the_same_connection_begins_anew_without_a_word():
    play = HubPlay("ann", "bob")
    bob = play.receives("bob")
    ann = play.connect("ann")
    ann.sends(1)
    ann.sends(2)
    assert [n for n, _ in bob.delivered()] == [1, 2]
    assert bob.asks(p.Receive(1, 1000)) == []
    play.turns()
    assert [(c[0].number, c[0].previous) for c in bob.heard] == [(2, 1)]


def test_after_release_nothing_is_delivered():
    play = HubPlay("ann", "bob")
    bob = play.receives("bob")
    bob.asks(p.Release())
    play.connect("ann").sends(1)
    play.turns()
    assert bob.delivered() == []


def test_each_delivery_names_the_one_before_it():
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    for number in range(1, 5):
        ann.sends(number)
    play.connect("bob").asks(p.Ack(2, 0))
    bob = play.receives("bob", after=0)
    play.turns()
    ann.sends(5)
    assert [(c[0].number, c[0].previous) for c in bob.heard] == [(2, 0), (3, 2), (4, 3), (5, 4)]


def test_what_a_full_pipe_did_not_take_is_sent_when_there_is_room_again():
    play = HubPlay("ann", "bob", "cyd")
    bob, cyd = play.receives("bob"), play.receives("cyd")
    ann = play.connect("ann")
    for number in range(1, 4):
        ann.puts(number)
        ann.puts(number, "cyd", outbox=b"outbox-2")
    play.turn(stuck=[bob])
    assert bob.delivered() == [] and len(cyd.delivered()) == 3
    play.hub.retry(play.inbox_of("bob"))
    play.turns()
    assert [(c[0].number, c[0].previous) for c in bob.heard] == [(1, 0), (2, 1), (3, 2)]


def test_a_full_pipe_is_left_alone_until_it_is_said_to_have_room():
    """Else a peer that doesn't read keeps the hub reading its inbox from disk, turn after turn."""
    play = HubPlay("ann", "bob")
    bob = play.receives("bob")
    play.connect("ann").puts(1)
    play.turn(stuck=[bob])
    assert not play.hub.is_hungry
    play.turn()
    assert bob.delivered() == []
    play.connect("ann").puts(2)
    play.turn()
    assert bob.delivered() == []
    play.hub.retry(play.inbox_of("bob"))
    play.turns()
    assert bob.delivered() == [(1, b"x"), (2, b"x")]


def test_numbers_left_out_after_a_restart_change_nothing_for_a_receiver():
    """They are left out so that a store restored from a backup gives none again that was given since."""
    play = HubPlay("ann", "bob", "cyd")
    ann, bob = play.connect("ann"), play.receives("bob")
    for number in (1, 2, 3):
        ann.sends(number, body=b"%d" % number)
    assert [n for n, _ in bob.delivered()] == [1, 2, 3]
    bob.asks(p.Ack(2, 0))
    play.restart()
    play.hub.skip_numbers(1_000_000)
    ann, bob, cyd = play.connect("ann", settled=3), play.receives("bob", after=2), play.receives("cyd")
    play.turns()
    ann.sends(4, body=b"4", settled=3)
    ann.sends(5, "cyd", body=b"5", settled=4)
    play.turns()
    assert [(c[0].previous, c[0].number, c[1]) for c in bob.heard] == [(2, 3, b"3"), (3, 1_000_001, b"4")]
    assert [(c[0].previous, c[0].number, c[1]) for c in cyd.heard] == [(0, 1_000_001, b"5")]
    bob.asks(p.Ack(1_000_002, 0))
    assert play.inbox_of("bob").messages == 0
    play.restart()
    play.hub.skip_numbers(7)                       # a clock that went back takes nothing back
    play.connect("ann", settled=5).sends(6, settled=5)
    assert play.receives("bob").delivered() == [(1_000_002, b"x")]


def test_a_hub_reads_for_a_few_inboxes_a_turn_and_for_each_in_its_turn():
    play = HubPlay("ann", "bob", "cyd", "dan")
    play.connect("ann").sends(1, "", way=p.BROADCAST)
    lines = [play.connect(name) for name in ("bob", "cyd", "dan")]
    for line in lines:
        line.say(p.Receive(0, 1000))
    assert [i.client for i in play.hub.hungry(2)] == [play.id_of("bob"), play.id_of("cyd")]
    assert play.hub.is_hungry
    assert [i.client for i in play.hub.hungry(2)] == [play.id_of("dan")]
    assert not play.hub.is_hungry


def test_an_inbox_that_is_full_refuses_what_is_sent_to_it():
    play = HubPlay("ann", "bob", "cyd", settings=Settings(inbox_bytes_max=1000))
    ann = play.connect("ann")
    number = 0
    while True:
        number += 1
        [answer] = ann.sends(number, body=b"x" * 200, settled=number - 1)
        if answer.refused:
            break
    assert answer == accepted(number, (number, "inbox-full"))
    assert 0 < play.inbox_of("bob").size <= 1000
    assert ann.sends(number + 1, "cyd", body=b"x" * 200, settled=number) == [accepted(number + 1)]
    assert ann.sends(number + 2, body=b"", settled=number + 1) == [accepted(number + 2)]     # a small one fits


@pytest.mark.parametrize(("way", "address"), [(p.PUBLISH, "t"), (p.BROADCAST, "")])
def test_a_full_inbox_misses_what_is_published_and_broadcast_and_counts_it(way, address):
    play = HubPlay("ann", "bob", "cyd", settings=Settings(inbox_bytes_max=300))
    for name in ("bob", "cyd"):
        play.connect(name).asks(p.Subscribe(1, "t"))
    ann = play.connect("ann")
    ann.sends(1, "bob", body=b"x" * 200)
    assert ann.sends(2, address, way=way, body=b"y" * 200, messages=7) == [accepted(2)]
    assert play.inbox_of("bob").missed == 7
    assert play.hub.count["inbox_missed"] == 7
    assert play.receives("cyd").delivered() == [(1, b"y" * 200)]
    play.restart()
    assert result(play.connect("op").asks(p.Show(1, "bob")))["missed"] == 7


def test_where_every_inbox_is_full_a_publish_is_accepted_and_missed_by_all():
    play = HubPlay("ann", "bob", settings=Settings(inbox_bytes_max=100))
    play.connect("bob").asks(p.Subscribe(1, "t"))
    assert play.connect("ann").sends(1, "t", way=p.PUBLISH, body=b"y" * 200, messages=2) == [accepted(1)]
    assert kinds(play.facts) == [f.Missed, f.Moved]
    assert play.hub.count["inbox_missed"] == 2


def test_without_room_on_disk_sends_are_refused_and_the_rest_goes_on():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.receives("bob")
    ann.sends(1)
    bob.delivered()
    play.hub.room = False
    assert ann.sends(2) == [accepted(2, (2, "disk-full"))]
    assert ann.sends(3, "t", way=p.PUBLISH) == [accepted(3, (2, "disk-full"), (3, "disk-full"))]
    assert ann.sends(4, "", way=p.BROADCAST, settled=2) == [accepted(4, (3, "disk-full"), (4, "disk-full"))]
    assert play.facts == []                       # there may be no room to write it down
    bob.asks(p.Ack(2, 0))
    assert kinds(play.facts) == [f.Acked]
    assert bob.asks(p.Ping(1)) == [p.Pong(1, 2, play.now_ms)]
    play.hub.room = True
    assert ann.sends(4, settled=3) == [accepted(4, (4, "disk-full"))]     # a double, answered as before
    assert ann.sends(5, settled=4) == [accepted(5)]
    assert bob.delivered() == [(2, b"x")]
    assert play.hub.count["refused_messages"] == 3


# Topics and broadcasts

def test_a_publish_goes_to_all_who_subscribed_once_each():
    play = HubPlay("ann", "bob", "cyd", "dan")
    play.connect("bob").asks(p.Subscribe(1, "a.#"))
    play.connect("bob").asks(p.Subscribe(2, "*.b"))
    play.connect("cyd").asks(p.Subscribe(1, "a.b"))
    play.connect("dan").asks(p.Subscribe(1, "a.c"))
    play.connect("ann").sends(1, "a.b", way=p.PUBLISH)
    assert [play.inbox_of(name).messages for name in ("ann", "bob", "cyd", "dan", "op")] == [0, 1, 1, 0, 0]
    [stored] = [fact for fact in play.facts if type(fact) is f.Stored]
    assert len(stored.places) == 2


def test_whoever_subscribes_gets_the_next_publication_and_whoever_ends_it_none():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    got = []
    for number, act in enumerate([None, p.Subscribe(1, "t"), p.Unsubscribe(2, "t"), p.Subscribe(3, "#")], 1):
        if act:
            bob.asks(act)
        ann.sends(number, "t", way=p.PUBLISH)
        got.append(play.inbox_of("bob").messages)
    assert got == [0, 1, 1, 2]


def test_a_subscriber_gets_its_own_publications_too():
    play = HubPlay("ann")
    ann = play.connect("ann")
    ann.asks(p.Subscribe(1, "t"))
    ann.sends(1, "t", way=p.PUBLISH)
    assert play.inbox_of("ann").messages == 1


def test_a_subscription_is_the_same_twice_and_ends_once():
    play = HubPlay("ann")
    ann = play.connect("ann")
    assert ann.asks(p.Subscribe(1, "a.#.#")) == [p.Done(1, {})]
    assert play.facts == [f.Subscribed(play.id_of("ann"), "a.#")]
    assert ann.asks(p.Subscribe(2, "a.#")) == [p.Done(2, {})]
    assert play.facts == []
    assert ann.asks(p.Unsubscribe(3, "a.#")) == [p.Done(3, {})]
    assert ann.asks(p.Unsubscribe(4, "a.#")) == [p.Denied(4, "not-subscribed", p.REFUSALS["not-subscribed"])]
    ann.sends(1, "a.b", way=p.PUBLISH)
    assert play.inbox_of("ann").messages == 0


@pytest.mark.parametrize("make", [p.Subscribe, p.Unsubscribe, p.Listen, p.Unlisten])
@pytest.mark.parametrize("pattern", ["a..b", "a*", "a b", ".", "x" * 256])
def test_what_is_no_pattern_is_refused(make, pattern):
    play = HubPlay("ann")
    answers = play.connect("ann").asks(make(3, pattern))
    assert refusals(answers) == ["bad-pattern"] and answers[0].request == 3


def test_subscriptions_have_a_limit_and_are_listed_in_order(monkeypatch):
    monkeypatch.setattr(p, "SUBSCRIPTIONS_MAX", 5)
    monkeypatch.setattr(p, "ANSWER_ROWS_MAX", 2)
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    for pattern in "ebdac":
        assert refusals(ann.asks(p.Subscribe(1, pattern))) == []
    assert ann.asks(p.Subscribe(2, "f")) == [p.Denied(2, "too-many", p.REFUSALS["too-many"])]
    assert refusals(ann.asks(p.Subscribe(3, "a"))) == []        # it has that one
    assert refusals(play.connect("bob").asks(p.Subscribe(4, "f"))) == []
    assert ann.asks(p.Subscriptions(5, "")) == [p.Done(5, {"patterns": ["a", "b"], "more": True})]
    assert ann.asks(p.Subscriptions(6, "b")) == [p.Done(6, {"patterns": ["c", "d"], "more": True})]
    assert ann.asks(p.Subscriptions(7, "d")) == [p.Done(7, {"patterns": ["e"], "more": False})]


def test_a_broadcast_goes_to_everybody_else():
    play = HubPlay("ann", "bob", "cyd")
    assert play.connect("ann").sends(1, "", way=p.BROADCAST, messages=2) == [accepted(1)]
    assert [play.inbox_of(name).messages for name in ("ann", "bob", "cyd", "op")] == [0, 2, 2, 2]


def test_a_broadcast_of_the_only_client_there_is_is_accepted():
    play = HubPlay("ann", operator=None)
    assert play.connect("ann").sends(1, "", way=p.BROADCAST) == [accepted(1)]


def test_who_may_no_longer_read_a_topic_is_not_given_it_though_subscribed():
    play = HubPlay("ann", "bob")
    bob, op, ann = play.connect("bob"), play.connect("op"), play.connect("ann")
    bob.asks(p.Subscribe(1, "a.#"))
    ann.sends(1, "a.b", way=p.PUBLISH)
    op.asks(p.Grant(1, "bob", to_wire(grants(subscribe=["a.c"]))))
    ann.sends(2, "a.b", way=p.PUBLISH)
    ann.sends(3, "a.c", way=p.PUBLISH)
    assert play.inbox_of("bob").messages == 2
    op.asks(p.Grant(2, "bob", ALL))
    ann.sends(4, "a.b", way=p.PUBLISH)
    assert play.inbox_of("bob").messages == 3


# Live

def test_a_public_topic_goes_over_the_live_side_once_for_all():
    play = HubPlay("ann", "bob", "cyd")
    ann, bob, cyd = (play.connect(name) for name in ("ann", "bob", "cyd"))
    for line in (bob, cyd):
        assert line.asks(p.Listen(1, "a.#")) == [p.Done(1, {})]
    ann.sends(1, "a.b", way=p.PUBLISH, body=b"one", messages=3)
    ann.sends(2, "a.b", way=p.PUBLISH, body=b"two")
    assert play.published == [(b"t.a.b.", FIRST_STREAM, 0, b"one"), (b"t.a.b.", FIRST_STREAM, 3, b"two")]
    assert bob.lived() == cyd.lived() == []


def test_what_nobody_listens_to_is_numbered_and_not_sent():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.sends(1, "t", way=p.PUBLISH, messages=5)
    ann.sends(2, "", way=p.BROADCAST, messages=4)
    assert play.published == []
    bob.asks(p.Listen(1, "t"))
    bob.asks(p.Listen(2, ""))
    ann.sends(3, "t", way=p.PUBLISH)
    ann.sends(4, "", way=p.BROADCAST)
    assert [(key, before) for key, _, before, _ in play.published] == [(b"t.t.", 5), (b"b.", 4)]


def test_a_topic_that_somebody_may_not_read_goes_to_each_listener_who_may():
    play = HubPlay("ann", "bob", "cyd")
    play.register("eve", grants(subscribe=["open.#"]))
    ann, bob, cyd, eve = (play.connect(name) for name in ("ann", "bob", "cyd", "eve"))
    for line in (bob, cyd):
        line.asks(p.Listen(1, "#"))
    eve.asks(p.Listen(1, "open.#"))
    ann.sends(1, "secret", way=p.PUBLISH, body=b"s")
    assert play.published == []
    assert bob.lived() == cyd.lived() == [(FIRST_STREAM, 0, b"s")]
    assert eve.lived() == []
    ann.sends(2, "open.x", way=p.PUBLISH, body=b"o")
    assert play.published == [(b"t.open.x.", FIRST_STREAM + 1, 0, b"o")]
    assert bob.lived() == []


def test_a_topic_changes_its_way_with_those_who_may_read_it():
    play = HubPlay("ann", "bob")
    ann, bob, op = (play.connect(name) for name in ("ann", "bob", "op"))
    bob.asks(p.Listen(1, "t"))
    ways = []
    for number, act in enumerate([None, p.Register(1, "eve", to_wire(NOTHING)), p.Revoke(2, "eve"),
                                  p.Invite(3, "eve", to_wire(NOTHING), 60)], 1):
        if act:
            op.asks(act)
        ann.sends(number, "t", way=p.PUBLISH)
        ways.append((len(play.published), len(bob.lived())))
        play.published.clear()
    assert ways == [(1, 0), (0, 1), (1, 0), (1, 0)]     # who is only invited reads nothing yet


def test_live_messages_over_a_connection_stay_within_its_credit_and_the_rest_is_counted():
    play = HubPlay("ann", "bob", "cyd")
    play.register("eve", NOTHING)
    ann, bob, cyd = (play.connect(name) for name in ("ann", "bob", "cyd"))
    bob.asks(p.Listen(1, "t"))
    cyd.asks(p.Listen(1, "t"))
    big = b"x" * (1 << 20)
    for number in range(1, 9):
        cyd.say(p.Credit(0, number << 22, 0))
        ann.sends(number, "t", way=p.PUBLISH, body=big, messages=10)
    got = bob.lived()
    assert [before for _, before, _ in got] == [0, 10, 20, 30]      # 4 MiB, and the last may go over
    assert len(cyd.lived()) == 8
    assert play.hub.count["live_dropped"] == 40
    bob.say(p.Credit(0, 9 << 20, 0))
    ann.sends(9, "t", way=p.PUBLISH, body=b"small", messages=1)
    assert bob.lived() == [(FIRST_STREAM, 80, b"small")]             # and so knows what it missed


def test_without_credit_nothing_comes_live_over_a_connection(monkeypatch):
    monkeypatch.setattr(p, "WINDOW_BYTES", 0)
    play = HubPlay("ann", "bob")
    play.register("eve", NOTHING)
    ann, bob = play.connect("ann"), play.connect("bob")
    bob.asks(p.Listen(1, "t"))
    ann.sends(1, "t", way=p.PUBLISH, messages=3)
    assert bob.lived() == [] and play.hub.count["live_dropped"] == 3


def test_live_credit_too_is_believed_only_so_far(monkeypatch):
    monkeypatch.setattr(p, "WINDOW_BYTES", 100)
    monkeypatch.setattr(p, "WINDOW_BYTES_MAX", 300)
    play = HubPlay("ann", "bob")
    play.register("eve", NOTHING)
    ann, bob = play.connect("ann"), play.connect("bob")
    bob.asks(p.Listen(1, "t"))
    bob.asks(p.Credit(0, (1 << 63) - 1, 0))
    for number in range(1, 30):
        ann.sends(number, "t", way=p.PUBLISH, body=b"x" * 20)
    assert 1 < len(bob.lived()) < 10


def test_what_listeners_have_missed_is_summed_for_the_operator():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    ann.asks(p.Credit(0, 0, 3))
    ann.asks(p.Credit(0, 0, 3))
    ann.asks(p.Credit(0, 0, 2))
    bob.asks(p.Credit(0, 0, 4))
    ann.asks(p.Credit(0, 0, 5))
    ann.asks(p.Credit(0, 0, 1))
    assert play.hub.count["live_missed"] == 9


def test_a_broadcast_goes_live_to_all_who_listen_for_it_in_one_stream():
    play = HubPlay("ann", "bob")
    play.register("eve", NOTHING)
    ann, eve = play.connect("ann"), play.connect("eve")
    eve.asks(p.Listen(1, ""))
    ann.sends(1, "", way=p.BROADCAST, body=b"one", messages=2)
    ann.sends(2, "", way=p.BROADCAST, body=b"two")
    assert play.published == [(b"b.", FIRST_STREAM, 0, b"one"), (b"b.", FIRST_STREAM, 2, b"two")]
    eve.asks(p.Unlisten(2, ""))
    ann.sends(3, "", way=p.BROADCAST)
    assert len(play.published) == 2


def test_streams_are_never_numbered_alike_in_two_runs():
    play = HubPlay("ann", "bob")
    for run in (1, 2):
        ann, bob = play.connect("ann", outbox=b"outbox-%d" % run), play.connect("bob")
        bob.asks(p.Listen(1, "t"))
        ann.sends(1, "t", way=p.PUBLISH, outbox=b"outbox-%d" % run)
        play.restart()
    assert [stream for _, stream, _, _ in play.published] == [FIRST_STREAM, 2 * FIRST_STREAM]


def test_the_oldest_streams_are_forgotten_and_begin_anew_under_another_number(monkeypatch):
    monkeypatch.setattr(p, "STREAMS_MAX", 3)
    play = HubPlay("ann", "bob")
    ann = play.connect("ann")
    play.connect("bob").asks(p.Listen(1, "#"))
    for number, topic in enumerate("abcda", 1):
        ann.sends(number, topic, way=p.PUBLISH)
        assert len(play.hub.audience._streams) <= 3
    assert [(stream, before) for _, stream, before, _ in play.published] == [
        (FIRST_STREAM + n, 0) for n in range(5)]


def test_listening_ends_with_unlisten_and_with_the_connection():
    play = HubPlay("ann", "bob")
    ann, bob = play.connect("ann"), play.connect("bob")
    bob.asks(p.Listen(1, "t"))
    bob.asks(p.Listen(2, ""))
    assert bob.asks(p.Unlisten(3, "t")) == [p.Done(3, {})]
    assert bob.asks(p.Unlisten(4, "never.heard")) == [p.Done(4, {})]
    ann.sends(1, "t", way=p.PUBLISH)
    assert play.published == []
    bob.asks(p.Listen(5, "t"))
    play.unplug(bob)
    ann.sends(2, "t", way=p.PUBLISH)
    ann.sends(3, "", way=p.BROADCAST)
    assert play.published == []


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("end", ["unlisten", "bye", "unplug"])
def test_what_was_heard_a_moment_ago_is_not_once_listening_has_ended(public, end):
    play = HubPlay("ann", "bob")
    if not public:
        play.register("eve", NOTHING)
    ann, bob = play.connect("ann"), play.connect("bob")
    bob.asks(p.Listen(1, "t"))
    ann.sends(1, "t", way=p.PUBLISH)
    assert len(play.published) + len(bob.lived()) == 1
    if end == "unplug":
        play.unplug(bob)
    else:
        bob.asks(p.Unlisten(2, "t") if end == "unlisten" else p.Bye(BOX, 0))
    ann.sends(2, "t", way=p.PUBLISH)
    assert len(play.published) == public and bob.lived() == []


def test_a_connection_listens_to_so_many_patterns_and_no_more(monkeypatch):
    monkeypatch.setattr(p, "LISTENS_MAX", 3)
    play = HubPlay("ann")
    one, two = play.connect("ann"), play.connect("ann")
    for pattern in "abc":
        assert refusals(one.asks(p.Listen(1, pattern))) == []
    assert one.asks(p.Listen(2, "d")) == [p.Denied(2, "too-many", p.REFUSALS["too-many"])]
    assert refusals(two.asks(p.Listen(1, "d"))) == []
    one.asks(p.Unlisten(3, "a"))
    assert refusals(one.asks(p.Listen(4, "d"))) == []


def test_narrower_grants_end_what_a_client_listens_to_and_tell_it():
    play = HubPlay("ann", "bob")
    ann, bob, op = (play.connect(name) for name in ("ann", "bob", "op"))
    for pattern in ("a.b", "a.c", "#", ""):
        bob.asks(p.Listen(1, pattern))
    op.say(p.Grant(1, "bob", to_wire(grants(subscribe=["a.b"]))))
    play.turn()
    told = bob.answers()
    assert refusals(told) == ["forbidden"] * 2 and {a.request for a in told} == {0}
    assert [a.sentence.rsplit(" ")[-1] for a in told] == ["#", "a.c"]
    ann.sends(1, "a.c", way=p.PUBLISH)
    ann.sends(2, "a.b", way=p.PUBLISH, body=b"still")
    ann.sends(3, "", way=p.BROADCAST)
    assert [body for _, _, body in bob.lived()] == []
    assert [(key, body) for key, _, _, body in play.published] == [(b"t.a.b.", b"still"), (b"b.", b"x")]
    op.asks(p.Grant(2, "bob", to_wire(NOTHING)))
    ann.sends(4, "a.b", way=p.PUBLISH)
    assert len(play.published) == 2 and bob.lived() == []
    op.asks(p.Grant(3, "bob", ALL))
    ann.sends(5, "a.b", way=p.PUBLISH)            # what has ended does not begin again by itself
    assert len(play.published) == 2 and bob.lived() == []


# Invitations

def invited(play, name="new", granted=ALL, lifetime_s=60):
    """The key of a new invitation, as the hub knows it."""
    answer = result(play.connect("op").asks(p.Invite(1, name, granted, lifetime_s)))
    secret = int.from_bytes(answer["secret_key"], "little")
    return (secret - 1000).to_bytes(32, "little").hex()


NEW_KEY = b"\x11" * 32


def test_an_invitation_becomes_a_client_by_joining_with_a_key_of_its_own():
    play = HubPlay("ann")
    key = invited(play, granted=to_wire(grants(send=["ann"])))
    guest = play.plug(key)
    assert guest.asks(p.Join(5, NEW_KEY)) == [p.Done(5, {"name": "new"})]
    assert kinds(play.facts) == [f.InvitationEnded, f.Registered]
    new = play.plug(NEW_KEY.hex())
    [welcome] = new.asks(p.Hello(1, b"session1", BOX, 0, 20))
    assert welcome.name == "new"
    assert new.sends(1, "ann") == [accepted(1)]
    assert new.sends(2, "op", settled=1) == [accepted(2, (2, "unknown-client"))]


@pytest.mark.parametrize("command", [*EVERY_COMMAND, p.Hello(1, b"session1", BOX, 0, 20)],
                         ids=lambda c: type(c).__name__)
def test_an_invitation_may_do_nothing_but_join(command):
    play = HubPlay("ann")
    guest = play.plug(invited(play))
    answers = guest.asks(command)
    assert refusals(answers) == ["join-only"]
    assert answers[0].request == getattr(command, "request", 0)
    assert play.facts == [] and play.inbox_of("ann").messages == 0


def test_an_invitation_is_good_for_one():
    play = HubPlay()
    key = invited(play)
    first, second = play.plug(key), play.plug(key)
    first.say(p.Join(1, NEW_KEY))
    second.say(p.Join(1, b"\x22" * 32))           # in the same turn
    play.turn()
    assert result(first.answers()) == {"name": "new"} and first.is_open
    assert second.answers() == [] and not second.is_open
    assert play.plug(NEW_KEY.hex()).asks(p.Hello(1, b"session1", BOX, 0, 20))[0].name == "new"
    assert not play.hub.registry.knows("22" * 32)
    play.restart()
    third = play.plug(key)
    assert third.asks(p.Join(1, b"\x33" * 32)) == [] and not third.is_open


def test_an_invitation_expires():
    play = HubPlay()
    key = invited(play, lifetime_s=60)
    guest = play.plug(key)
    play.now_ms += 60_000                          # between two ticks
    assert refusals(guest.asks(p.Join(1, NEW_KEY))) == ["forbidden"]
    assert play.hub.registry.may_enter(key, "hub")
    play.later(0)
    assert play.facts == [f.InvitationEnded(key)] and not guest.is_open
    assert not play.hub.registry.may_enter(key, "hub")
    assert refusals(play.connect("op").asks(p.Show(1, "new"))) == ["no-such-client"]


def test_an_invitation_is_good_until_the_moment_it_expires():
    play = HubPlay()
    key = invited(play, lifetime_s=60)
    play.later(59.999)
    assert result(play.plug(key).asks(p.Join(1, NEW_KEY))) == {"name": "new"}


#   lifetime asked for     lifetime given, seconds
LIFETIMES = [
    (0,                    1),
    (1,                    1),
    (3600,                 3600),
    (30 * DAY,             30 * DAY),
    (31 * DAY,             30 * DAY),
    ((1 << 63) - 1,        30 * DAY),
]


@pytest.mark.parametrize(("asked_s", "given_s"), LIFETIMES)
def test_an_invitation_lives_a_month_at_most(asked_s, given_s):
    play = HubPlay()
    answer = result(play.connect("op").asks(p.Invite(1, "new", ALL, asked_s)))
    assert answer["expires_ms"] == play.now_ms + given_s * 1000
    assert answer["address"] == "hub.example:5570"


def test_an_invitation_can_be_withdrawn():
    play = HubPlay()
    key = invited(play)
    assert result(play.connect("op").asks(p.Revoke(1, "new"))) == {"purged": 0}
    guest = play.plug(key)
    assert guest.asks(p.Join(1, NEW_KEY)) == [] and not guest.is_open
    assert not play.hub.registry.may_enter(key, "hub")


def test_the_connection_of_an_invitation_that_is_withdrawn_is_cut():
    play = HubPlay()
    guest = play.plug(invited(play))
    play.connect("op").asks(p.Revoke(1, "new"))
    assert not guest.is_open


@pytest.mark.parametrize("known", ["its own", "a client's", "an invitation's", "one revoked long ago"])
def test_nobody_joins_with_a_key_that_was_seen_before(known):
    play = HubPlay("ann", "bob")
    play.connect("op").asks(p.Revoke(1, "bob"))
    mine, other = invited(play), invited(play, "other")
    key = {"its own": mine, "a client's": key_of("ann"), "an invitation's": other,
           "one revoked long ago": key_of("bob")}[known]
    play.restart()
    guest = play.plug(mine)
    assert guest.asks(p.Join(4, bytes.fromhex(key))) == [p.Denied(4, "key-known", p.REFUSALS["key-known"])]
    assert result(guest.asks(p.Join(5, NEW_KEY))) == {"name": "new"}


def test_who_has_joined_cannot_join_again():
    play = HubPlay("ann")
    line = play.plug(key_of("ann"))
    assert line.asks(p.Join(3, NEW_KEY)) == [p.Denied(3, "not-invited", p.REFUSALS["not-invited"])]
    assert play.facts == []


def test_who_has_joined_cannot_join_again_and_hears_so_after_hello_too():
    play = HubPlay("ann")
    assert play.connect("ann").asks(p.Join(3, NEW_KEY)) == [p.Denied(3, "not-invited", p.REFUSALS["not-invited"])]


# Administration

def test_a_name_is_one_client_s_or_one_invitation_s():
    play = HubPlay("ann")
    invited(play, "guest")
    op = play.connect("op")
    for make in (p.Register(1, "ann", ALL), p.Register(1, "guest", ALL), p.Invite(1, "ann", ALL, 60),
                 p.Invite(1, "guest", ALL, 60)):
        assert refusals(op.asks(make)) == ["name-taken"]
        assert play.facts == []


@pytest.mark.parametrize("name", ["", "a b", "a..b", "*", "#", "é", "x" * 65, "a\n"])
def test_what_is_no_name_is_no_client_s(name):
    op = HubPlay().connect("op")
    assert refusals(op.asks(p.Register(1, name, ALL))) == ["bad-name"]
    assert refusals(op.asks(p.Invite(1, name, ALL, 60))) == ["bad-name"]
    assert refusals(op.asks(p.Show(1, name))) == ["no-such-client"]


@pytest.mark.parametrize("bad", [{}, {**ALL, "more": 1}, {**ALL, "send": "#"}, {**ALL, "admin": 1},
                                 {**ALL, "send": ["a"] * 101}])
def test_what_is_not_quite_grants_is_refused(bad):
    play = HubPlay("ann")
    op = play.connect("op")
    for command in (p.Register(1, "new", bad), p.Invite(1, "new", bad, 60), p.Grant(1, "ann", bad)):
        assert refusals(op.asks(command)) == ["bad-grants"]
        assert play.facts == []


@pytest.mark.parametrize("command", [p.Show(1, "no"), p.Revoke(1, "no"), p.Rotate(1, "no", False),
                                     p.Grant(1, "no", ALL)])
def test_who_is_not_there_cannot_be_administered(command):
    assert refusals(HubPlay().connect("op").asks(command)) == ["no-such-client"]


def test_a_registered_client_may_come_in_at_once_with_the_key_it_was_given():
    play = HubPlay()
    answer = result(play.connect("op").asks(p.Register(1, "new", ALL)))
    assert answer["address"] == "hub.example:5570"
    assert int.from_bytes(answer["secret_key"], "little") == int.from_bytes(answer["public_key"], "little") + 1000
    [welcome] = play.plug(answer["public_key"].hex()).asks(p.Hello(1, b"session1", BOX, 0, 20))
    assert welcome.name == "new"


def test_a_secret_is_in_its_answer_and_nowhere_else():
    play = HubPlay("ann")
    op = play.connect("op")
    for command in (p.Register(1, "new", ALL), p.Invite(1, "guest", ALL, 60), p.Rotate(1, "ann", False)):
        secret = result(op.asks(command))["secret_key"]
        told = repr((play.facts, play.notes))
        assert secret.hex() not in told and repr(secret) not in told


def test_the_operator_s_log_has_a_line_for_whatever_an_operator_changed():
    play = HubPlay("ann")
    op = play.connect("op")
    for command in (p.Register(1, "new", ALL), p.Revoke(2, "new"), p.Show(3, "ann"), p.Status(4)):
        op.asks(command)
    guest = play.plug(invited(play))
    guest.asks(p.Join(1, NEW_KEY))
    assert play.notes == ["op asked to register new", "op asked to revoke new", "op asked to invite new", "new joined"]


def test_who_is_revoked_is_gone_at_once_with_all_it_had():
    play = HubPlay("ann", "bob")
    ann, op = play.connect("ann"), play.connect("op")
    bob, other = play.receives("bob"), play.connect("bob")
    bob.asks(p.Subscribe(1, "t"))
    bob.asks(p.Listen(2, "#"))
    other.asks(p.Listen(2, ""))
    ann.sends(1, messages=5)
    bob.asks(p.Ack(1, 2))
    assert result(op.asks(p.Revoke(1, "bob"))) == {"purged": 3}
    assert not bob.is_open and not other.is_open and key_of("bob") in play.cut_keys
    assert not play.hub.registry.may_enter(key_of("bob"), "hub")
    assert not play.hub.registry.may_enter(key_of("bob"), "live")
    assert play.hub.count["purged_messages"] == 3
    ann.sends(2, "t", way=p.PUBLISH)
    ann.sends(3, "", way=p.BROADCAST)
    assert play.published == []
    assert ann.sends(4, "bob", settled=3) == [accepted(4, (4, "unknown-client"))]
    assert play.cut_keys.count(key_of("bob")) == 1
    late = play.plug(key_of("bob"))
    assert late.asks(p.Send(BOX, 9, 8, p.SEND, "ann", 1)) == [] and not late.is_open
    assert result(op.asks(p.Status(2)))["clients"] == 2
    assert play.hub.audience.of("t") == ((), False, ())
    assert not play.hub.audience.broadcast_listeners


def test_nothing_of_the_revoked_is_remembered():
    play = HubPlay("ann", "bob")
    bob, op = play.connect("bob"), play.connect("op")
    bob.sends(1, "t", way=p.PUBLISH)               # lazily
    play.connect("ann").sends(1, "t", way=p.PUBLISH)
    old = play.id_of("bob")
    op.asks(p.Revoke(1, "bob"))
    assert kinds(play.facts) == [f.KeyDropped, f.Revoked, f.Moved]
    assert play.facts[-1].client == play.id_of("ann")
    assert play.hub.numberings.get(old, BOX) is None
    play.turn(lazy_too=True)
    assert play.facts == []
    play.hub.committed([f.Freed(old, 1, 1)])        # news of it from the store is nobody's


def test_who_is_revoked_in_a_turn_is_not_heard_behind_it():
    play = HubPlay("ann", "bob")
    ann, bob, op = (play.connect(name) for name in ("ann", "bob", "op"))
    bob.puts(1, "ann", b"before")
    op.say(p.Revoke(1, "bob"))
    bob.puts(2, "ann", b"behind")
    ann.puts(1, "bob")
    play.turn()
    assert play.inbox_of("ann").messages == 1
    assert ann.answers() == [accepted(1, (1, "unknown-client"))]
    play.restart()
    assert play.receives("ann").delivered() == [(1, b"before")]


def test_a_revoked_name_may_be_given_anew_and_nothing_of_the_old_one_comes_back():
    play = HubPlay("ann", "bob")
    play.connect("bob").asks(p.Subscribe(1, "t"))
    ann, op = play.connect("ann"), play.connect("op")
    ann.sends(1)
    old = play.id_of("bob")
    op.say(p.Revoke(1, "bob"))
    op.say(p.Register(2, "bob", to_wire(NOTHING)))
    play.turn()
    assert play.id_of("bob") > old
    ann.sends(2, "t", way=p.PUBLISH)
    op.answers()
    row = result(op.asks(p.Show(3, "bob")))
    assert (row["waiting"], row["subscriptions"], row["grants"]) == (0, 0, to_wire(NOTHING))
    assert refusals(op.asks(p.Revoke(4, "bob"))) == []


def test_ids_of_the_revoked_are_not_used_again_even_after_a_restart():
    play = HubPlay("ann", "bob")
    op = play.connect("op")
    highest = play.id_of("bob")
    op.asks(p.Revoke(1, "bob"))
    play.restart()
    play.connect("op").asks(p.Register(2, "cyd", ALL))
    assert play.id_of("cyd") == highest + 1


def test_an_operator_cannot_lock_itself_out():
    play = HubPlay("ann")
    op = play.connect("op")
    assert refusals(op.asks(p.Revoke(1, "op"))) == ["forbidden"]
    assert refusals(op.asks(p.Grant(2, "op", ALL))) == ["forbidden"]
    assert refusals(op.asks(p.Grant(3, "op", to_wire(Grants((), (), (), True))))) == []
    assert refusals(op.asks(p.Grant(4, "ann", to_wire(OPERATOR)))) == []
    assert refusals(play.connect("ann").asks(p.Revoke(5, "op"))) == []


# Rotation

def rotated(play, name, now=False):
    return result(play.connect("op").asks(p.Rotate(1, name, now)))["public_key"].hex()


def test_the_old_key_is_good_until_the_new_one_is_used():
    play = HubPlay("ann", "bob")
    old = play.receives("ann")
    new_key = rotated(play, "ann")
    assert old.is_open and old.sends(1) == [accepted(1)]
    again = play.connect("ann")
    assert play.hub.registry.may_enter(new_key, "hub") and play.hub.registry.may_enter(new_key, "live")
    new = play.plug(new_key)
    [welcome] = new.asks(p.Hello(1, b"session1", b"outbox-2", 0, 20))
    assert welcome.name == "ann"
    assert play.facts == [f.KeyUsed(play.id_of("ann"), new_key), f.KeyDropped(play.id_of("ann"), key_of("ann"))]
    assert not old.is_open and not again.is_open and new.is_open
    assert not play.hub.registry.may_enter(key_of("ann"), "hub")
    play.restart()
    assert play.hub.registry.may_enter(new_key, "hub")
    assert not play.hub.registry.may_enter(key_of("ann"), "hub")


def test_a_rotation_that_was_not_finished_survives_a_restart():
    play = HubPlay("ann")
    new_key = rotated(play, "ann")
    play.restart()
    old = play.connect("ann")
    new = play.plug(new_key)
    new.asks(p.Hello(1, b"session1", BOX, 0, 20))
    assert not old.is_open and new.is_open


def test_a_second_rotation_replaces_one_that_was_not_finished():
    play = HubPlay("ann")
    first, second = rotated(play, "ann"), rotated(play, "ann")
    assert not play.hub.registry.may_enter(first, "hub")
    assert play.hub.registry.may_enter(second, "hub")
    assert play.connect("ann").is_open


@pytest.mark.parametrize("begun", [False, True])
def test_a_rotation_now_cuts_whatever_was_good_before(begun):
    play = HubPlay("ann")
    ann = play.connect("ann")
    pending = rotated(play, "ann") if begun else None
    new_key = rotated(play, "ann", now=True)
    assert not ann.is_open and key_of("ann") in play.cut_keys
    for _ in range(2):
        may_enter = play.hub.registry.may_enter
        assert may_enter(new_key, "hub") and not may_enter(key_of("ann"), "hub")
        assert not pending or not may_enter(pending, "hub")
        play.restart()
    new = play.plug(new_key)
    assert len(new.asks(p.Hello(1, b"session1", BOX, 0, 20))) == 1
    assert play.facts == []


def test_a_rotated_client_keeps_its_inbox_its_numbers_and_its_subscriptions():
    play = HubPlay("ann", "bob")
    bob = play.connect("bob")
    bob.asks(p.Subscribe(1, "t"))
    bob.sends(1, "ann")
    play.connect("ann").sends(1)
    new = play.plug(rotated(play, "bob", now=True))
    assert new.asks(p.Hello(1, b"session1", BOX, 0, 20))[1:] == [accepted(1)]
    assert result(new.asks(p.Subscriptions(1, ""))) == {"patterns": ["t"], "more": False}
    new.asks(p.Receive(0, 1000))
    assert new.delivered() == [(1, b"x")]


# What an operator is told

def test_show_says_what_there_is_to_say():
    play = HubPlay("ann", "bob")
    bob = play.connect("bob")
    bob.asks(p.Subscribe(1, "t"))
    play.connect("ann").sends(1, messages=5)
    bob.asks(p.Ack(1, 2))
    new_key = rotated(play, "bob")
    row = result(play.connect("op").asks(p.Show(1, "bob")))
    assert row.pop("bytes") == play.inbox_of("bob").size > 0
    assert row == {
        "name": "bob", "state": "connected", "waiting": 3, "missed": 0, "grants": ALL, "connections": 1,
        "created_ms": play.now_ms, "subscriptions": 1, "patterns": ["t"],
        "keys": [{"public_key": bytes.fromhex(key_of("bob")), "pending": False},
                 {"public_key": bytes.fromhex(new_key), "pending": True}]}


def test_clients_are_listed_by_name_a_page_at_a_time(monkeypatch):
    monkeypatch.setattr(p, "ANSWER_ROWS_MAX", 2)
    play = HubPlay("bob", "ann")
    invited(play, "guest")
    op = play.connect("op")
    play.connect("ann")
    pages, after = [], ""
    while True:
        page = result(op.asks(p.Clients(1, after)))
        pages.append([(row["name"], row["state"]) for row in page["clients"]])
        if not page["more"]:
            break
        after = page["clients"][-1]["name"]
    assert pages == [[("ann", "connected"), ("bob", "away")], [("guest", "invited"), ("op", "connected")]]


def test_status_counts_what_there_is():
    play = HubPlay("ann", "bob")
    invited(play)
    ann = play.connect("ann")
    ann.asks(p.Subscribe(1, "t"))
    ann.sends(1, messages=5)
    ann.sends(2, "nobody")
    play.connect("bob").asks(p.Ack(1, 2))
    play.hub.room = False
    status = result(play.connect("op").asks(p.Status(1)))
    assert {key: status[key] for key in (
        "hub", "clients", "invitations", "connections", "subscriptions", "waiting_messages", "room_on_disk",
        "accepted_messages", "accepted_batches", "refused_messages")} == {
        "hub": "9.9", "clients": 3, "invitations": 1, "connections": 4, "subscriptions": 1, "waiting_messages": 3,
        "room_on_disk": False, "accepted_messages": 5, "accepted_batches": 1, "refused_messages": 1}
    assert set(admin.COUNTERS) <= set(status)
    assert p.decode(p.encode(p.Done(1, status))).result == status


def test_a_hub_has_an_answer_for_every_command_that_a_client_may_say():
    assert set(HANDLERS) | {p.Hello, p.Join} == set(p.FROM_CLIENT)
