"""Face: what Client and AsyncClient have in common: arguments checked, errors chosen."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import protocol as p
from ..auth.keys import Profile, load_profile
from ..errors import Misuse, Refused
from ..topics import parse_name, parse_pattern, parse_topic
from .connection import Connection
from .outbox import Batch
from .session import Listening

OUTBOX_BYTES = 64 << 20
KEEPALIVE_S = 20.0


def profile_of(profile: "str | os.PathLike[str] | Profile") -> Profile:
    return profile if isinstance(profile, Profile) else load_profile(Path(profile))


def address_of(way: int, address: object) -> str:
    """The address, as the hub will read it. Raises Misuse."""
    if way == p.SEND:
        return parse_name(address)
    return parse_topic(address) if way == p.PUBLISH else ""


def listening_of(patterns: tuple[str, ...], broadcasts: bool) -> Listening:
    if not patterns and not broadcasts:
        raise Misuse("bad-pattern", "name a pattern to listen to, or broadcasts=True")
    return Listening(tuple(parse_pattern(pattern) for pattern in patterns), broadcasts)


def stop_waiting(connection: Connection) -> None:
    """Raises when waiting is of no use: the hub has refused this client, or it is closed."""
    if isinstance(connection.trouble, Refused):
        raise connection.trouble
    if connection.is_closed:
        raise connection.trouble or Misuse("closed", "this client is closed; make a new one")


def check_option(when_full: str) -> None:
    if when_full not in ("raise", "wait"):
        raise Misuse("bad-option", f"when_full is 'raise' or 'wait', not {when_full!r}")


def bodies_of(bodies: Iterable[bytes]) -> list[bytes]:
    """They, each checked. Raises Misuse, which names the index."""
    out = list(bodies)
    if not set(map(type, out)) <= {bytes} or max(map(len, out), default=0) > p.BODY_BYTES_MAX:
        for index, body in enumerate(out):
            try:
                p.check_message(body, None)
            except Misuse as error:
                raise Misuse(error.code, f"bodies[{index}]: {error.text}") from None
    return out


def outcome(batches: Sequence[Batch]) -> None:
    """Raises Refused when one of these settled batches was, for the first that was."""
    for batch in batches:
        if batch.refusal is not None:
            raise Refused(*batch.refusal)
