"""Data sets: the protocol, helpers for data in memory, and the options that fit every data set.

A data set is a plugin of the group ``poolwright.datasets``. Subclass :class:`Dataset` (or write a class with the same
members), store keyword parameters in the constructor and read the data in :meth:`Dataset.load`::

    class Digits(Dataset):
        task = "classification"

        def load(self):
            digits = sklearn.datasets.load_digits()
            x = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
            y = torch.from_numpy(digits.target)
            self.classes = tuple(str(name) for name in digits.target_names)
            self.pool, self.test = TensorSplit(x[:1500], y[:1500]), TensorSplit(x[1500:], y[1500:])

        def prepare(self, inputs):
            return inputs.float() / 16
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import DatasetError, LabelLeakError
from .rows import Rows


@runtime_checkable
class Split(Protocol):
    """A numbered collection of samples: ids run from 0 to ``len(split) - 1``."""

    def __len__(self) -> int: ...

    def inputs(self, ids: Tensor) -> Tensor:
        """Return the samples ``ids`` (int64) as they are stored, e.g. uint8 ``(n, channels, height, width)``."""
        ...

    def labels(self, ids: Tensor) -> Tensor:
        """Return the true labels of ``ids``: int64 ``(n,)``, or one array a sample where the task has those."""
        ...


class Dataset(Protocol):
    """What a data set gives the engine.

    Attributes
    ----------
    task : str
        ``"classification"`` or ``"segmentation"``.
    classes : sequence of str
        Names of the classes; a label is an index into it.
    pool, test : Split
        The samples to choose from, and those that only reports look at.
    validation : Split or None
        Samples for rewards, stopping and tuning; the option ``validation`` cuts it from the pool where there is none.
    features : Rows or None
        An embedding of every pool sample that needs no learner, for initial selections.
    superclasses : sequence of int or None
        For each class the number of its superclass, for the noisy oracle.
    """

    task: str
    classes: Sequence[str]
    pool: Split
    test: Split
    validation: Split | None = None
    features: Rows | None = None
    superclasses: Sequence[int] | None = None

    def load(self) -> None:
        """Read the data; called once, before any other member is used.

        Raises
        ------
        DatasetError
            The data are missing or damaged; the message says what was looked for and how to get it.
        """
        return

    def prepare(self, inputs: Tensor) -> Tensor:
        """Turn stored inputs into what a learner eats: floating point, scaled; on whatever device they are."""
        return inputs.float()

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Return randomly changed prepared inputs; used while training, never while querying or evaluating.

        ``generator`` lives on the CPU; draw from it, then move to the inputs' device.
        """
        return inputs


class TensorSplit:
    """Samples held in memory, preferably in their compact form (uint8 images).

    Parameters
    ----------
    inputs : Tensor
        ``(n, ...)``.
    labels : Tensor
        int64 ``(n,)`` or ``(n, height, width)``.
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        if len(inputs) != len(labels):
            raise DatasetError(f"{len(inputs)} samples but {len(labels)} labels: the two must have the same length")
        self._inputs = inputs
        self._labels = labels.long()
        self._resident: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, ids: Tensor) -> Tensor:
        return self._inputs[ids]

    def labels(self, ids: Tensor) -> Tensor:
        return self._labels[ids]

    @property
    def data(self) -> Tensor:
        """All stored inputs, not copied."""
        return self._inputs

    def resident(self, device: torch.device) -> Tensor | None:
        """Return all inputs on a CUDA ``device``, copied there once; None where they would fill over half of it."""
        if device.type != "cuda":
            return None
        if device not in self._resident:
            free, _ = torch.cuda.mem_get_info(device)
            if self._inputs.nbytes > free // 2:
                return None
            self._resident[device] = self._inputs.to(device)
        return self._resident[device]


class SubsetSplit:
    """Some samples of another split, renumbered from 0."""

    def __init__(self, base: Split, ids: Tensor) -> None:
        self.base = base
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self, ids: Tensor) -> Tensor:
        return self.base.inputs(self.ids[ids])

    def labels(self, ids: Tensor) -> Tensor:
        return self.base.labels(self.ids[ids])


class GuardedSplit:
    """A split that gives every input, but of some samples only the labels that were told, and of others none."""

    def __init__(self, base: Split, ids: Tensor, told: Callable[[Tensor], Tensor]) -> None:
        self.base = base
        self._ids = ids
        self._told = told

    def __len__(self) -> int:
        return len(self.base)

    def inputs(self, ids: Tensor) -> Tensor:
        return self.base.inputs(ids)

    def labels(self, ids: Tensor) -> Tensor:
        hidden = ids[~torch.isin(ids, self._ids)]
        if len(hidden):
            raise LabelLeakError(f"the label of id {int(hidden[0])} is hidden in a simulated session")
        return self._told(ids)


class Episode(Dataset):
    """A data set as a simulated session sees it: what was told of the samples ``ids`` alone, no label of test data."""

    def __init__(self, base: Dataset, ids: Tensor, told: Callable[[Tensor], Tensor]) -> None:
        self._base = base
        self.task = base.task
        self.classes = base.classes
        self.superclasses = base.superclasses
        self.features = base.features
        self.pool = GuardedSplit(base.pool, ids, told)
        self.validation = base.validation
        self.test = GuardedSplit(base.test, ids[:0], told)

    def prepare(self, inputs: Tensor) -> Tensor:
        return self._base.prepare(inputs)

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return self._base.augment(inputs, generator)


class Samples:
    """Some samples of a split, with or without labels, in batches: what a learner is trained on.

    Attributes
    ----------
    ids : Tensor
        int64 ``(n,)``, their numbers in the split.
    labels : Tensor or None
        As they are known (by the oracle's answers for pool samples); None for unlabeled samples.
    task, n_classes : str, int
        As the data set says.
    """

    def __init__(self, dataset: Dataset, split: Split, ids: Tensor, labels: Tensor | None = None) -> None:
        self._dataset = dataset
        self._split = split
        self.ids = ids
        self.labels = labels
        self.task = dataset.task
        self.n_classes = len(dataset.classes)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared sample, e.g. ``(channels, height, width)``."""
        first = self._split.inputs(torch.zeros(min(1, len(self._split)), dtype=torch.int64))
        return tuple(self._dataset.prepare(first).shape[1:])

    def inputs(self, rows: Tensor, *, device: str | torch.device = "cpu") -> Tensor:
        """Return the prepared inputs of ``rows`` (positions in ``ids``, not ids)."""
        device = torch.device(device)
        split: Split = self._split
        ids = self.ids[rows]
        while isinstance(split, (SubsetSplit, GuardedSplit)):
            ids = split.ids[ids] if isinstance(split, SubsetSplit) else ids
            split = split.base
        resident = split.resident(device) if isinstance(split, TensorSplit) else None
        if resident is not None:
            return self._dataset.prepare(resident[ids.to(device, non_blocking=True)])
        return self._dataset.prepare(split.inputs(ids).to(device, non_blocking=True))

    def batches(
        self,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        augment: bool = False,
        device: str | torch.device = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield ``(prepared inputs, labels)`` on ``device``, every sample once.

        Parameters
        ----------
        generator : torch.Generator, optional
            Shuffles the samples (and feeds the augmentation); in the order of ``ids`` without it.
        augment : bool
            Apply the data set's random changes; needs a generator.
        """
        if augment and generator is None:
            raise ValueError("augment=True needs a generator")
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for rows in order.split(batch_size):
            x = self.inputs(rows, device=device)
            if augment and generator is not None:
                x = self._dataset.augment(x, generator)
            yield x, None if self.labels is None else self.labels[rows].to(device, non_blocking=True)


def whole(dataset: Dataset, split: Split) -> Samples:
    """Return all samples of ``split`` with their true labels (for validation and test data)."""
    ids = torch.arange(len(split))
    return Samples(dataset, split, ids, split.labels(ids))


def validate(dataset: Dataset, name: str) -> None:
    """Refuse a data set that does not fit its own description.

    Raises
    ------
    DatasetError
        Empty splits, labels outside the classes (how many, the first id), NaN or infinite features.
    """
    for member in ("task", "classes", "pool", "test"):
        if not hasattr(dataset, member):
            raise DatasetError(
                f"data set {name!r} has no {member} after load(): see poolwright.dataset for what it needs"
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
