"""Profiles: which one a command uses, and where a new one is put so that its key is not lost."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import BackboneError, Misuse
from .folders import config_folder, path_of
from .running import say

if TYPE_CHECKING:
    from ..auth.keys import Profile
    from ..client.operator import Operator
    from ..client.sync import Client

CONNECT_S = 10.0       # a hub that restarts is back in 2 s, a satellite link greets in 3
SPARES_MAX = 100       # names tried for a profile whose own is taken


# The one in use ------------------------------------------------------------------------------
def in_use(ctx: click.Context) -> Path:
    """The file of --profile, ZBACKBONE_PROFILE, or the one joined last, in this order. Raises Misuse."""
    given = ctx.find_root().params.get("profile")
    if given:
        return path_of(given)
    try:
        text = _last().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse("cannot-read", f"cannot read {_last()}: {error}; name a profile with --profile") from None
    if not text:
        raise Misuse("no-profile", "no profile yet: join a hub with `zb join`, or name one with --profile"
                                   " or ZBACKBONE_PROFILE")
    if not Path(text).exists():
        raise Misuse("no-profile", f"the profile joined last, {text}, is gone: name another with --profile"
                                   " or ZBACKBONE_PROFILE, or join anew")
    return Path(text)


def remember(path: Path) -> None:
    """From now on this is the one joined last."""
    from ..auth.keys import make_folder
    make_folder(_last().parent)
    # Whole or not at all: another command may be reading it.
    fd, beside = tempfile.mkstemp(dir=_last().parent, prefix=".last.")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(f"{path.absolute()}\n")
    os.replace(beside, _last())


def _last() -> Path:
    return config_folder() / "last"


@contextmanager
def client(ctx: click.Context, connect_s: float | None = CONNECT_S) -> Iterator["Client"]:
    """A Client of the profile in use, connected within connect_s seconds; None doesn't wait for that.

    Raises Misuse, Unreachable, Refused.
    """
    from ..client.sync import Client
    with Client(in_use(ctx), when_full="wait") as me:
        if connect_s is not None:
            me.ping(connect_s)
        yield me


@contextmanager
def operator(ctx: click.Context) -> Iterator["Operator"]:
    from ..client.operator import Operator
    with client(ctx) as me:
        yield Operator(me)


# A new one -----------------------------------------------------------------------------------
def check_new(path: Path) -> None:
    """Raises Misuse when there is such a file, or none can be made there. To be asked before the hub is."""
    if os.path.lexists(path):
        raise Misuse("file-exists", f"{path} exists already; name another file, or remove it first")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raises Misuse when no file can be made there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Misuse("cannot-write", f"cannot write in {folder}: {error.strerror}; name another file") from None


def save(profile: "Profile", path: Path) -> Path:
    """Writes it there or, rather than lose its key, in the first place that takes it. Returns where.

    Raises BackboneError when no place does.
    """
    from ..auth.keys import save_profile
    faults = []
    for place in (path, *_spares(path)):
        try:
            save_profile(profile, place)
        except Misuse as error:
            faults.append(error.text)
            continue
        except OSError as error:
            faults.append(f"{place}: {error.strerror}")
            place.unlink(missing_ok=True)        # we made it, and there is no whole profile in it
            continue
        if place != path:
            say(f"zb: {faults[0]}: the profile is in {place} now; move it where you want it")
        return place
    raise BackboneError("key-lost", f"the new profile can be written nowhere ({faults[0]}), so its key is lost;"
                                    " have the client revoked, and made or invited anew")


def _spares(path: Path) -> Iterator[Path]:
    """Free names like it beside it, then elsewhere."""
    for folder in (path.parent, config_folder(), Path(), Path(tempfile.gettempdir())):
        names = (folder / f"{path.stem}-{number}{path.suffix}" for number in range(2, SPARES_MAX))
        yield from islice((spare for spare in names if not os.path.lexists(spare)), 1)
