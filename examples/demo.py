"""A glider and its command centre, on a hub that is killed in between. Run by bin/run.

    python examples/demo.py FOLDER

It starts a hub in FOLDER (or uses the one that runs there), and leaves it running.
"""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from zbackbone import BackboneError, Client, Operator
from zbackbone.auth.keys import load_profile, save_profile

POSITIONS = 8
AWAY = 1000          # messages that wait while the command centre is away and the hub is killed


def say(who: str, text: str) -> None:
    print(f"{who:>15} | {text}", flush=True)


def position(step: int) -> str:
    """A glider's zigzag down the Ellett line, as an NMEA sentence (GLL)."""
    north, west, minutes = 57 + step * 0.002, 10 + 0.02 * math.sin(step / 3), 12 * 60 + step
    body = (f"GPGLL,{int(north):02d}{north % 1 * 60:07.4f},N,{int(west):03d}{west % 1 * 60:07.4f},W,"
            f"{minutes // 60 % 24:02d}{minutes % 60:02d}00,A")
    check = 0
    for character in body:
        check ^= ord(character)
    return f"${body}*{check:02X}"


class HubProcess:
    """A hub that outlives this script. Its process id is in FOLDER/hub/lock while it runs."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "hub"
        self.log = folder / "hub.log"
        self.address = self.live = ""

    def running(self) -> bool:
        try:
            with Client(self.data / "operator.profile") as operator:
                operator.ping(timeout=2)
                return True
        except BackboneError:
            return False

    def start(self) -> str:
        """Starts it on its usual ports, or on free ones when those are taken; its ready line."""
        usual = ("127.0.0.1:5570", "127.0.0.1:5571")
        for bind, live in [(self.address, self.live)] if self.address else [usual, ("127.0.0.1:0", "127.0.0.1:0")]:
            with open(self.log, "a", encoding="utf-8") as log:
                process = subprocess.Popen(
                    [str(Path(sys.executable).with_name("zbackbone-hub")), "--data", str(self.data),
                     "--bind", bind, "--live", live],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if line.startswith("ready "):
                self.address = line.split()[1].removeprefix("tcp://")
                self.live = live
                return line
            process.wait()
        raise SystemExit(f"the hub did not start; see {self.log}")

    @property
    def pid(self) -> int:
        return int((self.data / "lock").read_text())

    def kill(self) -> None:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        while True:                      # it is our child at most once; its lock tells in any case
            try:
                os.waitpid(pid, os.WNOHANG)
                os.kill(pid, 0)
            except (ChildProcessError, ProcessLookupError):
                if not Path(f"/proc/{pid}").exists():
                    return
            time.sleep(0.01)


def client_profile(hub: HubProcess, name: str, folder: Path) -> Path:
    """Registers a client, unless it is."""
    path = folder / f"{name}.profile"
    operator = load_profile(hub.data / "operator.profile")
    if path.exists() and load_profile(path).address != operator.address:
        path.unlink()
        with Client(operator) as client:
            Operator(client).revoke(name)
    if not path.exists():
        with Client(operator) as client:
            save_profile(Operator(client).add(name), path)
        say("operator", f"registered {name}; its keys are in {path}")
    return path


def conversation(glider_profile: Path, centre_profile: Path) -> None:
    """The glider publishes, the centre finds it in its inbox and answers, the glider obeys."""

    def centre() -> None:
        with Client(centre_profile) as me:
            me.subscribe("fleet.*.position")
            subscribed.set()
            for count, message in enumerate(me.receive(timeout=10), 1):
                say("command centre", f"got   {message.body.decode()} from {message.sender}")
                message.ack()
                if count % 4 == 0:
                    me.send(message.sender, f"waypoint {count // 4}: turn to {45 * count} degrees".encode())
                if count == POSITIONS:
                    return

    subscribed = threading.Event()
    thread = threading.Thread(target=centre)
    thread.start()
    subscribed.wait(30)
    with Client(glider_profile) as me:
        for step in range(POSITIONS):
            text = position(step)
            receipt = me.publish("fleet.glider-1.position", text.encode(), headers={"content-type": "application/nmea"})
            receipt.wait(timeout=10)
            say("glider-1", f"sent  {text}   (on the hub's disk)")
            time.sleep(0.15)
        for count, order in enumerate(me.receive(timeout=5), 1):
            say("glider-1", f"order {order.body.decode()!r} from {order.sender}")
            order.ack()
            if count == POSITIONS // 4:
                break
    thread.join()


def outage(hub: HubProcess, glider_profile: Path, centre_profile: Path) -> None:
    """What was accepted while the centre is away survives kill -9."""
    with Client(glider_profile) as me:
        for step in range(AWAY):
            me.publish("fleet.glider-1.position", position(step).encode())
        me.flush(timeout=30)
    say("glider-1", f"sent {AWAY} more while the command centre is away; all accepted")
    hub.kill()
    say("hub", "killed with kill -9")
    hub.start()
    say("hub", "started again")
    with Client(centre_profile) as me:
        expected = [position(step).encode() for step in range(AWAY)]
        got = []
        for message in me.receive(timeout=10):
            got.append(message.body)
            message.ack()
            if len(got) == AWAY:
                break
    right = "in order, none missing, none twice" if got == expected else "which is WRONG: please report it"
    say("command centre", f"is back, and found {len(got)} messages in its inbox: {right}")


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hub = HubProcess(folder)
    if (hub.data / "operator.profile").exists() and hub.running():
        hub.address = load_profile(hub.data / "operator.profile").address
        hub.kill()
        say("hub", "stopped the one of the last run")
    say("hub", hub.start())
    glider, centre = (client_profile(hub, name, folder) for name in ("glider-1", "centre"))
    conversation(glider, centre)
    outage(hub, glider, centre)
    commands = Path(sys.executable).parent
    print(f"""
The hub is running (process {hub.pid}, data in {hub.data}, log in {hub.log}). Now try:

    export PATH="{commands}:$PATH"
    zb --profile {glider} publish fleet.glider-1.position 'hello'
    zb --profile {centre} receive -w 2
    export ZBACKBONE_PROFILE={hub.data}/operator.profile
    zb clients list
    zb clients invite my-laptop          # prints a join string; then: zb join STRING
    kill {hub.pid}                       # stops the hub""")


if __name__ == "__main__":
    main()
