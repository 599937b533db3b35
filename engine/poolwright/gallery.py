"""Pictures of what a run selected, kept while the data set is at hand so that a report can show them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .dataset import Dataset
from .errors import StoreError
from .state import CycleRecord
from .store import write_atomically

FOLDER = "pictures"
SHOWN = 12
"""Samples of a batch that are shown."""
SIDES = (48, 96)
"""Pixels of the longer side: smaller pictures are enlarged, larger ones reduced."""
GAP = 2


def keep_pictures(dataset: Dataset, records: Sequence[CycleRecord], folder: Path) -> None:
    """Write the first samples selected in the first and in the last cycle that asked, a row of pictures each.

    Nothing is written where the samples are no images ``(1 or 3, height, width)``.

    Parameters
    ----------
    folder : Path
        Of the run; the files are ``pictures/cycle-N.png``.

    Raises
    ------
    StoreError
        They cannot be written.
    """
    asked = [record for record in records if record.selected]
    for chosen in asked[:1] + asked[1:][-1:]:
        images = dataset.pool.inputs(torch.tensor(chosen.selected[:SHOWN]))
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            return
        path = folder / FOLDER / f"cycle-{chosen.index}.png"
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, png(row_of_pictures(images)))
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error}. Make room, then run again with --resume") from error


def row_of_pictures(images: Tensor) -> Tensor:
    """Return images ``(n, channels, height, width)`` side by side, uint8, stretched to the full range of gray."""
    x = images.float()
    low, high = x.min(), x.max()
    x = (x - low) / (high - low).clamp(min=1e-12)
    longest = max(x.shape[-2:])
    if longest > SIDES[1]:
        smaller = [max(1, round(side * SIDES[1] / longest)) for side in x.shape[-2:]]
        x = F.interpolate(x, smaller, mode="area")
    times = max(1, SIDES[0] // longest)
    x = x.repeat_interleave(times, 2).repeat_interleave(times, 3)
    n, channels, height, width = x.shape
    row = torch.full((channels, height, n * (width + GAP) - GAP), 255, dtype=torch.uint8)
    for place, image in enumerate(x):
        row[:, :, place * (width + GAP) :][:, :, :width] = (255 * image).round().to(torch.uint8)
    return row


def png(image: Tensor) -> bytes:
    """Return a picture, uint8 ``(1 or 3, height, width)``, as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    pixels = image.permute(1, 2, 0) if len(image) == 3 else image[0]
    Image.fromarray(pixels.numpy()).save(file, format="PNG")
    return file.getvalue()


def pictures(folder: Path) -> list[tuple[int, bytes]]:
    """Return cycle and PNG file of the pictures that a run's folder holds, in the order of the cycles.

    Raises
    ------
    StoreError
        One cannot be read.
    """
    named = {path.stem.removeprefix("cycle-"): path for path in (folder / FOLDER).glob("cycle-*.png")}
    found = [(int(cycle), path) for cycle, path in named.items() if cycle.isdecimal()]
    try:
        return [(cycle, path.read_bytes()) for cycle, path in sorted(found)]
    except OSError as error:
        raise StoreError(f"cannot read the pictures in {folder / FOLDER}: {error}. Remove the folder") from error
