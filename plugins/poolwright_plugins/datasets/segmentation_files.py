"""What data sets of pictures and masks have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, DatasetError

from .augmentation import flip_and_zoom
from .folders import files_in
from .image_files import form_of, kept
from .mask_files import ImageMaskFiles, MaskValues
from .pixels import IMAGENET_MEAN, IMAGENET_STD, normalize

ZOOM = 1.5
"""The augmentation enlarges by up to this."""
IGNORE_INDEX = 255

Pairs = tuple[Sequence[str], Sequence[str]]
"""Paths of pictures and of their masks."""


class SegmentationFiles(Dataset):
    """Pictures and masks in files; a data set says which, and what the masks' numbers stand for.

    Pictures are stored as uint8 ``(n, channels, height, width)``, prepared to the mean and deviation that the data set
    names. The augmentation mirrors a picture and its mask and enlarges a part of both by up to 1.5.

    Attributes
    ----------
    ignore_index : int
        Label of pixels that belong to no class: neither trained on nor evaluated.
    mean, std : sequence of float
        What :meth:`prepare` scales by, one number a channel.
    """

    task = "segmentation"
    ignore_index = IGNORE_INDEX
    title: str
    memory: float
    mean: Any = IMAGENET_MEAN
    std: Any = IMAGENET_STD

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return pixels scaled by mean and standard deviation, channel by channel."""
        return normalize(inputs, *self._scale())

    def augment_pair(self, inputs: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return prepared pictures and their masks, mirrored and enlarged together at random.

        Parameters
        ----------
        inputs : Tensor
            ``(n, channels, height, width)``, on any device.
        masks : Tensor
            Integers ``(n, height, width)``, on the same device.
        generator : torch.Generator
            On the CPU.
        """
        return flip_and_zoom(inputs, masks, generator, zoom=ZOOM)

    def _scale(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.mean, self.std

    def _read(self, parts: Sequence[Pairs], values: MaskValues, *, size: Any, channels: int = 3) -> None:
        """Take pool, test data and perhaps validation data from pairs of files."""
        form = form_of(parts[0][0][0], size, channels, self.title)
        splits = [ImageMaskFiles(self.title, images, masks, form, values) for images, masks in parts]
        self.pool, self.test, *rest = kept(splits, self.memory)
        self.validation = rest[0] if rest else None


def paired(images: Path, masks: Path, title: str, *, mask_name: Callable[[str], Sequence[str]]) -> Pairs:
    """Return the pictures in one folder, sorted, and their masks in another.

    Parameters
    ----------
    images, masks : Path
        The folders.
    title : str
        Of the data set, for errors.
    mask_name : callable
        Name of a picture -> names that its mask may have; the first that is there is taken.

    Raises
    ------
    DatasetError
        A folder cannot be read, holds no pictures, or lacks the mask of one.
    """
    names = files_in(images, title)
    try:
        present = set(os.listdir(masks))
    except OSError as error:
        raise DatasetError(f"{title}: the folder {masks} cannot be read: {error.strerror}") from error
    found, lacking = [], []
    for name in names:
        mask = next((candidate for candidate in mask_name(name) if candidate in present), None)
        if mask is None:
            lacking.append(name)
        else:
            found.append(os.path.join(masks, mask))
    if lacking:
        raise DatasetError(
            f"{title}: {len(lacking)} of {len(names)} pictures in {images} have no mask in {masks}, the first is "
            f"{lacking[0]}: it should be called {' or '.join(mask_name(lacking[0]))}"
        )
    if len(set(found)) < len(found):
        twice = next(mask for mask in found if found.count(mask) > 1)
        raise DatasetError(f"{title}: several pictures in {images} share the mask {twice}: give each its own name")
    return [os.path.join(images, name) for name in names], found
