"""Names of plugins: entry points are read, nothing is imported until a name is asked for.

A plugin that cannot be imported is kept as data: it is reported when it is asked for or checked, and harms no other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import ConfigError, PluginError, UnknownNameError, close_matches

KINDS = {"strategy": "strategies", "learner": "learners", "dataset": "datasets", "wrapper": "wrappers"}
"""Kind of plugin -> the last part of its entry-point group."""
TITLES = {"strategy": "strategy", "learner": "learner", "dataset": "data set", "wrapper": "wrapper"}


@dataclass(frozen=True)
class Entry:
    """One entry point.

    Attributes
    ----------
    kind, name : str
    target : str
        ``"module:attribute"``.
    distribution, version : str
        Who provides it.
    rivals : tuple of str
        Other distributions that claim the same name; such a name cannot be used until one is removed.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    rivals: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """Plugin and distribution, for messages."""
        return f"{TITLES[self.kind]} {self.name!r} of distribution {self.distribution!r}"

    def load(self) -> Any:
        """Import the class or factory.

        Raises
        ------
        PluginError
            It cannot be imported, is not callable, or two distributions claim its name.
        """
        if self.rivals:
            claimants = ", ".join(repr(name) for name in (self.distribution, *self.rivals))
            raise PluginError(
                f"{TITLES[self.kind]} {self.name!r} is claimed by several distributions: {claimants}; "
                f"uninstall all but one"
            )
        point = EntryPoint(self.name, self.target, f"poolwright.{KINDS[self.kind]}")
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{self.who} cannot be imported from {self.target}: {one_line(error)}") from error
        if not callable(loaded):
            raise PluginError(f"{self.who}: {self.target} is {type(loaded).__name__}, not a class or factory")
        return loaded

    def problem(self) -> str:
        """Import it and return what is wrong, or an empty string."""
        try:
            self.load()
        except PluginError as error:
            return str(error)
        return ""


class Catalog:
    """All plugins that are installed, by kind and name.

    Parameters
    ----------
    points : iterable of EntryPoint, optional
        The environment's by default.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        groups = {f"poolwright.{plural}": kind for kind, plural in KINDS.items()}
        if points is None:
            points = [point for group in groups for point in entry_points(group=group)]
        for point in points:
            if point.group in groups:
                self._add(groups[point.group], point)

    def _add(self, kind: str, point: EntryPoint) -> None:
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else ""
        rival = self._entries[kind].get(point.name)
        if rival is not None and (rival.distribution, rival.target) != (distribution, point.value):
            entry = Entry(
                kind, point.name, rival.target, rival.distribution, rival.version, (*rival.rivals, distribution)
            )
        else:
            entry = Entry(kind, point.name, point.value, distribution, version)
        self._entries[kind][point.name] = entry

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Return the entries of one kind, or all, by kind and name."""
        kinds = KINDS if kind is None else (kind,)
        return [self._entries[k][name] for k in kinds for name in sorted(self._entries[k])]

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind."""
        return sorted(self._entries[kind])

    def entry(self, kind: str, name: str) -> Entry:
        """Return the entry called ``name``.

        Raises
        ------
        UnknownNameError
            There is none; the message has the close matches.
        """
        try:
            return self._entries[kind][name]
        except KeyError:
            elsewhere = [TITLES[other] for other in KINDS if name in self._entries[other]]
            hint = f"it is the name of a {elsewhere[0]}" if elsewhere else close_matches(name, self.names(kind))
            raise UnknownNameError(
                f"unknown {TITLES[kind]} {name!r}: {hint} (`poolwright plugins` lists what is installed)"
            ) from None

    def build(self, kind: str, plugin: str | Callable[..., Any], params: Mapping[str, Any]) -> tuple[Any, str]:
        """Make an instance and return it with the name of its distribution.

        Parameters
        ----------
        plugin : str or callable
            An installed name, or a class or factory of the caller's own.
        params : dict
            Keyword parameters of the constructor.

        Raises
        ------
        UnknownNameError, PluginError, ConfigError
            No such name; a broken plugin; parameters it does not take.
        """
        if isinstance(plugin, str):
            entry = self.entry(kind, plugin)
            factory, name, distribution = entry.load(), plugin, entry.distribution
        else:
            factory, name, distribution = plugin, plugin_name(plugin), "this program"
        check_parameters(kind, name, factory, params)
        try:
            instance = factory(**params)
        except Exception as error:
            raise PluginError(
                f"{TITLES[kind]} {name!r} of distribution {distribution!r} cannot be made "
                f"with {dict(params) or 'its defaults'}: {one_line(error)}"
            ) from error
        if inspect.isclass(instance):
            raise PluginError(
                f"{TITLES[kind]} {name!r} of distribution {distribution!r} gave the class {instance.__name__} "
                f"uninstantiated: register the class itself, or a factory that returns an instance"
            )
        return instance, distribution

    def learner(self, plugin: str | Callable[..., Any], params: Mapping[str, Any], *, device: str) -> Callable[[], Any]:
        """Return a function that makes the learner; ``device`` is given to those that take one.

        Raises
        ------
        UnknownNameError, PluginError, ConfigError
            As :meth:`build` does, when it is called.
        """

        def make() -> Any:
            taken = parameters(self.entry("learner", plugin).load() if isinstance(plugin, str) else plugin)
            given = {"device": device} if taken is not None and "device" in taken else {}
            return self.build("learner", plugin, given | dict(params))[0]

        return make


def plugin_name(plugin: str | Callable[..., Any]) -> str:
    """Return the name a plugin goes by: its own, or ``my-class`` for a class ``MyClass`` given directly."""
    if isinstance(plugin, str):
        return plugin
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", name).lower()


def parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the keyword parameters that ``factory`` takes, or None when it takes any."""
    found = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in found if parameter.kind in keyword}


def check_parameters(kind: str, name: str, factory: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Refuse parameters that ``factory`` does not take, and missing ones that it needs."""
    taken = parameters(factory)
    if taken is None:
        return
    for key in params:
        if key not in taken:
            raise ConfigError(f"{TITLES[kind]} {name!r} has no parameter {key!r}: {close_matches(key, taken)}")
    missing = [key for key, parameter in taken.items() if parameter.default is parameter.empty and key not in params]
    if missing:
        raise ConfigError(f"{TITLES[kind]} {name!r} needs the parameter {missing[0]!r}: give {missing[0]} = ...")


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
