"""The Bures distance of Gaussians with the moments of two point sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolwright.kernels import reference
from poolwright.kernels._wasserstein_exact import check_bytes
from poolwright.kernels._wasserstein_inputs import Side, scale_together

if TYPE_CHECKING:
    from torch import Tensor

# Where the smallest eigenvalue of the Gram matrix is below this share of the largest, its root has lost more than four
# digits of double precision's sixteen.
_FLAT = 1e-8
# Pairs of equal sizes are solved together up to this: on a CPU as much as its caches hold, on a GPU what keeps it busy.
_BATCH_BYTES = (4 << 20, 256 << 20)
# Below this share of the variances the difference of traces has lost too many digits.
_CANCELLED = 1e-4


def gaussian(x: Side, y: Side, memory_limit: int) -> tuple[Any, Any, Any]:
    """Return three (pairs,) float64 arrays: the distances, these less their rounding, and those of the independent
    coupling.

    The second is at most W_2 of the point sets (M. Gelbrich, 1990), the third at least. No weight is 0.
    """
    import numpy as np
    import torch

    distances, lower, independent = np.empty(len(x)), np.empty(len(x)), np.empty(len(x))
    groups: dict[tuple[int, int, int], list[int]] = {}
    for i in range(len(x)):
        d = x.sets[int(x.spans[i, 0])].shape[1]
        groups.setdefault((int(x.sizes[i]), int(y.sizes[i]), d), []).append(i)
    for (n, m, d), members in groups.items():
        # Centered copies of both sets and of their triangles, and the product with its factors.
        bytes_each = _pair_bytes(n, m, d)
        check_bytes(int(x.spans[members[0], 3]), n, m, bytes_each, memory_limit)
        step = max(1, min(memory_limit // 4, _BATCH_BYTES[x.sets[0].device.type == "cuda"]) // bytes_each)
        for start in range(0, len(members), step):
            some = members[start : start + step]
            stacks = [torch.stack([side.points(i).to(torch.float64) for i in some]) for side in (x, y)]
            units = scale_together(*stacks)
            sides = []
            for side, points in zip((x, y), stacks, strict=True):
                weights = torch.from_numpy(np.stack([side.weights_of(i) for i in some])).to(points.device)
                sides.append(_moments(points, weights))
            squared, apart, spread = _bures(*sides[0], *sides[1])
            # Coordinates are at most 1 here. Means are off by less than (n + m) 2^-52 in each.
            rounding = (n + m + d) * 2.0**-52 * (d**0.5 + spread)
            found = squared.clamp(min=0).sqrt()
            distances[some] = (units * found).cpu().numpy()
            lower[some] = (units * (found - rounding).clamp(min=0)).cpu().numpy()
            independent[some] = (units * (apart.sqrt() + rounding)).cpu().numpy()
    return distances, lower, independent


def _pair_bytes(n: int, m: int, d: int) -> int:
    return 8 * (3 * (n + m) * d + 6 * min(max(n, m), d) ** 2)


def gaussian_reference(x: Side, y: Side, memory_limit: int) -> Any:
    """Return the (pairs,) distances by matrix square roots."""
    import numpy as np

    for i in range(len(x)):
        n, m = int(x.sizes[i]), int(y.sizes[i])
        d = x.points(i).shape[1]
        check_bytes(int(x.spans[i, 3]), n, m, 8 * (2 * (n + m) * d + 8 * d * d), memory_limit)
    pairs = range(len(x))
    return np.array(
        [
            reference.wasserstein(x.points(i), y.points(i), a=x.weights_of(i), b=y.weights_of(i), method="gaussian")
            for i in pairs
        ]
    )


def _moments(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return means (pairs, d), factors F (pairs, r, d), r <= d, with F^T F the covariances, and unit vectors
    (pairs, r) with u^T F = 0 where they are known."""
    import torch

    mean = (weights[:, None] @ points)[:, 0]
    roots = weights.sqrt()
    factor = (points - mean[:, None]) * roots[:, :, None]
    if factor.shape[1] > factor.shape[2]:
        return mean, torch.linalg.qr(factor, mode="r").R, None
    return mean, factor, roots  # centered, so that sum_i w_i (x_i - mean) = 0


def _bures(
    mean_x: Tensor, factor_x: Tensor, null_x: Tensor | None, mean_y: Tensor, factor_y: Tensor, null_y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared distance (pairs,), |mean difference|^2 + both traces, and what the rounding of the root of
    the first is a multiple of."""
    import torch

    # tr((S^1/2 T S^1/2)^1/2) is the sum of the singular values of S^1/2 T^1/2, and so of F G^T.
    means = (mean_x - mean_y).square().sum(dim=1)
    traces = factor_x.square().sum(dim=(1, 2)) + factor_y.square().sum(dim=(1, 2))
    product = factor_x @ factor_y.mT
    squared = traces - 2 * _nuclear_norm(product, null_x, null_y)
    close = torch.nonzero(squared < _CANCELLED * traces).flatten()
    # Off by roots of eigenvalues, each by up to 2^-52 / (2 _FLAT^(1/2)) of the largest; then by the root of a
    # difference that is at least _CANCELLED of its terms.
    spread = traces.sqrt() / (2 * _FLAT**0.5 * _CANCELLED**0.5)
    if len(close):
        spread[close] = traces[close].sqrt()
        # The same as the least distance over rotations Q of one factor (Procrustes): no difference of large numbers.
        squared[close] = _procrustes(factor_x[close], factor_y[close])
    return means + squared, means + traces, spread


def _nuclear_norm(product: Tensor, null_left: Tensor | None, null_right: Tensor | None) -> Tensor:
    """Return the sums of the singular values (pairs,), given vectors that the products map to 0."""
    import torch

    # The roots of the eigenvalues of the smaller Gram matrix: several times faster than singular values, and as good
    # unless some are nearly 0. The one that centering makes 0 is moved away, and taken off the sum again.
    left = product.shape[1] <= product.shape[2]
    gram = product @ product.mT if left else product.mT @ product
    null = null_left if left else null_right
    moved = gram.diagonal(dim1=1, dim2=2).mean(dim=1) if null is not None else torch.zeros_like(gram[:, 0, 0])
    if null is not None:
        gram = gram + moved[:, None, None] * (null[:, :, None] * null[:, None])
    values = torch.linalg.eigvalsh(gram)
    norms: Tensor = values.clamp(min=0).sqrt().sum(dim=1) - moved.sqrt()
    flat = torch.nonzero(values[:, 0] <= _FLAT * values[:, -1]).flatten()
    if len(flat):
        norms[flat] = torch.linalg.svdvals(product[flat]).sum(dim=1)
    return norms


def _procrustes(f: Tensor, g: Tensor) -> Tensor:
    """min_Q |F - Q G|^2 over orthogonal Q, after padding both to equally many rows."""
    import torch

    rows = max(f.shape[1], g.shape[1])
    f, g = (torch.nn.functional.pad(t, (0, 0, 0, rows - t.shape[1])) for t in (f, g))
    u, _, vh = torch.linalg.svd(f @ g.mT)
    apart: Tensor = f - u @ (vh @ g)
    return apart.square().sum(dim=(1, 2))
