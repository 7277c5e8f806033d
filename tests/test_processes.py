"""Real hubs in processes of their own, real sockets, and kill -9."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from zbackbone import (AsyncClient, BackboneError, Client, KeyRefused, Misuse, Operator, OutboxFull, Refused, Silence,
                       Unreachable, join)
from zbackbone.auth.keys import make_pair
from zbackbone.auth.policy import Grants
from zbackbone.client import sync
from zbackbone.client.news import News
from zbackbone.protocol import BODY_BYTES_MAX
from zbackbone.testing import TestHub, running_hub

DATA = Path(__file__).parent / "data" / "nmea-sample.txt"


@pytest.fixture
def hub(zbackbone_hub):
    return zbackbone_hub


@contextlib.contextmanager
def clients(hub, *names, **options):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(hub.add(name), **options)) for name in names]


def until(true, timeout=10.0):
    """Waits for what another process does; fails when it doesn't."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def bodies(client, count, timeout=10.0, ack=True):
    out = []
    for message in client.receive(timeout=timeout):
        out.append(message.body)
        if ack:
            message.ack()
        if len(out) == count:
            break
    return out


# The verbs --------------------------------------------------------------------------------------
def test_what_a_client_gets_is_what_was_sent_and_who_sent_it(hub):
    with clients(hub, "noc-c2", "noc-sfmc") as (c2, sfmc):
        sfmc.subscribe("soar.noc.#")
        before = time.time()
        c2.send("noc-sfmc", b"\x00\xff", headers={"content-type": "text/plain", "é": "ü"}).wait(timeout=5)
        c2.publish("soar.noc.slocum.something", b"published").wait(timeout=5)
        c2.publish("soar.other", b"not for you").wait(timeout=5)
        c2.broadcast(b"notify").wait(timeout=5)
        got = []
        for message in sfmc.receive(timeout=5):
            got.append((message.sender, message.to, message.topic, message.is_broadcast, message.body, message.headers))
            assert before - 1 < message.time < time.time() + 1
            message.ack()
            if len(got) == 3:
                break
        assert got == [
            ("noc-c2", "noc-sfmc", None, False, b"\x00\xff", {"content-type": "text/plain", "é": "ü"}),
            ("noc-c2", None, "soar.noc.slocum.something", False, b"published", {}),
            ("noc-c2", None, None, True, b"notify", {}),
        ]
        c2.flush(timeout=5)
        assert list(c2.receive(timeout=0.2)) == []      # its own broadcast is not among them


def test_real_sentences_arrive_byte_for_byte_in_order(hub):
    lines = DATA.read_bytes().split(b"\n")
    with clients(hub, "ship", "shore", when_full="wait") as (ship, shore):
        for line in lines:
            ship.send("shore", line)
        ship.flush(timeout=10)
        assert bodies(shore, len(lines)) == lines


def test_the_largest_body_passes_and_a_larger_one_is_refused_here(hub):
    with clients(hub, "a", "b") as (a, b):
        big = os.urandom(BODY_BYTES_MAX)
        a.send("b", big).wait(timeout=10)
        assert bodies(b, 1) == [big]
        with pytest.raises(Misuse, match="body-too-large"):
            a.send("b", big + b"x")
        for wrong in ("text", None, 7, bytearray(b"x")):
            with pytest.raises(Misuse, match="bad-body"):
                a.send("b", wrong)
        with pytest.raises(Misuse, match="bad-headers"):
            a.send("b", b"", headers={"n": 1})
        with pytest.raises(Misuse, match="headers-too-large"):
            a.send("b", b"", headers={"n": "x" * 20_000})
        with pytest.raises(Misuse, match="bad-topic"):
            a.publish("no wildcards.#", b"")


def test_a_refusal_comes_with_the_receipt_and_from_flush(hub):
    with clients(hub, "a") as (a,):
        with pytest.raises(Refused, match="unknown-client"):
            a.send("nobody", b"x").wait(timeout=5)
        with pytest.raises(Refused, match="unknown-client"):
            a.flush(timeout=5)
        a.flush(timeout=5)                               # told once


def test_listeners_hear_live_messages_and_broadcasts(hub):
    with clients(hub, "a", "b") as (a, b):
        with b.listen("soar.*.x", broadcasts=True, timeout=5) as listener:
            for index in range(100):
                a.publish(f"soar.{index}.x", b"%d" % index)
                a.publish(f"soar.{index}.y", b"other")
            a.broadcast(b"all")
            heard = [next(listener).body for _ in range(101)]
        assert heard == [b"%d" % index for index in range(100)] + [b"all"]
        assert b.missed == 0


def test_live_messages_of_restricted_topics_come_only_to_those_who_may_read_them(hub):
    profile = hub.add("outsider", Grants((), (), ("open.#",)))
    with clients(hub, "a", "b") as (a, b), Client(profile) as outsider:
        with pytest.raises(Refused, match="forbidden"):
            outsider.listen("secret.#")
        with b.listen("#", timeout=5) as insiders, outsider.listen("open.#", timeout=5) as outsiders:
            a.publish("secret.x", b"1")
            a.publish("open.x", b"2")
            assert [next(insiders).body, next(insiders).body] == [b"1", b"2"]
            assert next(outsiders).body == b"2"


def test_grants_hold_on_every_verb(hub):
    profile = hub.add("narrow", Grants(("noc.*",), ("soar.noc.#",), ("soar.noc.#",)))
    with clients(hub, "noc.c2", "other") as (c2, other), Client(profile) as narrow:
        narrow.send("noc.c2", b"yes").wait(timeout=5)
        narrow.publish("soar.noc.x", b"yes").wait(timeout=5)
        narrow.subscribe("soar.noc.slocum.*")
        for receipt, code in [(narrow.send("other", b"no"), "unknown-client"),
                              (narrow.publish("soar.x", b"no"), "forbidden"), (narrow.broadcast(b"no"), "forbidden")]:
            with pytest.raises(Refused, match=code):
                receipt.wait(timeout=5)
        with pytest.raises(Refused, match="forbidden"):
            narrow.subscribe("#")
        with pytest.raises(Refused, match="forbidden"):
            Operator(narrow).clients()
        assert bodies(c2, 1) == [b"yes"]
        assert list(other.receive(timeout=0.2)) == []


def test_two_connections_of_one_client_share_its_inbox_one_at_a_time(hub):
    profile = hub.add("a")
    with Client(profile) as one, Client(profile) as two, clients(hub, "b") as (b,):
        b.send("a", b"1").wait(timeout=5)
        assert bodies(one, 1) == [b"1"]
        one.flush(timeout=5)
        two_gets = two.receive(timeout=5)
        b.send("a", b"2").wait(timeout=5)
        message = next(two_gets)
        assert message.body == b"2"
        message.ack()
        with pytest.raises(Refused, match="inbox-taken"):
            next(one.receive(timeout=5))
        b.send("a", b"3").wait(timeout=5)
        assert next(one.receive(timeout=5)).body in (b"2", b"3")      # told so, it may take it back


def test_what_was_received_and_not_handed_over_comes_again_after_release(hub):
    with clients(hub, "a", "b") as (a, b):
        for index in range(10):
            a.send("b", b"%d" % index)                   # most of them in one batch
        a.flush(timeout=5)
        assert bodies(b, 1, ack=False) == [b"0"]
        b.release()
        a.send("b", b"10").wait(timeout=5)
        assert bodies(b, 10) == [b"%d" % index for index in range(1, 11)]


def test_the_rest_of_a_batch_is_not_lost_when_another_takes_the_inbox(hub):
    profile = hub.add("b")
    with clients(hub, "a") as (a,), Client(profile) as one, Client(profile) as two:
        for index in range(100):
            a.send("b", b"%d" % index)
        a.flush(timeout=5)
        first = bodies(one, 10, ack=False)
        assert bodies(two, 1, ack=False) == [b"0"]       # nothing was acknowledged
        until(lambda: not one._connection.session._receiving)
        with pytest.raises(Refused, match="inbox-taken"):
            bodies(one, 1)
        assert first + bodies(one, 90) == [b"%d" % index for index in range(100)]


def test_close_waits_until_what_was_acknowledged_is_on_the_hubs_disk(hub):
    profile = hub.add("b")
    with clients(hub, "a") as (a,):
        a.send("b", b"once").wait(timeout=5)
    with Client(profile) as b:
        assert bodies(b, 1) == [b"once"]
        until(lambda: b._connection.session._ack_at is None)     # it has been said
        os.kill(hub.process.pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (hub.process.pid, signal.SIGCONT)).start()
    with Client(profile) as b:
        assert list(b.receive(timeout=0.5)) == []


def test_an_ipv6_client_survives_its_hub(tmp_path):
    """libzmq takes the only pipe away when such a connection breaks, and a send would wait for ever."""
    hub = TestHub(tmp_path / "hub")
    hub.address = hub.live = "[::1]:0"
    hub.start()
    try:
        with clients(hub, "a", "b", when_full="wait") as (a, b):
            count = 0
            for _ in range(4):
                for _ in range(2000):
                    a.send("b", b"%d" % count)
                    count += 1
                hub.kill()
                for _ in range(2000):
                    a.send("b", b"%d" % count)
                    count += 1
                hub.start()
            a.flush(timeout=30)
            assert bodies(b, count) == [b"%d" % index for index in range(count)]
    finally:
        hub.kill()


def test_a_restored_backup_gives_no_inbox_number_twice(hub):
    with clients(hub, "a", "b") as (a, b):
        a.send("b", b"before").wait(timeout=5)
        assert bodies(b, 1) == [b"before"]
        b.flush(timeout=5)
        hub.stop()
        shutil.copytree(hub.data, hub.data.with_name("backup"))
        hub.start()
        for index in range(5):
            a.send("b", b"lost with the disk %d" % index).wait(timeout=10)
        assert len(bodies(b, 5)) == 5
        b.flush(timeout=5)
        hub.kill()
        shutil.rmtree(hub.data)
        hub.data.with_name("backup").rename(hub.data)
        hub.start()
        for index in range(8):
            a.send("b", b"after %d" % index).wait(timeout=10)
        assert bodies(b, 8) == [b"after %d" % index for index in range(8)]


def test_a_full_outbox_raises_or_waits_as_asked(hub):
    profile = hub.add("a")
    hub.stop()
    with pytest.raises(OutboxFull, match="outbox-full"), Client(profile, outbox_bytes=10_000) as a:
        for _ in range(11):
            a.send("a", b"x" * 1000)
    a.close()
    patient = Client(profile, outbox_bytes=10_000, when_full="wait")
    done = threading.Event()

    def send():
        for _ in range(50):
            patient.send("a", b"x" * 1000)
        done.set()
    thread = threading.Thread(target=send)
    thread.start()
    assert not done.wait(0.3)
    hub.start()
    assert done.wait(20)
    thread.join()
    patient.close(timeout=10)


def test_many_messages_are_sent_with_one_receipt_and_come_in_batches(hub):
    many = [b"%d" % index for index in range(20_000)]
    with clients(hub, "a", "b") as (a, b):
        b.subscribe("t.#")
        with b.listen("t.#", timeout=5) as listener:
            receipt = a.send_many("b", iter(many))
            a.publish_many("t.1", many)
            receipt.wait(timeout=10)
            assert receipt.done
            a.flush(timeout=10)
            got, heard, sizes = [], [], []
            for batch in b.receive_batches(timeout=5):
                assert batch
                sizes.append(len(batch))
                got += [message.body for message in batch]
                batch[-1].ack()
                if len(got) == 2 * len(many):
                    break
            for batch in listener.batches():
                heard += [message.body for message in batch]
                if len(heard) == len(many):
                    break
        assert got == 2 * many and heard == many
        assert max(sizes) > 1000
        b.flush(timeout=5)
    with Client(hub.add("c")) as c, Client(b._connection.profile) as b:
        c.send("b", b"last").wait(timeout=5)
        assert bodies(b, 1) == [b"last"]                 # the last of each batch acknowledged it all


def test_no_messages_at_all_are_accepted_already(hub):
    with clients(hub, "a") as (a,):
        receipt = a.send_many("a", [])
        assert receipt.done
        receipt.wait(timeout=0)
        with pytest.raises(Misuse, match="bad-name"):
            a.send_many("no name", [])


def test_receiving_one_by_one_and_in_batches_goes_on_where_the_other_stopped(hub):
    with clients(hub, "a", "b") as (a, b):
        a.send_many("b", [b"%d" % index for index in range(100)]).wait(timeout=5)
        assert bodies(b, 10) == [b"%d" % index for index in range(10)]
        assert [m.body for m in next(b.receive_batches(timeout=5))] == [b"%d" % index for index in range(10, 100)]
        with b.listen("t", timeout=5) as listener:
            a.publish_many("t", [b"1", b"2", b"3"])
            assert next(iter(listener)).body == b"1"
            assert next(listener).body == b"2"
            assert [m.body for m in next(listener.batches())] == [b"3"]


def test_a_receipt_for_many_tells_the_first_refusal(hub):
    with clients(hub, "a") as (a,), pytest.raises(Refused, match="unknown-client"):
        a.send_many("nobody", [b"x" * 1000] * 1000).wait(timeout=5)


def test_of_many_with_a_wrong_one_among_them_nothing_is_put(hub):
    with clients(hub, "a", outbox_bytes=10_000) as (a,):
        for wrong, code in (("text", "bad-body"), (None, "bad-body"), (b"x" * (BODY_BYTES_MAX + 1), "body-too-large")):
            with pytest.raises(Misuse, match=rf"bodies\[2\].*{code}"):
                a.send_many("a", [b"1", b"2", wrong, b"4"])
        with pytest.raises(Misuse, match=r"bodies\[0\]"):
            a.send_many("a", b"not a list of bodies")
        with pytest.raises(OutboxFull, match="outbox-full"):
            a.publish_many("a", [b"x" * 1000] * 10)
        assert a._connection.unaccepted() == 0
        a.send_many("a", [b"x" * 1000] * 9).wait(timeout=5)


def test_many_messages_wait_for_room_when_asked_to(hub):
    with clients(hub, "a", "b", outbox_bytes=10_000, when_full="wait") as (a, b):
        many = [b"%d" % index * 100 for index in range(1000)] + [b"x" * 20_000]
        receipt = a.send_many("b", many)
        assert a._connection.outbox.size < 21_000
        receipt.wait(timeout=10)
        assert bodies(b, len(many)) == many


def test_threads_that_share_a_client_lose_double_and_reorder_nothing(hub):
    count, threads = 5000, 4

    def send(client, name):
        for index in range(0, count, 10):
            for number in range(index, index + 7):
                client.send("b", b"%s:%d" % (name, number))
            client.send_many("b", [b"%s:%d" % (name, number) for number in range(index + 7, index + 10)])

    def receive(client, out):
        for message in client.receive(timeout=3):
            out.append(message.body)
            message.ack()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with clients(hub, "a", "b", when_full="wait", outbox_bytes=100_000) as (a, b):
            heard: list[list[bytes]] = [[], []]
            working = [threading.Thread(target=send, args=(a, b"%d" % number)) for number in range(threads)]
            working += [threading.Thread(target=receive, args=(b, out)) for out in heard]
            for thread in working:
                thread.start()
            for thread in working:
                thread.join(50)
            a.flush(timeout=10)
            assert sorted(heard[0] + heard[1]) == sorted(
                b"%d:%d" % (number, index) for number in range(threads) for index in range(count))
            for out in heard:
                for number in range(threads):
                    mine = [int(body.partition(b":")[2]) for body in out if body.startswith(b"%d:" % number)]
                    assert mine == sorted(mine)
    finally:
        sys.setswitchinterval(interval)


def test_a_closed_client_takes_no_more(hub):
    with clients(hub, "a") as (a,):
        for _ in range(100):
            a.send("a", b"x")
    for put in (a.send, a.publish, lambda to, body: a.send_many(to, [body])):
        with pytest.raises(Misuse, match="closed"):
            put("a", b"x")


# Life and death of the hub ------------------------------------------------------------------------
def test_nothing_accepted_is_missing_after_kill_9(hub):
    """Several rounds: senders under load, the hub killed at a random moment, everybody comes back."""
    accepted: dict[str, list[bytes]] = {"a": [], "b": []}
    stop = threading.Event()
    got: list[bytes] = []

    def send(name, client):
        count = 0
        while not stop.is_set():
            receipts = [(client.send("c", body), body)
                        for body in (f"{name}-{count + i:08d}".encode() for i in range(20))]
            count += 20
            for receipt, body in receipts:
                receipt.wait(timeout=30)
                accepted[name].append(body)

    def receive(client):
        for message in client.receive(timeout=5):
            got.append(message.body)
            message.ack()

    with clients(hub, "a", "b", "c") as (a, b, c):
        threads = [threading.Thread(target=send, args=("a", a)), threading.Thread(target=send, args=("b", b))]
        receiver = threading.Thread(target=receive, args=(c,))
        for thread in (*threads, receiver):
            thread.start()
        for round_ in range(5):
            before = len(accepted["a"])
            until(lambda before=before: len(accepted["a"]) > before + 200, 30)
            time.sleep(0.013 * round_)                   # simulates: dies at another point of its turn
            hub.kill()
            hub.start()
        stop.set()
        for thread in (*threads, receiver):
            thread.join(60)
    for name in ("a", "b"):
        mine = [body for body in got if body.startswith(name.encode())]
        assert len(mine) == len(set(mine)), "something came twice in one session"
        assert mine == sorted(mine), "something came out of order"
        assert set(accepted[name]) <= set(mine), "something accepted was lost"


def test_what_is_unacknowledged_comes_again_to_the_next_session_and_what_is_acknowledged_does_not(hub):
    profile = hub.add("c")
    with clients(hub, "a") as (a,):
        for index in range(1000):
            a.send("c", b"%d" % index)
        a.flush(timeout=10)
    with Client(profile) as c:
        for count, message in enumerate(c.receive(timeout=5)):
            if count == 333:
                message.ack()
            if count == 500:
                break
        c.flush(timeout=5)
    hub.kill()
    hub.start()
    with Client(profile) as c:
        assert bodies(c, 666) == [b"%d" % index for index in range(334, 1000)]


def test_the_client_carries_on_over_an_outage_by_itself(hub):
    with clients(hub, "a", "b") as (a, b):
        b.subscribe("t.#")
        listener = b.listen("t.#", timeout=10)
        a.publish("t.1", b"before").wait(timeout=5)
        assert next(listener).body == b"before"
        hub.kill()
        receipt = a.publish("t.1", b"while it was away")
        with pytest.raises(Unreachable, match="is it running"):
            receipt.wait(timeout=1)
        hub.start()
        receipt.wait(timeout=10)
        assert bodies(b, 2) == [b"before", b"while it was away"]
        until(lambda: b.connected)
        b.ping()

        def hears():
            a.publish("t.1", b"after")
            return bool(listener._listening.queue)
        until(hears)
        assert next(message.body for message in listener if message.body != b"while it was away") == b"after"


def test_sigterm_and_sigint_stop_it_with_exit_code_0(hub):
    assert hub.stop() == 0
    hub.start()
    os.kill(hub.process.pid, signal.SIGINT)
    assert hub.process.wait(10) == 0


def test_a_second_hub_on_the_same_folder_says_so(hub):
    second = TestHub(hub.data)
    with pytest.raises(RuntimeError, match=r"another hub \(process \d+\) uses the data folder .*data-in-use"):
        second.start()


def test_a_store_that_is_gone_or_damaged_is_never_replaced_by_an_empty_one(hub):
    hub.add("a")
    hub.stop()
    store = hub.data / "hub.db"
    whole = store.read_bytes()
    for damage, sentence in [(b"", "store-missing"), (b"x" * 8192, "store-damaged"), (whole[:5000], "store-damaged")]:
        store.write_bytes(damage)
        with pytest.raises(RuntimeError, match=sentence) as error:
            hub.start()
        assert "Traceback" not in str(error.value)
        assert store.read_bytes() == damage
    store.write_bytes(whole)
    hub.start()
    hub.add("b")


# Who gets in --------------------------------------------------------------------------------------
def test_each_way_not_to_get_in_has_its_own_error(hub):
    profile = hub.add("a")
    stranger = make_pair()
    unknown = profile._replace(public_key=stranger.public, secret_key=stranger.secret)
    with contextlib.closing(Client(unknown)) as client, pytest.raises(KeyRefused, match="ask its operator"):
        client.ping(timeout=10)
    wrong_hub = profile._replace(hub_key=make_pair().public)
    with contextlib.closing(Client(wrong_hub)) as client, pytest.raises(Unreachable, match="wrong-hub"):
        client.ping(timeout=2)
    with socket.create_server(("127.0.0.1", 0)) as nothing:
        address = f"127.0.0.1:{nothing.getsockname()[1]}"
    with contextlib.closing(Client(profile._replace(address=address))) as client:
        with pytest.raises(Unreachable, match="is it running"):
            client.ping(timeout=1)
        with pytest.raises(Unreachable):
            list(client.receive(timeout=0.5))


def test_a_revoked_client_is_cut_at_once_and_stays_out(hub):
    profile = hub.add("a")
    with Client(profile) as a, Client(hub.operator) as boss, clients(hub, "b") as (b,):
        listener = a.listen("t.#", timeout=10)
        a.subscribe("t.#")
        assert Operator(boss).revoke("a") == 0
        until(lambda: not a.connected, 1.0)
        b.publish("t.1", b"not for a").wait(timeout=5)
        with pytest.raises(KeyRefused):
            a.ping(timeout=10)
        with pytest.raises(KeyRefused):
            a.send("b", b"x")
        with pytest.raises(KeyRefused):
            next(listener)
        with pytest.raises(Refused, match="unknown-client"):
            b.send("a", b"x").wait(timeout=5)
        a._connection.close()
    hub.kill()
    hub.start()
    with contextlib.closing(Client(profile)) as a, pytest.raises(KeyRefused):
        a.ping(timeout=10)


def test_rotation_takes_both_keys_until_the_new_one_is_used(hub):
    old = hub.add("a")
    with Client(hub.operator) as boss:
        new = Operator(boss).rotate("a")
        with contextlib.closing(Client(old)) as client:
            client.ping(timeout=5)
            with Client(new) as renewed:
                renewed.ping(timeout=5)
                until(lambda: not client.connected)
            with pytest.raises(KeyRefused):
                client.ping(timeout=5)


def test_an_invitation_works_once_even_when_raced(hub):
    with Client(hub.operator) as boss:
        string = Operator(boss).invite("newcomer")
    outcomes = []

    def race():
        try:
            outcomes.append(join(string, timeout=10))
        except BackboneError as no:
            outcomes.append(no.code)
    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    profiles = [x for x in outcomes if not isinstance(x, str)]
    assert len(profiles) == 1, outcomes
    assert {x for x in outcomes if isinstance(x, str)} == {"invitation-refused"}, outcomes
    with Client(profiles[0]) as newcomer:
        newcomer.ping(timeout=5)
        assert newcomer.name == "newcomer"
    with pytest.raises(Refused, match="invitation-refused"):
        join(string, timeout=5)


def test_an_invitation_opens_nothing_but_join(hub):
    from zbackbone.auth.keys import Profile, from_join_string, pair_of
    with Client(hub.operator) as boss:
        invitation = from_join_string(Operator(boss).invite("newcomer"))
    pair = pair_of(invitation.secret_key)
    guest = Profile("newcomer", invitation.address, invitation.hub_key, pair.public, pair.secret)
    with contextlib.closing(Client(guest)) as client, pytest.raises(Refused, match="join-only"):
        client.ping(timeout=5)


def test_no_plaintext_gets_an_answer(hub):
    """Raw TCP and a NULL handshake: the hub says its greeting, and closes."""
    host, port = hub.address.split(":")
    for mechanism in (b"NULL", b"PLAIN"):
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32))
            raw.sendall(b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0")
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := raw.recv(4096):
                    answer += chunk
        assert len(answer) <= 64 and b"READY" not in answer


# asyncio ------------------------------------------------------------------------------------------
def test_the_async_client_speaks_the_same_verbs(hub):
    one, two = hub.add("one"), hub.add("two")

    async def story():
        async with AsyncClient(one) as a, AsyncClient(two) as b:
            await b.subscribe("t.#")
            assert await b.subscriptions() == ["t.#"]
            heard = asyncio.create_task(anext(aiter(b.listen("t.#", broadcasts=True, timeout=10))))
            receipt = await a.send("two", b"direct", headers={"k": "v"})
            await receipt
            assert receipt.done

            async def publish():
                while not heard.done():
                    await a.publish("t.live", b"published")
                    await asyncio.sleep(0.05)
            await publish()
            assert (await heard).body == b"published"
            await a.broadcast(b"all")
            await a.flush(timeout=5)
            got = []
            async for message in b.receive(timeout=1):
                got.append(message.body)
                message.ack()
            assert got[0] == b"direct" and got[-1] == b"all" and set(got[1:-1]) == {b"published"}
            assert await a.ping() < 5
            with pytest.raises(Refused, match="unknown-client"):
                await (await a.send("nobody", b"x")).wait(timeout=5)
            await b.unsubscribe("t.#")
            with pytest.raises(Refused, match="not-subscribed"):
                await b.unsubscribe("t.#")
    asyncio.run(story())


def test_the_async_client_sends_many_and_receives_batches(hub):
    profiles = hub.add("a"), hub.add("b")
    many = [b"%d" % index for index in range(5000)]

    async def heard(client):
        out = []
        async for batch in client.listen_batches("t.#", timeout=5):
            out += [message.body for message in batch]
            if len(out) == len(many):
                return out

    async def story():
        async with AsyncClient(profiles[0], when_full="wait", outbox_bytes=20_000) as a, AsyncClient(profiles[1]) as b:
            hearing = asyncio.create_task(heard(b))
            await asyncio.sleep(0)                       # lets it ask
            await b.ping()
            await (await a.send_many("b", many)).wait(timeout=10)
            await a.publish_many("t.1", many)
            for index in range(100):
                await a.send("b", b"%d" % index)
            await a.flush(timeout=10)
            got = []
            async for batch in b.receive_batches(timeout=5):
                got += [message.body for message in batch]
                batch[-1].ack()
                if len(got) == 5100:
                    break
            assert got == many + many[:100]
            assert await hearing == many
            with pytest.raises(Misuse, match=r"bodies\[1\]"):
                await a.send_many("b", [b"", 7])
            with pytest.raises(Refused, match="unknown-client"):
                await (await a.send_many("nobody", [b"x"])).wait(timeout=5)
    asyncio.run(story())


def test_an_async_receiver_survives_the_hub_and_a_burst(hub):
    one, two = hub.add("one"), hub.add("two")

    async def story():
        async with AsyncClient(one, when_full="wait") as a, AsyncClient(two) as b:
            for index in range(5000):
                await a.send("two", b"%d" % index)
            await a.flush(timeout=20)
            digest, count = hashlib.sha256(), 0
            async for message in b.receive(timeout=10):
                digest.update(message.body)
                count += 1
                message.ack()
                if count == 1000:
                    hub.kill()
                    hub.start()
                if count == 5000:
                    break
            assert digest.digest() == hashlib.sha256(b"".join(b"%d" % index for index in range(5000))).digest()
    asyncio.run(story())


# Bounds -------------------------------------------------------------------------------------------
def test_a_full_inbox_is_refused_and_hurts_nobody_else():
    for hub in running_hub("--inbox-bytes", "100000"):
        with clients(hub, "a", "full", "fine") as (a, full, fine):
            full.subscribe("t")
            fine.subscribe("t")
            with pytest.raises(Refused, match="inbox-full"):
                for _ in range(20):
                    a.send("full", b"x" * 10_000).wait(timeout=5)
            for index in range(5):
                a.publish("t", b"%d" % index + b"y" * 9_000).wait(timeout=5)
            assert [body[:1] for body in bodies(fine, 5)] == [b"0", b"1", b"2", b"3", b"4"]
            with Client(hub.operator) as boss:
                assert Operator(boss).show("full")["missed"] >= 4
            assert len(bodies(full, 9)) == 9
            full.flush(timeout=5)
            a.send("full", b"room again").wait(timeout=5)


def test_a_stopped_receiver_costs_its_window_and_no_more(hub):
    """It takes the inbox and reads nothing; the backlog stays on disk, and others go on."""
    with clients(hub, "a", "stopped", "other", when_full="wait") as (a, stopped, other):
        stopped._connection.receive()
        until(lambda: stopped.connected)
        stopped.ping()
        with open(f"/proc/{hub.process.pid}/statm", encoding="ascii") as statm:
            before = int(statm.read().split()[1]) * 4096
        for _ in range(60):
            a.send("stopped", os.urandom(1 << 20))
        a.flush(timeout=50)
        with open(f"/proc/{hub.process.pid}/statm", encoding="ascii") as statm:
            after = int(statm.read().split()[1]) * 4096
        assert after - before < 40 << 20, f"{(after - before) >> 20} MB for 60 MB that nobody reads"
        a.send("other", b"still here").wait(timeout=5)
        assert bodies(other, 1) == [b"still here"]
        assert len(bodies(stopped, 60, timeout=20)) == 60


def test_whoever_waits_is_told_whichever_thread_heard_it(hub, monkeypatch):
    """One of those who wait hears for all; nobody may sleep on until the next look, here half a minute away."""
    monkeypatch.setattr(sync, "WAIT_S", 30.0)
    with clients(hub, "a", "b") as (a, b):
        failures, threads = [], 5

        def play(verb):
            try:
                for _ in range(60):
                    verb()
            except BaseException as error:
                failures.append(error)
        verbs = [lambda: a.send("b", b"x").wait(timeout=10)] * threads + [lambda: a.ping(timeout=10)]
        crowd = [threading.Thread(target=play, args=(verb,)) for verb in verbs]
        for thread in crowd:
            thread.start()
        got = 0
        for message in b.receive(timeout=10):
            message.ack()
            got += 1
            if got == 60 * threads:
                break
        for thread in crowd:
            thread.join(30)
        assert failures == [] and got == 60 * threads


def test_who_leads_looks_at_what_another_heard_and_then_the_next_one_leads(hub, monkeypatch):
    monkeypatch.setattr(sync, "WAIT_S", 30.0)
    with clients(hub, "a") as (a,):
        a.ping(timeout=10)
        connection, true = a._connection, {"first": False, "second": False}
        first, second = (threading.Thread(target=a._wait, args=(lambda name=name: true[name], 30, "")) for name in true)
        first.start()
        until(lambda: connection._leader is first)
        second.start()
        until(lambda: a._condition._waiters)           # it waits for the first to hear
        with connection.lock:
            true["first"] = True                       # as the I/O thread does, when it hears before the leader
            connection._changed()
        first.join(10)
        assert not first.is_alive()
        until(lambda: connection._leader is second)
        with connection.lock:
            true["second"] = True
            connection._changed()
        second.join(10)
        assert not second.is_alive()


def test_while_one_waits_the_other_thread_sleeps(hub, monkeypatch):
    """Else a vehicle that waits for orders all night would look two hundred times a second."""
    looks = []
    with clients(hub, "a", "b") as (a, b):
        a.ping(timeout=10)
        io_thread, wait = a._connection._thread, News.wait

        def counted(self, wait_s):
            if threading.current_thread() is io_thread:
                looks.append(wait_s)
            return wait(self, wait_s)
        monkeypatch.setattr(News, "wait", counted)
        assert list(a.receive(timeout=1.5)) == []
        assert len(looks) < 12
        # And it is back as soon as nobody waits any more: this is heard without anybody's wait.
        receipt = a.send("b", b"x")
        until(lambda: receipt.done, timeout=0.9)


def test_a_thread_that_waits_is_told_of_the_end(hub, monkeypatch):
    monkeypatch.setattr(sync, "WAIT_S", 30.0)
    with clients(hub, "a") as (a,):
        a.ping(timeout=10)
        said = []

        def wait():
            try:
                next(a.receive())
            except Misuse as error:
                said.append(error.code)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: a._connection._leader is thread)
        a.close()
        thread.join(10)
        assert said == ["closed"]
        until(lambda: a._connection._call_in == -1)        # its pipes are closed, all of them


def test_silence_in_time_is_a_typed_error():
    with contextlib.suppress(Silence):
        raise Silence("x", "y")
    assert issubclass(Unreachable, Silence) and issubclass(Silence, TimeoutError)
