"""Masks in files: one number a pixel, never interpolated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwright import DatasetError

from .image_files import Form, Pictures, fill, opened

MASK_SUFFIXES = (".png", ".bmp", ".pgm", ".tif", ".tiff")
"""Of the files that are taken for masks; JPEG would blur their numbers."""
NUMBERS = ("L", "P", "1", "I", "I;16", "I;16B")
"""What Pillow calls pictures of one number a pixel; of a palette (P) it is the index."""


class MaskValues:
    """What the numbers in mask files stand for.

    Parameters
    ----------
    classes : dict of int to int
        Number in the file -> class.
    ignored : collection of int
        Numbers in the file that belong to no class; one that is a class too is a class.
    ignore_index : int
        What an ignored pixel has as its label, outside the classes.

    Attributes
    ----------
    dtype : torch.dtype
        In which labels are kept: uint8 where they fit, else int32.
    """

    def __init__(self, classes: Mapping[int, int], ignored: Collection[int], ignore_index: int) -> None:
        # Every number of 8 bits has an entry; the last one stands for all that the table does not hold.
        self._table = np.full(max(*classes, *ignored, 255) + 2, -1, np.int32)
        self._table[list(ignored)] = ignore_index
        self._table[list(classes)] = list(classes.values())
        self._named = sorted({*classes, *ignored})
        self.dtype = torch.uint8 if max(*classes.values(), ignore_index) < 256 else torch.int32

    def labels(self, numbers: Any, path: str, title: str) -> Any:
        """Return the labels of the ``numbers`` in a file, int32 in their shape.

        Raises
        ------
        DatasetError
            One of them is neither a class nor ignored.
        """
        within = numbers if numbers.dtype == np.uint8 else np.clip(numbers, -1, len(self._table) - 1)
        labels = self._table[within]
        if labels.min() < 0:
            unknown = labels < 0
            known = ", ".join(map(str, self._named[:40])) + (", ..." if len(self._named) > 40 else "")
            raise DatasetError(
                f"{title}: {path}: {int(unknown.sum())} pixels hold numbers that are neither a class nor ignored, "
                f"such as {int(numbers[unknown][0])}; known are {known}"
            )
        return labels


class ImageMaskFiles(Pictures):
    """A split of pictures and masks, each read when it is asked for.

    A mask must have its picture's size; both are scaled alike, the mask to the nearest pixel. ``labels(ids)`` gives
    int64 ``(n, height, width)``, or a DatasetError that names a file which is missing or damaged, has another size
    than its picture, or holds numbers that stand for nothing.

    Parameters
    ----------
    title : str
        Of the data set, for errors.
    paths, masks : sequence of str
        The files, pairwise.
    form : Form
        What pictures and masks are brought to; ``fit`` is exact or stretch.
    values : MaskValues
        What the numbers in the masks stand for.
    """

    def __init__(self, title: str, paths: Sequence[str], masks: Sequence[str], form: Form, values: MaskValues) -> None:
        super().__init__(title, paths, form)
        self.masks = masks
        self.values = values

    @property
    def nbytes(self) -> int:
        """Memory that all pictures and masks take once decoded."""
        return super().nbytes + len(self) * self.form.height * self.form.width * self.values.dtype.itemsize

    def _empty_labels(self, n: int) -> Tensor:
        return torch.empty(n, self.form.height, self.form.width, dtype=self.values.dtype)

    def _read_labels(self, ids: Tensor, out: Tensor) -> None:
        fill(out, ids, self._mask)

    def _mask(self, sample: int) -> Any:
        path = self.masks[sample]
        with opened(path, self.title) as mask:
            if mask.mode not in NUMBERS:
                raise DatasetError(
                    f"{self.title}: {path} is a picture in colors ({mask.mode}): a mask holds one number a pixel"
                )
            pixels = np.asarray(mask)
            numbers = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int64)
        with opened(self.paths[sample], self.title) as image:
            size = image.height, image.width
        if numbers.shape != size:
            raise DatasetError(
                f"{self.title}: the mask {path} has {numbers.shape[1]} x {numbers.shape[0]} pixels (width x height), "
                f"but its picture {self.paths[sample]} {size[1]} x {size[0]}"
            )
        labels = self.values.labels(numbers, path, self.title)
        rows = _nearest(size[0], self.form.height)
        columns = _nearest(size[1], self.form.width)
        return labels[rows[:, None], columns]


def _nearest(stored: int, wanted: int) -> Any:
    """Return for each of ``wanted`` pixels the one of ``stored`` that its center lies in."""
    return (2 * np.arange(wanted) + 1) * stored // (2 * wanted)
