"""Random changes of images, on tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def shift_and_flip(
    images: Tensor, generator: torch.Generator, *, shift: int, fill: float | Sequence[float], flip: bool = True
) -> Tensor:
    """Shift each image by up to ``shift`` pixels both ways and mirror every other one, at random.

    Parameters
    ----------
    images : Tensor
        ``(n, channels, height, width)``, on any device; not changed.
    generator : torch.Generator
        On the CPU.
    shift : int
        Pixels, at most.
    fill : float or sequence of float
        Value of what comes in from outside; one for all channels, or one each.
    flip : bool
        Mirror; only shift without it.
    """
    n, channels, height, width = images.shape
    device = images.device
    offsets = torch.randint(2 * shift + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < (0.5 if flip else 0.0)
    columns = torch.arange(width).expand(n, width)
    columns = (torch.where(mirrored, width - 1 - columns, columns) + offsets[1]).to(device)
    rows = (torch.arange(height) + offsets[0]).to(device)
    padded = images.new_empty(n, channels, height + 2 * shift, width + 2 * shift)
    for channel, value in enumerate(fill if isinstance(fill, Sequence) else [fill] * channels):
        padded[:, channel] = value
    padded[:, :, shift : shift + height, shift : shift + width] = images
    sample = torch.arange(n, device=device)[:, None, None, None]
    each = torch.arange(channels, device=device)[None, :, None, None]
    return padded[sample, each, rows[:, None, :, None], columns[:, None, None, :]]


def flip_and_zoom(images: Tensor, masks: Tensor, generator: torch.Generator, *, zoom: float) -> tuple[Tensor, Tensor]:
    """Mirror every other image and enlarge a part of each, at random, and its mask with it.

    The part is 1 / z of the height and of the width, with z uniform in [1, ``zoom``], at a place that is uniform too;
    it comes out in the image's size, scaled bilinearly, the mask to the nearest pixel.

    Parameters
    ----------
    images : Tensor
        Floating point ``(n, channels, height, width)``, on any device; not changed.
    masks : Tensor
        Integers ``(n, height, width)``, on the same device; not changed.
    generator : torch.Generator
        On the CPU.
    zoom : float
        1 or more.

    Returns
    -------
    tuple of Tensor
        Images and masks of the same shapes, dtypes and device.
    """
    n, _, height, width = images.shape
    part = 1 / (1 + (zoom - 1) * torch.rand(n, generator=generator))
    center = (1 - part) * (2 * torch.rand(2, n, generator=generator) - 1)
    sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    zero = torch.zeros(n)
    # Coordinates run from -1 to 1 over the image; each output pixel says where it comes from.
    rows = torch.stack([torch.stack([sign * part, zero, center[0]], 1), torch.stack([zero, part, center[1]], 1)], 1)
    grid = F.affine_grid(rows.to(images.device), [n, 1, height, width], align_corners=False)
    # "border": the outermost pixels' centers may fall beyond the last stored ones by rounding.
    zoomed = F.grid_sample(images, grid.to(images.dtype), "bilinear", "border", align_corners=False)
    # float32 holds every class and ignore index exactly.
    nearest = F.grid_sample(masks[:, None].float(), grid, "nearest", "border", align_corners=False)
    return zoomed, nearest[:, 0].to(masks.dtype)
