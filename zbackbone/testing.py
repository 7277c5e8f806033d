"""Testing: a hub in a test, as a context manager and as a pytest fixture.

    def test_my_glider(zbackbone_hub):
        glider, base = zbackbone_hub.add("glider-1"), zbackbone_hub.add("base")
        with Client(glider) as me, Client(base) as them: ...

A real hub in a process of its own, on free loopback ports and a folder that is removed
afterwards; it takes 0.3 s to start.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .auth.keys import Profile, load_profile
from .auth.policy import EVERYTHING, Grants
from .client.operator import Operator
from .client.sync import Client

READY_S = 30


class TestHub:
    """A hub's process. data: its folder. address: HOST:PORT. key: its public key, in Z85."""

    __test__ = False        # not a test case, whatever its name says to pytest

    def __init__(self, data: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data = data
        self.options = options
        self.env = env
        self.address = "127.0.0.1:0"
        self.live = "127.0.0.1:0"
        self.key = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "TestHub":
        """Starts it, again on the address it had. Raises RuntimeError with what it said when it doesn't come up."""
        self.log = open(self.data.parent / f"{self.data.name}.log", "a+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zbackbone.cli.hub", "--data", str(self.data), "--bind", self.address,
             "--live", self.live, *self.options],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(self.env or {})})
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            self.process.wait(READY_S)
            self.log.seek(0)
            raise RuntimeError(f"the hub did not come up: {line}{self.log.read()}")
        _, address, self.key = line.split()
        self.address = address.removeprefix("tcp://")
        return self

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
        self.process = None
        return code

    @property
    def operator(self) -> Profile:
        return load_profile(self.data / "operator.profile")

    def add(self, name: str, grants: Grants = EVERYTHING) -> Profile:
        """A new client's profile."""
        with Client(self.operator) as client:
            return Operator(client).add(name, grants)


def running_hub(*options: str) -> Iterator[TestHub]:
    folder = Path(tempfile.mkdtemp(prefix="zbackbone-"))
    hub = TestHub(folder / "hub", *options)
    try:
        yield hub.start()
    finally:
        hub.kill()
        shutil.rmtree(folder, ignore_errors=True)


try:
    import pytest
except ImportError:
    pass
else:
    zbackbone_hub = pytest.fixture(running_hub, name="zbackbone_hub")
