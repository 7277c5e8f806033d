"""Keys: secrets lie in files that only their owner can read, and are told to nobody."""

import contextlib
import json
import os
import stat
import traceback

import pytest
import zmq

from zbackbone.auth import keys
from zbackbone.auth.keys import (Invitation, KeyPair, Profile, from_join_string, load_hub_key, load_profile,
                                 make_folder, make_pair, pair_of, parse_address, read_secret, replace_secret,
                                 save_hub_key, save_profile, shown, to_join_string, write_secret)
from zbackbone.errors import Misuse

PAIR = pair_of(bytes(range(1, 33)))
HUB = pair_of(bytes(range(101, 133)))
PROFILE = Profile("noc-c2", "hub.example:5570", HUB.public, PAIR.public, PAIR.secret)
INVITATION = Invitation("hub.example:5570", HUB.public, PAIR.secret)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def refusal(call, *args):
    """The refusal of a call; it is one sentence or two, and holds no secret."""
    with pytest.raises(Misuse) as caught:
        call(*args)
    error = caught.value
    assert "\n" not in error.text and 10 < len(error.text) < 400
    no_secret_in(str(error), repr(error), "".join(traceback.format_exception(error)))
    return error


def no_secret_in(*texts):
    secret = PAIR.secret
    spellings = [secret.hex(), shown(secret), repr(secret), to_join_string(INVITATION).rpartition(":")[2]]
    for text in texts:
        for spelling in spellings:
            # Nor a good part of it.
            assert not any(spelling[at:at + 12] in text for at in range(len(spelling) - 11)), text


@contextlib.contextmanager
def umask(bits):
    old = os.umask(bits)
    try:
        yield
    finally:
        os.umask(old)


# Pairs

def test_a_pair_is_new_each_time_and_its_halves_belong_together():
    pairs = [make_pair() for _ in range(20)]
    assert len({pair.secret for pair in pairs}) == len({pair.public for pair in pairs}) == 20
    for pair in pairs:
        assert len(pair.public) == len(pair.secret) == 32
        assert pair_of(pair.secret) == pair
        # libzmq's word for it.
        assert zmq.curve_public(shown(pair.secret).encode()) == shown(pair.public).encode()


def test_a_key_is_shown_in_z85():
    # The vector of ZeroMQ RFC 32.
    assert shown(bytes.fromhex("864FD26FB559F75B") * 4) == "HelloWorld" * 4


@pytest.mark.parametrize("holder", [PAIR, PROFILE, INVITATION], ids=lambda holder: type(holder).__name__)
def test_nothing_that_holds_a_secret_shows_it(holder):
    no_secret_in(repr(holder), str(holder), f"{holder}", f"{holder!s:>10}", repr([holder]))
    assert "hidden" in repr(holder)


# Files

def test_a_secret_file_is_its_owner_s_alone_whatever_the_umask(tmp_path):
    for bits in (0, 0o022, 0o777):
        with umask(bits):
            write_secret(tmp_path / f"{bits}", "secret")
        assert mode(tmp_path / f"{bits}") == 0o600
        assert read_secret(tmp_path / f"{bits}") == "secret"


def test_a_secret_file_is_never_open_to_others_not_even_for_a_moment(tmp_path, monkeypatch):
    seen = []
    real = os.open

    def watched(path, *args, **more):
        fd = real(path, *args, **more)
        seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd
    monkeypatch.setattr(os, "open", watched)
    with umask(0):
        write_secret(tmp_path / "file", "secret")
    assert seen[0] == 0o600


def test_a_secret_file_is_on_disk_before_its_name_is_and_both_when_it_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def watched(fd):
        status = os.fstat(fd)
        synced.append(("folder" if stat.S_ISDIR(status.st_mode) else "file", status.st_size if
                       stat.S_ISREG(status.st_mode) else 0))
        real(fd)
    monkeypatch.setattr(os, "fsync", watched)
    write_secret(tmp_path / "file", "secret")
    assert synced == [("file", 6), ("folder", 0)]
    synced.clear()
    replace_secret(tmp_path / "file", "another")
    assert synced == [("file", 7), ("folder", 0), ("folder", 0)]


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    error = refusal(write_secret, path, "secret")
    assert error.code == "file-exists" and str(path) in error.text
    assert path.read_text() == "precious"


@pytest.mark.parametrize("target", ["precious", "missing"])
def test_no_symlink_is_followed_to_write(tmp_path, target):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / target)
    assert refusal(write_secret, tmp_path / "link", "secret").code == "file-exists"
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_to_replace_a_symlink_leaves_what_it_points_at(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    replace_secret(tmp_path / "link", "secret")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink() and read_secret(tmp_path / "link") == "secret"


def test_a_secret_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_secret(path, "old, and longer")
    with umask(0):
        replace_secret(path, "new")
    assert read_secret(path) == "new" and mode(path) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_to_replace_what_is_not_there_makes_it(tmp_path):
    replace_secret(tmp_path / "file", "new")
    assert read_secret(tmp_path / "file") == "new" and mode(tmp_path / "file") == 0o600


@pytest.mark.parametrize("write", [write_secret, replace_secret])
def test_a_secret_that_could_not_be_written_is_refused_and_leaves_no_file(tmp_path, monkeypatch, write):
    def full(fd):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    assert refusal(write, tmp_path / "file", "secret").code == "cannot-write"
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_replaced_stays_as_it_is(tmp_path):
    (tmp_path / "folder").mkdir()
    assert refusal(replace_secret, tmp_path / "folder", "secret").code == "cannot-write"
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("where", ["nowhere/file", "file/below"])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    error = refusal(write_secret, tmp_path / where, "secret")
    assert error.code == "cannot-write" and str(tmp_path / where) in error.text


#   mode        read?
MODES = [
    (0o600,     True),
    (0o400,     True),
    (0o700,     True),
    (0o640,     False),
    (0o604,     False),
    (0o620,     False),
    (0o602,     False),
    (0o610,     False),
    (0o601,     False),
    (0o644,     False),
    (0o666,     False),
]


@pytest.mark.parametrize(("bits", "read"), MODES, ids=lambda value: oct(value) if type(value) is int else None)
def test_a_secret_that_others_could_read_or_change_is_refused(tmp_path, bits, read):
    path = tmp_path / "file"
    write_secret(path, "secret")
    path.chmod(bits)
    if read:
        assert read_secret(path) == "secret"
    else:
        error = refusal(read_secret, path)
        assert error.code == "loose-permissions" and f"chmod 600 {path}" in error.text


def test_it_is_the_file_behind_a_symlink_whose_permissions_count(tmp_path):
    write_secret(tmp_path / "file", "secret")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_secret(tmp_path / "link") == "secret"
    (tmp_path / "file").chmod(0o644)
    assert refusal(read_secret, tmp_path / "link").code == "loose-permissions"


def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path):
    assert refusal(read_secret, tmp_path / "none").code == "no-such-file"
    assert refusal(read_secret, tmp_path).code == "cannot-read"
    write_secret(tmp_path / "file", "x")
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    assert refusal(read_secret, tmp_path / "file").code == "cannot-read"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    write_secret(tmp_path / "file", "x")
    (tmp_path / "file").chmod(0)
    assert refusal(read_secret, tmp_path / "file").code == "cannot-read"


# Folders

def test_a_folder_for_secrets_is_its_owner_s_alone(tmp_path):
    with umask(0):
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize(("bits", "taken"), [
    (0o700, True), (0o750, True), (0o755, True), (0o770, False), (0o702, False), (0o777, False), (0o1777, False)])
def test_a_folder_in_which_others_may_write_is_refused(tmp_path, bits, taken):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(bits)
    if taken:
        make_folder(tmp_path / "a")
    else:
        assert refusal(make_folder, tmp_path / "a").code == "loose-permissions"


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(make_folder, tmp_path / "file").code == "cannot-write"
    assert refusal(make_folder, tmp_path / "file" / "below").code == "cannot-write"


# Profiles and hub keys

def test_a_profile_is_saved_and_loaded(tmp_path):
    path = tmp_path / "a.profile"
    save_profile(PROFILE, path)
    assert mode(path) == 0o600
    assert load_profile(path) == PROFILE
    assert refusal(save_profile, PROFILE, path).code == "file-exists"
    save_profile(PROFILE._replace(address="[::1]:1"), path, replace_secret)
    assert load_profile(path) == PROFILE._replace(address="[::1]:1")


def test_a_hub_key_is_saved_and_loaded(tmp_path):
    path = tmp_path / "hub.key"
    save_hub_key(PAIR, path)
    assert mode(path) == 0o600 and load_hub_key(path) == PAIR
    assert refusal(save_hub_key, PAIR, path).code == "file-exists"


def written(tmp_path, text):
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    write_secret(path, text)
    return path


FIELDS = json.loads(keys.profile_text(PROFILE))

#   damage                         what is in the file
DAMAGED = {
    "nothing": "",
    "a word": "profile",
    "null": "null",
    "a number": "17",
    "a list": json.dumps([FIELDS]),
    "half": keys.profile_text(PROFILE)[:200],
    "its end": keys.profile_text(PROFILE)[200:],
    "zeros": "\0" * 300,
    "no mark": json.dumps({k: v for k, v in FIELDS.items() if k != "zbackbone"}),
    "a later mark": json.dumps(FIELDS | {"zbackbone": "profile 2"}),
    "a hub's key": json.dumps(FIELDS | {"zbackbone": "hub key 1"}),
    "no name": json.dumps({k: v for k, v in FIELDS.items() if k != "name"}),
    "no secret": json.dumps({k: v for k, v in FIELDS.items() if k != "secret_key"}),
    "no address": json.dumps(FIELDS | {"address": "hub.example"}),
    "an odd address": json.dumps(FIELDS | {"address": None}),
    "a short key": json.dumps(FIELDS | {"secret_key": FIELDS["secret_key"][:-1]}),
    "a long key": json.dumps(FIELDS | {"secret_key": FIELDS["secret_key"] + "0"}),
    "a key with five more": json.dumps(FIELDS | {"secret_key": FIELDS["secret_key"] + "00000"}),
    "a hub's key with five more": json.dumps(FIELDS | {"hub_key": FIELDS["hub_key"] + "00000"}),
    "an odd key": json.dumps(FIELDS | {"secret_key": FIELDS["secret_key"][:-1] + "~"}),
    "a key beyond Z85": json.dumps(FIELDS | {"secret_key": "#####" + FIELDS["secret_key"][5:]}),
    "a key that isn't ASCII": json.dumps(FIELDS | {"secret_key": "é" + FIELDS["secret_key"][1:]}),
    "a key that is a number": json.dumps(FIELDS | {"hub_key": 7}),
    "a key that is null": json.dumps(FIELDS | {"public_key": None}),
    "a key that is a list": json.dumps(FIELDS | {"public_key": ["0"] * 40}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_profile_is_refused_in_words(tmp_path, damage):
    path = written(tmp_path, DAMAGED[damage])
    error = refusal(load_profile, path)
    assert error.code == "bad-profile" and str(path) in error.text


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_hub_key_is_refused_in_words(tmp_path, damage):
    text = DAMAGED[damage].replace("profile 1", "hub key 1") if damage != "a hub's key" else DAMAGED["no mark"]
    if damage in ("no name", "no address", "an odd address", "a key that is a number", "its end",
                  "a hub's key with five more"):
        text = "{}"                            # a hub's key has no such field
    path = written(tmp_path, text)
    error = refusal(load_hub_key, path)
    assert error.code == "bad-hub-key" and str(path) in error.text


def test_a_hub_key_whose_halves_do_not_belong_together_is_refused(tmp_path):
    path = tmp_path / "hub.key"
    save_hub_key(KeyPair(HUB.public, PAIR.secret), path)
    assert refusal(load_hub_key, path).code == "bad-hub-key"


def test_a_profile_whose_halves_do_not_belong_together_is_refused(tmp_path):
    path = tmp_path / "a.profile"
    save_profile(PROFILE._replace(public_key=HUB.public), path)
    assert refusal(load_profile, path).code == "bad-profile"


def test_a_profile_open_to_others_is_refused(tmp_path):
    save_profile(PROFILE, tmp_path / "a")
    save_hub_key(PAIR, tmp_path / "b")
    for name, load in (("a", load_profile), ("b", load_hub_key)):
        (tmp_path / name).chmod(0o644)
        assert refusal(load, tmp_path / name).code == "loose-permissions"
        assert refusal(load, tmp_path / "none").code == "no-such-file"


# Join strings

@pytest.mark.parametrize("address", ["hub.example:5570", "127.0.0.1:1", "[::1]:65535", "[fe80::1%eth0]:5570"])
def test_a_join_string_survives_the_journey(address):
    for pair in [PAIR, make_pair(), KeyPair(b"\xff" * 32, b"\xff" * 32), KeyPair(bytes(32), bytes(32))]:
        invitation = Invitation(address, pair.public, pair.secret)
        text = to_join_string(invitation)
        assert from_join_string(text) == invitation
        assert from_join_string(f"  {text}\n") == invitation


def test_a_join_string_is_a_word_that_no_shell_touches():
    text = to_join_string(INVITATION)
    assert text.startswith("zbjoin1:hub.example:5570:")
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


TEXT = to_join_string(INVITATION)
HUB_KEY, SECRET = TEXT.split(":")[3:]


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_a_join_string_that_was_cut_off_is_refused(cut):
    assert refusal(from_join_string, TEXT[:cut]).code == "bad-join-string"


@pytest.mark.parametrize("text", [
    "", " ", "hello", "zbjoin1", "zbjoin1:", "zbjoin1::::", TEXT[1:], TEXT[4:], "zbjoin2" + TEXT[7:], TEXT.upper(),
    TEXT + "A", TEXT + "AAAA", TEXT[:-5] + TEXT[-4:], f"zbjoin1:hub.example:5570:{SECRET}",
    f"zbjoin1:hub.example:5570:{HUB_KEY[:-1]}:{SECRET}", f"zbjoin1:hub.example:5570::{SECRET}",
    TEXT.replace("zbjoin1:", "zbjoin1"), TEXT[:-1] + "é",
], ids=range(18))
def test_what_is_no_join_string_is_refused_and_not_repeated(text):
    assert refusal(from_join_string, text).code == "bad-join-string"


@pytest.mark.parametrize("address", ["hub.example", "hub.example:", ":5570", "hub.example:70000", "a b:1"])
def test_a_join_string_with_an_odd_address_is_refused(address):
    assert refusal(from_join_string, f"zbjoin1:{address}:{HUB_KEY}:{SECRET}")


@pytest.mark.parametrize("text", [TEXT + TEXT, f"{TEXT} {TEXT}", f"{TEXT}\n{TEXT}", f"{TEXT}:{HUB_KEY}:{SECRET}"],
                         ids=["twice", "in a row", "two lines", "twice its keys"])
def test_a_join_string_that_was_pasted_twice_is_refused_and_not_repeated(text):
    assert refusal(from_join_string, text).code


# Addresses

#   text                       address
ADDRESSES = [
    ("127.0.0.1:5570",          "127.0.0.1:5570"),
    ("tcp://127.0.0.1:5570",    "127.0.0.1:5570"),
    ("localhost:1",             "localhost:1"),
    ("hub.example.org:65535",   "hub.example.org:65535"),
    ("host:0",                  "host:0"),
    ("host:00080",              "host:80"),
    ("*:5570",                  "*:5570"),
    ("0.0.0.0:5570",            "0.0.0.0:5570"),
    ("[::1]:5570",              "[::1]:5570"),
    ("tcp://[::]:5570",         "[::]:5570"),
    ("[fe80::1%eth0]:5570",     "[fe80::1%eth0]:5570"),
    ("[2001:db8::7]:80",        "[2001:db8::7]:80"),
    ("",                        None),
    (":",                       None),
    ("host",                    None),
    ("host:",                   None),
    (":5570",                   None),
    ("tcp://",                  None),
    ("tcp://:5570",             None),
    ("host:port",               None),
    ("host:-1",                 None),
    ("host:+1",                 None),
    ("host:1.5",                None),
    ("host:65536",              None),
    ("host:99999999999999999999", None),
    ("host:5570 ",              None),
    ("host :5570",              None),
    (" host:5570",              None),
    ("ho st:5570",              None),
    ("host\n:5570",             None),
    ("host\x00:5570",           None),
    ("host:5570/",              None),
    ("host/path:5570",          None),
    ("user@host:5570",          None),
    ("eth0;host:5570",          None),
    ("http://host:5570",        None),
    ("tcp://tcp://host:5570",   None),
    ("ipc:///tmp/x",            None),
    ("::1:5570",                None),
    ("2001:db8::7:80",          None),
    ("host:5570:80",            None),
    ("[::1]",                   None),
    ("[::1:5570",               None),
    ("::1]:5570",               None),
    ("[]:5570",                 None),
]


@pytest.mark.parametrize(("text", "address"), ADDRESSES, ids=ascii)
def test_what_is_an_address(text, address):
    if address is None:
        error = refusal(parse_address, text)
        assert error.code == "bad-address" and "HOST:PORT" in error.text
    else:
        assert parse_address(text) == address
        assert parse_address(address) == address


def test_a_long_text_that_is_no_address_is_not_repeated_whole():
    assert len(refusal(parse_address, "x" * 100_000).text) < 300
