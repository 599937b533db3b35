"""Pixels scaled channel by channel, as pretrained networks and optimizers want them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poolwright import ConfigError, Split

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training pixels in [0, 1]: what torchvision's pretrained weights were trained with."""
SAMPLED = 2048
"""Pictures from which a data set's own mean and deviation are computed, at most."""
BLOCK = 2**23
"""Pixels, channels counted, that are widened to float64 at a time (64 MiB)."""


def normalize(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 pictures ``(n, channels, height, width)`` as float32: (x / 255 - mean) / std of each channel.

    Works on the inputs' device with plain numbers: on CUDA nothing is copied from the host.
    """
    x = inputs.to(torch.float32, copy=True)
    for channel, (center, deviation) in enumerate(zip(mean, std, strict=True)):
        x[:, channel].mul_(1 / (255 * deviation)).sub_(center / deviation)
    return x


def black(mean: Sequence[float], std: Sequence[float]) -> tuple[float, ...]:
    """Return what :func:`normalize` makes of a black pixel."""
    return tuple(-center / deviation for center, deviation in zip(mean, std, strict=True))


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel's pixels in [0, 1].

    Computed from at most 2,048 pictures that are spread evenly over the split. A deviation below one of the 256
    levels counts as one, so that pictures of a single color can be scaled.
    """
    n = min(len(split), SAMPLED)
    total, squares, pixels = torch.zeros(()), torch.zeros(()), 0
    step = max(1, BLOCK // split.inputs(torch.zeros(1, dtype=torch.int64)).numel())
    for ids in (torch.arange(n) * len(split) // n).split(step):
        x = split.inputs(ids).transpose(0, 1).flatten(1).double() / 255
        total, squares, pixels = total + x.sum(1), squares + x.square().sum(1), pixels + x.shape[1]
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def statistics_of(
    mean: Any, std: Any, split: Split, channels: int, title: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation as they are given, or computed from ``split`` where they are ``"auto"``.

    Raises
    ------
    ConfigError
        They are not one number a channel, or a deviation is not positive.
    """
    for key, given in (("mean", mean), ("std", std)):
        if given == "auto":
            continue
        numbers = isinstance(given, (list, tuple)) and all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in given
        )
        if not numbers or len(given) != channels or (key == "std" and min(given) <= 0):
            raise ConfigError(
                f"data set {title}: {key} must be 'auto' or {channels} numbers, one a channel, for pixels in [0, 1]"
                f"{', above 0' if key == 'std' else ''}; not {given!r}"
            )
    if "auto" not in (mean, std):
        return tuple(mean), tuple(std)
    computed = channel_statistics(split)
    return (
        computed[0] if mean == "auto" else tuple(mean),
        computed[1] if std == "auto" else tuple(std),
    )
