"""Oracles: who answers for labels when no human does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from . import streams
from .dataset import Split
from .errors import ConfigError


class Oracle(Protocol):
    """Anything that can be asked for labels."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the labels of ``ids`` (int64), one each."""
        ...


class DatasetOracle:
    """Answers with the data set's own labels."""

    def __init__(self, pool: Split) -> None:
        self._pool = pool

    def __call__(self, ids: Tensor) -> Tensor:
        return self._pool.labels(ids)


class NoisyOracle:
    """Answers wrongly for a share of the samples (VAAL's noisy-oracle study).

    Whether and how a sample is mislabeled depends on the seed and its id alone: asked again, it is as wrong as before.

    Parameters
    ----------
    pool : Split
        With one class a sample.
    n_classes : int
    rate : float
        Share of samples, 0 to 1, whose label is replaced by another class.
    superclass : sequence of int, optional
        For each class the number of its superclass: wrong labels then come from the same superclass (a class that is
        alone in its superclass is never mislabeled). From all other classes without it.
    seed : int
    """

    def __init__(
        self,
        pool: Split,
        n_classes: int,
        *,
        rate: float,
        superclass: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ConfigError(f"oracle.rate is a share between 0 and 1, not {rate}")
        if superclass is not None and len(superclass) != n_classes:
            raise ConfigError(f"oracle.superclass names {len(superclass)} classes, the data set has {n_classes}")
        self._pool = pool
        groups = [0] * n_classes if superclass is None else list(superclass)
        self._others = [
            torch.tensor([c for c in range(n_classes) if c != label and groups[c] == groups[label]], dtype=torch.int64)
            for label in range(n_classes)
        ]
        stream = streams.generator(seed, "oracle")
        self._wrong = torch.rand(len(pool), generator=stream) < rate
        self._draw = torch.rand(len(pool), generator=stream, dtype=torch.float64)

    def __call__(self, ids: Tensor) -> Tensor:
        labels = self._pool.labels(ids).clone()
        if labels.ndim != 1:
            raise ConfigError("the noisy oracle needs one class a sample; this task has label arrays")
        for row in self._wrong[ids].nonzero().squeeze(1).tolist():
            others = self._others[int(labels[row])]
            if len(others):
                labels[row] = others[int(self._draw[ids[row]] * len(others))]
        return labels
