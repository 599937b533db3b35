"""Batches of pool images, labeled and unlabeled side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle

from .networks import ImageShape

RESIDENT_BYTES = 2**30
"""Images, and masks, up to this size are kept in memory while a network is trained."""


def resident_bytes(device: torch.device) -> int:
    """Return how much may be kept on a device: :data:`RESIDENT_BYTES`, or a quarter of what is free on CUDA."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else RESIDENT_BYTES


def image_shape(cycle: Cycle, strategy: str) -> ImageShape:
    """Return the shape of the pool's prepared images.

    Raises
    ------
    ConfigError
        The samples are no images.
    """
    shape = cycle.samples(torch.empty(0, dtype=torch.int64)).shape
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(
            f"{strategy}: samples must be images (channels, height, width), not of shape {tuple(shape)}; "
            f"for vectors take a strategy that reads embeddings, such as coreset"
        )
    return ImageShape(*shape)


class Batch(NamedTuple):
    """Labeled samples, then unlabeled ones."""

    images: Tensor
    """float ``(n, channels, height, width)``."""
    n_labeled: int
    labeled: Tensor
    """int64 ``(n_labeled,)``: positions among the labeled ids, on the device of the images where these are kept."""
    unlabeled: Tensor
    """int64 ``(n - n_labeled,)``: positions among the unlabeled ids."""


class PoolBatches:
    """Random batches of a pool's labeled and unlabeled images.

    Each batch holds ``batch_size`` of either, or all there are. The smaller set is gone through again and again; an
    epoch has as many steps as the whole pool has batches, as in the code of VAAL's authors.

    Parameters
    ----------
    cycle : Cycle
        Where the images come from.
    labeled, unlabeled : Tensor
        int64 ids; one of the two may be empty.
    batch_size : int
    """

    def __init__(self, cycle: Cycle, labeled: Tensor, unlabeled: Tensor, batch_size: int) -> None:
        self.device = torch.device(cycle.device)
        self._samples = cycle.samples(torch.cat([labeled, unlabeled]))
        self._sizes = (len(labeled), len(unlabeled))
        self._batch_size = batch_size
        self.steps = math.ceil(sum(self._sizes) / batch_size)
        self._kept = self._keep()

    def _keep(self) -> Tensor | None:
        """Return all prepared images on the device, or None where they take too much."""
        shape = self._samples.shape
        if 4 * len(self._samples) * math.prod(shape) > resident_bytes(self.device):
            return None
        kept = torch.empty(len(self._samples), *shape, device=self.device, memory_format=torch.channels_last)
        for rows in torch.arange(len(self._samples)).split(self._batch_size):
            kept[rows[0] : rows[-1] + 1] = self._samples.inputs(rows, device=self.device)
        return kept

    def epoch(self, generator: torch.Generator, draws: int = 1) -> Iterator[Batch]:
        """Yield ``draws`` batches for each step of an epoch, in an order drawn from ``generator``."""
        labeled, unlabeled = (self._order(size, draws * self.steps, generator) for size in self._sizes)
        for first, second in zip(labeled, unlabeled, strict=True):
            yield Batch(self._images(torch.cat([first, second + self._sizes[0]])), len(first), first, second)

    def _order(self, size: int, batches: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return positions below ``size`` for each batch: shuffles of all of them, one after the other."""
        each = min(size, self._batch_size)
        shuffles = [torch.randperm(size, generator=generator) for _ in range(math.ceil(batches * each / max(1, size)))]
        order = torch.cat([*shuffles, torch.empty(0, dtype=torch.int64)])[: batches * each].reshape(batches, each)
        return (order if self._kept is None else order.to(self.device)).unbind()

    def _images(self, rows: Tensor) -> Tensor:
        images = self._samples.inputs(rows, device=self.device) if self._kept is None else self._kept[rows]
        return images.contiguous(memory_format=torch.channels_last)
