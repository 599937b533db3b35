"""Rules, what is examined by them, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from .. import streams
from ..catalog import Catalog, one_line, plugin_name
from ..errors import PoolwrightError


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes
    ----------
    rule : str
        The rule, as a statement about the plugin.
    passed : bool or None
        None where the rule could not be applied.
    reason : str
        Why it is broken, or why it could not be applied; empty when it is kept.
    """

    rule: str
    passed: bool | None
    reason: str = ""

    @property
    def failed(self) -> bool:
        """The rule is broken."""
        return self.passed is False

    @property
    def outcome(self) -> str:
        """``"pass"``, ``"FAIL"`` or ``"skip"``."""
        return "skip" if self.passed is None else "pass" if self.passed else "FAIL"

    def __str__(self) -> str:
        return f"{self.outcome}  {self.rule}" + (f": {self.reason}" if self.reason else "")


class Broken(Exception):
    """A rule is broken; the message says how."""


class Inapplicable(Exception):
    """A rule says nothing about this plugin; the message says why."""


class Subject:
    """The plugin that is examined.

    Attributes
    ----------
    kind, name, distribution : str
    plugin : str or callable
        As it was given.
    factory : callable
        The class or factory; known once the first rule has imported it.
    """

    def __init__(
        self, kind: str, plugin: str | Callable[..., Any], params: Mapping[str, Any], catalog: Catalog
    ) -> None:
        self.kind = kind
        self.plugin = plugin
        self.params = dict(params)
        self.catalog = catalog
        self.name = plugin_name(plugin)
        self.distribution = catalog.entry(kind, plugin).distribution if isinstance(plugin, str) else "this program"
        self.factory: Callable[..., Any] | None = None if isinstance(plugin, str) else plugin

    def load(self) -> Callable[..., Any]:
        """Return the class or factory."""
        if self.factory is None:
            self.factory = self.catalog.entry(self.kind, self.name).load()
        assert self.factory is not None
        return self.factory

    @cached_property
    def sample(self) -> Any:
        """An instance whose declarations are read; no hook of it is ever called."""
        return self.make()

    def make(self) -> Any:
        """Return a fresh instance; a constructor that draws random numbers draws the same ones each time."""
        with streams.seeded("conformance", "constructor"):
            return self.catalog.build(self.kind, self.plugin, self.params)[0]

    def brief(self, error: BaseException) -> str:
        """Return an error as one line without the name of the plugin, which the reader knows."""
        text = " ".join(str(error).split()) if isinstance(error, (Broken, PoolwrightError)) else one_line(error)
        who = f"plugin {self.name!r} of distribution {self.distribution!r}"
        return text.removeprefix(who).lstrip(" :") if text.startswith(who) else text


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes
    ----------
    title : str
        A statement about the plugin.
    check : callable
        Takes a Subject; raises :class:`Broken`, :class:`Inapplicable`, or whatever the plugin raises.
    after : tuple of str
        Titles of rules without which this one cannot be judged.
    """

    title: str
    check: Callable[[Subject], None]
    after: tuple[str, ...] = ()


def examine(rules: Iterable[Rule], subject: Subject) -> list[Finding]:
    """Apply all rules, each by itself; the caller's global random streams stay as they are."""
    findings: list[Finding] = []
    broken: dict[str, str] = {}
    for rule in rules:
        cause = next((broken[title] for title in rule.after if title in broken), None)
        if cause is None:
            finding = _apply(rule, subject)
        else:
            finding = Finding(rule.title, None, f"cannot be judged while this is broken: {cause}")
        if finding.failed:
            broken[rule.title] = rule.title
        elif cause is not None:
            broken[rule.title] = cause
        findings.append(finding)
    return findings


def _apply(rule: Rule, subject: Subject) -> Finding:
    try:
        with streams.seeded("conformance", rule.title), _one_thread():
            rule.check(subject)
    except Inapplicable as reason:
        return Finding(rule.title, None, str(reason))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may raise anything
        return Finding(rule.title, False, subject.brief(error))
    return Finding(rule.title, True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the tensors are small, and threads that wait for each other on a busy machine are slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
