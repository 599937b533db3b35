"""The step of greedy k-center on each backend: fold centers into the minimum squared distances, find the
farthest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from poolwright.kernels._native_build import native

if TYPE_CHECKING:
    from torch import Tensor

    from poolwright.kernels._matrix import Matrix


class Backend(Protocol):
    """One way to compute; ``mind`` (n,) float32 and ``eligible`` (n,) uint8 lie on the device of the rows."""

    whole_pool: bool
    """Distances of ineligible rows are computed as well (and counted)."""

    def fold(self, block: Tensor, centers: Tensor, mind: Tensor, eligible: Tensor) -> None:
        """Set ``mind[i] = min(mind[i], min_j ||block_i - centers_j||^2)`` for the eligible rows, in place."""

    def farthest(self, mind: Tensor, eligible: Tensor) -> tuple[int, float]:
        """Return the eligible row with the largest ``mind``, ties to the lowest index, and that value."""

    def greedy(
        self, x: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int] | None:
        """Run all k picks on rows in memory: (k,) int64 indices, (k,) float32 values, and the number of
        distances computed; None where it has no such loop."""


def lazy_bytes(count: int, d: int) -> int:
    """Return what `NativeBackend.lazily` allocates for ``count`` centers: each as a row and in a panel."""
    return 8 * count * (d + 64)


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

    def greedy(self, x: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None) -> None:
        return None

    def lazily(
        self, pool: Matrix, centers: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Make all picks, given the rows of the labeled centers that ``mind`` does not account for.

        Returns
        -------
        indices, squared : Tensor
            (k,) int64 and (k,) float32, as of `Backend.greedy`.
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
    """Plain torch on any device, in float32. Workspace: the differences of a few thousand rows."""

    whole_pool = True

    def fold(self, block: Tensor, centers: Tensor, mind: Tensor, eligible: Tensor) -> None:
        import torch

        # Differences, not norms and a product: ||x||^2 - 2 x.c + ||c||^2 cancels where norms are large.
        step = max(1, (8 << 20) // max(1, 4 * block.shape[1]))
        for start in range(0, len(block), step):
            rows, part = block[start : start + step].to(torch.float32), mind[start : start + step]
            for center in centers:
                torch.minimum(part, (rows - center).square_().sum(dim=1), out=part)

    def farthest(self, mind: Tensor, eligible: Tensor) -> tuple[int, float]:
        import torch

        masked = torch.where(eligible.bool(), mind, -1.0)
        value = masked.max()
        # argmax may return any of several equal maxima.
        return int(torch.nonzero(masked == value)[0]), float(value)

    def greedy(self, x: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None) -> None:
        return None
