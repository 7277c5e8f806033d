"""Routes: which holders' patterns match a topic, however they came and went."""

import random

import pytest

from zbackbone.router import routes as routes_module
from zbackbone.router.routes import Routes
from zbackbone.topics import matches, parse_pattern


class PlainRoutes:
    """A list of pairs, each asked: the oracle."""

    def __init__(self):
        self.pairs = []

    def add(self, pattern, holder):
        new = (pattern, holder) not in self.pairs
        if new:
            self.pairs.append((pattern, holder))
        return new

    def remove(self, pattern, holder):
        there = (pattern, holder) in self.pairs
        if there:
            self.pairs.remove((pattern, holder))
        return there

    def drop(self, holder):
        gone = self.of(holder)
        self.pairs = [pair for pair in self.pairs if pair[1] != holder]
        return gone

    def of(self, holder):
        return sorted(pattern for pattern, who in self.pairs if who == holder)

    def match(self, topic):
        return {holder for pattern, holder in self.pairs if matches(pattern, topic)}


def routes_with(*pairs):
    routes = Routes()
    for pattern, holder in pairs:
        assert routes.add(pattern, holder)
    return routes


def test_a_topic_finds_the_holders_of_matching_patterns():
    routes = routes_with(("soar.noc", 1), ("soar.#", 2), ("*.noc", 3), ("soar.*.x", 4))
    assert routes.match("soar.noc") == (1, 2, 3)
    assert routes.match("soar.noc.x") == (2, 4)
    assert routes.match("soar") == (2,)
    assert routes.match("bodc") == ()


def test_worker_1_does_not_get_what_worker_10_gets():
    routes = routes_with(("worker-1", "one"), ("worker-1.#", "one"), ("worker-10.#", "ten"))
    assert routes.match("worker-10") == ("ten",)
    assert routes.match("worker-1") == ("one",)


def test_a_holder_is_found_once_however_many_of_its_patterns_match():
    routes = routes_with(("a.b", 7), ("a.*", 7), ("#", 7), ("#.b", 7))
    assert routes.match("a.b") == (7,)


def test_holders_come_in_the_order_in_which_they_first_held_a_pattern():
    routes = routes_with(("#", "late"), ("x", "early"), ("a", "last"))
    routes.add("a", "early")
    assert routes.match("a") == ("late", "early", "last")
    routes.remove("#", "late")
    routes.add("a", "late")
    assert routes.match("a") == ("early", "last", "late")


def test_a_pattern_is_held_once_and_removed_once():
    routes = Routes()
    assert routes.add("a.#", 1)
    assert not routes.add("a.#", 1)
    assert len(routes) == 1
    assert routes.remove("a.#", 1)
    assert not routes.remove("a.#", 1)
    assert not routes.remove("never.seen", 2)
    assert len(routes) == 0
    assert routes.match("a.b") == ()


def test_each_change_shows_in_the_next_answer():
    routes = Routes()
    assert routes.match("a.b") == ()
    routes.add("a.*", 1)
    assert routes.match("a.b") == (1,)
    routes.add("#", 2)
    assert routes.match("a.b") == (1, 2)
    routes.remove("a.*", 1)
    assert routes.match("a.b") == (2,)
    routes.drop(2)
    assert routes.match("a.b") == ()


def test_to_drop_a_holder_takes_all_its_patterns_and_no_other_s():
    routes = routes_with(("b", 1), ("a.#", 1), ("a.#", 2), ("a.b", 1))
    assert routes.of(1) == ["a.#", "a.b", "b"]
    assert routes.count(1) == 3
    assert routes.drop(1) == ["a.#", "a.b", "b"]
    assert routes.drop(1) == []
    assert routes.of(1) == [] and routes.count(1) == 0
    assert routes.of(2) == ["a.#"]
    assert len(routes) == 1
    assert routes.match("a.b") == (2,)


def test_of_gives_a_copy_that_may_be_changed():
    routes = routes_with(("a", 1))
    routes.of(1).clear()
    assert routes.of(1) == ["a"]


@pytest.mark.parametrize("depth", [1, 5, 128])
def test_nothing_is_left_in_memory_of_what_came_and_went(depth):
    routes = routes_with((".".join(["keep"] * 3), 0))
    for holder in range(20):
        routes.add(".".join(["x"] * (depth - 1) + [str(holder)]), holder)
        routes.add(".".join(["keep"] * min(depth, 4)), holder)
    for holder in range(20):
        routes.drop(holder)
    assert len(routes) == 0
    assert routes._root.below == {}
    assert routes._patterns == routes._serials == routes._answers == {}


def test_a_node_that_still_leads_somewhere_stays():
    routes = routes_with(("a", 1), ("a.b.c", 2), ("a.b", 3))
    routes.remove("a.b", 3)
    assert routes.match("a.b.c") == (2,)
    routes.remove("a.b.c", 2)
    assert routes.match("a") == (1,)


def test_random_histories_answer_like_a_plain_list():
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(12):
        routes, plain = Routes(), PlainRoutes()
        for step in range(150):
            pattern = parse_pattern(".".join(rng.choices("ab*#", k=rng.randint(1, 5))))
            holder = rng.randint(1, 6)
            act = rng.choices(["add", "remove", "drop"], [12, 6, 1])[0]
            change = (holder,) if act == "drop" else (pattern, holder)
            assert getattr(routes, act)(*change) == getattr(plain, act)(*change), step
            assert len(routes) == len(plain.pairs)
            assert routes.of(holder) == plain.of(holder)
            for _ in range(4):
                topic = ".".join(rng.choices("abc", k=rng.randint(1, 6)))
                found = routes.match(topic)
                assert len(found) == len(set(found))
                assert set(found) == plain.match(topic), (step, topic)
                assert routes.match(topic) is found


@pytest.mark.parametrize(("topics_max", "holders_max"), [(5, 1000), (1000, 12), (1, 1)])
def test_answers_kept_are_bounded_in_number_and_in_size(monkeypatch, topics_max, holders_max):
    monkeypatch.setattr(routes_module, "CACHE_TOPICS_MAX", topics_max)
    monkeypatch.setattr(routes_module, "CACHE_HOLDERS_MAX", holders_max)
    routes = routes_with(*[("a.#", holder) for holder in range(5)], ("b.#", 9))
    for n in range(100):
        assert routes.match(f"a.{n % 13}") == (0, 1, 2, 3, 4)
        assert routes.match(f"b.{n}") == (9,)
        assert len(routes._answers) <= topics_max
        # One answer alone may be longer than all that is to be kept.
        assert sum(map(len, routes._answers.values())) <= max(holders_max, 5)


def test_a_change_forgets_the_answers_and_leaves_room_for_new_ones(monkeypatch):
    monkeypatch.setattr(routes_module, "CACHE_HOLDERS_MAX", 4)
    routes = routes_with(("#", 1), ("*", 2))
    for n in range(10):
        routes.add(f"x{n}", "other")
        assert routes.match("a") == routes.match("b") == (1, 2)
        assert set(routes._answers) == {"a", "b"}


def test_the_longest_topic_meets_the_longest_pattern():
    longest = ".".join(["x"] * 128)
    routes = routes_with((longest, 1), (".".join("*" * 128), 2), (".".join("*" * 127), 3))
    assert routes.match(longest) == (1, 2)


@pytest.mark.timeout(20)
def test_patterns_full_of_hashes_cost_no_more_than_their_parts():
    routes = Routes()
    for holder in range(50):
        routes.add(".".join(["#.a"] * 60 + [f"b{holder}"]), holder)
        routes.add(".".join(["#.*"] * (holder + 1)), "any")
    assert routes.match(".".join(["a"] * 120)) == ("any",)
    assert routes.match(".".join(["a"] * 119 + ["b7"])) == ("any", 7)


@pytest.mark.timeout(60)
def test_a_hundred_thousand_subscriptions_are_told_apart():
    routes = Routes()
    for n in range(100_000):
        routes.add(f"fleet.v{n}.#", n % 1000)
    assert len(routes) == 100_000
    assert routes.count(7) == 100
    for n in (0, 7, 99_999):
        assert routes.match(f"fleet.v{n}.position") == (n % 1000,)
    assert routes.match("fleet.v100000.position") == ()
