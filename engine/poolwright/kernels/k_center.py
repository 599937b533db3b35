"""Greedy k-center: core-sets, farthest-point sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolwright.kernels import reference
from poolwright.kernels._arguments import centers_and_eligible, check_picks, choose_backend, integer
from poolwright.kernels._k_center_backends import NativeBackend, TorchBackend
from poolwright.kernels._k_center_cuda import CudaBackend
from poolwright.kernels._matrix import Matrix, check_finite, open_matrix
from poolwright.kernels._native_build import serial_after_fork

if TYPE_CHECKING:
    from torch import Tensor

Metric = Literal["euclidean", "cosine"]
BackendName = Literal["auto", "reference", "native", "cuda", "torch"]

Backend = NativeBackend | CudaBackend | TorchBackend
_BACKENDS: dict[str, type[Backend]] = {"native": NativeBackend, "cuda": CudaBackend, "torch": TorchBackend}

# mind (float32), eligible (uint8) and two masks; native adds a count of centers (int32), and for a quarter of the rows
# a heap (8 bytes) and a batch (16); torch a count, a copy of mind, a mask, and row numbers where bounds are equal.
_WORKSPACE_PER_ROW = (4 + 1 + 2) + (4 + 4 + 1 + 8)


class KCenterResult(NamedTuple):
    """What `k_center` returns; arrays are numpy for numpy input, else tensors on the device of x."""

    indices: Any
    """(k,) int64: the picks, in order."""
    radii: Any
    """(k,) float64: ``radii[i]`` is the covering radius before pick i was added, that is the largest distance
    of a still eligible point to its nearest labeled or picked point. inf for i = 0 when nothing is labeled.
    Never grows. Units: Euclidean distance (not squared), or 1 - cos."""
    distances_evaluated: int
    """Number of point-center pairs whose distance was computed or bounded; eager greedy computes n (k + labeled)."""


def k_center(
    x: Any,
    k: int,
    *,
    labeled: Any = None,
    candidates: Any = None,
    first: int | None = None,
    metric: Metric = "euclidean",
    backend: BackendName = "auto",
    memory_limit: int | None = None,
) -> KCenterResult:
    """Pick k points greedily, each the farthest from everything labeled or picked before it.

    Parameters
    ----------
    x : numpy.ndarray, numpy.memmap, torch.Tensor or Rows
        (n, d) float32, float16 or bfloat16, any strides, read-only or not; never written. float64 is rounded
        to float32 (in a copy, or block by block). Rows is any object with ``shape``, ``dtype``, ``blocks()``
        and indexing by a slice or int64 ids that returns tensors. Gradients are ignored.
    k : int
        Number of picks; 0 is legal.
    labeled : array of int, optional
        Ids of points that are centers already. They are never picked.
    candidates : array of int, optional
        Ids that may be picked; all by default. A point that is neither labeled nor a candidate plays no part,
        and is neither picked nor covered.
    first : int, optional
        The first pick where nothing is labeled; the lowest eligible id by default.
    metric : {"euclidean", "cosine"}
        "cosine" scales rows to length 1 and reports 1 - cos, as half the squared Euclidean distance of the
        scaled rows. A row of zeros stays: it is at 0 from other such rows and at 1/2 from every other row.
    backend : {"auto", "native", "cuda", "torch", "reference"}
        "auto": the CUDA kernels for CUDA tensors and the C++ ones for everything on the CPU, torch where
        those are not built (the logger ``poolwright.kernels`` says once which and why). "reference" is slow
        float64.
    memory_limit : int, optional
        Bytes to allocate at most beside x: 24 bytes a row, then a float32 copy of x if one is needed and fits
        (float64, cosine, Rows), else blocks of rows, read when they are needed; then 8 (d + 3) bytes for each pick and
        256 (d + 64) for each thread, or, where those do not fit, a pass over x per pick. A quarter of the memory by
        default.

    Returns
    -------
    KCenterResult
        ``indices``, ``radii``, ``distances_evaluated``. Equal distances go to the lowest id, on every
        backend. native and cuda sum in one fixed order: same picks and radii for any number of threads, CPU
        level and block size.

    Raises
    ------
    TypeError
        x or the ids have a type that is not accepted.
    ValueError
        x is no matrix or holds NaN, infinity or values whose squares overflow in float32, in a row that takes
        part (says how many and the first); k is negative or above the number of eligible points; ids out of
        range; ``first`` not eligible, or given beside labeled points; the limit is too small.
    RuntimeError
        The backend asked for by name is not there (says why).

    Notes
    -----
    Exact, and lazy: a minimum distance that does not account for the newest centers is an upper
    bound (Minoux 1978), so only points whose bound leads are brought up to date. O(n d (k + labeled)) time at worst,
    as eager greedy, and a tenth or a twentieth of it on most data (`distances_evaluated` tells). Most of those pairs
    are settled by a matrix product whose rounding error is bounded; the others are computed as sums of squared
    differences in float32, in one fixed order ("torch" computes all of them, in an order of its own). Distances below
    1e-19 count as zero, so rescale data that small.

    References
    ----------
    T. Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985. O. Sener and S. Savarese,
    "Active learning for convolutional neural networks: a core-set approach", ICLR 2018, algorithm 1. M. Minoux,
    "Accelerated greedy algorithms for maximizing submodular set functions", 1978 (lazy evaluation).

    Examples
    --------
    >>> import numpy as np
    >>> from poolwright.kernels import k_center
    >>> k_center(np.float32([[0], [1], [5], [9]]), 2, labeled=[0]).indices
    array([3, 2])
    """
    with serial_after_fork():
        return _k_center(x, k, labeled, candidates, first, metric, backend, memory_limit)


def _k_center(
    x: Any,
    k: int,
    labeled: Any,
    candidates: Any,
    first: int | None,
    metric: str,
    backend: str,
    memory_limit: int | None,
) -> KCenterResult:
    import torch

    if metric not in ("euclidean", "cosine"):
        raise ValueError(f'metric must be "euclidean" or "cosine", not {metric!r}')
    matrix, spare = open_matrix(
        x,
        unit_rows=metric == "cosine",
        memory_limit=memory_limit,
        workspace=_WORKSPACE_PER_ROW,
    )
    n = matrix.n
    centers, eligible = centers_and_eligible(labeled, candidates, n)
    count = int(eligible.sum())
    k = check_picks(k, count, n, len(centers), candidates is not None)
    first = _check_first(first, eligible, len(centers))

    taking_part = eligible.clone()
    taking_part[centers] = True
    backend = choose_backend("k_center", backend, matrix.device)
    if backend == "reference":
        return _run_reference(matrix, k, centers, eligible, taking_part, first, metric)
    check_finite(matrix, taking_part)
    if k == 0:
        nothing = torch.empty(0, dtype=torch.float32, device=matrix.device)
        return _in_kind(matrix, nothing.to(torch.int64), nothing, metric, 0)

    pool, ids = matrix, None
    if matrix.dense is None and count * matrix.d * 4 <= spare // 2:
        # Few points take part in a matrix that has to be read in blocks: read them once.
        ids = torch.nonzero(eligible).flatten()
        pool = matrix.gathered(ids)
        eligible = torch.ones(count, dtype=torch.bool, device="cpu")
        first = None if first is None else int(torch.searchsorted(ids, first))
        spare -= count * matrix.d * 4
    if len(centers) == 0 and first is None:
        first = int(torch.nonzero(eligible)[0])  # all are infinitely far: the lowest
    mask = eligible.to(device=matrix.device, dtype=torch.uint8)
    compute = _BACKENDS[backend]()
    indices, squared, evaluated = _run(compute, matrix, pool, centers, mask, k, first, spare)
    return _in_kind(matrix, indices if ids is None else ids.to(indices.device)[indices], squared, metric, evaluated)


def _run(
    compute: Backend,
    matrix: Matrix,
    pool: Matrix,
    centers: Tensor,
    eligible: Tensor,
    k: int,
    first: int | None,
    spare: int,
) -> tuple[Tensor, Tensor, int]:
    """Fold the labeled ``centers``, rows of ``matrix``, into the minima of ``pool``, and pick.

    Returns
    -------
    indices, squared : Tensor
        (k,) int64 rows of ``pool``; (k,) float32: the largest squared distance before each pick.
    evaluated : int
        Number of distances computed.
    """
    import torch

    mind = torch.full((pool.n,), torch.inf, dtype=torch.float32, device=matrix.device)
    count = int(eligible.sum())
    # Picks, and labeled centers too, may be folded lazily, if there is room for copies of them.
    room = spare // 2
    lazy = compute.lazy_bytes(k, pool) <= room
    folded = 0 if lazy and compute.lazy_bytes(k + len(centers), pool) <= room else len(centers)
    for start in range(0, folded, matrix.block_rows):
        some = matrix.rows(centers[start : start + matrix.block_rows])
        for at, block in pool.blocks():
            compute.fold(block, some, mind[at : at + len(block)], eligible[at : at + len(block)])
    if lazy:
        indices, squared, evaluated = compute.lazily(pool, matrix.rows(centers[folded:]), mind, eligible, k, first)
    else:
        indices, squared, evaluated = _greedy(compute, pool, mind, eligible, k, first)
    return indices, squared, evaluated + folded * (pool.n if compute.whole_pool else count)


def _greedy(
    compute: Backend,
    pool: Matrix,
    mind: Tensor,
    eligible: Tensor,
    k: int,
    first: int | None,
) -> tuple[Tensor, Tensor, int]:
    """Return what `lazily` does, in little memory: a pass over the pool per pick."""
    import torch

    picks: list[int] = []
    values: list[float] = []
    count = int(eligible.sum())
    while True:
        index, value = compute.farthest(mind, eligible)
        if not picks and first is not None:
            index = first  # nothing is labeled, so every value is infinite and `value` is right for any index
        picks.append(index)
        values.append(value)
        eligible[index] = 0
        if len(picks) == k:
            break
        center = pool.rows(torch.tensor([index]))
        for at, block in pool.blocks():
            compute.fold(block, center, mind[at : at + len(block)], eligible[at : at + len(block)])
    evaluated = (k - 1) * pool.n if compute.whole_pool else (k - 1) * count - k * (k - 1) // 2
    device = mind.device
    return torch.tensor(picks, device=device), torch.tensor(values, dtype=torch.float32, device=device), evaluated


def _run_reference(
    matrix: Matrix,
    k: int,
    centers: Tensor,
    eligible: Tensor,
    taking_part: Tensor,
    first: int | None,
    metric: str,
) -> KCenterResult:
    import torch

    check_finite(matrix, taking_part)
    blocks = [block.to(torch.float64) for _, block in matrix.blocks()]
    rows = torch.cat(blocks) if blocks else torch.empty((0, matrix.d), dtype=torch.float64, device=matrix.device)
    chosen = torch.nonzero(eligible).flatten().tolist()
    indices, radii, evaluated = reference.k_center(
        rows, k, labeled=centers.tolist(), candidates=chosen, first=first, metric=metric
    )
    if matrix.numpy:
        return KCenterResult(indices.numpy(), radii.numpy(), evaluated)
    return KCenterResult(indices, radii, evaluated)


def _in_kind(matrix: Matrix, indices: Tensor, squared: Tensor, metric: str, evaluated: int) -> KCenterResult:
    import torch

    wide = squared.to(torch.float64)
    radii = wide / 2 if metric == "cosine" else wide.sqrt()
    if matrix.numpy:
        return KCenterResult(indices.numpy(), radii.numpy(), evaluated)
    return KCenterResult(indices, radii, evaluated)


def _check_first(first: int | None, eligible: Tensor, labeled: int) -> int | None:
    if first is None:
        return None
    first = integer("first", first)
    if labeled:
        raise ValueError("first says where to start when nothing is labeled: leave it out beside labeled points")
    if not 0 <= first < len(eligible) or not bool(eligible[first]):
        raise ValueError(f"first = {first} is no eligible row of x")
    return first
