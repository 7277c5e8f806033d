"""The outbox: when a batch is closed, when it may leave, and what becomes of it."""

import random
import sys
import threading
from types import SimpleNamespace

import pytest

from zbackbone import protocol as p
from zbackbone.client import outbox as module
from zbackbone.client.connection import Connection
from zbackbone.client.outbox import (BATCH_BYTES, BATCH_MESSAGES, BATCHES_MAX, FAST_S, LINGER_S, SLOW_S, WINDOW_MAX,
                                     WINDOW_MIN, WINDOW_START, Outbox)

IDENT = b"outbox-1"
LOTS = 1 << 40


def new(bytes_max=LOTS):
    return Outbox(IDENT, bytes_max)


def put(outbox, body=b"x", to="bob", way=p.SEND, now_s=0.0, size=None):
    return outbox.put(way, to, body, len(body) + 5 if size is None else size, now_s)


def put_batches(outbox, count, size=100):
    """So many batches of one message each, closed and numbered."""
    out = []
    for _ in range(count):
        out.append(put(outbox, b"x" * size, size=size))
        outbox.seal()
    return out


def numbers(batches):
    return [batch.number for batch in batches]


def items(batch):
    return list(p.unpack_batch(batch.body, batch.count))


# When a batch is closed

def test_messages_to_one_address_share_a_batch():
    outbox = new()
    batch = put(outbox, b"one")
    assert put(outbox, b"two") is batch and put(outbox, b"three") is batch
    assert (batch.count, batch.number, batch.settled) == (3, 0, False)
    [sent] = outbox.due(0.0)
    assert sent is batch and batch.number == 1
    assert items(batch) == [b"one", b"two", b"three"]
    assert batch.items == []                     # packed, it is not held twice


def test_messages_keep_their_headers():
    outbox = new()
    outbox.put(p.SEND, "bob", (b"one", {"a": "b"}), 20, 0.0)
    outbox.put(p.SEND, "bob", b"two", 20, 0.0)
    [batch] = outbox.due(0.0)
    assert items(batch) == [(b"one", {"a": "b"}), b"two"]


#   way, address of the next message      the same batch?
NEIGHBOURS = [
    ((p.PUBLISH, "a"),                     True),
    ((p.PUBLISH, "b"),                     False),
    ((p.SEND, "a"),                        False),
    ((p.BROADCAST, ""),                    False),
]


@pytest.mark.parametrize(("other", "together"), NEIGHBOURS)
def test_another_address_closes_a_batch(other, together):
    outbox = new()
    first = put(outbox, to="a", way=p.PUBLISH)
    second = put(outbox, to=other[1], way=other[0])
    assert (second is first) is together
    assert first.number == (0 if together else 1)
    assert second.number == 0


def test_a_batch_with_as_many_messages_as_it_may_have_is_closed():
    outbox = new()
    batches = {id(put(outbox)) for _ in range(BATCH_MESSAGES)}
    assert len(batches) == 1 and outbox.open is None and outbox.last == 1
    assert put(outbox).number == 0
    assert outbox.unsent[0].count == BATCH_MESSAGES


def test_a_batch_with_as_many_bytes_as_it_may_have_is_closed():
    outbox = new()
    first = put(outbox, size=BATCH_BYTES - 10)
    assert first.number == 0
    assert put(outbox, size=10) is first and first.number == 1


def test_what_no_longer_fits_begins_the_next_batch():
    outbox = new()
    first = put(outbox, size=BATCH_BYTES - 10)
    second = put(outbox, size=11)
    assert second is not first
    assert (first.number, first.count, second.number) == (1, 1, 0)


def test_a_message_larger_than_a_batch_travels_alone():
    outbox = new()
    small, large, next_one = put(outbox, size=10), put(outbox, size=BATCH_BYTES * 3), put(outbox, size=10)
    assert (small.number, large.number, next_one.number) == (1, 2, 0)
    assert large.count == 1


# When a batch leaves

def test_a_lone_message_leaves_at_once():
    outbox = new()
    put(outbox, now_s=5.0)
    assert numbers(outbox.due(5.0)) == [1]
    assert outbox.due_s() is None


def test_behind_others_an_open_batch_lingers_for_more():
    outbox = new()
    put(outbox, now_s=5.0)
    outbox.due(5.0)
    second = put(outbox, now_s=5.0)
    assert outbox.due(5.0 + LINGER_S * 0.9) == []
    assert outbox.due_s() == 5.0 + LINGER_S
    assert put(outbox, now_s=5.0 + LINGER_S * 0.9) is second
    assert numbers(outbox.due(5.0 + LINGER_S)) == [2]
    assert second.count == 2


def test_an_open_batch_does_not_linger_once_all_before_it_is_answered():
    outbox = new()
    put(outbox)
    outbox.due(0.0)
    put(outbox)
    outbox.accepted(1, {}, 0.0)
    assert numbers(outbox.due(0.0)) == [2]


def test_what_is_sealed_does_not_linger():
    outbox = new()
    put(outbox)
    outbox.due(0.0)
    put(outbox)
    outbox.seal()
    outbox.seal()
    assert numbers(outbox.due(0.0)) == [2]
    assert outbox.due(9.0) == [] and outbox.last == 2


def test_the_window_holds_back_what_would_go_over_it():
    outbox = new()
    put_batches(outbox, 10, WINDOW_START // 4)
    assert numbers(outbox.due(0.0)) == [1, 2, 3, 4]
    assert outbox.in_flight == WINDOW_START
    assert outbox.due(0.0) == []
    outbox.accepted(1, {}, 1.0)                  # neither fast nor slow
    assert numbers(outbox.due(1.0)) == [5]


def test_one_batch_may_always_leave_however_small_the_window():
    outbox = new()
    put_batches(outbox, 2, WINDOW_START * 2)
    assert numbers(outbox.due(0.0)) == [1]
    outbox.accepted(1, {}, 1.0)
    assert numbers(outbox.due(1.0)) == [2]


def test_so_many_batches_are_on_their_way_and_no_more():
    outbox = new()
    put_batches(outbox, BATCHES_MAX + 10, 1)
    assert len(outbox.due(0.0)) == BATCHES_MAX
    assert outbox.due(0.0) == []
    outbox.accepted(3, {}, 0.0)
    assert len(outbox.due(0.0)) == 3
    # The hub remembers so many refusals of an outbox; nothing is numbered beyond them.
    assert outbox.sent[-1].number - outbox.settled <= p.IN_FLIGHT_MAX


#   answered after       the window then
ADAPTED = [
    (0.0,                WINDOW_START * 2),
    (FAST_S * 0.99,      WINDOW_START * 2),
    (FAST_S,             WINDOW_START),
    (1.0,                WINDOW_START),
    (SLOW_S,             WINDOW_START),
    (SLOW_S * 1.01,      WINDOW_START // 2),
]


@pytest.mark.parametrize(("took_s", "window"), ADAPTED)
def test_the_window_follows_what_the_link_carries(took_s, window):
    outbox = new()
    put_batches(outbox, 1)
    outbox.due(100.0)
    outbox.accepted(1, {}, 100.0 + took_s)
    assert outbox.window == window


@pytest.mark.parametrize(("took_s", "end"), [(0.1, WINDOW_MAX), (9.0, WINDOW_MIN)])
def test_the_window_has_its_ends(took_s, end):
    outbox = new()
    for number in range(1, 30):
        put_batches(outbox, 1)
        outbox.due(0.0)
        outbox.accepted(number, {}, took_s)
    assert outbox.window == end


# What becomes of it

def test_an_answer_settles_all_up_to_its_number():
    outbox = new()
    batches = put_batches(outbox, 4)
    outbox.due(0.0)
    assert outbox.accepted(3, {}, 0.0) == batches[:3]
    assert [batch.settled for batch in batches] == [True, True, True, False]
    assert all(batch.refusal is None and batch.body == b"" for batch in batches[:3])
    assert (outbox.settled, outbox.last, outbox.in_flight, outbox.size) == (3, 4, 100, 100)
    assert outbox.accepted(3, {}, 0.0) == [] and outbox.settled == 3
    assert outbox.accepted(1, {}, 0.0) == [] and outbox.settled == 3


def test_a_refused_batch_is_settled_with_the_hub_s_reason():
    outbox = new()
    one, two = put_batches(outbox, 2)
    outbox.due(0.0)
    outbox.accepted(2, {2: ("forbidden", "no"), 9: ("old", "news")}, 0.0)
    assert (one.refusal, two.refusal) == (None, ("forbidden", "no"))
    assert outbox.is_empty and outbox.size == 0


def test_an_answer_for_what_was_sent_before_a_reconnect_settles_it_unsent():
    outbox = new()
    one, two, three = put_batches(outbox, 3)
    outbox.due(0.0)
    outbox.rewind()
    assert outbox.accepted(2, {1: ("forbidden", "no")}, 1.0) == [one, two]
    assert one.refusal and two.settled and not three.settled
    assert (outbox.settled, outbox.in_flight, outbox.size) == (2, 0, 100)
    assert numbers(outbox.due(1.0)) == [3]


def test_an_open_batch_is_nobody_s_answer():
    outbox = new()
    batch = put(outbox)
    assert outbox.accepted(5, {}, 0.0) == []
    assert not batch.settled and not outbox.is_empty


@pytest.mark.parametrize(("from_number", "again"), [(0, [1, 2, 3, 4]), (1, [1, 2, 3, 4]), (3, [3, 4]), (5, [])])
def test_what_was_sent_is_sent_again_in_its_order(from_number, again):
    outbox = new()
    put_batches(outbox, 6, WINDOW_START // 4)
    bodies = {batch.number: batch.body for batch in outbox.due(0.0)}
    outbox.rewind(from_number)
    resent = outbox.due(1.0)
    assert numbers(resent) == again
    assert all(batch.body == bodies[batch.number] for batch in resent)
    assert outbox.in_flight == WINDOW_START
    assert numbers(outbox.sent) == [1, 2, 3, 4] and numbers(outbox.unsent) == [5, 6]


def test_what_is_settled_is_never_sent_again():
    outbox = new()
    put_batches(outbox, 3)
    outbox.due(0.0)
    outbox.accepted(2, {}, 0.0)
    outbox.rewind()
    assert numbers(outbox.due(1.0)) == [3]


# What it holds

def test_an_outbox_holds_so_many_bytes():
    outbox = new(bytes_max=100)
    put(outbox, size=60)
    assert outbox.has_room(40) and not outbox.has_room(41)
    outbox.due(0.0)
    assert not outbox.has_room(41)
    outbox.accepted(1, {}, 0.0)
    assert outbox.has_room(100)


def test_one_message_always_fits_into_an_empty_outbox():
    outbox = new(bytes_max=100)
    assert outbox.is_empty and outbox.has_room(5000)
    put(outbox, size=5000)
    assert not outbox.is_empty and not outbox.has_room(1)
    outbox.due(0.0)
    assert not outbox.is_empty
    outbox.accepted(1, {}, 0.0)
    assert outbox.is_empty and outbox.has_room(5000)


# Adding without the lock

class Sealing:
    """Slots whose taker loses its turn while others do something, before it has added its message."""

    def __init__(self, slots, meanwhile):
        self.slots = slots
        self.meanwhile = meanwhile

    def __iter__(self):
        return self.slots

    def __next__(self):
        one = next(self.slots)
        self.meanwhile()
        return one


class Interrupted(list):
    """Items to which another thread adds one just before, or just after, they are counted; and then
    it looks whether the batch was sealed."""

    def __init__(self, batch, late, when):
        super().__init__(batch.items)
        self.batch, self.late, self.when, self.saw_sealed = batch, late, when, None

    def add(self, when):
        if self.when == when and self.saw_sealed is None:
            self.append(self.late)
            self.saw_sealed = self.batch.sealed

    def __len__(self):
        self.add("before")
        count = super().__len__()
        self.add("after")
        return count


def add(outbox, body=b"x", to="bob", way=p.SEND):
    return outbox.add(way, to, body)


def sent(outbox):
    """All that the outbox holds, in order."""
    outbox.seal()
    return [item for batch in (*outbox.sent, *outbox.unsent) for item in items(batch)]


#   what add() takes after a put to bob of 10 bytes
ADDED = [
    (p.SEND, "bob", b"x" * 10, True),
    (p.SEND, "bob", b"", True),
    (p.SEND, "bob", b"x" * 11, False),
    (p.SEND, "ann", b"x", False),
    (p.PUBLISH, "bob", b"x", False),
    (p.SEND, 7, b"x", False),
    (p.SEND, "bob", "text", False),
    (p.SEND, "bob", bytearray(b"x"), False),
    (p.SEND, "bob", None, False),
]


@pytest.mark.parametrize(("way", "to", "body", "taken"), ADDED)
def test_only_what_is_small_and_to_the_same_address_is_added(way, to, body, taken):
    outbox = new()
    assert outbox.add(way, to, body) is None          # there is no open batch
    batch = put(outbox, b"x" * 10)
    assert outbox.add(way, to, body) is (batch if taken else None)
    assert sent(outbox) == [b"x" * 10] + [body] * taken
    assert outbox.add(way, to, body) is None


def test_messages_of_a_size_fill_a_batch_to_the_brim_without_the_lock():
    outbox = new()
    batch = put(outbox, b"x" * 200)
    added = 0
    while add(outbox, b"x" * 200) is batch:
        added += 1
    assert batch.count == added + 1 == BATCH_BYTES // 205
    assert put(outbox, b"x" * 200) is not batch
    assert batch.number == 1 and batch.size == batch.count * 205 == len(batch.body) + 3 * batch.count - 3


def test_messages_of_all_sizes_fill_a_batch_too_and_most_of_them_without_the_lock():
    outbox = new()
    rng = random.Random(1)
    puts = 0
    while outbox.last < 10:
        body = b"x" * rng.randint(100, 300)
        if add(outbox, body) is None:
            put(outbox, body)
            puts += 1
    assert all(batch.size > BATCH_BYTES - 310 for batch in outbox.unsent)
    assert puts < 200 < 3000 < sum(batch.count for batch in outbox.unsent)


def test_a_batch_has_no_slots_for_more_messages_than_it_may_have():
    outbox = new()
    batch = put(outbox, b"")
    while add(outbox, b"") is batch:
        pass
    assert batch.count == BATCH_MESSAGES
    assert put(outbox, b"") is not batch and batch.number == 1


def test_what_was_added_is_held_and_counted():
    outbox = new(bytes_max=100)
    put(outbox, b"x" * 15)
    assert [add(outbox, b"x" * 15) is not None for _ in range(9)] == [True] * 4 + [False] * 5
    assert outbox.has_room(0) and not outbox.has_room(1)
    assert outbox.size == 100
    outbox.due(0.0)
    outbox.accepted(1, {}, 0.0)
    assert outbox.size == 0 and outbox.is_empty


def test_what_takers_of_slots_may_still_add_is_held_too():
    outbox = new(bytes_max=100)
    batch = put(outbox, b"x" * 15)
    assert next(batch.slots, 0) and next(batch.slots, 0)
    assert outbox.has_room(40) and not outbox.has_room(41)
    batch.items.append(b"x" * 15)
    assert outbox.has_room(40) and not outbox.has_room(41)
    put(outbox, b"x" * 15)                            # gives out new slots
    assert add(outbox, b"x" * 15) and not add(outbox, b"x" * 15)
    batch.items.append(b"x" * 15)
    assert not outbox.has_room(1) and outbox.size == 100


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_added_while_a_batch_is_sealed_goes_once_with_it_or_behind_it(when):
    outbox = new()
    batch = put(outbox, b"1")
    assert next(batch.slots, 0)
    batch.items = Interrupted(batch, late := b"late", when)
    outbox.seal()
    stranded = batch.items.saw_sealed and outbox.take_back(batch, late)
    assert stranded is (when == "after") and not outbox.take_back(batch, late)
    if stranded:
        put(outbox, late)
    put(outbox, b"2")
    assert sent(outbox) == [b"1", b"late", b"2"] and batch.items == []


def test_what_is_added_to_a_batch_that_was_sealed_meanwhile_is_taken_back():
    outbox = new()
    batch = put(outbox, b"1")
    batch.slots = Sealing(batch.slots, outbox.seal)
    assert add(outbox, b"2") is batch
    assert batch.sealed and batch.count == 1 and items(batch) == [b"1"]
    assert outbox.take_back(batch, batch.items[0]) and batch.items == []
    put(outbox, b"2")
    assert sent(outbox) == [b"1", b"2"]


def test_each_takes_back_its_own_and_of_equal_ones_as_many_as_came_too_late():
    outbox = new()
    same, other = bytes(range(9)), bytes(range(1, 10))
    batch = put(outbox, same)
    for _ in range(4):
        assert next(batch.slots, 0)
    batch.items.append(same)                          # in time
    outbox.seal()
    batch.items += [same, other, same]                # too late
    assert not outbox.take_back(batch, bytes(bytearray(same)))
    assert [outbox.take_back(batch, same) for _ in range(3)] == [True, True, False]
    assert outbox.take_back(batch, other) and batch.items == []
    assert items(batch) == [same, same]


def test_a_batch_has_its_receipt_before_anybody_sees_it():
    seen = []
    outbox = Outbox(IDENT, LOTS, lambda batch: seen.append(outbox.open) or ("receipt", batch))
    first = put(outbox, to="a")
    second = put(outbox, to="b")
    assert (first.receipt, second.receipt) == (("receipt", first), ("receipt", second))
    assert seen == [None, None]


@pytest.mark.timeout(60)
def test_threads_that_send_at_once_lose_double_and_reorder_nothing():
    """Real ones, that lose their turn at every chance, as do those who seal."""
    lock, done = threading.Lock(), threading.Event()
    outbox = new()
    count, heard, most = 3000, [], []

    def send(thread):
        for index in range(count):
            body = b"%d:%d" % (thread, index)
            batch = add(outbox, body)
            if batch is None or batch.sealed:
                with lock:
                    if batch is None or outbox.take_back(batch, body):
                        put(outbox, body)

    def seal():
        while not done.is_set():
            with lock:
                outbox.seal()
                most.append(outbox.size)
                for batch in outbox.due(0.0):
                    heard.extend(items(batch))
                outbox.accepted(outbox.last, {}, 0.0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        sealer = threading.Thread(target=seal)
        for thread in (*senders, sealer):
            thread.start()
        for thread in senders:
            thread.join()
        done.set()
        sealer.join()
    finally:
        sys.setswitchinterval(interval)
    heard += sent(outbox)
    for number in range(4):
        mine = [body for body in heard if body.startswith(b"%d:" % number)]
        assert mine == [b"%d:%d" % (number, index) for index in range(count)]
    assert len(heard) == 4 * count
    outbox.due(0.0)
    outbox.accepted(outbox.last, {}, 0.0)
    assert outbox.size == 0


# Many at once

def test_many_messages_fill_batches_and_the_last_stays_open():
    outbox = new()
    bodies = [b"%d" % index * 20 for index in range(2000)]
    batches = outbox.put_many(p.SEND, "bob", bodies, 0.0)
    assert len(batches) > 2 and outbox.open is batches[-1] and batches[:-1] == list(outbox.unsent)
    assert all(BATCH_BYTES - 110 < batch.size <= BATCH_BYTES for batch in batches[:-1])
    assert outbox.size == sum(batch.size for batch in batches) == sum(map(len, bodies)) + 5 * 2000
    assert sent(outbox) == bodies


def test_many_messages_join_those_that_wait_and_others_join_them():
    outbox = new()
    batch = put(outbox, b"1")
    assert outbox.put_many(p.SEND, "bob", [b"2", b"3"], 0.0) == [batch]
    assert add(outbox, b"4") is batch
    outbox.put_many(p.SEND, "ann", [b"5"], 0.0)
    assert sent(outbox) == [b"1", b"2", b"3", b"4", b"5"] and outbox.last == 2


@pytest.mark.parametrize("sizes", [[], [0] * (BATCH_MESSAGES + 1), [BATCH_BYTES * 2] * 3, [1, BATCH_BYTES * 2, 1],
                                   [BATCH_BYTES - 5] * 2, [BATCH_BYTES - 5, 0, 0], [BATCH_BYTES // 2 - 5] * 4])
def test_many_messages_are_cut_by_bytes_and_by_number(sizes):
    outbox = new()
    bodies = [b"x" * size for size in sizes]
    batches = outbox.put_many(p.SEND, "bob", bodies, 0.0)
    assert sent(outbox) == bodies
    assert all(batch.count <= BATCH_MESSAGES and (batch.size <= BATCH_BYTES or batch.count == 1) for batch in batches)
    assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))


# Everything at once

@pytest.mark.parametrize("trial", range(10))
def test_whatever_happens_each_message_arrives_once_and_in_order(trial, monkeypatch):
    """Against a hub that takes what is next in number, and answers when it likes."""
    monkeypatch.setattr(module, "BATCH_BYTES", 300)
    monkeypatch.setattr(module, "BATCH_MESSAGES", 7)
    monkeypatch.setattr(module, "BATCHES_MAX", 5)
    monkeypatch.setattr(module, "WINDOW_MIN", 200)
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    outbox, now_s = new(), 0.0
    outbox.window = 500
    slowly_said, slowly_heard = [], []
    said, heard, wire, taken, slow = [], [], [], 0, []
    while taken < 60:
        now_s += rng.choice((0.0, LINGER_S / 2, 1.0))
        match rng.choices(["put", "many", "slot", "use", "due", "arrive", "answer", "break", "resend"],
                          [9, 1, 1, 1, 6, 6, 3, 0.3, 0.3])[0]:
            case "put":
                way, to = rng.choice([(p.SEND, "a"), (p.SEND, "a"), (p.SEND, "b"), (p.PUBLISH, "a")])
                item = rng.randbytes(rng.choice((1, 20, 90, 400)))
                size = p.check_message(item, None)
                said.append((way, to, item))
                if outbox.add(way, to, item) is None:
                    outbox.put(way, to, item, size, now_s)
            case "many":
                many = [rng.randbytes(rng.choice((1, 20, 90, 400))) for _ in range(rng.randrange(20))]
                said += [(p.SEND, "a", item) for item in many]
                outbox.put_many(p.SEND, "a", many, now_s)
            case "slot" if outbox.open is not None and next(outbox.open.slots, 0):
                batch = outbox.open
                slow.append((batch, b"slow" + rng.randbytes(batch.quick_bytes)[4:]))
            case "use" if slow:
                batch, item = slow.pop(rng.randrange(len(slow)))
                if len(item) > batch.quick_bytes:
                    continue                     # that slot was for less; it stays unused
                batch.items.append(item)
                slowly_said.append((batch.way, batch.address, item))
                if batch.sealed:
                    assert outbox.take_back(batch, item)
                    outbox.put(batch.way, batch.address, item, p.check_message(item, None), now_s)
            case "due":
                due = outbox.due(now_s)
                wire += [(batch.number, batch.way, batch.address, batch.body, batch.count) for batch in due]
                assert len(outbox.sent) <= 5
                assert not due or outbox.in_flight <= outbox.window or len(outbox.sent) == 1
            case "arrive" if wire:
                number, way, to, body, count = wire.pop(0)
                assert count <= 7 and (len(body) <= 300 or count == 1)
                if number == taken + 1:
                    taken = number
                    everything = [(way, to, item) for item in p.unpack_batch(body, count)]
                    heard += [message for message in everything if not message[2].startswith(b"slow")]
                    slowly_heard += [message for message in everything if message[2].startswith(b"slow")]
            case "answer":
                outbox.accepted(taken, {}, now_s)
            case "break":
                wire.clear()
                outbox.rewind()
            case "resend":
                outbox.rewind(taken + 1)
        assert numbers(outbox.sent) + numbers(outbox.unsent) == list(range(outbox.settled + 1, outbox.last + 1))
        assert outbox.in_flight == sum(batch.size for batch in outbox.sent)
        outbox.has_room(0)                       # counts what was added
        held = [*outbox.sent, *outbox.unsent] + ([outbox.open] if outbox.open else [])
        assert outbox.size == sum(batch.size for batch in held)
        assert heard == said[:len(heard)]
        assert sorted(slowly_heard) == sorted(set(slowly_heard)) and set(slowly_heard) <= set(slowly_said)


def test_a_full_outbox_is_filled_again_when_the_message_fits_and_a_quarter_is_free():
    """Else whoever waits for room looks again and again at room that is not enough."""
    outbox = new(10_000)
    outbox.put(p.SEND, "you", b"x" * 6000, 6005, 0.0)
    connection = SimpleNamespace(outbox=outbox)
    assert not Connection.has_room_again(connection, 5000)
    assert Connection.has_room_again(connection, 3000)
    outbox.put(p.SEND, "you", b"x" * 2000, 2005, 0.0)
    assert not Connection.has_room_again(connection, 100)
