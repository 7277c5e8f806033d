"""Names, topics and patterns: what is one, and which pattern matches what."""

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zbackbone.errors import Misuse
from zbackbone.topics import (
    BROADCAST_KEY,
    TOPIC_BYTES_MAX,
    covers,
    literal_prefix,
    live_filter,
    live_key,
    matches,
    parse_name,
    parse_pattern,
    parse_topic,
)

PARSERS = {"name": parse_name, "topic": parse_topic, "pattern": parse_pattern}

quick = settings(max_examples=150, deadline=None)
parts = st.lists(st.sampled_from(["a", "b", "*", "#"]), min_size=1, max_size=8)
patterns = parts.map(lambda words: parse_pattern(".".join(words)))
topics = st.lists(st.sampled_from("abc"), min_size=1, max_size=9).map(".".join)
any_text = st.text(st.characters(codec=None), max_size=12) | st.text("aB1_-.*#\x00 é", max_size=12)


def refusal(parse, text):
    with pytest.raises(Misuse) as caught:
        parse(text)
    return caught.value


# What is a name, a topic, a pattern

#  text                     name   topic  pattern
FORMS = [
    ("a",                   True,  True,  True),
    ("worker-1",            True,  True,  True),
    ("Slocum_402.noc.SOAR", True,  True,  True),
    ("-._",                 True,  True,  True),
    ("søren.größe.温度.🚢",  False, True,  True),
    ("a/b:c@d!",            False, True,  True),
    ("a\u00a0b",            False, True,  True),
    ("*",                   False, False, True),
    ("#",                   False, False, True),
    ("a.*.#.b",             False, False, True),
    ("#.a.#",               False, False, True),
    ("a*",                  False, False, False),
    ("a.#b.c",              False, False, False),
    ("**",                  False, False, False),
    ("",                    False, False, False),
    (".",                   False, False, False),
    (".a",                  False, False, False),
    ("a.",                  False, False, False),
    ("a..b",                False, False, False),
    ("a b",                 False, False, False),
    ("a\n",                 False, False, False),
    ("\ta",                 False, False, False),
    ("a\x00",               False, False, False),
    ("a\x7f",               False, False, False),
    ("a\x85b",              False, False, False),
    ("a\x9f",               False, False, False),
    ("a\ud800",             False, False, False),
    ("\udfff",              False, False, False),
]


@pytest.mark.parametrize(("text", "name", "topic", "pattern"), FORMS, ids=ascii)
def test_each_form_takes_what_its_grammar_says(text, name, topic, pattern):
    for form, good in (("name", name), ("topic", topic), ("pattern", pattern)):
        if good:
            assert PARSERS[form](text) == text
        else:
            assert refusal(PARSERS[form], text).code == f"bad-{form}"


@pytest.mark.parametrize(("form", "bytes_max"), [
    ("name", 64), ("topic", 255), ("pattern", 255)])
def test_the_longest_text_is_taken_and_one_byte_more_is_not(form, bytes_max):
    assert PARSERS[form]("x" * bytes_max) == "x" * bytes_max
    assert f"longer than {bytes_max} bytes" in refusal(PARSERS[form], "x" * (bytes_max + 1)).text


def test_length_counts_bytes_and_not_characters():
    assert parse_topic("é" * 127)
    assert refusal(parse_topic, "é" * 128).code == "bad-topic"
    assert parse_pattern("🚢" * 63 + ".*")
    assert refusal(parse_pattern, "🚢" * 64).code == "bad-pattern"


@pytest.mark.parametrize("form", PARSERS)
@pytest.mark.parametrize("thing", [None, 7, b"a.b", ["a"], {"a": 1}, ("a",)], ids=repr)
def test_what_is_not_text_is_refused_and_hashable_or_not_makes_no_difference(form, thing):
    error = refusal(PARSERS[form], thing)
    assert error.code == f"bad-{form}"
    assert type(thing).__name__ in error.text


@pytest.mark.parametrize("form", ["topic", "pattern"])
def test_a_topic_and_a_pattern_have_at_most_32_words(form):
    assert PARSERS[form](".".join("w" * 32)) == ".".join("w" * 32)
    error = refusal(PARSERS[form], ".".join("w" * 33))
    assert error.code == f"bad-{form}" and "32 words" in error.text


@pytest.mark.parametrize(("written", "meant"), [
    ("#.#", "#"), ("#.#.#.#", "#"), ("a.#.#.b.#.#", "a.#.b.#"), ("#.*.#", "#.*.#"),
    ("*.*", "*.*"), ("a.a", "a.a"), (".".join("#" * 32), "#")])
def test_hashes_side_by_side_become_one(written, meant):
    assert parse_pattern(written) == meant


#   form       text       says
COMPLAINTS = [
    ("topic",   "",        "give it at least one word"),
    ("topic",   "a..b",    "put one dot between two words"),
    ("topic",   "a.*",     "'*' in it; leave out spaces and control characters, and keep *"),
    ("topic",   "a b",     "' ' in it; leave out spaces"),
    ("name",    "a/b",     "'/' in it; use only ASCII letters"),
    ("pattern", "a.b*",    "a wildcard inside a word; leave out spaces and control characters, "
                           "and let * and # stand alone"),
    ("topic",   "x" * 999, "shorten it"),
    ("name",    b"a",      "pass a str"),
]


@pytest.mark.parametrize(("form", "text", "says"), COMPLAINTS)
def test_a_refusal_says_what_is_wrong_and_what_to_do(form, text, says):
    assert says in refusal(PARSERS[form], text).text


@quick
@given(st.sampled_from(sorted(PARSERS)), any_text, st.integers(1, 2000))
def test_whatever_the_text_it_is_taken_as_it_is_or_refused_in_one_short_safe_line(
        form, text, times):
    try:
        parsed = PARSERS[form](text * times)
    except Misuse as error:
        assert error.code == f"bad-{form}"
        assert len(error.text) < 600
        assert error.text.isascii() and error.text.isprintable()
    else:
        assert parsed == text * times or form == "pattern"
        assert parse_pattern(parsed) == parsed
        assert len(parsed.encode()) <= TOPIC_BYTES_MAX


# Which pattern matches what

#  pattern         topic          matches
MATCHES = [
    ("soar.noc",     "soar.noc",       True),
    ("soar.noc",     "soar",           False),
    ("soar.noc",     "soar.noc.x",     False),
    ("soar.noc",     "soar.nocx",      False),
    ("soar",         "Soar",           False),
    ("worker-1",     "worker-10",      False),
    ("worker-1.#",   "worker-10",      False),
    ("worker-1.#",   "worker-1",       True),
    ("é",            "e\u0301",        False),
    ("#",            "a",              True),
    ("#",            "a.b.c",          True),
    ("*",            "a",              True),
    ("*",            "a.b",            False),
    ("a.*",          "a",              False),
    ("a.#",          "a",              True),
    ("a.#",          "a.b.c",          True),
    ("a.#",          "ab",             False),
    ("#.c",          "c",              True),
    ("#.c",          "a.b.c",          True),
    ("#.c",          "c.b",            False),
    ("a.#.c",        "a.c",            True),
    ("a.#.c",        "a.b.c.b.c",      True),
    ("a.#.c",        "a",              False),
    ("*.#",          "a",              True),
    ("#.*.b",        "b",              False),
    ("#.a.*.b",      "a.a.a.c.b",      True),
    ("#.a.b.#.a.b",  "a.b",            False),
    ("#.a.b.#.a.b",  "a.a.b.b.a.b",    True),
]


@pytest.mark.parametrize(("pattern", "topic", "yes"), MATCHES)
def test_a_pattern_matches_as_in_amqp(pattern, topic, yes):
    assert matches(pattern, topic) is yes


def plainly_matches(want, have):
    """The definition itself, and so exponential."""
    if not want or not have:
        return not have and all(word == "#" for word in want)
    if want[0] == "#":
        return plainly_matches(want[1:], have) or plainly_matches(want, have[1:])
    return want[0] in ("*", have[0]) and plainly_matches(want[1:], have[1:])


def all_over(words, up_to):
    return [".".join(chosen) for n in range(1, up_to + 1)
            for chosen in itertools.product(words, repeat=n)]


SHORT_PATTERNS = sorted({parse_pattern(p) for p in all_over("ab*#", 4)})


def test_matches_is_its_definition_for_all_short_patterns_and_topics():
    for pattern, topic in itertools.product(SHORT_PATTERNS, all_over("abc", 4)):
        plain = plainly_matches(pattern.split("."), topic.split("."))
        assert matches(pattern, topic) == plain, (pattern, topic)


@quick
@given(patterns, topics)
def test_matches_is_its_definition_for_longer_ones_too(pattern, topic):
    assert matches(pattern, topic) == plainly_matches(pattern.split("."), topic.split("."))


@pytest.mark.timeout(20)
def test_no_pattern_takes_exponential_time():
    words = ["a"] * 120
    many_hashes = ".".join(["#.a"] * 60)
    assert matches(many_hashes, ".".join(words))
    assert not matches(many_hashes + ".b", ".".join(words))
    assert not matches("#." + ".".join(words[:60]) + ".b", ".".join(words))
    assert covers(many_hashes, many_hashes)
    assert not covers(many_hashes + ".b", many_hashes)
    assert covers("#.*." * 30 + "#", many_hashes)


# Which pattern covers which

#  wide            narrow          covers
COVERS = [
    ("#",            "#",              True),
    ("#",            "a.*.#",          True),
    ("a.#",          "a",              True),
    ("a.#",          "a.b.#",          True),
    ("a.#",          "a.*.c",          True),
    ("a.#",          "*.b",            False),
    ("a.#",          "#",              False),
    ("a.#",          "ab.#",           False),
    ("a.*",          "a.b",            True),
    ("a.*",          "a.#",            False),
    ("a.*",          "a.*.*",          False),
    ("a.b",          "a.*",            False),
    ("a.b",          "a.b",            True),
    ("worker-1.#",   "worker-10.#",    False),
    ("worker-1.#",   "worker-1.#",     True),
    ("A.#",          "a.#",            False),
    ("*.#",          "#",              True),
    ("*.*.#",        "#",              False),
    ("#.*",          "*.#",            True),
    ("*.*.#",        "a.#.b",          True),
    ("*.#.a",        "#.b.a",          True),
    ("#.b",          "#.a.b",          True),
    ("#.b",          "a.#",            False),
    ("#.b.#",        "*.b.*",          True),
    ("#.a.*.#",      "a.#.a.b",        True),
]


@pytest.mark.parametrize(("wide", "narrow", "yes"), COVERS)
def test_a_pattern_covers_what_matches_no_more_than_it(wide, narrow, yes):
    assert covers(wide, narrow) is yes


def test_covers_is_exact_for_all_patterns_of_up_to_four_parts():
    """Against the sets of topics that match, of up to six words over a, b and another."""
    short_topics = all_over("abc", 6)
    matched = {pattern: {t for t in short_topics if matches(pattern, t)}
               for pattern in SHORT_PATTERNS}
    for wide, narrow in itertools.product(SHORT_PATTERNS, repeat=2):
        assert covers(wide, narrow) == (matched[narrow] <= matched[wide]), (wide, narrow)


def hardest_topics(pattern, words_max):
    """Topics of pattern whose wildcards stand for a word that no pattern names.

    If wide matches these, it matches them with other words in those places too.
    """
    words = pattern.split(".")
    for lengths in itertools.product(range(words_max + 1), repeat=words.count("#")):
        length = iter(lengths)
        filled = [["z"] * next(length) if w == "#" else ["z" if w == "*" else w] for w in words]
        if topic := ".".join(itertools.chain(*filled)):
            yield topic


def test_covers_is_sound_and_seldom_too_cautious_for_longer_patterns():
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)

    def any_pattern():
        words = rng.choices("ab*#", [4, 1, 2, 3], k=rng.randint(4, 7))
        return parse_pattern(".".join(words))

    certain = cautious = 0
    for _ in range(4000):
        wide, narrow = any_pattern(), any_pattern()
        if narrow.count("#") > 2:
            continue
        words_max = len(wide.split(".")) + 1
        truth = all(matches(wide, topic) for topic in hardest_topics(narrow, words_max))
        if covers(wide, narrow):
            assert truth, (wide, narrow)
            certain += 1
        else:
            cautious += truth
    assert certain > 50
    assert cautious <= certain // 100


@quick
@given(patterns, patterns, patterns)
def test_covers_is_an_order_with_the_hash_on_top(one, two, three):
    assert covers(one, one)
    assert covers("#", one)
    if covers(one, two) and covers(two, three):
        assert covers(one, three)


@quick
@given(patterns, patterns, topics)
def test_what_a_covered_pattern_matches_the_wide_one_matches(wide, narrow, topic):
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)


@quick
@given(patterns, topics)
def test_to_cover_a_topic_is_to_match_it(wide, topic):
    assert covers(wide, topic) == matches(wide, topic)


# The live side

@pytest.mark.parametrize(("pattern", "prefix", "wire"), [
    ("soar.noc",     ("soar", "noc"), b"t.soar.noc."),
    ("soar.noc.#",   ("soar", "noc"), b"t.soar.noc."),
    ("soar.*.noc",   ("soar",),       b"t.soar."),
    ("*.x",          (),              b"t."),
    ("#",            (),              b"t."),
    ("é.#",          ("é",),          b"t.\xc3\xa9."),
])
def test_a_live_filter_is_the_words_before_the_first_wildcard(pattern, prefix, wire):
    assert literal_prefix(pattern) == prefix
    assert live_filter(pattern) == wire


def test_a_live_key_ends_in_a_dot_so_that_worker_1_is_no_prefix_of_worker_10():
    assert live_key("soar.noc") == b"t.soar.noc."
    assert not live_key("worker-10").startswith(live_filter("worker-1"))
    assert not live_key("worker-10").startswith(live_filter("worker-1.#"))


@quick
@given(patterns, topics)
def test_a_live_filter_lets_all_through_that_its_pattern_matches(pattern, topic):
    if matches(pattern, topic):
        assert live_key(topic).startswith(live_filter(pattern))


def test_nobody_gets_a_broadcast_by_a_topic_filter_or_a_topic_by_the_broadcast_filter():
    assert not BROADCAST_KEY.startswith(live_filter("#"))
    assert not live_key("b").startswith(BROADCAST_KEY)
    assert re.fullmatch(rb"[a-z]\.", BROADCAST_KEY)
