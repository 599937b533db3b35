"""Roles and who plays them: strategy instances in one pluggy manager a run.

A run names a strategy, or one plugin a hook. ``name`` fills every role it implements, and a role named beside it
overrides. score, select and reward have exactly one owner; update is heard by all.

Without ``name``, an unnamed reward belongs to the owner of select if it has one. Roles that nobody owns get defaults:
top-k for select, the change of the headline metric on validation data for reward. A select that takes no scores has
none computed.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import torch
from torch import Tensor

from . import hookspecs, streams
from .catalog import Catalog, one_line, plugin_name
from .contract import (
    Member,
    check_plugin,
    check_provided,
    check_task,
    checked_ids,
    checked_scores,
    declared_needs,
    hooks_of,
)
from .cycle import Cycle
from .errors import ConfigError, PluginError, PoolwrightError
from .hookspecs import EXCLUSIVE, PROJECT, hookimpl
from .state import CycleState


@dataclass(frozen=True)
class Part:
    """A plugin and its parameters.

    Attributes
    ----------
    plugin : str or callable
        An installed name, or a class or factory of the caller's own.
    params : dict
        Keyword parameters of its constructor.
    """

    plugin: str | Callable[..., Any]
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name it goes by."""
        return plugin_name(self.plugin)

    @property
    def key(self) -> str:
        """Equal for parts that share one instance."""
        plugin = self.plugin if isinstance(self.plugin, str) else id(self.plugin)
        return repr((plugin, sorted((key, _identity(value)) for key, value in self.params.items())))


@dataclass(frozen=True)
class Roles:
    """What a run names: ``name`` for all roles, others for one each; see the module's docstring."""

    name: Part | None = None
    score: Part | None = None
    select: Part | None = None
    reward: Part | None = None
    update: tuple[Part, ...] = ()
    wrappers: tuple[Part, ...] = ()


def _identity(value: Any) -> str:
    """Tell plain values apart by what they are, all others by which object they are."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_identity(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_identity(item)}' for key, item in value.items())}}}"
    return repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"#{id(value)}"


class TopK:
    """The default ``select``: the highest scores, ties to the lowest id."""

    @hookimpl
    def select(self, cycle: Cycle, scores: Tensor, budget: int) -> Tensor:
        """Return the ids of the ``budget`` highest scores."""
        return cycle.pool.unlabeled[top_k(scores, budget)]


class MetricGain:
    """The default ``reward``: change of the headline metric on validation data since the last kept batch."""

    @hookimpl
    def reward(self, cycle: Cycle) -> float | None:
        """Return the gain, or None without validation data."""
        if not cycle.metrics or not cycle.baseline:
            return None
        return cycle.metrics[cycle.task.headline] - cycle.baseline[cycle.task.headline]


def top_k(scores: Tensor, k: int) -> Tensor:
    """Return the positions of the k highest scores, highest first, ties to the lowest position."""
    k = min(k, len(scores))
    if k == 0:
        return torch.empty(0, dtype=torch.int64)
    threshold = torch.topk(scores, k).values[-1]
    above = (scores > threshold).nonzero().squeeze(1)
    ties = (scores == threshold).nonzero().squeeze(1)[: k - len(above)]
    chosen = torch.cat([above, ties]).sort().values
    return chosen[torch.sort(scores[chosen], descending=True, stable=True).indices]


class _Bound:
    """One plugin as pluggy sees it: its hook methods for this run, each given its own view of the cycle."""


class Composition:
    """The plugins of one run, registered and checked.

    Attributes
    ----------
    owners : dict of str to str
        For score, select and reward the name of the owner; score is missing when nothing is computed for it.
    needs : frozenset of str
        What all plugins together read.
    members : list of Member
        The strategies and wrappers.
    """

    def __init__(self, roles: Roles, catalog: Catalog, *, task: str, provides: Collection[str] | None) -> None:
        self.members: list[Member] = []
        self.owners: dict[str, str] = {}
        self._catalog = catalog
        self._by_key: dict[str, Member] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._owner: dict[str, Member | None] = {}
        self._resolve(roles)
        for member in self.members:
            check_task(member, task)
            check_provided(member, provides)
        self._register()
        self.needs = frozenset(need for member in self.members for need in member.needs)

    # -- making --------------------------------------------------------------------------------------------------

    def _resolve(self, roles: Roles) -> None:
        """Make the instances and find the owner of every role."""
        named = {role: getattr(roles, role) for role in EXCLUSIVE}
        main = self._member("strategy", roles.name) if roles.name else None
        owner: dict[str, Member | None] = {}
        for role in EXCLUSIVE:
            part = named[role]
            owner[role] = self._member("strategy", part) if part else None
            chosen = owner[role]
            if chosen is not None and role not in hooks_of(chosen):
                has = ", ".join(sorted(hooks_of(chosen))) or "none"
                raise ConfigError(f"{role} = {chosen.name!r}, but {chosen.who} has no {role} hook (it has: {has})")
            if chosen is None and main is not None and role in hooks_of(main):
                owner[role] = main
        select = owner["select"]
        if owner["reward"] is None and main is None and select is not None and "reward" in hooks_of(select):
            owner["reward"] = select
        listeners = [self._member("strategy", part) for part in roles.update]
        for listener in listeners:
            if "update" not in hooks_of(listener):
                raise ConfigError(f"update names {listener.name!r}, but {listener.who} has no update hook")
        if not self.members:
            raise ConfigError("a run needs a strategy: give name, or score or select")
        if select is not None and "scores" not in inspect.signature(select.instance.select).parameters:
            if named["score"] is not None:
                raise ConfigError(
                    f"score = {named['score'].name!r} has no use: select of {select.who} takes no scores; leave one out"
                )
            owner["score"] = None
        elif owner["score"] is None:
            asker = f"select of {select.who}" if select else "the default select (top-k)"
            raise ConfigError(
                f"nobody gives scores, which {asker} needs: name a score plugin, such as score = 'entropy'"
            )
        self._owner = owner
        for part in roles.wrappers:
            self._member("wrapper", part)

    def _member(self, kind: str, part: Part) -> Member:
        """Return the instance of ``part``, made once for equal parts."""
        key = f"{kind} {part.key}"
        if key in self._by_key:
            return self._by_key[key]
        instance, distribution = self._catalog.build(kind, part.plugin, part.params)
        same = sum(member.name.split("#")[0] == part.name for member in self.members)
        name = part.name if not same else f"{part.name}#{same + 1}"
        member = Member(name, kind, distribution, instance, frozenset())
        check_plugin(member)
        member.needs = declared_needs(member)
        self._by_key[key] = member
        self.members.append(member)
        return member

    def _register(self) -> None:
        """Register in reverse, since pluggy calls the last registered first."""
        if self._owner["select"] is None:
            self._owner["select"] = Member("default top-k", "strategy", "poolwright", TopK(), frozenset())
        if self._owner["reward"] is None:
            self._owner["reward"] = Member("default metric-gain", "strategy", "poolwright", MetricGain(), frozenset())
        owners = {role: member for role, member in self._owner.items() if member is not None}
        self.owners = {role: member.name for role, member in owners.items()}
        wrappers = [member for member in self.members if member.kind == "wrapper"]
        strategies = [member for member in self.members if member.kind == "strategy"]
        defaults = [member for member in owners.values() if member not in self.members]
        for member in reversed([*wrappers, *strategies, *defaults]):
            hooks = hooks_of(member)
            if member.kind == "strategy":
                hooks = {hook for hook in hooks if hook == "update" or self._owner[hook] is member}
            bound = _Bound()
            for hook in hooks:
                setattr(bound, hook, _bind(member, hook))
            try:
                self._manager.register(bound, name=member.name)
            except pluggy.PluginValidationError as error:
                raise PluginError(f"{member.who} breaks the hook contract: {one_line(error)}") from error
        self._manager.check_pending()

    # -- calling -------------------------------------------------------------------------------------------------

    def reward(self, state: CycleState) -> float | None:
        """Call the reward hook and check what it gives."""
        with _timed(state, "reward"):
            value = self._manager.hook.reward(cycle=state, batch=state.batch.clone())
        member = self._owner["reward"]
        assert member is not None
        if value is None:
            if isinstance(member.instance, MetricGain):
                return None
            raise PluginError(f"{member.who} returned None from reward: return a number (cycle {state.index})")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise PluginError(f"{member.who} returned {type(value).__name__} from reward: return a number") from None
        if number != number or number in (float("inf"), float("-inf")):
            raise PluginError(f"{member.who} returned {number} from reward in cycle {state.index}: it must be finite")
        return number

    def update(self, state: CycleState, reward: float | None) -> None:
        """Call the update hook of every plugin that has one."""
        with _timed(state, "update"):
            self._manager.hook.update(cycle=state, reward=reward)

    def score(self, state: CycleState) -> Tensor | None:
        """Call the score hook and check its result; None when the owner of select takes no scores."""
        member = self._owner["score"]
        if member is None:
            return None
        with _timed(state, "score"):
            scores = self._manager.hook.score(cycle=state)
        return checked_scores(member.who, scores, len(state.unlabeled), state.index)

    def select(self, state: CycleState, scores: Tensor | None, budget: int) -> Tensor:
        """Call the select hook and check its result."""
        member = self._owner["select"]
        assert member is not None
        with _timed(state, "select"):
            ids = self._manager.hook.select(cycle=state, scores=scores, budget=budget)
        return checked_ids(member.who, ids, state, budget)

    # -- keeping -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the plugins that have one, by name."""
        states = {}
        for member in self.members:
            if hasattr(member.instance, "state_dict"):
                with named(member, "state_dict"):
                    states[member.name] = member.instance.state_dict()
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give every plugin its state back."""
        for member in self.members:
            if member.name in state:
                with named(member, "load_state_dict"):
                    member.instance.load_state_dict(state[member.name])


@contextmanager
def _timed(state: CycleState, role: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        state.seconds[role] = state.seconds.get(role, 0.0) + time.perf_counter() - began


@contextmanager
def named(member: Member, what: str) -> Iterator[None]:
    """Name the plugin, and the line of its own code, in whatever it raises."""
    try:
        yield
    except PoolwrightError:
        raise
    except Exception as error:
        home = getattr(sys.modules.get(type(member.instance).__module__), "__file__", None) or ""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if home and f.filename == home]
        where = f" ({Path(home).name}:{lines[-1]})" if lines else ""
        raise PluginError(f"{member.who} failed in {what}: {one_line(error)}{where}") from error


@contextmanager
def _inside(member: Member, role: str, view: Cycle, state: CycleState, step: int = 0) -> Iterator[None]:
    """Seed the global streams for one hook, note where the streams stand after it, and name the plugin in errors."""
    with streams.seeded(state.seed, "hook", member.name, role, state.index, step):
        with named(member, f"{role} (cycle {state.index})"):
            yield
        if changed := state.changed_output():
            raise PluginError(f"{member.who} changed {changed} in place in {role}: others see them too, work on a copy")
        state.streams[f"{member.name}.{role}"] = streams.digest(view.generator)


def _bind(member: Member, hook: str) -> Callable[..., Any]:
    """Return the plugin's method as pluggy calls it: it takes all of the hook's arguments, and the plugin gets those
    that it declares, with its own view of the cycle."""
    spec = getattr(hookspecs, hook)
    method = getattr(member.instance, hook)
    given = list(inspect.signature(spec).parameters)
    taken = list(inspect.signature(method).parameters)

    def prepared(args: tuple[Any, ...]) -> tuple[CycleState, Cycle, dict[str, Any]]:
        values = dict(zip(given, args, strict=True))
        state: CycleState = values["cycle"]
        view = values["cycle"] = Cycle(state, member.name, hook, member.needs)
        return state, view, {name: values[name] for name in taken}

    def call(*args: Any) -> Any:
        state, view, arguments = prepared(args)
        with _inside(member, hook, view, state):
            return method(**arguments)

    def wrap(*args: Any) -> Generator[None, Any, Any]:
        state, view, arguments = prepared(args)
        inner = method(**arguments)

        def step(number: int, advance: Callable[[], Any]) -> tuple[bool, Any]:
            with _inside(member, hook, view, state, number):
                try:
                    return False, advance()
                except StopIteration as stop:
                    return True, stop.value

        if step(0, lambda: next(inner))[0]:
            raise PluginError(f"{member.who}: its {hook} wrapper ended without a yield")
        advance: Callable[[], Any]
        try:
            outcome = yield
            advance = functools.partial(inner.send, outcome)
        except Exception as error:  # noqa: BLE001 - handed on to the wrapper, which may handle or raise it
            advance = functools.partial(inner.throw, error)
        ended, value = step(1, advance)
        if not ended:
            inner.close()
            raise PluginError(f"{member.who}: its {hook} wrapper has more than one yield")
        return value

    function = call if member.kind == "strategy" else wrap
    return hookimpl(wrapper=member.kind == "wrapper")(functools.wraps(spec)(function))
