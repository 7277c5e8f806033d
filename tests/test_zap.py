"""ZAP: one request, one judgement; whatever is wrong with it, the answer is no."""

import random

import pytest

from zbackbone.auth.zap import judge

KEY = bytes(range(32))
GOOD = [b"1.0", b"17", b"hub", b"127.0.0.1", b"route", b"CURVE", KEY]


def admit(asked):
    """A judge's register that admits one key to one domain, and remembers what it was asked."""
    def may_enter(key, domain):
        asked.append((key, domain))
        return (key, domain) == (KEY.hex(), "hub")
    return may_enter


def verdict(request, may_enter=lambda key, domain: True):
    answer = judge(request, may_enter)
    assert len(answer) == 6 and all(type(frame) is bytes for frame in answer)
    assert answer[0] == b"1.0" and answer[5] == b""
    return answer[2]


def test_a_known_key_comes_in_under_its_own_name():
    asked = []
    assert judge(GOOD, admit(asked)) == [b"1.0", b"17", b"200", b"OK", KEY.hex().encode(), b""]
    assert asked == [(KEY.hex(), "hub")]


def test_an_unknown_key_is_refused_under_no_name():
    assert judge([*GOOD[:6], b"\1" * 32], admit([])) == [b"1.0", b"17", b"400", b"key not accepted", b"", b""]


def changed(index, value):
    return [*GOOD[:index], value, *GOOD[index + 1:]]


#   request                                      status
JUDGED = [
    (GOOD,                                        b"200"),
    (changed(1, b""),                             b"200"),
    (changed(1, b"\xff" * 300),                   b"200"),
    (changed(3, b"anything \xff"),                b"200"),
    (changed(4, b"\0claimed"),                    b"200"),
    (changed(0, b"1.1"),                          b"400"),
    (changed(0, b"2.0"),                          b"400"),
    (changed(0, b""),                             b"400"),
    (changed(2, b""),                             b"400"),
    (changed(2, b"live"),                         b"400"),
    (changed(2, b"HUB"),                          b"400"),
    (changed(2, b"hub "),                         b"400"),
    (changed(2, b"*"),                            b"400"),
    (changed(2, b"h\xc3\xbcb"),                   b"400"),
    (changed(2, b"\xff"),                         b"400"),
    (changed(5, b"NULL"),                         b"400"),
    (changed(5, b"PLAIN"),                        b"400"),
    (changed(5, b"curve"),                        b"400"),
    (changed(5, b""),                             b"400"),
    (changed(6, b""),                             b"400"),
    (changed(6, KEY[:31]),                        b"400"),
    (changed(6, KEY + b"\0"),                     b"400"),
    (changed(6, KEY.hex().encode()),              b"400"),
    (changed(6, bytes(32)),                       b"400"),
    (GOOD[:6],                                    b"400"),
    ([*GOOD[:5], b"NULL"],                        b"400"),
    ([*GOOD, b"more"],                            b"400"),
    ([*GOOD[:6], b"user", b"password"],           b"400"),
    ([b"1.0", b"17"],                             b"400"),
    ([b"1.0"],                                    b"400"),
    ([b""],                                       b"400"),
    ([],                                          b"400"),
]


@pytest.mark.parametrize(("request_", "status"), JUDGED)
def test_who_comes_in(request_, status):
    assert verdict(request_, admit([])) == status


@pytest.mark.parametrize("request_", [row[0] for row in JUDGED if len(row[0]) > 1])
def test_an_answer_names_its_request(request_):
    assert judge(request_, admit([]))[1] == request_[1]


def test_an_answer_to_a_request_without_a_number_names_none():
    assert judge([b"1.0"], admit([]))[1] == b""


@pytest.mark.parametrize("request_", [row[0] for row in JUDGED if row[1] == b"400"])
def test_nobody_s_register_is_asked_about_what_is_not_a_key(request_):
    asked = []
    judge(request_, admit(asked))
    assert all(len(key) == 64 and domain.isascii() for key, domain in asked)


@pytest.mark.parametrize("error", [Exception, KeyError, RuntimeError, UnicodeError, RecursionError, MemoryError])
def test_a_register_that_fails_lets_nobody_in(error):
    def may_enter(key, domain):
        raise error("broken")
    assert judge(GOOD, may_enter) == [b"1.0", b"17", b"400", b"key not accepted", b"", b""]


@pytest.mark.parametrize("answer", [False, None, 0, "", ()])
def test_a_register_that_does_not_say_yes_says_no(answer):
    assert verdict(GOOD, lambda key, domain: answer) == b"400"


@pytest.mark.parametrize("odd", [None, 7, "text", [b"1.0"], object()])
def test_even_frames_that_are_no_bytes_are_only_refused(odd):
    for index in (0, 2, 5, 6):
        assert verdict(changed(index, odd)) == b"400"


def test_a_refusal_says_neither_why_nor_whom():
    told = {tuple(judge(changed(index, value), admit([]))[2:])
            for index, value in ((0, b"x"), (2, b"live"), (5, b"NULL"), (6, b"\1" * 32))}
    assert told == {(b"400", b"key not accepted", b"", b"")}


def test_noise_is_refused():
    seed = random.randrange(1_000_000)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(2000):
        noise = [rng.choice([rng.randbytes(rng.choice((0, 1, 3, 32, 33))), rng.choice(GOOD)])
                 for _ in range(rng.randrange(10))]
        if noise[:1] + noise[2:3] + noise[5:] != [b"1.0", b"hub", b"CURVE", KEY]:
            assert verdict(noise, admit([])) == b"400", noise
