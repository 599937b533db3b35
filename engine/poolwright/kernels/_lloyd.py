"""Lloyd's iterations over blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from poolwright.kernels._arguments import choose_backend
from poolwright.kernels._k_center_backends import NativeBackend, TorchBackend
from poolwright.kernels._k_center_cuda import CudaBackend
from poolwright.kernels._matrix import Matrix
from poolwright.kernels._native_build import native

_CACHED_BYTES = 4 << 20  # stays in the caches
_FAISS_GPU_BYTES = 64 << 20
_RESEEDINGS = 3
_ORIGIN_ROWS = 1024
# Rows that come and go leave rounding errors of 2^-53 of the largest sum ever; float32 centroids have 24 bits.
_CANCELLED = 2.0**24
# To add and subtract more than a third of the rows takes longer than to sum all of them.
_MOVED_FEW = 1 / 3


class Search(Protocol):
    """Finds the nearest centroid of each row by differences, ties to the lowest."""

    whole: bool
    """A matrix in memory may be searched at once: nothing of its size is allocated."""

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest of the centroids (k, d) float32, (b,) of an integer type, and its squared distance, (b,)
        float32, for rows (b, d) of a floating type."""
        ...


class NativeSearch:
    """The C++ kernel, for CPU memory."""

    whole = True

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.empty(len(rows), dtype=torch.int32)
        squared = torch.empty(len(rows), dtype=torch.float32)
        native().nearest_center(rows, centroids, labels, squared, threads=torch.get_num_threads())
        return labels, squared


class TwoNearest(Protocol):
    """Finds candidates by float32 products."""

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centroid (b,) that looks nearest, and how much farther the next one looks, squared, (b,)."""
        ...


class ProductSearch:
    """Candidates by products around an origin; where rounding may have decided, all centroids by differences.

    Let e = (d + 8) 2^-24 (2 |x| + D)^2 for a row x and its distance D to the candidate. Products of float32 in any
    order of summation are off by at most e for the candidate and for every centroid as near as it. So a gap of more
    than 2 e to the next one proves the candidate (N. Higham, "Accuracy and stability of numerical algorithms", 2002,
    section 3.1).
    """

    whole = False

    def __init__(self, candidates: TwoNearest, origin: Tensor) -> None:
        self._candidates, self._origin = candidates, origin

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        if len(centroids) == 1:
            labels = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
            return labels, _squared_to(rows, centroids, labels)
        near = rows.to(torch.float32) - self._origin
        labels, gap = self._candidates(near, centroids - self._origin)
        squared = _squared_to(rows, centroids, labels)
        lengths = torch.linalg.vector_norm(near, dim=1)
        error = (rows.shape[1] + 8) * _unit_roundoff() * (2 * lengths + squared.sqrt()).square()
        # Written so that a gap that is not a number is in doubt.
        doubtful = torch.nonzero(~(gap > 2.02 * error)).flatten()
        wide = centroids.double()
        for some in doubtful.split(max(1, _CACHED_BYTES // (8 * max(len(centroids), rows.shape[1])))):
            distances = torch.cdist(rows[some].double(), wide, compute_mode="donot_use_mm_for_euclid_dist")
            least = distances.amin(dim=1, keepdim=True)
            order = torch.arange(len(centroids), device=rows.device)
            labels[some] = torch.where(distances == least, order, len(centroids)).amin(dim=1)
            squared[some] = least[:, 0].square().to(torch.float32)
        return labels, squared


def _unit_roundoff() -> float:
    """Return the largest relative error of a float32 that goes into a product."""
    # "high" and "medium" let torch round factors to TF32 or bfloat16.
    return 2.0**-24 if torch.get_float32_matmul_precision() == "highest" else 2.0**-8


def _squared_to(rows: Tensor, centroids: Tensor, labels: Tensor) -> Tensor:
    step = max(1, _CACHED_BYTES // (4 * max(1, rows.shape[1])))
    parts = zip(rows.split(step), labels.split(step), strict=True)
    return torch.cat([(part.to(torch.float32) - centroids[at]).square_().sum(dim=1) for part, at in parts])


def origin_of(matrix: Matrix) -> Tensor:
    """Return a point amid the rows, (d,) float32, that a few outliers do not move: medians of a sample."""
    ids = torch.linspace(0, matrix.n - 1, min(matrix.n, _ORIGIN_ROWS, matrix.block_rows), dtype=torch.float64)
    return matrix.rows(ids.long()).median(dim=0).values


def two_nearest_by_torch(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Search with a matrix product."""
    norms = centroids.square().sum(dim=1)
    labels, gaps = [], []
    for part in rows.split(max(1, _CACHED_BYTES // (4 * len(centroids)))):
        squared = torch.addmm(norms, part, centroids.T, alpha=-2)
        least, label = squared.min(dim=1, keepdim=True)
        labels.append(label[:, 0])
        gaps.append(squared.scatter_(1, label, torch.inf).amin(dim=1) - least[:, 0])
    return torch.cat(labels), torch.cat(gaps)


class FaissCpu:
    """`faiss.knn` on as many threads as torch has."""

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        threads = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        try:
            squared, labels = self._faiss.knn(rows.cpu().numpy(), centroids.cpu().numpy(), 2)
        finally:
            self._faiss.omp_set_num_threads(threads)
        gap = torch.from_numpy(squared[:, 1] - squared[:, 0])
        return torch.from_numpy(labels[:, 0].copy()).to(rows.device), gap.to(rows.device)


class FaissGpu:
    """`faiss.bfKnn` on the current stream of the rows' device, or on the first GPU."""

    def __init__(self, faiss: Any) -> None:
        self._faiss, self._resources = faiss, faiss.StandardGpuResources()
        self._resources.setTempMemory(_FAISS_GPU_BYTES)

    def __call__(self, rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        device = rows.device if rows.is_cuda else torch.device("cuda", 0)
        stream = torch.cuda.current_stream(device).cuda_stream
        self._resources.setDefaultStream(device.index, stream)
        labels, squared = self._two_nearest(rows.to(device), centroids.to(device), device.index)
        return labels[:, 0].to(rows.device), (squared[:, 1] - squared[:, 0]).to(rows.device)

    def _two_nearest(self, rows: Tensor, centroids: Tensor, device: int) -> tuple[Tensor, Tensor]:
        faiss, queries, vectors = self._faiss, rows.contiguous(), centroids.contiguous()
        labels = torch.empty((len(rows), 2), dtype=torch.int64, device=rows.device)
        squared = torch.empty((len(rows), 2), dtype=torch.float32, device=rows.device)
        ask = faiss.GpuDistanceParams()
        ask.metric, ask.k, ask.dims, ask.device = faiss.METRIC_L2, 2, rows.shape[1], device
        ask.vectors, ask.numVectors = faiss.cast_integer_to_float_ptr(vectors.data_ptr()), len(vectors)
        ask.queries, ask.numQueries = faiss.cast_integer_to_float_ptr(queries.data_ptr()), len(queries)
        ask.vectorsRowMajor = ask.queriesRowMajor = True
        ask.outDistances = faiss.cast_integer_to_float_ptr(squared.data_ptr())
        ask.outIndices = faiss.cast_integer_to_idx_t_ptr(labels.data_ptr())
        ask.outIndicesType = faiss.IndicesDataType_I64
        faiss.bfKnn(self._resources, ask)
        return labels, squared


def sums_by_label(wide: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return the sum of the float64 rows of each label, (k, d), in a fixed order."""
    if wide.device.type != "cpu":
        return sums_of_segments(wide, labels, k)
    from scipy.sparse import csr_array

    n = len(wide)
    members = csr_array((np.ones(n), (labels.numpy(), np.arange(n))), shape=(k, n))
    return torch.from_numpy(members @ wide.numpy())


def sums_of_segments(wide: Tensor, labels: Tensor, k: int) -> Tensor:
    """As `sums_by_label`, without atomic additions, whose order is not fixed on a GPU."""
    lengths = torch.bincount(labels, minlength=k)
    return torch.segment_reduce(wide[labels.argsort(stable=True)], "sum", lengths=lengths, axis=0, initial=0)


class State(NamedTuple):
    """Centroids, and what the points say to them."""

    centroids: Tensor  # (k, d) float32
    labels: Tensor  # (n,) int32, nearest centroids
    sums: Tensor  # (k, d) float64, of the members
    largest: Tensor  # (k,) float64: the largest value that was added to or taken from the sums
    mass: Tensor  # (k,) float64: the weight of the members
    counts: Tensor  # (k,) int64
    inertia: float
    moved: int  # labels that changed; n at first


class Lloyd:
    """Lloyd's iterations on one matrix, with labels and distances by differences and sums in float64."""

    def __init__(self, matrix: Matrix, mass: Tensor | None, search: Search) -> None:
        self._matrix, self._mass, self._search = matrix, mass, search

    def run(self, centroids: Tensor, iterations: int, tolerance: float) -> tuple[State, int]:
        """Return the state after at most ``iterations`` updates, and the number of updates."""
        state = self.assign(centroids)
        for done in range(iterations):
            empty = state.mass == 0
            moved = (state.sums / torch.where(empty, 1.0, state.mass)[:, None]).to(torch.float32)
            if empty.any():
                moved = self._reseeded(moved, empty)
            after = self.assign(moved, state)
            gain = state.inertia - after.inertia
            if gain < 0:  # centroids are rounded to float32
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

    def assign(self, centroids: Tensor, before: State | None = None) -> State:
        """Find the nearest centroid of every point.

        Given the state before, of as many centroids and after few changes, only points that change their cluster are
        summed again.
        """
        k, d, device = len(centroids), self._matrix.d, self._matrix.device
        labels = torch.empty(self._matrix.n, dtype=torch.int32, device=device)
        squared = torch.empty(self._matrix.n, dtype=torch.float32, device=device)
        if before is not None and before.moved <= _MOVED_FEW * len(labels):
            sums, largest, afresh = before.sums.clone(), before.largest.clone(), False
        else:
            sums = torch.zeros((k, d), dtype=torch.float64, device=device)
            largest, afresh = torch.zeros(k, dtype=torch.float64, device=device), True
        inertia, changed = 0.0, 0 if before is not None else len(labels)
        for at, block in self._searchable():
            found, squared[at] = self._search(block, centroids)
            labels[at] = found.to(torch.int32)
            if afresh:
                self._add(sums, largest, block, at.start, labels[at])
            if before is None:
                continue
            moved = labels[at] != before.labels[at]
            changed += int(torch.count_nonzero(moved))
            if not afresh:
                self._add(sums, largest, block, at.start, labels[at], moved)
                self._add(sums, largest, block, at.start, before.labels[at], moved, sign=-1)
        for at in self._spans():
            near = squared[at].double()
            inertia += float((near if self._mass is None else near * self._mass[at]).sum())
        del squared
        counts = torch.bincount(labels, minlength=k)
        mass = counts.double() if self._mass is None else torch.bincount(labels, self._mass, minlength=k)
        if not afresh and d:
            cancelled = (largest > _CANCELLED * sums.abs().amax(dim=1)) & (mass > 0)
            if cancelled.any():
                sums[cancelled] = largest[cancelled] = 0
                for at, block in self._searchable():
                    self._add(sums, largest, block, at.start, labels[at], cancelled[labels[at]])
        return State(centroids, labels, sums, largest, mass, counts, inertia, changed)

    def _searchable(self) -> Iterator[tuple[slice, Tensor]]:
        dense = self._matrix.dense
        if self._search.whole and dense is not None:
            yield slice(0, len(dense)), dense
            return
        for start, block in self._matrix.blocks():
            yield slice(start, start + len(block)), block

    def _spans(self) -> Iterator[slice]:
        for start in range(0, self._matrix.n, self._matrix.block_rows):
            yield slice(start, min(start + self._matrix.block_rows, self._matrix.n))

    def _add(
        self,
        sums: Tensor,
        largest: Tensor,
        block: Tensor,
        start: int,
        labels: Tensor,
        wanted: Tensor | None = None,
        sign: int = 1,
    ) -> None:
        """Add the (weighted) rows of a block, which starts at row ``start``, to the sums of their labels."""
        step = self._matrix.block_rows
        for first in range(0, len(block), step):
            part = slice(first, min(first + step, len(block)))
            rows, at = block[part], labels[part]
            mass = None if self._mass is None else self._mass[start + part.start : start + part.stop]
            if wanted is not None:
                ids = torch.nonzero(wanted[part]).flatten()
                if not len(ids):
                    continue
                rows, at, mass = rows[ids], at[ids], None if mass is None else mass[ids]
            touched, at = at.unique(return_inverse=True)
            wide = rows.double()
            found = sums_by_label(wide if mass is None else wide * mass[:, None], at, len(touched))
            touched = touched.long()
            sums.index_add_(0, touched, found, alpha=sign)
            if found.shape[1]:
                largest[touched] = torch.maximum(largest[touched], found.abs().amax(dim=1))

    def _reseeded(self, centroids: Tensor, empty: Tensor) -> Tensor:
        """Move empty clusters to points, each the farthest from all centroids; those at distance 0 stay empty."""
        matrix, device = self._matrix, self._matrix.device
        kept = centroids[~empty]
        squared = torch.empty(matrix.n, dtype=torch.float32, device=device)
        for at, block in self._searchable():
            squared[at] = self._search(block, kept)[1]
        eligible = torch.ones(matrix.n, dtype=torch.uint8, device=device)
        if self._mass is not None:
            eligible[self._mass == 0] = 0
        wanted = torch.nonzero(empty).flatten()
        count = min(len(wanted), int(torch.count_nonzero(eligible)))
        rows, distances = _farthest(matrix, squared, eligible, count)
        rows = rows[distances > 0].cpu()
        centroids = centroids.clone()
        for some, to in zip(rows.split(matrix.block_rows), wanted[: len(rows)].split(matrix.block_rows), strict=True):
            centroids[to] = matrix.rows(some)
        return centroids


def _farthest(matrix: Matrix, squared: Tensor, eligible: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return rows, each the farthest from all before it, and the squared distances they had; in place."""
    backend = choose_backend("kmeans: far points", "auto", matrix.device)
    if backend == "cuda" and matrix.dense is not None:
        return CudaBackend().greedy(matrix.dense, squared, eligible, count, None)[:2]
    compute = NativeBackend() if backend == "native" else TorchBackend()
    nothing = torch.empty((0, matrix.d), dtype=torch.float32, device=matrix.device)
    return compute.lazily(matrix, nothing, squared, eligible, count, None)[:2]
