"""k-means: Lloyd's iterations, with the nearest centroids found by C++ kernels, FAISS or torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolwright.kernels import reference
from poolwright.kernels._arguments import choose_backend, integer, say_once
from poolwright.kernels._matrix import Matrix, check_finite, largest_value, open_matrix
from poolwright.kernels._native_build import build_info, serial_after_fork
from poolwright.kernels.kmeans_plus_plus import as_generator, draw_centers

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from poolwright.kernels._lloyd import Search

KMeansBackend = Literal["auto", "native", "faiss", "torch", "reference"]

# Two generations of labels (int32), weights (float64), distances (float32), a mask, and what seeding and the search
# for far points take (17); at the end the labels as int64.
_WORKSPACE_PER_ROW = 4 + 4 + 8 + 4 + 1 + 17 + 8
# Centroids (float32) and sums (float64) of two states, what one update makes of them, a block's own sums, and the
# panels of the search.
_WORKSPACE_PER_CENTROID = 2 * (4 + 8) + (8 + 4) + 2 * 8 + 12
# Levels on which the C++ search beats FAISS's.
_FAST_LEVELS = ("avx512", "amx")


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

    Every point is used, counts are integers (float32 ones stop at 2^24), the seed is the caller's, and labels and
    inertia come from differences, which do not cancel: an outlier, or a mean far from the origin, takes no digits from
    the other points. FAISS, where it is used, proposes the nearest centroid.

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
    backend : {"auto", "native", "faiss", "torch", "reference"}
        "auto": the C++ kernels for x on the CPU where they are built and the CPU has AVX-512, else FAISS where it is
        installed (for CUDA tensors: built for GPUs), else torch. They start and update alike. FAISS by name searches
        on the GPU where it was built for one and finds one. "reference" is slow float64, which moves no cluster and
        stops early only where no label changes.
    memory_limit : int, optional
        Bytes to allocate at most beside x, centroids included: 46 a row, 64 a value of
        the centroids, then float32 copies or blocks. A
        quarter of the memory by default.

    Returns
    -------
    KMeansResult
        No cluster is empty: one that loses its points moves to the point that is farthest from all
        centroids. Where that point is at distance 0 there are no more distinct points, and the result has
        fewer than k clusters. The inertia never rises from one iteration to the next. Equal
        distances go to the lowest cluster. The same seed, backend and number of threads
        give the same result.

    Raises
    ------
    TypeError, ValueError
        x as in `k_center`; k, iterations, subsample or tolerance out of range; weights negative, not finite
        or positive for fewer than k points; ``init`` of another shape, not finite or too large for float32; the limit
        too small.
    RuntimeError
        The backend asked for by name is not there (says why).

    Notes
    -----
    O(n k d) time an iteration, one pass over x, as float32 products with a bound on their rounding errors; what they
    leave open is decided by differences. Sums are float64, centroids float32.

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

    k, iterations = integer("k", k), integer("iterations", iterations)
    shape: tuple[int, ...] = tuple(getattr(x, "shape", ()))
    if len(shape) == 2:  # others are refused below
        _check_numbers(k, iterations, subsample, tolerance, shape[0])
    matrix, spare = open_matrix(
        x,
        unit_rows=False,
        memory_limit=memory_limit,
        workspace=_WORKSPACE_PER_ROW,
        columns=_WORKSPACE_PER_CENTROID * max(0, k),
    )
    # A block lies there as read, less the origin, in float64, and as FAISS and scipy copy it.
    matrix.block_rows = max(1, matrix.block_rows // 4)
    if backend not in ("auto", "native", "faiss", "torch", "reference"):
        raise ValueError(f'backend must be "auto", "native", "faiss", "torch" or "reference", not {backend!r}')
    everything = torch.ones(matrix.n, dtype=torch.bool)
    check_finite(matrix, everything)
    mass = _weights(weights, matrix, k)
    generator = as_generator(seed)
    usable = everything if mass is None else mass.cpu() > 0

    trained, trained_mass = matrix, mass
    if subsample is not None and int(usable.sum()) > subsample * k:
        ids = torch.nonzero(usable).flatten()
        ids = ids[torch.randperm(len(ids), generator=generator)[: subsample * k]].sort().values
        if len(ids) * 4 * matrix.d > spare // 2:
            raise ValueError(
                f"memory_limit leaves {spare // 2} bytes for a subsample, and {len(ids)} rows of {matrix.d} take "
                f"{len(ids) * 4 * matrix.d}: raise memory_limit or lower subsample"
            )
        trained = matrix.gathered(ids)
        trained_mass = None if mass is None else mass[ids.to(mass.device)]
        usable = torch.ones(len(ids), dtype=torch.bool)
    start = _initial(init, trained, k, usable, generator, backend)
    if backend == "reference":
        return _run_reference(matrix, trained, start, iterations, mass, trained_mass)
    search = _choose(backend, matrix)
    lloyd = _lloyd.Lloyd(trained, trained_mass, search)
    state, done = lloyd.run(start.to(torch.float32), iterations, tolerance)
    if trained is not matrix:
        lloyd = _lloyd.Lloyd(matrix, mass, search)
        state = lloyd.assign(state.centroids)
    found = lloyd.without_empty(state)
    centroids, labels, counts = found.centroids, found.labels.long(), found.counts
    if matrix.numpy:
        return KMeansResult(centroids.numpy(), labels.numpy(), found.inertia, done, counts.numpy())
    return KMeansResult(centroids, labels, found.inertia, done, counts)


def _check_numbers(k: int, iterations: int, subsample: int | None, tolerance: float, n: int) -> None:
    if n == 0:
        raise ValueError("x has no rows: there is nothing to cluster")
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}, but x has {n} rows: ask for 1 to {n} clusters")
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, and is {iterations}")
    if subsample is not None and integer("subsample", subsample) < 1:
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


def _initial(init: Any, matrix: Matrix, k: int, usable: Tensor, generator: torch.Generator, backend: str) -> Tensor:
    """Return the first centroids, float64 (k, d)."""
    import torch

    from poolwright.kernels._seeding import Points

    if isinstance(init, str):
        if init == "k-means++":
            none = torch.empty(0, dtype=torch.int64)
            by = choose_backend("kmeans: seeding", "reference" if backend == "reference" else "auto", matrix.device)
            picks = draw_centers(Points(matrix), k, generator, none, usable, "random", by).indices
        elif init == "random":
            candidates = torch.nonzero(usable).flatten()
            picks = candidates[torch.randperm(len(candidates), generator=generator)[:k]]
        else:
            raise ValueError(f'init must be "k-means++", "random" or an array ({k}, {matrix.d}), not {init!r}')
        return matrix.rows(torch.as_tensor(picks).cpu()).double()
    start = torch.as_tensor(init).detach().to(device=matrix.device, dtype=torch.float64).clone()
    if start.shape != (k, matrix.d):
        raise ValueError(f"init must be ({k}, {matrix.d}), one centroid a cluster, not {tuple(start.shape)}")
    if not torch.isfinite(start).all():
        raise ValueError("init holds NaN or infinity: drop or fill it")
    if start.numel() and not float(start.abs().max()) < largest_value(matrix.d):
        raise ValueError(
            f"init holds values above {largest_value(matrix.d):.2g}, whose squared distances overflow: rescale them"
        )
    return start


def _choose(backend: str, matrix: Matrix) -> Search:
    import torch

    from poolwright.kernels import _lloyd

    on_cuda = matrix.device.type == "cuda"
    if backend == "native" or (backend == "auto" and not on_cuda and build_info()["level"] in _FAST_LEVELS):
        choose_backend("kmeans", "native", matrix.device)
        say_once("kmeans: backend native")
        return _lloyd.NativeSearch()
    origin = _lloyd.origin_of(matrix)
    if backend != "torch":
        faiss, missing = _faiss()
        if faiss is None and backend == "faiss":
            raise RuntimeError(f'backend="faiss" is not there: {missing}')
        if faiss is not None:
            on_gpu = faiss.get_num_gpus() > 0 and torch.cuda.is_available()
            missing = "the FAISS that is installed is not built for GPUs"
            if backend == "faiss" or on_gpu == on_cuda:
                say_once(f"kmeans: backend faiss, on the {'GPU' if on_gpu else 'CPU'}")
                return _lloyd.ProductSearch(_lloyd.FaissGpu(faiss) if on_gpu else _lloyd.FaissCpu(faiss), origin)
            if not on_cuda:
                say_once("kmeans: backend faiss, on the CPU")
                return _lloyd.ProductSearch(_lloyd.FaissCpu(faiss), origin)
        say_once(f"kmeans: backend torch, since {missing}")
    return _lloyd.ProductSearch(_lloyd.two_nearest_by_torch, origin)


def _faiss() -> tuple[Any, str]:
    """Return the module, or None and why it is not there."""
    try:
        return importlib.import_module("faiss"), ""
    except ModuleNotFoundError as error:
        if error.name == "faiss":
            return None, 'FAISS is not installed (pip install "poolwright[faiss]")'
        return None, f"FAISS does not load: {error}"
    except ImportError as error:
        return None, f"FAISS does not load: {error}"


def _run_reference(
    matrix: Matrix, trained: Matrix, start: Tensor, iterations: int, mass: Tensor | None, trained_mass: Tensor | None
) -> KMeansResult:
    import torch

    rows = torch.cat([block.double() for _, block in matrix.blocks()])
    part = rows if trained is matrix else torch.cat([block.double() for _, block in trained.blocks()])
    centroids, _, _, done = reference.kmeans(part, start, iterations, weights=trained_mass)
    centroids, labels, inertia, _ = reference.kmeans(rows, centroids, 0, weights=mass)
    used, labels = labels.unique(return_inverse=True)
    centroids, counts = centroids[used].to(torch.float32), torch.bincount(labels)
    if matrix.numpy:
        return KMeansResult(centroids.numpy(), labels.numpy(), inertia, done, counts.numpy())
    return KMeansResult(centroids, labels, inertia, done, counts)
