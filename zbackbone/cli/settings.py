"""Settings: a command's options from a TOML file, its keys and types checked."""

import tomllib
from typing import Any

import click

from ..errors import Misuse
from .folders import path_of


def from_file(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
    """An option's callback: makes the file's values the defaults of the other options. Raises Misuse."""
    if path is None or ctx.resilient_parsing:
        return
    options = {o.name: o for o in ctx.command.params
               if isinstance(o, click.Option) and o.expose_value and o.name is not None}
    defaults = {}
    for key, value in _read(path).items():
        option = options.get(key)
        if option is None:
            raise Misuse("bad-config", f"{path}: no setting is called {key!a}; there are {', '.join(sorted(options))}")
        defaults[key] = _checked(path, key, value, option, ctx, options)
    ctx.default_map = defaults


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path_of(path), "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise Misuse("bad-config", f"cannot read the configuration {path}: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse("bad-config", f"{path} is not TOML: {error}") from None


def _checked(path: str, key: str, value: Any, option: click.Option, ctx: click.Context,
             known: dict[str, click.Option]) -> Any:
    kind, noun = (int, "a whole number") if isinstance(option.type, click.types.IntParamType) else (str, "a text")
    fault = None if type(value) is kind else f"it is {noun}, not {value!r}"
    if fault is None:
        try:
            option.type.convert(value, option, ctx)
        except click.BadParameter as error:
            fault = error.message.rstrip(".")
    if fault:
        raise Misuse("bad-config", f"{path}: {key}: {fault}; the settings are {', '.join(sorted(known))}")
    return value
