"""Joining: from an invitation to a profile. The client's secret key is made here and stays here."""

import os
import time
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from .. import protocol as p
from ..auth.keys import Invitation, KeyPair, Profile, from_join_string, make_pair, pair_of
from ..errors import Garbled, KeyRefused, Refused, Silence, Unreachable

HALF_WAY_S = 2.0      # an answer that was lost is looked for by greeting with the new key


def join(invitation: "str | Invitation", timeout: float = 30.0, pair: KeyPair | None = None) -> Profile:
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
    """Says one command on a connection of its own; the hub's answer to it."""
    until_s = time.monotonic() + timeout
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.IPV6, 1)
        dealer.setsockopt(zmq.ROUTING_ID, b"\1" + os.urandom(16))
        dealer.setsockopt(zmq.CURVE_SERVERKEY, hub_key)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
                                            | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        try:
            dealer.connect(f"tcp://{address}")
            dealer.send_multipart((p.encode(command), b""))
            poller = zmq.Poller()
            poller.register(dealer, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            trouble: Exception = Unreachable("unreachable", f"cannot reach the hub at {address}; is it running?")
            while (left_s := until_s - time.monotonic()) > 0:
                ready = dict(poller.poll(int(left_s * 1000) + 1))
                if monitor in ready:
                    event = parse_monitor_message(monitor.recv_multipart())["event"]
                    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                        raise KeyRefused("key-refused", f"the hub at {address} does not accept this key")
                    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                        trouble = Silence("timed-out", f"the hub at {address} has not answered in time; try again")
                    else:
                        trouble = Unreachable("wrong-hub", f"the hub at {address} is not the one that invited;"
                                                           " check the address, or ask for a new invitation")
                if dealer in ready:
                    header = dealer.recv_multipart()[0]
                    try:
                        return p.decode(header)
                    except Garbled:
                        continue
            raise trouble
        finally:
            dealer.disable_monitor()
