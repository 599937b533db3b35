"""The step of greedy k-center on each backend: fold centers into the minimum squared distances, find the
farthest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from poolwright.kernels._native_build import native

if TYPE_CHECKING:
    from torch import Tensor


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


class NativeBackend:
    """C++ with OpenMP. Workspace: d floats."""

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

    def greedy(
        self, x: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        import torch

        count = int(eligible.sum())
        scratch = torch.empty(x.shape[1], dtype=torch.float32, device=x.device)
        indices = torch.empty(k, dtype=torch.int64, device=x.device)
        squared = torch.empty(k, dtype=torch.float32, device=x.device)
        self._native.k_center_eager(
            x,
            mind,
            eligible,
            scratch,
            indices,
            squared,
            first=-1 if first is None else first,
            threads=torch.get_num_threads(),
        )
        return indices, squared, (k - 1) * count - k * (k - 1) // 2


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
