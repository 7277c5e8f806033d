"""An inbox: its numbers, its credit, what goes out fresh and what is read from disk, what is done with."""

import random

import pytest

from zbackbone.protocol import BATCH_MESSAGES_MAX
from zbackbone.router.inbox import Inbox

ENVELOPE = b"env"
SIZE = 10                        # of each batch in the stories: 3 of envelope, 7 of body
LOTS = 1 << 20
ALL = (1 << 40) - 1              # "there is nothing behind", as a store says it


def body(number):
    return b"%07d" % number


def put(inbox, *numbers):
    """Puts these batches in; whether each may go out without a look at the disk."""
    return [inbox.put(number, ENVELOPE, body(number), SIZE, 1) for number in numbers]


def inbox_with(batches, **attach):
    inbox = Inbox(7)
    put(inbox, *range(1, batches + 1))
    if attach:
        inbox.attach("peer", attach.get("after", 0), attach.get("credit", LOTS))
    return inbox


def read(inbox, numbers, upto=ALL):
    """What a hungry inbox is given from disk."""
    inbox.fill([(number, ENVELOPE, body(number)) for number in numbers], upto)


def numbers(due):
    return [d.number for d in due]


def chain(due):
    return [(d.previous, d.number) for d in due]


# Numbers and counts

def test_a_new_inbox_is_empty_and_nobody_s():
    inbox = Inbox(7)
    assert (inbox.next, inbox.base, inbox.skip, inbox.messages, inbox.size) == (1, 1, 0, 0, 0)
    assert inbox.peer is None and inbox.due() == [] and not inbox.behind


def test_what_is_put_in_is_counted():
    inbox = Inbox(7)
    inbox.put(1, b"", b"", 100, 5)
    inbox.put(2, b"", b"", 50, 1)
    assert (inbox.next, inbox.messages, inbox.size) == (3, 6, 150)


def test_without_a_receiver_nothing_is_kept_in_memory():
    inbox = Inbox(7)
    assert put(inbox, *range(1, 100)) == [False] * 99
    assert not inbox.fresh and inbox.due() == [] and not inbox.behind


# The fresh path

def test_what_comes_for_a_receiver_that_keeps_up_goes_out_without_the_disk():
    inbox = inbox_with(0, credit=LOTS)
    assert put(inbox, 1, 2) == [True, True]
    assert inbox.due() == [(1, 0, 0, ENVELOPE, body(1)), (2, 1, 0, ENVELOPE, body(2))]
    assert put(inbox, 3) == [True]
    assert chain(inbox.due()) == [(2, 3)]
    assert inbox.due() == [] and not inbox.behind


def test_what_was_sent_is_not_sent_again():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2)
    inbox.due()
    assert inbox.due() == []
    assert inbox.fresh_bytes == 0 and inbox.sent == 2 * SIZE


def test_behind_a_backlog_everything_comes_from_disk_in_its_order():
    inbox = inbox_with(2, credit=LOTS)
    assert inbox.behind
    assert put(inbox, 3) == [False]            # 1 and 2 are before it
    assert inbox.due() == []
    read(inbox, [1, 2])
    assert put(inbox, 4) == [False]            # 3 is before it
    assert numbers(inbox.due()) == [1, 2]
    assert inbox.behind
    read(inbox, [3, 4])
    assert put(inbox, 5) == [True]             # right behind what lies ready
    assert chain(inbox.due()) == [(2, 3), (3, 4), (4, 5)]
    assert not inbox.behind


def test_memory_holds_no_more_than_the_receiver_could_take():
    inbox = inbox_with(0, credit=3 * SIZE)
    assert put(inbox, 1, 2, 3, 4, 5) == [True, True, True, False, False]
    assert inbox.fresh_bytes == 3 * SIZE
    assert numbers(inbox.due()) == [1, 2, 3]
    assert put(inbox, 6) == [False]
    assert not inbox.behind                    # it has no credit to take them


# Credit

#   credit           sent
CREDITS = [
    (0,              []),
    (1,              [1]),
    (SIZE,           [1]),
    (SIZE + 1,       [1, 2]),
    (3 * SIZE - 1,   [1, 2, 3]),
    (3 * SIZE,       [1, 2, 3]),
    (LOTS,           [1, 2, 3, 4]),
]


@pytest.mark.parametrize("from_disk", [False, True])
@pytest.mark.parametrize(("credit", "sent"), CREDITS)
def test_only_the_last_batch_may_go_over_the_credit(credit, sent, from_disk):
    inbox = inbox_with(4 if from_disk else 0, credit=credit)
    assert inbox.behind is (from_disk and credit > 0)
    if from_disk:
        read(inbox, [1, 2, 3, 4])
    else:
        put(inbox, 1, 2, 3, 4)
    assert numbers(inbox.due()) == sent
    assert inbox.due() == []


def test_more_credit_lets_it_go_on_where_it_stopped():
    inbox = inbox_with(5, credit=2 * SIZE)
    read(inbox, [1, 2, 3], upto=3)
    assert numbers(inbox.due()) == [1, 2]
    assert not inbox.behind
    inbox.credit = 4 * SIZE
    assert not inbox.behind                    # what is needed lies here already
    assert numbers(inbox.due()) == [3]
    assert inbox.behind
    read(inbox, [4, 5])
    assert numbers(inbox.due()) == [4]
    inbox.credit = LOTS
    assert chain(inbox.due()) == [(4, 5)]
    assert not inbox.behind


# Attaching

#   after   acknowledged up to   first sent   previous
BEGINNINGS = [
    (0,     0,                   1,           0),
    (2,     0,                   3,           2),
    (5,     0,                   None,        None),
    (0,     3,                   4,           0),
    (3,     3,                   4,           3),
    (4,     3,                   5,           4),
    (1,     4,                   5,           1),
    (9,     0,                   None,        None),
]


@pytest.mark.parametrize(("after", "acked", "first", "previous"), BEGINNINGS)
def test_a_receiver_begins_behind_what_it_has_and_what_is_done_with(after, acked, first, previous):
    inbox = inbox_with(5)
    if acked:
        inbox.ack(acked + 1, 0)
    inbox.attach("peer", after, LOTS)
    assert inbox.behind is (first is not None)
    if first is not None:
        assert inbox.cursor == first - 1
        read(inbox, range(first, 6))
        due = inbox.due()
        assert numbers(due) == list(range(first, 6))
        assert due[0].previous == previous


def test_who_claims_to_have_more_than_there_is_gets_what_comes_next():
    inbox = inbox_with(5, after=9)
    assert not inbox.behind
    assert put(inbox, 6) == [True]
    assert numbers(inbox.due()) == [6]


def test_messages_done_with_inside_a_batch_wait_no_more():
    inbox = Inbox(7)
    inbox.put(1, b"", b"", 10, 5)
    inbox.ack(1, 3)
    assert inbox.waiting == 2
    inbox.ack(1, 9)                            # more than the batch has
    assert inbox.waiting == 0


def test_another_receiver_begins_anew_and_the_first_gets_nothing_more():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2)
    inbox.due()
    put(inbox, 3)
    inbox.attach("other", 0, 2 * SIZE)
    assert inbox.peer == "other" and not inbox.fresh and inbox.sent == inbox.fresh_bytes == 0
    assert inbox.behind
    read(inbox, [1, 2, 3])
    assert chain(inbox.due()) == [(0, 1), (1, 2)]


def test_who_let_go_of_an_inbox_gets_nothing_and_holds_nothing_in_memory():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2)
    inbox.detach()
    assert inbox.peer is None and not inbox.fresh and inbox.fresh_bytes == 0
    assert inbox.due() == [] and not inbox.behind
    assert put(inbox, 3) == [False]
    assert (inbox.next, inbox.messages, inbox.size) == (4, 3, 3 * SIZE)


# The chain, by which a receiver sees that something was lost

def test_each_batch_names_the_one_sent_before_it():
    inbox = inbox_with(4, after=1)
    read(inbox, [2, 4])                        # 3 was damaged
    put(inbox, 5)
    assert chain(inbox.due()) == [(1, 2), (2, 4), (4, 5)]


def test_numbers_that_the_disk_has_lost_are_passed_over_and_the_next_one_comes():
    inbox = inbox_with(3, credit=LOTS)
    read(inbox, [1])
    assert numbers(inbox.due()) == [1]
    assert inbox.behind
    read(inbox, [])
    assert not inbox.behind and inbox.cursor == 3
    assert put(inbox, 4) == [True]
    assert chain(inbox.due()) == [(1, 4)]


def test_a_read_that_ended_in_lost_numbers_goes_on_behind_them():
    inbox = inbox_with(9, credit=LOTS)
    read(inbox, [], upto=4)
    assert inbox.behind and inbox.cursor == 4
    read(inbox, [5], upto=5)
    assert numbers(inbox.due()) == [5]


# What could not be sent

def test_what_could_not_be_sent_is_read_again_and_the_chain_holds():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2, 3, 4)
    due = inbox.due()
    put(inbox, 5)
    inbox.unsend(due[1:])
    assert not inbox.behind
    inbox.is_stuck = False          # as when its peer may have room again
    assert (inbox.cursor, inbox.told, inbox.sent, inbox.fresh_bytes) == (1, 1, SIZE, 0)
    assert inbox.behind and inbox.due() == []
    assert put(inbox, 6) == [False]
    read(inbox, [2, 3, 4, 5, 6])
    assert chain(inbox.due()) == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    assert inbox.sent == 6 * SIZE


def test_a_first_batch_that_could_not_be_sent_keeps_what_the_receiver_said_it_has():
    inbox = inbox_with(5, after=2)
    inbox.ack(4, 0)
    read(inbox, [4, 5])
    due = inbox.due()
    assert chain(due) == [(2, 4), (4, 5)]
    inbox.unsend(due)
    assert not inbox.behind
    inbox.is_stuck = False          # as when its peer may have room again
    assert inbox.sent == 0
    read(inbox, [4, 5])
    assert chain(inbox.due()) == [(2, 4), (4, 5)]


def test_a_full_pipe_is_the_peer_s_and_ends_with_it():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1)
    inbox.unsend(inbox.due())
    assert put(inbox, 2) == [False] and not inbox.behind        # until it may have room
    inbox.attach("another", 0, LOTS)
    assert inbox.behind
    read(inbox, [1, 2])
    assert numbers(inbox.due()) == [1, 2]


# Acknowledging

#   base 2, skip 1, next 5
ACKABLE = [
    ((1, 0), False), ((1, 9), False), ((2, 0), False), ((2, 1), False), ((2, 2), True), ((3, 0), True),
    ((4, 0), True), ((4, 7), True), ((5, 0), True), ((5, 1), False), ((6, 0), False), ((0, 0), False),
    ((4, BATCH_MESSAGES_MAX), True), ((4, BATCH_MESSAGES_MAX + 1), False), ((2, (1 << 63) - 1), False),
]


@pytest.mark.parametrize(("ack", "yes"), ACKABLE)
def test_an_acknowledgement_moves_on_and_not_past_what_there_is(ack, yes):
    inbox = inbox_with(4)
    inbox.ack(2, 1)
    assert inbox.can_ack(*ack) is yes


def test_what_is_acknowledged_is_not_sent_any_more():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2, 3)
    inbox.ack(3, 0)
    assert chain(inbox.due()) == [(0, 3)]
    assert inbox.fresh_bytes == 0 and inbox.sent == SIZE


def test_who_acknowledges_a_backlog_is_not_behind_it():
    inbox = inbox_with(5, credit=LOTS)
    inbox.ack(6, 0)
    assert not inbox.behind
    assert put(inbox, 6) == [True]
    assert chain(inbox.due()) == [(0, 6)]


def test_an_acknowledgement_of_the_past_takes_nothing_back():
    inbox = inbox_with(0, credit=LOTS)
    put(inbox, 1, 2, 3)
    inbox.due()
    inbox.ack(2, 0)
    assert inbox.cursor == 3 and not inbox.behind
    assert put(inbox, 4) == [True]
    assert numbers(inbox.due()) == [4]


def test_messages_acknowledged_inside_a_batch_are_told_with_that_batch_alone():
    inbox = inbox_with(3)
    inbox.ack(2, 4)
    inbox.attach("peer", 0, LOTS)
    read(inbox, [2, 3])
    assert [(d.number, d.skip) for d in inbox.due()] == [(2, 4), (3, 0)]


def test_an_acknowledgement_without_a_receiver_is_remembered():
    inbox = inbox_with(3)
    inbox.ack(3, 0)
    assert (inbox.base, inbox.skip) == (3, 0)
    inbox.attach("peer", 0, LOTS)
    assert inbox.cursor == 2


# Everything at once

class Plain:
    """What an inbox is to its receiver, worked out the long way."""

    def __init__(self):
        self.disk = {}           # number -> body, of all that was not acknowledged
        self.base, self.skip = 1, 0
        self.attached = False

    def attach(self, after, credit):
        self.attached, self.after, self.credit = True, after, credit
        self.told, self.sent = after, 0

    def next_to_send(self):
        """The lowest number that the receiver lacks, if it may have one."""
        if not self.attached or self.sent >= self.credit:
            return None
        return min((n for n in self.disk if n > self.told and n >= self.base), default=None)

    def send(self):
        number = self.next_to_send()
        previous, self.told = self.told, number
        self.sent += len(ENVELOPE) + len(self.disk[number])
        return number, previous, self.skip if number == self.base else 0, ENVELOPE, self.disk[number]

    def ack(self, number, skip):
        self.base, self.skip = number, skip
        self.disk = {n: b for n, b in self.disk.items() if n >= number}


@pytest.mark.parametrize("trial", range(30))
def test_whatever_happens_each_batch_goes_once_to_a_receiver_in_order_within_its_credit(trial):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    inbox, plain = Inbox(1), Plain()
    batches = 0
    for step in range(400):
        match rng.choices(["put", "attach", "detach", "ack", "credit", "send", "read", "lose"],
                          [8, 1, 0.3, 2, 3, 6, 4, 0.3])[0]:
            case "put":
                batches += rng.choice((1, 1, 1, 1, 1, 50))       # numbers may be left out
                plain.disk[batches] = rng.randbytes(rng.choice((0, 1, 20, 200)))
                inbox.put(batches, ENVELOPE, plain.disk[batches],
                          len(ENVELOPE) + len(plain.disk[batches]), 1)
            case "attach":
                after, credit = rng.choice([0, batches, *plain.disk]), rng.choice((0, 1, 50, 500, LOTS))
                inbox.attach(f"peer {step}", after, credit)
                plain.attach(after, credit)
            case "detach":
                inbox.detach()
                plain.attached = False
            case "ack":
                number = rng.choice([max(1, inbox.base - 2), batches + 1, batches + 2, *plain.disk])
                skip = rng.choice((0, 0, 1, 3))
                can = (plain.base, plain.skip) < (number, skip) and (number, skip) <= (batches + 1, 0)
                assert inbox.can_ack(number, skip) is can
                if can:
                    inbox.ack(number, skip)
                    plain.ack(number, skip)
            case "credit" if plain.attached:
                plain.credit = inbox.credit = max(plain.credit, plain.sent + rng.choice((0, 1, 30, 300)))
            case "send":
                due = inbox.due()
                before = plain.told if plain.attached else 0, getattr(plain, "sent", 0)
                assert [tuple(d) for d in due] == [plain.send() for _ in due], step
                if due and rng.random() < 0.2:           # the pipe was full at one of them
                    lost = rng.randrange(len(due))
                    inbox.unsend(due[lost:])
                    assert not inbox.behind
                    inbox.is_stuck = False          # as when its peer may have room again
                    plain.told, plain.sent = before
                    for _ in range(lost):
                        plain.send()
                elif not inbox.behind:
                    assert plain.next_to_send() is None, step
            case "read" if inbox.behind:
                budget, found, upto = rng.choice((1, 100, LOTS)), [], ALL
                for number in sorted(n for n in plain.disk if n > inbox.cursor):
                    found.append((number, ENVELOPE, plain.disk[number]))
                    budget -= len(ENVELOPE) + len(plain.disk[number])
                    if budget <= 0:
                        upto = number
                        break
                inbox.fill(found, upto)
            case "lose" if plain.disk and not inbox.fresh:
                del plain.disk[rng.choice(sorted(plain.disk))]
        assert inbox.next == batches + 1 and (inbox.base, inbox.skip) == (plain.base, plain.skip)
        assert inbox.fresh_bytes == sum(len(e) + len(b) for _, e, b in inbox.fresh)
        assert inbox.peer is not None or not inbox.fresh
    plain.attach(0, LOTS)
    inbox.attach("last", 0, LOTS)
    left = sorted(n for n in plain.disk)
    got = []
    while inbox.behind or inbox.fresh:
        if not inbox.fresh:
            found = [(n, ENVELOPE, plain.disk[n]) for n in left if n > inbox.cursor][:3]
            inbox.fill(found, found[-1][0] if found else ALL)
        got += numbers(inbox.due())
    assert got == left
