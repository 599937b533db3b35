"""Matrices that kernels read: one face over arrays, tensors, memory maps and Rows, in float32 or narrower."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# A block of rows is at most this large: enough to amortize a call, little enough to leave the caches useful.
_BLOCK_BYTES = 64 << 20


class Matrix:
    """n rows of d finite numbers, whole in memory or read in blocks.

    Attributes
    ----------
    n, d : int
        Shape.
    device : torch.device
        Where the rows come out.
    numpy : bool
        The caller gave numpy, and gets numpy back.
    dense : Tensor or None
        All rows, (n, d) float32, float16 or bfloat16 with any strides; None where they are read in blocks.
    """

    def __init__(
        self,
        n: int,
        d: int,
        device: torch.device,
        numpy: bool,
        read: Callable[[Any], Tensor],
        block_rows: int,
    ) -> None:
        self.n, self.d, self.device, self.numpy = n, d, device, numpy
        self.dense: Tensor | None = None
        self._read = read
        self.block_rows = block_rows

    def rows(self, ids: Tensor) -> Tensor:
        """Return the rows ``ids`` (int64, on the CPU) as a contiguous float32 tensor (len(ids), d)."""
        import torch

        rows = self._read(ids) if self.dense is None else self.dense[ids.to(self.device)]
        return rows.to(torch.float32).contiguous()

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, block)`` in order."""
        for start in range(0, self.n, self.block_rows):
            stop = min(start + self.block_rows, self.n)
            yield start, self.block(slice(start, stop))

    def block(self, rows: slice) -> Tensor:
        """Return neighboring rows in their own type, shared where that is possible."""
        return self._read(rows) if self.dense is None else self.dense[rows]

    def gathered(self, ids: Tensor) -> Matrix:
        """Return the rows ``ids`` as a matrix in memory, read block by block."""
        import torch

        out = torch.empty((len(ids), self.d), dtype=torch.float32, device=self.device)
        for start in range(0, len(ids), self.block_rows):
            part = ids[start : start + self.block_rows]
            out[start : start + len(part)] = self.rows(part)
        matrix = Matrix(len(ids), self.d, self.device, self.numpy, out.__getitem__, self.block_rows)
        matrix.dense = out
        return matrix


class _Source(NamedTuple):
    """What `open_matrix` learns of x before it decides how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    numpy: bool
    tensor: Tensor | None  # the whole of x, shared, if x is in memory and torch can share it
    read: Callable[[Any], Tensor]


def _bytes(memory_limit: Any) -> int:
    try:
        return operator.index(memory_limit)
    except TypeError:
        raise TypeError(f"memory_limit must be an integer, a number of bytes, not {memory_limit!r}") from None


def default_memory_limit(device: torch.device) -> int:
    """Return a quarter of the memory of the machine, or of the CUDA device, in bytes."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory) // 4
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def open_matrix(
    x: Any,
    *,
    unit_rows: bool,
    memory_limit: int | None,
    workspace: int,
    name: str = "x",
    reserved: int = 0,
    columns: int = 0,
) -> tuple[Matrix, int]:
    """Read x in place where possible, from a float32 copy where that fits, else in blocks.

    Parameters
    ----------
    x : array
        (n, d) numpy array, memory map, torch tensor, or Rows-like object (``shape``, ``blocks``, indexing by
        slice and by int64 ids). float32, float16 and bfloat16 are read as they are; float64 is rounded to
        float32.
    unit_rows : bool
        Scale every row to length 1; zero rows stay zero.
    memory_limit : int or None
        Bytes that may be allocated beside x; None: `default_memory_limit`.
    workspace : int
        Bytes per row that the caller itself will allocate.
    name : str
        What messages call x.
    reserved : int
        Bytes of the limit that are in use already.
    columns : int
        Bytes per column that the caller itself will allocate.

    Returns
    -------
    matrix : Matrix
    spare : int
        Bytes of the limit that are left.

    Raises
    ------
    TypeError, ValueError
        x is no matrix of floating numbers, or the limit is no integer, or below the workspace and one row.
    """
    import torch

    limit = None if memory_limit is None else _bytes(memory_limit)
    source = _source(x, name)
    if len(source.shape) != 2:
        hint = f"; a vector of n numbers is {name}[:, None]" if len(source.shape) == 1 else ""
        raise ValueError(f"{name} must be a matrix (n, d), not an array of shape {source.shape}{hint}")
    if source.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        found = str(source.dtype).removeprefix("torch.")
        raise TypeError(
            f"{name} must be float32, float16, bfloat16 or float64, not {found}: convert it to float32 first"
        )
    n, d = source.shape
    if limit is None:
        limit = default_memory_limit(source.device)
    # A block may exist four times: as it is read, in float32, in float64 for the norms, and as differences.
    row_bytes = 4 * 8 * max(d, 1)
    taken = reserved + n * workspace + d * columns
    spare = limit - taken
    if n and spare < row_bytes:
        need = taken + row_bytes
        raise ValueError(f"memory_limit = {limit} bytes is too little for {n} x {d}: at least {need} are needed")
    block_rows = max(1, min(_BLOCK_BYTES, spare // 2) // row_bytes)

    convert = unit_rows or source.dtype == torch.float64

    def read(rows: Any) -> Tensor:
        block = source.read(rows)
        if not convert:
            return block
        if not unit_rows:
            return block.to(torch.float32)
        wide = block.to(torch.float64)
        # By the largest value first, since squares of 1e200 overflow float64 too. Divided in float64 and rounded
        # once: the same bits whatever the block.
        largest = torch.linalg.vector_norm(wide, ord=torch.inf, dim=1, keepdim=True)
        wide = wide / torch.where(largest > 0, largest, 1.0)
        norms = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        return (wide / torch.where(norms > 0, norms, 1.0)).to(torch.float32)

    matrix = Matrix(n, d, source.device, source.numpy, read, block_rows)
    if source.tensor is not None and not convert:
        matrix.dense = source.tensor
    elif n * d * 4 <= spare // 2:
        if convert or source.numpy:
            dense = torch.empty((n, d), dtype=torch.float32 if convert else source.dtype, device=source.device)
            for start, block in matrix.blocks():
                dense[start : start + len(block)] = block
            matrix.dense = dense
        else:  # Rows: asked for all at once they may share their memory
            matrix.dense = source.read(slice(0, n))
        spare -= n * d * 4
    return matrix, spare


def _source(x: Any, name: str) -> _Source:
    import numpy as np
    import torch

    if isinstance(x, torch.Tensor):
        if x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, not {x.layout}")
        tensor = x.detach()
        return _Source(tuple(x.shape), x.dtype, x.device, False, tensor, tensor.__getitem__)
    if hasattr(x, "blocks") and hasattr(x, "shape"):
        sample = x[slice(0, 0)]
        return _Source(tuple(x.shape), sample.dtype, sample.device, False, None, lambda rows: x[rows].detach())
    if not hasattr(x, "shape"):
        raise TypeError(f"{name} must be a numpy array, a torch tensor or Rows, not {type(x).__name__}")
    array = np.asarray(x)
    dtypes = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
    if array.dtype.name not in dtypes:
        raise TypeError(
            f"{name} must be float32, float16 or float64 (bfloat16 as a torch tensor), not {array.dtype.name}: "
            "convert it to float32 first"
        )
    dtype, cpu = dtypes[array.dtype.name], torch.device("cpu")
    if torch_reads(array):
        shared = _share(array)
        return _Source(array.shape, dtype, cpu, True, shared, shared.__getitem__)

    def read(rows: Any) -> Tensor:
        part = array[rows if isinstance(rows, slice) else rows.numpy()]
        return torch.from_numpy(np.array(part, dtype=part.dtype.newbyteorder("="), order="C"))

    return _Source(array.shape, dtype, cpu, True, None, read)


def torch_reads(array: Any) -> bool:
    """Say whether torch can share the memory of a numpy array: it knows no foreign byte order, negative strides,
    packed records or unaligned numbers."""
    flags, size = array.flags, array.itemsize
    return bool(
        array.dtype.isnative and flags.aligned and all(step >= 0 and step % size == 0 for step in array.strides)
    )


def as_tensor(array: Any) -> Tensor:
    """Return a numpy array as a tensor that shares its memory, or a copy where it is read-only or torch cannot."""
    import numpy as np
    import torch

    if array.flags.writeable and torch_reads(array):
        return torch.from_numpy(array)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


class _Writable:
    """The same memory with the read-only flag off, so that torch shares it without a warning. It is never
    written."""

    def __init__(self, array: Any) -> None:
        self.array = array  # keeps the memory
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _share(array: Any) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def largest_value(d: int) -> float:
    """Return what the values of d columns must stay below for their squared distances to fit in float32."""
    import torch

    # Differences are up to twice the largest value, and d squares of them are summed.
    return float((torch.finfo(torch.float32).max / (4 * max(1, d))) ** 0.5)


def check_finite(matrix: Matrix, taking_part: Tensor, name: str = "x") -> None:
    """Check that the rows that take part are finite and that their squared distances fit in float32.

    Parameters
    ----------
    matrix : Matrix
        (n, d).
    taking_part : Tensor
        (n,) bool, on the CPU: rows that are not are not looked at.
    name : str
        What messages call the matrix.

    Raises
    ------
    ValueError
        How many rows are not, and the first.

    Notes
    -----
    One pass over x; a second one only to name the culprits.
    """
    import torch

    if matrix.n == 0 or matrix.d == 0:
        return
    largest = largest_value(matrix.d)
    # min and max carry NaN along, and need no temporary.
    if all(max(abs(float(v)) for v in torch.aminmax(block)) < largest for _, block in matrix.blocks()):
        return
    for message, is_bad in (
        (f"rows of {name} with NaN or infinity (as float32)", lambda block: ~torch.isfinite(block)),
        (
            f"rows of {name} with values above {largest:.2g}, whose squared distances overflow",
            lambda b: b.abs() >= largest,
        ),
    ):
        bad = torch.cat([is_bad(block).any(dim=1).cpu() for _, block in matrix.blocks()]) & taking_part
        if bad.any():
            count, row = int(bad.sum()), int(bad.nonzero()[0])
            raise ValueError(f"{count} {message}; the first is row {row}: drop, fill or rescale them")
