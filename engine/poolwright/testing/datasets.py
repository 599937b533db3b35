"""Rules for data sets."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .. import metrics, streams
from ..dataset import Dataset, Split
from . import general
from .findings import Broken, Inapplicable, Rule, Subject
from .fingerprints import attributes, fingerprint
from .general import DOCUMENTED, MADE

STORES = "the constructor stores its parameters and reads nothing"
LOADS = "load gives classes, a pool and test data"
LENGTHS = "samples, labels and features match"
LABELS = "labels are numbers of classes, and masks fit their images"
ORDER = "samples have one shape and come in any order"
PREPARES = "prepare gives finite floating point"
AUGMENTS = "augment keeps the shape and depends on its generator alone"
PAIRS = "augment_pair keeps the shapes, moves image and mask alike and depends on its generator alone"

LOOKED_AT = 256
"""Samples of each split that are read."""
MOVED_APART = 0.2
"""Share of a mask's pixels that may differ from its image's: scaling smooths outlines in the image alone."""
PARTS = ("pool", "validation", "test")


def stores(subject: Subject) -> None:
    """Each parameter is kept as it was given, under whatever name, and no file is opened."""
    markers = general.markers_for(subject)
    with mock.patch.object(builtins, "open", _refuse), mock.patch.object(io, "open", _refuse):
        try:
            instance = general.made_of_markers(subject, markers)
            subject.make()
        except _Opened as error:
            raise Broken(str(error)) from None
    held = attributes(instance)
    for name, marker in markers.items():
        # Not always under the same name: `test` may be a share, while the attribute is the data.
        if not any(value is marker for value in held.values()):
            raise Broken(f"parameter {name!r} is not stored as it was given")
    read = [name for name in PARTS if isinstance(held.get(name), Split)]
    if read:
        raise Broken(f"the constructor made {read[0]}: read the data in load()")


class _Opened(BaseException):
    """A file was opened; not an Exception, so that no constructor takes it for a missing file."""


def _refuse(file: Any, *args: object, **kwargs: object) -> None:
    raise _Opened(f"the constructor opened {file!r}: read the data in load()")


def _loaded(subject: Subject) -> Dataset:
    dataset: Dataset = subject.make()
    with streams.seeded("conformance", "load"):
        dataset.load()
    return dataset


def _splits(dataset: Dataset) -> Iterator[tuple[str, Split]]:
    for part in PARTS:
        split: Split | None = getattr(dataset, part, None)
        if split is not None:
            yield part, split


def _some(split: Split) -> Tensor:
    """Return a few ids, spread over the whole split."""
    step = max(1, len(split) // LOOKED_AT)
    return torch.arange(0, len(split), step)[:LOOKED_AT]


def loads(subject: Subject) -> None:
    """After load() there is all that a run uses."""
    dataset = _loaded(subject)
    metrics.task_named(dataset.task)
    if len(dataset.classes) < 2:
        raise Broken(f"classes names {len(dataset.classes)}: a task needs at least two")
    for part in ("pool", "test"):
        split = getattr(dataset, part, None)
        if not isinstance(split, Split):
            raise Broken(f"{part} is {type(split).__name__} after load(): it needs len(), inputs(ids) and labels(ids)")
        if len(split) == 0:
            raise Broken(f"{part} is empty")


def lengths(subject: Subject) -> None:
    """As many samples and labels as ids were asked for, up to the last one."""
    dataset = _loaded(subject)
    for part, split in _splits(dataset):
        ids = torch.tensor([len(split) - 1, 0])
        n, m = len(split.inputs(ids)), len(split.labels(ids))
        if (n, m) != (2, 2):
            raise Broken(f"{part} gave {n} samples and {m} labels for 2 ids")
        whole = _all_labels(split)
        if whole is not None and whole != len(split):
            raise Broken(f"{part} says it has {len(split)} samples, but has {whole} labels")
    if dataset.features is not None and len(dataset.features) != len(dataset.pool):
        raise Broken(f"features has {len(dataset.features)} rows, the pool {len(dataset.pool)} samples")


def _all_labels(split: Split) -> int | None:
    """Return how many labels a split holds in memory, where it shows them."""
    held = [value for value in attributes(split).values() if isinstance(value, Tensor) and value.dtype == torch.int64]
    return len(held[0]) if len(held) == 1 else None


def labels(subject: Subject) -> None:
    """int64 numbers of classes: one a sample, or one a pixel of the prepared image or its ``ignore_index``."""
    dataset = _loaded(subject)
    for part, split in _splits(dataset):
        ids = torch.arange(len(split)) if dataset.task == "classification" else _some(split)
        values = split.labels(ids)
        if values.dtype != torch.int64 or (dataset.task == "classification" and values.ndim != 1):
            raise Broken(f"labels of {part} are {values.dtype} {tuple(values.shape)}: int64, one a sample")
        outside = (values < 0) | (values >= len(dataset.classes))
        if dataset.task == "segmentation":
            image = tuple(dataset.prepare(split.inputs(ids[:1])).shape[1:])
            if len(image) != 3 or tuple(values.shape[1:]) != image[1:]:
                raise Broken(f"masks of {part} are {tuple(values.shape[1:])}, prepared samples {image}: of one size")
            if outside.all():
                raise Broken(f"masks of {part} hold no class at all")
            outside &= values != dataset.ignore_index
        if outside.any():
            raise Broken(
                f"{int(outside.sum())} labels of {part} lie outside 0..{len(dataset.classes) - 1}, "
                f"such as {int(values[outside][0])}"
            )


def order(subject: Subject) -> None:
    """The sample of an id does not depend on what else is asked for."""
    dataset = _loaded(subject)
    for part, split in _splits(dataset):
        ids = _some(split)[:16]
        together, backwards = split.inputs(ids), split.inputs(ids.flip(0)).flip(0)
        single = [split.inputs(i) for i in ids.split(1)]
        if any(x.shape[1:] != together.shape[1:] for x in single):
            raise Broken(f"samples of {part} differ in shape")
        if not torch.equal(together, torch.cat(single)) or not torch.equal(together, backwards):
            raise Broken(f"samples of {part} differ when they are asked for in another order, or alone")
        if not torch.equal(split.labels(ids), split.labels(ids.flip(0)).flip(0)):
            raise Broken(f"labels of {part} differ when they are asked for in another order")


def prepares(subject: Subject) -> None:
    """What a learner eats is floating point, finite, a row a sample, and the stored samples stay as they are."""
    dataset = _loaded(subject)
    for part, split in _splits(dataset):
        stored = split.inputs(_some(split))
        before = fingerprint(stored)
        x = dataset.prepare(stored)
        if not x.is_floating_point() or len(x) != len(stored):
            raise Broken(f"prepare made {x.dtype} {tuple(x.shape)} of {len(stored)} samples of {part}")
        if not torch.isfinite(x).all():
            raise Broken(f"prepared samples of {part} hold NaN or infinity")
        if fingerprint(stored) != before:
            raise Broken("prepare changes the samples it is given: work on a copy")


def augments(subject: Subject) -> None:
    """Two calls with equal generators give the same, in the shape of the input, which stays as it is."""
    dataset = _loaded(subject)
    if getattr(type(dataset), "augment", None) in (None, Dataset.augment):
        raise Inapplicable("it has no augment of its own")
    x = dataset.prepare(dataset.pool.inputs(_some(dataset.pool)[:16]))
    before = fingerprint(x)
    results = []
    for salt in ("a", "b"):
        with streams.seeded("conformance", salt):
            results.append(dataset.augment(x, torch.Generator().manual_seed(0)).clone())
    if fingerprint(x) != before:
        raise Broken("augment changes the samples it is given: work on a copy")
    if results[0].shape != x.shape or results[0].dtype != x.dtype:
        raise Broken(f"augment makes {results[0].dtype} {tuple(results[0].shape)} of {x.dtype} {tuple(x.shape)}")
    if not torch.equal(*results):
        raise Broken("augment gives different samples for equal generators: draw from the generator it is given")


def pairs(subject: Subject) -> None:
    """An image that shows its own mask still shows it afterwards; equal generators give the same."""
    dataset = _loaded(subject)
    change = getattr(dataset, "augment_pair", None)
    if change is None:
        raise Inapplicable("it has no augment_pair")
    ids = _some(dataset.pool)[:16]
    masks = dataset.pool.labels(ids)
    x = dataset.prepare(dataset.pool.inputs(ids))
    before = fingerprint(x), fingerprint(masks)
    generators = [torch.Generator().manual_seed(0) for _ in range(3)]
    first, second = (change(x, masks, generator) for generator in generators[:2])
    if (fingerprint(x), fingerprint(masks)) != before:
        raise Broken("augment_pair changes the samples it is given: work on a copy")
    for what, given, got in zip(("images", "masks"), (x, masks), first, strict=True):
        if got.dtype != given.dtype or len(got) != len(given):
            raise Broken(
                f"augment_pair makes {got.dtype} {tuple(got.shape)} of {given.dtype} {tuple(given.shape)} {what}"
            )
    if first[0].shape[-2:] != first[1].shape[-2:]:
        raise Broken(f"augment_pair makes images {tuple(first[0].shape[1:])} and masks {tuple(first[1].shape[1:])}")
    if not all(torch.equal(*both) for both in zip(first, second, strict=True)):
        raise Broken("augment_pair gives different samples for equal generators: draw from the generator it is given")
    # Two halves along the diagonal: in the data's own masks, mostly ground, a mirror may change next to nothing.
    height, width = x.shape[-2:]
    halves = torch.arange(height)[:, None] / height + torch.arange(width) / width >= 1
    drawn = halves.to(masks.dtype).expand(len(x), height, width)
    moved, mask = change(drawn[:, None].to(x.dtype).expand_as(x).clone(), drawn.clone(), generators[2])
    apart = (moved[:, 0].round() != mask) & (mask >= 0) & (mask < len(dataset.classes))
    if apart.double().mean((1, 2)).max() > MOVED_APART:
        raise Broken("augment_pair moves the mask otherwise than the image")


DATASET_RULES = (
    Rule(MADE, general.made),
    Rule(DOCUMENTED, general.documented, (MADE,)),
    Rule(STORES, stores, (MADE,)),
    Rule(LOADS, loads, (MADE,)),
    Rule(LENGTHS, lengths, (LOADS,)),
    Rule(LABELS, labels, (LENGTHS,)),
    Rule(ORDER, order, (LENGTHS,)),
    Rule(PREPARES, prepares, (ORDER,)),
    Rule(AUGMENTS, augments, (PREPARES,)),
    Rule(PAIRS, pairs, (PREPARES, LABELS)),
)
