"""Daemon: a hub's data folder: its lock, key, store and operator; from there to a Server, and its life.

    DIR/hub.key            the hub's key pair, 0600
    DIR/hub.db (-journal)  the store's database
    DIR/hub.journal        what the database does not have yet
    DIR/operator.profile   the first operator's profile; remove it and restart to get a new key
    DIR/lock               held while a hub runs
    DIR/reserve            disk kept free for acknowledgements
"""

import contextlib
import fcntl
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .. import facts as f
from ..auth import keys
from ..auth.policy import OPERATOR, to_wire
from ..errors import Damaged, Misuse
from .hub import Hub
from .hub import Settings as HubSettings
from .server import Server, StorageFailed
from .store import NoRoom
from .journaled import JournaledStore

log = logging.getLogger("zbackbone.hub")
OPERATOR_NAME = "operator"
NUMBERS_FROM_S = 1_704_067_200     # 2024-01-01; inbox numbers have 40 bits, which is enough until 2058
NUMBERS_A_SECOND = 1024            # to one inbox, on average over its life


class Settings(NamedTuple):
    """bind, live: HOST:PORT. address: HOST:PORT that clients are told to use, or "". *_bytes: bytes."""

    data: Path
    bind: str
    live: str
    version: str
    address: str = ""
    inbox_bytes: int = HubSettings().inbox_bytes_max
    disk_reserve_bytes: int = 64 << 20


def serve(settings: Settings, ready: Callable[[str, str], None]) -> int:
    """Runs a hub until a signal stops it. ready(address, public key) is called once it serves.

    Returns the exit code. Raises Misuse or Damaged when it can't start.
    """
    keys.make_folder(settings.data)
    with _alone(settings.data):
        server, public = _prepare(settings)
        old = {s: signal.signal(s, lambda *_: server.stop()) for s in (signal.SIGTERM, signal.SIGINT)}
        old_fd = signal.set_wakeup_fd(server.wake_fd, warn_on_full_buffer=False)
        try:
            ready(server.address, keys.shown(public))
            log.info("serving %s, live side %s, data in %s", server.address, server.live_address, settings.data)
            server.run()
            log.info("stopped")
            return 0
        except StorageFailed as error:
            log.critical("the store failed (%s); stopped, nothing more is accepted: "
                         "check the disk, then start again", error)
            return 1
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)
            server.close()
            server.store.close()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misuse("cannot-write", f"cannot write in the data folder {folder}: {error.strerror};"
                                     " name another with --data") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            raise Misuse("data-in-use", f"another hub (process {other}) uses the data folder {folder};"
                                        " stop it, or name another with --data") from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)


def _prepare(settings: Settings) -> tuple[Server, bytes]:
    _raise_descriptor_limit()
    folder = settings.data
    key_path, store_path, profile_path = folder / "hub.key", folder / "hub.db", folder / "operator.profile"
    has_store = store_path.exists() and store_path.stat().st_size > 0
    if key_path.exists() and not has_store:
        raise Damaged("store-missing", f"{folder} has a hub's key but no store: restore hub.db from a backup,"
                                       " or remove hub.key to begin anew")
    store = JournaledStore(store_path, os.urandom(8), settings.disk_reserve_bytes, may_make=not key_path.exists())
    try:
        hub = Hub(store.id, HubSettings(settings.version, "", settings.address, settings.inbox_bytes),
                  keys.make_pair, time.time_ns() >> 10)
        for fact in store.load():
            hub.apply(fact)
        hub.cuts()
        # Numbers behind all that another life of this store may have given: a restored backup must
        # not use one again that a running client has seen.
        hub.skip_numbers(int((time.time() - NUMBERS_FROM_S) * NUMBERS_A_SECOND))
        if not key_path.exists():
            if hub.registry.by_id:
                raise Damaged("key-missing", f"{folder} has a store but no hub.key, without which no client"
                                             " trusts this hub: restore it from a backup")
            keys.save_hub_key(keys.make_pair(), key_path)
        pair = keys.load_hub_key(key_path)
        server = Server(hub, store, pair, settings.bind, settings.live)
    except BaseException:
        store.close()
        raise
    hub.settings = hub.settings._replace(live="tcp://" + _reachable(server.live_address, "*"))
    try:
        _admit_operator(hub, store, profile_path, _reachable(server.address, "127.0.0.1"), pair.public)
    except BaseException:
        server.close()
        store.close()
        raise
    return server, pair.public


def _admit_operator(hub: Hub, store: JournaledStore, path: Path, address: str, hub_key: bytes) -> None:
    """Makes the operator's profile if there is none, and keeps its address right."""
    if path.exists():
        try:
            profile = keys.load_profile(path)
        except Misuse as error:
            if error.code != "bad-profile":
                raise
            raise Misuse("bad-profile", f"{path} is not a profile; remove it, and this hub's next start makes"
                                        " a new one") from None
        if profile.public_key.hex() not in hub.registry.by_key:
            log.warning("%s is not this hub's (any more); remove it and restart for a new operator's key", path)
        elif (profile.address, profile.hub_key) != (address, hub_key):
            keys.save_profile(profile._replace(address=address, hub_key=hub_key), path, keys.replace_secret)
        return
    pair, now_ms = keys.make_pair(), int(time.time() * 1000)
    operator = hub.registry.by_name.get(OPERATOR_NAME)
    facts: list[f.Fact]
    if operator is None:
        facts = [f.Registered(hub.registry.last_id + 1, OPERATOR_NAME, pair.public.hex(), to_wire(OPERATOR), now_ms)]
    else:
        facts = [f.KeyAdded(operator.id, pair.public.hex()),
                 *(f.KeyDropped(operator.id, key) for key in operator.keys),
                 f.KeyUsed(operator.id, pair.public.hex()), f.Granted(operator.id, to_wire(OPERATOR))]
    for fact in facts:
        hub.apply(fact)
    try:
        store.commit(facts)
    except NoRoom as error:
        raise Misuse("disk-full", f"the disk of {path.parent} is full; make room, then start again") from error
    keys.save_profile(keys.Profile(OPERATOR_NAME, address, hub_key, pair.public, pair.secret), path,
                      keys.replace_secret)


def _reachable(address: str, anywhere: str) -> str:
    """The address with `anywhere` as its host, if it was bound to every interface."""
    host, _, port = address.rpartition(":")
    return f"{anywhere}:{port}" if host in ("0.0.0.0", "[::]") else address


def _raise_descriptor_limit() -> None:
    # A connection is a descriptor, and the usual soft limit is 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
