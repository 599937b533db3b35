"""Blocks of a matrix that may be larger than memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError
from .kernels._matrix import as_tensor

_UNITS = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("", 1024))
}


def parse_size(text: str | int) -> int:
    """Return the bytes that ``"8GiB"``, ``"500 MB"`` or ``4096`` stand for.

    Raises
    ------
    ConfigError
        The text is no size.
    """
    if isinstance(text, int):
        size = text
    else:
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
        if match is None or match[2] not in _UNITS:
            raise ConfigError(f"{text!r} is no memory size: write a number and a unit, as in 8GiB or 500MB")
        size = int(float(match[1]) * _UNITS[match[2]])
    if size <= 0:
        raise ConfigError(f"a memory limit must be positive, not {text!r}")
    return size


def default_memory_limit() -> int:
    """Return a quarter of the machine's memory in bytes: what one matrix may take unless told otherwise."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


class Rows:
    """The rows of a matrix, read in blocks; the matrix itself may lie on disk.

    Parameters
    ----------
    source : numpy.ndarray, numpy.memmap or torch.Tensor
        Two or more dimensions; kept by reference, never copied whole.
    index : Tensor, optional
        int64 row numbers: these rows of ``source``, in this order.
    memory_limit : int, optional
        Bytes that one block may take; a quarter of the machine's memory by default.

    Attributes
    ----------
    shape : tuple of int
        ``(n, d, ...)``.
    dtype : torch.dtype
        Type of the tensors that indexing returns.
    """

    def __init__(self, source: Any, index: Tensor | None = None, *, memory_limit: int | None = None) -> None:
        if not isinstance(source, (np.ndarray, Tensor, _Stack)):
            raise TypeError(f"Rows reads numpy arrays and torch tensors, not {type(source).__name__}")
        if source.ndim < 2:
            raise ValueError(f"Rows needs a matrix, not an array of shape {tuple(source.shape)}")
        self._source = source
        self._index = index
        self.memory_limit = default_memory_limit() if memory_limit is None else memory_limit
        n = len(source) if index is None else len(index)
        self.shape: tuple[int, ...] = (n, *source.shape[1:])
        self.dtype: torch.dtype = as_tensor(source[:0]).dtype if isinstance(source, np.ndarray) else source.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return some rows as a tensor (a copy unless the source is in memory and ``rows`` is a slice)."""
        if self._index is not None:
            rows = self._index[rows]
        if isinstance(self._source, Tensor):
            return self._source[rows if isinstance(rows, slice) else rows.to(self._source.device)]
        if isinstance(self._source, _Stack):
            return self._source[rows]
        return as_tensor(self._source[rows if isinstance(rows, slice) else rows.numpy()])

    @property
    def nbytes(self) -> int:
        """Bytes that all rows together would take."""
        return len(self) * self.row_nbytes

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def blocks(self, memory_limit: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(first row, block)`` from the first row to the last, each block within ``memory_limit`` bytes."""
        limit = self.memory_limit if memory_limit is None else memory_limit
        step = max(1, limit // max(1, self.row_nbytes))
        for start in range(0, len(self), step):
            yield start, self[start : start + step]

    def take(self, ids: Tensor) -> Rows:
        """Return the rows ``ids`` (int64, any order) as another view of the same matrix."""
        index = ids if self._index is None else self._index[ids]
        return Rows(self._source, index, memory_limit=self.memory_limit)

    @staticmethod
    def concat(*parts: Rows) -> Rows:
        """Return the rows of ``parts``, which are alike in all but their number, one after the other, uncopied."""
        return parts[0] if len(parts) == 1 else Rows(_Stack(parts), memory_limit=parts[0].memory_limit)

    def __repr__(self) -> str:
        return f"Rows(shape={self.shape}, dtype={self.dtype})"


class _Stack:
    """Matrices one below the other, to be read by slices and row numbers as one."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        if not parts or any((part.shape[1:], part.dtype) != (parts[0].shape[1:], parts[0].dtype) for part in parts):
            raise ValueError(f"only rows of one shape and type can be concatenated, not {list(parts)}")
        self._parts = parts
        self._starts = [0, *accumulate(len(part) for part in parts)]
        self.shape, self.dtype = (self._starts[-1], *parts[0].shape[1:]), parts[0].dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            rows = torch.arange(start, stop, step)
        owner = torch.searchsorted(torch.tensor(self._starts[1:]), rows, right=True)
        pieces = [part[rows[owner == i] - self._starts[i]] for i, part in enumerate(self._parts)]
        # Row j of the answer is where the rows of one owner, put one after the other, have it.
        order = owner.argsort(stable=True)
        found = torch.cat(pieces)
        return torch.empty_like(found).index_copy_(0, order.to(found.device), found)

    def _between(self, start: int, stop: int) -> Tensor:
        spans = zip(self._starts, self._parts, strict=False)
        wanted = [(part, max(0, start - at), min(len(part), stop - at)) for at, part in spans]
        pieces = [part[first:last] for part, first, last in wanted if first < last]
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat(pieces) if pieces else self._parts[0][:0]
