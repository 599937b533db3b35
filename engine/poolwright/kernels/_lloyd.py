"""Lloyd's iterations over blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from poolwright.kernels._arguments import choose_backend
from poolwright.kernels._matrix import Matrix
from poolwright.kernels._seeding import FOLDS

Nearest = Callable[[Tensor, Tensor], Tensor]
"""Rows (b, d) and centroids (k, d), float32 -> the nearest centroid of each row, (b,) int64 on their device."""

_PRODUCT_BYTES = 4 << 20  # stays in the caches
_RESEEDINGS = 3


def nearest_by_torch(rows: Tensor, centroids: Tensor) -> Tensor:
    """Search with a matrix product; ties to the lowest."""
    norms = centroids.square().sum(dim=1)
    step = max(1, _PRODUCT_BYTES // (4 * len(centroids)))
    return torch.cat([torch.addmm(norms, part, centroids.T, alpha=-2).argmin(dim=1) for part in rows.split(step)])


class FaissCpu:
    """`faiss.knn` on as many threads as torch has."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss

    def __call__(self, rows: Tensor, centroids: Tensor) -> Tensor:
        threads = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        try:
            _, labels = self._faiss.knn(rows.cpu().numpy(), centroids.cpu().numpy(), 1)
        finally:
            self._faiss.omp_set_num_threads(threads)
        return torch.from_numpy(labels[:, 0]).to(rows.device)


class FaissGpu:
    """`faiss.bfKnn` on the current stream of the rows' device, or on the first GPU."""

    def __init__(self, faiss: Any) -> None:
        self._faiss, self._resources = faiss, faiss.StandardGpuResources()

    def __call__(self, rows: Tensor, centroids: Tensor) -> Tensor:
        faiss, device = self._faiss, rows.device if rows.is_cuda else torch.device("cuda", 0)
        queries, vectors = rows.to(device), centroids.to(device)
        labels = torch.empty((len(rows), 1), dtype=torch.int64, device=device)
        squared = torch.empty((len(rows), 1), dtype=torch.float32, device=device)
        self._resources.setDefaultStream(device.index, torch.cuda.current_stream(device).cuda_stream)
        ask = faiss.GpuDistanceParams()
        ask.metric, ask.k, ask.dims, ask.device = faiss.METRIC_L2, 1, rows.shape[1], device.index
        ask.vectors, ask.numVectors = faiss.cast_integer_to_float_ptr(vectors.data_ptr()), len(vectors)
        ask.queries, ask.numQueries = faiss.cast_integer_to_float_ptr(queries.data_ptr()), len(queries)
        ask.vectorsRowMajor = ask.queriesRowMajor = True
        ask.outDistances = faiss.cast_integer_to_float_ptr(squared.data_ptr())
        ask.outIndices, ask.outIndicesType = (
            faiss.cast_integer_to_idx_t_ptr(labels.data_ptr()),
            faiss.IndicesDataType_I64,
        )
        faiss.bfKnn(self._resources, ask)
        return labels[:, 0].to(rows.device)


def sums_by_label(rows: Tensor, labels: Tensor, mass: Tensor | None, k: int) -> Tensor:
    """Return the (weighted) sum of the rows of each label, float64 (k, d), in a fixed order."""
    wide = rows.double() if mass is None else rows.double() * mass[:, None]
    if rows.device.type == "cpu":
        from scipy.sparse import csr_array

        n = len(rows)
        members = csr_array((np.ones(n), (labels.numpy(), np.arange(n))), shape=(k, n))
        return torch.from_numpy(members @ wide.numpy())
    return sums_of_segments(wide, labels, k)


def sums_of_segments(wide: Tensor, labels: Tensor, k: int) -> Tensor:
    """As `sums_by_label`, without atomic additions, whose order is not fixed on a GPU."""
    lengths = torch.bincount(labels, minlength=k)
    return torch.segment_reduce(wide[labels.argsort(stable=True)], "sum", lengths=lengths, axis=0, initial=0)


class State(NamedTuple):
    """Centroids, and what the points say to them."""

    centroids: Tensor  # (k, d) float64
    labels: Tensor  # (n,) int64, nearest centroids
    sums: Tensor  # (k, d) float64, of the members, less the mean of x
    mass: Tensor  # (k,) float64: the weight of the members
    counts: Tensor  # (k,) int64
    inertia: float


class Lloyd:
    """Lloyd's iterations on one matrix.

    Distances are float32 products of what is left when the mean of x is subtracted: products of points far
    from the origin lose the digits that tell clusters apart.
    """

    def __init__(self, matrix: Matrix, mass: Tensor | None, nearest: Nearest) -> None:
        self._matrix, self._mass, self._nearest = matrix, mass, nearest
        total = sum((block.sum(dim=0, dtype=torch.float64) for _, block in matrix.blocks()), torch.zeros(()))
        self._mean = total.to(matrix.device) / matrix.n
        self._mean32 = self._mean.to(torch.float32)
        self._mean = self._mean32.double()
        self._spread: float | None = None

    def run(self, centroids: Tensor, iterations: int, tolerance: float) -> tuple[State, int]:
        """Return the state after at most ``iterations`` updates, and the number of updates."""
        state = self.assign(centroids)
        for done in range(iterations):
            empty = state.mass == 0
            moved = torch.where(empty[:, None], 0, state.sums / state.mass[:, None]) + self._mean
            if empty.any():
                moved = self._reseeded(moved, empty)
            after = self.assign(moved, state)
            gain = state.inertia - after.inertia
            if gain < 0:  # the last digits of the products
                return state, done
            same = torch.equal(after.labels, state.labels)
            state = after
            if same or (gain <= tolerance * state.inertia and not (state.mass == 0).any()):
                return state, done + 1
        return state, iterations

    def without_empty(self, state: State) -> State:
        """Move empty clusters to far points, or drop them where there is none."""
        for _ in range(_RESEEDINGS):
            empty = state.mass == 0
            if not empty.any():
                return state
            state = self.assign(self._reseeded(state.centroids, empty))
        while (state.mass == 0).any():
            state = self.assign(state.centroids[state.mass > 0])
        return state

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield float32 blocks less the mean."""
        for start, block in self._matrix.blocks():
            yield slice(start, start + len(block)), block.to(torch.float32) - self._mean32

    def assign(self, centroids: Tensor, before: State | None = None) -> State:
        """Find the nearest centroid of every point.

        Given the state before, of as many centroids, only points that change their cluster are summed again.
        """
        k, device = len(centroids), self._matrix.device
        near = centroids - self._mean
        near32 = near.to(torch.float32).contiguous()
        labels = torch.empty(self._matrix.n, dtype=torch.int64, device=device)
        sums = torch.zeros((k, self._matrix.d), dtype=torch.float64, device=device)
        if before is not None:
            sums += before.sums
        spread = 0.0
        for at, rows in self._blocks():
            labels[at] = self._nearest(rows, near32)
            mass = None if self._mass is None else self._mass[at]
            if before is None:
                sums += sums_by_label(rows, labels[at], mass, k)
            else:
                moved = torch.nonzero(labels[at] != before.labels[at]).flatten()
                part, weight = rows[moved], None if mass is None else mass[moved]
                sums += sums_by_label(part, labels[at][moved], weight, k)
                sums -= sums_by_label(part, before.labels[at][moved], weight, k)
            if self._spread is None:
                squares = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
                spread += float((squares if mass is None else squares * mass).sum())
        if self._spread is None:
            self._spread = spread
        counts = torch.bincount(labels, minlength=k)
        total = counts.double() if self._mass is None else torch.bincount(labels, self._mass, minlength=k)
        # sum |x|^2 - 2 <c, sum x> + m |c|^2, in float64 around the mean
        inertia = self._spread + float((total * near.square().sum(dim=1)).sum() - 2 * (near * sums).sum())
        return State(centroids, labels, sums, total, counts, max(0.0, inertia))

    def _reseeded(self, centroids: Tensor, empty: Tensor) -> Tensor:
        """Move empty clusters to points, each the farthest from all centroids; those at distance 0 stay empty."""
        fold = FOLDS[choose_backend("kmeans: far points", "auto", centroids.device)]
        matrix, device = self._matrix, self._matrix.device
        squared = torch.full((matrix.n,), torch.inf, dtype=torch.float32, device=device)
        eligible = torch.ones(matrix.n, dtype=torch.uint8, device=device)
        if self._mass is not None:
            eligible[self._mass == 0] = 0
        centroids = centroids.clone()
        kept = centroids[~empty].to(torch.float32).contiguous()
        self._fold(fold, kept, squared, eligible)
        for cluster in torch.nonzero(empty).flatten().tolist():
            farthest = torch.where(eligible.bool(), squared, -1.0)
            row = int(torch.nonzero(farthest == farthest.max())[0])
            if float(squared[row]) == 0:
                break
            point = matrix.rows(torch.tensor([row]))
            centroids[cluster] = point[0].double()
            self._fold(fold, point, squared, eligible)
        return centroids

    def _fold(self, fold: Any, centers: Tensor, squared: Tensor, eligible: Tensor) -> None:
        for start, block in self._matrix.blocks():
            at = slice(start, start + len(block))
            fold((block,), (centers,), squared[at], eligible[at])
