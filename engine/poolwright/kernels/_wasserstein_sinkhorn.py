"""Entropic transport in the log domain, in batches of pairs of similar size, with certified bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolwright.kernels._ragged import Packed, SinkhornResult
from poolwright.kernels._wasserstein_inputs import scale_together

if TYPE_CHECKING:
    from torch import Tensor

# Float64 arrays of the size of the (padded) costs that exist at once.
_COST_ARRAYS = 5
# A batch may be padded to this many times its costs.
_PADDING = 1.5
# Each value of epsilon is this share of the last; the first is the mean cost.
_ANNEALING = 0.5
# Iterations at each value of epsilon before the last.
_STAGE_ITERATIONS = 5
# Epsilon is at least this share of the largest cost.
_LEAST_EPSILON = 6e-8


def pair_bytes(n: int, m: int, d: int) -> int:
    """Return what one pair of n and m points needs in the solver, in bytes."""
    return 8 * (_COST_ARRAYS * n * m + (2 * d + 8) * (n + m))


def sinkhorn(
    packed: Packed, *, p: float, epsilon: float, tolerance: float, max_iterations: int, memory_limit: int
) -> tuple[SinkhornResult, Tensor]:
    """Solve all pairs in float64 on the device of the points.

    Parameters
    ----------
    packed : Packed
        The pairs.
    p : float
        The cost is ``||x - y||^p``.
    epsilon : float
        Regularization, as a share of the mean cost of a pair under the independent coupling.
    tolerance : float
        A pair has converged when the L1 violation of its marginals is at most this (weights sum to 1).
    max_iterations : int
        Per pair, at the last epsilon.
    memory_limit : int
        Bytes of workspace; at least `pair_bytes` of the largest pair.

    Returns
    -------
    SinkhornResult, Tensor
        Costs as multiples of the p-th power of a unit, and these units (pairs,), so that no power overflows.
    """
    import torch

    device, pairs = packed.device, packed.pairs
    value, lower, units = (torch.empty(pairs, dtype=torch.float64, device=device) for _ in range(3))
    iterations = torch.empty(pairs, dtype=torch.int64, device=device)
    converged = torch.empty(pairs, dtype=torch.bool, device=device)
    for members in _batches(packed, memory_limit):
        ids = torch.tensor(members, device=device)
        n, m = max(packed.x_sizes[i] for i in members), max(packed.y_sizes[i] for i in members)
        x, a = _padded(packed.x, packed.a, packed.x_offsets, ids, n)
        y, b = _padded(packed.y, packed.b, packed.y_offsets, ids, m)
        units[ids] = scale_together(x, y)
        costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        del x, y
        largest = costs.amax(dim=(1, 2))
        largest = torch.where(largest > 0, largest, 1.0)
        units[ids] *= largest
        costs.div_(largest[:, None, None]).pow_(p)
        batch = _Batch(costs, a, b, epsilon, p * (packed.d + 8))
        iterations[ids], converged[ids] = batch.solve(tolerance, max_iterations)
        value[ids], lower[ids] = batch.certify()
    return SinkhornResult(value, lower, iterations, converged), units


def _batches(packed: Packed, memory_limit: int) -> list[list[int]]:
    """Group pairs of similar sizes so that a batch, padded to its largest, fits the limit."""
    order = sorted(range(packed.pairs), key=lambda i: (packed.x_sizes[i], packed.y_sizes[i]), reverse=True)
    batches: list[list[int]] = []
    n = m = used = 0
    for i in order:
        size_x, size_y = packed.x_sizes[i], packed.y_sizes[i]
        wide_n, wide_m = max(n, size_x), max(m, size_y)
        count = len(batches[-1]) + 1 if batches else 1
        padded = count * wide_n * wide_m
        if (
            batches
            and padded <= _PADDING * (used + size_x * size_y) + 1024 * count
            and count * pair_bytes(wide_n, wide_m, packed.d) <= min(memory_limit, 1 << 30)
        ):
            batches[-1].append(i)
            n, m, used = wide_n, wide_m, used + size_x * size_y
        else:
            batches.append([i])
            n, m, used = size_x, size_y, size_x * size_y
    return batches


def _padded(points: Tensor, weights: Tensor, offsets: Tensor, ids: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (pairs, size, d) float64 points and (pairs, size) weights; the padding weighs 0."""
    import torch

    begin, end = offsets[ids], offsets[ids + 1]
    rows = begin[:, None] + torch.arange(size, device=points.device)
    there = rows < end[:, None]
    rows = rows.clamp_(max=len(points) - 1)
    # Padding with a point of the pair itself keeps every cost finite and of its size.
    rows = torch.where(there, rows, begin[:, None])
    chosen = torch.where(there, weights[rows].to(torch.float64), 0.0)
    return points[rows].to(torch.float64), chosen / chosen.sum(dim=1, keepdim=True)


class _Batch:
    """Pairs padded to one size. costs (pairs, n, m) up to 1, a (pairs, n), b (pairs, m); padding weighs 0. A cost may
    be off by `cost_error` times 2^-52 of itself."""

    def __init__(self, costs: Tensor, a: Tensor, b: Tensor, epsilon: float, cost_error: float) -> None:
        import torch

        mean = (a[:, None] @ costs @ b[:, :, None])[:, 0, 0]
        # Epsilon is a share of this: of the mean, unless that makes it less than its least share of the largest cost.
        self.epsilon = max(epsilon, _LEAST_EPSILON)
        self.scale = mean.clamp(min=_LEAST_EPSILON / self.epsilon)
        self.rounding = (costs.shape[1] + costs.shape[2] + cost_error + 16) * 2.0**-52
        self.costs = costs.div_(self.scale[:, None, None])
        self.a, self.b = a, b
        self.f, self.g = torch.zeros_like(a), torch.zeros_like(b)

    def solve(self, tolerance: float, max_iterations: int) -> tuple[Tensor, Tensor]:
        """Iterate; pairs that have converged leave the batch. Returns iterations and converged, (pairs,)."""
        import torch

        pairs, device = len(self.a), self.a.device
        iterations = torch.zeros(pairs, dtype=torch.int64, device=device)
        converged = torch.zeros(pairs, dtype=torch.bool, device=device)
        active = torch.arange(pairs, device=device)
        costs, a, b, f, g = self.costs, self.a, self.b, self.f, self.g
        epsilon = self.epsilon
        stage, done = max(1.0, epsilon), 0
        while stage > epsilon:
            for _ in range(_STAGE_ITERATIONS):
                f = _update(costs, g, b, stage)
                g = _update(costs.mT, f, a, stage)
            iterations += _STAGE_ITERATIONS
            stage = max(epsilon, stage * _ANNEALING)
        f = _update(costs, g, b, epsilon)
        while len(active) and done < max_iterations:
            g = _update(costs.mT, f, a, epsilon)
            done += 1
            following = _update(costs, g, b, epsilon)
            # The columns are met; the rows of the plan of (f, g) hold a exp((f - following) / epsilon).
            violation = (a * torch.expm1((f - following) / epsilon)).abs().sum(dim=1)
            met = violation <= tolerance
            iterations[active] += 1
            if bool(met.any()):
                self.f[active[met]], self.g[active[met]] = f[met], g[met]
                converged[active[met]] = True
                active, costs, a, b = active[~met], costs[~met], a[~met], b[~met]
                following, g = following[~met], g[~met]
            f = following
        self.f[active], self.g[active] = f, g
        return iterations, converged

    def certify(self) -> tuple[Tensor, Tensor]:
        """Return the cost of the plan rounded to the marginals and the dual bound, (pairs,), each moved outwards by
        what float64 may have rounded."""
        import torch

        a, b, costs = self.a, self.b, self.costs
        plan = (self.f[:, :, None] + self.g[:, None] - costs).div_(self.epsilon)
        plan.add_(a.log()[:, :, None]).add_(b.log()[:, None])
        # A plan far from converged may overflow: no entry of a feasible one is above 1.
        plan = plan.clamp_(max=0).exp_()
        plan *= _at_most_one(a, plan.sum(dim=2))[:, :, None]
        plan *= _at_most_one(b, plan.sum(dim=1))[:, None]
        left_a = (a - plan.sum(dim=2)).clamp_(min=0)
        left_b = (b - plan.sum(dim=1)).clamp_(min=0)
        left = left_a.sum(dim=1)
        rest = (left_a[:, None] @ costs @ left_b[:, :, None])[:, 0, 0]
        value = (plan * costs).sum(dim=(1, 2)) + torch.where(left > 0, rest / left, 0.0)
        del plan
        # Feasible potentials: each column's is what its rows leave it, then the other way around.
        forbidden = torch.where(a > 0, 0.0, torch.inf)
        g = (costs - self.f[:, :, None] + forbidden[:, :, None]).amin(dim=1)
        forbidden = torch.where(b > 0, 0.0, torch.inf)
        f = (costs - g[:, None] + forbidden[:, None]).amin(dim=2)
        lower = (a * f).sum(dim=1) + (b * g).sum(dim=1)
        magnitude = costs.amax(dim=(1, 2)) + f.abs().amax(dim=1) + g.abs().amax(dim=1)
        rounding = self.rounding * magnitude
        return (value + rounding) * self.scale, (lower - rounding).clamp(min=0) * self.scale


def _update(costs: Tensor, potential: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    """-epsilon log sum_j weights_j exp((potential_j - costs_ij) / epsilon), over the last axis."""
    shifted = potential / epsilon + weights.log()
    return ((shifted[:, None] - costs / epsilon).logsumexp(dim=2)).mul_(-epsilon)


def _at_most_one(wanted: Tensor, there: Tensor) -> Tensor:
    import torch

    return torch.where(there > wanted, wanted / there, 1.0)
