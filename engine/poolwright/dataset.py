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

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import ConfigError, DatasetError, LabelLeakError
from .masks import IGNORE_INDEX, LabelRows, first_stray, no_class
from .rows import Rows


@runtime_checkable
class Split(Protocol):
    """A numbered collection of samples: ids run from 0 to ``len(split) - 1``."""

    def __len__(self) -> int: ...

    def inputs(self, ids: Tensor) -> Tensor:
        """Return the samples ``ids`` (int64) as they are stored, e.g. uint8 ``(n, channels, height, width)``."""
        ...

    def labels(self, ids: Tensor) -> Tensor:
        """Return the true labels of ``ids``: int64 ``(n,)``; for segmentation masks, int64 ``(n, height, width)``."""
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
    ignore_index : int
        For segmentation: what a mask holds where the class is not known. Such pixels are neither trained on nor
        evaluated; every other value of a mask is a class.

    Notes
    -----
    For segmentation, ``prepare`` gives images ``(n, channels, height, width)`` and a mask is as high and wide as they
    are. Training with ``augment = true`` then needs one more member, which changes image and mask alike, since
    ``augment`` would move one without the other::

        def augment_pair(self, inputs, masks, generator):
            flip = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
            inputs = torch.where(flip[:, None, None, None], inputs.flip(3), inputs)
            return inputs, torch.where(flip[:, None, None], masks.flip(2), masks)
    """

    task: str
    classes: Sequence[str]
    pool: Split
    test: Split
    validation: Split | None = None
    features: Rows | None = None
    superclasses: Sequence[int] | None = None
    ignore_index: int = IGNORE_INDEX

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
        Classes ``(n,)``, or masks ``(n, height, width)`` of any integer type, which is kept (uint8 is enough for 255
        classes).
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        if len(inputs) != len(labels):
            raise DatasetError(f"{len(inputs)} samples but {len(labels)} labels: the two must have the same length")
        if labels.ndim > 1 and (labels.is_floating_point() or labels.dtype == torch.bool):
            raise DatasetError(f"masks must be integers, one class a pixel, not {labels.dtype}")
        self._inputs = inputs
        self._labels = labels if labels.ndim > 1 else labels.long()
        self._resident: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._inputs)

    def inputs(self, ids: Tensor) -> Tensor:
        return self._inputs[ids]

    def labels(self, ids: Tensor) -> Tensor:
        return self._labels[ids].long()

    @property
    def data(self) -> Tensor:
        """All stored inputs, not copied."""
        return self._inputs

    @property
    def masks(self) -> Tensor | None:
        """All masks in the type in which they are stored, not copied; None where a label is one class."""
        return self._labels if self._labels.ndim > 1 else None

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


class Derived(Dataset):
    """A data set that takes from another all but its samples."""

    def __init__(self, base: Dataset) -> None:
        self.task = base.task
        self.classes = base.classes
        self.superclasses = base.superclasses
        self.ignore_index = getattr(base, "ignore_index", IGNORE_INDEX)  # classes of one's own may lack it
        if hasattr(base, "augment_pair"):
            self.augment_pair = base.augment_pair
        self._base = base

    def prepare(self, inputs: Tensor) -> Tensor:
        return self._base.prepare(inputs)

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return self._base.augment(inputs, generator)


class Episode(Derived):
    """A data set as a simulated session sees it: what was told of the samples ``ids`` alone, no label of test data."""

    def __init__(self, base: Dataset, ids: Tensor, told: Callable[[Tensor], Tensor]) -> None:
        super().__init__(base)
        self.features = base.features
        self.pool = GuardedSplit(base.pool, ids, told)
        self.validation = base.validation
        self.test = GuardedSplit(base.test, ids[:0], told)


class Samples:
    """Some samples of a split, with or without labels, in batches: what a learner is trained on.

    Parameters
    ----------
    dataset : Dataset
    split : Split
        Of ``dataset``.
    ids : Tensor
        int64 ``(n,)``.
    labels : Tensor or callable, optional
        One for each of ``ids``, or a function that returns those of some ids: masks are read when they are used.

    Attributes
    ----------
    ids : Tensor
        int64 ``(n,)``, their numbers in the split.
    labels : Tensor, LabelRows or None
        As they are known (by the oracle's answers for pool samples): int64 ``(n,)``; None for unlabeled samples. Of
        masks, ``labels[rows]`` reads int64 ``(len(rows), height, width)``; prefer :meth:`batches`.
    task, n_classes : str, int
        As the data set says.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        ids: Tensor,
        labels: Tensor | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._dataset = dataset
        self._split = split
        self.ids = ids
        self.labels: Tensor | LabelRows | None = LabelRows(ids, labels) if callable(labels) else labels
        self.task = dataset.task
        self.n_classes = len(dataset.classes)
        self._base, self._base_ids = origin(split, ids)
        self._moved: dict[tuple[str, torch.device], Tensor] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared sample, e.g. ``(channels, height, width)``."""
        first = self._split.inputs(torch.zeros(min(1, len(self._split)), dtype=torch.int64))
        return tuple(self._dataset.prepare(first).shape[1:])

    @property
    def can_augment(self) -> bool:
        """Whether :meth:`batches` can augment: for segmentation the data set must have an ``augment_pair``."""
        return self.task != "segmentation" or hasattr(self._dataset, "augment_pair")

    def inputs(self, rows: Tensor, *, device: str | torch.device = "cpu") -> Tensor:
        """Return the prepared inputs of ``rows`` (positions in ``ids``, not ids).

        On CUDA, data that fit the device live there; ``rows`` that live there too then cost no copy and no wait.
        """
        device = _exact(device)
        resident = self._resident(device)
        if resident is not None:
            ids = self._on(device, "ids", self._base_ids)
            return self._dataset.prepare(resident[ids[rows.to(device, non_blocking=True)]])
        return self._dataset.prepare(self._base.inputs(self._base_ids[rows.cpu()]).to(device, non_blocking=True))

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

        Raises
        ------
        ConfigError
            The data set cannot change images and masks alike.
        """
        if augment and generator is None:
            raise ValueError("augment=True needs a generator")
        if augment and not self.can_augment:
            raise ConfigError("this data set cannot augment images together with their masks: set augment = false")
        device = _exact(device)
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        if self._resident(device) is not None:
            order = order.to(device)
        for rows in order.split(batch_size):
            x, y = self.inputs(rows, device=device), self._labels_of(rows, device)
            if augment and generator is not None:
                x, y = self._augmented(x, y, generator)
            yield x, y

    def detached(self) -> Samples:
        """Return the same samples with labels that can be changed without changing these."""
        twin = copy.copy(self)
        twin._moved = {}
        twin.labels = self.labels.clone() if isinstance(self.labels, Tensor) else self.labels
        return twin

    def _resident(self, device: torch.device) -> Tensor | None:
        return self._base.resident(device) if isinstance(self._base, TensorSplit) else None

    def _on(self, device: torch.device, what: str, values: Tensor) -> Tensor:
        """Return ``values`` on the device, moved there once."""
        if (what, device) not in self._moved:
            self._moved[what, device] = values.to(device)
        return self._moved[what, device]

    def _labels_of(self, rows: Tensor, device: torch.device) -> Tensor | None:
        if self.labels is None:
            return None
        if isinstance(self.labels, Tensor):
            moved = self.labels if device.type == "cpu" else self._on(device, "labels", self.labels)
            return moved[rows.to(device, non_blocking=True)].long()
        resident = self.labels.resident(device)
        if resident is not None:
            return resident[rows.to(device, non_blocking=True)].long()
        return self.labels[rows].to(device, non_blocking=True)

    def _augmented(self, x: Tensor, y: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if self.task != "segmentation":
            return self._dataset.augment(x, generator), y
        unknown = torch.full((len(x), *x.shape[-2:]), self._dataset.ignore_index, device=x.device) if y is None else y
        changed: tuple[Tensor, Tensor] = self._dataset.augment_pair(x, unknown, generator)  # type: ignore[attr-defined]
        return changed[0], None if y is None else changed[1]


def _exact(device: str | torch.device) -> torch.device:
    """Return the device with its number, so that ``cuda`` and ``cuda:0`` are one."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def origin(split: Split, ids: Tensor) -> tuple[Split, Tensor]:
    """Return the split that holds the inputs, and the numbers of ``ids`` in it."""
    while isinstance(split, (SubsetSplit, GuardedSplit)):
        ids = split.ids[ids] if isinstance(split, SubsetSplit) else ids
        split = split.base
    return split, ids


def whole(dataset: Dataset, split: Split) -> Samples:
    """Return all samples of ``split`` with their true labels (for validation and test data).

    Masks are read when they are used, and checked then unless they lie in memory: those have been checked whole.
    """
    ids = torch.arange(len(split))
    if dataset.task != "segmentation":
        return Samples(dataset, split, ids, split.labels(ids))
    base, _ = origin(split, ids)
    return Samples(dataset, split, ids, split.labels if isinstance(base, TensorSplit) else Checked(dataset, split))


class Checked:
    """Reads masks and refuses those with values that are no class.

    Raises
    ------
    DatasetError
        With the id and the value.
    """

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self._dataset = dataset
        self._split = split

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the masks of ``ids``."""
        masks = self._split.labels(ids)
        stray = first_stray(masks, len(self._dataset.classes), self._dataset.ignore_index)
        if stray is not None:
            reason = no_class(stray.value, len(self._dataset.classes), self._dataset.ignore_index)
            raise DatasetError(f"the mask of id {int(ids[stray.row])} holds {reason} (the data set's ignore_index)")
        return masks
