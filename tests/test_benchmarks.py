"""The benchmark suite: rows, targets, reports, plans, turns; and one small run of the real thing."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import bare, inboxes, peers, plot, report, runner, targets, work
from benchmarks.amqp import Amqp
from benchmarks.bench import Bench, Case
from benchmarks.plans import Counter, Stopwatch, percentiles, stamp_s, steady, steady_count
from benchmarks.rows import FIGURES, row, with_ratios

ROOT = Path(__file__).resolve().parent.parent
MACHINE = {"cores": 2, "processor": "a <processor>", "system": "Debian", "kernel": "6.1", "filesystem": "ext4",
           "commit": "abc"}


def case(title="zbackbone, live", work=targets.LIVE, what="200 B", promise="", run=dict):
    return Case(work, what, title, promise, title.startswith("zbackbone"), run)


def measured(title, figure=100.0, name="msg/s", **where):
    return row(case(title, **where), [{name: figure}], "")


# Rows ----------------------------------------------------------------------------------------
def test_a_row_has_the_median_and_both_ends_of_its_rounds():
    one = row(case(), [{"msg/s": 30.0}, {"msg/s": 10.0}, {"msg/s": 20.0, "lost %": 1.0}], "")
    assert one.main == "msg/s"
    assert one.figures["msg/s"] == (20.0, 10.0, 30.0, [30.0, 10.0, 20.0])
    assert one.figures["lost %"][0] == 1.0


@pytest.mark.parametrize("name, ours, theirs, times", [
    ("msg/s", 200.0, 50.0, 4.0),          # more is better
    ("p50", 200.0, 50.0, 0.25),           # less is better
    ("memory", 10.0, 30.0, 3.0),
])
def test_a_ratio_says_how_many_times_better_the_first_row_is(name, ours, theirs, times):
    first, second = with_ratios([measured("zbackbone", ours, name), measured("other", theirs, name)])
    assert first.ratio is None and second.ratio == times


def test_without_two_figures_there_is_no_ratio():
    failed = row(case("other"), [], "it broke")
    assert with_ratios([measured("zbackbone"), failed])[1].ratio is None
    assert with_ratios([failed, measured("zbackbone")])[1].ratio is None
    assert with_ratios([measured("zbackbone", 0.0), measured("other")])[1].ratio is None


# Targets ---------------------------------------------------------------------------------------
def verdict(what, groups):
    (found,) = [v for v in targets.judge(groups) if what in v.target.what]
    return found


def test_a_target_is_held_or_missed_and_says_by_how_much():
    nats = measured("NATS core, nats-py", 100.0)
    held = verdict("nats-py on NATS core", [[measured("zbackbone, live", 600.0), nats]])
    assert (held.word, held.seen) == ("held", 6.0) and held.margin == pytest.approx(0.2)
    missed = verdict("nats-py on NATS core", [[measured("zbackbone, live", 400.0), nats]])
    assert (missed.word, missed.seen) == ("missed", 4.0) and missed.margin == pytest.approx(-0.2)


def test_a_target_that_is_a_limit_is_held_below_it():
    def start(seconds):
        return verdict("start with 1 M", [[measured("1,000,000 waiting", seconds, "start",
                                                    work=targets.GROWTH_DURABLE, what=targets.WAITING)]])
    assert start(0.5).word == "held" and start(0.5).margin == pytest.approx(0.75)
    assert start(3.0).word == "missed" and start(3.0).margin == pytest.approx(-0.5)


def test_a_target_is_not_measured_when_a_row_is_missing_or_failed():
    assert {v.word for v in targets.judge([])} == {"not measured"}
    failed = row(case("NATS core, nats-py"), [], "it broke")
    assert verdict("nats-py on NATS core", [[measured("zbackbone, live"), failed]]).seen is None


def test_a_rate_at_which_we_lost_messages_is_not_one_that_we_reached():
    nats = measured("NATS core, nats-py", 100.0)
    lossy = row(case("zbackbone, live"), [{"msg/s": 900.0, "lost %": 3.0}], "")
    missed = verdict("nats-py on NATS core", [[lossy, nats]])
    assert (missed.word, missed.seen, missed.lost) == ("missed", 9.0, 3.0)
    assert "lost 3.00 %" in report.verdict(missed)
    assert verdict("start with 1 M", [[lossy, nats]]).lost == 0.0


def test_of_several_ways_of_a_peer_the_best_one_counts():
    def nats(*rates):
        titles = ("NATS JetStream, nats-py", "NATS JetStream, nats-py pulling")
        return verdict("JetStream as it comes", [[measured("zbackbone, durable", 1000.0, work=targets.DURABLE), *(
            measured(title, rate, work=targets.DURABLE) for title, rate in zip(titles, rates, strict=False))]])
    assert nats(10.0, 20.0).seen == 50.0
    assert nats(20.0, 10.0).seen == 50.0
    assert nats(20.0).word == "not measured"


@pytest.fixture
def every_case():
    """Cases of all ways of all peers, installed or not, as a full run has them."""
    bench = Bench([way for name in peers.NAMES for way in peers.peer(name).WAYS], quick=False)
    with bench:
        yield [one for kind in work.NAMES for group in work.work(kind).groups(bench) for one in group]


def test_every_row_that_a_target_needs_is_one_that_a_run_has(every_case):
    groups = [[row(one, [dict.fromkeys(FIGURES, 1.0)], "")] for one in every_case]
    assert [v.target.what for v in targets.judge(groups) if v.seen is None] == []


def test_every_panel_of_the_plot_is_one_that_a_run_has(every_case):
    assert set(plot.PANELS) <= {(one.work, one.what) for one in every_case}


def test_no_two_cases_look_the_same(every_case):
    names = [(one.work, one.what, one.title) for one in every_case]
    assert len(names) == len(set(names))


def test_every_row_says_what_it_promised_and_what_was_encrypted(every_case):
    for one in every_case:
        if not one.work.startswith("ceiling"):
            assert one.encrypted == (one.title.startswith("zbackbone") or one.work.startswith("growth")), one.title
        if one.work in (targets.FANIN, targets.RECEIPT):
            assert one.promise, one.title


# Reports ---------------------------------------------------------------------------------------
def some_groups():
    return [with_ratios([measured("zbackbone, live", 600.0), measured("NATS core, nats-py", 100.0),
                         row(case("Zenoh, its Python binding"), [], "it | broke")])]


def test_a_line_of_the_terminal_has_figure_ratio_promise_and_encryption():
    durable = row(case("zbackbone, durable", promise="synced to disk"), [{"p50": 12.0}, {"p50": 14.0}], "")
    assert re.fullmatch(r"  zbackbone, durable +13\.0 us \(12\.0 to 14\.0\) +said yes when synced to disk, encrypted",
                        report.line(durable))
    lines = [report.line(one) for one in some_groups()[0]]
    assert "6.00 x" in lines[1] and "said yes" not in lines[1]
    assert "no figure: it | broke" in lines[2]


def test_results_are_json_with_rows_targets_and_machine():
    groups = some_groups()
    out = json.loads(report.to_json(groups, targets.judge(groups), MACHINE, {"Redis": "apt-get"}, {"rounds": 1}))
    assert out["machine"] == MACHINE and out["left_out"] == {"Redis": "apt-get"} and out["how"] == {"rounds": 1}
    assert out["rows"][1]["figures"]["msg/s"]["median"] == 100.0 and out["rows"][1]["ratio"] == 6.0
    assert out["rows"][2]["error"] == "it | broke"
    assert out["targets"][0]["verdict"] == "held" and out["targets"][1]["verdict"] == "not measured"


def test_the_markdown_is_tables_whose_rows_all_have_the_same_cells():
    groups = some_groups()
    text = report.markdown(groups, targets.judge(groups), MACHINE)
    assert "| NATS core, nats-py | 100 msg/s | 100 to 100 | 6.0 x |" in text
    assert "| held, 20% to spare |" in text and "not measured" in text
    for table in text.split("\n\n"):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1, table


def test_the_plot_names_machine_commit_promise_and_encryption():
    picture = plot.svg(plot.panels(some_groups()), MACHINE)
    for text in ("a &lt;processor&gt;", "commit abc", "nothing promised; encrypted", "nothing promised; plain text"):
        assert text in picture
    assert "Zenoh" not in picture         # it has no figure


# Plans ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [7, 100, 999, 1000, 1001, 2500.5, 123_456])
def test_a_steady_plan_is_as_many_messages_as_it_says(rate):
    plan = [(due_s, list(bodies)) for due_s, bodies in steady(16, rate, 1.0)]
    assert sum(len(bodies) for _, bodies in plan) == steady_count(rate, 1.0) == pytest.approx(rate, rel=0.01, abs=1)
    assert all(bodies for _, bodies in plan)
    assert all(len(body) == 16 for _, bodies in plan for body in bodies)


def test_who_falls_behind_is_stamped_when_it_was_due():
    plan = steady(16, 1000, 0.02)
    first_s, _ = next(plan)
    while time.monotonic() < first_s + 0.005:      # busy
        pass
    due_s, bodies = next(plan)
    assert stamp_s(next(iter(bodies))) == pytest.approx(due_s, abs=1e-6)


def test_who_waits_and_is_woken_late_is_stamped_when_it_woke():
    due_s, bodies = next(steady(16, 10, 0.2))
    while time.monotonic() < due_s + 0.002:        # a timer that is late
        pass
    assert due_s + 0.002 <= stamp_s(next(iter(bodies))) <= time.monotonic()


def test_a_counter_is_done_with_the_last_message_however_they_come():
    counter = Counter(3)
    assert [counter(b"ab"), counter(b"c"), counter(b"")] == [False, False, True]
    assert counter.result() == (3, 3) and counter.done_s
    counter = Counter(10)
    assert [counter.many(9, 90), counter.many(2, 20)] == [False, True]
    assert counter.result() == (11, 110)


def test_a_stopwatch_takes_the_time_from_a_message_s_stamp():
    watch = Stopwatch(1)
    assert watch(int((time.monotonic() - 1) * 1e9).to_bytes(8, "little") + b"rest")
    assert watch.result()[2] == [pytest.approx(1.0, abs=0.1)]


def test_percentiles_are_those_that_so_many_can_tell():
    assert percentiles([n / 1e6 for n in range(1000)]) == pytest.approx({"p50": 500, "p99": 990, "p99.9": 999})
    assert list(percentiles([1.0] * 999)) == ["p50", "p99"]
    assert list(percentiles([1.0] * 99)) == ["p50"]


# Turns ------------------------------------------------------------------------------------------
def test_cases_take_turns_and_each_round_begins_with_another():
    seen = []
    cases = [case(title, run=lambda title=title: seen.append(title) or {"msg/s": 1.0}) for title in "abc"]
    rows = runner.run_group(cases, 3, lambda _: None)
    assert seen == [*"abc", *"bca", *"cab"]
    assert [len(one.figures["msg/s"][3]) for one in rows] == [3, 3, 3]


def test_a_case_that_fails_is_a_row_that_says_why_and_the_others_go_on():
    turns = iter([{"msg/s": 5.0}])

    def fails_the_second_time():
        try:
            return next(turns)
        except StopIteration:
            raise RuntimeError("Traceback\n\nValueError: no room") from None
    said = []
    bad, good = runner.run_group([case("bad", run=fails_the_second_time), case("good", run=lambda: {"msg/s": 1.0})],
                                 3, said.append)
    assert (bad.figures, bad.error) == ({}, "ValueError: no room")
    assert len(good.figures["msg/s"][3]) == 3
    assert sum("failed: bad" in text for text in said) == 1


def test_what_is_not_installed_is_named_as_left_out(monkeypatch):
    monkeypatch.setattr(peers.peer("redis"), "missing", lambda way: "apt-get install redis-server")
    ways, left_out = runner.choose(["ours", "redis"])
    assert {way.peer for way in ways} == {"ours"}
    assert set(left_out) == {way.title for way in peers.peer("redis").WAYS}


@pytest.mark.parametrize("kind, turns", [("live", 3), ("fanout", 2), ("growth", 2), ("receipt", 6)])
def test_what_takes_long_has_fewer_turns(kind, turns):
    assert runner.turns(kind, 3) == turns


# Bare protocols ---------------------------------------------------------------------------------
ANSWERS = [
    (bare.Nats(), b'MSG _INBOX.0 1 30\r\n{"stream":"s", "seq":1}\r\n'),
    (bare.Redis(), b"$15\r\n1700000000000-0\r\n"),
    (bare.Mosquitto(), b"\x40\x02\x00\x01"),
]


@pytest.mark.parametrize("protocol, one", ANSWERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("cut", range(1, 50, 7))
def test_answers_are_counted_once_wherever_they_are_cut(protocol, one, cut):
    assert pieces(lambda data: protocol.answers(0, data), one * 3, cut) == 3


def pieces(count_of, data, cut):
    """What is counted when the bytes come in pieces."""
    rest, total = b"", 0
    for at in range(0, len(data), cut):
        count, rest = count_of(rest + data[at:at + cut])
        total += count
    assert rest == b""
    return total


def confirm(tag, is_multiple):
    return bytes.fromhex("0100010000000d003c0050") + tag.to_bytes(8, "big") + bytes([is_multiple]) + b"\xce"


@pytest.mark.parametrize("cut", (1, 20, 21, 22, 1000))
def test_confirms_in_any_order_add_up(cut):
    amqp = Amqp(True)
    data = confirm(2, 0) + confirm(5, 0) + confirm(3, 1) + confirm(4, 0) + confirm(7, 1)
    assert pieces(lambda data: amqp.answers(0, data), data, cut) == 7


def test_a_refusal_is_not_an_answer():
    for protocol, data in ((bare.Nats(), b'MSG _INBOX.0 1 9\r\n{"error":{}}\r\n'), (bare.Redis(), b"-ERR no\r\n"),
                           (Amqp(True), b"\x01\x00\x01" + bytes(40))):
        with pytest.raises(RuntimeError):
            protocol.answers(0, data)


def redis_read(count):
    entries = b"".join(b"*2\r\n$%d\r\n%s\r\n*2\r\n$1\r\nb\r\n$5\r\nhello\r\n" % (len(ident), ident)
                       for ident in (b"1700000000000-%d" % n for n in range(count)))
    return b":3\r\n*1\r\n*2\r\n$1\r\nt\r\n*%d\r\n" % count + entries


@pytest.mark.parametrize("cut", (1, 7, 64, 10_000))
def test_inbox_messages_are_counted_once_wherever_they_are_cut(cut):
    for name, data in (("nats", b"MSG t 1 $JS.ACK.t.c0.1.2.3.4.5 5\r\nhel\r\n\r\n" * 12), ("redis", redis_read(12)),
                       ("mosquitto", bare.Mosquitto().request(0, "t", b"hello", 0) * 12),
                       ("rabbitmq", bytes(Amqp(True).arrival_bytes("t", b"hello")) * 12)):
        protocol = inboxes.PROTOCOLS[name]()
        protocol.greeting(0, "t")
        replies, arrival = [], protocol.arrival_bytes("t", b"hello")

        def count_of(data, protocol=protocol, replies=replies, arrival=arrival):
            count, reply, rest = protocol.take(0, data, arrival)
            replies.append(reply)
            return count, rest
        assert pieces(count_of, data, cut) == 12, name
        acks = b"".join(replies)
        assert acks.count(b"\x40\x02\x00\x01") == 12 if name == "mosquitto" else acks, name


# The real thing ----------------------------------------------------------------------------------
def test_importing_the_suite_needs_none_of_the_peers_packages():
    code = ("import sys; from benchmarks import __main__, peers, work\n"
            "[peers.peer(name).WAYS for name in peers.NAMES]; [work.work(kind) for kind in work.NAMES]\n"
            "print([m for m in ('nats', 'zenoh', 'pika', 'aio_pika', 'paho', 'redis') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_small_run_measures_reports_and_leaves_nobody_behind(tmp_path):
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--quick", "--alone", "--only", "receipt", "--out",
                           str(tmp_path / "out")], cwd=ROOT, env=env, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["title"] for one in results["rows"]] == ["zbackbone, durable", "one fdatasync of 16 kB, this disk"]
    assert all(one["figures"]["p50"]["median"] > 0 for one in results["rows"]), results
    assert list(results["how"]["kinds"]) == ["receipt"]
    assert {target["verdict"] for target in results["targets"]} > {"not measured"}
    assert (tmp_path / "out" / "table.md").read_text() and (tmp_path / "out" / "plot.svg").read_text()
    assert left_behind(tmp_path) == [] and [path.name for path in tmp_path.iterdir()] == ["out"]


def left_behind(folder):
    """Processes whose command line or environment names that folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and int(path.name) != os.getpid():
            found.append(path.name)
    return found


def test_every_module_says_what_it_is_for():
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
