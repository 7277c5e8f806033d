"""zb: the client, from the command line."""

import logging
import sys
from pathlib import Path

import click

from .. import __version__
from . import profiles
from .clients import clients
from .join import join
from .messages import broadcast, publish, send
from .output import print_json, print_table
from .reading import listen, receive, subscribe, subscriptions, unsubscribe
from .running import Group

NAMES = ("zb", "zbackbone")
SHELLS = ("bash", "zsh", "fish")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", type=click.Path(), metavar="FILE", envvar="ZBACKBONE_PROFILE", show_envvar=True,
              help="Who you are.  [default: the profile joined last]")
@click.option("--debug", is_flag=True, envvar="ZBACKBONE_DEBUG", show_envvar=True,
              help="Log to stderr what the connection does.")
@click.version_option(__version__, message="zb %(version)s")
def zb(profile: str | None, debug: bool) -> None:
    """Send, publish and receive messages over a hub, and administer it.

    \b
      zb join zbjoin1:...                  once, with an invitation of the hub's operator
      zb send noc-c2 'surface at 12:00'    to a client's inbox
      zb receive                           what is in your own
      zb publish soar.noc.status ok        to all who subscribed to a topic
      zb subscribe 'soar.noc.#'            and be one of them

    \b
    Exit codes: 0 done, 1 failed, 2 misuse, 3 hub unreachable, 4 refused by the
    hub, 5 no answer or not enough messages in time.
    """
    _log_to_stderr(debug)


def _log_to_stderr(debug: bool) -> None:
    handler = logging.StreamHandler()
    if debug:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        handler.setFormatter(_Line("zb: %(message)s"))
    log = logging.getLogger("zbackbone")
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if debug else logging.WARNING)


class _Line(logging.Formatter):
    def formatException(self, ei: object) -> str:    # noqa: N802
        return ""


@zb.command()
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
@click.pass_context
def status(ctx: click.Context, is_json: bool) -> None:
    """Show the hub's counters; for operators.

    \b
      zb status
      zb status --json | jq .waiting_messages
    """
    with profiles.operator(ctx) as operator:
        counters = operator.status()
    if is_json:
        print_json(counters)
    else:
        print_table(list(counters.items()))


@zb.command()
@click.option("-n", "--count", type=click.IntRange(min=1), default=3, show_default=True, metavar="COUNT",
              help="How many times.")
@click.pass_context
def ping(ctx: click.Context, count: int) -> None:
    """Print how long the hub takes to answer, there and back.

    \b
      zb ping -n 10
    """
    with profiles.client(ctx) as me:
        for _ in range(count):
            click.echo(f"{me.ping() * 1000:.2f} ms")


@zb.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes this command.

    \b
      bash, in ~/.bashrc:    eval "$(zb completion bash)"
      zsh, in ~/.zshrc:      eval "$(zb completion zsh)"
      fish:                  zb completion fish > ~/.config/fish/completions/zb.fish
    """
    from click.shell_completion import get_completion_class
    name = ctx.find_root().info_name or NAMES[0]
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(zb, {}, name, f"_{name.upper()}_COMPLETE").source().rstrip("\n"))


for command in (join, send, publish, broadcast, receive, listen, subscribe, unsubscribe, subscriptions, clients):
    zb.add_command(command)


def main() -> None:
    name = Path(sys.argv[0]).name
    zb.main(prog_name=name if name in NAMES else NAMES[0])


if __name__ == "__main__":
    main()
