"""Diversity by clustering: one sample from each region of the embedding space."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, Rows, hookimpl, kernels

from ._kernels import data_errors

BLOCK_BYTES = 2**22


def nearest_to_centroids(x: Tensor | Rows, centroids: Tensor, assignment: Tensor) -> Tensor:
    """Return for each cluster that is not empty the row of its member nearest to its centroid.

    Parameters
    ----------
    x : Tensor or Rows
        Float ``(n, d)``.
    centroids : Tensor
        Float ``(k, d)``.
    assignment : Tensor
        int64 ``(n,)``: the cluster of each row.

    Returns
    -------
    Tensor
        int64, at most ``k`` different rows of ``x``, by ascending cluster; equal distances go to the lowest
        row.
    """
    step = max(1, BLOCK_BYTES // (8 * x.shape[1]))
    # Filled in place: small results between large blocks would keep the heap from shrinking.
    distance = torch.empty(len(assignment), dtype=torch.float64, device=assignment.device)
    for start in range(0, len(assignment), step):
        rows, clusters = x[start : start + step], assignment[start : start + step]
        distance[start : start + step] = (rows.double() - centroids[clusters].double()).square().sum(1)
    by_distance = distance.sort(stable=True).indices
    order = by_distance[assignment[by_distance].sort(stable=True).indices]
    clusters = assignment[order]
    leads = torch.ones(len(order), dtype=torch.bool, device=order.device)
    leads[1:] = clusters[1:] != clusters[:-1]
    return order[leads]


class KMeans:
    """Cluster the unlabeled embeddings into ``budget`` clusters; take the member nearest to each centroid.

    Where embeddings coincide there are fewer clusters than labels; the rest of the batch is then drawn at
    random.

    Memory: 64 bytes a sample; embeddings are read in blocks, or copied once (``n x d`` float32) where half of
    ``memory_limit`` has room for that. Time: O(n d budget) an iteration.

    Source: Bodo, Minier and Csato, *Active Learning with Clustering*, JMLR W&CP 16, 2011; as the baseline
    "K-means" of Zhan et al., *A Comparative Survey of Deep Active Learning*, 2022. k-means++
    seeding (Arthur and Vassilvitskii 2007) and Lloyd's iterations are :func:`poolwright.kernels.kmeans`.

    Parameters
    ----------
    max_iter : int
        Most iterations of Lloyd's algorithm.
    """

    needs = frozenset({"embeddings"})

    def __init__(self, *, max_iter: int = 100) -> None:
        self.max_iter = max_iter

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids, one a cluster."""
        if not isinstance(self.max_iter, int) or self.max_iter < 1:
            raise ConfigError(f"kmeans: max_iter must be an integer of at least 1, not {self.max_iter!r}")
        unlabeled = cycle.pool.unlabeled
        if budget <= 0 or len(unlabeled) <= budget:
            return unlabeled[: max(0, budget)]
        x = cycle.rows("embeddings")
        with data_errors("kmeans"):
            found = kernels.kmeans(
                x, budget, seed=cycle.generator, iterations=self.max_iter, memory_limit=x.memory_limit
            )
        rows = nearest_to_centroids(x, found.centroids, found.labels).cpu()
        if len(rows) < budget:
            rest = torch.ones(len(unlabeled), dtype=torch.bool)
            rest[rows] = False
            spare = rest.nonzero().squeeze(1)
            drawn = torch.randperm(len(spare), generator=cycle.generator)[: budget - len(rows)]
            rows = torch.cat([rows, spare[drawn]])
        return unlabeled[rows]
