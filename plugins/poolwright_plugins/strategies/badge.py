"""BADGE: batches that are both uncertain and diverse, by k-means++ seeding on loss gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from poolwright import Cycle, Rows, hookimpl, kernels

from ._kernels import data_errors


def output_gradients(probabilities: Tensor) -> Tensor:
    """Return q = p - onehot(argmax p), float32 ``(n, classes)``.

    That is the gradient in the logits of the cross entropy with the predicted label.
    """
    q = probabilities.to(torch.float32, copy=True)
    q[torch.arange(len(q), device=q.device), probabilities.argmax(1)] -= 1
    return q


class OutputGradients:
    """What :func:`output_gradients` gives for the rows of a matrix, computed when they are read."""

    dtype = torch.float32

    def __init__(self, probabilities: Rows) -> None:
        self._probabilities = probabilities
        self.shape = probabilities.shape

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return output_gradients(self._probabilities[rows])

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, block)``."""
        for start, block in self._probabilities.blocks():
            yield start, output_gradients(block)


class Badge:
    """Batch Active learning by Diverse Gradient Embeddings.

    The gradient embedding of a sample is g = (p - onehot(argmax p)) (x) h: the gradient of the loss in the
    last layer, were the predicted label true; p are its probabilities and h its embedding. The batch is
    seeded as k-means++ would on all g: first the largest gradient, then in proportion to the squared distance
    D^2 to the nearest pick. Distances come from the factors, so g itself is never formed.

    Memory: 16 bytes a sample; probabilities and embeddings are read in blocks, or copied once
    (``n x (classes + d)`` float32) where ``memory_limit`` has room for that. Time: at most
    O(n (classes + d) budget).

    For classification: the gradient of a mask's loss is no product of one q and one h.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal, *Deep Batch Active Learning by Diverse, Uncertain
    Gradient Lower Bounds*, ICLR 2020, algorithm 1.
    """

    tasks = ("classification",)
    needs = frozenset({"probabilities", "embeddings"})

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids in the order in which they were drawn."""
        unlabeled = cycle.pool.unlabeled
        budget = min(budget, len(unlabeled))
        if budget <= 0:
            return unlabeled[:0]
        h = cycle.rows("embeddings")
        with data_errors("badge"):
            picked = kernels.kmeans_plus_plus(
                kernels.Outer(OutputGradients(cycle.rows("probabilities")), h),
                budget,
                seed=cycle.generator,
                first="largest-norm",
                memory_limit=h.memory_limit,
            ).indices
        return unlabeled[picked.cpu()]
