"""Policy: what a client's grants let it do, and which topics everybody may read."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zbackbone.auth import policy
from zbackbone.auth.policy import (
    EVERYTHING,
    GRANT_PATTERNS_MAX,
    NOTHING,
    OPERATOR,
    Grants,
    PublicTopics,
    any_match,
    from_wire,
    may_administer,
    may_broadcast,
    may_publish,
    may_read,
    may_send,
    may_subscribe,
    parse_grants,
    to_wire,
)
from zbackbone.errors import Misuse
from zbackbone.topics import matches, parse_name, parse_pattern, parse_topic


def grants(send=(), publish=(), subscribe=(), admin=False):
    return parse_grants(list(send), list(publish), list(subscribe), admin)


def bad_grants(make):
    with pytest.raises(Misuse) as caught:
        make()
    assert caught.value.code == "bad-grants"
    return caught.value.text


# What may be done

#  grants       send   publish broadcast read  subscribe administer
LEVELS = [
    (NOTHING,    False, False,  False,    False, False,   False),
    (EVERYTHING, True,  True,   True,     True,  True,    False),
    (OPERATOR,   True,  True,   True,     True,  True,    True),
]


@pytest.mark.parametrize(("granted", "send", "publish", "broadcast", "read", "subscribe", "admin"),
                         LEVELS)
def test_the_three_usual_grants(granted, send, publish, broadcast, read, subscribe, admin):
    assert may_send(granted, "worker-1") is send
    assert may_publish(granted, "soar.noc") is publish
    assert may_broadcast(granted) is broadcast
    assert may_read(granted, "soar.noc") is read
    assert may_subscribe(granted, "#") is subscribe
    assert may_administer(granted) is admin


@pytest.mark.parametrize("verb", ["send", "publish", "subscribe"])
def test_a_grant_for_one_thing_is_none_for_another(verb):
    granted = grants(**{verb: ["a.#"]})
    assert may_send(granted, "a.b") is (verb == "send")
    assert may_publish(granted, "a.b") is (verb == "publish")
    assert may_read(granted, "a.b") is (verb == "subscribe")
    assert may_subscribe(granted, "a.b") is (verb == "subscribe")
    assert not may_broadcast(granted)
    assert not may_administer(granted)


def test_to_administer_is_not_to_read_or_write():
    granted = grants(admin=True)
    assert may_administer(granted)
    assert not may_send(granted, "a") and not may_publish(granted, "a")
    assert not may_read(granted, "a") and not may_broadcast(granted)


#   send grants               broadcast
BROADCASTS = [
    (["#"],                   True),
    (["a.*", "#"],            True),
    (["#.#"],                 True),
    (["*", "*.#"],            False),
    (["*.#"],                 False),
    (["#.*"],                 False),
    (["a.#", "b.#"],          False),
    ([],                      False),
]


@pytest.mark.parametrize(("send", "yes"), BROADCASTS)
def test_to_broadcast_takes_the_grant_to_send_to_everybody(send, yes):
    assert may_broadcast(grants(send=send)) is yes


# Tricks: each is what somebody asks for who was granted the first column, and
# no more; they are tried as names to send to and as topics to publish to and read.
#   granted        asked for              allowed
TRICKS = [
    ("a.b",        "a.b",                 True),
    ("a.b",        "a.bc",                False),
    ("a.b",        "a.b.c",               False),
    ("a.b",        "a",                   False),
    ("a.b.#",      "a.b",                 True),
    ("a.b.#",      "a.b.c",               True),
    ("a.b.#",      "a.bc",                False),
    ("a.b.#",      "x.a.b",               False),
    ("a.*",        "a.b",                 True),
    ("a.*",        "a.b.c",               False),
    ("a.*",        "a",                   False),
    ("a.*",        "a.*",                 False),
    ("a.*",        "a.#",                 False),
    ("a.*",        "a.",                  False),
    ("a.*",        "a.b.",                False),
    ("a.*",        "a..b",                False),
    ("a.*",        ".a.b",                False),
    ("*",          "",                    False),
    ("#",          "",                    False),
    ("#",          "#",                   False),
    ("#",          "*",                   False),
    ("#",          None,                  False),
    ("#",          b"a",                  False),
    ("worker-1",   "worker-1",            True),
    ("worker-1",   "worker-10",           False),
    ("worker-10",  "worker-1",            False),
    ("worker-1.#", "worker-10",           False),
    ("worker-1",   "Worker-1",            False),
    ("worker-1",   "WORKER-1",            False),
    ("worker-1",   "worker_1",            False),
    ("worker-1",   " worker-1",           False),
    ("worker-1",   "worker-1\n",          False),
    ("worker-1",   "worker-1\x00",        False),
    ("worker-1",   "worker-1\x000",       False),
    ("worker-1",   "\x00",                False),
    ("worker-1",   "w\u043erker-1",       False),    # a Cyrillic o
    ("worker-1",   "worker\u20101",       False),    # another hyphen
    ("worker-1",   "worker-\u0661",       False),    # an Arabic one
    ("worker-1",   "\uff57orker-1",       False),    # a wide w
    ("worker-1",   "worker-1\u200b",      False),    # a space of no width
    ("worker-1",   "\ufeffworker-1",      False),    # a byte order mark
    ("worker-1",   "worker-1\ud800",      False),
    ("a.b",        "a\uff0eb",            False),    # a wide dot
    ("a.b",        "a\u2024b",            False),    # a leader dot
    ("a.*",        "a\u3002b",            False),    # an ideographic stop
]


@pytest.mark.parametrize(("granted", "asked", "yes"), TRICKS)
def test_no_trick_with_a_name_gets_past_a_grant(granted, asked, yes):
    def allowed(parse, may, verb):
        try:
            return may(grants(**{verb: [granted]}), parse(asked))
        except Misuse:
            return False

    assert allowed(parse_name, may_send, "send") is yes
    assert allowed(parse_topic, may_publish, "publish") is yes
    assert allowed(parse_topic, may_read, "subscribe") is yes


#   may read               pattern        may subscribe
SUBSCRIPTIONS = [
    (["a.#"],               "a",           True),
    (["a.#"],               "a.*.c",       True),
    (["a.#"],               "a.#",         True),
    (["a.#"],               "#",           False),
    (["a.#"],               "*",           False),
    (["a.#"],               "*.b",         False),
    (["a.#"],               "#.a",         False),
    (["a.#"],               "ab.#",        False),
    (["a.*"],               "a.#",         False),
    (["a.b"],               "a.*",         False),
    (["worker-1.#"],        "worker-10.#", False),
    (["a.#", "b.#"],        "b.c",         True),
    (["a.#", "b.#"],        "*.c",         False),
    (["a", "a.*.#"],        "a.#",         False),   # together they would, alone none does
    (["#"],                 "#",           True),
    ([],                    "a",           False),
]


@pytest.mark.parametrize(("read", "pattern", "yes"), SUBSCRIPTIONS)
def test_a_subscription_has_to_fit_into_one_grant(read, pattern, yes):
    assert may_subscribe(grants(subscribe=read), pattern) is yes


patterns = (st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=6)
            .map(lambda words: parse_pattern(".".join(words))))
topics = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(".".join)
pattern_lists = st.lists(patterns, max_size=4)
quick = settings(max_examples=200, deadline=None)


@quick
@given(pattern_lists, patterns, topics)
def test_who_may_subscribe_to_a_pattern_may_read_all_that_it_matches(read, pattern, topic):
    granted = grants(subscribe=read)
    if may_subscribe(granted, pattern) and matches(pattern, topic):
        assert may_read(granted, topic)


@quick
@given(pattern_lists, topics)
def test_any_match_asks_each_pattern(several, topic):
    assert any_match(tuple(several), topic) == any(matches(p, topic) for p in several)


# Grants in and out

def test_grants_that_say_the_same_are_equal():
    one = grants(send=["b", "a", "a"], subscribe=["x.#.#", "#"])
    assert one == Grants(("a", "b"), (), ("#", "x.#"), False)
    assert one == grants(send=["a", "b"], subscribe=("#", "x.#"))


@pytest.mark.parametrize("granted", [
    NOTHING, EVERYTHING, OPERATOR, grants(["a.*", "b"], ["t.#"], ["é", "#.x"], True)])
def test_grants_survive_the_wire(granted):
    wire = to_wire(granted)
    assert all(type(value) in (list, bool) for value in wire.values())
    assert from_wire(wire) == granted


GOOD = to_wire(EVERYTHING)


@pytest.mark.parametrize("given", [
    None, 0, "", b"", [], [["#"], ["#"], ["#"], False], {}, {"send": ["#"]},
    {**GOOD, "more": 1}, {**GOOD, 7: 1}, {**GOOD, b"send": ["#"]},
    {key: GOOD[key] for key in ("send", "publish", "subscribe")},
    {**GOOD, "admin": 1}, {**GOOD, "admin": None}, {**GOOD, "admin": "true"},
    {**GOOD, "send": "#"}, {**GOOD, "send": None}, {**GOOD, "publish": {"#": 1}},
    {**GOOD, "subscribe": b"#"}, {**GOOD, "subscribe": True},
    {**GOOD, "send": [None]}, {**GOOD, "send": [["#"]]}, {**GOOD, "send": [b"#"]},
    {**GOOD, "send": [""]}, {**GOOD, "publish": ["a..b"]}, {**GOOD, "subscribe": ["a*"]},
    {**GOOD, "subscribe": ["a", "x" * 256]}, {**GOOD, "subscribe": ["a\x00"]},
], ids=repr)
def test_what_is_not_quite_grants_is_refused(given):
    assert bad_grants(lambda: from_wire(given))


def test_a_refusal_names_the_grant_and_the_pattern():
    text = bad_grants(lambda: grants(publish=["a..b"]))
    assert "publish" in text and "'a..b'" in text and "one dot" in text


@pytest.mark.parametrize("pattern", ["w\u00f6rker.*", "a/b", "*." + "x" * 65])
def test_a_grant_to_send_to_what_can_be_no_name_is_refused(pattern):
    assert "client names" in bad_grants(lambda: grants(send=[pattern]))
    assert grants(publish=[pattern], subscribe=[pattern])


def test_grants_have_a_limit():
    most = [f"v{n}.#" for n in range(GRANT_PATTERNS_MAX)]
    for verb in ("send", "publish", "subscribe"):
        assert grants(**{verb: most})
        more = {verb: [*most, "x"]}
        assert f"{GRANT_PATTERNS_MAX} patterns" in bad_grants(lambda: grants(**more))


# What everybody may read

def test_where_nobody_is_registered_every_topic_is_public():
    assert PublicTopics().is_public("a.b")


def test_a_topic_is_public_as_long_as_nobody_is_registered_who_may_not_read_it():
    public = PublicTopics()
    public.add(("#",))
    assert public.is_public("a") and public.is_public("b")
    public.add(("a.#", "c"))
    assert public.is_public("a") and public.is_public("c")
    assert not public.is_public("b")
    public.remove(("a.#", "c"))
    assert public.is_public("b")


def test_one_client_that_may_read_nothing_makes_every_topic_private():
    public = PublicTopics()
    assert public.is_public("a")
    public.add(())
    assert not public.is_public("a")
    public.remove(())
    assert public.is_public("a")


def test_clients_with_the_same_grants_are_counted():
    public = PublicTopics()
    public.add(("a",))
    public.add(("a",))
    public.remove(("a",))
    assert not public.is_public("b")
    public.remove(("a",))
    assert public.is_public("b")


def test_who_may_read_everything_beside_something_else_restricts_nobody():
    public = PublicTopics()
    public.add(("#", "a"))
    assert public.is_public("b")
    public.remove(("#", "a"))


def test_to_remove_a_client_that_never_came_is_an_error():
    with pytest.raises(KeyError):
        PublicTopics().remove(("a",))


@pytest.mark.parametrize("topics_max", [2, 1000])
def test_random_comings_and_goings_answer_like_a_plain_list(monkeypatch, topics_max):
    monkeypatch.setattr(policy, "_TOPICS_MAX", topics_max)
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    readings = [("#",), ("a.#",), ("*",), ("a", "b.#"), ("#.a", "#.b"), ("*.#",), ("a.*", "b", "#"),
                ("a.#", "c")]
    for _ in range(20):
        public, readers = PublicTopics(), []
        for step in range(60):
            if readers and rng.random() < 0.45:
                public.remove(readers.pop(rng.randrange(len(readers))))
            else:
                readers.append(rng.choice(readings))
                public.add(readers[-1])
            for _ in range(4):
                topic = ".".join(rng.choices("abc", k=rng.randint(1, 2)))
                plain = all(any(matches(p, topic) for p in reader) for reader in readers)
                assert public.is_public(topic) is plain, (step, topic, readers)
                assert len(public._public) <= topics_max
