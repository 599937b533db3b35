"""Fashion-MNIST: pictures of clothes."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poolwright import Dataset, DatasetError, TensorSplit

from .augmentation import shift_and_flip
from .downloading import fetched
from .options import path_of

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = 0.2860, 0.3530
"""Of the training pixels, scaled to [0, 1]."""
PREFIXES = ("train", "t10k")
"""Of the files with the pool and with the test data."""


class FashionMNIST(Dataset):
    """70,000 pictures of clothes, 28 x 28 gray pixels, ten classes: 60,000 to choose from, 10,000 for tests.

    Stored as uint8 ``(n, 1, 28, 28)``, prepared to mean 0 and standard deviation 1. The augmentation shifts
    by up to two pixels and mirrors. The files are read where they lie, packed (``.gz``) or not; nothing is
    written unless something is downloaded.

    Source: Xiao, Rasul and Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms*, arXiv:1708.07747.

    Parameters
    ----------
    root : str
        Folder that holds, or is to hold, ``FashionMNIST/raw/``: torchvision's layout.
    download : bool
        Let torchvision download the files where some are missing.
    """

    task = "classification"
    classes = CLASSES
    pool: TensorSplit
    test: TensorSplit

    def __init__(self, *, root: str = "data", download: bool = False) -> None:
        self.root = root
        self.download = download

    def load(self) -> None:
        """Read the data.

        Raises
        ------
        DatasetError
            Files are missing or damaged, or cannot be downloaded.
        """
        from torchvision import datasets

        root = path_of(self.root, "fashion-mnist")
        folder = root / "FashionMNIST" / "raw"
        missing = missing_files(folder)
        if missing and self.download:
            fetched(lambda: datasets.FashionMNIST(str(root), download=True), "Fashion-MNIST", self.root)
            missing = missing_files(folder)
        if missing:
            raise DatasetError(
                f"Fashion-MNIST: {', '.join(missing)} not found in {folder.absolute()} (nor with .gz): "
                f"set download = true, or put the four official files there, or set root to the folder that "
                f"holds FashionMNIST/raw"
            )
        self.pool, self.test = (read_split(folder, prefix) for prefix in PREFIXES)

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return pixels of mean 0 and standard deviation 1."""
        return inputs.float() / (255 * STD) - MEAN / STD

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images shifted and mirrored at random."""
        return shift_and_flip(inputs, generator, shift=2, fill=-MEAN / STD)


def missing_files(folder: Path) -> list[str]:
    """Return the names of the official files that ``folder`` holds neither unpacked nor packed."""
    names = [f"{prefix}-{kind}-ubyte" for prefix in PREFIXES for kind in ("images-idx3", "labels-idx1")]
    return [name for name in names if not (folder / name).is_file() and not (folder / f"{name}.gz").is_file()]


def read_split(folder: Path, prefix: str) -> TensorSplit:
    """Return the images and labels whose file names begin with ``prefix``.

    Raises
    ------
    DatasetError
        A file is damaged, or there are not as many labels as images.
    """
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte", 3)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte", 1)
    return TensorSplit(images[:, None], labels)


def read_idx(path: Path, ndim: int) -> Tensor:
    """Return the uint8 array of ``ndim`` dimensions in an IDX file, ``path`` itself or ``path`` with ``.gz``.

    Raises
    ------
    DatasetError
        The file is damaged.
    """
    packed = path.with_name(f"{path.name}.gz")
    file = path if path.is_file() else packed
    try:
        content = file.read_bytes() if file == path else gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"Fashion-MNIST: {file} is damaged ({error}): remove it and get it again") from error
    start = 4 + 4 * ndim
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    if content[:4] != bytes((0, 0, 8, ndim)) or len(content) - start != np.prod(shape, dtype=np.int64):
        raise DatasetError(
            f"Fashion-MNIST: {file} is damaged ({len(content)} bytes that are no IDX file of {ndim} "
            f"dimensions): remove it and get it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
