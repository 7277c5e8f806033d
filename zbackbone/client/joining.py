"""Joining: from an invitation to a profile. The client's secret key is made here and stays here."""

import contextlib
import os
import time
from typing import Any

import zmq

from .. import protocol as p
from ..auth.keys import Invitation, KeyPair, Profile, from_join_string, make_pair, pair_of
from ..errors import Garbled, KeyRefused, Refused, Silence, Unreachable
from . import sockets

RETRY_S = 0.2
HALF_WAY_S = 2.0      # an answer that was lost is looked for by greeting with the new key


def join(invitation: "str | Invitation", timeout: float = 10.0, pair: KeyPair | None = None) -> Profile:
    """Registers a new key pair by an invitation; the profile, not yet saved.

    invitation: as `zb clients invite` printed it. timeout: seconds. pair: the client's own, if it
    is not to be made here. Raises Misuse for a join string that isn't one, Refused when the
    invitation is not taken (any more), Unreachable, Silence.
    """
    if isinstance(invitation, str):
        invitation = from_join_string(invitation)
    pair = pair or make_pair()
    try:
        answer = exchange(invitation.address, invitation.hub_key, pair_of(invitation.secret_key),
                          p.Join(1, pair.public), timeout)
    except (KeyRefused, Silence) as error:
        # Perhaps an earlier try got through, and only its answer was lost.
        try:
            hello = p.Hello(p.VERSION, os.urandom(8), os.urandom(8), 0, 60)
            answer = exchange(invitation.address, invitation.hub_key, pair, hello, HALF_WAY_S)
        except (KeyRefused, Silence):
            if isinstance(error, KeyRefused):
                raise Refused("invitation-refused", "the hub does not accept this invitation: it was used, expired or"
                                                    " withdrawn; ask for a new one") from None
            raise error from None
    if type(answer) is p.Denied:
        raise Refused(answer.code, answer.sentence)
    name = answer.name if type(answer) is p.Welcome else str(answer.result["name"])
    return Profile(name, invitation.address, invitation.hub_key, pair.public, pair.secret)


def exchange(address: str, hub_key: bytes, pair: KeyPair, command: p.Command, timeout: float) -> Any:
    """Says one command on a connection of its own, tried again until time is up; the hub's answer.

    Raises KeyRefused at once, Unreachable or Silence at the end.
    """
    until_s = time.monotonic() + timeout
    while True:
        try:
            return _attempt(address, hub_key, pair, command, until_s)
        except Unreachable:
            if time.monotonic() + RETRY_S > until_s:
                raise
            time.sleep(RETRY_S)


def _attempt(address: str, hub_key: bytes, pair: KeyPair, command: p.Command, until_s: float) -> Any:
    with zmq.Context() as context, sockets.dealer(context, hub_key, pair) as dealer, \
            sockets.watch(context, dealer) as monitor:
        try:
            dealer.connect(f"tcp://{address}")
            dealer.send_multipart((p.encode(command), b""))
            poller = zmq.Poller()
            poller.register(dealer, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            silence: Silence = sockets.unreachable(address)
            while (left_s := until_s - time.monotonic()) > 0:
                ready = dict(poller.poll(int(left_s * 1000) + 1))
                if dealer in ready:
                    with contextlib.suppress(Garbled):
                        return p.decode(dealer.recv_multipart()[0], p.FRAME_BYTES_MAX)
                event = sockets.next_event(monitor)
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    silence = Silence("timed-out", f"the hub at {address} has not answered in time; try again")
                elif event is not None:
                    raise sockets.trouble(event, address) or silence
            raise silence
        finally:
            dealer.disable_monitor()
