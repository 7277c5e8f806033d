"""The README's blocks, typed as they stand: the shell's in one shell, Python's in one program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def user(tmp_path):
    """A person's environment: an empty home, the commands on the path, free ports instead of the usual ones."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ZBACKBONE_", "XDG_"))}
    return env | {"HOME": str(tmp_path), "PATH": f"{COMMANDS}:{env['PATH']}",
                  "ZBACKBONE_BIND": "127.0.0.1:0", "ZBACKBONE_LIVE": "127.0.0.1:0"}


@pytest.mark.timeout(120)
def test_the_readme_does_what_it_says(user, tmp_path):
    first, *rest = blocks("bash")
    hub = subprocess.Popen(first.split(), env=user, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert hub.stdout.readline().startswith("ready tcp://127.0.0.1:")
        shell = subprocess.run(["bash", "-e", "-c", "\n".join(rest)], env=user, cwd=tmp_path,
                               capture_output=True, text=True, timeout=60)
        assert shell.returncode == 0, shell.stderr
        lines = shell.stdout.splitlines()
        assert "from noc-c2" in lines
        assert '"all hands"' in lines[-2] and '"just for you"' in lines[-1]
        (program,) = blocks("python")
        python = subprocess.run([sys.executable, "-c", program], env=user, cwd=tmp_path,
                                capture_output=True, text=True, timeout=60)
        assert python.returncode == 0, python.stderr
        assert "hello" in python.stdout and "57.0,-10.1" in python.stdout
    finally:
        hub.terminate()
        assert hub.wait(10) == 0
        hub.stdout.close()


@pytest.mark.timeout(120)
def test_the_demonstration_runs_through_and_leaves_a_hub(user, tmp_path):
    demo = subprocess.run([sys.executable, str(ROOT / "examples" / "demo.py"), str(tmp_path / "demo")], env=user,
                          capture_output=True, text=True, timeout=100)
    pid = int((tmp_path / "demo" / "hub" / "lock").read_text())
    try:
        assert demo.returncode == 0, demo.stderr
        assert "found 1000 messages in its inbox: in order, none missing, none twice" in demo.stdout
        assert demo.stdout.count("order 'waypoint") == 2
        os.kill(pid, 0)
    finally:
        os.kill(pid, 15)
