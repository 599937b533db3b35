"""Changing the size of maps by matrix products, whose gradients on CUDA are deterministic and need no atomics.

The gradients of ``interpolate(mode="bilinear")`` and of ``adaptive_avg_pool2d`` add up in whatever order the threads
of a CUDA device come; under ``torch.use_deterministic_algorithms`` they warn, raise, or fall back to slow scatters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample_bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps ``(n, c, h, w)`` at another ``size``, as ``interpolate(mode="bilinear")`` does, in float32."""
    return _resize(maps, *(_linear(old, new, maps.device) for old, new in zip(maps.shape[2:], size, strict=True)))


def average_to(maps: Tensor, size: int) -> Tensor:
    """Return maps ``(n, c, h, w)`` averaged to ``(n, c, size, size)``, as ``adaptive_avg_pool2d`` does."""
    if tuple(maps.shape[2:]) == (size, size):
        return maps
    return _resize(maps, *(_average(old, size, maps.device) for old in maps.shape[2:]))


def _linear(old: int, new: int, device: torch.device) -> Tensor:
    unit = torch.eye(old, device=device)[None]
    return F.interpolate(unit, size=new, mode="linear", align_corners=False)[0].T


def _average(old: int, new: int, device: torch.device) -> Tensor:
    return F.adaptive_avg_pool1d(torch.eye(old, device=device)[None], new)[0].T


def _resize(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ maps @ columns.T`` in float32, whatever the precision around."""
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ (maps.float() @ columns.T)
