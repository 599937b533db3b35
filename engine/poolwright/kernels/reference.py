"""What the kernels compute, in plain float64 torch: slow, obviously right, the oracle of their tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def k_center(
    x: Tensor,
    k: int,
    *,
    labeled: Sequence[int] = (),
    candidates: Sequence[int] | None = None,
    first: int | None = None,
    metric: str = "euclidean",
) -> tuple[Tensor, Tensor, int]:
    """Pick k rows greedily, each the farthest from all labeled and picked ones.

    Parameters
    ----------
    x : Tensor
        (n, d), finite.
    k : int
        Number of picks, at most the number of eligible rows.
    labeled, candidates : sequence of int
        Row numbers. Eligible is what is in ``candidates`` (None: every row) and not labeled.
    first : int, optional
        The first pick, an eligible row; only without labeled rows.
    metric : str
        "euclidean", or "cosine": rows are scaled to length 1 (zero rows stay) and half the squared Euclidean
        distance, which is 1 - cos, is reported.

    Returns
    -------
    indices : Tensor
        (k,) int64, in the order of picking; ties go to the lowest index.
    radii : Tensor
        (k,) float64: the largest distance of an eligible row to its nearest center before each pick; inf
        before any.
    distances_evaluated : int
        Number of point-center pairs.

    Notes
    -----
    O(n d (k + labeled)) time, O(n d) memory in float64. Gonzalez 1985; Sener and Savarese 2018, algorithm 1.
    """
    import torch

    x = x.detach().to(torch.float64)
    n = x.shape[0]
    if metric == "cosine":
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = torch.where(norms > 0, x / norms, x)
    eligible = torch.full((n,), candidates is None, device=x.device)
    if candidates is not None:
        eligible[list(candidates)] = True
    eligible[list(labeled)] = False
    squared = torch.full((n,), torch.inf, dtype=torch.float64, device=x.device)
    for center in labeled:
        squared = torch.minimum(squared, ((x - x[center]) ** 2).sum(dim=1))
    indices, radii = [], []
    for pick in range(k):
        largest = squared[eligible].max()
        index = int(torch.nonzero(eligible & (squared == largest))[0])
        if pick == 0 and first is not None:
            index = first
        indices.append(index)
        radii.append(float(largest))
        eligible[index] = False
        squared = torch.minimum(squared, ((x - x[index]) ** 2).sum(dim=1))
    chosen = torch.tensor(indices, dtype=torch.int64, device=x.device)
    radius = torch.tensor(radii, dtype=torch.float64, device=x.device)
    return chosen, radius / 2 if metric == "cosine" else radius.sqrt(), n * (len(labeled) + k)


def kmeans_plus_plus(
    x: Tensor | tuple[Tensor, Tensor],
    k: int,
    generator: torch.Generator,
    *,
    labeled: Sequence[int] = (),
    candidates: Sequence[int] | None = None,
    first: int | str = "random",
) -> tuple[Tensor, float]:
    """Draw k rows, each in proportion to its squared distance to the nearest of all labeled and drawn ones.

    Parameters
    ----------
    x : Tensor or pair of Tensor
        (n, d), or the factors (n, C), (n, d) of outer products, which are made here.
    k : int
        At most the number of eligible rows.
    generator : torch.Generator
        On the CPU.
    labeled, candidates : sequence of int
        As in `k_center`.
    first : int or str
        Where nothing is labeled: an eligible row, "random" (uniform) or "largest-norm".

    Returns
    -------
    indices : Tensor
        (k,) int64, in the order of the draws. Uniform where every distance is 0.
    potential : float
        Sum of the squared distances that eligible rows are left with.

    Notes
    -----
    O(n d (k + labeled)) time, O(n d) memory in float64, n C d for outer products. Arthur and Vassilvitskii
    2007.
    """
    import torch

    if isinstance(x, tuple):
        x = torch.einsum("nc,nd->ncd", x[0].detach().double(), x[1].detach().double()).flatten(1)
    x = x.detach().to(torch.float64)
    n = x.shape[0]
    eligible = torch.full((n,), candidates is None, device=x.device)
    if candidates is not None:
        eligible[list(candidates)] = True
    eligible[list(labeled)] = False
    squared = torch.full((n,), torch.inf, dtype=torch.float64, device=x.device)
    for center in labeled:
        squared = torch.minimum(squared, ((x - x[center]) ** 2).sum(dim=1))
    picks: list[int] = []
    while len(picks) < k:
        weights = torch.where(eligible, squared, 0.0)
        if not picks and not labeled and isinstance(first, int):
            row = first
        elif not picks and not labeled and first == "largest-norm":
            row = int(torch.where(eligible, (x**2).sum(dim=1), -1.0).argmax())
        else:
            if (not picks and not labeled) or not weights.any():
                weights = eligible.double()
            row = int(torch.multinomial(weights.cpu(), 1, generator=generator))
        picks.append(row)
        eligible[row] = False
        squared = torch.minimum(squared, ((x - x[row]) ** 2).sum(dim=1))
    potential = float(torch.where(eligible, squared, 0.0).sum()) if picks or labeled else torch.inf
    return torch.tensor(picks, dtype=torch.int64, device=x.device), potential


def kmeans(
    x: Tensor, centroids: Tensor, iterations: int, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    """Run Lloyd's iterations from the given centroids.

    Parameters
    ----------
    x : Tensor
        (n, d), finite.
    centroids : Tensor
        (k, d).
    iterations : int
        Most updates of the centroids; fewer where labels stop changing.
    weights : Tensor, optional
        (n,), not negative.

    Returns
    -------
    centroids : Tensor
        (k, d) float64; one without members stays where it was.
    labels : Tensor
        (n,) int64, the nearest centroid, ties to the lowest.
    inertia : float
        Weighted sum of the squared distances to it.

    Notes
    -----
    O(n k d) time an iteration, O(n k) memory. Lloyd 1982.
    """
    import torch

    x, centroids = x.detach().double(), centroids.detach().double().clone()
    w = torch.ones(len(x), dtype=torch.float64, device=x.device) if weights is None else weights.double()

    def nearest() -> tuple[Tensor, Tensor]:
        squared = torch.stack([((x - centroid) ** 2).sum(dim=1) for centroid in centroids], dim=1)
        least = squared.min(dim=1).values
        return (squared == least[:, None]).long().argmax(dim=1), least

    labels, least = nearest()
    for _ in range(iterations):
        for cluster in range(len(centroids)):
            members = labels == cluster
            mass = w[members].sum()
            if mass > 0:
                centroids[cluster] = (w[members, None] * x[members]).sum(dim=0) / mass
        before = labels
        labels, least = nearest()
        if torch.equal(labels, before):
            break
    return centroids, labels, float((w * least).sum())
