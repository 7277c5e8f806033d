"""Keys: make, save and load secrets: hub keys, profiles, join strings. The only file that sees them.

Every secret file is made new (O_EXCL, no symlink followed) with mode 0600, and refused when
it is read with looser permissions. Keys are CURVE25519 pairs, 32 bytes each (ZeroMQ RFC 26),
written in Z85 (RFC 32) in files and base64url in join strings, which must survive a shell.
"""

import base64
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nacl.public import PrivateKey
from zmq.utils import z85

from ..errors import Misuse

JOIN_PREFIX = "zbjoin1"


class KeyPair(NamedTuple):
    """public, secret: 32 bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair({self.public.hex()}, secret hidden)"


class Profile(NamedTuple):
    """What a client needs to reach its hub. address: HOST:PORT. Keys: 32 bytes each."""

    name: str
    address: str
    hub_key: bytes
    public_key: bytes
    secret_key: bytes

    def __repr__(self) -> str:
        return f"Profile({self.name!r}, {self.address!r}, secret hidden)"


class Invitation(NamedTuple):
    """What a join string says. secret_key: the invitation's one-time key, 32 bytes."""

    address: str
    hub_key: bytes
    secret_key: bytes

    def __repr__(self) -> str:
        return f"Invitation({self.address!r}, secret hidden)"


def make_pair() -> KeyPair:
    secret = PrivateKey.generate()
    return KeyPair(bytes(secret.public_key), bytes(secret))


def pair_of(secret: bytes) -> KeyPair:
    """The pair that a 32-byte secret key belongs to."""
    return KeyPair(bytes(PrivateKey(secret).public_key), secret)


def shown(public_key: bytes) -> str:
    """A public key as people read it: 40 characters of Z85."""
    return z85.encode(public_key).decode("ascii")


# Join strings --------------------------------------------------------------------------------
def to_join_string(invitation: Invitation) -> str:
    """zbjoin1:HOST:PORT:HUBKEY:SECRET, one word that no shell touches."""
    keys = (base64.urlsafe_b64encode(key).rstrip(b"=").decode() for key in invitation[1:])
    return ":".join((JOIN_PREFIX, invitation.address, *keys))


def from_join_string(text: str) -> Invitation:
    """Raises Misuse when it is not a whole join string; never repeats it, for it holds a secret."""
    prefix, _, rest = text.strip().partition(":")
    parts = rest.rsplit(":", 2)
    try:
        if prefix != JOIN_PREFIX or len(parts) != 3:
            raise ValueError
        address, hub_key, secret_key = parts[0], *(base64.urlsafe_b64decode(p + "=") for p in parts[1:])
        if len(hub_key) != 32 or len(secret_key) != 32:
            raise ValueError
        address = parse_address(address)
    except ValueError:            # Misuse too, which would repeat a secret that stands in the wrong place
        raise Misuse("bad-join-string", "this is not a whole join string; copy all of what"
                                        " `zb clients invite` printed, from zbjoin1: to its end") from None
    return Invitation(address, hub_key, secret_key)


def parse_address(text: str) -> str:
    """HOST:PORT, [IPV6]:PORT; with or without tcp:// before it. Raises Misuse otherwise."""
    address = text.removeprefix("tcp://")
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or not port.isdecimal() or int(port) > 65535 \
            or any(c.isspace() or not c.isprintable() or c in "/;@" for c in host):
        raise Misuse("bad-address", f"an address is HOST:PORT, as in 127.0.0.1:5570, not {ascii(text[:80])}")
    return f"{host}:{int(port)}"


# Files ---------------------------------------------------------------------------------------
def write_secret(path: Path, text: str) -> None:
    """A new 0600 file, on disk when this returns. Raises Misuse when there is one already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise Misuse("file-exists", f"{path} exists already; name another file, or remove it first") from None
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)  # an umask can only take away; a default ACL can add
            file.write(text)
            file.flush()
            os.fsync(fd)
        _sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> Misuse:
    return Misuse("cannot-write", f"cannot write {path}: {error.strerror}; name another file, or make room")


def replace_secret(path: Path, text: str) -> None:
    """Writes a 0600 file in the place of another, whole or not at all."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_secret(beside, text)
    try:
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _cannot_write(path, error) from None


def read_secret(path: Path) -> str:
    """The text of a secret file. Raises Misuse when others could read it too, or nobody can."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077 and os.name == "posix":
                raise Misuse("loose-permissions",
                             f"{path} is open to other users; take their rights away: chmod 600 {path}")
            return file.read()
    except FileNotFoundError:
        raise Misuse("no-such-file", f"there is no file {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse("cannot-read", f"cannot read {path}: {error}") from None


def make_folder(path: Path) -> None:
    """A 0700 folder, made if there is none; an existing one is refused when others may write in it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except OSError as error:
        raise Misuse("cannot-write", f"cannot use the folder {path}: {error.strerror}; name another") from None
    if mode & 0o022:
        raise Misuse("loose-permissions", f"other users may write in {path}; take that away: chmod go-w {path}")


def _sync_folder(path: Path) -> None:
    # A file's name is on disk only when its folder is (Linux, fsync(2)).
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def profile_text(profile: Profile) -> str:
    return json.dumps({
        "zbackbone": "profile 1",
        "name": profile.name,
        "address": profile.address,
        "hub_key": shown(profile.hub_key),
        "public_key": shown(profile.public_key),
        "secret_key": shown(profile.secret_key),
    }, indent=2) + "\n"


def save_profile(profile: Profile, path: Path, write: Callable[[Path, str], None] = write_secret) -> None:
    write(path, profile_text(profile))


def load_profile(path: Path) -> Profile:
    """Raises Misuse when it is missing, open to others, or no profile."""
    text = read_secret(path)
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields["zbackbone"] != "profile 1":
            raise ValueError
        keys = [_key(fields[k]) for k in ("hub_key", "public_key", "secret_key")]
        if pair_of(keys[2]).public != keys[1]:
            raise ValueError
        return Profile(str(fields["name"]), parse_address(str(fields["address"])), *keys)
    except (ValueError, KeyError, TypeError):
        raise Misuse("bad-profile", f"{path} is not a profile; make one with `zb join` or `zb clients add`") from None


def _key(text: str) -> bytes:
    if len(text) != 40:
        raise ValueError
    try:
        key = bytes(z85.decode(text.encode("ascii")))
    except Exception as error:  # z85.decode raises struct.error and KeyError on odd characters
        raise ValueError from error
    return key


def save_hub_key(pair: KeyPair, path: Path) -> None:
    write_secret(path, json.dumps({"zbackbone": "hub key 1", "public_key": shown(pair.public),
                                   "secret_key": shown(pair.secret)}, indent=2) + "\n")


def load_hub_key(path: Path) -> KeyPair:
    text = read_secret(path)
    try:
        fields = json.loads(text)
        if fields["zbackbone"] != "hub key 1":
            raise ValueError
        pair = pair_of(_key(fields["secret_key"]))
        if pair.public != _key(fields["public_key"]):
            raise ValueError
        return pair
    except (ValueError, KeyError, TypeError):
        raise Misuse("bad-hub-key", f"{path} is not a hub's key; restore it from a backup") from None
