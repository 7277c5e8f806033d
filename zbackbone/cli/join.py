"""Join: from an invitation to a profile on this machine."""

import sys

import click

from ..errors import Misuse
from . import profiles
from .folders import config_folder, path_of
from .running import say


@click.command()
@click.argument("string")
@click.option("-o", "--output", type=click.Path(), metavar="FILE",
              help="Where to write the profile.  [default: NAME.profile in zbackbone in $XDG_CONFIG_HOME or ~/.config]")
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS",
              help="How long to wait for the hub.")
def join(string: str, output: str | None, timeout: float) -> None:
    """Join a hub with an invitation.

    STRING is what `zb clients invite` printed. The client's keys are made here; the
    secret one stays in the profile that is written, and zb uses that profile from
    now on. An invitation is good once. With - for STRING it is read from stdin, and
    no process list shows it.

    \b
      zb join zbjoin1:hub.example.org:5570:...
      ssh hub zb clients invite noc-c2 | zb join -
    """
    from ..auth.keys import from_join_string, make_folder
    from ..client.joining import join as join_hub
    invitation = from_join_string(_first_line() if string == "-" else string)
    # An invitation is good once: it isn't used before there is a place for what it gives.
    if output:
        profiles.check_new(path_of(output))
    else:
        make_folder(config_folder())
        profiles.check_folder(config_folder())
    profile = join_hub(invitation, timeout)
    path = profiles.save(profile, path_of(output) if output else config_folder() / _file_name(profile.name))
    try:
        profiles.remember(path)
        told = ""
    except (Misuse, OSError) as error:
        say(f"zb: could not note it as the one joined last ({error})")
        told = f" --profile {path}"
    click.echo(f"joined the hub at {profile.address} as {profile.name}\n"
               f"profile: {path} (whoever has it is {profile.name}: keep it secret)\n"
               f"next:    zb{told} receive\n"
               f"         zb{told} send NAME 'hello'")


def _first_line() -> str:
    if sys.stdin is None:
        raise Misuse("no-stdin", "there is no standard input to read; give the join string itself")
    return sys.stdin.readline()


def _file_name(name: str) -> str:
    # The name came from the hub: it must not lead out of the folder.
    from ..topics import parse_name
    try:
        return f"{parse_name(name)}.profile"
    except Misuse:
        return "joined.profile"
