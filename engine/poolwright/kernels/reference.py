"""What the kernels compute, in plain float64 torch: slow, obviously right, the oracle of their tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
