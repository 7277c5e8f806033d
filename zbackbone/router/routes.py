"""Routes: which holders' patterns match a topic. No I/O, no clock."""

from collections.abc import Hashable, Iterable
from itertools import count
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)

# Both bound what the answers kept for the next publish may take, as a topic
# may be any text and an answer may name every client: together about 10 MB.
CACHE_TOPICS_MAX = 8192
CACHE_HOLDERS_MAX = 1_000_000


class Routes(Generic[Holder]):
    """A multimap from patterns to whoever holds them, asked by topic.

    Patterns and topics come as topics.parse_pattern and parse_topic return them.
    A holder is anything hashable: a client's id, a peer. The patterns form a tree
    of words, so a topic costs the tree's nodes it passes and the holders found,
    however many subscriptions there are; a topic asked for again costs one look.
    """

    def __init__(self) -> None:
        self._root: _Node[Holder] = _Node()
        self._patterns: dict[Holder, set[str]] = {}
        # Who came first is answered first, so that the same history always
        # gives the same order.
        self._serials: dict[Holder, int] = {}
        self._counter = count()
        self._total = 0
        self._answers: dict[str, tuple[Holder, ...]] = {}
        self._answered_holders = 0

    def __len__(self) -> int:
        """The number of pairs of pattern and holder."""
        return self._total

    def add(self, pattern: str, holder: Holder) -> bool:
        """Give holder this pattern. False if it was there already."""
        if pattern in self._patterns.get(holder, ()):
            return False
        if holder not in self._patterns:
            self._patterns[holder] = set()
            self._serials[holder] = next(self._counter)
        self._patterns[holder].add(pattern)
        node = self._root
        for word in pattern.split("."):
            node = node.below.get(word) or node.grow(word)
        node.holders[holder] = None
        self._total += 1
        self._forget_answers()
        return True

    def remove(self, pattern: str, holder: Holder) -> bool:
        """Take this pattern from holder. False if it had none such."""
        if pattern not in self._patterns.get(holder, ()):
            return False
        self._patterns[holder].remove(pattern)
        if not self._patterns[holder]:
            del self._patterns[holder], self._serials[holder]
        self._cut(pattern, holder)
        self._total -= 1
        self._forget_answers()
        return True

    def drop(self, holder: Holder) -> list[str]:
        """Take all its patterns from holder, and return them sorted."""
        patterns = self.of(holder)
        for pattern in patterns:
            self.remove(pattern, holder)
        return patterns

    def of(self, holder: Holder) -> list[str]:
        """The holder's patterns, sorted."""
        return sorted(self._patterns.get(holder, ()))

    def count(self, holder: Holder) -> int:
        """How many patterns the holder has."""
        return len(self._patterns.get(holder, ()))

    def match(self, topic: str) -> tuple[Holder, ...]:
        """Each holder with a pattern that matches topic, once, the oldest first.

        A holder's age counts from when it last had no pattern at all.
        """
        found = self._answers.get(topic)
        if found is None:
            found = self._find(topic)
            self._keep_answer(topic, found)
        return found

    def _find(self, topic: str) -> tuple[Holder, ...]:
        # All the places in the tree where the words so far can have led, each
        # once: so no pattern, however full of "#", costs more than its nodes
        # times the topic's words.
        places = _with_hashes([self._root])
        for word in topic.split("."):
            places = _with_hashes(
                after for place in places
                for after in (place.below.get(word), place.below.get("*"),
                              place if place.is_hash else None)
                if after is not None)
        found = {holder for place in places for holder in place.holders}
        return tuple(sorted(found, key=self._serials.__getitem__))

    def _cut(self, pattern: str, holder: Holder) -> None:
        """Take holder from the pattern's node, and the nodes that now lead nowhere."""
        words = pattern.split(".")
        path = [self._root]
        for word in words:
            path.append(path[-1].below[word])
        del path[-1].holders[holder]
        while words and not path[-1].holders and not path[-1].below:
            path.pop()
            del path[-1].below[words.pop()]

    def _keep_answer(self, topic: str, found: tuple[Holder, ...]) -> None:
        if (len(self._answers) >= CACHE_TOPICS_MAX
                or self._answered_holders + len(found) > CACHE_HOLDERS_MAX):
            self._forget_answers()
        self._answers[topic] = found
        self._answered_holders += len(found)

    def _forget_answers(self) -> None:
        # Finding out which answers a change concerns takes longer than finding
        # the few again that are still asked for.
        self._answers.clear()
        self._answered_holders = 0


class _Node(Generic[Holder]):
    """The end of some patterns, the way on to others, or both."""

    __slots__ = ("below", "holders", "is_hash")

    def __init__(self, is_hash: bool = False) -> None:
        self.below: dict[str, _Node[Holder]] = {}
        # A dict with no values, since most are empty: 64 bytes to a set's 216.
        self.holders: dict[Holder, None] = {}
        self.is_hash = is_hash

    def grow(self, word: str) -> "_Node[Holder]":
        node = self.below[word] = _Node(word == "#")
        return node


def _with_hashes(places: "Iterable[_Node[Holder]]") -> "dict[_Node[Holder], None]":
    """These places, and the "#" below each of them, which may stand for no word."""
    reached: dict[_Node[Holder], None] = {}
    for place in places:
        reached[place] = None
        # One step is enough: "#.#" is no parsed pattern.
        if (below := place.below.get("#")) is not None:
            reached[below] = None
    return reached
