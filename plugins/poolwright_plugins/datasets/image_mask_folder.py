"""Your own pictures with masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import torch

from poolwright import ConfigError, DatasetError, streams

from .mask_files import MASK_SUFFIXES, MaskValues
from .options import path_of, share_of
from .pixels import statistics_of
from .segmentation_files import IGNORE_INDEX, Pairs, SegmentationFiles, paired

PARTS = ("train", "test", "val")


class ImageMaskFolder(SegmentationFiles):
    """Pictures and masks of the same name: ``ROOT/images/a.jpg`` and ``ROOT/masks/a.png``.

    Either in parts, ``ROOT/train/images``, ``ROOT/train/masks``, ``ROOT/test/images`` and ``ROOT/test/masks``; a third
    one, ``val``, is validation data, and takes the place of ``test`` where there is none. Or both folders right in
    ROOT: then a share of the pictures, always the same, becomes the test data.

    A mask has its picture's size and one number a pixel: gray levels of 8 or 16 bits, or a palette, whose indices
    count. Masks are .png, .bmp, .pgm, .tif or .tiff; JPEG would blur their numbers. Files are sorted by name, so that
    ids are the same on every machine; a mask without a picture is passed over. The augmentation mirrors picture and
    mask and enlarges a part of both by up to 1.5. Nothing is written.

    Parameters
    ----------
    root : str
        The folder.
    classes : list of str or int
        Names of the classes, or how many there are.
    values : list of int, optional
        The number in the masks of each class, such as [0, 255] for masks in black and white; 0, 1, ... without it.
    ignore_index : int
        The number in the masks of pixels that belong to no class; also their label. One of ``values`` is a class all
        the same, but no label may be: it must not lie in 0..C-1.
    size : int, list of int or "original"
        Side of a square, or height and width, to which pictures (bilinear) and masks (nearest pixel) are scaled
        without keeping their proportions; ``"original"``: as they are, and all must have one size.
    channels : int
        3 (RGB) or 1 (gray).
    test : float
        Share of the pictures that becomes test data where there is no such folder; above 0 and below 1.
    mean, std : list of float or "auto"
        What pixels in [0, 1] are scaled by, one number a channel; ``"auto"``: mean and standard deviation of the
        pool's pictures (of 2,048 of them where there are more).
    memory : float
        GiB: pictures and masks that take at most this in all are decoded once, when the data are loaded, and kept;
        others are decoded each time they are asked for.
    """

    title = "image-mask-folder"

    def __init__(
        self,
        *,
        root: str,
        classes: int | Sequence[str],
        values: Sequence[int] | None = None,
        ignore_index: int = IGNORE_INDEX,
        size: int | Sequence[int] | str = "original",
        channels: int = 3,
        test: float = 0.2,
        mean: str | Sequence[float] = "auto",
        std: str | Sequence[float] = "auto",
        memory: float = 2.0,
    ) -> None:
        self.root = root
        self.class_names = classes
        self.values = values
        self.ignore_index = ignore_index
        self.size = size
        self.channels = channels
        self.test_share = test
        self.mean = mean
        self.std = std
        self.memory = memory

    def load(self) -> None:
        """List the files, and decode them where they fit into memory.

        Raises
        ------
        DatasetError
            The folder is not as described, masks are missing, or a file is damaged.
        ConfigError
            An option has no sense.
        """
        self.classes = self._names(self.class_names)
        values = self._mask_values()
        root = path_of(self.root, self.title)
        present = [part for part in PARTS if (root / part / "images").is_dir()]
        if "train" in present and len(present) > 1:
            parts = [self._pairs(root / part) for part in present]
        elif (folder := root / "train" if "train" in present else root) and (folder / "images").is_dir():
            parts = self._cut(self._pairs(folder))
        else:
            raise DatasetError(
                f"{self.title}: there is no folder {(root / 'images').absolute()} (nor train/images): set root to the "
                f"folder that holds images and masks, or train and test with those"
            )
        self._read(parts, values, size=self.size, channels=self.channels)
        self._means, self._deviations = statistics_of(self.mean, self.std, self.pool, self.channels, self.title)

    def _pairs(self, folder: Path) -> Pairs:
        return paired(folder / "images", folder / "masks", self.title, mask_name=mask_names)

    def _cut(self, pairs: Pairs) -> list[Pairs]:
        """Return the pairs of the pool and of the test data."""
        share, n = share_of(self.test_share, self.title), len(pairs[0])
        count = round(share * n)
        if not 0 < count < n:
            raise DatasetError(
                f"{self.title}: test = {share} of {n} pictures makes {count} for tests and {n - count} to choose from: "
                f"change test, or add pictures"
            )
        order = torch.randperm(n, generator=streams.generator("dataset", self.title, "test"))
        parts = (order[count:].sort().values.tolist(), order[:count].sort().values.tolist())
        return [([pairs[0][i] for i in rows], [pairs[1][i] for i in rows]) for rows in parts]

    def _names(self, classes: Any) -> tuple[str, ...]:
        if isinstance(classes, int) and not isinstance(classes, bool) and classes > 1:
            return tuple(str(c) for c in range(classes))
        named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
        if not named or len(set(classes)) != len(classes) or len(classes) < 2:
            raise ConfigError(
                f"data set {self.title}: classes must be a list of different names or a number, two or more; "
                f"not {classes!r}"
            )
        return tuple(classes)

    def _mask_values(self) -> MaskValues:
        n = len(self.classes)
        values = list(range(n)) if self.values is None else self.values
        numbers = isinstance(values, (list, tuple)) and all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**16 for value in values
        )
        if not numbers or len(values) != n or len(set(values)) != n:
            raise ConfigError(
                f"data set {self.title}: values must be {n} different numbers from 0 to 65,535, one a class; "
                f"not {self.values!r}"
            )
        index = self.ignore_index
        if not isinstance(index, int) or not n <= index < 2**16:
            raise ConfigError(
                f"data set {self.title}: ignore_index must lie beyond the classes' numbers, in {n}..65535; "
                f"not {index!r}"
            )
        return MaskValues(dict(zip(values, range(n), strict=True)), [index], index)

    def _scale(self) -> tuple[Sequence[float], Sequence[float]]:
        return self._means, self._deviations


def mask_names(name: str) -> tuple[str, ...]:
    """Return the names that a picture's mask may have."""
    return tuple(PurePath(name).stem + suffix for suffix in MASK_SUFFIXES)
