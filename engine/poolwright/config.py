"""TOML files and ``--set`` overrides to an :class:`Experiment`; every error names the key and its line."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .catalog import Catalog
from .errors import ConfigError, close_matches
from .spec import Experiment, known_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Key = tuple[str | int, ...]

DEMONSTRATION: dict[str, Any] = {
    "seeds": 3,
    "budget": 300,
    "batch": 25,
    "threads": 1,  # matrices this small gain nothing from a second thread, and lose much on a busy machine
    "dataset": {"name": "digits", "validation": 0.1},
    "learner": {"name": "mlp"},
    "initial": {"strategy": "random", "size": 50},
    "strategy": [
        *({"name": name} for name in ("random", "margin", "coreset", "badge")),
        {"name": "bral-t", "environments": 10},  # a third of the paper's, and of the time
    ],
}
"""What ``poolwright run`` runs without a configuration; options on the command line change it."""


def load(source: Path | Mapping[str, Any], overrides: Sequence[str] = (), catalog: Catalog | None = None) -> Experiment:
    """Read a configuration and check it, plugins and their parameters included.

    Parameters
    ----------
    source : Path or dict
        A TOML file, or its content.
    overrides : sequence of str
        ``"key=value"``, applied in order; see :func:`override`.
    catalog : Catalog, optional
        Where names of plugins are looked up; the environment's by default.

    Raises
    ------
    ConfigError
        One line: what, where (file, line, key), and what to do.
    """
    text = ""
    if isinstance(source, Path):
        text = _read(source)
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source} is not valid TOML: {error}") from None
    else:
        raw = _copy(source)
    for item in overrides:
        override(raw, item)
    for key, name in (("dataset", "digits"), ("learner", "mlp")):
        if isinstance(raw.get(key), dict):
            raw[key].setdefault("name", name)
    where = _Where(source if isinstance(source, Path) else None, text)
    try:
        experiment = Experiment(**raw)
        experiment.check_plugins(catalog or Catalog())
    except ConfigError as error:
        raise type(error)(f"{where.of(error.key)}{error}", error.key) from error.__cause__
    return experiment


def override(raw: dict[str, Any], item: str) -> None:
    """Apply ``"key=value"`` to a configuration.

    The key is dotted, as in ``learner.epochs=5``; its first part may also be the label or name of a strategy, as in
    ``badge.metric=cosine``. The value is read as TOML, else taken as a string.

    Raises
    ------
    ConfigError
        There is no ``=``, or the key leads nowhere.
    """
    key, separator, text = item.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path):
        raise ConfigError(f"--set {item!r}: write KEY=VALUE, as in learner.epochs=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    target: Any = raw
    if path[0] not in raw and len(path) > 1 and path[0] not in known_keys():
        target = _strategy_called(raw, path[0], item)
        path = path[1:]
    for part in path[:-1]:
        if isinstance(target.get(part), str):
            target[part] = {"name": target[part]}
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            way_out = "name the strategy, as in badge.KEY=VALUE" if part == "strategy" else "it has no keys"
            raise ConfigError(f"--set {item!r}: {part!r} is no table: {way_out}")
    if isinstance(target.get(path[-1]), dict) and "name" in target[path[-1]] and isinstance(value, str):
        value = {"name": value}
    target[path[-1]] = value


def _strategy_called(raw: dict[str, Any], name: str, item: str) -> dict[str, Any]:
    entries = [entry for entry in raw.get("strategy", []) if isinstance(entry, dict)]
    for entry in entries:
        if name in (entry.get("label"), entry.get("name")):
            return entry
        for role in ("score", "select", "reward"):
            if entry.get(role) == name:
                entry[role] = {"name": name}
            if isinstance(entry.get(role), dict) and entry[role].get("name") == name:
                found: dict[str, Any] = entry[role]
                return found
    names = [str(entry.get("label") or entry.get("name")) for entry in entries]
    raise ConfigError(
        f"--set {item!r}: no key and no strategy is called {name!r}: {close_matches(name, [*known_keys(), *names])}"
    )


def _copy(value: Any) -> Any:
    """Copy tables and lists, keep everything else (classes of the caller's own among it)."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration {path}: give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None


class _Where:
    """Lines of the keys of a TOML file."""

    def __init__(self, path: Path | None, text: str) -> None:
        self._path = path
        self._lines: dict[Key, int] = {}
        table: Key = ()
        counts: dict[Key, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            header = re.match(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]", line)
            entry = re.match(r"\s*([A-Za-z0-9_\-\"'.]+?)\s*=", line)
            if header:
                table = tuple(part.strip().strip("\"'") for part in header[2].split("."))
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._lines.setdefault(table, number)
            elif entry:
                self._lines.setdefault((*table, *(part.strip("\"'") for part in entry[1].split("."))), number)

    def of(self, key: Key) -> str:
        """Return ``"file, line n: "`` for the key or the nearest table around it, as far as known."""
        if self._path is None:
            return ""
        for end in range(len(key), 0, -1):
            if key[:end] in self._lines:
                return f"{self._path}, line {self._lines[key[:end]]}: "
        return f"{self._path}: "
