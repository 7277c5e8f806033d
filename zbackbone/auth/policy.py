"""Policy: what a client's grants let it do. No I/O, no clock.

Nothing is allowed unless a grant allows it. Names, topics and patterns come as
topics.parse_name, parse_topic and parse_pattern return them.
"""

from functools import lru_cache
from typing import NamedTuple

from ..errors import Misuse
from ..topics import covers, matches, parse_name, parse_pattern

# A client's first message on a topic may try them all: 0.05 ms for 100 (2-core
# cloud machine).
GRANT_PATTERNS_MAX = 100

# With their texts, 10 MB at most.
_ANSWERS_MAX = 20_000
_TOPICS_MAX = 8192


class Grants(NamedTuple):
    """What one client may do: patterns, and whether it may administer the hub.

    Those of send are over client names, those of publish and subscribe over topics.
    """

    send: tuple[str, ...]
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    admin: bool = False


NOTHING = Grants((), (), ())
EVERYTHING = Grants(("#",), ("#",), ("#",))
OPERATOR = EVERYTHING._replace(admin=True)


def parse_grants(send: object, publish: object, subscribe: object, admin: object) -> Grants:
    """The grants that these lists of patterns and this bool are.

    The patterns come back normalised, sorted and each once, so that the same
    grants are always equal.
    Raises Misuse bad-grants.
    """
    if not isinstance(admin, bool):
        raise _bad("admin", "is neither true nor false; say which")
    return Grants(_send_patterns(send), _patterns("publish", publish),
                  _patterns("subscribe", subscribe), admin)


def to_wire(grants: Grants) -> dict[str, list[str] | bool]:
    """The grants as a map of plain values, for the wire and the disk."""
    return {"send": list(grants.send), "publish": list(grants.publish),
            "subscribe": list(grants.subscribe), "admin": grants.admin}


def from_wire(given: object) -> Grants:
    """The grants that to_wire made this map from.

    Each key has to be there, and no other: a grant half understood might allow
    what it was meant to withhold.
    Raises Misuse bad-grants.
    """
    if not isinstance(given, dict) or set(given) != set(Grants._fields):
        raise Misuse("bad-grants", "grants are a map with the keys send, publish, subscribe "
                                   "and admin, all four and no other; send just these")
    return parse_grants(**given)


def may_send(grants: Grants, name: str) -> bool:
    """Whether the client may send to the client of this name."""
    return any_match(grants.send, name)


def may_publish(grants: Grants, topic: str) -> bool:
    """Whether the client may publish to topic."""
    return any_match(grants.publish, topic)


def may_broadcast(grants: Grants) -> bool:
    """Whether the client may broadcast, which is to send to every client there is."""
    return "#" in grants.send


def may_read(grants: Grants, topic: str) -> bool:
    """Whether the client may receive what is published to topic."""
    return any_match(grants.subscribe, topic)


def may_subscribe(grants: Grants, pattern: str) -> bool:
    """Whether the client may subscribe to pattern: one grant alone has to cover it.

    So whoever may subscribe to a pattern may read every topic that it matches.
    """
    return any(covers(granted, pattern) for granted in grants.subscribe)


def may_administer(grants: Grants) -> bool:
    """Whether the client may register, revoke and regrant others."""
    return grants.admin


def any_match(patterns: tuple[str, ...], topic: str) -> bool:
    """Whether some pattern matches topic (or name)."""
    return "#" in patterns or _any_match(patterns, topic)


class PublicTopics:
    """Which topics every registered client may read.

    It is told what each client may read as clients come, go and are regranted.
    Where nobody is registered every topic is public: there is nobody to keep it from.
    """

    def __init__(self) -> None:
        # Clients with the same grants count as one reader, those who may read
        # everything as none.
        self._readers: dict[tuple[str, ...], int] = {}
        self._public: dict[str, bool] = {}

    def add(self, patterns: tuple[str, ...]) -> None:
        """Count one more client whose subscribe grants are patterns."""
        if "#" in patterns:
            return
        self._readers[patterns] = self._readers.get(patterns, 0) + 1
        if self._readers[patterns] == 1:
            # It can only make topics less public. Asking it alone about those
            # asked for so far lets thousands join in a row while others publish.
            for topic, public in self._public.items():
                self._public[topic] = public and any_match(patterns, topic)

    def remove(self, patterns: tuple[str, ...]) -> None:
        """Count one client less. Raises KeyError if no such client was added."""
        if "#" in patterns:
            return
        self._readers[patterns] -= 1
        if not self._readers[patterns]:
            del self._readers[patterns]
            self._public = {topic: True for topic, public in self._public.items() if public}

    def is_public(self, topic: str) -> bool:
        """Whether every client may read topic."""
        public = self._public.get(topic)
        if public is None:
            if len(self._public) >= _TOPICS_MAX:
                self._public.clear()
            public = self._public[topic] = self._all_may_read(topic)
        return public

    def _all_may_read(self, topic: str) -> bool:
        # Readers mostly share the pattern that lets them read, and it need not be
        # matched again: 0.4 ms, not 12, for 9,000 readers of two patterns each
        # (2-core cloud machine).
        matching: set[str] = set()
        for patterns in self._readers:
            if matching.isdisjoint(patterns):
                found = next((p for p in patterns if matches(p, topic)), None)
                if found is None:
                    return False
                matching.add(found)
        return True


@lru_cache(_ANSWERS_MAX)
def _any_match(patterns: tuple[str, ...], topic: str) -> bool:
    return any(matches(pattern, topic) for pattern in patterns)


def _send_patterns(given: object) -> tuple[str, ...]:
    patterns = _patterns("send", given)
    words = [word for pattern in patterns for word in pattern.split(".")]
    try:
        # A topic's word may have letters that no name has: such a grant would
        # look as if it allowed something.
        for word in words:
            if word not in ("*", "#"):
                parse_name(word)
    except Misuse as error:
        raise _bad("send", f"is over client names, and {error.text}") from None
    return patterns


def _patterns(verb: str, given: object) -> tuple[str, ...]:
    # A lone text is refused since it would be read as a list of letters.
    if not isinstance(given, (list, tuple)):
        raise _bad(verb, f"is {type(given).__name__}; give a list of patterns")
    if len(given) > GRANT_PATTERNS_MAX:
        raise _bad(verb, f"has more than {GRANT_PATTERNS_MAX} patterns; "
                         "put topics that go together under one prefix")
    try:
        return tuple(sorted({parse_pattern(pattern) for pattern in given}))
    except Misuse as error:
        raise _bad(verb, f"has a bad pattern: {error.text}") from None


def _bad(verb: str, fault: str) -> Misuse:
    return Misuse("bad-grants", f"the grant {verb} {fault}")
