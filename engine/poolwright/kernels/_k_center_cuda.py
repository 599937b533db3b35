"""Greedy k-center on CUDA."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from poolwright.kernels._native_build import native

if TYPE_CHECKING:
    from torch import Tensor

    from poolwright.kernels._matrix import Matrix

# Fewer centers than this are folded faster without tensor cores: the pass is bound by reading the rows.
_MANY_CENTERS = 8
# The first picks lower every distance, and a round would make few of them.
_EAGER_PICKS = 32
# Rounds queued before the host looks whether all picks are made. Those after the last pick cost microseconds.
_ROUNDS = 4
# A key, an index and a squared distance.
_BYTES_PER_PICK = 8 + 8 + 4


class CudaBackend:
    """CUDA kernels on the current stream of the rows' device.

    Beside the minima and the mask of the eligible rows, which the caller allocates, they need `workspace_bytes`: 2 KB a
    dimension (1024 centers rounded to bfloat16), 12 KB beside them, and for `greedy` 48 KB, 4 bytes for each of at most
    32,768 rows of a round's set, and 20 bytes a pick. What folding needs is kept for the next block until `greedy`
    begins. An object serves one call of `k_center`, on one stream.

    Parameters
    ----------
    module : ModuleType, optional
        The kernels; those of the extension by default.
    eager_picks : int
        Picks made by a pass over the rows each, before the rounds that read the rows once for many picks.
    """

    whole_pool = False

    def __init__(self, module: ModuleType | None = None, eager_picks: int = _EAGER_PICKS) -> None:
        self._native = native() if module is None else module
        self._eager_picks = max(1, eager_picks)
        self._folding: Tensor | None = None

    def _stream(self, tensor: Tensor) -> int:
        import torch

        return torch.cuda.current_stream(tensor.device).cuda_stream

    def workspace_bytes(self, x: Tensor, k: int = 0) -> int:
        """Return the bytes that folding into x and k picks from it allocate on the device, beside ``mind`` and
        ``eligible``.

        Parameters
        ----------
        x : Tensor
            (n, d) on a CUDA device: the matrix or a block of it.
        k : int
            Picks that `greedy` will make; 0: only `fold` and `farthest` will be called.
        """
        folding = self._native.cuda_k_center_fold_workspace(x)
        rounds = self._native.cuda_k_center_lazy_workspace(x) if k > self._eager_picks else 0
        # Keys, and the indices and squared distances that they are decoded to; `farthest` decodes one.
        return int(max(folding, rounds)) + _BYTES_PER_PICK * max(k, 1)

    def fold(self, block: Tensor, centers: Tensor, mind: Tensor, eligible: Tensor) -> None:
        import torch

        stream = self._stream(mind)
        if len(centers) < _MANY_CENTERS:
            self._native.cuda_k_center_fold(block, centers, mind, eligible, None, stream=stream)
            return
        size = self._native.cuda_k_center_fold_workspace(block)
        if self._folding is None or len(self._folding) < size:
            self._folding = torch.empty(size, dtype=torch.uint8, device=mind.device)
        self._native.cuda_k_center_fold_many(block, centers, mind, eligible, self._folding, stream=stream)

    def farthest(self, mind: Tensor, eligible: Tensor) -> tuple[int, float]:
        import torch

        stream = self._stream(mind)
        nothing = torch.empty((len(mind), 0), device=mind.device)
        centers = torch.empty((0, 0), device=mind.device)
        key = torch.zeros(1, dtype=torch.int64, device=mind.device)
        index, value = torch.empty_like(key), torch.empty(1, dtype=torch.float32, device=mind.device)
        self._native.cuda_k_center_fold(nothing, centers, mind, eligible, key, stream=stream)
        self._native.cuda_k_center_decode(key, index, value, stream=stream)
        return int(index), float(value)

    def lazy_bytes(self, count: int, pool: Matrix) -> int:
        """Return what `lazily` allocates for ``count`` centers; no memory is enough for rows off the device."""
        return self.workspace_bytes(pool.dense, count) if pool.dense is not None else sys.maxsize

    def lazily(
        self, pool: Matrix, centers: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Fold the rows of the labeled ``centers``, then make all picks, as `greedy`."""
        if pool.dense is None:
            raise ValueError("the rows are not on the device")
        if len(centers):
            self.fold(pool.dense, centers, mind, eligible)
        pairs = len(centers) * int(eligible.sum())
        indices, squared, evaluated = self.greedy(pool.dense, mind, eligible, k, first)
        return indices, squared, evaluated + pairs

    def greedy(
        self, x: Tensor, mind: Tensor, eligible: Tensor, k: int, first: int | None
    ) -> tuple[Tensor, Tensor, int]:
        """Make all picks; the host waits for the device once in four rounds.

        Raises
        ------
        RuntimeError
            Rounds make no pick: fewer than k rows are eligible.
        """
        import torch

        self._folding = None

        stream = self._stream(x)
        keys = torch.zeros(k, dtype=torch.int64, device=x.device)
        count = int(torch.count_nonzero(eligible))
        eager = min(k, self._eager_picks)
        # Nothing is measured before the first pick, and the last one is not folded unless rounds follow.
        folded = eager - (k == eager)
        pairs = folded * (count - 1) - folded * (folded - 1) // 2
        self._native.cuda_k_center_eager(
            x,
            mind,
            eligible,
            keys,
            k=eager,
            first=-1 if first is None else first,
            fold_last=k > eager,
            stream=stream,
        )
        if k > eager:
            size = self._native.cuda_k_center_lazy_workspace(x)
            workspace = torch.empty(size, dtype=torch.uint8, device=x.device)
            self._native.cuda_k_center_lazy_start(x, eligible, workspace, picks=eager, pairs=pairs, stream=stream)
            made = eager
            while made < k:
                self._native.cuda_k_center_lazy_rounds(
                    x, mind, eligible, keys, workspace, rounds=_ROUNDS, stream=stream
                )
                before = made
                _, made, pairs = workspace[:24].view(torch.int64).tolist()
                if made == before:  # every round makes a pick while there is a row to pick
                    raise RuntimeError(
                        f"k_center on CUDA made {made} of {k} picks and found no eligible row for more "
                        f"({count} rows were eligible): ask for fewer"
                    )
        indices = torch.empty(k, dtype=torch.int64, device=x.device)
        squared = torch.empty(k, dtype=torch.float32, device=x.device)
        self._native.cuda_k_center_decode(keys, indices, squared, stream=stream)
        return indices, squared, pairs
