"""What a hook may see: one cycle of a run, through the eyes of one plugin in one role."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from . import streams
from .dataset import Samples
from .errors import LabelLeakError, PluginError, PoolError
from .events import Event, reported
from .hookspecs import LEARNER_NEEDS
from .learner import LearnerView
from .pool import ASKED, LABELED, OUTSIDE, RESERVED, SKIPPED, UNLABELED, as_ids
from .rows import Rows
from .state import OUTPUTS, CycleRecord, CycleState

if TYPE_CHECKING:
    from .session import Session

T = TypeVar("T")


class PoolView:
    """The pool as a hook sees it: ids only, int64, ascending."""

    def __init__(self, state: CycleState, plugin: str, role: str) -> None:
        self._state = state
        self._plugin = plugin
        self._role = role

    def __len__(self) -> int:
        return self._state.pool.n

    @property
    def unlabeled(self) -> Tensor:
        """Ids to choose from: all unlabeled ones, or the candidates drawn for this cycle."""
        return self._state.unlabeled.clone()

    @property
    def all_unlabeled(self) -> Tensor:
        """All unlabeled ids, also where ``candidates`` is set."""
        return self._state.pool.ids(UNLABELED).clone()

    @property
    def labeled(self) -> Tensor:
        """Ids whose label is known and that the learner is fitted on."""
        return self._state.pool.ids(LABELED).clone()

    @property
    def asked(self) -> Tensor:
        """Ids that were asked and are not answered yet."""
        return self._state.pool.ids(ASKED).clone()

    @property
    def skipped(self) -> Tensor:
        """Ids that the oracle gave up on."""
        return self._state.pool.ids(SKIPPED).clone()

    @property
    def reserves(self) -> tuple[str, ...]:
        """Names under which ids are reserved."""
        return self._state.pool.reserves

    def reserved(self, name: str) -> Tensor:
        """Return the ids that the configuration set aside under ``[reserve] name``; their labels are known."""
        return self._state.pool.reserved(name).clone()

    @property
    def batch(self) -> Tensor:
        """Ids that came into the labeled set since the fit before this one."""
        return self._state.batch.clone()

    def release(self, ids: Tensor, *, charged: bool = True) -> None:
        """Give ids of the last batch back to the unlabeled; allowed in ``update`` only.

        They stay paid for, and selecting them again is free. With ``charged=False`` they do not count against the
        budget until they are selected again, for rules that count training samples and not labels.
        """
        if self._role != "update":
            raise PoolError(f"plugin {self._plugin!r} called pool.release in {self._role}: only update may do that")
        released = self._state.pool.release(ids, self._state.batch, charged=charged)
        self._state.released = torch.cat([self._state.released, released])


class Cycle:
    """One cycle of a run, as one plugin sees it in one role.

    Attributes
    ----------
    index : int
        Number of the cycle, from 0; -1 while the initial pool is selected.
    final : bool
        No further batch will be selected.
    pool : PoolView
        Ids by state.
    budget : int
        Labels that may still be bought.
    batch_size : int
        Labels to ask for in this cycle, as ``select`` gets them: the batch, or ``budget`` if fewer or none is set.
    device : str
        Where the learner computes, e.g. ``"cuda"``.
    seed : int
        Of the run. Draw from ``generator`` instead, which differs by plugin, role and cycle.
    history : list of CycleRecord
        The cycles before this one, without test metrics.
    metrics : dict
        Validation metrics of this cycle's learner (empty without validation data).
    baseline : dict or None
        Validation metrics when the last batch was kept; what a gain is measured against.
    task : Task
        Its ``name`` and ``headline`` metric.
    n_classes : int
        How many classes the data set has.
    """

    def __init__(self, state: CycleState, plugin: str, role: str, needs: Collection[str]) -> None:
        self._state = state
        self._plugin = plugin
        self._role = role
        self._needs = frozenset(needs)
        self._generator: torch.Generator | None = None
        self.pool = PoolView(state, plugin, role)
        self.index = state.index
        self.final = state.final
        self.budget = state.budget
        self.batch_size = state.batch_size
        self.device = state.device
        self.seed = state.seed
        self.task = state.task
        self.n_classes = len(state.dataset.classes)
        self.metrics = dict(state.metrics)
        self.baseline = None if state.baseline is None else dict(state.baseline)

    def _require(self, need: str, call: str) -> None:
        if need not in self._needs:
            declared = "{" + ", ".join(repr(name) for name in sorted(self._needs)) + "}"
            raise PluginError(
                f"plugin {self._plugin!r} used {call} in {self._role} without declaring it: "
                f"add {need!r} to its needs (now {declared})"
            )

    @property
    def history(self) -> list[CycleRecord]:
        """The finished cycles, oldest first; test metrics are blanked."""
        return [replace(copy.deepcopy(record), test={}) for record in self._state.history]

    @property
    def generator(self) -> torch.Generator:
        """This plugin's random stream (CPU), keyed by run seed, plugin, role and cycle."""
        if self._generator is None:
            self._generator = streams.generator(self._state.seed, "plugin", self._plugin, self._role, self.index)
        return self._generator

    @property
    def learner(self) -> LearnerView:
        """The fitted learner, to be read only. Needs ``learner``, or an ability such as ``head``."""
        if not self._needs & (LEARNER_NEEDS - set(OUTPUTS)):
            self._require("learner", "cycle.learner")
        if self._state.learner is None:
            raise PoolError(f"plugin {self._plugin!r} wants the learner, but this selection has none")
        return LearnerView(self._state.learner, self._plugin)

    @property
    def validation(self) -> Samples:
        """The validation data with labels. Needs ``validation``."""
        self._require("validation", "cycle.validation")
        if self._state.validation is None:
            raise PoolError(f"plugin {self._plugin!r} needs validation data: set [dataset] validation = 0.1")
        return self._state.validation.detached()

    def probabilities(self, ids: Tensor | None = None) -> Tensor:
        """Return class probabilities, float32 ``(n, classes)``; for segmentation, the mean over the pixels (SRAAL).

        Parameters
        ----------
        ids : Tensor, optional
            int64; the unlabeled by default (computed once a cycle and kept).
        """
        return self._output("probabilities", ids)

    def embeddings(self, ids: Tensor | None = None) -> Tensor:
        """Return the learner's penultimate layer, float32 ``(n, d)``; arguments as for ``probabilities``."""
        return self._output("embeddings", ids)

    def logits(self, ids: Tensor | None = None) -> Tensor:
        """Return logits, float32 ``(n, classes)``; for segmentation, the mean over the pixels.

        Arguments as for ``probabilities``. The softmax of mean logits is not the mean of the probabilities.
        """
        return self._output("logits", ids)

    def losses(self, ids: Tensor | None = None) -> Tensor:
        """Return predicted losses, float32 ``(n,)`` (learners that provide ``loss``)."""
        return self._output("loss", ids)

    def _output(self, name: str, ids: Tensor | None) -> Tensor:
        self._require(name, f"cycle.{name}()")
        if ids is None:
            values = self._state.output(name)
        else:
            values = self._state.compute([name], self._ids(ids))[name]
            if name in self._state.given and isinstance(values, Tensor):
                values = values.clone()  # it may be the caller's own matrix
        if isinstance(values, Tensor):
            return values
        raise PoolError(
            f"{name} of {len(values)} samples take {values.nbytes / 2**30:.1f} GiB, more than the memory limit of "
            f"{self._state.memory_limit / 2**30:.1f} GiB: raise memory_limit, set candidates, "
            f"or read cycle.rows({name!r})"
        )

    def rows(self, what: str, ids: Tensor | None = None) -> Rows:
        """Return a matrix that is read in blocks.

        What was given and what lies on disk is not copied. Outputs of the learner for ``ids`` other than the default
        are computed for this call, and lie in memory or, beyond the memory limit, on disk.

        Parameters
        ----------
        what : {"embeddings", "probabilities", "logits", "features"}
            ``features`` are the data set's own, which need no learner.
        ids : Tensor, optional
            int64; the unlabeled by default.
        """
        self._require(what, f"cycle.rows({what!r})")
        if what == "features":
            features = self._state.dataset.features
            if features is None:
                raise PoolError(f"plugin {self._plugin!r} needs features, but the data set has none of its own")
            return features.take(self._state.unlabeled if ids is None else self._ids(ids))
        limit = self._state.memory_limit
        if what in self._state.given:
            return Rows(
                self._state.given[what], self._state.unlabeled if ids is None else self._ids(ids), memory_limit=limit
            )
        if ids is None:
            return Rows(self._state.output(what), memory_limit=limit)
        return Rows(self._state.compute([what], self._ids(ids))[what], memory_limit=limit)

    def inputs(self, ids: Tensor | None = None, batch_size: int = 256) -> Iterator[Tensor]:
        """Yield prepared inputs of ``ids`` (the unlabeled by default) in batches. Needs ``inputs``."""
        self._require("inputs", "cycle.inputs()")
        ids = self._state.unlabeled if ids is None else self._ids(ids)
        samples = Samples(self._state.dataset, self._state.dataset.pool, ids)
        return (x for x, _ in samples.batches(batch_size, device=self.device))

    def samples(self, ids: Tensor) -> Samples:
        """Return samples without labels, for shuffled or augmented batches. Needs ``inputs``."""
        self._require("inputs", "cycle.samples()")
        return Samples(self._state.dataset, self._state.dataset.pool, self._ids(ids))

    def labels(self, ids: Tensor) -> Tensor:
        """Return the labels of labeled or reserved ``ids``, int64 ``(n,)`` or masks. Needs ``labels``.

        Raises
        ------
        LabelLeakError
            One of them is not labeled.
        """
        self._require("labels", "cycle.labels()")
        ids = self._ids(ids)
        states = self._state.pool.state_of(ids)
        hidden = (states != LABELED) & (states != RESERVED)
        if hidden.any():
            raise LabelLeakError(
                f"plugin {self._plugin!r} asked in {self._role} for the labels of {int(hidden.sum())} samples that are "
                f"not labeled, the first is id {int(ids[hidden][0])}: use cycle.pool.labeled"
            )
        return self._state.pool.labels(ids)

    def truth(self, ids: Tensor) -> Tensor:
        """Return true labels, hidden ones too: for upper bounds only. Needs ``truth``; marks the result."""
        self._require("truth", "cycle.truth()")
        if not self._state.truth:
            raise LabelLeakError(
                f"plugin {self._plugin!r} wants hidden labels: set allow_truth = true if this run is an upper bound"
            )
        return self._state.dataset.pool.labels(self._ids(ids))

    def log(self, name: str, value: float) -> None:
        """Keep a number in the cycle's record, as ``plugin.role.name``; repeated calls make a series."""
        self._state.logs.setdefault(f"{self._plugin}.{self._role}.{name}", []).append(float(value))

    def progress(self, iterable: Iterable[T], label: str) -> Iterator[T]:
        """Pass ``iterable`` on and show its progress."""
        self._state.listener(Event("progress", label))
        return reported(iterable, label, self._state.listener)

    def simulate(
        self, ids: Tensor, start: int | Tensor, budget: int, seed: int, *, reserve: Collection[str] = ()
    ) -> Session:
        """Return a session without a strategy, with a fresh learner, on labels that are already paid for.

        For training a policy: choose with ``session.ask(ids)``; its oracle knows the labels.

        Parameters
        ----------
        ids : Tensor
            int64, labeled, released or reserved samples: the pool of the episode.
        start : int or Tensor
            How many of them are labeled at the start (drawn at random), or which.
        budget : int
            Labels the episode may buy.
        seed : int
            Of the episode; combined with this plugin's own stream.
        reserve : collection of str
            Reserves of this run that the episode has too, beside its pool; none of ``ids`` is in them.
        """
        if self._state.simulate is None:
            raise PoolError(f"plugin {self._plugin!r} wants to simulate, but this selection has no learner")
        key = streams.derive_seed(self._state.seed, "simulate", self._plugin, self._role, self.index, seed)
        return self._state.simulate(self._ids(ids), start, budget, key, tuple(reserve))

    def _ids(self, ids: Tensor) -> Tensor:
        ids = as_ids(ids, f"ids given by plugin {self._plugin!r}")
        inside = (ids >= 0) & (ids < len(self.pool))
        if not inside.all() or (self._state.pool.state_of(ids) == OUTSIDE).any():
            raise PoolError(
                f"plugin {self._plugin!r} used ids in {self._role} that are not in the pool (0..{len(self.pool) - 1})"
            )
        return ids
