"""k-means++ seeding (D^2 sampling) of rows and of outer products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poolwright.kernels import reference
from poolwright.kernels._arguments import centers_and_eligible, check_picks, choose_backend, integer
from poolwright.kernels._matrix import Matrix, check_finite, default_memory_limit, open_matrix
from poolwright.kernels._native_build import serial_after_fork

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from poolwright.kernels._seeding import Points

SeedingBackend = Literal["auto", "native", "cuda", "torch", "reference"]

# D^2 (float32), eligible (uint8), three masks, and the row numbers of a uniform draw.
_WORKSPACE_PER_ROW = (4 + 1 + 3) + 8


class KMeansPlusPlusResult(NamedTuple):
    """What `kmeans_plus_plus` returns; ``indices`` is numpy for numpy input, else a tensor on the device of x."""

    indices: Any
    """(k,) int64: the picks, in the order in which they were drawn."""
    potential: float
    """Sum of D^2 over the points that are still eligible, after the last pick; inf where there is no center."""
    trials: int
    """Draws in proportion to the stale D^2, accepted or not; 0 for the reference."""
    distances_evaluated: int
    """Number of point-center pairs whose distance was computed."""


class Outer:
    """The points g_i = left_i (x) right_i in C * d dimensions, given by their factors and never made.

    Gradient embeddings of a last layer have this form: ``left`` are the gradients in the logits, ``right``
    the embeddings (BADGE).

    Parameters
    ----------
    left, right : array
        (n, C) and (n, d), each anything that `kmeans_plus_plus` takes as x, on one device.

    Examples
    --------
    >>> import numpy as np
    >>> from poolwright.kernels import Outer, kmeans_plus_plus
    >>> q, h = np.float32([[-0.5, 0.5], [-0.1, 0.1]]), np.float32([[3, 4], [0, 1]])
    >>> kmeans_plus_plus(Outer(q, h), 2, first="largest-norm").indices
    array([0, 1])
    """

    def __init__(self, left: Any, right: Any) -> None:
        self.left = left
        self.right = right


def kmeans_plus_plus(
    x: Any,
    k: int,
    *,
    seed: int | torch.Generator = 0,
    labeled: Any = None,
    candidates: Any = None,
    first: int | Literal["random", "largest-norm"] = "random",
    backend: SeedingBackend = "auto",
    memory_limit: int | None = None,
) -> KMeansPlusPlusResult:
    """Draw k points, each in proportion to D^2, its squared distance to the nearest labeled or drawn one.

    This is the original k-means++ of one draw a pick. scikit-learn's draws 2 + log(k) candidates a pick and
    keeps the best (greedy k-means++): a lower potential, another distribution.

    Parameters
    ----------
    x : numpy.ndarray, numpy.memmap, torch.Tensor, Rows or Outer
        (n, d) as for `k_center`, or the factors of outer products.
    k : int
        Number of picks; 0 is legal.
    seed : int or torch.Generator
        Of the draws; a generator must be on the CPU, and is advanced.
    labeled : array of int, optional
        Ids of points that are centers already. They are never picked.
    candidates : array of int, optional
        Ids that may be picked; all by default. Others that are not labeled play no part.
    first : int, "random" or "largest-norm"
        The first pick where nothing is labeled: an id; any, each as likely; or the longest row (lengths
        compared in float32, ties to the lowest id).
    backend : {"auto", "native", "cuda", "torch", "reference"}
        As for `k_center`. "reference" is eager float64, and makes outer products.
    memory_limit : int, optional
        Bytes to allocate at most beside x: 16 bytes a row, then float32 copies or blocks. A quarter of the
        memory by default.

    Returns
    -------
    KMeansPlusPlusResult
        ``indices``, ``potential``, ``trials``, ``distances_evaluated``. Where every remaining D^2 is 0, the
        rest is drawn uniformly. The same seed gives the same picks again; native ones for any number of
        threads, memory limit and CPU level.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `k_center`; values of an `Outer` whose products overflow float32; ``first`` beside labeled points.

    Notes
    -----
    Rejection: row i is proposed in proportion to a bound u_i >= D_i^2 (D^2 at the last refresh, or as last
    looked at) and accepted with probability D_i^2 / u_i, so that a trial ends with i with probability
    (u_i / sum u) (D_i^2 / u_i), proportional to D_i^2 whatever the bounds: the first accepted row has exactly
    the distribution of eager sampling, given the picks before it. Bounds are refreshed every 64 picks, and
    earlier where rejections would cost more than a pass over x. Sums and draws are float64.

    O(n d (k + labeled)) time as matrix products, one pass over x per 64 picks; O(n (C + d)) instead of
    O(n C d) a pick for an `Outer`, where every distance that decides is float64. D^2 is kept in float32:
    what is below 1e-38 counts as 0.

    References
    ----------
    D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007. J. Ash et al.,
    "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR 2020 (outer products).

    Examples
    --------
    >>> import numpy as np
    >>> from poolwright.kernels import kmeans_plus_plus
    >>> sorted(kmeans_plus_plus(np.float32([[0], [0], [9], [9]]), 2, labeled=[0]).indices)[-1] >= 2
    True
    """
    with serial_after_fork():
        return _kmeans_plus_plus(x, k, seed, labeled, candidates, first, backend, memory_limit)


def _kmeans_plus_plus(
    x: Any,
    k: int,
    seed: int | torch.Generator,
    labeled: Any,
    candidates: Any,
    first: int | str,
    backend: str,
    memory_limit: int | None,
) -> KMeansPlusPlusResult:

    from poolwright.kernels._seeding import Points

    points = Points(*_open(x, memory_limit))
    n = points.n
    generator = as_generator(seed)
    centers, eligible = centers_and_eligible(labeled, candidates, n)
    k = check_picks(k, int(eligible.sum()), n, len(centers), candidates is not None)
    first = _check_start(first, eligible, len(centers))
    backend = choose_backend("kmeans_plus_plus", backend, points.device)
    _check_values(points, eligible, centers)
    return draw_centers(points, k, generator, centers, eligible, first, backend)


def draw_centers(
    points: Points,
    k: int,
    generator: torch.Generator,
    centers: Tensor,
    eligible: Tensor,
    first: int | str,
    backend: str,
) -> KMeansPlusPlusResult:
    """Draw k points as `kmeans_plus_plus`, from arguments that are checked already."""
    import torch

    from poolwright.kernels._seeding import FOLDS, Sampler

    if backend == "reference":
        return _run_reference(points, k, generator, centers, eligible, first)

    sampler = Sampler(points, FOLDS[backend], eligible, generator)
    factors = points.dense
    if backend == "cuda" and factors is not None:
        return _run_cuda(points, factors, sampler, k, generator, centers, eligible, first)
    picks: list[int] = []
    if len(centers):
        sampler.cover(centers)
    elif k:
        row = _start(sampler, first)
        picks.append(row)
        sampler.pick(row)
    picks += sampler.draw(k - len(picks))
    potential = sampler.potential() if k or len(centers) else float("inf")
    indices = torch.tensor(picks, dtype=torch.int64, device=points.device)
    return KMeansPlusPlusResult(_in_kind(points, indices), potential, sampler.trials, sampler.distances_evaluated)


def _start(sampler: Any, first: int | str) -> int:
    if isinstance(first, int):
        return first
    row: int = sampler.largest_norm() if first == "largest-norm" else sampler.uniform(1)[0]
    return row


def _open(x: Any, memory_limit: int | None) -> tuple[Matrix, ...]:
    if not isinstance(x, Outer):
        return (open_matrix(x, unit_rows=False, memory_limit=memory_limit, workspace=_WORKSPACE_PER_ROW)[0],)
    left, spare = open_matrix(
        x.left, unit_rows=False, memory_limit=memory_limit, workspace=_WORKSPACE_PER_ROW, name="left"
    )
    limit = default_memory_limit(left.device) if memory_limit is None else integer("memory_limit", memory_limit)
    # Blocks of each factor take at most half of what is spare.
    right, _ = open_matrix(
        x.right, unit_rows=False, memory_limit=limit, workspace=0, name="right", reserved=limit - spare
    )
    if left.n != right.n:
        raise ValueError(f"left has {left.n} rows and right has {right.n}: each point needs one of both")
    if left.device != right.device:
        raise ValueError(f"left is on {left.device} and right on {right.device}: move them to one device")
    return left, right


def _check_values(points: Points, eligible: Tensor, centers: Tensor) -> None:
    """Check that what takes part is finite, and that squared distances fit in float32."""
    import torch

    taking_part = eligible.clone()
    taking_part[centers] = True
    if len(points.matrices) == 1:
        check_finite(points.matrices[0], taking_part)
        return
    # |g_i - g_j|^2 <= 4 |left|^2 |right|^2; entries of rows without a part may be anything.
    bound = 4.0
    for matrix, name in zip(points.matrices, ("left", "right"), strict=True):
        longest = 0.0
        for start, block in matrix.blocks():
            part = taking_part[start : start + len(block)].to(block.device)
            lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float32)
            found = float(torch.where(part, lengths, 0.0).max())
            longest = found if math.isnan(found) else max(longest, found)
            if not 4 * longest**2 < torch.finfo(torch.float32).max:
                check_finite(matrix, taking_part, name)  # names the rows
        bound *= longest**2
    if bound >= torch.finfo(torch.float32).max:
        raise ValueError(
            f"squared distances of the outer products reach {bound:.2g}, beyond float32: rescale left or right"
        )


def as_generator(seed: int | torch.Generator) -> torch.Generator:
    """Return the CPU generator that ``seed`` is or stands for."""
    import torch

    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError(f"seed must be a generator on the CPU, and is on {seed.device}")
        return seed
    return torch.Generator().manual_seed(integer("seed", seed))


def _check_start(first: int | str, eligible: Tensor, labeled: int) -> int | str:
    if first == "random":
        return first
    if not isinstance(first, str):
        first = integer("first", first)
    elif first != "largest-norm":
        raise ValueError(f'first must be a row, "random" or "largest-norm", not {first!r}')
    if labeled:
        raise ValueError("first says where to start when nothing is labeled: leave it out beside labeled points")
    if isinstance(first, int) and (not 0 <= first < len(eligible) or not bool(eligible[first])):
        raise ValueError(f"first = {first} is no eligible row of x")
    return first


def _run_cuda(
    points: Points,
    factors: tuple[Tensor, ...],
    sampler: Any,
    k: int,
    generator: torch.Generator,
    centers: Tensor,
    eligible: Tensor,
    first: int | str,
) -> KMeansPlusPlusResult:
    import torch

    from poolwright.kernels._seeding_cuda import sample

    if len(centers):
        sampler.cover(centers)
    row = -1 if len(centers) or not k else _start(sampler, first)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    mask = eligible.to(device=points.device, dtype=torch.uint8)
    right = factors[1] if len(factors) == 2 else None
    indices, nearest, trials, evaluated = sample(factors[0], right, sampler.nearest, mask, k, row, seed)
    left = mask.bool()
    left[indices] = False
    has_center = bool(k or len(centers))
    potential = float(torch.where(left, nearest, 0.0).sum(dtype=torch.float64)) if has_center else float("inf")
    return KMeansPlusPlusResult(indices, potential, trials, evaluated + sampler.distances_evaluated)


def _run_reference(
    points: Points, k: int, generator: torch.Generator, centers: Tensor, eligible: Tensor, first: int | str
) -> KMeansPlusPlusResult:
    import torch

    factors = [torch.cat([block.double() for _, block in matrix.blocks()]) for matrix in points.matrices]
    indices, potential = reference.kmeans_plus_plus(
        factors[0] if len(factors) == 1 else (factors[0], factors[1]),
        k,
        generator,
        labeled=centers.tolist(),
        candidates=torch.nonzero(eligible).flatten().tolist(),
        first=first,
    )
    return KMeansPlusPlusResult(_in_kind(points, indices), potential, 0, points.n * (len(centers) + k))


def _in_kind(points: Points, indices: Tensor) -> Any:
    return indices.numpy() if points.numpy else indices
