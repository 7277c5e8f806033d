"""Running a command: whatever goes wrong becomes one line on stderr, and an exit code.

    0  done
    1  failed: a file, the disk, or a fault of ours
    2  misuse: the command line, a file or a setting is wrong
    3  the hub cannot be reached
    4  the hub refused
    5  no answer, or not enough messages, in time
"""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ..errors import BackboneError, Misuse, Refused, Silence, Unreachable

DONE, FAILED, MISUSE, UNREACHABLE, REFUSED, TIMED_OUT = range(6)

# The first that fits counts.
EXIT_CODES: tuple[tuple[type[BackboneError], int], ...] = (
    (Misuse, MISUSE), (Refused, REFUSED), (Unreachable, UNREACHABLE), (Silence, TIMED_OUT), (BackboneError, FAILED),
)

log = logging.getLogger("zbackbone")


class Command(click.Command):
    """A click command that ends as this file's first lines say. speaks_as: how its errors begin."""

    speaks_as = "zb"

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None,  # type: ignore[override]
             **extra: Any) -> NoReturn:
        """Runs it and exits."""
        extra.pop("standalone_mode", None)
        sys.exit(self._outcome(args, prog_name or self.speaks_as, extra))

    def _outcome(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        """The exit code. What went wrong has been told when this returns."""
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
            return result if isinstance(result, int) else DONE
        except click.ClickException as error:
            where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else prog_name
            self._say(f"{error.format_message().rstrip('.')}; see `{where} --help`", "usage")
            return MISUSE
        except (click.Abort, KeyboardInterrupt):
            self._say("interrupted before it was done", "interrupted")
            return FAILED
        except BackboneError as error:
            self._say(error.text, error.code)
            return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        except BrokenPipeError:
            forget_stdout()
            return FAILED
        except OSError as error:
            self._say(f"{error.filename or 'the system'}: {error.strerror or error}", "system")
            _say_traceback()
            forget_stdout()    # if that was what failed, Python would try and fail once more
        except Exception as error:
            self._say(f"an unexpected {type(error).__name__}: {error}; please report it", "fault")
            _say_traceback()
        return FAILED

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError):
            raise click.Abort from None    # else click would print an empty line first

    def _say(self, sentence: str, code: str) -> None:
        say(f"{self.speaks_as}: {' '.join(sentence.split())} [{code}]")


class Group(Command, click.Group):
    """A click group that ends likewise, and without a command prints its help."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **more})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            say(ctx.get_help())
            ctx.exit(MISUSE)
        return super().parse_args(ctx, args)


def _say_traceback() -> None:
    if log.isEnabledFor(logging.DEBUG):
        say(traceback.format_exc())


def say(line: str) -> None:
    """A line for people. That nobody reads it is no error."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def forget_stdout() -> None:
    """Nobody reads stdout any more: let Python write the rest of it nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
