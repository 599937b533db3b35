"""D^2 sampling (k-means++) on CUDA, of rows and of outer products."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from poolwright.kernels._native_build import native

if TYPE_CHECKING:
    from torch import Tensor

# A draw costs microseconds; a refresh reads the pool at terabytes a second. So many numbers are read in the time of one
# draw, and a batch gives up after a refresh's worth of rejections.
_NUMBERS_PER_DRAW = 1 << 23
_LEAST_PATIENCE = 8
# Batches queued before the host looks how many picks there are.
_BATCHES = 16


def sample(
    left: Tensor,
    right: Tensor | None,
    nearest: Tensor,
    eligible: Tensor,
    k: int,
    first: int,
    seed: int,
    *,
    module: ModuleType | None = None,
    stream: int | None = None,
) -> tuple[Tensor, Tensor, int, int]:
    """Draw k rows, each in proportion to its squared distance to the nearest center or earlier pick.

    Parameters
    ----------
    left : Tensor
        (n, d) float32, float16 or bfloat16 on a CUDA device, any strides.
    right : Tensor or None
        None, or (n, e): the points are the outer products of the rows of ``left`` and ``right``, which are never
        made.
    nearest : Tensor
        (n,) float32: squared distances to the nearest center; inf (eligible rows) where there is none. Not
        changed.
    eligible : Tensor
        (n,) uint8. Not changed.
    k : int
        At most the number of eligible rows.
    first : int
        The first pick; -1 beside centers.
    seed : int
        Of Philox4x32-10, which makes the random numbers on the device: the same seed, the same picks.
    module : ModuleType, optional
        The kernels; those of the extension by default.
    stream : int, optional
        A CUDA stream; the current one by default.

    Returns
    -------
    indices : Tensor
        (k,) int64, on the device, in the order of drawing.
    nearest : Tensor
        (n,) float32 after the last pick; 0 for picked and ineligible rows.
    trials : int
        Draws, accepted or not.
    distances_evaluated : int
        Pairs compared.

    Raises
    ------
    ValueError
        There is neither a center nor a first pick.

    Notes
    -----
    O(n (d + e)) for each batch of 64 picks at least. Allocates `workspace_bytes` on the device. The host waits for the
    device once in 16 batches. Distances are computed in the fixed order of `k_center` for rows, in float64 for outer
    products; sums in float64.
    """
    import torch

    kernels = native() if module is None else module
    if stream is None:
        stream = torch.cuda.current_stream(left.device).cuda_stream
    if right is not None and left.dtype != right.dtype:
        left, right = left.to(torch.float32), right.to(torch.float32)
    eligible = eligible.clone()
    nearest = torch.where(eligible.bool(), nearest, 0.0)
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=left.device), nearest, 0, 0
    if first < 0 and bool(torch.isinf(nearest).any()):
        raise ValueError("there is no center to measure distances from: say which row is the first pick")

    keys = torch.zeros(k, dtype=torch.int64, device=left.device)
    workspace = torch.empty(kernels.cuda_seeding_workspace(left, right), dtype=torch.uint8, device=left.device)
    state = workspace[:40].view(torch.int64)
    arguments = (left, right, nearest, eligible, keys, workspace)
    width = left.shape[1] + (0 if right is None else right.shape[1])
    patience = max(_LEAST_PATIENCE, len(left) * width // _NUMBERS_PER_DRAW)
    kernels.cuda_seeding_start(*arguments, first=first, stream=stream)
    made, exhausted = int(first >= 0), 0
    while made < k and not exhausted:
        # A batch makes at most so many picks: none of those queued is in vain.
        batches = min(_BATCHES, -(-(k - made) // kernels.cuda_seeding_batch))
        kernels.cuda_seeding_batches(*arguments, seed=seed, patience=patience, batches=batches, stream=stream)
        _, made, _, _, exhausted = state.tolist()
    kernels.cuda_seeding_finish(*arguments, stream=stream)
    _, made, trials, pairs, _ = state.tolist()
    # The index part of a key is complemented.
    indices = 0xFFFFFFFF - (keys & 0xFFFFFFFF)
    if made < k:  # all that is left coincides with a center: each is as likely
        left_over = torch.nonzero(eligible).flatten()
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(left_over), generator=generator)[: k - made]
        indices[made:] = left_over[chosen.to(left_over.device)]
    return indices, nearest, trials, pairs


def workspace_bytes(left: Tensor, right: Tensor | None, k: int, *, module: ModuleType | None = None) -> int:
    """Return the bytes that `sample` allocates on the device at most; with k = 0, those of `outer_fold`.

    For each row 5 bytes, copies of ``nearest`` and ``eligible``, and 8 for the list of the rows that are left where
    those coincide with centers; for each pick 24, its key on its way to an index; 2 KB a dimension, 12 KB and 8 bytes
    for each 1024 rows: the kernels' workspace; and float32 copies of both factors where their types differ.

    Parameters
    ----------
    left, right, k, module
        As for `sample`.
    """
    import torch

    kernels = native() if module is None else module
    copies = 0
    if right is not None and left.dtype != right.dtype:
        copies = sum(4 * factor.numel() for factor in (left, right) if factor.dtype != torch.float32)
        one = torch.empty(1, dtype=torch.float32, device=left.device)  # the workspace depends on the shapes alone
        left, right = one.expand(left.shape), one.expand(right.shape)
    size = int(kernels.cuda_seeding_workspace(left, right)) + copies
    return size + (13 * len(left) + 24 * k if k > 0 else 0)


def outer_fold(
    rows: tuple[Tensor, Tensor],
    centers: tuple[Tensor, Tensor],
    nearest: Tensor,
    eligible: Tensor,
    *,
    module: ModuleType | None = None,
    stream: int | None = None,
) -> None:
    """Set ``nearest[i] = min(nearest[i], min_j |row_i - center_j|^2)`` for the eligible outer products, in place.

    Parameters
    ----------
    rows : tuple of Tensor
        (n, d) and (n, e) on a CUDA device: the factors.
    centers : tuple of Tensor
        (m, d) and (m, e) float32, contiguous.
    nearest, eligible : Tensor
        (n,) float32 and (n,) uint8.
    module, stream
        As for `sample`.
    """
    import torch

    kernels = native() if module is None else module
    if stream is None:
        stream = torch.cuda.current_stream(nearest.device).cuda_stream
    left, right = rows
    if left.dtype != right.dtype:
        left, right = left.to(torch.float32), right.to(torch.float32)
    workspace = torch.empty(kernels.cuda_seeding_workspace(left, right), dtype=torch.uint8, device=left.device)
    kernels.cuda_outer_fold(left, right, *centers, nearest, eligible, workspace, stream=stream)
