"""The commands: zbackbone-hub and zb, as a user types them."""

import base64
import inspect
import itertools
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from zbackbone import Client, Misuse, Operator, Profile
from zbackbone.auth.keys import make_pair, save_profile
from zbackbone.auth.policy import EVERYTHING, Grants, to_wire
from zbackbone.cli import profiles
from zbackbone.cli.client import zb as zb_command
from zbackbone.cli.hub import hub as hub_command
from zbackbone.cli.output import Printer, print_table
from zbackbone.testing import TestHub

ZB = [sys.executable, "-m", "zbackbone.cli.client"]
HUB = [sys.executable, "-m", "zbackbone.cli.hub"]
ANY_PORTS = ["--bind", "127.0.0.1:0", "--live", "127.0.0.1:0"]
PATIENCE_S = 20
OUT_OF_REACH = 1        # nothing listens on port 1
numbers = itertools.count(1)


class Done(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


class User:
    """Somebody with a home of his own. Commands run in it."""

    def __init__(self, home):
        self.home = home
        self.config = home / "config" / "zbackbone"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("ZBACKBONE_", "XDG_"))}
        self.env |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_DATA_HOME": str(home / "data")}
        self.started = []

    def start(self, *args, program=ZB, profile=None, env=None, **pipes):
        command = [*program, *(["--profile", str(profile)] if profile else []), *args]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
        process = subprocess.Popen(command, env=self.env | (env or {}), cwd=self.home, **pipes)
        self.started.append(process)
        return process

    def run(self, *args, stdin=None, **more):
        pipes = {} if stdin is None else {"stdin": subprocess.PIPE}
        return ending(self.start(*args, **more, **pipes), stdin)

    def end(self):
        for process in self.started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.communicate()


def ending(process, stdin=None):
    out, err = process.communicate(stdin, timeout=PATIENCE_S)
    return Done(process.returncode, out, (err or b"").decode())


def complaint(done, code, program="zb"):
    """The one line that it said on stderr, if it failed as it should."""
    assert "Traceback" not in done.err
    assert done.code == code, done
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert re.fullmatch(rf"{program}: .+ \[[a-z-]+\]", lines[0])
    return lines[0]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    hub = TestHub(tmp_path_factory.mktemp("hub") / "data").start()
    yield hub
    hub.kill()


@pytest.fixture
def user(tmp_path):
    user = User(tmp_path)
    yield user
    user.end()


@pytest.fixture
def operator(hub):
    return hub.data / "operator.profile"


@pytest.fixture
def make(hub, tmp_path):
    """Makes a client with a name that no other test has; the file of its profile."""
    def make(name="client", grants=EVERYTHING):
        path = tmp_path / f"{name}-{next(numbers)}.profile"
        save_profile(hub.add(path.stem, grants), path)
        return path
    return make


@pytest.fixture
def alone():
    """No environment of the developer's."""
    return {key: None for key in os.environ if key.startswith(("ZBACKBONE_", "XDG_"))}


def new_name(name="client"):
    return f"{name}-{next(numbers)}"


def waiting(hub, name):
    with Client(hub.operator) as client:
        return Operator(client).show(name)["waiting"]


def put(profile, to, bodies):
    with Client(profile) as client:
        for body in bodies:
            client.send(to, body)
        client.flush(PATIENCE_S)


def stranger(path, address):
    """A profile of nobody's hub."""
    pair = make_pair()
    save_profile(Profile("nobody", address, pair.public, pair.public, pair.secret), path)
    return path


# The hub -------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_hub_prints_one_ready_line_and_logs_to_stderr_until_a_signal_stops_it(user, number):
    process = user.start(*ANY_PORTS, program=HUB)
    ready = process.stdout.readline().decode()
    assert re.fullmatch(r"ready tcp://127\.0\.0\.1:\d+ \S{40}\n", ready)
    process.send_signal(number)
    done = ending(process)
    assert (done.code, done.out) == (0, b"")
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING) \S", line)
               for line in done.err.splitlines())
    assert (user.home / "data" / "zbackbone" / "hub" / "operator.profile").stat().st_mode & 0o777 == 0o600


def test_a_hub_serves_even_if_nobody_reads_its_ready_line(user):
    read, write = os.pipe()
    os.close(read)
    process = user.start(*ANY_PORTS, program=HUB, stdout=write)
    os.close(write)
    assert b" serving " in process.stderr.readline()
    process.terminate()
    assert ending(process).code == 0


def test_a_second_hub_is_refused_the_data_folder_and_the_port(user, hub):
    line = complaint(user.run(*ANY_PORTS, "--data", str(hub.data), program=HUB), 2, "zbackbone-hub")
    assert str(hub.data) in line and str(hub.process.pid) in line and "[data-in-use]" in line
    line = complaint(user.run("--bind", hub.address, "--live", "127.0.0.1:0", program=HUB), 2, "zbackbone-hub")
    assert hub.address in line and "[cannot-bind]" in line


def _open_to_others(data):
    data.mkdir(mode=0o700)
    data.chmod(0o777)


def _no_store(data):
    data.mkdir(mode=0o700)
    (data / "hub.db").write_bytes(b"no database at all " * 500)


@pytest.mark.parametrize(("prepare", "code", "says"), [
    (_open_to_others, 2, "[loose-permissions]"), (_no_store, 1, "[store-damaged]"),
    (lambda data: data.write_text("a file"), 2, "[cannot-write]"),
])
def test_a_hub_that_cannot_start_says_why_in_one_line(user, prepare, code, says):
    prepare(user.home / "here")
    line = complaint(user.run(*ANY_PORTS, "--data", "here", program=HUB), code, "zbackbone-hub")
    assert says in line and "here" in line


@pytest.fixture
def served(monkeypatch):
    """What the hub was to serve with, instead of serving."""
    seen = []
    monkeypatch.setattr("zbackbone.router.daemon.serve", lambda settings, ready: seen.append(settings) or 0)
    return seen


# setting, a flag's text, the environment's, the file's TOML, and the default
SETTINGS = [
    ("data", "flag", "env", '"file"', None),
    ("bind", "h:1", "h:2", '"h:3"', "127.0.0.1:5570"),
    ("live", "h:1", "h:2", '"h:3"', "127.0.0.1:5571"),
    ("address", "h:1", "h:2", '"h:3"', ""),
    ("inbox_bytes", "1", "2", "3", str(1 << 30)),
    ("disk_reserve_bytes", "1", "2", "3", str(64 << 20)),
]


@pytest.mark.parametrize(("key", "flag", "env", "file", "default"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
        served, alone, tmp_path, key, flag, env, file, default):
    (tmp_path / "hub.toml").write_text(f"{key} = {file}\n")
    in_flag = [f"--{key.replace('_', '-')}", flag]
    in_env = {f"ZBACKBONE_{key.upper()}": env}
    in_file = {"ZBACKBONE_CONFIG": str(tmp_path / "hub.toml")}
    runner = CliRunner()
    for args, variables, expected in [
        (in_flag, in_env | in_file, flag), ([], in_env | in_file, env), ([], in_file, file.strip('"')),
        (["--config", str(tmp_path / "hub.toml")], {}, file.strip('"')), ([], {}, default),
    ]:
        result = runner.invoke(hub_command, args, env=alone | {"XDG_DATA_HOME": "/data"} | variables)
        assert result.exit_code == 0, result.output
        assert str(getattr(served.pop(), key)) == (expected if expected is not None else "/data/zbackbone/hub")


def test_each_option_of_the_hub_has_an_environment_variable_and_a_key():
    tested = {row[0] for row in SETTINGS}
    for option in hub_command.params:
        if option.name not in ("version", "help"):
            assert option.envvar == f"ZBACKBONE_{option.name.upper()}"
            assert option.name in tested | {"log_level", "config"}


@pytest.mark.parametrize(("text", "says"), [
    ("inbx_bytes = 1", ["'inbx_bytes'", "inbox_bytes"]),
    ("config = 'x'", ["'config'", "inbox_bytes"]),
    ("bind = 5570", ["bind", "text", "inbox_bytes"]),
    ("inbox_bytes = '1'", ["inbox_bytes", "whole number"]),
    ("inbox_bytes = true", ["inbox_bytes", "whole number"]),
    ("inbox_bytes = 1.5", ["inbox_bytes", "whole number"]),
    ("inbox_bytes = 0", ["inbox_bytes"]),
    ("live = 'nowhere'", ["live", "HOST:PORT"]),
    ("log_level = 'loud'", ["log_level", "loud"]),
    ("[hub]\nbind = 'h:1'", ["'hub'", "bind"]),
    ("bind = ", ["not TOML"]),
    ("\x00", ["not TOML"]),
    (None, ["cannot read"]),
])
def test_a_bad_configuration_is_refused_with_its_file_its_key_and_the_known_keys(served, alone, tmp_path, text, says):
    path = tmp_path / "hub.toml"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(hub_command, ["--config", str(path)], env=alone)
    assert result.exit_code == 2 and not served
    assert re.fullmatch(r"zbackbone-hub: .* \[bad-config\]\n", result.output)
    assert all(word in result.output for word in [str(path), *says])


@pytest.mark.parametrize(("error", "says"), [
    (ValueError("odd\nthing"), "ValueError: odd thing"), (KeyboardInterrupt(), "interrupted"),
    (PermissionError(13, "Permission denied", "lock"), "lock: Permission denied"),
])
def test_an_unexpected_end_of_the_hub_is_one_line_and_a_traceback_only_when_debugging(
        monkeypatch, alone, tmp_path, error, says):
    def serve(*_):
        raise error
    monkeypatch.setattr("zbackbone.router.daemon.serve", serve)
    result = CliRunner().invoke(hub_command, ["--data", str(tmp_path)], env=alone)
    assert result.exit_code == 1
    assert re.fullmatch(r"zbackbone-hub: .* \[[a-z]+\]\n", result.output) and says in result.output
    debugging = ("import sys, zbackbone.router.daemon as d; from zbackbone.cli.hub import main; d.serve = 0;"
                 "sys.argv = ['', '--log-level', 'debug']; main()")
    done = subprocess.run([sys.executable, "-c", debugging], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "an unexpected TypeError" in done.stderr and "Traceback" in done.stderr


# Joining -------------------------------------------------------------------------------------
def test_an_invited_client_joins_and_sends_and_receives_without_naming_its_profile(user, operator):
    name = new_name("noc.c2")
    invited = user.run("clients", "invite", name, profile=operator)
    assert invited.code == 0 and len(invited.lines) == 1 and invited.out.startswith(b"zbjoin1:")
    assert name in invited.err and "24h" in invited.err and "this machine only" in invited.err
    joined = user.run("join", invited.lines[0])
    assert joined.code == 0 and name in joined.out.decode() and "zb receive" in joined.out.decode()
    path = user.config / f"{name}.profile"
    assert str(path) in joined.out.decode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert (user.config / "last").read_text() == f"{path}\n"
    assert user.run("send", name, "to myself") == Done(0, b"", "")
    assert user.run("receive", "-n", "1") == Done(0, b"to myself\n", "")


def test_an_invitation_may_come_by_stdin_and_the_profile_go_to_a_file(user, operator, hub):
    name = new_name()
    string = user.run("clients", "invite", name, "--address", "localhost:1", profile=operator).lines[0]
    assert b":localhost:1:" in string
    string = string.replace(b":localhost:1:", f":{hub.address}:".encode())
    joined = user.run("join", "-", "-o", "mine.profile", stdin=string + b"\n")
    assert joined.code == 0
    assert json.loads((user.home / "mine.profile").read_text())["name"] == name
    assert (user.config / "last").read_text() == f"{user.home / 'mine.profile'}\n"
    assert len(user.run("ping", "-n", "2").lines) == 2


def test_an_invitation_is_not_used_up_when_there_is_no_place_for_the_profile(user, operator):
    string = user.run("clients", "invite", new_name(), profile=operator).lines[0]
    (user.home / "taken").write_text("mine")
    assert "[file-exists]" in complaint(user.run("join", string, "-o", "taken"), 2)
    assert "[cannot-write]" in complaint(user.run("join", string, "-o", "no/folder"), 2)
    (user.home / "config").write_text("a file where the folder should be")
    assert "[cannot-write]" in complaint(user.run("join", string), 2)
    assert (user.home / "taken").read_text() == "mine"
    (user.home / "config").unlink()
    assert user.run("join", string, "-o", "free").code == 0
    assert "[invitation-refused]" in complaint(user.run("join", string, "-o", "free2"), 4)
    assert not (user.home / "free2").exists()


def test_a_profile_whose_name_is_taken_goes_beside_and_overwrites_nothing(user, operator):
    name = new_name()
    user.config.mkdir(parents=True, mode=0o700)
    (user.config / f"{name}.profile").write_text("another hub's")
    joined = user.run("join", user.run("clients", "invite", name, profile=operator).lines[0])
    assert joined.code == 0
    assert (user.config / f"{name}.profile").read_text() == "another hub's"
    assert str(user.config / f"{name}-2.profile") in joined.err
    assert user.run("ping").code == 0


@pytest.mark.parametrize("failing", [Misuse("cannot-write", "no"), OSError(28, "No space left on device")])
def test_a_key_is_not_lost_while_any_folder_takes_it(monkeypatch, tmp_path, capsys, failing):
    profile = Profile("c", "h:1", *[make_pair().public] * 3)
    tried = []

    def save(profile, path):
        tried.append(path)
        if path.parent == tmp_path / "full":
            path.write_text("half a pro")
            raise failing
        save_profile(profile, path)
    (tmp_path / "full").mkdir()
    (tmp_path / "config" / "zbackbone").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("zbackbone.auth.keys.save_profile", save)
    place = profiles.save(profile, tmp_path / "full" / "c.profile")
    assert place == tmp_path / "config" / "zbackbone" / "c-2.profile"
    assert str(place) in capsys.readouterr().err
    if isinstance(failing, OSError):
        assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.parametrize("string", ["", "zbjoin1", "zbjoin1:h:1:AAAA:SECRETSECRET", "--", "zbjoin1:h:1:" + "A" * 99])
def test_what_is_no_join_string_is_refused_and_never_repeated(user, string):
    line = complaint(user.run("join", "--", string), 2)
    assert "[bad-join-string]" in line and "SECRET" not in line and "AAA" not in line


# Which profile -------------------------------------------------------------------------------
def test_the_profile_is_the_flags_then_the_environments_then_the_one_joined_last(user, make):
    flag, env, last = make("flag"), make("env"), make("last")
    assert "zb join" in complaint(user.run("subscriptions"), 2)
    user.config.mkdir(parents=True)
    (user.config / "last").write_text(f"{last}\n")
    variables = {"ZBACKBONE_PROFILE": str(env)}
    receiver = make("receiver")
    user.run("send", receiver.stem, "x", profile=flag, env=variables)
    user.run("send", receiver.stem, "x", env=variables)
    user.run("send", receiver.stem, "x")
    read = user.run("receive", "-n", "3", "--json", profile=receiver)
    assert [json.loads(line)["sender"] for line in read.lines] == [flag.stem, env.stem, last.stem]
    last.unlink()
    line = complaint(user.run("subscriptions"), 2)
    assert str(last) in line and "--profile" in line


# Clients -------------------------------------------------------------------------------------
def test_add_writes_the_profile_once_and_shows_no_secret(user, operator):
    name = new_name()
    done = user.run("clients", "add", name, "-o", "new.profile", profile=operator)
    assert done.code == 0
    path = user.home / "new.profile"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["secret_key"] not in done.out.decode() + done.err
    before = path.read_bytes()
    other = new_name()
    assert "[file-exists]" in complaint(user.run("clients", "add", other, "-o", "new.profile", profile=operator), 2)
    assert path.read_bytes() == before
    assert "[no-such-client]" in complaint(user.run("clients", "show", other, profile=operator), 4)
    assert "[name-taken]" in complaint(user.run("clients", "add", name, "-o", "other", profile=operator), 4)
    assert not (user.home / "other").exists()
    assert user.run("ping", profile=path).code == 0


@pytest.mark.parametrize(("options", "grants"), [
    ([], EVERYTHING),
    (["--admin"], EVERYTHING._replace(admin=True)),
    (["--send", "noc-c2", "--send", "noc-sfmc"], Grants(("noc-c2", "noc-sfmc"), (), ())),
    (["--publish", "a.#", "--subscribe", "b.*", "--admin"], Grants((), ("a.#",), ("b.*",), True)),
])
def test_a_client_may_do_everything_but_administer_unless_options_say_otherwise(user, operator, options, grants):
    name = new_name()
    assert user.run("clients", "invite", name, *options, profile=operator).code == 0
    shown = json.loads(user.run("clients", "show", name, "--json", profile=operator).out)
    assert (shown["state"], shown["grants"]) == ("invited", to_wire(grants))


def test_grant_replaces_what_a_client_may_do(user, operator, make):
    profile = make()
    assert user.run("clients", "grant", profile.stem, "--publish", "a.#", profile=operator) == Done(0, b"", "")
    assert user.run("publish", "a.b", "x", profile=profile).code == 0
    assert "[forbidden]" in complaint(user.run("publish", "b", "x", profile=profile), 4)
    assert "[forbidden]" in complaint(user.run("subscribe", "a.#", profile=profile), 4)
    assert user.run("clients", "grant", profile.stem, "--everything", profile=operator).code == 0
    assert user.run("publish", "b", "x", profile=profile).code == 0
    assert "[forbidden]" in complaint(user.run("clients", "list", profile=profile), 4)


def test_after_a_rotation_the_old_key_is_good_until_the_new_one_is_used_or_no_more_at_once(user, operator, make):
    old = make()
    assert user.run("clients", "rotate", old.stem, "-o", "new", profile=operator).code == 0
    assert "[file-exists]" in complaint(user.run("clients", "rotate", old.stem, "-o", "new", profile=operator), 2)
    assert user.run("ping", profile=old).code == 0
    assert user.run("ping", profile="new").code == 0
    assert "[key-refused]" in complaint(user.run("ping", profile=old), 4)
    assert user.run("clients", "rotate", old.stem, "--now", "-o", "newer", profile=operator).code == 0
    assert "[key-refused]" in complaint(user.run("ping", profile="new"), 4)
    assert user.run("ping", profile="newer").code == 0


def test_revoke_needs_yes_where_nobody_can_be_asked(user, operator, make, hub):
    profile = make()
    put(hub.operator, profile.stem, [b"a", b"b"])
    assert "--yes" in complaint(user.run("clients", "revoke", profile.stem, profile=operator), 2)
    assert waiting(hub, profile.stem) == 2
    done = user.run("clients", "revoke", profile.stem, "--yes", profile=operator)
    assert done.code == 0 and b"2 waiting messages" in done.out
    assert "[key-refused]" in complaint(user.run("receive", profile=profile), 4)
    assert "[no-such-client]" in complaint(user.run("clients", "revoke", profile.stem, "--yes", profile=operator), 4)


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_revoke_asks_on_a_terminal(user, operator, make, hub, answer, code):
    profile = make()
    keyboard, terminal = pty.openpty()
    process = user.start("clients", "revoke", profile.stem, profile=operator, stdin=terminal)
    os.write(keyboard, answer)
    done = ending(process)
    os.close(keyboard)
    os.close(terminal)
    assert done.code == code and f"Revoke {profile.stem}" in done.err
    with Client(hub.operator) as client:
        assert (profile.stem in [row["name"] for row in Operator(client).clients()]) == (code == 1)


def test_clients_are_listed_and_shown_for_people_and_for_programs(user, operator, make, hub):
    profile, invited = make(), new_name("guest")
    put(hub.operator, profile.stem, [b"12345"])
    with Client(profile) as client:
        client.subscribe("a.#")
    user.run("clients", "invite", invited, profile=operator)
    table = user.run("clients", "list", profile=operator).out.decode().splitlines()
    assert table[0].split() == ["name", "state", "waiting", "bytes"]
    rows = [line.split() for line in table]
    assert [profile.stem, "away", "1"] in [row[:3] for row in rows]
    assert [invited, "invited", "-", "-"] in rows
    listed = {row["name"]: row for row in json.loads(user.run("clients", "list", "--json", profile=operator).out)}
    assert listed[profile.stem]["waiting"] == 1 and listed[invited]["state"] == "invited"
    shown = user.run("clients", "show", profile.stem, profile=operator).out.decode()
    key = json.loads(profile.read_text())["public_key"]
    assert key in shown and "a.#" in shown and "may send" in shown
    assert json.loads(user.run("clients", "show", profile.stem, "--json", profile=operator).out)["keys"] == [
        {"public_key": key, "pending": False}]
    assert "clients" in user.run("status", profile=operator).out.decode()
    assert json.loads(user.run("status", "--json", profile=operator).out)["clients"] >= 2


def test_a_tables_columns_are_aligned(capsys):
    print_table([("name", "waiting"), ("a", 5), ("long-one", "-")])
    assert capsys.readouterr().out.splitlines() == ["name      waiting", "a               5", "long-one        -"]


# Sending -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("args", "stdin", "body"), [
    (["hello"], None, b"hello"), (["-"], b"from stdin\n", b"from stdin\n"), ([], b"\x00\xff", b"\x00\xff"),
    ([], b"", b""), ([b"\xff\xfe raw"], None, b"\xff\xfe raw"), (["æ"], None, "æ".encode()),
    (["--", "-l"], None, b"-l"),
])
def test_a_body_is_an_argument_or_all_of_stdin(user, make, hub, args, stdin, body):
    profile = make()
    assert user.run("send", profile.stem, *args, stdin=stdin, profile=profile) == Done(0, b"", "")
    with Client(profile) as client:
        assert next(client.receive(timeout=5)).body == body


def test_headers_go_along_and_json_tells_all(user, make):
    profile = make()
    for args in (["send", profile.stem, b"\xff\x01", "-H", "type=x/y", "-H", "a=b=c"],
                 ["publish", "soar.noc", "tekst \u2028 æ"]):
        if args[0] == "publish":
            user.run("subscribe", "soar.#", profile=profile)
        assert user.run(*args, profile=profile).code == 0
    sender = make("sender")
    assert user.run("broadcast", "to all", "-v", profile=sender) == Done(0, b"accepted 1\n", "")
    done = user.run("receive", "--json", "-n", "3", profile=profile)
    sent, published, broadcast = (json.loads(line) for line in done.out.split(b"\n")[:-1])
    assert (sent["headers"], sent["to"], sent["base64"]) == ({"type": "x/y", "a": "b=c"}, profile.stem, True)
    assert base64.b64decode(sent["body"]) == b"\xff\x01"
    assert (published["body"], published["topic"], published["base64"]) == ("tekst \u2028 æ", "soar.noc", False)
    assert (broadcast["body"], broadcast["broadcast"], broadcast["sender"]) == ("to all", True, sender.stem)
    common = {"id", "sender", "time", "headers", "body", "base64"}
    assert (set(sent), set(published), set(broadcast)) == (common | {"to"}, common | {"topic"}, common | {"broadcast"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent["time"])
    assert len({sent["id"], published["id"], broadcast["id"]}) == 3


def test_a_hundred_thousand_lines_are_as_many_messages_in_order_and_fast(user, make):
    profile = make()
    lines = b"".join(b"%d\n" % number for number in range(100_000))
    began_s = time.monotonic()
    assert user.run("send", profile.stem, "-l", "-v", stdin=lines, profile=profile) == Done(0, b"accepted 100000\n", "")
    assert user.run("receive", "-n", "100000", profile=profile) == Done(0, lines, "")
    assert time.monotonic() - began_s < 10         # 1 s on a 2-core machine


def test_a_line_is_sent_when_it_is_there_not_when_stdin_ends(user, make):
    profile = make()
    process = user.start("send", profile.stem, "-l", profile=profile, stdin=subprocess.PIPE)
    with Client(profile) as client:
        messages = client.receive(timeout=PATIENCE_S)
        for line in (b"one", b"", b" spaces\t\r", b"last, without a newline"):
            process.stdin.write(line + b"\n" * (line != b"last, without a newline"))
            process.stdin.flush()
            if line[:4] == b"last":
                process.stdin.close()
                process.stdin = None
            assert next(messages).body == line
    assert ending(process).code == 0


def test_lines_end_at_the_first_refusal_and_what_was_accepted_before_is_told(user, make, tmp_path):
    profile = make()
    done = user.run("send", "nobody.at.all", "-l", "-v", stdin=b"a\n" * 5000, profile=profile)
    assert "[unknown-client]" in complaint(done, 4)
    assert done.out == b"accepted 0\n"
    lines = b"fits\n" + b"x" * (2 << 20) + b"\nnever read\n"
    done = user.run("send", profile.stem, "-l", "-v", stdin=lines, profile=profile)
    assert "message 2: " in complaint(done, 2)
    assert done.out == b"accepted 1\n"
    assert user.run("receive", "-w", "0.5", profile=profile).out == b"fits\n"


def test_ctrl_c_ends_lines_when_those_read_are_accepted(user, make):
    profile = make()
    process = user.start("send", profile.stem, "-l", "-v", profile=profile, stdin=subprocess.PIPE)
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    with Client(profile) as client:
        messages = client.receive(timeout=PATIENCE_S)
        assert [next(messages).body, next(messages).body] == [b"one", b"two"]
    process.send_signal(signal.SIGINT)
    done = ending(process)
    assert "[interrupted]" in complaint(done, 1)
    assert done.out == b"accepted 2\n"


# Receiving -----------------------------------------------------------------------------------
def test_receive_ends_after_so_many_or_so_long_and_fewer_than_asked_for_is_code_5(user, make, hub):
    profile = make()
    put(hub.operator, profile.stem, [b"1", b"2", b"3", b"4", b"5"])
    assert user.run("receive", "-n", "2", profile=profile) == Done(0, b"1\n2\n", "")
    assert waiting(hub, profile.stem) == 3
    done = user.run("receive", "-n", "4", "-w", "0.3", profile=profile)
    assert done.out == b"3\n4\n5\n" and "3 of 4" in complaint(done, 5)
    assert waiting(hub, profile.stem) == 0
    assert user.run("receive", "-w", "0.3", profile=profile) == Done(0, b"", "")


def test_no_ack_leaves_the_messages_in_the_inbox(user, make, hub):
    profile = make()
    put(hub.operator, profile.stem, [b"1", b"2"])
    for _ in range(2):
        assert user.run("receive", "--no-ack", "-n", "2", profile=profile) == Done(0, b"1\n2\n", "")
    assert waiting(hub, profile.stem) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_receive_after_what_was_printed_is_acknowledged(user, make, hub, number):
    profile = make()
    process = user.start("receive", profile=profile)
    for body in (b"lone", b"and another"):
        put(hub.operator, profile.stem, [body])
        assert process.stdout.readline() == body + b"\n"
    process.send_signal(number)
    assert ending(process) == Done(0, b"", "")
    assert waiting(hub, profile.stem) == 0


def test_a_signal_before_enough_came_is_code_5(user, make, hub):
    profile = make()
    process = user.start("receive", "-n", "2", profile=profile)
    put(hub.operator, profile.stem, [b"one"])
    assert process.stdout.readline() == b"one\n"
    process.terminate()
    assert "1 of 2" in complaint(ending(process), 5)


def test_what_a_reader_no_longer_took_stays_in_the_inbox(user, make, hub):
    profile = make()
    head = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process = user.start("receive", profile=profile, stdout=head.stdin)
    head.stdin.close()
    put(hub.operator, profile.stem, [b"seen"])
    assert head.wait(PATIENCE_S) == 0 and head.stdout.read() == b"seen\n"
    put(hub.operator, profile.stem, [b"unseen", b"too"])
    assert ending(process) == Done(0, None, "")
    assert waiting(hub, profile.stem) == 2
    head.stdout.close()


def test_of_a_burst_that_a_reader_left_early_only_whole_messages_are_acknowledged(user, make, hub):
    profile, count = make(), 300
    put(hub.operator, profile.stem, [b"%05d" % number + b"." * 9994 for number in range(count)])
    process = user.start("receive", "-n", str(count), profile=profile)
    assert process.stdout.read(6) == b"00000."
    process.stdout.close()
    process.stdout = None
    assert ending(process) == Done(0, None, "")
    left = waiting(hub, profile.stem)
    assert 0 < left < count
    rest = user.run("receive", "-n", str(left), profile=profile)
    assert [int(line[:5]) for line in rest.lines] == list(range(count - left, count))


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(user, make, hub):
    profile = make()
    bodies = [b"%05d" % number + b"." * 9994 for number in range(300)]
    put(hub.operator, profile.stem, bodies)
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = user.start("receive", "-n", "300", profile=profile, stdout=write)
    os.close(write)
    with open(read, "rb") as pipe:
        assert pipe.read().splitlines() == bodies
    assert ending(process) == Done(0, None, "")


def test_what_cannot_be_written_is_not_acknowledged(user, make, hub):
    profile = make()
    put(hub.operator, profile.stem, [b"x"])
    with open("/dev/full", "wb") as full:
        line = complaint(user.run("receive", "-n", "1", profile=profile, stdout=full), 1)
    assert "No space left" in line
    assert waiting(hub, profile.stem) == 1


class Counted:
    """A message, as far as a Printer looks at it."""

    acked = None

    def __init__(self, body):
        self.body = body

    def ack(self):
        Counted.acked = self


def test_a_printer_acknowledges_the_last_whole_message_that_went_out(monkeypatch):
    class Pipe:
        def __init__(self, room):
            self.room = room

        def write(self, data):
            if not self.room:
                raise BrokenPipeError
            took = min(self.room, len(data))
            self.room -= took
            return took

    for room, printed in [(0, 0), (1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (12, 3), (99, 3)]:
        messages = [Counted(b"abc"), Counted(b"def"), Counted(b"ghi")]
        Counted.acked = None
        stdout = type("Stdout", (), {"buffer": Pipe(room)})
        monkeypatch.setattr("zbackbone.cli.output.sys", type("Sys", (), {"stdout": stdout}))
        printer = Printer(lambda message: message.body + b"\n", acks=True)
        for message in messages:
            printer.hold(message)
        if printed < 3:
            with pytest.raises(BrokenPipeError):
                printer.flush()
        else:
            printer.flush()
        assert printer.printed == printed
        assert Counted.acked is (messages[printed - 1] if printed else None)


def test_a_second_receive_takes_the_inbox_and_the_first_ends(user, make, hub):
    profile = make()
    first = user.start("receive", profile=profile)
    put(hub.operator, profile.stem, [b"1"])
    assert first.stdout.readline() == b"1\n"
    second = user.start("receive", profile=profile)
    assert "[inbox-taken]" in complaint(ending(first), 4)
    put(hub.operator, profile.stem, [b"2"])
    assert second.stdout.readline() == b"2\n"


def test_a_subscription_lasts_until_it_is_ended(user, make, hub):
    profile, sender = make(), make("sender")
    assert user.run("subscribe", "a.#", "b.*", profile=profile) == Done(0, b"", "")
    assert user.run("subscriptions", profile=profile) == Done(0, b"a.#\nb.*\n", "")
    for topic in ("a.x", "b.x", "c.x"):
        assert user.run("publish", topic, f"on {topic}", profile=sender).code == 0
    assert user.run("unsubscribe", "b.*", profile=profile).code == 0
    assert "[not-subscribed]" in complaint(user.run("unsubscribe", "b.*", profile=profile), 4)
    assert user.run("publish", "b.x", "too late", profile=sender).code == 0
    assert user.run("receive", "-w", "0.3", profile=profile).out == b"on a.x\non b.x\n"


@pytest.mark.parametrize(("args", "say", "key"), [
    (["live.#"], lambda client, body: client.publish("live.a", body), "topic"),
    (["--broadcasts"], lambda client, body: client.broadcast(body), "broadcast"),
])
def test_listen_prints_live_messages(user, make, args, say, key):
    process = user.start("listen", *args, "-n", "3", "--json", profile=make())
    with Client(make("speaker")) as speaker:
        for number in itertools.count():     # it may not listen yet
            if process.poll() is not None:
                break
            say(speaker, b"%d" % number).wait(PATIENCE_S)
    done = ending(process)
    assert done.code == 0
    heard = [json.loads(line) for line in done.lines]
    first = int(heard[0]["body"])
    assert [int(one["body"]) for one in heard] == [first, first + 1, first + 2]
    assert all(key in one for one in heard)


def test_a_signal_ends_listen_and_too_few_is_code_5(user, make):
    profile = make()
    assert user.run("listen", "quiet.#", "-w", "0.2", profile=profile) == Done(0, b"", "")
    assert "0 of 1" in complaint(user.run("listen", "quiet.#", "-w", "0.2", "-n", "1", profile=profile), 5)
    process = user.start("listen", "busy.#", profile=profile)
    with Client(make("speaker")) as speaker:
        while not select.select([process.stdout], [], [], 0)[0]:
            speaker.publish("busy.x", b"x").wait(PATIENCE_S)
    process.send_signal(signal.SIGINT)
    assert ending(process).code == 0


# Ends ----------------------------------------------------------------------------------------
def test_an_unreachable_hub_is_code_3_and_a_wrong_one_too(user, hub):
    away = stranger(user.home / "away", f"127.0.0.1:{OUT_OF_REACH}")
    assert "[unreachable]" in complaint(user.run("send", "x", "y", "--timeout", "0.3", profile=away), 3)
    wrong = stranger(user.home / "wrong", hub.address)
    assert "[wrong-hub]" in complaint(user.run("send", "x", "y", "--timeout", "0.5", profile=wrong), 3)
    with socket.create_server(("127.0.0.1", 0)) as server:      # takes connections, and says nothing
        string = f"zbjoin1:127.0.0.1:{server.getsockname()[1]}:{'A' * 43}:{'A' * 43}"
        line = complaint(user.run("join", string, "--timeout", "0.3"), 3)
    assert "A" * 9 not in line


def test_a_hub_that_goes_away_while_receive_waits_is_code_3(user):
    hub = TestHub(user.home / "own").start()
    try:
        profile = user.home / "client.profile"
        save_profile(hub.add("client"), profile)
        process = user.start("receive", "-w", "1", profile=profile)
        put(hub.operator, "client", [b"1"])
        assert process.stdout.readline() == b"1\n"
    finally:
        hub.kill()
    assert ending(process).code == 3


def test_a_revoked_client_that_receives_is_told_so(user, make, hub):
    profile = make()
    process = user.start("receive", profile=profile)
    put(hub.operator, profile.stem, [b"1"])
    assert process.stdout.readline() == b"1\n"
    with Client(hub.operator) as client:
        Operator(client).revoke(profile.stem)
    assert "[key-refused]" in complaint(ending(process), 4)


def test_nobody_reading_the_output_is_no_traceback(user, operator, make):
    read, write = os.pipe()
    os.close(read)
    done = user.run("clients", "list", profile=operator, stdout=write)
    os.close(write)
    assert (done.code, done.err) == (1, "")
    with open("/dev/full", "wb") as full:
        assert "No space left" in complaint(user.run("clients", "list", profile=operator, stdout=full), 1)


def test_without_standard_streams_there_is_still_no_traceback(user, make):
    profile = make()
    for redirection in (">&-", "<&-", "2>&-"):
        command = f'exec "$@" {redirection}'
        for args in (["send", profile.stem, "x"], ["send", profile.stem], ["receive", "-n", "1", "-w", "0.2"]):
            done = subprocess.run(["sh", "-c", command, "sh", *ZB, "--profile", str(profile), *args], env=user.env,
                                  capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
            assert "Traceback" not in done.stderr and done.returncode in (0, 2, 5)


@pytest.mark.parametrize("args", [
    ["--nonsense"], ["nonsense"], ["send"], ["send", "a", "b", "c"], ["send", "a", "b", "-l"], ["send", "no body", ""],
    ["send", "", "x"], ["send", "a" * 999, "x"], ["send", "æ", "x"], ["send", "a", "x", "-H", "novalue"],
    ["send", "a", "x", "-H", "=x"], ["send", "a", "x", "--timeout", "soon"], ["send", "a", "x", "--timeout", "-1"],
    ["send", "\udcff", "x"], ["publish", "a.*", "x"], ["publish", "a..b", "x"], ["publish"], ["broadcast", "a", "b"],
    ["send", "a", "x" * (1 << 20) + "x"], ["send", "a", "x", "-H", "k=\udcff"],
    ["send", "a", "x", "-H", "k=" + "v" * 99_999],
    ["subscribe"], ["subscribe", "a.*b"], ["subscribe", ""], ["unsubscribe"], ["subscriptions", "x"],
    ["receive", "-n", "0"], ["receive", "-n", "x"], ["receive", "-w", "0"], ["receive", "-w", "-1"], ["receive", "x"],
    ["listen"], ["listen", "-n", "1"], ["listen", "a b"], ["ping", "-n", "0"], ["ping", "x"], ["status", "x"],
    ["join"], ["join", "x"], ["join", "zbjoin1:a:b:c:d"], ["completion"], ["completion", "tcsh"],
    ["completion", "bash", "x"],
    ["clients", "nonsense"], ["clients", "invite"], ["clients", "invite", "no name"],
    ["clients", "invite", "a", "--expires", "soon"], ["clients", "invite", "a", "--expires", "0s"],
    ["clients", "invite", "a", "--expires", "31d"], ["clients", "invite", "a", "--expires", "-1h"],
    ["clients", "invite", "a", "--expires", "99999999999999999999d"], ["clients", "invite", "a", "--send", "a*"],
    ["clients", "invite", "a", "--publish", ""], ["clients", "invite", "a", "--address", "nowhere"],
    ["clients", "add", "a"], ["clients", "add", "a", "-o", "/"], ["clients", "add", "a", "-o", "/no/such/folder"],
    ["clients", "add", "a", "-o", ""], ["clients", "rotate", "a"], ["clients", "rotate", "a", "-o", "."],
    ["clients", "grant", "a"], ["clients", "grant", "a", "--everything", "--send", "b"], ["clients", "revoke"],
    ["clients", "revoke", "a"], ["clients", "revoke", "no name", "--yes"], ["clients", "show"],
    ["clients", "list", "x"], ["--profile", "~nobody-of-that-name/x", "ping"],
], ids=lambda args: " ".join(args)[:40].encode("ascii", "replace").decode())
def test_a_wrong_command_line_is_code_2_and_one_line(hub, alone, tmp_path, args):
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    result = CliRunner().invoke(zb_command, ["--profile", str(hub.data / "operator.profile"), *args], env=alone | home)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(r"zb: .+ \[[a-z-]+\]\n", result.output)


@pytest.mark.parametrize("text", ["", "[]", '"x"', "\x00", '{"zbackbone": "profile 1"}', "{" * 5000])
def test_a_file_that_is_no_profile_is_code_2(alone, tmp_path, text):
    path = tmp_path / "odd"
    path.write_text(text)
    path.chmod(0o600)
    result = CliRunner().invoke(zb_command, ["--profile", str(path), "ping"], env=alone)
    assert result.exit_code == 2 and re.fullmatch(r"zb: .+ \[bad-profile\]\n", result.output)


@pytest.mark.parametrize("spoil", [
    lambda path: path.chmod(0o644), lambda path: path.unlink(), lambda path: (path.unlink(), path.mkdir()),
    lambda path: path.write_bytes(b"\xff\xfe"),
])
def test_a_profile_that_cannot_be_used_is_code_2(alone, tmp_path, spoil):
    path = stranger(tmp_path / "mine", "127.0.0.1:1")
    spoil(path)
    result = CliRunner().invoke(zb_command, ["--profile", str(path), "ping"], env=alone)
    assert result.exit_code == 2 and re.fullmatch(r"zb: .+ \[[a-z-]+\]\n", result.output)
    assert str(path) in result.output


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_when_debugging(monkeypatch, alone):
    def fault(*_):
        raise ZeroDivisionError("oops")
    monkeypatch.setattr(profiles, "in_use", fault)
    result = CliRunner().invoke(zb_command, ["ping"], env=alone)
    assert result.exit_code == 1
    assert result.output == "zb: an unexpected ZeroDivisionError: oops; please report it [fault]\n"
    result = CliRunner().invoke(zb_command, ["--debug", "ping"], env=alone)
    assert result.exit_code == 1 and "Traceback" in result.output


def test_a_refusal_is_told_once_and_the_connection_only_when_debugging(user, make):
    profile = make()
    assert "[unknown-client]" in complaint(user.run("send", "nobody.at.all", "x", profile=profile), 4)
    done = user.run("--debug", "send", "nobody.at.all", "x", env={"ZBACKBONE_PROFILE": str(profile)})
    assert done.code == 4 and "connected to" in done.err and done.err.count("Traceback") == 0


# Help ----------------------------------------------------------------------------------------
def commands(command, path):
    yield command, path
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, [*path, name])


COMMANDS = [*commands(zb_command, []), (hub_command, [])]


@pytest.mark.parametrize(("command", "path"), COMMANDS, ids=[" ".join(path) or c.name for c, path in COMMANDS])
def test_the_help_of_a_command_has_an_example_and_says_what_each_option_is_for(command, path):
    root = hub_command if command is hub_command else zb_command
    result = CliRunner().invoke(root, [*path, "--help"])
    assert result.exit_code == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and all(flag in result.output for flag in parameter.opts)
        else:
            assert parameter.make_metavar(*_context(command)).strip("[].").lower() in result.output.lower()
    assert re.search(r"\n {4}.*\b(zb|zbackbone-hub) ", result.output), "it has no example"


def _context(command):
    # click 8.2 wants it, 8.1 doesn't take it
    return [click.Context(command)] if len(inspect.signature(click.Argument.make_metavar).parameters) > 1 else []


def test_the_help_of_zb_lists_the_exit_codes_and_every_command_and_comes_without_a_command_too():
    text = " ".join(CliRunner().invoke(zb_command, ["--help"]).output.split())
    assert "0 done, 1 failed, 2 misuse, 3 hub unreachable, 4 refused by the hub, 5 no answer" in text
    assert all(f" {name} " in text for name in zb_command.commands)
    for args in ([], ["clients"]):
        result = CliRunner().invoke(zb_command, args)
        assert result.exit_code == 2 and "Usage: " in result.output and "Commands:" in result.output
        assert "...\n" not in result.output.partition("Commands:")[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_is_printed(user, shell):
    done = user.run("completion", shell)
    assert done.code == 0 and f"_ZB_COMPLETE={shell}_complete".encode() in done.out
    assert user.run(env={"_ZB_COMPLETE": f"{shell}_source"}).out.strip() == done.out.strip()


def test_commands_and_options_are_completed(user):
    def completed(words):
        variables = {"_ZB_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return [line.split(b",")[1].decode() for line in user.run(env=variables).lines]
    assert completed("zb su") == ["subscribe", "subscriptions"]
    assert completed("zb clients r") == ["revoke", "rotate"]
    assert completed("zb receive --no") == ["--no-ack"]


def test_the_installed_commands_are_these(user):
    for name, says in (("zb", b"zb "), ("zbackbone", b"zb "), ("zbackbone-hub", b"zbackbone-hub ")):
        script = os.path.join(os.path.dirname(sys.executable), name)
        if not os.path.exists(script):
            pytest.skip("the project is not installed here")
        assert user.run("--version", program=[script]).out.startswith(says)
