"""The rules that every plugin of a run keeps, each with an error that names plugin and distribution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import hookspecs
from .errors import ConfigError, PluginError, close_matches
from .hookspecs import HOOKS, LEARNER_NEEDS, NEEDS, PROJECT
from .state import CycleState

_MARK = PROJECT + "_impl"


@dataclass
class Member:
    """One plugin instance of a run."""

    name: str
    kind: str
    distribution: str
    instance: Any
    needs: frozenset[str]

    @property
    def who(self) -> str:
        """Plugin and distribution, for messages."""
        return f"plugin {self.name!r} of distribution {self.distribution!r}"


def check_plugin(member: Member) -> None:
    """Refuse an instance whose methods break the hook contract.

    Raises
    ------
    PluginError
        A default argument, an unknown hook or argument, ``specname``, ``optionalhook``, a method named like a hook
        without ``@hookimpl``, a wrapper among strategies or the other way round, no hook at all.
    """
    who, instance = member.who, member.instance
    for name in dir(type(instance)):
        static = inspect.getattr_static(type(instance), name, None)
        function = getattr(static, "__func__", static)
        marks = getattr(function, _MARK, None) if callable(function) else None
        if name in HOOKS and marks is None:
            raise PluginError(
                f"{who}: its method {name} has no @hookimpl, so it would never be called; add the decorator"
            )
        if marks is not None:
            _check_method(member, name, function, marks)
    if not hooks_of(member):
        raise PluginError(f"{who} ({type(instance).__name__}) has none of the hooks {', '.join(HOOKS)}")


def _check_method(member: Member, name: str, function: Callable[..., Any], marks: Mapping[str, Any]) -> None:
    who = member.who
    if marks.get("specname"):
        raise PluginError(
            f"{who}: {name} uses specname={marks['specname']!r}; call the method {marks['specname']} instead"
        )
    for order in ("tryfirst", "trylast"):
        if marks.get(order):
            raise PluginError(f"{who}: {name} uses {order}; the configuration says who is called when, drop the option")
    if marks.get("optionalhook"):
        raise PluginError(f"{who}: {name} uses optionalhook; the hooks are {', '.join(HOOKS)}, drop the option")
    if name not in HOOKS:
        raise PluginError(f"{who}: {name} is no hook: {close_matches(name, HOOKS)}")
    if marks.get("hookwrapper"):
        raise PluginError(f"{who}: {name} is an old-style hookwrapper; write @hookimpl(wrapper=True)")
    if member.kind == "strategy" and marks.get("wrapper"):
        raise PluginError(f"{who}: {name} is a wrapper; wrappers belong to the entry-point group poolwright.wrappers")
    if member.kind == "wrapper" and not marks.get("wrapper"):
        raise PluginError(f"{who}: {name} of a wrapper must be marked @hookimpl(wrapper=True)")
    allowed = list(inspect.signature(getattr(hookspecs, name)).parameters)
    taken = list(inspect.signature(function).parameters.values())
    if not isinstance(inspect.getattr_static(type(member.instance), name), staticmethod):
        taken = taken[1:]
    for parameter in taken:
        if parameter.default is not parameter.empty:
            raise PluginError(
                f"{who}: {name} gives its argument {parameter.name!r} a default, "
                f"which would hide the hook's value; drop it"
            )
        if parameter.name not in allowed:
            raise PluginError(
                f"{who}: {name} takes an argument {parameter.name!r}, but the hook gives {', '.join(allowed)}"
            )


def hooks_of(member: Member) -> set[str]:
    """Return the hooks that a plugin implements."""
    return {name for name in HOOKS if hasattr(getattr(type(member.instance), name, None), _MARK)}


def declared_needs(member: Member) -> frozenset[str]:
    """Return what a plugin declares to read; unknown names are errors."""
    needs = getattr(member.instance, "needs", ())
    if isinstance(needs, str) or not isinstance(needs, Collection):
        raise PluginError(f"{member.who}: needs must be a set of names such as {{'probabilities'}}, not {needs!r}")
    for need in needs:
        if need not in NEEDS:
            raise PluginError(f"{member.who} declares an unknown need {need!r}: {close_matches(str(need), NEEDS)}")
    return frozenset(needs)


def check_task(member: Member, task: str) -> None:
    """Refuse a plugin that works for other tasks than this one."""
    tasks = getattr(member.instance, "tasks", None)
    if tasks is not None and task not in tasks:
        raise ConfigError(f"{member.who} works for {', '.join(sorted(tasks))}, not for this data set's task {task!r}")


def check_provided(member: Member, provides: Collection[str] | None) -> None:
    """``provides`` is None where it is not known what will be given (a session without a learner checks itself)."""
    missing = sorted((member.needs & LEARNER_NEEDS) - set(provides)) if provides is not None else []
    if missing:
        has = ", ".join(sorted(provides or ())) or "nothing"
        raise ConfigError(f"{member.who} needs {missing[0]!r}, which the learner does not provide (it provides: {has})")


def checked_scores(who: str, scores: Any, n: int, index: int) -> Tensor:
    """Return scores as a CPU tensor, or raise PluginError saying what is wrong with them."""
    if not isinstance(scores, Tensor):
        what = "None" if scores is None else type(scores).__name__
        raise PluginError(f"{who} returned {what} from score: return a float tensor of shape ({n},)")
    if scores.shape != (n,) or not scores.is_floating_point():
        raise PluginError(
            f"{who} returned {scores.dtype} {tuple(scores.shape)} from score in cycle {index}: "
            f"there are {n} unlabeled samples, so a float tensor of shape ({n},) is needed"
        )
    values: Tensor = scores.detach().cpu()
    nan = torch.isnan(values)
    if nan.any():
        first = int(nan.nonzero()[0])
        raise PluginError(
            f"{who} returned {int(nan.sum())} NaN of {n} scores in cycle {index}, the first at position {first}"
        )
    return values.double() if values.dtype == torch.float64 else values.float()


def checked_ids(who: str, ids: Any, state: CycleState, budget: int) -> Tensor:
    """Return selected ids as a CPU tensor, or raise PluginError saying what is wrong with them."""
    index = state.index
    if not isinstance(ids, Tensor):
        what = "None" if ids is None else type(ids).__name__
        raise PluginError(
            f"{who} returned {what} from select: return an int64 tensor of ids (an empty one ends the run)"
        )
    if ids.dtype != torch.int64 or ids.ndim != 1:
        raise PluginError(f"{who} returned {ids.dtype} {tuple(ids.shape)} from select: return int64 ids of shape (n,)")
    chosen: Tensor = ids.detach().cpu()
    if len(chosen) > budget:
        raise PluginError(f"{who} selected {len(chosen)} ids in cycle {index}, but the budget is {budget}")
    values, counts = chosen.unique(return_counts=True)
    if len(values) < len(chosen):
        raise PluginError(f"{who} selected id {int(values[counts > 1][0])} more than once in cycle {index}")
    foreign = ~state.selectable(chosen)
    if foreign.any():
        raise PluginError(
            f"{who} selected {int(foreign.sum())} ids in cycle {index} that are not unlabeled, "
            f"the first is {int(chosen[foreign][0])}: choose from cycle.pool.unlabeled"
        )
    return chosen
