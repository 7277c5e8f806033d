"""Values: what the text of an option or an argument may be."""

import re
from typing import Any

import click

from ..errors import Misuse

UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Address(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..auth.keys import parse_address
        try:
            return parse_address(str(value))
        except Misuse as error:
            self.fail(error.text, param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """30s, 15m, 24h, 7d: whole seconds, at least one."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
        if found is None or not int(found[1]):
            self.fail(f"a duration is a number and s, m, h or d, as in 24h, not {value[:40]!a}", param, ctx)
        return int(found[1]) * UNIT_S[found[2]]


class Header(click.ParamType):  # type: ignore[type-arg]
    """KEY=VALUE."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"a header is KEY=VALUE, not {value[:40]!a}", param, ctx)
        return key, text


def seconds(value: int) -> str:
    """A duration as people say it: 86400 is 24h."""
    unit = next(u for u in ("h", "m", "s") if value % UNIT_S[u] == 0)
    return f"{value // UNIT_S[unit]}{unit}"
