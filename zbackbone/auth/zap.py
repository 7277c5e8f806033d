"""ZAP: judge one authentication request. No I/O, no clock. Source: ZeroMQ RFC 27."""

from collections.abc import Callable
from typing import TypeAlias

MayEnter: TypeAlias = Callable[[str, str], bool]     # (key as 64 hex digits, domain) -> admitted?


def judge(request: list[bytes], may_enter: MayEnter) -> list[bytes]:
    """Answer one ZAP request.

    request: version, id, domain, address, routing id, mechanism, then the
        credentials; CURVE has one, a 32-byte public key.
    Returns version, id, status, text, user id, metadata. The user id is the key in hex: what
        the hub reads on every message, and so the one thing that says who sent it.
    Never raises: what it can't read gets status 400, and so does every fault of ours.
    """
    try:
        version, ident, domain, _address, _routing_id, mechanism, key = request
        if version == b"1.0" and mechanism == b"CURVE" and len(key) == 32:
            user = key.hex()
            if may_enter(user, domain.decode("ascii")):
                return [b"1.0", ident, b"200", b"OK", user.encode("ascii"), b""]
    except Exception:
        # Fail closed: whatever goes wrong here is a refusal, and the loop lives on.
        ident = request[1] if len(request) > 1 else b""
    return [b"1.0", ident, b"400", b"key not accepted", b"", b""]
