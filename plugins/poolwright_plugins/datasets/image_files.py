"""Pictures in files: read one by one when they are asked for, or all at once where they fit into memory."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from poolwright import ConfigError, DatasetError, Split, TensorSplit

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that are taken for pictures: torchvision's list."""
MODES = {1: "L", 3: "RGB"}
"""Number of channels -> what Pillow calls it."""
DEEP_MODES = ("I", "F")
"""How Pillow's names of pixels with more than 8 bits begin."""
SHORTER_SIDE = 8 / 7
"""Shorter side before the middle is cut out, over the cut's: 256 / 224, the custom for ImageNet."""
BLOCK = 2048
"""Pictures between two reports of the progress."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Form:
    """What all pictures of a data set are brought to.

    Attributes
    ----------
    height, width : int
        In pixels.
    channels : int
        1 (gray) or 3 (RGB). Transparency is dropped, a palette looked up.
    fit : {"exact", "stretch", "crop"}
        How a picture of another size gets there: not at all (it is refused), scaled on both axes, or scaled until the
        shorter side is 8/7 of what is wanted, whereupon the middle is cut out.
    """

    height: int
    width: int
    channels: int
    fit: str


class Pictures(ABC):
    """Pictures that are decoded when they are asked for, by as many threads as torch uses; labels are a subclass's.

    Pixels are taken as they are stored; a rotation noted in the file's EXIF data is not applied, as torchvision's
    folders do it. Scaling is bilinear with antialiasing. No file is opened before one is asked for.

    Parameters
    ----------
    title : str
        Of the data set, for errors.
    paths : sequence of str
        The files.
    form : Form
        What the pictures are brought to.
    """

    def __init__(self, title: str, paths: Sequence[str], form: Form) -> None:
        self.title = title
        self.paths = paths
        self.form = form

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        """Memory that all pictures take once decoded."""
        return len(self) * self.form.channels * self.form.height * self.form.width

    def inputs(self, ids: Tensor) -> Tensor:
        """Return pictures as uint8 ``(n, channels, height, width)``.

        Raises
        ------
        DatasetError
            A file is missing, damaged, or of a size or kind that does not fit.
        """
        form = self.form
        images = torch.empty(len(ids), form.channels, form.height, form.width, dtype=torch.uint8)
        self._read_inputs(ids, images)
        return images

    def labels(self, ids: Tensor) -> Tensor:
        """Return the labels of ``ids``, int64: one a picture, or one a pixel."""
        labels = self._empty_labels(len(ids))
        self._read_labels(ids, labels)
        return labels.long()

    def in_memory(self) -> TensorSplit:
        """Return the same samples, decoded.

        Raises
        ------
        DatasetError
            A file is missing, damaged, or of a size or kind that does not fit.
        """
        form, n = self.form, len(self)
        images = torch.empty(n, form.channels, form.height, form.width, dtype=torch.uint8)
        labels = self._empty_labels(n)
        for ids in torch.arange(n).split(BLOCK):
            part = slice(int(ids[0]), int(ids[-1]) + 1)
            self._read_inputs(ids, images[part])
            self._read_labels(ids, labels[part])
            log.info("%s: %d of %d pictures read", self.title, part.stop, n)
        return TensorSplit(images, labels)

    def _read_inputs(self, ids: Tensor, out: Tensor) -> None:
        fill(out, ids, lambda sample: read_image(self.paths[sample], self.form, self.title))

    @abstractmethod
    def _empty_labels(self, n: int) -> Tensor:
        """Return room for ``n`` labels in the type in which they are kept in memory."""

    @abstractmethod
    def _read_labels(self, ids: Tensor, out: Tensor) -> None:
        """Write the labels of ``ids`` into ``out``."""


class ImageFiles(Pictures):
    """A split of pictures of one class each.

    Parameters
    ----------
    title, paths, form
        As in :class:`Pictures`.
    classes : Tensor
        int64 ``(n,)``.
    """

    def __init__(self, title: str, paths: Sequence[str], classes: Tensor, form: Form) -> None:
        super().__init__(title, paths, form)
        self.classes = classes

    def _empty_labels(self, n: int) -> Tensor:
        return torch.empty(n, dtype=torch.int64)

    def _read_labels(self, ids: Tensor, out: Tensor) -> None:
        out[:] = self.classes[ids]


def fill(out: Tensor, ids: Tensor, read: Callable[[int], Any]) -> None:
    """Write what ``read`` gives for each of ``ids`` into the rows of ``out``, with as many threads as torch uses."""
    rows = out.numpy()

    def fill_row(row: int, sample: int) -> None:
        rows[row] = read(sample)

    samples = ids.tolist()
    threads = min(torch.get_num_threads(), len(samples))
    if threads <= 1:
        for row, sample in enumerate(samples):
            fill_row(row, sample)
        return
    with ThreadPoolExecutor(threads) as executor:
        # list() raises what a thread raised.
        list(executor.map(fill_row, range(len(samples)), samples))


def kept(splits: Sequence[Pictures], memory: Any) -> list[Split]:
    """Return the splits decoded into memory where all of them together take at most ``memory`` GiB, else as they are.

    Raises
    ------
    ConfigError
        ``memory`` is no number of GiB.
    DatasetError
        A file is damaged or does not fit the others.
    """
    title = splits[0].title
    if isinstance(memory, bool) or not isinstance(memory, (int, float)) or not memory >= 0:
        raise ConfigError(f"data set {title}: memory must be a number of GiB, 0 or more, not {memory!r}")
    size = sum(split.nbytes for split in splits)
    if size > memory * 2**30:
        log.info("%s: pictures would take %.1f GiB: each is decoded when it is asked for", title, size / 2**30)
        return list(splits)
    return [split.in_memory() for split in splits]


def read_image(path: str, form: Form, title: str) -> Any:
    """Return one picture, uint8 ``(channels, height, width)``.

    Raises
    ------
    DatasetError
        The file is missing, damaged, or of a size or kind that does not fit.
    """
    with opened(path, title) as image:
        if image.mode.startswith(DEEP_MODES):
            raise DatasetError(f"{title}: {path} has more than 8 bits a channel ({image.mode}): convert it to 8 bits")
        if form.fit == "exact" and image.size != (form.width, form.height):
            raise DatasetError(
                f"{title}: {path} has {image.width} x {image.height} pixels (width x height), others "
                f"{form.width} x {form.height}: set size to bring all of them to one"
            )
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        mode = MODES[form.channels]
        pixels = np.asarray(_fitted(image if image.mode == mode else image.convert(mode), form))
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _fitted(image: Image.Image, form: Form) -> Image.Image:
    size = (form.width, form.height)
    if form.fit != "crop":
        return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    scale = max(round(SHORTER_SIDE * form.width) / image.width, round(SHORTER_SIDE * form.height) / image.height)
    # The side that decides comes out whole; the other is cut off, as torchvision's Resize does it.
    width, height = (max(int(side * scale + 1e-6), low) for side, low in zip(image.size, size, strict=True))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - form.width) / 2), round((height - form.height) / 2)
    return image.crop((left, top, left + form.width, top + form.height))


def size_of(path: str, title: str) -> tuple[int, int]:
    """Return height and width of a picture, which are read from its header.

    Raises
    ------
    DatasetError
        The file is missing or damaged.
    """
    with opened(path, title) as image:
        return image.height, image.width


@contextmanager
def opened(path: str, title: str) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises before the end of the block becomes an error that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except (DatasetError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{title}: there is no file {path}: it was removed, or its link leads nowhere") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = str(error).partition("\n")[0]
        raise DatasetError(
            f"{title}: {path} cannot be read as a picture ({type(error).__name__}: {reason}): get it again or remove it"
        ) from error


def form_of(first: str, size: Any, channels: Any, title: str, *, fit: str = "stretch") -> Form:
    """Return the form that ``size`` and ``channels`` ask for.

    Parameters
    ----------
    first : str
        A file of the data set, whose own size all must have where no other is asked for.
    size : int, sequence of int or "original"
        Side of a square; height and width; or none.
    channels : int
        1 or 3.

    Raises
    ------
    ConfigError
        They are no size, or no number of channels.
    """
    if channels not in tuple(MODES):
        raise ConfigError(f"data set {title}: channels must be 1 (gray) or 3 (RGB), not {channels!r}")
    if size == "original":
        return Form(*size_of(first, title), channels, "exact")
    sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise ConfigError(
            f"data set {title}: size must be a number of pixels, [height, width] or 'original', not {size!r}"
        )
    return Form(sides[0], sides[1], channels, fit)
