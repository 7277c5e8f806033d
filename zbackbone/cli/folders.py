"""Folders: where a user's files are (XDG Base Directory Specification 0.8)."""

import os
from pathlib import Path

from ..errors import Misuse


def data_folder() -> Path:
    return _home("XDG_DATA_HOME", ".local/share")


def config_folder() -> Path:
    return _home("XDG_CONFIG_HOME", ".config")


def path_of(text: str) -> Path:
    """A path as a user writes it, ~ for a home folder; one that doesn't exist stays as it is."""
    return Path(os.path.expanduser(text))


def _home(variable: str, otherwise: str) -> Path:
    # The specification: a path that is not absolute is to be ignored.
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():
        return given / "zbackbone"
    try:
        return Path.home() / otherwise / "zbackbone"
    except RuntimeError:
        raise Misuse("no-home", f"you have no home folder; set HOME or {variable}") from None
