"""CIFAR-10 and CIFAR-100: small photographs of animals, vehicles and other things."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, DatasetError, TensorSplit

from .augmentation import shift_and_flip
from .downloading import fetched
from .options import path_of
from .pixels import black, normalize

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
SHIFT = 4
"""Pixels by which the augmentation shifts, at most."""
UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, TypeError,
    ValueError,
)  # fmt: skip
"""What reading a damaged pickle raises."""


class Cifar(Dataset):
    """What the two have in common.

    Parameters
    ----------
    root : str
        Folder that holds, or is to hold, the folder of the official python batches: torchvision's layout.
    download : bool
        Let torchvision download the archive where files are missing.
    """

    task = "classification"
    title: str
    folder: str
    batches: tuple[str, ...]
    test_batch: str
    meta: str
    label_key: str
    names_key: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
        folder = self._folder()
        self.classes = self._names(folder, self.names_key)
        pool = [self._batch(folder / name, self.label_key, len(self.classes)) for name in self.batches]
        self.pool = TensorSplit(torch.cat([x for x, _ in pool]), torch.cat([y for _, y in pool]))
        self.test = TensorSplit(*self._batch(folder / self.test_batch, self.label_key, len(self.classes)))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return pixels of mean 0 and standard deviation 1, channel by channel."""
        return normalize(inputs, self.mean, self.std)

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images shifted and mirrored at random."""
        return shift_and_flip(inputs, generator, shift=SHIFT, fill=black(self.mean, self.std))

    def _folder(self) -> Path:
        """Return the folder of the batches, downloaded if wanted."""
        from torchvision import datasets

        root = path_of(self.root, self.title)
        folder = root / self.folder
        missing = self._missing(folder)
        if missing and self.download:
            archive = getattr(datasets, type(self).__name__)
            fetched(lambda: archive(str(root), download=True), self.title, self.root)
            missing = self._missing(folder)
        if missing:
            raise DatasetError(
                f"{self.title}: {', '.join(missing)} not found in {folder.absolute()}: set download = true, or unpack "
                f"the official archive for Python there, or set root to the folder that holds {self.folder}"
            )
        return folder

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in (*self.batches, self.test_batch, self.meta) if not (folder / name).is_file()]

    def _names(self, folder: Path, key: str) -> tuple[str, ...]:
        names = read_pickle(folder / self.meta, self.title).get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) < 2:
            raise self._damaged(folder / self.meta, f"no names under {key!r}")
        return tuple(names)

    def _batch(self, path: Path, key: str, n_classes: int) -> tuple[Tensor, Tensor]:
        """Return images, uint8 ``(n, 3, 32, 32)``, and labels, int64 ``(n,)``, of one file."""
        content = read_pickle(path, self.title)
        data = content.get("data")
        pixels = data.pixels() if isinstance(data, PickledArray) else None
        if pixels is None:
            raise self._damaged(path, "its data are not 3,072 bytes an image")
        labels = content.get(key)
        if (
            not isinstance(labels, list)
            or len(labels) != len(pixels)
            or not all(isinstance(label, int) and 0 <= label < n_classes for label in labels)
        ):
            raise self._damaged(path, f"{key} is not a list of one class, 0 to {n_classes - 1}, for each image")
        return pixels, torch.tensor(labels, dtype=torch.int64)

    def _damaged(self, path: Path, why: str) -> DatasetError:
        return DatasetError(f"{self.title}: {path} is damaged ({why}): remove it and get it again")


class CIFAR10(Cifar):
    """60,000 photographs, 32 x 32 pixels in color, of six animals and four vehicles: 50,000 to choose from.

    The other 10,000 are for tests. Stored as uint8 ``(n, 3, 32, 32)``, prepared to mean 0 and standard deviation 1 of
    each channel. The augmentation shifts by up to four pixels, black coming in, and mirrors. The official batches for
    Python are read where they lie, in ``ROOT/cifar-10-batches-py``, without running what a pickle may hold; nothing
    is written unless something is downloaded.

    Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
    Data: https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    title = "CIFAR-10"
    folder = "cifar-10-batches-py"
    batches = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
    test_batch = "test_batch"
    meta = "batches.meta"
    label_key = "labels"
    names_key = "label_names"
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class CIFAR100(Cifar):
    """60,000 photographs, 32 x 32 pixels in color, of 100 classes in 20 superclasses: 50,000 to choose from.

    The other 10,000 are for tests. Stored as uint8 ``(n, 3, 32, 32)``, prepared to mean 0 and standard deviation 1 of
    each channel. The augmentation shifts by up to four pixels, black coming in, and mirrors. The official batches for
    Python are read where they lie, in ``ROOT/cifar-100-python``, without running what a pickle may hold; nothing is
    written unless something is downloaded. ``superclasses`` are the coarse labels, for ``[oracle] superclass = true``.

    Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
    Data: https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    title = "CIFAR-100"
    folder = "cifar-100-python"
    batches = ("train",)
    test_batch = "test"
    meta = "meta"
    label_key = "fine_labels"
    names_key = "fine_label_names"
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    superclasses: Sequence[int]

    def load(self) -> None:
        """Read the data.

        Raises
        ------
        DatasetError
            Files are missing or damaged, or cannot be downloaded.
        """
        super().load()
        folder = path_of(self.root, self.title) / self.folder
        coarse_names = self._names(folder, "coarse_label_names")
        _, coarse = self._batch(folder / self.batches[0], "coarse_labels", len(coarse_names))
        pairs = torch.stack([self.pool.labels(torch.arange(len(self.pool))), coarse], 1).unique(dim=0)
        if pairs[:, 0].tolist() != list(range(len(self.classes))):
            raise self._damaged(folder / self.batches[0], "not every class is in exactly one superclass")
        self.superclasses = tuple(pairs[:, 1].tolist())


class PickledArray:
    """Stands in for an array of numpy in a pickle: keeps its state, and lets numpy build nothing from it."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = tuple(state)

    def pixels(self) -> Tensor | None:
        """Return the images, uint8 ``(n, 3, 32, 32)``; None where it is not an array of as many bytes a row."""
        match self.state:
            case (*_, (int(n), int(size)), PickledType(code="u1"), fortran, str() | bytes() as raw):
                # A string of Python 2 comes as text, a byte a character.
                content = bytearray(raw.encode("latin1") if isinstance(raw, str) else raw)
                if size == PIXELS and n > 0 and len(content) == n * size:
                    rows = torch.frombuffer(content, dtype=torch.uint8).reshape((size, n) if fortran else (n, size))
                    return (rows.T.contiguous() if fortran else rows).reshape(n, *SHAPE)
        return None


class PickledType:
    """Stands in for a dtype of numpy in a pickle: keeps its code, such as u1."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Take no notice of byte order and fields: a byte has none."""


STAND_INS = {
    "_reconstruct": PickledArray,
    "ndarray": PickledArray,
    "dtype": PickledType,
}


class _Unpickler(pickle.Unpickler):
    """Reads what Python brings with it and stand-ins for arrays; any other name is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in STAND_INS:
            return STAND_INS[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return codecs.encode
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a batch has no use for")


def read_pickle(path: Path, title: str) -> Mapping[str, Any]:
    """Return the dictionary in an official file.

    Raises
    ------
    DatasetError
        The file is damaged, or something else than numbers, text and arrays.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()  # text of Python 2
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(f"{title}: {path} is damaged ({reason}): remove it and get it again") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{title}: {path} is damaged (no dictionary): remove it and get it again")
    return content
