"""Sessions and experiments in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from poolwright import DatasetOracle, Experiment, Session
from poolwright.catalog import Catalog
from poolwright.composition import Composition, Part, Roles

from .toys import Blobs, Random, Softmax, load

EMPTY = Catalog([])
"""A catalog of nothing: the tests pass classes, and depend on no plugin that is installed."""


def roles(
    name: Callable[..., Any] | Part | None = None,
    *,
    score: Callable[..., Any] | None = None,
    select: Callable[..., Any] | None = None,
    reward: Callable[..., Any] | None = None,
    update: Iterable[Callable[..., Any]] = (),
    wrappers: Iterable[Callable[..., Any]] = (),
) -> Roles:
    """Return roles played by classes."""

    def part(plugin: Any) -> Part | None:
        return plugin if plugin is None or isinstance(plugin, Part) else Part(plugin)

    return Roles(
        name=part(name),
        score=part(score),
        select=part(select),
        reward=part(reward),
        update=tuple(part(plugin) for plugin in update),
        wrappers=tuple(part(plugin) for plugin in wrappers),
    )


def compose(
    *args: Any, task: str = "classification", provides: Iterable[str] | None = None, **kwargs: Any
) -> Composition:
    """Return the composition of :func:`roles`."""
    return Composition(roles(*args, **kwargs), EMPTY, task=task, provides=None if provides is None else set(provides))


def session(strategy: Any = Random, **kwargs: Any) -> Session:
    """Return a session on blobs: 8 initial labels, a budget of 20 in batches of 5, a data set oracle."""
    dataset = kwargs.pop("dataset", None) or load(Blobs())
    if strategy is not None and not isinstance(strategy, (Roles, dict)):
        strategy = roles(strategy)
    settings: dict[str, Any] = {
        "learner": Softmax,
        "strategy": strategy,
        "budget": 20,
        "batch": 5,
        "initial": torch.arange(8),
        "oracle": DatasetOracle(dataset.pool),
        "catalog": EMPTY,
        "label": "tested",
    }
    return Session(dataset, **(settings | kwargs))


def play(run: Session) -> Session:
    """Answer until the end and return the session."""
    while run.advance() is not None:
        run.answer()
    return run


def picks(run: Session) -> list[list[int]]:
    """Return the ids selected in each cycle."""
    return [record.selected for record in run.history]


def experiment(*strategies: Any, **kwargs: Any) -> Experiment:
    """Return a small experiment on blobs with 12 validation samples."""
    settings: dict[str, Any] = {
        "dataset": {"name": Blobs, "n_validation": 12},
        "learner": Softmax,
        "strategies": list(strategies or [Random]),
        "seeds": 1,
        "budget": 20,
        "batch": 5,
        "initial": {"strategy": Random, "size": 8},
        "threads": 1,
        "device": "cpu",
    }
    return Experiment(**(settings | kwargs))
