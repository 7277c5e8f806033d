"""zbackbone-hub: the daemon, from the command line."""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import __version__
from ..protocol import DISK_RESERVE_BYTES, INBOX_BYTES_MAX
from .folders import data_folder, path_of
from .running import Command, forget_stdout
from .settings import from_file
from .values import Address

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
LEVELS = ("debug", "info", "warning", "error")


class HubCommand(Command):
    speaks_as = "zbackbone-hub"


def _option(name: str, **more: Any) -> Callable[[Decorated], Decorated]:
    variable = "ZBACKBONE_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=more.get("default") is not None, **more)


@click.command(cls=HubCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@_option("--data", type=click.Path(), metavar="DIR",
         help="The folder of the hub's key, store and first operator's profile; made if there is none.  "
              "[default: zbackbone/hub in $XDG_DATA_HOME or ~/.local/share]")
@_option("--bind", type=Address(), default="127.0.0.1:5570",
         help="Where clients connect. Host 0.0.0.0 or * is every interface, port 0 a free one.")
@_option("--live", type=Address(), default="127.0.0.1:5571", help="Where clients that listen get live messages.")
@_option("--address", type=Address(), default=None,
         help="What new clients are told to connect to, if not what the operator's own profile says: "
              "behind a forwarded port, or a name in DNS.")
@_option("--inbox-bytes", type=click.IntRange(min=1), default=INBOX_BYTES_MAX, metavar="N",
         help="What one client's inbox may hold; a full one refuses what is sent to it.")
@_option("--disk-reserve-bytes", type=click.IntRange(min=0), default=DISK_RESERVE_BYTES, metavar="N",
         help="With less free disk than this, sends are refused and the rest goes on.")
@_option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info",
         help="How much is logged, to stderr.")
@_option("--config", type=click.Path(), metavar="FILE", is_eager=True, expose_value=False, callback=from_file,
         help="A TOML file of these options, their names with underscores: inbox_bytes = 1000000.")
@click.version_option(__version__, message="zbackbone-hub %(version)s")
def hub(data: str | None, bind: str, live: str, address: str | None, inbox_bytes: int, disk_reserve_bytes: int,
        log_level: str) -> int:
    """Run a hub until SIGTERM or Ctrl-C.

    An option's flag goes before its environment variable, that before the file
    of --config, and that before the default.

    Once it serves it prints one line on stdout, `ready tcp://HOST:PORT PUBLICKEY`,
    and logs to stderr. Its first start makes operator.profile in the data folder,
    with which you may invite everybody else:

    \b
      zbackbone-hub --bind 0.0.0.0:5570 --live 0.0.0.0:5571 --address hub.example.org:5570
      zb --profile ~/.local/share/zbackbone/hub/operator.profile clients invite noc-c2

    \b
    Exit codes: 0 stopped by a signal, 1 failed (the disk, the store),
    2 misuse (an option, a port that is taken, a data folder in use).
    """
    from ..router.daemon import Settings, serve
    _log_to_stderr(log_level)
    folder = path_of(data) if data else data_folder() / "hub"
    return serve(Settings(folder, bind, live, __version__, address or "", inbox_bytes, disk_reserve_bytes), _ready)


def _ready(address: str, public_key: str) -> None:
    try:
        click.echo(f"ready tcp://{address} {public_key}")
    except OSError:
        forget_stdout()    # nobody wants to know; that is no reason not to serve


def _log_to_stderr(level: str) -> None:
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    lines.converter = time.gmtime
    lines.default_time_format, lines.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler = logging.StreamHandler()
    handler.setFormatter(lines)
    logging.basicConfig(level=level.upper(), handlers=[handler])


def main() -> None:
    hub.main(prog_name="zbackbone-hub")


if __name__ == "__main__":
    main()
