"""Topics: names, topics and patterns, and which pattern matches what. No I/O, no clock.

    name      word *( "." word )      a word is ASCII letters, digits, "_" and "-"
    topic     word *( "." word )      a word is any characters but space, controls, ".", "*", "#"
    pattern   part *( "." part )      a part is a topic's word, "*" or "#"

"*" stands for exactly one word, "#" for any number of them, none included.
Text is compared code point by code point: nothing is folded or normalised, so
"A" is not "a", and two spellings of the same accented letter are two words.

The parse functions judge what comes from outside. The others take what these
have returned, and trust it.
"""

import re
from functools import lru_cache
from itertools import groupby, takewhile
from typing import NamedTuple

from .errors import Misuse

# Every delivered batch bears its sender's name; 64 has room for the longest
# host label (63), which is what fleets like to call their clients.
NAME_BYTES_MAX = 64
# Its length is one byte on the wire (msgpack's str 8), and the same as in AMQP.
TOPIC_BYTES_MAX = 255
# A client's 1,000 patterns of 121 words cost the hub 35 MB, and each publish to a new
# topic of 127 seconds of matching; people who name things need a handful.
WORDS_MAX = 32

# The first letter keeps topics apart from whatever else goes over the live side.
BROADCAST_KEY = b"b."
ECHO_KEY = b"e."          # a filter behind it is answered by the hub: the filters before it are in force

# An error is read by a person, in one line of a log.
_QUOTED_CHARACTERS_MAX = 40
# Parsing a topic of 40 letters takes 0.45 us, finding it here 0.06 us (2-core
# cloud machine); 3 caches of texts with at most 255 bytes are under 10 MB.
_PARSED_MAX = 8192

_NAME_WORD = r"[A-Za-z0-9_-]+"
# U+D800-U+DFFF are surrogates: UTF-8 can't carry them.
_TOPIC_WORD = r"[^\x00-\x20\x7f-\x9f.*#\ud800-\udfff]+"
_PATTERN_WORD = rf"(?:{_TOPIC_WORD}|\*|#)"


class _Form(NamedTuple):
    noun: str
    bytes_max: int
    word: re.Pattern[str]
    whole: re.Pattern[str]
    cure: str


def _form(noun: str, bytes_max: int, word: str, cure: str) -> _Form:
    return _Form(noun, bytes_max, re.compile(word), re.compile(rf"{word}(?:\.{word})*"), cure)


_NAME = _form("name", NAME_BYTES_MAX, _NAME_WORD,
              "use only ASCII letters, digits, _ and -, with dots between words")
_TOPIC = _form("topic", TOPIC_BYTES_MAX, _TOPIC_WORD,
               "leave out spaces and control characters, and keep * and # for patterns")
_PATTERN = _form("pattern", TOPIC_BYTES_MAX, _PATTERN_WORD,
                 "leave out spaces and control characters, and let * and # stand alone "
                 "between dots")


def parse_name(text: object) -> str:
    """The client name that text is.

    Raises Misuse bad-name.
    """
    if not isinstance(text, str):
        raise _not_text(_NAME, text)
    return _name(text)


def parse_topic(text: object) -> str:
    """The topic that text is.

    Raises Misuse bad-topic.
    """
    if not isinstance(text, str):
        raise _not_text(_TOPIC, text)
    return _topic(text)


def parse_pattern(text: object) -> str:
    """The pattern that text is, with each run of "#.#" made one "#".

    Raises Misuse bad-pattern.
    """
    if not isinstance(text, str):
        raise _not_text(_PATTERN, text)
    return _pattern(text)


def matches(pattern: str, topic: str) -> bool:
    """Whether pattern matches topic (or, in a grant to send, a name).

    Takes at most words-of-pattern times words-of-topic steps: what comes after a
    "#" is tried at its first place first, and only the last "#" is ever given
    more, since giving an earlier one more can't help where that failed.
    """
    want, have = pattern.split("."), topic.split(".")
    w = h = 0
    # Where to go on when the last "#" takes one word more; 0 is no "#" as yet.
    after_hash = taken_to = 0
    while h < len(have):
        part = want[w] if w < len(want) else None
        if part == "#":
            w += 1
            after_hash, taken_to = w, h
        elif part == "*" or part == have[h]:
            w += 1
            h += 1
        elif after_hash:
            taken_to += 1
            w, h = after_hash, taken_to
        else:
            return False
    return all(part == "#" for part in want[w:])


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that narrow matches is matched by wide.

    True is certain. False would be too cautious for a narrow with several "#" that
    fit into wide only in a different way for each of their lengths; the tests
    know of no such pair, and compare all patterns of up to four parts.
    Takes at most words-of-wide times words-of-narrow steps.
    """
    if narrow == "#":
        narrow = "*.#"    # the same, as no topic is without a word
    want, elastic = _runs(wide)
    places = _past_hashes({0}, want)
    for word in narrow.split("."):
        if word == "#":
            places = {p for p in places if elastic[p]}
        else:
            # A "*" of narrow may be a word that wide has never heard of, so
            # only a wildcard of wide can take it.
            places = {p if want[p] == "#" else p + 1
                      for p in places if want[p] in ("*", "#", word)}
        places = _past_hashes(places, want)
    return len(want) - 1 in places


def literal_prefix(pattern: str) -> tuple[str, ...]:
    """The words of pattern before its first wildcard."""
    return tuple(takewhile(lambda word: not _is_wild(word), pattern.split(".")))


def live_key(topic: str) -> bytes:
    """The first frame of a live message on topic: b"t.soar.noc." for soar.noc.

    The dot at its end is there since ZeroMQ compares prefixes, byte by byte:
    without it whoever asks for worker-1 also gets worker-10.
    """
    return f"t.{topic}.".encode()


def live_filter(pattern: str) -> bytes:
    """The prefix with which a SUB socket gets every live message pattern matches.

    b"t.soar.noc." for soar.noc and soar.noc.#, b"t." for #. It lets through
    more than pattern matches wherever that has a wildcard, so the receiver still
    has to ask `matches`.
    """
    return "".join(f"{word}." for word in ("t", *literal_prefix(pattern))).encode()


@lru_cache(_PARSED_MAX)
def _name(text: str) -> str:
    return _fit(_NAME, text)


@lru_cache(_PARSED_MAX)
def _topic(text: str) -> str:
    return _fit(_TOPIC, text)


@lru_cache(_PARSED_MAX)
def _pattern(text: str) -> str:
    return re.sub(r"#(?:\.#)+", "#", _fit(_PATTERN, text))


def _fit(form: _Form, text: str) -> str:
    """Text itself, if it has this form. The length goes first: text may be huge."""
    if (len(text) <= form.bytes_max and form.whole.fullmatch(text)
            and len(text.encode()) <= form.bytes_max and text.count(".") < WORDS_MAX):
        return text
    raise Misuse(f"bad-{form.noun}", f"{form.noun} {_quoted(text)} {_fault(form, text)}")


def _fault(form: _Form, text: str) -> str:
    """What is wrong with a text that is known not to fit, and what to do."""
    if not text:
        return "is empty; give it at least one word"
    if (len(text) > form.bytes_max
            or len(text.encode("utf-8", "surrogatepass")) > form.bytes_max):
        return f"is longer than {form.bytes_max} bytes; shorten it"
    if text.count(".") >= WORDS_MAX:
        return f"has more than {WORDS_MAX} words; join some of them"
    if "" in text.split("."):
        return "has an empty word; put one dot between two words, and none at either end"
    odd = next((c for c in text if c != "." and not form.word.fullmatch(c)), None)
    # Each character may stand in a pattern, so it is a wildcard within a word.
    found = "has a wildcard inside a word" if odd is None else f"has {odd!a} in it"
    return f"{found}; {form.cure}"


def _not_text(form: _Form, given: object) -> Misuse:
    return Misuse(f"bad-{form.noun}",
                  f"a {form.noun} is text, not {type(given).__name__}; pass a str")


def _quoted(text: str) -> str:
    cut = text[:_QUOTED_CHARACTERS_MAX]
    return ascii(cut) + ("..." if cut != text else "")


def _runs(pattern: str) -> tuple[list[str], list[bool]]:
    """The parts of pattern, each run of wildcards with a "#" in it put in one order.

    "#.*", "*.#" and "#.*.#" all say "one word or more", and all become "*.#".
    A place in such a run is elastic: any number of words may go by there.
    Returns the parts, an "" that stands for the end, and whether each is elastic.
    """
    want: list[str] = []
    elastic: list[bool] = []
    for _, run in groupby(pattern.split("."), _is_wild):
        parts = list(run)
        stretches = "#" in parts
        if stretches:
            parts = ["*"] * parts.count("*") + ["#"]
        want += parts
        elastic += [stretches] * len(parts)
    return [*want, ""], [*elastic, False]


def _is_wild(word: str) -> bool:
    return word in ("*", "#")


def _past_hashes(places: set[int], want: list[str]) -> set[int]:
    """The places, and those behind a "#" among them: it may stand for no word."""
    return places | {p + 1 for p in places if want[p] == "#"}
