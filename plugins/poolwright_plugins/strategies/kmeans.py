"""Diversity by clustering: one sample from each region of the embedding space."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl

BLOCK_BYTES = 2**26


def nearest_to_centroids(x: Tensor, centroids: Tensor, assignment: Tensor) -> Tensor:
    """Return for each cluster that is not empty the row of its member nearest to its centroid.

    Parameters
    ----------
    x : Tensor
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
    distance = torch.cat(
        [
            (rows.double() - centroids[clusters].double()).square().sum(1)
            for rows, clusters in zip(x.split(step), assignment.split(step), strict=True)
        ]
    )
    by_distance = distance.sort(stable=True).indices
    order = by_distance[assignment[by_distance].sort(stable=True).indices]
    clusters = assignment[order]
    leads = torch.ones(len(order), dtype=torch.bool)
    leads[1:] = clusters[1:] != clusters[:-1]
    return order[leads]


class KMeans:
    """Cluster the unlabeled embeddings into ``budget`` clusters; take the member nearest to each centroid.

    Where embeddings coincide there are fewer clusters than labels; the rest of the batch is then drawn at
    random.

    Memory: ``n x d`` float32 and scikit-learn's blocks of 256 x ``budget`` distances.

    Source: Bodo, Minier and Csato, *Active Learning with Clustering*, JMLR W&CP 16, 2011; as the baseline
    "K-means" of Zhan et al., *A Comparative Survey of Deep Active Learning*, 2022. Clustering is
    scikit-learn's: k-means++ seeding (Arthur and Vassilvitskii 2007) and Lloyd's iterations.

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
        rows = self._one_a_cluster(cycle.embeddings().cpu(), budget, cycle.generator)
        if len(rows) < budget:
            rest = torch.ones(len(unlabeled), dtype=torch.bool)
            rest[rows] = False
            spare = rest.nonzero().squeeze(1)
            drawn = torch.randperm(len(spare), generator=cycle.generator)[: budget - len(rows)]
            rows = torch.cat([rows, spare[drawn]])
        return unlabeled[rows]

    def _one_a_cluster(self, x: Tensor, k: int, generator: torch.Generator) -> Tensor:
        from sklearn.cluster import KMeans as Lloyd
        from sklearn.exceptions import ConvergenceWarning

        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        with warnings.catch_warnings():
            # Fewer distinct points than clusters: dealt with by the caller.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = Lloyd(k, n_init=1, max_iter=self.max_iter, random_state=seed).fit(x.numpy())
        centroids = torch.from_numpy(fitted.cluster_centers_)
        return nearest_to_centroids(x, centroids, torch.from_numpy(fitted.labels_).long())
