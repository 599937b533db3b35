"""Whether a data set fits its own description: said before anything runs, with the first sample at fault."""

from __future__ import annotations

import torch
from torch import Tensor

from .dataset import Dataset, Split, TensorSplit, origin
from .errors import DatasetError
from .masks import IGNORE_INDEX, first_stray, no_class

LOOKED_AT = 16
"""Samples that are read of a split whose masks lie outside of memory; the others are checked as they are read."""


def validate(dataset: Dataset, name: str) -> None:
    """Refuse a data set that does not fit its own description.

    Masks are checked whole where they lie in memory (:class:`poolwright.TensorSplit`), else a few of them.

    Raises
    ------
    DatasetError
        Empty splits, labels outside the classes (how many, the first id), masks of another size than their images,
        NaN or infinite features.
    """
    for member in ("task", "classes", "pool", "test", "validation", "features", "superclasses"):
        if not hasattr(dataset, member):
            raise DatasetError(
                f"data set {name!r} has no {member} after load(): subclass poolwright.Dataset, which says what it needs"
            )
    n_classes = len(dataset.classes)
    if n_classes < 2:
        raise DatasetError(f"data set {name!r} names {n_classes} classes: a task needs at least two")
    for part in ("pool", "validation", "test"):
        split: Split | None = getattr(dataset, part)
        if split is None:
            continue
        if len(split) == 0:
            raise DatasetError(f"data set {name!r}: its {part} is empty")
        if dataset.task == "classification":
            _check_labels(split.labels(torch.arange(len(split))), n_classes, name, part)
        if dataset.task == "segmentation":
            _check_masks(dataset, split, name, part)
        if isinstance(split, TensorSplit):
            check_finite(split.data, f"data set {name!r}: its {part}")


def _check_labels(labels: Tensor, n_classes: int, name: str, part: str) -> None:
    wrong = (labels < 0) | (labels >= n_classes)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise DatasetError(
            f"data set {name!r}: {int(wrong.sum())} labels of its {part} lie outside 0..{n_classes - 1}, "
            f"the first is {int(labels[first])} at id {first}: number the classes from 0, or name more classes"
        )


def _check_masks(dataset: Dataset, split: Split, name: str, part: str) -> None:
    n_classes, ignore_index = len(dataset.classes), getattr(dataset, "ignore_index", None)
    if ignore_index is None:
        raise DatasetError(f"data set {name!r} has no ignore_index: set it to {IGNORE_INDEX}, or derive from Dataset")
    if 0 <= ignore_index < n_classes:
        raise DatasetError(
            f"data set {name!r}: ignore_index = {ignore_index} is the class {dataset.classes[ignore_index]!r}: "
            f"choose a value outside 0..{n_classes - 1}"
        )
    ids = torch.linspace(0, len(split) - 1, min(LOOKED_AT, len(split))).long().unique()
    stored, masks = split.inputs(ids), split.labels(ids)
    inputs = dataset.prepare(stored)
    if masks.is_floating_point() or masks.dtype == torch.bool:
        raise DatasetError(
            f"data set {name!r}: masks of its {part} are {masks.dtype}: give integers, one class a pixel"
        )
    if inputs.ndim != 4 or masks.shape != (len(inputs), *inputs.shape[-2:]):
        raise DatasetError(
            f"data set {name!r}: {len(ids)} samples of its {part} have prepared inputs of shape "
            f"{tuple(inputs.shape)} and masks of shape {tuple(masks.shape)}: segmentation wants images "
            f"(n, channels, height, width) and masks (n, height, width)"
        )
    base, rows = origin(split, torch.arange(len(split)))
    held = base.masks if isinstance(base, TensorSplit) else None
    if held is not None and base is not split:
        held = held[rows]
    stray = first_stray(masks if held is None else held, n_classes, ignore_index)
    if stray is not None:
        first = int(ids[stray.row]) if held is None else stray.row
        reason = no_class(stray.value, n_classes, ignore_index)
        raise DatasetError(
            f"data set {name!r}: the mask of id {first} of its {part} holds {reason} (the data set's ignore_index)"
        )


def check_finite(x: Tensor, what: str) -> None:
    """Refuse NaN and infinity in ``x`` (n, ...), saying how many rows hold one and which is the first."""
    if not x.is_floating_point():
        return
    bad = torch.zeros(len(x), dtype=torch.bool)
    step = max(1, 2**20 // max(1, x[:1].numel()))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        bad[start : start + step] = ~torch.isfinite(block).reshape(len(block), -1).all(1).cpu()
    if bad.any():
        first = int(bad.nonzero()[0])
        raise DatasetError(
            f"{what}: {int(bad.sum())} of {len(x)} rows hold NaN or infinity, the first is id {first}: "
            f"remove or impute them before selecting"
        )
