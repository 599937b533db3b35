"""Options that several data sets have: what they may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poolwright import ConfigError


def path_of(value: Any, title: str, name: str = "root") -> Path:
    """Return the path that the option ``name`` holds, with ``~`` looked up.

    Raises
    ------
    ConfigError
        It is no text: a folder called 2024 needs quotes in TOML.
    """
    if not isinstance(value, (str, Path)):
        raise ConfigError(f"data set {title}: {name} must be a path, in quotes, not {value!r}")
    return Path(value).expanduser()


def share_of(value: Any, title: str) -> float:
    """Return the share that becomes test data.

    Raises
    ------
    ConfigError
        It is no number above 0 and below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ConfigError(f"data set {title}: test must be above 0 and below 1, not {value!r}")
    return value


def check_switches(title: str, **switches: Any) -> None:
    """Refuse options that are neither true nor false, naming the first.

    Raises
    ------
    ConfigError
        There is one.
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigError(f"data set {title}: {name} must be true or false, not {value!r}")
