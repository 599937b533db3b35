"""One cycle as the engine keeps it, and the record that is left of it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Samples
from .errors import PoolError, StoreError
from .events import Listener, reported
from .learner import Learner, asked, checked_output, predict_batch_size
from .metrics import Task
from .pool import UNLABELED, Pool

if TYPE_CHECKING:
    from .session import Session

OUTPUTS = ("probabilities", "embeddings", "logits", "loss")
"""Needs that are outputs of ``predict``, computed together in one pass over the unlabeled."""


@dataclass(frozen=True)
class CycleRecord:
    """What is kept of a finished cycle.

    Attributes
    ----------
    index : int
        0 for the first fit.
    labeled, paid : int
        Samples the learner was fitted on, and samples paid for so far (released ones stay paid).
    position : int
        The journal's position at the fit: which answers were known.
    validation, test : dict
        Metrics; hooks see an empty ``test``.
    reward : float or None
        Of the batch before.
    selected : list of int
        The ids selected in this cycle, in the order of the selection.
    released : int
        How many ids ``update`` gave back.
    seconds : dict
        Time spent by phase: fit, evaluate, report, reward, update, score, select; with the predictions it asked for.
    logs : dict
        ``"plugin.role.name"`` -> values given to ``cycle.log``.
    streams : dict
        Where the random streams stood after each fit and hook.
    """

    index: int
    final: bool
    labeled: int
    paid: int
    position: int
    validation: dict[str, float]
    test: dict[str, float]
    reward: float | None = None
    selected: list[int] = field(default_factory=list)
    released: int = 0
    truth: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    logs: dict[str, list[float]] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)

    @property
    def query_seconds(self) -> float:
        """Time between the evaluation and the ids: reward, update, score and select."""
        return sum(self.seconds.get(phase, 0.0) for phase in ("reward", "update", "score", "select"))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON and checkpoints."""
        return asdict(self)


@dataclass(frozen=True)
class InitialPool:
    """How the initial pool of a seed was selected, in cycle -1.

    Attributes
    ----------
    seed : int
    selected : list of int
        The ids, in the order of the selection.
    held_out : list of str
        Names of the classes that it was not to hold.
    truth : bool
        Hidden labels were used to select it: an upper bound.
    seconds : dict
        Time spent by phase: update, score, select; with the predictions it asked for.
    logs : dict
        ``"plugin.role.name"`` -> values given to ``cycle.log``.
    """

    seed: int
    selected: list[int]
    held_out: list[str] = field(default_factory=list)
    truth: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    logs: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ids(self) -> Tensor:
        """The ids, int64."""
        return torch.tensor(self.selected, dtype=torch.int64)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass
class CycleState:
    """One cycle as the engine keeps it; plugins see it through :class:`Cycle`."""

    index: int
    final: bool
    pool: Pool
    dataset: Dataset
    task: Task
    learner: Learner | None
    seed: int
    budget: int
    batch_size: int
    device: str
    memory_limit: int
    validation: Samples | None
    history: Sequence[CycleRecord]
    metrics: Mapping[str, float]
    baseline: Mapping[str, float] | None
    listener: Listener
    needs: Collection[str] = ()
    given: Mapping[str, Tensor] = field(default_factory=dict)
    """Outputs for every sample of the pool that no learner computes (``poolwright select``)."""
    batch: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    candidates: Tensor | None = None
    released: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    simulate: Callable[[Tensor, int | Tensor, int, int, Sequence[str]], Session] | None = None
    logs: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    truth: bool = False
    _cache: dict[str, Tensor | np.memmap[Any, Any]] = field(default_factory=dict)
    _cached_ids: Tensor | None = None
    _versions: dict[str, int] = field(default_factory=dict)

    @property
    def unlabeled(self) -> Tensor:
        """The ids that score and select are about."""
        return self.pool.ids(UNLABELED) if self.candidates is None else self.candidates

    def selectable(self, ids: Tensor) -> Tensor:
        """Return which of ``ids`` may be selected, bool; without a look at the rest of the pool."""
        inside = (ids >= 0) & (ids < self.pool.n)
        inside[inside.clone()] = self.pool.state_of(ids[inside]) == UNLABELED
        return inside if self.candidates is None else inside & torch.isin(ids, self.candidates)

    def close(self) -> None:
        """Let go of the outputs, and of what was spilled to disk."""
        self._cache.clear()

    # -- outputs -------------------------------------------------------------------------------------------------

    def output(self, name: str) -> Tensor | np.memmap[Any, Any]:
        """Return an output for all of ``unlabeled``, computed with all others that the run needs, once."""
        ids = self.unlabeled
        if name in self._cache and self._cached_ids is not None and not torch.equal(self._cached_ids, ids):
            self._narrow(ids)
        if name not in self._cache:
            names = sorted({name} | (set(self.needs) & set(OUTPUTS)))
            self._cache = dict(self.compute(names, ids))
            self._cached_ids = ids
            self._note_versions()
        return self._cache[name]

    def _note_versions(self) -> None:
        self._versions = {name: x._version for name, x in self._cache.items() if isinstance(x, Tensor)}

    def changed_output(self) -> str:
        """Return the name of an output that a hook changed in place since it was computed, or an empty string."""
        for name, values in self._cache.items():
            if isinstance(values, Tensor) and values._version != self._versions[name]:
                return name
        return ""

    def _narrow(self, ids: Tensor) -> None:
        """Keep of the cache the rows of ``ids``; drop it when some are missing (released samples)."""
        assert self._cached_ids is not None
        rows = torch.searchsorted(self._cached_ids, ids).clamp(max=max(0, len(self._cached_ids) - 1))
        if len(self._cached_ids) and torch.equal(self._cached_ids[rows], ids):
            kept = {name: values for name, values in self._cache.items() if isinstance(values, Tensor)}
            self._cache = {name: values[rows.to(values.device)] for name, values in kept.items()}
            self._cached_ids = ids
            self._note_versions()
        else:
            self._cache = {}

    def compute(self, names: Sequence[str], ids: Tensor) -> dict[str, Tensor | np.memmap[Any, Any]]:
        """Return outputs for ``ids`` in one pass; those beyond the memory limit lie in a file."""
        result: dict[str, Tensor | np.memmap[Any, Any]] = {
            name: _rows(self.given[name], ids) for name in names if name in self.given
        }
        names = [name for name in names if name not in result]
        if not names:
            return result
        if self.learner is None:
            raise PoolError(f"there is no learner here to give {', '.join(names)}")
        samples = Samples(self.dataset, self.dataset.pool, ids)
        batch_size = predict_batch_size(self.learner)
        start = 0
        batches = samples.batches(batch_size, device=self.device)
        total = math.ceil(len(ids) / batch_size)
        for inputs, _ in reported(batches, "predicting the pool", self.listener, total):
            outputs = asked(self.learner, inputs)
            for name in names:
                values = checked_output(self.learner, outputs, name, len(inputs))
                if name not in result:
                    result[name] = self._allocate(name, (len(ids), *values.shape[1:]), values)
                target = result[name]
                if isinstance(target, Tensor):
                    target[start : start + len(values)] = values
                else:
                    target[start : start + len(values)] = values.cpu().numpy()
            start += len(inputs)
        return result | {name: torch.empty(0, 0) for name in names if name not in result}

    def _allocate(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor | np.memmap[Any, Any]:
        if math.prod(shape) * 4 <= self.memory_limit:
            return torch.empty(shape, dtype=torch.float32, device=like.device)
        size = math.prod(shape) * 4
        try:
            with tempfile.TemporaryFile(prefix="poolwright-") as file:  # nameless: gone with its last reader, or a kill
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a bus error later
                return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
        except OSError as error:
            raise StoreError(
                f"no room for {size / 2**30:.1f} GiB of {name} in {tempfile.gettempdir()}: {error.strerror}. "
                f"Let TMPDIR name a folder with room, set candidates, or raise memory_limit"
            ) from error


def _rows(matrix: Tensor, ids: Tensor) -> Tensor:
    """Return rows of a matrix; the matrix itself, not a copy, where all are asked for in order."""
    everything = len(ids) == len(matrix) and torch.equal(ids, torch.arange(len(matrix)))
    return matrix if everything else matrix[ids]
