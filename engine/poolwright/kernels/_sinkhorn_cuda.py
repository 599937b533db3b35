"""Batched log-domain Sinkhorn on CUDA: many pairs of point sets, of mixed sizes, in a few launches."""

from __future__ import annotations

import math
from types import ModuleType
from typing import TYPE_CHECKING

from ._native_build import cuda_missing, native
from ._ragged import Packed, SinkhornResult

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def sinkhorn(
    packed: Packed,
    *,
    p: float,
    epsilon: float,
    tolerance: float,
    max_iterations: int,
    memory_limit: int | None = None,
) -> SinkhornResult:
    """Bound the optimal transport cost of many pairs of point sets on a CUDA device.

    Each pair is worked on by one block of threads, from its cost matrix to its two bounds; blocks take the next
    pair when they are done, the largest first. The cost matrix is made of float32 differences and stays in shared
    memory where it fits (about 53,000 entries, 230 x 230, on Hopper; 37,000 on sm_80), else in the workspace.
    Epsilon starts at the pair's largest cost and is halved until it has come down to its target.

    Parameters
    ----------
    packed : Packed
        The pairs: float32, float16 or bfloat16 points on a CUDA device. Points without weight drop out.
    p : float
        The cost of i and j is ``||x_i - y_j||^p``; at least 1.
    epsilon : float
        Strength of the entropy term, as a fraction of the pair's mean cost ``sum_ij a_i b_j c_ij``. Values below
        6e-8 of its largest cost count as that, the rounding of float32.
    tolerance : float
        A pair has converged when the columns of its plan (the rows are right then) miss the weights by at most
        this, in L1. The exponentials are float32: below about 2e-6 it may never be reached.
    max_iterations : int
        Of each pair at its last epsilon. At most 20 for each halving come before.
    memory_limit : int, optional
        Bytes of workspace at most. Default: 80 % of the memory that is free or kept by torch's allocator.

    Returns
    -------
    SinkhornResult
        On the device, queued on its current stream. ``lower <= exact <= value (1 + r)`` whether converged or not,
        with r = ``cost_error(d, p)`` from the float32 costs (already deducted from ``lower``).
        Where the costs of a pair spread so far that small ones underflow, what they may have lost is added to
        ``value`` and deducted from ``lower``.

    Raises
    ------
    RuntimeError
        There are no CUDA kernels; the message says why.
    TypeError, ValueError
        A parameter or a tensor of ``packed`` is not as described; the workspace of one pair exceeds
        ``memory_limit``.

    Notes
    -----
    The device does not wait for the host, nor the host for the device, except that 'how much memory is free' and
    the upload of the order of the pairs are calls of the driver. Work: ``n m (d + 2 iterations)`` per pair.
    Workspace: ``40 (n + m)`` bytes per running block, where shared memory does not hold a pair
    ``4 n m + 48 (n + m)``; there are at most two blocks a multiprocessor of the latter.

    Sources: Cuturi 2013; Altschuler, Weed and Rigollet 2017, algorithm 2 (the rounding behind ``value``);
    Peyre and Cuturi 2019, sections 4.4 (logarithms) and 5.1 (c-transforms, behind ``lower``).
    """
    import torch

    reason = cuda_missing()
    if reason:
        raise RuntimeError(reason)
    if packed.device.type != "cuda":
        raise ValueError(f"the points must be on a CUDA device, not on {packed.device}")
    if memory_limit is None:
        free = torch.cuda.mem_get_info(packed.device)[0]
        kept = torch.cuda.memory_reserved(packed.device) - torch.cuda.memory_allocated(packed.device)
        memory_limit = int(0.8 * (free + kept))
    stream = torch.cuda.current_stream(packed.device).cuda_stream
    return run(
        native(),
        packed,
        p=p,
        epsilon=epsilon,
        tolerance=tolerance,
        max_iterations=max_iterations,
        memory_limit=memory_limit,
        device=packed.x.get_device(),
        stream=stream,
    )


def cost_error(d: int, p: float) -> float:
    """Return a bound of the relative error of the kernel's float32 costs ``||x - y||^p`` in d dimensions.

    Sums of 16 squared differences are summed again: d / 16 + 19 roundings, times p / 2 for a higher power, and
    those of the power itself.
    """
    return max(1.0, p / 2) * (d / 16 + 25) * 6e-8


def run(
    module: ModuleType,
    packed: Packed,
    *,
    p: float,
    epsilon: float,
    tolerance: float,
    max_iterations: int,
    memory_limit: int,
    device: int,
    stream: int,
) -> SinkhornResult:
    """Do `sinkhorn` by the functions of ``module``: the extension, or its emulation in tests."""
    import torch

    _validate(packed, p, epsilon, tolerance, max_iterations, memory_limit)
    pairs = packed.pairs
    order = torch.empty(pairs, dtype=torch.int64)
    sizes = [torch.tensor(sizes, dtype=torch.int64) for sizes in (packed.x_sizes, packed.y_sizes)]
    launches = module.cuda_sinkhorn_plan(*sizes, order, memory_limit=memory_limit, device=device)

    def empty(size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, device=packed.device)

    result = SinkhornResult(
        empty(pairs, torch.float64), empty(pairs, torch.float64), empty(pairs, torch.int64), empty(pairs, torch.bool)
    )
    if packed.device.type == "cuda":
        order = order.pin_memory()
    module.cuda_sinkhorn(
        packed.x.detach(),
        packed.y.detach(),
        packed.x_offsets,
        packed.y_offsets,
        packed.a.detach().to(torch.float64),
        packed.b.detach().to(torch.float64),
        order.to(packed.device, non_blocking=True),
        launches,
        torch.zeros(len(launches), dtype=torch.int64, device=packed.device),
        empty(max((launch.workspace_bytes for launch in launches), default=0), torch.uint8),
        result.value,
        result.lower,
        result.iterations,
        result.converged.view(torch.uint8),
        p=p,
        epsilon=epsilon,
        tolerance=tolerance,
        max_iterations=max_iterations,
        stream=stream,
    )
    return result


def _validate(
    packed: Packed, p: float, epsilon: float, tolerance: float, max_iterations: int, memory_limit: int
) -> None:
    """Refuse what the kernel cannot be given, without asking the device."""
    import torch

    if packed.x.dtype not in (torch.float32, torch.float16, torch.bfloat16) or packed.y.dtype != packed.x.dtype:
        raise TypeError(
            "the points must be float32, float16 or bfloat16 on both sides, "
            f"not {packed.x.dtype} and {packed.y.dtype}: convert them with .float()"
        )
    if len(packed.y_sizes) != packed.pairs:
        raise ValueError(f"x_sizes names {packed.pairs} pairs and y_sizes {len(packed.y_sizes)}")
    for name, points, sizes in (("x", packed.x, packed.x_sizes), ("y", packed.y, packed.y_sizes)):
        if sum(sizes) != len(points):
            raise ValueError(f"{name}_sizes sum to {sum(sizes)}, but {name} has {len(points)} points")
    if not (math.isfinite(p) and p >= 1):
        raise ValueError(f"p must be at least 1 and finite, not {p}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, not {tolerance}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, not {max_iterations}")
    if memory_limit < 1:
        raise ValueError(f"memory_limit must be a positive number of bytes, not {memory_limit}")
