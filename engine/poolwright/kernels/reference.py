"""What the kernels compute, in plain float64 torch: slow, obviously right, the oracle of their tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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


def transport_costs(x: Tensor, y: Tensor, p: float) -> tuple[Tensor, float]:
    """Return ``(||x_i - y_j|| / unit)^p`` as (n, m) float64, and unit, the largest distance (1 where that is 0)."""
    import torch

    x, y = x.detach().to("cpu", torch.float64), y.detach().to("cpu", torch.float64)
    # Scaled first, so that no square overflows or vanishes; differences, which do not cancel.
    scale = max(float(x.abs().max()), float(y.abs().max())) or 1.0
    distances = torch.cdist(x / scale, y / scale, compute_mode="donot_use_mm_for_euclid_dist")
    unit = float(distances.max()) or 1.0
    return (distances / unit) ** p, unit * scale


def wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    p: float = 2,
    a: Any = None,
    b: Any = None,
    method: str = "exact",
) -> float:
    """Return W_p of two weighted point sets.

    Parameters
    ----------
    x, y : Tensor
        (n, d) and (m, d), finite.
    p : float
        At least 1; the ground distance is Euclidean.
    a, b : array of float, optional
        (n,) and (m,) weights, scaled to a sum of 1; uniform by default.
    method : {"exact", "gaussian"}
        "exact": the linear program over all plans. "gaussian": W_2 of the Gaussians with the means and (biased)
        covariances of the sets, by matrix square roots.

    Returns
    -------
    float

    Notes
    -----
    The linear program has n m variables: for a few dozen points. Villani, "Topics in Optimal Transportation", 2003;
    the Gaussian formula is Dowson and Landau 1982, equation 4.
    """
    import torch

    if method not in ("exact", "gaussian"):
        raise ValueError(f'method must be "exact" or "gaussian", not {method!r}')
    weights = []
    for points, given in ((x, a), (y, b)):
        chosen = torch.ones(len(points)) if given is None else torch.as_tensor(given)
        weights.append(chosen.to("cpu", torch.float64) / chosen.sum())
    if method == "exact":
        return _linear_program(x, y, p, *weights)
    moments = []
    for points, weight in zip((x, y), weights, strict=True):
        points = points.detach().to("cpu", torch.float64)
        mean = weight @ points
        moments.append((mean, (points - mean).T @ ((points - mean) * weight[:, None])))
    (mean_x, cov_x), (mean_y, cov_y) = moments
    root = _matrix_root(cov_x)
    squared = (mean_x - mean_y).square().sum() + (cov_x + cov_y - 2 * _matrix_root(root @ cov_y @ root)).trace()
    return float(squared.clamp(min=0).sqrt())


def _linear_program(x: Tensor, y: Tensor, p: float, a: Tensor, b: Tensor) -> float:
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron, vstack

    costs, unit = transport_costs(x, y, p)
    n, m = costs.shape
    sums = vstack([kron(eye(n), np.ones((1, m))), kron(np.ones((1, n)), eye(m))], format="csr")
    # One constraint follows from the others; with it, weights that differ by rounding would be infeasible.
    found = linprog(
        costs.numpy().ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a.numpy(), b.numpy()])[:-1], method="highs"
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program was not solved: {found.message}")
    return unit * float(max(found.fun, 0.0) ** (1 / p))


def _matrix_root(matrix: Tensor) -> Tensor:
    import torch

    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


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
) -> tuple[Tensor, Tensor, float, int]:
    """Run Lloyd's iterations from the given centroids.

    Clusters that lose their points are not moved, and only labels that stay as they are stop it early.

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
    iterations : int
        Updates of the centroids that were done.

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
    done = 0
    while done < iterations:
        for cluster in range(len(centroids)):
            members = labels == cluster
            mass = w[members].sum()
            if mass > 0:
                centroids[cluster] = (w[members, None] * x[members]).sum(dim=0) / mass
        before, done = labels, done + 1
        labels, least = nearest()
        if torch.equal(labels, before):
            break
    return centroids, labels, float((w * least).sum()), done
