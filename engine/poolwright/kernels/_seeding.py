"""D^2 sampling by rejection, over plain rows and outer products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from poolwright.kernels._k_center_backends import TorchBackend
from poolwright.kernels._k_center_cuda import CudaBackend
from poolwright.kernels._matrix import Matrix
from poolwright.kernels._native_build import native
from poolwright.kernels._seeding_cuda import outer_fold

if TYPE_CHECKING:
    from torch import Tensor

Parts = tuple["Tensor", ...]
"""Rows as they are stored: one matrix, or the two factors of outer products."""

_BATCH = 64
# Rejections are cheap beside a pass over the pool, but on a small pool a pass costs nothing.
_LEAST_REJECTIONS, _VALUES_PER_REJECTION = 8, 1 << 19
_CHUNK = 1 << 20


class Points:
    """n points that are rows of one matrix, or outer products of the rows of two."""

    def __init__(self, *matrices: Matrix) -> None:
        self.matrices = matrices
        self.n, self.device, self.numpy = matrices[0].n, matrices[0].device, matrices[0].numpy
        self.width = sum(matrix.d for matrix in matrices)
        self._block_rows = min(matrix.block_rows for matrix in matrices)

    @property
    def dense(self) -> Parts | None:
        """All rows, where all lie in memory."""
        parts = tuple(matrix.dense for matrix in self.matrices if matrix.dense is not None)
        return parts if len(parts) == len(self.matrices) else None

    def rows(self, ids: Tensor) -> Parts:
        """Return rows, float32 and contiguous."""
        return tuple(matrix.rows(ids) for matrix in self.matrices)

    def blocks(self) -> Iterator[tuple[slice, Parts]]:
        """Yield every row once, in order."""
        dense = self.dense
        if dense is not None:
            yield slice(0, self.n), dense
            return
        for start in range(0, self.n, self._block_rows):
            block = slice(start, min(start + self._block_rows, self.n))
            yield block, tuple(matrix.block(block) for matrix in self.matrices)

    def batches(self, ids: Tensor) -> Iterator[Parts]:
        """Yield the rows ``ids`` in batches that fit in a block."""
        for some in ids.split(max(1, min(1024, self._block_rows))):
            yield self.rows(some)


class Fold(Protocol):
    """Sets ``nearest[i] = min(nearest[i], min_j |row_i - center_j|^2)`` for the eligible rows, in place."""

    def __call__(self, rows: Parts, centers: Parts, nearest: Tensor, eligible: Tensor) -> None: ...


def native_fold(rows: Parts, centers: Parts, nearest: Tensor, eligible: Tensor) -> None:
    """Fold with the C++ kernels."""
    fold = native().k_center_fold if len(rows) == 1 else native().outer_fold
    fold(*rows, *centers, nearest, eligible, threads=torch.get_num_threads())


def cuda_fold(rows: Parts, centers: Parts, nearest: Tensor, eligible: Tensor) -> None:
    """Fold with the CUDA kernels."""
    if len(rows) == 1:
        CudaBackend().fold(rows[0], centers[0], nearest, eligible)
    else:
        outer_fold((rows[0], rows[1]), (centers[0], centers[1]), nearest, eligible)


def torch_fold(rows: Parts, centers: Parts, nearest: Tensor, eligible: Tensor) -> None:
    """Fold in plain torch: float32 differences, or the float64 formula of ``csrc/cpu/outer.hpp``."""
    if len(rows) == 1:
        TorchBackend().fold(rows[0], centers[0], nearest, eligible)
        return
    left, right = rows
    center_left, center_right = centers[0].double(), centers[1].double()
    center_norms = center_left.square().sum(1) * center_right.square().sum(1)
    step = max(1, (8 << 20) // max(1, 8 * (left.shape[1] + right.shape[1] + len(center_left))))
    for start in range(0, len(left), step):
        block = slice(start, start + step)
        part, wide_left, wide_right = nearest[block], left[block].double(), right[block].double()
        norms = (wide_left.square().sum(1) * wide_right.square().sum(1))[:, None] + center_norms
        squared = norms - 2 * (wide_left @ center_left.T) * (wide_right @ center_right.T)
        # What cancelled is computed again by a formula that does not.
        i, j = torch.nonzero(squared <= 1e-6 * norms, as_tuple=True)
        for near in torch.arange(len(i), device=left.device).split(step):
            rows_near, centers_near = i[near], j[near]
            squared[rows_near, centers_near] = _outer_differences(
                wide_left[rows_near], wide_right[rows_near], center_left[centers_near], center_right[centers_near]
            )
        torch.minimum(part, squared.amin(1).clamp_(min=0).to(torch.float32), out=part)


def _outer_differences(left: Tensor, right: Tensor, other_left: Tensor, other_right: Tensor) -> Tensor:
    """Return |left_i (x) right_i - other_left_i (x) other_right_i|^2 from differences and sums of the factors."""
    a, s, b, t = left - other_left, left + other_left, right - other_right, right + other_right
    squared = a.square().sum(1) * t.square().sum(1) + s.square().sum(1) * b.square().sum(1)
    return (squared + 2 * (a * s).sum(1) * (b * t).sum(1)) / 4


class Sampler:
    """Picks drawn in proportion to D^2; see `kmeans_plus_plus` for why the draws are exact.

    Attributes
    ----------
    trials, distances_evaluated : int
        Draws, and pairs compared, so far.
    """

    def __init__(self, points: Points, fold: Fold, eligible: Tensor, generator: torch.Generator) -> None:
        self._points, self._fold, self._generator = points, fold, generator
        self._eligible = eligible.to(device=points.device, dtype=torch.uint8)
        self._count = int(eligible.sum())
        self.nearest = torch.where(self._eligible.bool(), torch.inf, 0.0).to(torch.float32)
        # The bounds that draws are made by; the same memory on the CPU.
        self._bounds: np.ndarray[Any, Any] = self.nearest.cpu().numpy()
        # About sqrt(n) rows a group: a draw looks at one number a group, then at one group.
        self._group = 1 << max(6, (points.n - 1).bit_length() // 2)
        self._sums = np.zeros(-(-points.n // self._group))
        self._pending = tuple(
            torch.empty((_BATCH, m.d), dtype=torch.float32, device=points.device) for m in points.matrices
        )
        self._waiting = 0
        self._covered = False  # bounds are infinite before the first center
        self.trials = self.distances_evaluated = 0

    def cover(self, ids: Tensor) -> None:
        """Take the rows ``ids`` as centers."""
        for centers in self._points.batches(ids):
            self._fold_in(centers)
        self._note()

    def largest_norm(self) -> int:
        """Return the eligible row with the largest norm, ties to the lowest; only before there is a center."""
        self._fold_in(tuple(torch.zeros((1, m.d), device=self._points.device) for m in self._points.matrices))
        row = int(np.where(self._eligible.cpu().numpy(), self.nearest.cpu().numpy(), np.float32(-1)).argmax())
        self.nearest.masked_fill_(self._eligible.bool(), torch.inf)
        return row

    def uniform(self, count: int) -> list[int]:
        """Return ``count`` eligible rows, each as likely, in random order."""
        if count == 1:
            ranks = torch.randint(self._count, (1,), generator=self._generator)
        else:
            ranks = torch.randperm(self._count, generator=self._generator)[:count]
        ordered, order = ranks.sort()
        rows, passed = torch.empty_like(ordered), 0
        for start in range(0, self._points.n, _CHUNK):  # the row numbers of a whole pool are large
            here = torch.nonzero(self._eligible[start : start + _CHUNK].cpu()).flatten()
            first, last = torch.searchsorted(ordered, torch.tensor([passed, passed + len(here)])).tolist()
            rows[order[first:last]] = start + here[ordered[first:last] - passed]
            passed += len(here)
        chosen: list[int] = rows.tolist()
        return chosen

    def pick(self, row: int) -> None:
        """Make an eligible row a center."""
        for pending, part in zip(self._pending, self._points.rows(torch.tensor([row])), strict=True):
            pending[self._waiting] = part[0]
        self._waiting += 1
        self._eligible[row] = 0
        self.nearest[row] = 0
        self._count -= 1
        if self._covered:
            self._lower(row, 0.0)

    def draw(self, count: int) -> list[int]:
        """Return ``count`` further picks."""
        picks: list[int] = []
        rejected, patience = 0, max(_LEAST_REJECTIONS, self._points.n * self._points.width // _VALUES_PER_REJECTION)
        while len(picks) < count:
            if self._waiting == _BATCH or rejected >= patience or not self._sums.any():
                self.refresh()
                rejected = 0
            if not self._sums.any():  # every point coincides with a center
                picks += self.uniform(count - len(picks))
                break
            target, threshold = torch.rand(2, generator=self._generator, dtype=torch.float64).tolist()
            row = self._row_at(target)
            bound = float(self._bounds[row])
            squared = self._squared(row, bound)
            self.trials += 1
            if threshold * bound < squared:
                picks.append(row)
                self.pick(row)
            else:
                self._lower(row, squared)
                rejected += 1
        return picks

    def refresh(self) -> None:
        """Bring every bound up to date with the pending picks."""
        if self._waiting:
            self._fold_in(tuple(pending[: self._waiting] for pending in self._pending))
            self._waiting = 0
            self._note()

    def potential(self) -> float:
        """Return the sum of D^2 over the eligible rows."""
        self.refresh()
        return float(self._sums.sum())

    def _fold_in(self, centers: Parts) -> None:
        for block, rows in self._points.blocks():
            self._fold(rows, centers, self.nearest[block], self._eligible[block])
        self.distances_evaluated += self._count * len(centers[0])

    def _note(self) -> None:
        """Take over what was folded: the bounds, and their sum in each group."""
        if self._points.device.type != "cpu":
            self._bounds[:] = self.nearest.cpu().numpy()
        self._covered = True
        chunk = max(1, _CHUNK // self._group) * self._group
        for start in range(0, self._points.n, chunk):
            part = self._bounds[start : start + chunk].astype(np.float64)
            at = slice(start // self._group, start // self._group - (-len(part) // self._group))
            self._sums[at] = np.add.reduceat(part, np.arange(0, len(part), self._group))

    def _lower(self, row: int, squared: float) -> None:
        self._bounds[row] = squared
        start = row // self._group * self._group
        self._sums[row // self._group] = self._bounds[start : start + self._group].sum(dtype=np.float64)

    def _row_at(self, target: float) -> int:
        """Return the row where the running sum of the bounds passes ``target`` times its total."""
        totals = self._sums.cumsum()
        target *= totals[-1]
        group = _first_above(totals, self._sums, target)
        start = group * self._group
        bounds = self._bounds[start : start + self._group].astype(np.float64)
        return start + _first_above(bounds.cumsum(), bounds, target - (totals[group - 1] if group else 0.0))

    def _squared(self, row: int, bound: float) -> float:
        """Return D^2 of one row: the smaller of its bound and the distances to the pending picks."""
        if not self._waiting:
            return bound
        device = self._points.device
        nearest = torch.full((1,), bound, dtype=torch.float32, device=device)
        centers = tuple(pending[: self._waiting] for pending in self._pending)
        rows = self._points.rows(torch.tensor([row]))
        self._fold(rows, centers, nearest, torch.ones(1, dtype=torch.uint8, device=device))
        self.distances_evaluated += self._waiting
        return float(nearest)


def _first_above(sums: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], target: float) -> int:
    """Return the first position whose running sum is above ``target``; it has weight even where sums round."""
    at = int(np.searchsorted(sums, target, side="right"))
    if at < len(weights) and weights[at] > 0:
        return at
    return int(np.flatnonzero(weights)[-1])


FOLDS: dict[str, Fold] = {"native": native_fold, "cuda": cuda_fold, "torch": torch_fold}
