"""What data sets of pictures in class folders have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, DatasetError, Split

from .augmentation import shift_and_flip
from .folders import read_classes
from .image_files import Form, ImageFiles, form_of, kept
from .options import share_of
from .pixels import IMAGENET_MEAN, IMAGENET_STD, black, normalize
from .splitting import stratified_split

SHIFT = 8
"""The augmentation shifts by up to one such part of the shorter side."""


class ClassFolders(Dataset):
    """Pictures in class folders; a data set says which folders, and what becomes of them.

    Stored as uint8 ``(n, channels, height, width)``, prepared to the mean and deviation that the data set names. The
    augmentation shifts by up to an eighth of the shorter side, black coming in, and mirrors.

    Parameters
    ----------
    memory : float
        GiB: pictures that take at most this in all are decoded once, when the data are loaded, and kept; others are
        decoded each time they are asked for.

    Attributes
    ----------
    mean, std : sequence of float
        What :meth:`prepare` scales by, one number a channel.
    """

    task = "classification"
    title: str
    memory: float
    mean: Any = IMAGENET_MEAN
    std: Any = IMAGENET_STD
    flip: bool = True

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return pixels scaled by mean and standard deviation, channel by channel."""
        return normalize(inputs, *self._scale())

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the pictures shifted and mirrored at random."""
        shift = max(1, min(inputs.shape[2:]) // SHIFT)
        return shift_and_flip(inputs, generator, shift=shift, fill=black(*self._scale()), flip=self.flip)

    def _scale(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.mean, self.std

    def _cut(self, folder: Path, share: Any, *, size: Any, channels: int = 3) -> None:
        """Take pool and test data from one folder of class folders."""
        paths, labels = read_classes(folder, self.classes, self.title)
        rows = stratified_split(labels, share_of(share, self.title), self.title)
        if not len(rows[1]):
            raise DatasetError(
                f"{self.title}: {share} of each class in {folder} is no picture at all: raise test, or add pictures"
            )
        form = form_of(paths[0], size, channels, self.title)
        parts = [([paths[row] for row in part.tolist()], labels[part]) for part in rows]
        self.pool, self.test = self._splits(parts, form)

    def _splits(self, parts: Sequence[tuple[Sequence[str], Tensor]], form: Form) -> list[Split]:
        return kept([ImageFiles(self.title, paths, labels, form) for paths, labels in parts], self.memory)
