"""Transport on the line by sorting, and the sliced distance that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolwright.kernels._wasserstein_inputs import Side

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def line_costs(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> Tensor:
    """Return W_p^p of each column of x and y.

    Parameters
    ----------
    x, y : Tensor
        (n, k) and (m, k) float64: k problems on the line.
    a, b : Tensor
        (n,) and (m,) float64 weights that sum to 1.
    p : float
        At least 1.

    Returns
    -------
    Tensor
        (k,) float64. O((n + m) k log(n + m)) time, O((n + m) k) memory.
    """
    import torch

    x, from_x = x.sort(dim=0)
    y, from_y = y.sort(dim=0)
    if len(x) == len(y) and bool((a == a[0]).all()) and bool((b == b[0]).all()):
        return (x - y).abs_().pow_(p).mean(dim=0)
    # Both quantile functions are constant between neighboring levels of these.
    levels_x, levels_y = a[from_x].cumsum(dim=0), b[from_y].cumsum(dim=0)
    levels = torch.cat([levels_x, levels_y]).sort(dim=0).values
    shares = levels.diff(dim=0, prepend=torch.zeros_like(levels[:1]))
    middle = (levels - shares / 2).T.contiguous()
    at_x = torch.searchsorted(levels_x.T.contiguous(), middle).clamp_(max=len(x) - 1).T
    at_y = torch.searchsorted(levels_y.T.contiguous(), middle).clamp_(max=len(y) - 1).T
    return (shares * (x.gather(0, at_x) - y.gather(0, at_y)).abs_().pow_(p)).sum(dim=0)


def sliced(x: Side, y: Side, p: float, projections: int, seed: int, memory_limit: int) -> NDArray[np.float64]:
    """Return the (pairs,) p-th roots of the mean of W_p^p over random directions, the same for all pairs. No
    weight is 0."""
    import numpy as np
    import torch

    distances = np.empty(len(x))
    directions: dict[int, Tensor] = {}
    for i in range(len(x)):
        points_x, points_y = x.points(i).to(torch.float64), y.points(i).to(torch.float64)
        device, d = points_x.device, points_x.shape[1]
        if d not in directions:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randn((d, projections), generator=generator, dtype=torch.float64)
            directions[d] = (chosen / torch.linalg.vector_norm(chosen, dim=0)).to(device)
        a, b = (torch.from_numpy(side.weights_of(i)).to(device) for side in (x, y))
        rows = len(points_x) + len(points_y)
        # Values, their order, levels, shares and places of some directions at a time.
        step = max(1, min(projections, memory_limit // (12 * 8 * rows)))
        total = 0.0
        for start in range(0, projections, step):
            some = directions[d][:, start : start + step]
            total += float(line_costs(points_x @ some, points_y @ some, a, b, p).sum())
        distances[i] = (total / projections) ** (1 / p)
    return distances
