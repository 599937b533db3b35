"""The contract: the four hooks that a strategy may implement.

A strategy is a plain class with methods for some of the four, each marked with :data:`hookimpl`. Its constructor
stores keyword parameters and does nothing else. It declares what it reads in ``needs`` and, where it is not
universal, for which ``tasks`` it works::

    from poolwright import hookimpl

    class LeastConfident:
        \"\"\"Score by 1 - max p (Lewis and Gale 1994).\"\"\"

        needs = {"probabilities"}

        @hookimpl
        def score(self, cycle):
            return 1 - cycle.probabilities().amax(1)

A method may leave out the arguments that it does not use, but may not give one a default, nor be known by another
name (``specname``). It relies on its arguments, on the cycle, and on state that its own ``update`` left: hooks of
different plugins are composed freely, so no hook may count on the same plugin's other hooks having run.

One cycle, in the order in which the hooks are called::

    fit the learner on the labeled samples -> evaluate it on validation data
      -> reward   what the last batch was worth          (not in the first cycle)
      -> update   learn from it                          (every plugin of the run hears it)
      -> score    how much each unlabeled sample is wanted
      -> select   the batch                              -> its ids are asked

After the last batch the learner is fitted and evaluated once more, then ``reward`` and ``update`` are called with
``cycle.final`` set. ``score``, ``select`` and ``reward`` have exactly one owner in a run; ``update`` is heard by all.
Results are checked by the engine: a wrong shape, dtype, id or NaN is an error that names the plugin.

A strategy whose policy takes long to train may also have ``train_policy``, see :mod:`poolwright.policies`.

Needs
-----
``probabilities``, ``embeddings``, ``logits``
    what :meth:`Cycle.probabilities`, :meth:`Cycle.embeddings` and :meth:`Cycle.rows` give; computed in one pass.
``inputs``, ``features``, ``labels``, ``validation``, ``learner``
    :meth:`Cycle.inputs`, ``rows("features")``, :meth:`Cycle.labels`, :attr:`Cycle.validation`, :attr:`Cycle.learner`.
``head``, ``dropout``, ``members``, ``loss``
    abilities of the learner, see :mod:`poolwright.learner`.
``truth``
    :meth:`Cycle.truth`, hidden labels for the papers' upper bounds; must be allowed by ``allow_truth = true``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from .cycle import Cycle

PROJECT = "poolwright"
HOOKS = ("score", "select", "reward", "update")
EXCLUSIVE = ("score", "select", "reward")
"""Hooks with exactly one owner in a run."""

LEARNER_NEEDS = frozenset({"probabilities", "embeddings", "logits", "head", "dropout", "members", "loss"})
"""Needs that the learner must provide."""
NEEDS = LEARNER_NEEDS | {"inputs", "features", "labels", "validation", "learner", "truth"}
"""Every name that ``needs`` may hold."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def score(cycle: Cycle) -> Tensor:  # type: ignore[empty-body]
    """Say how much the label of each unlabeled sample is wanted.

    Called once a cycle, after ``update``; not called at all when the owner of ``select`` takes no ``scores``.

    Parameters
    ----------
    cycle : Cycle
        This plugin's view of the cycle.

    Returns
    -------
    Tensor
        Floating point, shape ``(n_unlabeled,)``, in the order of ``cycle.pool.unlabeled``; higher = sooner. Infinite
        values are legal, NaN is an error.

    Examples
    --------
    Shannon entropy (Shannon 1948)::

        @hookimpl
        def score(self, cycle):
            p = cycle.probabilities()
            return torch.special.entr(p).sum(1)
    """


@hookspec(firstresult=True)
def select(cycle: Cycle, scores: Tensor, budget: int) -> Tensor:  # type: ignore[empty-body]
    """Choose the batch to label.

    Leave ``scores`` out of the signature if you do not use it: then nothing is computed for it. The default, used
    when no plugin owns the hook, takes the ``budget`` highest scores, ties to the lowest id.

    Parameters
    ----------
    cycle : Cycle
        This plugin's view of the cycle.
    scores : Tensor
        float32 or float64, shape ``(n_unlabeled,)``: what ``score`` returned, on the CPU.
    budget : int
        The most that may be selected now: the batch size, or the labels left to buy if fewer.

    Returns
    -------
    Tensor
        int64, shape ``(at most budget,)``: unique ids out of ``cycle.pool.unlabeled``. Empty ends the run.

    Examples
    --------
    A random batch::

        @hookimpl
        def select(self, cycle, budget):
            ids = cycle.pool.unlabeled
            return ids[torch.randperm(len(ids), generator=cycle.generator)[:budget]]
    """


@hookspec(firstresult=True)
def reward(cycle: Cycle, batch: Tensor) -> float:  # type: ignore[empty-body]
    """Say what the batch that was labeled last was worth.

    Called once the learner has been fitted with it; not called before there is one. The default, used when no plugin
    owns the hook, is the change of the task's headline metric on validation data since the last batch that was kept
    (None without validation data).

    Parameters
    ----------
    cycle : Cycle
        This plugin's view of the cycle.
    batch : Tensor
        int64, shape ``(n,)``, ascending: ids that came into the labeled set since the last fit.

    Returns
    -------
    float
        A finite number; larger is better.

    Examples
    --------
    Accuracy gained per label::

        @hookimpl
        def reward(self, cycle, batch):
            before, now = cycle.history[-1].validation, cycle.metrics
            return (now["accuracy"] - before["accuracy"]) / len(batch)
    """


@hookspec
def update(cycle: Cycle, reward: float | None) -> None:
    """Learn from the reward; prepare what ``score`` and ``select`` will use.

    Every plugin of the run that has this hook hears it, in the order in which the configuration names them. It is
    the only hook that may change the plugin's state, and the only one in which ``cycle.pool.release(ids)`` is allowed
    (``charged=False`` refunds them, and may make a final cycle one that is not).

    Parameters
    ----------
    cycle : Cycle
        This plugin's view of the cycle; ``cycle.final`` when no batch follows because the budget or the pool is spent.
    reward : float or None
        What ``reward`` returned; None in the first cycle, and where there is none.

    Examples
    --------
    Remember how it went::

        @hookimpl
        def update(self, cycle, reward):
            if reward is not None:
                self.mean += (reward - self.mean) / cycle.index
    """
