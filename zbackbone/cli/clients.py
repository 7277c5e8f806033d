"""Clients: what an operator does: invite, add, show, revoke, rotate, grant; and the hub's status."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import Misuse
from . import profiles
from .folders import path_of
from .output import moment, print_json, print_table
from .running import DONE, FAILED, Group, say
from .values import Address, Duration, seconds

if TYPE_CHECKING:
    from ..auth.keys import Profile
    from ..auth.policy import Grants

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_json = click.option("--json", "is_json", is_flag=True, help="As JSON.")
_address = click.option("--address", type=Address(),
                        help="Where the client connects, if not where the hub says, or else this profile does.")
_output = click.option("-o", "--output", type=click.Path(), required=True, metavar="FILE",
                       help="Where to write the profile; a file that is not there yet.")


def _grant_options(command: Decorated) -> Decorated:
    for option in (
        click.option("--admin", is_flag=True, help="It may administer the hub."),
        click.option("--subscribe", multiple=True, metavar="PATTERN", help="Topics that it may receive; repeatable."),
        click.option("--publish", multiple=True, metavar="PATTERN", help="Topics that it may publish; repeatable."),
        click.option("--send", multiple=True, metavar="PATTERN", help="Clients that it may send to; repeatable."),
    ):
        command = option(command)
    return command


def _grants(send: tuple[str, ...], publish: tuple[str, ...], subscribe: tuple[str, ...], admin: bool) -> "Grants":
    """Everything but administration, unless patterns or `admin` say otherwise. Raises Misuse."""
    from ..auth.policy import EVERYTHING, parse_grants
    if not (send or publish or subscribe):
        return EVERYTHING._replace(admin=admin)
    return parse_grants(send, publish, subscribe, admin)


@click.group(cls=Group)
def clients() -> None:
    """Invite, list, change and revoke clients; for operators.

    A client may send to every client, publish and subscribe to everything, and
    administer nothing, unless options say what it may: with any of --send,
    --publish and --subscribe it may do that alone, with --admin it may
    administer besides. In a PATTERN, * is one word and # any number of them.

    \b
      zb clients invite noc-c2
      zb clients invite glider-1 --send noc-c2 --publish 'soar.glider-1.#'
      zb clients list
    """


@clients.command()
@click.argument("name")
@_grant_options
@click.option("--expires", type=Duration(), default="24h", show_default=True,
              help="How long the invitation is good: 30s, 15m, 24h, 7d; 30d at most.")
@_address
@click.pass_context
def invite(ctx: click.Context, /, name: str, expires: int, address: str | None, **grants: Any) -> None:
    """Invite a client to be called NAME; print a join string.

    It is good for one `zb join`, which makes the client's keys where they are
    used. Until then it is a secret: give it to nobody else.

    \b
      zb clients invite noc-c2
      zb clients invite glider-1 --publish 'soar.glider-1.#' --send noc-c2 --expires 7d
      zb clients invite noc-c2 | ssh noc-c2 zb join -
    """
    from ..auth.keys import from_join_string
    from ..router.admin import INVITATION_S_MAX
    if expires > INVITATION_S_MAX:
        raise click.BadParameter(f"an invitation is good for {INVITATION_S_MAX // 86_400}d at most", ctx,
                                 param_hint="'--expires'")
    with profiles.operator(ctx) as operator:
        string = operator.invite(name, _grants(**grants), expires, address or "")
    click.echo(string)
    where = from_join_string(string).address
    say(f"{name} may join once within {seconds(expires)}, at {where}: zb join STRING")
    _warn_of_loopback(where)


@clients.command()
@click.argument("name")
@_output
@_grant_options
@_address
@click.pass_context
def add(ctx: click.Context, /, name: str, output: str, address: str | None, **grants: Any) -> None:
    """Add a client called NAME, and write its profile to FILE.

    The hub makes its key and forgets it: FILE is the only copy. Where a client
    can run `zb join` itself, invite it instead, and its key never travels.

    \b
      zb clients add glider-1 -o glider-1.profile --publish 'soar.glider-1.#'
      scp glider-1.profile glider-1: && rm glider-1.profile
    """
    path = path_of(output)
    profiles.check_new(path)
    with profiles.operator(ctx) as operator:
        profile = operator.add(name, _grants(**grants), address or "")
    _written(profile, path)


@clients.command()
@click.argument("name")
@_output
@click.option("--now", is_flag=True, help="Refuse the old key at once, and cut its connections.")
@_address
@click.pass_context
def rotate(ctx: click.Context, name: str, output: str, now: bool, address: str | None) -> None:
    """Give a client a new key, and write its new profile to FILE.

    The old key is good until the new one is used for the first time, so that
    the client may change over when it likes. Its inbox and grants stay.

    \b
      zb clients rotate noc-c2 -o noc-c2-new.profile
    """
    path = path_of(output)
    profiles.check_new(path)
    with profiles.operator(ctx) as operator:
        profile = operator.rotate(name, now, address or "")
    _written(profile, path)


def _written(profile: "Profile", path: Path) -> None:
    path = profiles.save(profile, path)
    click.echo(f"wrote {path}: {profile.name} at {profile.address} (whoever has it is {profile.name}: keep it secret)")
    _warn_of_loopback(profile.address)


def _warn_of_loopback(address: str) -> None:
    if address.startswith(("127.", "localhost:", "[::1]:")):
        say(f"zb: {address} is good on this machine only; for another, say --address HOST:PORT")


@clients.command()
@click.argument("name")
@_grant_options
@click.option("--everything", is_flag=True, help="It may send, publish and subscribe to everything.")
@click.pass_context
def grant(ctx: click.Context, /, name: str, everything: bool, **grants: Any) -> None:
    """Replace what a client may do.

    All of it: what is not named is taken away. --admin alone means everything
    and administration, as it does for a new client. It counts at once.

    \b
      zb clients grant glider-1 --send noc-c2 --publish 'soar.glider-1.#'
      zb clients grant noc-c2 --everything
    """
    patterns = any(grants[key] for key in ("send", "publish", "subscribe"))
    if everything and patterns:
        raise click.UsageError("--everything leaves nothing to name with --send, --publish or --subscribe", ctx)
    if not (everything or patterns or grants["admin"]):
        raise click.UsageError("say what the client may do: --send, --publish, --subscribe, --admin or --everything",
                               ctx)
    with profiles.operator(ctx) as operator:
        operator.grant(name, _grants(**grants))


@clients.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_context
def revoke(ctx: click.Context, name: str, yes: bool) -> int:
    """End a client, or an invitation that was not used yet.

    Its key is refused from then on, its connections are cut, its subscriptions
    end, and the messages in its inbox are deleted.

    \b
      zb clients revoke glider-1 --yes
    """
    if not yes and not (sys.stdin is not None and sys.stdin.isatty()):
        raise Misuse("not-confirmed", f"there is no terminal to ask at whether {name} is to be revoked; say --yes")
    with profiles.operator(ctx) as operator:
        if not yes:
            waiting = operator.show(name).get("waiting", 0)
            if not click.confirm(f"Revoke {name}, and delete its {waiting} waiting messages?", err=True):
                say("nothing was revoked")
                return FAILED
        purged = operator.revoke(name)
    click.echo(f"revoked {name}; {purged} waiting messages went with it")
    return DONE


@clients.command("list")
@_json
@click.pass_context
def list_clients(ctx: click.Context, is_json: bool) -> None:
    """List clients and invitations.

    By name, with their state, how many messages wait for them, and the bytes of these.

    \b
      zb clients list
      zb clients list --json | jq -r '.[] | select(.waiting > 1000) | .name'
    """
    with profiles.operator(ctx) as operator:
        rows = operator.clients()
    if is_json:
        print_json(rows)
    else:
        print_table([("name", "state", "waiting", "bytes"),
                     *((row["name"], row["state"], row.get("waiting", "-"), row.get("bytes", "-")) for row in rows)])


@clients.command()
@click.argument("name")
@_json
@click.pass_context
def show(ctx: click.Context, name: str, is_json: bool) -> None:
    """Show one client or invitation.

    Its state, grants, keys and subscriptions.

    \b
      zb clients show noc-c2
    """
    from ..auth.keys import shown
    with profiles.operator(ctx) as operator:
        about = operator.show(name)
    if is_json:
        print_json(about)
        return
    grants, keys, patterns = about.pop("grants"), about.pop("keys", []), about.pop("patterns", [])
    rows = [(key.removesuffix("_ms"), moment(value / 1000) if key.endswith("_ms") else str(value))
            for key, value in about.items()]
    rows += [(f"may {verb}", " ".join(grants[verb]) or "nothing") for verb in ("send", "publish", "subscribe")]
    rows += [("may administer", "yes" if grants["admin"] else "no")]
    rows += [("key", shown(key["public_key"]) + (" (new, not used yet)" if key["pending"] else "")) for key in keys]
    rows += [("subscribed to", pattern) for pattern in patterns]
    print_table(rows)
