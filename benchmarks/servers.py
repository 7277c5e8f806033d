"""Servers: starting one on free ports, stopping it by its id."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

READY_S = 60


class NotReady(Exception):
    """A server did not come up; the text says what it said."""


class Server:
    """A server's process, in a group of its own. folder: its data. port: where it listens."""

    def __init__(self, folder: Path, port: int, command: list[str], env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = port
        self._log = open(folder / "log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         env={**os.environ, **(env or {})}, start_new_session=True,
                                         preexec_fn=die_with_parent, cwd=folder)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_port(self, greeting: bytes = b"", answer: bytes = b"") -> "Server":
        """Returns once it listens, and answers that greeting with something that begins like that."""
        until_s = time.monotonic() + READY_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(greeting)
                if not answer or sock.recv(4096).startswith(answer):
                    return self
            time.sleep(0.02)
        self.stop()
        raise NotReady((self.folder / "log").read_text(errors="replace")[-2000:] or f"{self.folder.name} said nothing")

    def stop(self) -> None:
        """SIGTERM to its group, then SIGKILL."""
        for how, patience_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self._log.close()


def die_with_parent() -> None:
    """In a child, before it becomes the server: when the suite is killed, so is it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)       # PR_SET_PDEATHSIG


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def find(program: str) -> str | None:
    """The program's path: this Python's own folder first, where a wheel puts its newer one, then
    PATH, then the folders where Debian keeps daemons."""
    places = [os.path.dirname(sys.executable), *os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which(program, path=":".join(places))


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children, MB."""
    total = 0.0
    for process in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) / 1024
    return total


def device_bytes(folder: Path) -> int | None:
    """What was written to the disk that the folder is on, so far, by anybody. None: it is on none."""
    device = folder.stat().st_dev
    try:
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except OSError:
        return None
    return int(fields[6]) * 512


def written_bytes(pid: int) -> int:
    """What a process and its children had the kernel write to disk, now or later, so far.

    The kernel counts what became dirty, in folios: of a file that is written anew in place, up to
    2 MB for each write. See device_bytes.
    """
    total = 0
    for process in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    total += int(line.split()[1])
    return total


def children(pid: int) -> list[int]:
    out = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                out += [int(child), *children(int(child))]
    return out
