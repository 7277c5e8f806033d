"""The session, as conversations: greeting, asking, receiving, listening, over any number of connections."""

from collections import deque

import pytest

from zbackbone import protocol as p
from zbackbone.client import session as module
from zbackbone.client.message import Arrival, Message
from zbackbone.client.outbox import LINGER_S, Outbox
from zbackbone.client.session import ACK_LINGER_S, ANSWER_S, LIVE_BYTES_MAX, RESEND_S, Listening, Session
from zbackbone.errors import Refused, Silence

BOX = b"outbox-1"
ELSE = b"outbox-9"           # of another sender
KEEPALIVE_S = 20.0
WINDOW = 4000


def welcome(store=b"store--1", name="me"):
    return p.Welcome(name, "1.0", store, "tcp://*:5571", "", 0, {})


class Talk:
    """A session, and a hub that is a script. `now` is the clock, in seconds."""

    def __init__(self, connected=True, **more):
        self.session = Session(b"session1", Outbox(BOX, 1 << 30), KEEPALIVE_S, WINDOW)
        self.now = 100.0
        self.settled = []
        self.session.on_settled = self.settled.append
        if connected:
            self.connect(**more)

    def connect(self, **more):
        """A new connection, greeted and welcomed; what is said then waits for `says`."""
        self.session.opened(self.now)
        self.says()
        self.hub(welcome(**more))

    def frames(self):
        return [(p.decode(header), body) for header, body in self.session.due(self.now)]

    def says(self, *kinds):
        """What the session says now; of these kinds, if any are named."""
        return [command for command, _ in self.frames() if not kinds or type(command) in kinds]

    def hub(self, command, body=b""):
        self.session.hear(p.encode(command), body, self.now)

    def later(self, seconds):
        self.now += seconds
        return self.says()

    def sends(self, body=b"x", to="bob", way=p.SEND):
        return self.session.put(way, to, body, len(body) + 5, self.now)

    def receives(self):
        self.session.receive()
        return self.says(p.Receive)

    def delivers(self, number, previous=None, body=b"one", skip=0, messages=1):
        envelope = p.pack_envelope(p.Envelope("ann", 5, p.SEND, "me", ELSE, number, messages))
        self.hub(p.Deliver(number, number - 1 if previous is None else previous, skip, envelope), body)
        return len(envelope) + len(body)

    def takes(self):
        """Inbox numbers handed to the application."""
        out = []
        while (arrived := self.session.take()) is not None:
            out.append(arrived.number)
        return out

    def packed(self, number, *messages, skip=0, previous=None):
        """Delivers a batch of these messages."""
        self.delivers(number, previous, p.pack_batch(messages), skip, len(messages))

    def messages(self, most=99):
        """The inbox's next messages, one by one; their ack() is this session's."""
        out = []
        while len(out) < most and self.session.refill(self.acked):
            out.append(self.session.ready.popleft())
        return out

    def acked(self, arrival, after_s=0.0):
        return self.session.acked(arrival, self.now + after_s)

    def acks(self, number, skip, after_s=0.0):
        """Acknowledges all before this place, by a message of no matter what."""
        told = []
        last = (number, 999, skip - 1) if skip else (number - 1, 1, 0)
        envelope = p.Envelope("ann", 5, p.SEND, "me", ELSE, last[0], last[1])
        arrival = Arrival(envelope, last[0], 0, lambda at: told.append(self.acked(at, after_s)), self.session.store)
        Message(b"", None, arrival, last[2]).ack()
        return told == [True]

    def bodies(self, most=99):
        return [message.body for message in self.messages(most)]

    def listens(self, *patterns, broadcasts=False):
        listening = Listening(patterns, broadcasts)
        self.session.listen(listening)
        for command in self.says(p.Listen):
            self.hub(p.Done(command.request, {}))
        return listening

    def lives(self, topic, before, number, stream=7, messages=1, body=b"live", outbox=ELSE, sender="ann", own_way=True):
        way = p.PUBLISH if topic else p.BROADCAST
        envelope = p.pack_envelope(p.Envelope(sender, 5, way, topic, outbox, number, messages))
        live = p.Live(stream, before, envelope)
        if own_way:
            self.hub(live, body)
        else:
            self.session.hear_live(live, body)


def heard(listening):
    """(body, missed before it) of what came for a listener since the last look."""
    out = [(arrived.body, arrived.missed) for arrived in listening.queue]
    listening.queue.clear()
    listening.size = 0
    return out


# Greeting

def test_the_first_word_is_hello():
    talk = Talk(connected=False)
    assert talk.says() == []
    talk.session.opened(talk.now)
    assert talk.says() == [p.Hello(p.VERSION, b"session1", BOX, 0, 20)]
    assert talk.says() == []


def test_nothing_else_is_said_before_the_welcome():
    talk = Talk(connected=False)
    talk.session.opened(talk.now)
    talk.says()
    talk.sends()
    talk.session.ask(p.Subscribe, "a")
    talk.session.receive()
    talk.session.listen(Listening(("a",), False))
    talk.acks(3, 0)
    assert talk.later(1.0) == []
    talk.hub(welcome())
    said = talk.says()
    assert [type(command) for command in said] == [p.Ack, p.Receive, p.Send, p.Subscribe, p.Listen]


def test_a_new_connection_leaves_nothing_of_the_old_one_unsaid_before_hello():
    talk = Talk()
    talk.receives()
    talk.sends()
    talk.says()
    request = talk.session.ask(p.Revoke, "bob", again=False)
    talk.says()
    talk.session.release()                        # said, and not yet on its way
    talk.session.opened(talk.now)                 # without a word that the old one is gone
    assert [type(command) for command in talk.says()] == [p.Hello]
    assert request.error.code == "unknown"
    talk.hub(welcome())
    assert [s.number for s in talk.says(p.Send)] == [1]


def test_hello_tells_how_far_the_numbers_are_settled():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.hub(p.Accepted(BOX, 1, []))
    talk.session.broken()
    talk.session.opened(talk.now)
    assert talk.says() == [p.Hello(p.VERSION, b"session1", BOX, 1, 20)]


def test_a_refused_greeting_says_why_and_a_new_connection_forgets_it():
    talk = Talk(connected=False)
    talk.session.opened(talk.now)
    talk.hub(p.Denied(0, "version", "another one"))
    assert (talk.session.denied.code, talk.session.denied.text) == ("version", "another one")
    talk.session.opened(talk.now)
    assert talk.session.denied is None


def test_a_hub_that_does_not_know_this_connection_gets_a_new_one():
    talk = Talk()
    assert talk.session.is_open
    talk.hub(p.Denied(0, "hello-first", "say HELLO"))
    assert not talk.session.is_open and talk.session.welcome is None and talk.session.denied is None
    talk.session.opened(talk.now)
    assert talk.session.is_open


def test_what_the_hub_tells_unasked_is_kept_for_the_log():
    talk = Talk()
    talk.hub(p.Denied(0, "forbidden", "your grants changed"))
    assert [notice.text for notice in talk.session.notices] == ["your grants changed"]
    assert talk.session.denied is None and talk.session.is_open


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\x90", b"\x91\x7f", p.encode(p.Ping(1)), p.encode(p.Taken())[:-1]])
def test_what_makes_no_sense_is_counted_and_changes_nothing(header):
    talk = Talk()
    talk.session.hear(header, b"", talk.now)
    assert talk.session.garbled == 1
    assert talk.session.is_open and talk.says() == []


# Sending

def test_a_batch_is_sent_with_its_number_and_what_is_settled():
    talk = Talk()
    talk.sends(b"one")
    [(send, body)] = talk.frames()
    assert send == p.Send(BOX, 1, 0, p.SEND, "bob", 1)
    assert list(p.unpack_batch(body, 1)) == [b"one"]
    talk.hub(p.Accepted(BOX, 1, []))
    talk.sends(b"two", "a.b", p.PUBLISH)
    talk.sends(b"three", "a.b", p.PUBLISH)
    assert talk.says() == [p.Send(BOX, 2, 1, p.PUBLISH, "a.b", 2)]


def test_settled_batches_are_told_one_by_one_with_their_refusals():
    talk = Talk()
    for to in "abc":
        talk.sends(to=to)
    talk.says()
    talk.later(LINGER_S)
    talk.hub(p.Accepted(BOX, 3, [[2, "forbidden", "no"]]))
    assert [(b.number, b.refusal) for b in talk.settled] == [(1, None), (2, ("forbidden", "no")), (3, None)]


def test_an_answer_about_another_outbox_settles_nothing():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.hub(p.Accepted(ELSE, 1, []))
    talk.hub(p.Resend(ELSE, 1))
    assert talk.settled == [] and talk.says() == []


def test_refusals_that_make_no_sense_are_passed_over():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.hub(p.Accepted(BOX, 1, [None, [], [1], [1, "x"], "text", {"a": 1}]))
    assert [batch.refusal for batch in talk.settled] == [None]


def test_after_a_reconnect_everything_unanswered_goes_again_in_order():
    talk = Talk()
    for to in "abc":
        talk.sends(to=to)
    talk.says()
    talk.later(LINGER_S)
    talk.hub(p.Accepted(BOX, 1, []))
    talk.session.broken()
    assert talk.says() == []
    talk.connect()
    assert talk.says() == [p.Send(BOX, 2, 1, p.SEND, "b", 1), p.Send(BOX, 3, 1, p.SEND, "c", 1)]


def test_what_the_hub_had_settled_before_a_reconnect_is_not_sent_again():
    talk = Talk()
    for to in "ab":
        talk.sends(to=to)
    talk.says()
    talk.later(LINGER_S)
    talk.session.broken()
    talk.connect()
    talk.hub(p.Accepted(BOX, 1, []))
    assert [s.number for s in talk.says(p.Send)] == [2]


def test_the_hub_asks_for_what_it_has_not_seen():
    talk = Talk()
    for to in "abcd":
        talk.sends(to=to)
    talk.says()
    talk.later(LINGER_S)
    talk.hub(p.Resend(BOX, 3))
    assert [s.number for s in talk.says(p.Send)] == [3, 4]


def test_a_batch_without_an_answer_goes_again_though_the_hub_talks():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.now += RESEND_S
    assert talk.says(p.Send) == []
    talk.now += 0.1
    assert [s.number for s in talk.says(p.Send)] == [1]
    assert talk.says(p.Send) == []
    talk.now += RESEND_S + 0.1
    assert [s.number for s in talk.says(p.Send)] == [1]


def test_more_messages_do_not_put_off_what_is_late():
    talk = Talk()
    talk.sends()
    talk.says()
    for _ in range(4):
        talk.now += RESEND_S / 4
        talk.sends()
        assert 1 not in [s.number for s in talk.says(p.Send)]
    talk.now += 0.1
    assert [s.number for s in talk.says(p.Send)][0] == 1


def test_any_progress_puts_it_off():
    for progress in (p.Accepted(BOX, 1, []), p.Resend(BOX, 2)):
        talk = Talk()
        for to in "ab":
            talk.sends(to=to)
        talk.says()
        talk.later(LINGER_S)
        talk.now += RESEND_S - 1
        talk.hub(progress)
        talk.says()
        talk.now += RESEND_S - 1
        assert talk.says(p.Send) == []
        talk.now += 2
        assert [s.number for s in talk.says(p.Send)][-1] == 2


def test_what_is_sent_after_a_long_outage_is_not_late_at_once():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.session.broken()
    talk.now += 10 * RESEND_S
    talk.connect()
    assert [s.number for s in talk.says(p.Send)] == [1]
    assert talk.says(p.Send) == []


def test_a_batch_that_waits_for_its_turn_is_not_late():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.hub(p.Accepted(BOX, 1, []))
    talk.now += 10 * RESEND_S
    talk.sends()
    assert [s.number for s in talk.says(p.Send)] == [2]
    talk.now += RESEND_S
    assert talk.says(p.Send) == []


# Asking

def test_a_question_is_asked_once_and_answered_once():
    talk = Talk()
    request = talk.session.ask(p.Subscribe, "a.#")
    [asked] = talk.says()
    assert asked == p.Subscribe(asked.request, "a.#")
    assert talk.says() == [] and not request.done
    talk.hub(p.Done(asked.request, {"n": 1}))
    assert (request.done, request.result, request.error) == (True, {"n": 1}, None)
    talk.hub(p.Denied(asked.request, "forbidden", "too late"))
    assert request.error is None and talk.session.requests == {}


def test_a_refused_question_says_why():
    talk = Talk()
    request = talk.session.ask(p.Subscribe, "a")
    [asked] = talk.says()
    talk.hub(p.Denied(asked.request, "forbidden", "no"))
    assert request.done and type(request.error) is Refused
    assert (request.error.code, request.error.text) == ("forbidden", "no")


def test_answers_find_their_questions_in_any_order():
    talk = Talk()
    one, two = talk.session.ask(p.Subscribe, "a"), talk.session.ask(p.Subscribe, "b")
    first, second = talk.says()
    talk.hub(p.Done(second.request, {}))
    assert (one.done, two.done) == (False, True)
    talk.hub(p.Done(999, {}))
    talk.hub(p.Done(first.request, {}))
    assert one.done


def test_a_question_that_does_no_harm_twice_is_asked_again_after_a_reconnect():
    talk = Talk()
    request = talk.session.ask(p.Subscribe, "a")
    [asked] = talk.says()
    talk.session.broken()
    talk.connect()
    assert talk.says() == [asked] and not request.done


def test_a_question_that_may_do_harm_twice_is_given_up_with_its_connection():
    talk = Talk()
    request = talk.session.ask(p.Revoke, "bob", again=False)
    talk.says()
    talk.session.broken()
    assert request.done and type(request.error) is Silence and request.error.code == "unknown"
    talk.connect()
    assert talk.says() == []


def test_a_question_that_was_never_sent_waits_for_the_connection():
    talk = Talk(connected=False)
    request = talk.session.ask(p.Revoke, "bob", again=False)
    talk.connect()
    assert [type(c) for c in talk.says()] == [p.Revoke] and not request.done


def test_a_question_without_an_answer_is_asked_again_after_a_while():
    talk = Talk()
    talk.session.ask(p.Subscribe, "a")
    talk.session.ask(p.Revoke, "bob", again=False)
    assert len(talk.says()) == 2
    talk.now += RESEND_S
    assert talk.says(p.Subscribe, p.Revoke) == []
    talk.now += 0.1
    assert [type(c) for c in talk.says(p.Subscribe, p.Revoke)] == [p.Subscribe]


def test_a_question_nobody_waits_for_is_not_asked():
    talk = Talk(connected=False)
    one, two = talk.session.ask(p.Subscribe, "a"), talk.session.ask(p.Subscribe, "b")
    talk.session.forget(one)
    talk.session.forget(one)
    talk.connect()
    assert [c.pattern for c in talk.says()] == ["b"]
    assert not two.done


# Signs of life

def test_after_a_silence_of_our_own_the_hub_is_pinged():
    talk = Talk()
    talk.says()
    assert talk.later(KEEPALIVE_S - 0.1) == []
    [ping] = talk.later(0.1)
    assert type(ping) is p.Ping
    talk.now += KEEPALIVE_S
    assert talk.says() == []                      # one is under way
    talk.hub(p.Pong(ping.request, 0, 0))
    assert [type(c) for c in talk.later(KEEPALIVE_S)] == [p.Ping]


def test_who_talks_need_not_ping_but_asks_whether_anybody_hears():
    talk = Talk()
    talk.says()
    pings = 0
    for _ in range(40):
        talk.now += 1
        talk.acks(int(talk.now), 0, after_s=-1)
        pings += sum(type(c) is p.Ping for c in talk.says())
    assert pings == 1
    assert talk.session.is_dead(talk.now) is False
    for _ in range(12):
        talk.now += 1
        talk.says()
    assert talk.session.is_dead(talk.now)


#   silent for     dead?       with a ping under way
@pytest.mark.parametrize(("silent_s", "dead"), [(ANSWER_S - 1, False), (ANSWER_S, False), (ANSWER_S + 1, True)])
def test_a_hub_that_answers_no_ping_is_dead(silent_s, dead):
    talk = Talk()
    talk.now += KEEPALIVE_S
    talk.says()
    talk.now += silent_s
    assert talk.session.is_dead(talk.now) is dead


def test_whatever_the_hub_says_is_a_sign_of_life():
    talk = Talk()
    talk.now += KEEPALIVE_S
    talk.says()
    talk.now += ANSWER_S
    talk.hub(p.Denied(0, "forbidden", "something else"))
    talk.now += ANSWER_S
    assert not talk.session.is_dead(talk.now)
    talk.now += 1
    assert talk.session.is_dead(talk.now)


def test_who_talks_to_a_hub_that_answers_never_pings():
    talk = Talk()
    for _ in range(100):
        talk.now += 1
        talk.acks(int(talk.now), 0, after_s=-1)
        assert [type(c) for c in talk.says()] == [p.Ack]
        talk.hub(p.Accepted(ELSE, 1, []))


def test_who_only_listens_pings_all_the_same():
    """The hub drops a connection that is silent, whatever it says itself."""
    talk = Talk()
    talk.says()
    pings = 0
    for _ in range(100):
        talk.now += 1
        talk.hub(p.Accepted(ELSE, 1, []))
        for command in talk.says(p.Ping):
            pings += 1
            talk.hub(p.Pong(command.request, 0, 0))
    assert pings == 100 / KEEPALIVE_S


def test_a_ping_of_the_last_connection_is_none_of_this_one():
    talk = Talk()
    assert [type(c) for c in talk.later(KEEPALIVE_S)] == [p.Ping]
    talk.session.broken()
    talk.connect()
    talk.says()
    assert [type(c) for c in talk.later(KEEPALIVE_S)] == [p.Ping]


def test_a_connection_just_opened_is_not_dead():
    talk = Talk(connected=False)
    talk.now += 1e6
    talk.session.opened(talk.now)
    assert not talk.session.is_dead(talk.now + ANSWER_S)
    talk.says()
    talk.hub(welcome())
    assert not talk.session.is_dead(talk.now + ANSWER_S)


def test_a_hub_that_does_not_welcome_us_is_dead_after_a_while():
    talk = Talk(connected=False)
    assert not talk.session.is_dead(talk.now + 10 * ANSWER_S)     # there is no connection
    talk.session.opened(talk.now)
    talk.says()
    assert not talk.session.is_dead(talk.now + ANSWER_S)
    assert talk.session.is_dead(talk.now + ANSWER_S + 1)
    talk.session.broken()
    assert not talk.session.is_dead(talk.now + ANSWER_S + 1)


def test_without_a_question_open_silence_is_no_death():
    talk = Talk()
    talk.says()
    assert not talk.session.is_dead(talk.now + 1e6)


def test_due_is_called_again_when_something_is_due():
    talk = Talk()
    talk.says()
    assert talk.session.due_s(talk.now) == talk.now + 1.0
    talk.now += KEEPALIVE_S - 0.5
    assert talk.session.due_s(talk.now) == pytest.approx(talk.now + 0.5)
    talk.acks(1, 0)
    assert talk.session.due_s(talk.now) == talk.now + ACK_LINGER_S
    talk.sends()
    talk.says()
    talk.sends()
    assert talk.session.due_s(talk.now) == talk.now + LINGER_S
    talk.session.broken()
    assert talk.session.due_s(talk.now) > talk.now


def test_waiting_for_the_hub_is_no_reason_to_look_again_at_once():
    talk = Talk()
    talk.later(KEEPALIVE_S)                       # a ping is under way
    talk.now += KEEPALIVE_S + 1
    assert talk.session.due_s(talk.now) > talk.now
    talk.session.broken()
    talk.sends()
    talk.acks(1, 0)
    talk.now += 10 * KEEPALIVE_S
    assert talk.session.due_s(talk.now) > talk.now


# Receiving

def test_receiving_takes_the_inbox_from_its_beginning_with_a_window():
    talk = Talk()
    assert talk.receives() == [p.Receive(0, WINDOW)]
    assert talk.receives() == []
    talk.delivers(1)
    talk.delivers(2)
    assert talk.takes() == [1, 2]


def test_nothing_is_handed_over_that_was_not_asked_for():
    talk = Talk()
    talk.delivers(1)
    assert talk.takes() == []


def test_a_batch_that_comes_twice_is_handed_over_once():
    talk = Talk()
    talk.receives()
    for number in (1, 2, 2, 1, 3, 2):
        talk.delivers(number, previous=min(number - 1, 2))
    assert talk.takes() == [1, 2, 3]


def test_a_gap_is_asked_for_again_and_nothing_behind_it_is_taken():
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    talk.delivers(3)
    talk.delivers(4)
    [receive] = talk.says(p.Receive)
    assert receive.after == 1 and receive.credit == WINDOW - sum(arrived.size for arrived in talk.session.inbox)
    assert talk.takes() == [1]
    for number in (2, 3, 4):
        talk.delivers(number)
    assert talk.takes() == [2, 3, 4]


def test_numbers_that_the_hub_passed_over_are_no_gap():
    talk = Talk()
    talk.receives()
    talk.delivers(4, previous=0)
    talk.delivers(9, previous=4)
    assert talk.takes() == [4, 9] and talk.says() == []


def test_a_gap_is_asked_for_once_in_a_while():
    talk = Talk()
    talk.receives()
    talk.delivers(2)
    talk.delivers(3)
    assert len(talk.says(p.Receive)) == 1
    talk.now += RESEND_S / 10 - 0.1
    talk.delivers(4)
    assert talk.says(p.Receive) == []
    talk.now += 0.1
    talk.delivers(5)
    assert talk.says(p.Receive) == [p.Receive(0, WINDOW)]


def test_a_loss_at_the_end_shows_in_the_next_pong():
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    request = talk.session.ping(talk.now)
    [ping] = talk.says(p.Ping)
    talk.hub(p.Pong(ping.request, 3, 0))          # the hub has sent 2
    assert request.done
    [receive] = talk.says(p.Receive)
    assert receive.after == 1 and receive.credit == WINDOW - sum(arrived.size for arrived in talk.session.inbox)


@pytest.mark.parametrize(("delivered", "asked"), [(2, False), (0, True), (1, True), (3, True)])
def test_a_pong_that_knows_another_number_than_we_is_a_loss(delivered, asked):
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    talk.session.ping(talk.now)
    [ping] = talk.says(p.Ping)
    talk.hub(p.Pong(ping.request, delivered, 0))
    assert bool(talk.says(p.Receive)) is asked


def test_a_pong_from_before_receive_tells_nothing():
    talk = Talk()
    talk.session.ping(talk.now)
    [ping] = talk.says(p.Ping)
    talk.receives()
    talk.hub(p.Pong(ping.request, 0, 0))
    assert talk.says(p.Receive) == []


def test_after_a_reconnect_the_inbox_goes_on_behind_what_came():
    talk = Talk()
    talk.receives()
    for number in (1, 2, 3):
        talk.delivers(number)
    assert [talk.session.take().number, talk.session.take().number] == [1, 2]
    talk.session.broken()
    talk.connect()
    [receive] = talk.says(p.Receive)
    assert receive.after == 3
    talk.delivers(4, previous=3)
    assert talk.takes() == [3, 4]                 # what waited here was not lost


def test_another_store_has_numbers_of_its_own():
    talk = Talk()
    talk.receives()
    for number in (1, 2, 3):
        talk.delivers(number)
    talk.session.take()
    talk.acks(2, 0)
    talk.session.broken()
    talk.connect(store=b"store--2")
    assert talk.says() == [p.Receive(0, WINDOW)]      # and no acknowledgement
    talk.delivers(1, previous=0)
    assert talk.takes() == [1]
    talk.acks(2, 0)
    assert talk.later(ACK_LINGER_S) == [p.Ack(2, 0)]


def test_the_same_store_after_a_restart_is_no_other_one():
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    talk.session.broken()
    talk.connect(store=b"store--1")
    assert talk.says(p.Receive)[0].after == 1
    assert talk.takes() == [1]


def test_when_another_takes_the_inbox_the_application_is_told_and_what_waits_is_dropped():
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    talk.delivers(2)
    assert talk.session.take().number == 1
    talk.hub(p.Taken())
    assert talk.session.inbox_error.code == "inbox-taken"
    assert talk.takes() == []
    assert talk.receives() == []                  # not before the application knows
    talk.session.inbox_error = None
    assert talk.receives() == [p.Receive(1, WINDOW)]
    talk.delivers(2, previous=1)
    assert talk.takes() == [2]


def test_who_was_told_that_another_has_the_inbox_does_not_take_it_back_by_reconnecting():
    talk = Talk()
    talk.receives()
    talk.hub(p.Taken())
    talk.session.broken()
    talk.connect()
    assert talk.says(p.Receive) == []
    talk.session.inbox_error = None
    assert talk.receives() == [p.Receive(0, WINDOW)]


def test_an_inbox_given_back_while_away_is_not_taken_on_return():
    talk = Talk()
    talk.receives()
    talk.session.broken()
    talk.session.release()
    assert talk.says() == []
    talk.connect()
    assert talk.says() == []


def test_after_release_the_rest_waits_for_whoever_receives_next():
    talk = Talk()
    talk.receives()
    for number in (1, 2, 3):
        talk.delivers(number)
    assert talk.session.take().number == 1
    talk.session.release()
    assert talk.says() == [p.Release()]
    talk.session.release()
    assert talk.says() == []
    talk.delivers(4)
    assert talk.takes() == []
    assert talk.receives() == [p.Receive(1, WINDOW)]


def test_a_batch_that_makes_no_sense_does_not_stop_those_behind_it():
    talk = Talk()
    talk.receives()
    talk.hub(p.Deliver(1, 0, 0, b"no envelope"), b"body")
    assert talk.session.garbled == 1
    talk.delivers(2)
    assert talk.takes() == [2] and talk.says(p.Receive) == []


# One message after the other

def test_messages_are_handed_over_one_by_one_across_batches():
    talk = Talk()
    talk.receives()
    assert not talk.session.has_messages and talk.bodies() == []
    talk.packed(1, b"a", b"b", b"c", skip=1)
    talk.packed(2, b"d")
    assert talk.session.has_messages
    assert talk.bodies(1) == [b"b"]
    assert talk.session.has_messages
    assert talk.bodies() == [b"c", b"d"]
    assert not talk.session.has_messages


def test_a_message_acknowledges_itself_and_those_before_it():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b")
    first, second = talk.messages()
    assert (first.place, second.place) == ((1, 0), (1, 1))
    first.ack()
    assert talk.later(1.0) == [p.Ack(1, 1)]
    second.ack()
    first.ack()
    assert talk.later(1.0) == [p.Ack(2, 0)]


def test_a_batch_that_its_sender_packed_wrongly_is_passed_over_and_counted():
    talk = Talk()
    talk.receives()
    talk.delivers(1, body=b"\xc1")
    talk.delivers(2, body=p.pack_batch([b"a"]), messages=2)
    talk.packed(3, b"good")
    assert talk.bodies() == [b"good"]
    assert talk.session.garbled == 2


def test_messages_that_came_together_are_handed_over_together():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c", skip=1)
    talk.delivers(2, body=b"\xc1")
    talk.packed(3, b"d", (b"e", {"k": "v"}))
    batches = [[m.body for m in talk.session.unpacked(talk.acked)] for _ in range(4)]
    assert batches == [[b"b", b"c"], [], [b"d", b"e"], []]


def test_the_last_message_of_those_that_came_together_acknowledges_all_of_them():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b")
    talk.packed(2, b"c", b"d")
    talk.session.unpacked(talk.acked)
    talk.session.unpacked(talk.acked)[-1].ack()
    assert talk.later(ACK_LINGER_S) == [p.Ack(3, 0)]


def test_what_was_begun_one_by_one_goes_on_together():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c")
    assert talk.bodies(1) == [b"a"]
    assert [m.body for m in talk.session.rest()] == [b"b", b"c"]
    assert talk.session.rest() == [] and talk.bodies() == []


def test_a_message_is_what_was_sent_and_equals_itself_alone():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"same", (b"same", {"k": "v"}), b"same")
    talk.packed(2, b"same", b"same")
    one, two, three, four, five = talk.messages()
    assert [m.headers for m in (one, two, three, four)] == [{}, {"k": "v"}, {}, {}]
    assert [m.place for m in (one, two, three, four, five)] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    assert len({m.id for m in (one, two, three)}) == 3
    assert (one.sender, one.to, one.topic, one.is_broadcast, one.missed) == ("ann", "me", None, False, 0)
    twin = Message(*one)
    assert one == one and one != twin and len({one, twin, one}) == 2
    assert repr(one).endswith("from ann to me, 4 bytes>")


class Hasty(deque):
    """Messages that somebody else pops, one each time that a message is taken from behind."""

    def pop(self):
        self.others = [*getattr(self, "others", ()), *([self.popleft()] if self else [])]
        return super().pop()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("how", ["taken", "release", "rest"])
def test_what_another_thread_pops_while_the_rest_is_dropped_comes_neither_twice_nor_never(how, count):
    talk = Talk()
    talk.receives()
    bodies = [b"%d" % index for index in range(count)]
    talk.packed(1, *bodies)
    talk.session.refill(talk.acked)
    talk.session.ready = Hasty(talk.session.ready)
    if how == "rest":
        after = talk.session.rest()
    elif how == "taken":
        talk.hub(p.Taken())
        talk.session.inbox_error = None
    else:
        talk.session.release()
    before, talk.session.ready = talk.session.ready.others, deque()
    if how != "rest":
        [receive] = talk.receives()
        if receive.after == 0:
            talk.packed(1, *bodies, previous=0)
        after = talk.messages()
    assert [m.body for m in (*before, *after)] == bodies


@pytest.mark.parametrize("how", ["taken", "release"])
def test_a_batch_handed_over_in_part_goes_on_where_it_stopped(how):
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a")
    talk.packed(2, b"b", b"c", b"d")
    talk.packed(3, b"e")
    assert talk.bodies(2) == [b"a", b"b"]
    if how == "taken":
        talk.hub(p.Taken())
        talk.session.inbox_error = None
    else:
        talk.session.release()
    assert talk.bodies() == []
    [receive] = talk.receives()
    assert receive.after == 1
    talk.packed(2, b"b", b"c", b"d", previous=1)
    talk.packed(3, b"e")
    assert talk.bodies() == [b"c", b"d", b"e"]


def test_what_another_acknowledged_of_a_batch_begun_is_not_handed_over_again():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c", b"d")
    assert talk.bodies(1) == [b"a"]
    talk.session.release()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c", b"d", skip=3)
    assert talk.bodies() == [b"d"]


def test_a_batch_begun_is_of_no_meaning_in_another_store():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b")
    assert talk.bodies(1) == [b"a"]
    talk.session.broken()
    talk.connect(store=b"store--2")
    assert talk.bodies() == []
    talk.packed(1, b"x", b"y", previous=0)
    assert talk.bodies() == [b"x", b"y"]


def test_a_message_of_another_store_acknowledges_nothing_in_this_one():
    talk = Talk()
    talk.receives()
    talk.packed(70, b"old", previous=0)
    [old] = talk.messages()
    talk.session.broken()
    talk.connect(store=b"store--2")
    old.ack()
    assert talk.later(1.0) == [p.Receive(0, WINDOW)]
    talk.packed(1, b"new", previous=0)
    [new] = talk.messages()
    new.ack()
    assert talk.later(1.0) == [p.Ack(2, 0)]


def test_a_broken_connection_interrupts_no_batch():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b")
    talk.packed(2, b"c")
    assert talk.bodies(1) == [b"a"]
    talk.session.broken()
    talk.connect()
    assert talk.says(p.Receive)[0].after == 2
    assert talk.bodies() == [b"b", b"c"]


# Credit

def test_credit_comes_back_as_the_application_takes_a_quarter_of_a_window_at_a_time():
    talk = Talk()
    talk.receives()
    size = talk.delivers(1, body=b"x" * 500)
    talk.delivers(2, body=b"x" * 500)
    assert size < WINDOW // 4 < 2 * size
    assert talk.says() == []
    talk.session.take()
    assert talk.says() == []
    talk.session.take()
    assert talk.says() == [p.Credit(WINDOW + 2 * size, p.WINDOW_BYTES, 0)]
    assert talk.says() == []


def test_a_stalled_application_gives_no_credit():
    talk = Talk()
    talk.receives()
    for number in range(1, 9):
        talk.delivers(number, body=b"x" * 500)
    assert talk.later(1.0) == []


def test_what_is_thrown_away_costs_no_credit():
    talk = Talk()
    talk.receives()
    talk.delivers(1, body=b"x" * 2000)
    talk.takes()
    talk.says()
    size = talk.delivers(1, previous=0, body=b"x" * 2000)
    [credit] = talk.says(p.Credit)
    assert credit.inbox == WINDOW + 2 * size
    size += talk.delivers(9, body=b"x" * 2000)     # a gap
    [receive] = talk.says(p.Receive)
    assert receive.after == 1 and receive.credit == WINDOW - sum(arrived.size for arrived in talk.session.inbox)


def test_credit_is_counted_anew_since_each_receive():
    talk = Talk()
    talk.receives()
    talk.delivers(1, body=b"x" * 2000)
    talk.takes()
    talk.says()
    talk.session.broken()
    talk.connect()
    [receive] = talk.says(p.Receive)
    assert receive.after == 1 and receive.credit == WINDOW - sum(arrived.size for arrived in talk.session.inbox)
    size = talk.delivers(2, body=b"x" * 2000)
    talk.takes()
    assert talk.says(p.Credit) == [p.Credit(WINDOW + size, p.WINDOW_BYTES, 0)]


def test_what_still_waits_here_takes_room_in_a_new_window():
    talk = Talk()
    talk.receives()
    size = talk.delivers(1, body=b"x" * 2000)
    talk.session.broken()
    talk.connect()
    assert talk.says(p.Receive) == [p.Receive(1, WINDOW - size)]
    for number in (2, 3):
        talk.delivers(number, body=b"x" * 2000)
    talk.session.broken()
    talk.connect()
    assert talk.says(p.Receive) == [p.Receive(3, 0)]
    talk.takes()
    assert talk.says(p.Credit) == [p.Credit(WINDOW, p.WINDOW_BYTES, 0)]


def test_a_batch_that_makes_no_sense_costs_no_credit():
    talk = Talk()
    talk.receives()
    for number in range(1, 9):
        talk.hub(p.Deliver(number, number - 1, 0, b"no envelope"), b"x" * 1500)
    assert talk.says(p.Credit)[-1].inbox >= 2 * WINDOW
    talk.session.broken()
    talk.connect()
    assert talk.says(p.Receive) == [p.Receive(8, WINDOW)]


def test_however_often_the_connection_breaks_a_stalled_application_holds_a_window_or_two():
    talk = Talk()
    talk.receives()
    number, held = 0, 0
    for _ in range(10):
        credit = WINDOW if number == 0 else talk.says(p.Receive)[0].credit
        while credit > 0:
            number += 1
            size = talk.delivers(number, body=b"x" * 500)
            credit, held = credit - size, held + size
        talk.session.broken()
        talk.connect()
    assert held < 2 * WINDOW + 1000


def test_live_messages_over_this_connection_give_their_credit_back_at_once():
    talk = Talk()
    talk.listens("a")
    body = b"x" * (p.WINDOW_BYTES // 4)
    talk.lives("a", 0, 1, body=body)
    [credit] = talk.says()
    assert credit.live > p.WINDOW_BYTES + len(body)
    talk.session.broken()
    talk.connect()
    talk.says()
    talk.lives("a", 1, 2, body=body)
    assert talk.says(p.Credit)[0].live == credit.live       # counted anew since Welcome


# Acknowledging

def test_acknowledgements_wait_a_moment_for_the_next_one():
    talk = Talk()
    assert talk.acks(1, 2)
    assert not talk.acks(2, 0, after_s=0.001)
    assert not talk.acks(4, 0, after_s=0.002)
    assert talk.session.has_acks
    assert talk.later(ACK_LINGER_S * 0.9) == []
    assert talk.later(ACK_LINGER_S * 0.1 + 1e-9) == [p.Ack(4, 0)]
    assert talk.later(1.0) == []
    assert talk.session.has_acks                     # nobody has said that it arrived
    talk.session.ping(talk.now)
    talk.hub(p.Pong(talk.says(p.Ping)[0].request, 0, 0))
    assert not talk.session.has_acks


def test_an_acknowledgement_of_less_is_none():
    talk = Talk()
    talk.acks(3, 2)
    talk.later(1.0)
    for ack in ((3, 2), (3, 1), (3, 0), (2, 9), (0, 0)):
        talk.acks(*ack)
        assert talk.later(1.0) == []
    talk.acks(3, 3)
    assert talk.later(1.0) == [p.Ack(3, 3)]


class Marks(list):
    """Marks among which another one comes while they are looked at."""

    def __init__(self, late, when):
        super().__init__()
        self.late, self.when = late, when

    def look(self, when):
        if self.late is not None and self.when == when:
            message, self.late = self.late, None
            message.ack()

    def __len__(self):
        self.look("before they are counted")
        count = super().__len__()
        self.look("after they were counted")
        return count

    def __delitem__(self, which):
        self.look("before they are forgotten")
        super().__delitem__(which)
        self.look("after they were forgotten")


@pytest.mark.parametrize("when", ["before they are counted", "after they were counted",
                                  "before they are forgotten", "after they were forgotten"])
def test_an_acknowledgement_made_while_others_are_looked_at_is_not_lost(when):
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c", b"d")
    first, _, third, _ = talk.messages()
    arrival = first[2]
    arrival.marks = Marks(third, when)
    arrival.mark = arrival.marks.append
    first.ack()
    said = talk.later(ACK_LINGER_S) + talk.later(ACK_LINGER_S)
    assert arrival.marks.late is None and said[-1] == p.Ack(1, 3)
    assert list(arrival.marks) == [] and not arrival.told


def test_the_highest_of_many_acknowledgements_is_told_in_whatever_order_they_were_made():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b")
    talk.packed(2, b"c", b"d", b"e")
    messages = talk.messages()
    for index in (3, 0, 2, 1, 0):
        messages[index].ack()
    assert talk.later(ACK_LINGER_S) == [p.Ack(2, 2)]
    messages[4].ack()
    messages[0].ack()
    assert talk.later(ACK_LINGER_S) == [p.Ack(3, 0)]


def test_the_hub_is_told_once_however_many_are_acknowledged():
    talk = Talk()
    talk.receives()
    talk.packed(1, *[b"x"] * 50)
    told = []
    talk.session.refill(lambda arrival: told.append(talk.acked(arrival)))
    for message in talk.session.ready:
        message.ack()
    assert told == [True]
    assert talk.later(ACK_LINGER_S) == [p.Ack(2, 0)]


def test_acknowledgements_do_not_pile_up_without_a_connection():
    talk = Talk()
    talk.receives()
    talk.packed(1, b"a", b"b", b"c")
    first, second, third = talk.messages()
    first.ack()
    talk.session.broken()
    for message in (first, second) * 50:
        message.ack()
    assert first[2].marks == [] and talk.session.has_acks
    talk.connect()
    assert talk.says(p.Ack) == [p.Ack(1, 2)]
    third.ack()
    assert talk.later(ACK_LINGER_S) == [p.Ack(2, 0)]


def test_a_live_message_needs_no_acknowledgement():
    arrival = Arrival(p.Envelope("ann", 5, p.PUBLISH, "a", ELSE, 1, 1), 0, 0)
    message = Message(b"x", None, arrival, 0)
    for _ in range(3):
        message.ack()
    assert arrival.marks == []


def test_acknowledgements_can_be_sent_at_once():
    talk = Talk()
    talk.session.ack_now()
    assert talk.says() == []
    talk.acks(3, 0)
    talk.session.ack_now()
    assert talk.says() == [p.Ack(3, 0)]
    talk.session.ack_now()
    assert talk.says() == []


def test_the_last_acknowledgement_is_told_anew_after_a_reconnect_before_receiving():
    talk = Talk()
    talk.receives()
    talk.delivers(1)
    talk.takes()
    talk.acks(2, 0)
    talk.later(1.0)
    talk.session.broken()
    talk.connect()
    assert talk.says() == [p.Ack(2, 0), p.Receive(1, WINDOW)]


def test_an_acknowledgement_made_while_away_is_told_on_return():
    talk = Talk()
    talk.session.broken()
    talk.acks(2, 0)
    assert talk.later(1.0) == []
    talk.connect()
    assert talk.says() == [p.Ack(2, 0)]


def test_a_ping_is_behind_what_has_not_been_confirmed():
    """So that its answer confirms the acknowledgements, even if they were lost once."""
    talk = Talk()
    talk.acks(2, 0)
    talk.later(1.0)
    talk.session.ping(talk.now)
    assert [type(c) for c in talk.says()] == [p.Ack, p.Credit, p.Ping]
    talk.session.ping(talk.now)
    assert [type(c) for c in talk.says()] == [p.Ping]
    talk.receives()
    talk.delivers(1, body=b"x" * 2000)
    talk.takes()
    [credit] = talk.says()
    talk.session.ping(talk.now)
    assert credit in talk.says()


def test_bye_tells_the_last_acknowledgement_and_what_is_settled():
    talk = Talk()
    talk.sends()
    talk.says()
    talk.hub(p.Accepted(BOX, 1, []))
    talk.acks(5, 0)
    talk.session.bye()
    assert talk.says() == [p.Ack(5, 0), p.Bye(BOX, 1)]
    other = Talk(connected=False)
    other.session.bye()
    assert other.says() == []


# Listening

def test_live_messages_come_to_those_who_listen():
    talk = Talk()
    one, two = talk.listens("a.#"), talk.listens("a.b", "c")
    talk.lives("a.b", 0, 1, body=b"1")
    talk.lives("a.x", 0, 2, body=b"2")
    talk.lives("c", 0, 3, body=b"3")
    talk.lives("d", 0, 4, body=b"4")
    assert (one.queue[0].number, one.queue[0].skip, one.queue[0].envelope.sender) == (0, 0, "ann")
    assert [body for body, _ in heard(one)] == [b"1", b"2"]
    assert [body for body, _ in heard(two)] == [b"1", b"3"]


def test_what_was_missed_is_told_with_the_next_message():
    talk = Talk()
    listening = talk.listens("a")
    talk.lives("a", 10, 1, messages=2)            # what was before it was before we listened
    talk.lives("a", 12, 2)
    talk.lives("a", 17, 3)
    assert [missed for _, missed in heard(listening)] == [0, 0, 4]
    assert talk.session.missed == 4


def test_each_topic_has_its_own_count():
    talk = Talk()
    listening = talk.listens("#")
    talk.lives("a", 5, 1, stream=1)
    talk.lives("b", 9, 2, stream=2)
    talk.lives("a", 6, 3, stream=1)
    talk.lives("b", 12, 4, stream=2)
    assert [missed for _, missed in heard(listening)] == [0, 0, 0, 2]


def test_a_new_stream_was_missed_from_its_beginning():
    """As after a restart of the hub: everything before this message was published while we listened."""
    talk = Talk()
    listening = talk.listens("a")
    talk.lives("a", 40, 1, stream=7)
    talk.lives("a", 3, 2, stream=8)
    talk.lives("a", 4, 3, stream=8)
    assert [missed for _, missed in heard(listening)] == [0, 3, 0]


def test_a_live_message_that_comes_over_both_ways_is_heard_once():
    talk = Talk()
    listening = talk.listens("a")
    for number in (1, 2, 3):
        for own_way in (True, False):
            talk.lives("a", number - 1, number, own_way=own_way)
    assert [missed for _, missed in heard(listening)] == [0, 0, 0]


def test_a_live_message_that_comes_late_was_missed_already():
    talk = Talk()
    listening = talk.listens("a")
    talk.lives("a", 0, 1, body=b"1")
    talk.lives("a", 2, 3, body=b"3")
    talk.lives("a", 1, 2, body=b"2")
    talk.lives("a", 3, 4, body=b"4")
    assert heard(listening) == [(b"1", 0), (b"3", 1), (b"4", 0)]
    assert talk.session.missed == 1


def test_what_came_late_is_dropped_whoever_sent_it():
    talk = Talk()
    listening = talk.listens("a")
    talk.lives("a", 0, 1, body=b"1")
    talk.lives("a", 2, 2, body=b"3")
    talk.lives("a", 1, 1, outbox=b"outbox-5", body=b"2")
    assert heard(listening) == [(b"1", 0), (b"3", 1)] and talk.session.missed == 1


def test_so_many_topics_are_remembered_the_longest_silent_forgotten_first(monkeypatch):
    monkeypatch.setattr(module, "SEEN_MAX", 3)
    talk = Talk()
    listening = talk.listens("#")
    for number, topic in enumerate(("a", "b", "c", "a", "d"), 1):
        talk.lives(topic, 10 * number, number, stream=ord(topic))
        assert len(talk.session._streams) <= 3 and len(talk.session._seen) <= 3
    heard(listening)
    talk.lives("a", 100, 6, stream=ord("a"))
    talk.lives("c", 100, 7, stream=ord("c"))
    talk.lives("b", 100, 8, stream=ord("b"))      # forgotten: what it missed is not known
    assert [missed for _, missed in heard(listening)] == [59, 69, 0]


def test_a_batch_published_again_after_the_hub_was_killed_is_heard_once():
    """It was live before it was on disk; the sender's number tells."""
    talk = Talk()
    listening = talk.listens("a")
    talk.lives("a", 0, 1, stream=7, body=b"1")
    talk.lives("a", 1, 2, stream=7, body=b"2")
    talk.lives("a", 0, 2, stream=8, body=b"2")
    talk.lives("a", 1, 3, stream=8, body=b"3")
    assert [body for body, _ in heard(listening)] == [b"1", b"2", b"3"]
    talk.lives("a", 2, 1, stream=8, outbox=b"outbox-5", body=b"another sender's")
    assert [body for body, _ in heard(listening)] == [b"another sender's"]


def test_one_s_own_broadcast_is_not_heard_but_one_s_own_publication_is():
    talk = Talk(name="me")
    listening = talk.listens("a", broadcasts=True)
    talk.lives("", 0, 1, sender="me", outbox=BOX, body=b"mine")
    talk.lives("", 1, 1, sender="ann", body=b"hers")
    talk.lives("a", 0, 2, sender="me", outbox=BOX, body=b"published")
    assert [body for body, _ in heard(listening)] == [b"hers", b"published"]


def test_one_s_own_broadcast_is_not_missed_either():
    talk = Talk(name="me")
    listening = talk.listens(broadcasts=True)
    talk.lives("", 0, 1, sender="ann")
    talk.lives("", 1, 1, sender="me", outbox=BOX, messages=3)
    talk.lives("", 4, 2, sender="ann")
    assert [missed for _, missed in heard(listening)] == [0, 0]


def test_what_was_missed_before_one_s_own_broadcast_is_told_too():
    talk = Talk(name="me")
    listening = talk.listens(broadcasts=True)
    talk.lives("", 0, 1, sender="ann")
    talk.lives("", 3, 1, sender="me", outbox=BOX)         # two of hers were lost
    talk.lives("", 4, 4, sender="ann")
    assert [missed for _, missed in heard(listening)] == [0, 2] and talk.session.missed == 2


def test_broadcasts_come_to_those_who_asked_for_them():
    talk = Talk()
    without, with_them = talk.listens("#"), talk.listens("x", broadcasts=True)
    talk.lives("", 0, 1, body=b"all")
    assert heard(without) == [] and heard(with_them) == [(b"all", 0)]


def test_what_came_while_nobody_listened_is_not_missed():
    talk = Talk()
    first = talk.listens("a")
    talk.lives("a", 0, 1)
    talk.session.unlisten(first)
    second = talk.listens("a")
    talk.lives("a", 50, 40)
    assert heard(second) == [(b"live", 0)] and talk.session.missed == 0


def test_a_listener_who_does_not_read_misses_the_rest_and_is_told():
    talk = Talk()
    slow = talk.listens("a")
    big = b"x" * (LIVE_BYTES_MAX // 2 + 1)
    for number in range(1, 5):
        talk.lives("a", number - 1, number, body=big, messages=1)
    assert len(heard(slow)) == 2
    talk.lives("a", 4, 5, body=b"small")
    assert heard(slow) == [(b"small", 2)] and talk.session.missed == 2


def test_how_much_waits_for_a_listener_is_its_own_choice():
    talk = Talk()
    talk.session.live_bytes = 3000
    slow = talk.listens("a")
    for number in range(1, 6):
        talk.lives("a", number - 1, number, body=b"x" * 1100, messages=1)
    assert len(heard(slow)) == 3


def test_a_listener_who_does_not_read_takes_nothing_from_another():
    talk = Talk()
    slow, fast = talk.listens("a"), talk.listens("a")
    big = b"x" * (LIVE_BYTES_MAX // 2 + 1)
    got = 0
    for number in range(1, 6):
        talk.lives("a", number - 1, number, body=big)
        got += len(heard(fast))
    assert got == 5 and len(slow.queue) == 2
    assert talk.session.missed == 3


def test_missed_messages_are_reported_with_the_credit():
    talk = Talk()
    talk.listens("a")
    talk.lives("a", 0, 1)
    talk.lives("a", 5, 2, body=b"x" * (p.WINDOW_BYTES // 4))
    assert [credit.missed for credit in talk.says(p.Credit)] == [4]


def test_listening_is_asked_for_again_on_each_connection():
    talk = Talk()
    listening = talk.listens("a", "b", broadcasts=True)
    talk.session.broken()
    talk.connect()
    assert sorted(command.pattern for command in talk.says(p.Listen)) == ["", "a", "b"]
    assert not all(request.done for request in listening.requests)


def test_what_was_refused_is_not_asked_for_again():
    talk = Talk()
    listening = Listening(("a", "b"), False)
    talk.session.listen(listening)
    first, second = talk.says(p.Listen)
    talk.hub(p.Done(first.request, {}))
    talk.hub(p.Denied(second.request, "forbidden", "no"))
    assert listening.error.code == "forbidden"
    talk.session.broken()
    talk.connect()
    assert [command.pattern for command in talk.says(p.Listen)] == ["a"]


def test_a_question_to_listen_that_waits_is_asked_once_on_the_next_connection():
    talk = Talk()
    talk.session.listen(Listening(("a",), False))
    talk.says()
    talk.session.broken()
    talk.connect()
    assert [command.pattern for command in talk.says(p.Listen)] == ["a"]


def test_the_last_listener_of_a_pattern_ends_it():
    talk = Talk()
    one, two = talk.listens("a", "b"), talk.listens("b", broadcasts=True)
    talk.session.unlisten(one)
    assert [command.pattern for command in talk.says(p.Unlisten)] == ["a"]
    talk.session.unlisten(one)
    assert talk.says(p.Unlisten) == []
    talk.lives("b", 0, 1)
    assert len(one.queue) == 0 and len(two.queue) == 1
    talk.session.unlisten(two)
    assert sorted(command.pattern for command in talk.says(p.Unlisten)) == ["", "b"]


def test_a_listener_who_left_before_the_connection_came_is_not_asked_for():
    talk = Talk(connected=False)
    listening = Listening(("a",), False)
    talk.session.listen(listening)
    talk.session.unlisten(listening)
    talk.connect()
    assert talk.says(p.Listen) == []
