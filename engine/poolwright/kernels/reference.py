"""What the kernels compute, in plain float64 torch: slow, obviously right, the oracle of their tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
