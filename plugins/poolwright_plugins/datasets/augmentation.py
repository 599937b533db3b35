"""Random changes of images, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shift_and_flip(images: Tensor, generator: torch.Generator, *, shift: int, fill: float) -> Tensor:
    """Shift each image by up to ``shift`` pixels both ways and mirror every other one, at random.

    Parameters
    ----------
    images : Tensor
        ``(n, channels, height, width)``, on any device; not changed.
    generator : torch.Generator
        On the CPU.
    shift : int
        Pixels, at most.
    fill : float
        Value of what comes in from outside.
    """
    n, channels, height, width = images.shape
    device = images.device
    offsets = torch.randint(2 * shift + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    columns = (torch.where(mirrored, width - 1 - columns, columns) + offsets[1]).to(device)
    rows = (torch.arange(height) + offsets[0]).to(device)
    padded = F.pad(images, (shift,) * 4, value=fill)
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
