"""Transport on the line by sorting, and the sliced distance that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolwright.kernels._wasserstein_inputs import Side, scale_together

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def line_costs(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> tuple[Tensor, float]:
    """Return W_p^p of each column of x and y, as a multiple of the p-th power of a unit that all share.

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
    Tensor, float
        (k,) float64, and the unit: the farthest that anything moves. O((n + m) k log(n + m)) time, O((n + m) k) memory.
    """
    import torch

    x, from_x = x.sort(dim=0)
    y, from_y = y.sort(dim=0)
    if len(x) == len(y) and bool((a == a[0]).all()) and bool((b == b[0]).all()):
        apart = (x - y).abs_()
        unit = float(apart.max()) or 1.0
        return apart.div_(unit).pow_(p).mean(dim=0), unit
    # Both quantile functions are constant between neighboring levels of these.
    levels_x, levels_y = a[from_x].cumsum(dim=0), b[from_y].cumsum(dim=0)
    levels = torch.cat([levels_x, levels_y]).sort(dim=0).values
    shares = levels.diff(dim=0, prepend=torch.zeros_like(levels[:1]))
    middle = (levels - shares / 2).T.contiguous()
    at_x = torch.searchsorted(levels_x.T.contiguous(), middle).clamp_(max=len(x) - 1).T
    at_y = torch.searchsorted(levels_y.T.contiguous(), middle).clamp_(max=len(y) - 1).T
    apart = (x.gather(0, at_x) - y.gather(0, at_y)).abs_().mul_(shares > 0)
    unit = float(apart.max()) or 1.0
    return (shares * apart.div_(unit).pow_(p)).sum(dim=0), unit


def sliced(
    x: Side, y: Side, p: float, projections: int, seed: int, memory_limit: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (pairs,) p-th roots of the mean of W_p^p over random directions, the same for all pairs, and how far
    rounding may have raised them. No weight is 0."""
    import numpy as np
    import torch

    from poolwright.kernels._wasserstein_exact import check_bytes  # which imports this module

    distances, rounding = np.empty(len(x)), np.empty(len(x))
    directions: dict[int, Tensor] = {}
    for i in range(len(x)):
        n, m = int(x.sizes[i]), int(y.sizes[i])
        device, d = x.points(i).device, x.points(i).shape[1]
        # Both sets in float64, the directions, and of some directions at a time: values, their order, levels, shares
        # and places.
        fixed, each = 8 * d * (n + m + 2 * projections), 12 * 8 * (n + m)
        check_bytes(int(x.spans[i, 3]), n, m, fixed + each, memory_limit)
        points_x, points_y = (side.points(i).to(torch.float64, copy=True) for side in (x, y))
        size = float(scale_together(points_x[None], points_y[None])[0])
        if d not in directions:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randn((d, projections), generator=generator, dtype=torch.float64)
            directions[d] = (chosen / torch.linalg.vector_norm(chosen, dim=0)).to(device)
        a, b = (torch.from_numpy(side.weights_of(i)).to(device) for side in (x, y))
        step = max(1, min(projections, (memory_limit - fixed) // each))
        total, largest = 0.0, 0.0  # a sum of powers, as a multiple of that of the largest unit
        for start in range(0, projections, step):
            some = directions[d][:, start : start + step]
            costs, unit = line_costs(points_x @ some, points_y @ some, a, b, p)
            unit, share = max(unit, largest), float(costs.sum()) * min(1.0, unit / (largest or unit)) ** p
            total, largest = total * (largest / unit) ** p + share, unit
        distances[i] = size * largest * (total / projections) ** (1 / p)
        # A projection of coordinates up to 1 is off by d 2^-53 sqrt(d) at most, a sum of costs by (n + m) 2^-52.
        rounding[i] = 4 * (n + m + d) * 2.0**-52 * size * d**0.5
    return distances, rounding
