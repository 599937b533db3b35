"""Small made pictures, masks and official files."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from poolwright import Dataset
from poolwright_plugins.datasets import cifar


def pixels(seed: int, height: int = 8, width: int = 10, channels: int = 3) -> Any:
    """Return random uint8 pixels, ``(height, width, channels)``, or without channels for one."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_picture(path: Path, array: Any, **how: Any) -> Path:
    """Write a picture in the format that its name's end says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **how)
    return path


def write_classes(folder: Path, counts: dict[str, int], *, end: str = ".png", size: tuple[int, int] = (8, 10)) -> Path:
    """Write so many random pictures into each class folder, 0.png, 1.png, ..."""
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write_picture(folder / name / f"{i}{end}", pixels(100 * number + i, *size))
    return folder


def write_pairs(
    images: Path,
    masks: Path,
    names: Sequence[str],
    *,
    mask_of: Callable[[str], str] = lambda name: f"{Path(name).stem}.png",
    numbers: Sequence[int] = (0, 1, 2, 255),
    size: tuple[int, int] = (8, 10),
    block: int = 1,
    first: int = 0,
) -> None:
    """Write random pictures and masks of random ``numbers``, in squares of ``block`` pixels."""
    for seed, name in enumerate(names, start=first):
        write_picture(images / name, pixels(seed, *size))
        write_picture(masks / mask_of(name), mask(seed, numbers, size, block))


def mask(seed: int, numbers: Sequence[int] = (0, 1, 2, 255), size: tuple[int, int] = (8, 10), block: int = 1) -> Any:
    """Return a uint8 mask of random ``numbers``, in squares of ``block`` pixels."""
    shape = size[0] // block, size[1] // block
    drawn = np.random.default_rng(1000 + seed).choice(np.array(numbers, np.uint8), shape)
    return drawn.repeat(block, 0).repeat(block, 1)


def loaded(dataset: type, **params: Any) -> Any:
    """Return a data set made and loaded."""
    made: Dataset = dataset(**params)
    made.load()
    return made


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Return every file below a folder with its size and time of change."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def pickled(content: Any) -> bytes:
    """Return a pickle as Python 2 and the numpy of its time wrote it: what the official archives hold."""
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_pixels(name: str, n: int) -> Any:
    """Return the made pixels of an official file, uint8 ``(n, 3072)``."""
    return np.random.default_rng(sum(name.encode())).integers(0, 256, (n, 3072), dtype=np.uint8)


def write_cifar10(root: Path, n: int = 6) -> Path:
    """Write the seven official files with ``n`` images in each batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickled({"label_names": names, "num_vis": 3072}))
    for name in (*cifar.CIFAR10.batches, cifar.CIFAR10.test_batch):
        labels = [(sum(name.encode()) + i) % 10 for i in range(n)]
        (folder / name).write_bytes(pickled({"data": cifar_pixels(name, n), "labels": labels}))
    return folder


def write_cifar100(root: Path, n: int = 200) -> Path:
    """Write the three official files; class c belongs to superclass c * 7 % 20."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    meta = {
        "fine_label_names": [f"fine {c}" for c in range(100)],
        "coarse_label_names": [f"coarse {c}" for c in range(20)],
    }
    (folder / "meta").write_bytes(pickled(meta))
    for name in ("train", "test"):
        fine = [c % 100 for c in range(n)]
        content = {"data": cifar_pixels(name, n), "fine_labels": fine, "coarse_labels": [c * 7 % 20 for c in fine]}
        (folder / name).write_bytes(pickled(content))
    return folder
