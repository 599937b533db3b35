"""Masks, one class a pixel: kept in the smallest type that holds them, read by rows, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

IGNORE_INDEX = 255
"""What a mask holds where nobody knows the class, unless a data set says otherwise."""

BLOCK_VALUES = 2**24
"""Pixels that are widened to int64 at a time (128 MiB)."""


def compact(mask: Tensor) -> Tensor:
    """Return a copy of an integer array in the smallest type that holds its values: uint8, int16, int32 or int64."""
    if not mask.numel():
        return mask.to(torch.uint8, copy=True)
    low, high = (int(bound) for bound in mask.aminmax())
    for dtype in (torch.uint8, torch.int16, torch.int32):
        kind = torch.iinfo(dtype)
        if kind.min <= low and high <= kind.max:
            return mask.to(dtype, copy=True)
    return mask.to(torch.int64, copy=True)


class Stray(NamedTuple):
    """A pixel whose value is neither a class nor to be ignored."""

    row: int
    y: int
    x: int
    value: int


def first_stray(masks: Tensor, n_classes: int, ignore_index: int) -> Stray | None:
    """Return the first value outside the classes in masks ``(n, height, width)``, or None; reads in blocks."""
    step = max(1, BLOCK_VALUES // max(1, masks[:1].numel()))
    for start in range(0, len(masks), step):
        block = masks[start : start + step].long()  # a comparison in uint8 would wrap the bounds
        wrong = ((block < 0) | (block >= n_classes)) & (block != ignore_index)
        if wrong.any():
            row, y, x = (int(place) for place in wrong.nonzero()[0])
            return Stray(start + row, y, x, int(block[row, y, x]))
    return None


def no_class(value: int, n_classes: int, ignore_index: int) -> str:
    """Return the end of a complaint about a pixel that :func:`first_stray` found."""
    return f"{value}, which is no class: there are 0..{n_classes - 1}, and {ignore_index} for pixels to be ignored"


class LabelRows:
    """Labels that are read when they are asked for: all masks of a data set would fill the memory.

    ``labels[rows]`` gives int64 ``(len(rows), height, width)`` for a tensor of rows or a slice.

    Parameters
    ----------
    ids : Tensor
        int64 ``(n,)``: the sample of each row.
    read : callable
        Returns the labels of some ids.
    """

    def __init__(self, ids: Tensor, read: Callable[[Tensor], Tensor]) -> None:
        self._ids = ids
        self._read = read
        self._resident: dict[torch.device, Tensor | None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return self._read(self._ids[rows if isinstance(rows, slice) else rows.cpu()]).long()

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, height, width)``; reads one of them."""
        return (len(self), *self[:1].shape[1:])

    def resident(self, device: torch.device) -> Tensor | None:
        """Return all labels on a CUDA ``device``, compact, copied there once.

        None where they would fill over a quarter of its memory, or on another kind of device.
        """
        if device.type != "cuda":
            return None
        if device not in self._resident:
            free, _ = torch.cuda.mem_get_info(device)
            one = compact(self[:1])
            if one.nbytes * len(self) > free // 4:
                self._resident[device] = None  # not asked again: each batch would read a mask for it
                return None
            step = max(1, BLOCK_VALUES // max(1, one.numel()))
            parts = [compact(self[start : start + step]).to(device) for start in range(0, len(self), step)]
            self._resident[device] = torch.cat(parts) if parts else one.to(device)
        return self._resident[device]
