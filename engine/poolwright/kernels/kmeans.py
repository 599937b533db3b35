"""k-means: Lloyd's iterations, with the nearest centroids found by FAISS or torch."""

from __future__ import annotations

import importlib
import importlib.util
import operator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolwright.kernels import reference
from poolwright.kernels._arguments import say_once
from poolwright.kernels._matrix import Matrix, check_finite, open_matrix
from poolwright.kernels._native_build import serial_after_fork
from poolwright.kernels.kmeans_plus_plus import as_generator, kmeans_plus_plus

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from poolwright.kernels._lloyd import Nearest

KMeansBackend = Literal["auto", "faiss", "torch", "reference"]

# Two generations of labels (int64), weights and distances (float64), and what the seeding takes.
_WORKSPACE_PER_ROW = 8 + 8 + 8 + 8 + 16


class KMeansResult(NamedTuple):
    """What `kmeans` returns; arrays are numpy for numpy input, else tensors on the device of x."""

    centroids: Any
    """(k', d) float32, k' <= k."""
    labels: Any
    """(n,) int64: the nearest centroid."""
    inertia: float
    """Sum of the (weighted) squared distances of the points to it."""
    iterations: int
    """Updates of the centroids that were done."""
    counts: Any
    """(k',) int64: the points of each cluster, at least 1."""


def kmeans(
    x: Any,
    k: int,
    *,
    seed: int | torch.Generator = 0,
    iterations: int = 25,
    init: Any = "k-means++",
    weights: Any = None,
    subsample: int | None = None,
    tolerance: float = 1e-4,
    backend: KMeansBackend = "auto",
    memory_limit: int | None = None,
) -> KMeansResult:
    """Cluster points around k centroids.

    FAISS does the expensive part, the search for the nearest centroid; seeding, sums and counts are ours, so
    that none of FAISS's habits shows: every point is used, counts are integers (float32 ones stop at 2^24),
    and the seed is the caller's.

    Parameters
    ----------
    x : numpy.ndarray, numpy.memmap, torch.Tensor or Rows
        (n, d) as for `k_center`.
    k : int
        Number of clusters, 1 to n.
    seed : int or torch.Generator
        Of the seeding and the subsample; a generator must be on the CPU, and is advanced.
    iterations : int
        Most updates of the centroids; 0 assigns to the initial ones.
    init : "k-means++", "random" or array (k, d)
        Where centroids start: `kmeans_plus_plus`, k different points, or these.
    weights : array, optional
        (n,), finite, not negative. They weigh sums and inertia; the seeding only leaves out points of weight 0.
    subsample : int, optional
        Iterate on at most ``subsample * k`` points, drawn at random; labels, counts and inertia are of all.
    tolerance : float
        Stop when an iteration lowers the inertia by no more than this part of it. It always stops when no
        label changes.
    backend : {"auto", "faiss", "torch", "reference"}
        "auto": FAISS where it is installed, else torch. Both start and update alike. FAISS searches on the
        GPU where it was built for one and finds one. "reference" is slow float64.
    memory_limit : int, optional
        Bytes to allocate at most beside x, centroids included: 48 a row, then float32 copies or blocks. A
        quarter of the memory by default.

    Returns
    -------
    KMeansResult
        No cluster is empty: one that loses its points moves to the point that is farthest from all
        centroids. Where that point is at distance 0 there are no more distinct points, and the result has
        fewer than k clusters. The inertia never rises from one iteration to the next. Equal distances (as
        float32 products give them) go to the lowest cluster. The same seed, backend and number of threads
        give the same result.

    Raises
    ------
    TypeError, ValueError
        x as in `k_center`; k, iterations, subsample or tolerance out of range; weights negative, not finite
        or positive for fewer than k points; ``init`` of another shape or not finite.
    RuntimeError
        FAISS was asked for by name and is not installed.

    Notes
    -----
    O(n k d) time an iteration, one pass over x. Distances are float32 products around the mean of x; sums
    are float64.

    References
    ----------
    S. Lloyd, "Least squares quantization in PCM", 1982. J. Johnson et al., "Billion-scale similarity search
    with GPUs", 2019 (FAISS).

    Examples
    --------
    >>> import numpy as np
    >>> from poolwright.kernels import kmeans
    >>> sorted(kmeans(np.float32([[0], [1], [9], [10]]), 2).counts.tolist())
    [2, 2]
    """
    with serial_after_fork():
        return _kmeans(x, k, seed, iterations, init, weights, subsample, tolerance, backend, memory_limit)


def _kmeans(
    x: Any,
    k: int,
    seed: int | torch.Generator,
    iterations: int,
    init: Any,
    weights: Any,
    subsample: int | None,
    tolerance: float,
    backend: str,
    memory_limit: int | None,
) -> KMeansResult:
    import torch

    from poolwright.kernels import _lloyd

    k, iterations = operator.index(k), operator.index(iterations)
    matrix, spare = open_matrix(x, unit_rows=False, memory_limit=memory_limit, workspace=_WORKSPACE_PER_ROW)
    # A block lies there as read, less the mean, in float64, and as FAISS and scipy copy it.
    matrix.block_rows = max(1, matrix.block_rows // 4)
    _check_numbers(k, iterations, subsample, tolerance, matrix.n)
    if backend not in ("auto", "faiss", "torch", "reference"):
        raise ValueError(f'backend must be "auto", "faiss", "torch" or "reference", not {backend!r}')
    if spare < 3 * 8 * k * matrix.d:
        raise ValueError(f"memory_limit leaves {spare} bytes, and {k} centroids take {3 * 8 * k * matrix.d}")
    everything = torch.ones(matrix.n, dtype=torch.bool)
    check_finite(matrix, everything)
    mass = _weights(weights, matrix, k)
    generator = as_generator(seed)
    usable = everything if mass is None else mass.cpu() > 0

    trained, trained_mass = matrix, mass
    if subsample is not None and int(usable.sum()) > subsample * k:
        ids = torch.nonzero(usable).flatten()
        ids = ids[torch.randperm(len(ids), generator=generator)[: subsample * k]].sort().values
        trained = matrix.gathered(ids)
        trained_mass = None if mass is None else mass[ids.to(mass.device)]
        usable = torch.ones(len(ids), dtype=torch.bool)
    start = _initial(init, trained, k, usable, generator, backend, spare)
    if backend == "reference":
        return _run_reference(matrix, trained, start, iterations, mass, trained_mass)
    nearest = _choose(backend, matrix)
    lloyd = _lloyd.Lloyd(trained, trained_mass, nearest)
    state, done = lloyd.run(start, iterations, tolerance)
    if trained is not matrix:
        lloyd = _lloyd.Lloyd(matrix, mass, nearest)
        state = lloyd.assign(state.centroids)
    found = lloyd.without_empty(state)
    centroids, labels, counts = found.centroids.to(torch.float32), found.labels, found.counts
    if matrix.numpy:
        return KMeansResult(centroids.numpy(), labels.numpy(), found.inertia, done, counts.numpy())
    return KMeansResult(centroids, labels, found.inertia, done, counts)


def _check_numbers(k: int, iterations: int, subsample: int | None, tolerance: float, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}, but x has {n} rows: ask for 1 to {n} clusters")
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, and is {iterations}")
    if subsample is not None and operator.index(subsample) < 1:
        raise ValueError(f"subsample must be at least 1 point a cluster, and is {subsample}")
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be a number of at least 0, not {tolerance}")


def _weights(weights: Any, matrix: Matrix, k: int) -> Tensor | None:
    import torch

    if weights is None:
        return None
    mass = torch.as_tensor(weights).detach().to(device=matrix.device, dtype=torch.float64)
    if mass.shape != (matrix.n,):
        raise ValueError(f"weights must be one number a row, ({matrix.n},), not of shape {tuple(mass.shape)}")
    wrong = ~(torch.isfinite(mass) & (mass >= 0))
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} weights are negative or not finite; the first is that of row {int(wrong.nonzero()[0])}"
        )
    if int((mass > 0).sum()) < k:
        raise ValueError(f"k = {k}, but only {int((mass > 0).sum())} points have a positive weight")
    return mass


def _initial(
    init: Any, matrix: Matrix, k: int, usable: Tensor, generator: torch.Generator, backend: str, spare: int
) -> Tensor:
    """Return the first centroids, float64 (k, d)."""
    import torch

    if isinstance(init, str):
        candidates = torch.nonzero(usable).flatten()
        if init == "k-means++":
            picks = kmeans_plus_plus(
                matrix.dense if matrix.dense is not None else _Blocks(matrix),
                k,
                seed=generator,
                candidates=None if len(candidates) == matrix.n else candidates,
                backend="reference" if backend == "reference" else "auto",
                memory_limit=spare + 16 * matrix.n,
            ).indices
        elif init == "random":
            picks = candidates[torch.randperm(len(candidates), generator=generator)[:k]]
        else:
            raise ValueError(f'init must be "k-means++", "random" or an array ({k}, {matrix.d}), not {init!r}')
        return matrix.rows(torch.as_tensor(picks).cpu()).double()
    start = torch.as_tensor(init).detach().to(device=matrix.device, dtype=torch.float64).clone()
    if start.shape != (k, matrix.d):
        raise ValueError(f"init must be ({k}, {matrix.d}), one centroid a cluster, not {tuple(start.shape)}")
    if not torch.isfinite(start).all():
        raise ValueError("init holds NaN or infinity")
    return start


class _Blocks:
    """A matrix that is read in blocks, as Rows."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self.shape = (matrix.n, matrix.d)

    def __getitem__(self, rows: Any) -> Tensor:
        return self._matrix.block(rows) if isinstance(rows, slice) else self._matrix.rows(rows)

    def blocks(self) -> Any:
        return self._matrix.blocks()


def _choose(backend: str, matrix: Matrix) -> Nearest:
    from poolwright.kernels import _lloyd

    if backend != "torch":
        if importlib.util.find_spec("faiss") is not None:
            faiss = importlib.import_module("faiss")
            on_gpu = faiss.get_num_gpus() > 0
            say_once(f"kmeans: backend faiss, on the {'GPU' if on_gpu else 'CPU'}")
            return _lloyd.FaissGpu(faiss) if on_gpu else _lloyd.FaissCpu(faiss)
        if backend == "faiss":
            raise RuntimeError('backend="faiss" is not there: pip install "poolwright[faiss]"')
        say_once('kmeans: backend torch, since FAISS is not installed (pip install "poolwright[faiss]")')
    return _lloyd.nearest_by_torch


def _run_reference(
    matrix: Matrix, trained: Matrix, start: Tensor, iterations: int, mass: Tensor | None, trained_mass: Tensor | None
) -> KMeansResult:
    import torch

    rows = torch.cat([block.double() for _, block in matrix.blocks()])
    part = rows if trained is matrix else torch.cat([block.double() for _, block in trained.blocks()])
    centroids, _, _ = reference.kmeans(part, start, iterations, weights=trained_mass)
    centroids, labels, inertia = reference.kmeans(rows, centroids, 0, weights=mass)
    used, labels = labels.unique(return_inverse=True)
    centroids, counts = centroids[used].to(torch.float32), torch.bincount(labels)
    if matrix.numpy:
        return KMeansResult(centroids.numpy(), labels.numpy(), inertia, iterations, counts.numpy())
    return KMeansResult(centroids, labels, inertia, iterations, counts)
