"""BADGE: batches that are both uncertain and diverse, by k-means++ seeding on loss gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwright import Cycle, hookimpl


def output_gradients(probabilities: Tensor) -> Tensor:
    """Return q = p - onehot(argmax p).

    That is the gradient in the logits of the cross entropy with the predicted label.

    float64, shape ``(n, classes)`` like ``probabilities``.
    """
    q = probabilities.to(torch.float64, copy=True)
    q[torch.arange(len(q), device=q.device), probabilities.argmax(1)] -= 1
    return q


def gradient_norms(q: Tensor, h: Tensor) -> Tensor:
    """Return |g_i|^2 = |q_i|^2 |h_i|^2 of the gradient embeddings g_i = q_i (x) h_i, float64 ``(n,)``."""
    return q.square().sum(1) * h.square().sum(1)


def gradient_distances(q: Tensor, h: Tensor, norms: Tensor, row: int) -> Tensor:
    """Return the squared distance of every gradient embedding to that of ``row``, float64 ``(n,)``.

    |g_i - g_j|^2 = |g_i|^2 + |g_j|^2 - 2 <q_i, q_j> <h_i, h_j>: the ``n x (classes * d)`` array is never
    made.

    Parameters
    ----------
    q, h : Tensor
        float64 ``(n, classes)`` and ``(n, d)``.
    norms : Tensor
        What :func:`gradient_norms` gives for them.
    row : int
        j.
    """
    inner = (q @ q[row]) * (h @ h[row])
    return (norms + norms[row] - 2 * inner).clamp_(min=0)


def draw(weights: Tensor, generator: torch.Generator) -> int | None:
    """Return a position drawn in proportion to ``weights`` (float64, on the CPU); None when all are 0."""
    sums = weights.cumsum(0)
    total = sums[-1]
    if total <= 0:
        return None
    target = torch.rand(1, generator=generator, dtype=torch.float64) * total
    position = int(torch.searchsorted(sums, target, right=True))
    # Rounding may put the target at the total itself: the last position with weight is meant.
    return position if position < len(weights) else int(weights.nonzero()[-1])


def sample_gradients(q: Tensor, h: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return ``k`` different rows: the largest gradient, then by D^2 sampling on gradient embeddings.

    Where every remaining row coincides with one that was picked, the rest is drawn uniformly.

    Parameters
    ----------
    q, h : Tensor
        float64 ``(n, classes)`` and ``(n, d)``, ``1 <= k <= n``.
    """
    norms = gradient_norms(q, h)
    picked = [int(norms.argmax())]
    free = torch.ones(len(q), dtype=torch.bool)
    free[picked[0]] = False
    nearest = gradient_distances(q, h, norms, picked[0])
    while len(picked) < k:
        row = draw(nearest.cpu() * free, generator)
        if row is None:
            row = draw(free.double(), generator)
        assert row is not None, "fewer rows than picks"
        picked.append(row)
        free[row] = False
        nearest = torch.minimum(nearest, gradient_distances(q, h, norms, row))
    return torch.tensor(picked)


class Badge:
    """Batch Active learning by Diverse Gradient Embeddings.

    The gradient embedding of a sample is g = (p - onehot(argmax p)) (x) h: the gradient of the loss in the
    last layer, were the predicted label true; p are its probabilities and h its embedding. The batch is
    seeded as k-means++ would on all g: first the largest gradient, then in proportion to the squared distance
    D^2 to the nearest pick. Distances come from the factors, so g itself is never formed.

    Memory: ``n x (classes + d)`` float64. Sums are float64, since float32 sums change the draws.

    Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal, *Deep Batch Active Learning by Diverse, Uncertain
    Gradient Lower Bounds*, ICLR 2020, algorithm 1.
    """

    needs = frozenset({"probabilities", "embeddings"})

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids in the order in which they were drawn."""
        unlabeled = cycle.pool.unlabeled
        budget = min(budget, len(unlabeled))
        if budget <= 0:
            return unlabeled[:0]
        q = output_gradients(cycle.probabilities())
        return unlabeled[sample_gradients(q, cycle.embeddings().double(), budget, cycle.generator)]
