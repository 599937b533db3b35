"""Greedy k-center on the CPU and in plain torch. Each backend, the one on CUDA included, has

``fold(block, centers, mind, eligible)``
    Set ``mind[i] = min(mind[i], min_j ||block_i - centers_j||^2)`` for the eligible rows, in place. ``mind`` (n,)
    float32 and ``eligible`` (n,) uint8 lie on the device of the rows.
``farthest(mind, eligible)``
    Return the eligible row with the largest ``mind``, ties to the lowest index, and that value.
``lazy_bytes(count, pool)``, ``lazily(pool, centers, mind, eligible, k, first)``
    Make all picks, given the rows of the labeled centers that ``mind`` does not account for; and what that allocates.
``whole_pool``
    Distances of ineligible rows are computed as well (and counted).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolwright.kernels._native_build import native

if TYPE_CHECKING:
    from torch import Tensor

    from poolwright.kernels._matrix import Matrix


class NativeBackend:
    """C++ with OpenMP, lazily: what cannot be the farthest is not computed."""

    whole_pool = False

    def __init__(self) -> None:
        self._native = native()

    def fold(self, block: Tensor, centers: Tensor, mind: Tensor, eligible: Tensor) -> None:
        import torch

        self._native.k_center_fold(block, centers, mind, eligible, threads=torch.get_num_threads())

    def farthest(self, mind: Tensor, eligible: Tensor) -> tuple[int, float]:
        import torch

        nothing = torch.empty((len(mind), 0), device=mind.device)
        centers = torch.empty((0, 0), device=mind.device)
        index, value = self._native.k_center_fold(nothing, centers, mind, eligible, threads=torch.get_num_threads())
        return int(index), float(value)

    def lazy_bytes(self, count: int, pool: Matrix) -> int:
        """Return what `lazily` allocates for ``count`` centers, labeled ones and picks, beside 17 bytes a row."""
        import torch

        panels: int = self._native.k_center_lazy_bytes(count, pool.d, threads=torch.get_num_threads())
        return 4 * count * pool.d + panels

    def lazily(
        self, pool: Matrix, centers: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Make all picks, given the rows of the labeled centers that ``mind`` does not account for.

        Returns
        -------
        indices, squared : Tensor
            (k,) int64 and (k,) float32: the picks, and the largest squared distance before each.
        evaluated : int
            Number of pairs dealt with.
        """
        import torch

        rows = torch.empty((len(centers) + k, pool.d), dtype=torch.float32)
        rows[: len(centers)] = centers
        indices, squared = torch.empty(k, dtype=torch.int64), torch.empty(k, dtype=torch.float32)
        evaluated = self._native.k_center_lazy(
            pool.dense,
            None if pool.dense is not None else lambda ids: pool.rows(torch.from_numpy(ids)),
            mind,
            torch.zeros(pool.n, dtype=torch.int32),
            eligible,
            rows,
            indices,
            squared,
            labeled=len(centers),
            first=-1 if first is None else first,
            read_rows=pool.block_rows,
            threads=torch.get_num_threads(),
        )
        return indices, squared, int(evaluated)


class TorchBackend:
    """Plain torch on any device. Workspace: the active rows twice, 48 MB, and 24 bytes a row of the pool."""

    whole_pool = True

    def fold(self, block: Tensor, centers: Tensor, mind: Tensor, eligible: Tensor) -> None:
        import torch

        step = max(1, _TABLE_BYTES // (6 * 8 * max(1, block.shape[1], len(centers))))
        for start in range(0, len(block), step):
            part = mind[start : start + step]
            torch.minimum(part, _squared_distances(block[start : start + step], centers), out=part)

    def farthest(self, mind: Tensor, eligible: Tensor) -> tuple[int, float]:
        import torch

        return _largest(torch.where(eligible.bool(), mind, -1.0))

    def lazy_bytes(self, count: int, pool: Matrix) -> int:
        """Return what `lazily` allocates for ``count`` centers, labeled ones and picks, beside 24 bytes a row."""
        return 4 * count * pool.d + 2 * _active_rows(pool) * (4 * pool.d + 16) + _TABLE_BYTES

    def lazily(
        self, pool: Matrix, centers: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Make all picks, as `NativeBackend.lazily`.

        The points with the largest bounds are brought up to date and picked from while the farthest of them is
        farther than every bound outside; then others are taken.
        """
        import torch

        device = mind.device
        rows = torch.empty((len(centers) + k, pool.d), dtype=torch.float32, device=device)
        rows[: len(centers)] = centers
        count, evaluated = len(centers), 0
        seen = torch.zeros(pool.n, dtype=torch.int32, device=device)
        picks: list[int] = []
        values: list[float] = []

        def pick(index: int, value: float, row: Tensor) -> None:
            nonlocal count
            picks.append(index)
            values.append(value)
            eligible[index] = 0
            rows[count] = row
            count += 1

        if first is not None:
            pick(first, float(mind[first]), pool.rows(torch.tensor([first]))[0])
        if count > 0 and len(picks) < k:  # finite bounds, from the first centers alone
            known = min(count, _BOUNDING_CENTERS)
            for at, block in pool.blocks():
                self.fold(block, rows[:known], mind[at : at + len(block)], eligible[at : at + len(block)])
            seen += known
            evaluated += pool.n * known
        largest = _active_rows(pool)
        size = min(_ACTIVE_ROWS, largest)
        while len(picks) < k:
            bounds = torch.where(eligible.bool(), mind, -1.0)
            active = _top(bounds, min(size, int(torch.count_nonzero(eligible))))
            bounds[active] = -1.0
            outside, outside_value = _largest(bounds)
            points = pool.rows(active.cpu())
            nearest = mind[active]
            # By what they have seen, so that few distances are computed again.
            for part in torch.argsort(seen[active]).split(max(64, len(active) // 8)):
                since, lowered = int(seen[active[part]].min()), nearest[part]
                for start in range(since, count, _CENTERS_AT_ONCE):
                    self.fold(points[part], rows[start : min(start + _CENTERS_AT_ONCE, count)], lowered, eligible)
                nearest[part] = lowered
                evaluated += len(part) * (count - since)
            before = len(picks)
            while len(picks) < k:
                at, value = _largest(nearest)
                index = int(active[at])
                if value < 0 or value < outside_value or (value == outside_value and index > outside):
                    break
                pick(index, value, points[at])
                nearest[at] = -1.0
                torch.minimum(nearest, _squared_distances(points, rows[count - 1 : count]), out=nearest)
                evaluated += len(active)
            mind[active] = nearest
            seen[active] = count
            made = len(picks) - before
            size = min(2 * size, largest) if made < _FEW_PICKS else max(_ACTIVE_ROWS, size // 2)
        squared = torch.tensor(values, dtype=torch.float32, device=device)
        return torch.tensor(picks, device=device), squared, evaluated


# What a fold takes: some rows in float32 and float64, and their distances to some centers.
_TABLE_BYTES = 48 << 20

# Rows in the first active set; a set that gave fewer picks than _FEW_PICKS is followed by one twice as large.
_ACTIVE_ROWS = 512
_FEW_PICKS = 32
_BOUNDING_CENTERS = 64
_CENTERS_AT_ONCE = 256
_FEW_CENTERS = 4


def _active_rows(pool: Matrix) -> int:
    """Return how many rows an active set may have: as many as a block of the pool, several of which fit in memory."""
    return max(1, min(pool.n, pool.block_rows))


def _squared_distances(rows: Tensor, centers: Tensor) -> Tensor:
    """Return each row's squared distance to the nearest center, (n,) float32."""
    import torch

    rows = rows.to(torch.float32)
    if len(centers) < _FEW_CENTERS:
        nearest = torch.full((len(rows),), torch.inf, dtype=torch.float32, device=rows.device)
        for center in centers:
            torch.minimum(nearest, (rows - center).square_().sum(dim=1), out=nearest)
        return nearest
    # A product of norms and rows cancels where points are near each other for their length: float64 keeps eight
    # digits of a squared distance down to a millionth of the norms, and what is below is taken from differences.
    wide, wide_centers = rows.to(torch.float64), centers.to(torch.float64)
    norms = wide.square().sum(dim=1, keepdim=True) + wide_centers.square().sum(dim=1)
    squared = torch.addmm(norms, wide, wide_centers.T, alpha=-2)
    near_rows, near_centers = torch.nonzero(squared <= 1e-6 * norms, as_tuple=True)
    step = max(1, (8 << 20) // (8 * max(1, rows.shape[1])))
    for pairs in torch.arange(len(near_rows), device=rows.device).split(step):
        i, j = near_rows[pairs], near_centers[pairs]
        squared[i, j] = (wide[i] - wide_centers[j]).square_().sum(dim=1)
    return squared.amin(dim=1).to(torch.float32)


def _largest(values: Tensor) -> tuple[int, float]:
    """Return the lowest position of the maximum, and the maximum; argmax may return any of several."""
    import torch

    value = values.max()
    return int(torch.nonzero(values == value)[0]), float(value)


def _top(values: Tensor, count: int) -> Tensor:
    """Return the positions of the ``count`` largest values in ascending order; of equal ones, the lowest."""
    import torch

    threshold = values.topk(count).values[-1]
    above = torch.nonzero(values > threshold).flatten()
    equal = torch.nonzero(values == threshold).flatten()
    return torch.cat([above, equal[: count - len(above)]]).sort().values
