"""Core-set selection: cover the pool so that no sample is far from a labeled one."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, Rows, hookimpl, kernels

from ._kernels import data_errors

Metric = Literal["euclidean", "cosine"]


class CoreSet:
    """Pick, again and again, the unlabeled sample that is farthest from everything labeled or picked.

    Greedy k-center on the learner's embeddings (a 2-approximation of the smallest covering radius). Labeled
    samples, and asked ones whose answer is still open, are centers from the start. Where there is none yet,
    the first pick is drawn at random. Ties go to the lowest id.

    Memory: 17 bytes a sample; embeddings are read where they lie, or copied once (``n x d`` float32) where
    half of ``memory_limit`` has room for that; no distance matrix. Time: at most O(n d (labeled + budget)).

    Source: Sener and Savarese, *Active Learning for Convolutional Neural Networks: A Core-Set Approach*, ICLR
    2018, algorithm 1 (k-center greedy).

    Parameters
    ----------
    metric : {"euclidean", "cosine"}
        Distance between embeddings; the paper's is Euclidean.
    """

    needs = frozenset({"embeddings"})

    def __init__(self, *, metric: Metric = "euclidean") -> None:
        self.metric = metric

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids, the farthest first."""
        if self.metric not in get_args(Metric):
            raise ConfigError(f"coreset: metric is one of {', '.join(get_args(Metric))}, not {self.metric!r}")
        unlabeled = cycle.pool.unlabeled
        budget = min(budget, len(unlabeled))
        if budget == 0:
            return unlabeled[:0]
        centers = torch.cat([cycle.pool.labeled, cycle.pool.asked])
        x = cycle.rows("embeddings")
        first = None
        if len(centers):
            x = Rows.concat(cycle.rows("embeddings", centers), x)
        else:
            first = int(torch.randint(len(unlabeled), (1,), generator=cycle.generator))
        offset = len(centers)
        with data_errors("coreset"):
            picked = kernels.k_center(
                x,
                budget,
                labeled=torch.arange(offset) if offset else None,
                first=first,
                metric=self.metric,
                memory_limit=x.memory_limit,
            ).indices
        return unlabeled[torch.as_tensor(picked).cpu() - offset]
