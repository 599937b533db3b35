"""Options that fit every data set: class imbalance, long tails, subsets and a validation split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import streams
from .dataset import Dataset, Derived, Split, SubsetSplit
from .errors import ConfigError
from .rows import Rows


class Resampled(Derived):
    """A data set with a smaller pool, and perhaps a validation split cut from it; all else as in ``base``."""

    def __init__(self, base: Dataset, pool_ids: Tensor, validation_ids: Tensor | None) -> None:
        super().__init__(base)
        self.test = base.test
        self.pool = SubsetSplit(base.pool, pool_ids)
        self.validation: Split | None = (
            base.validation if validation_ids is None else SubsetSplit(base.pool, validation_ids)
        )
        self.features: Rows | None = None if base.features is None else base.features.take(pool_ids)


def resample(
    dataset: Dataset,
    *,
    imbalance: str | Sequence[float] | None = None,
    long_tail: float | None = None,
    subset: int | None = None,
    validation: float | int | None = None,
    seed: int = 0,
) -> Dataset:
    """Apply the options to a loaded data set, in the order of the parameters.

    Parameters
    ----------
    imbalance : str or sequence of float, optional
        Shares of the classes, ``"1:2:...:10"`` or numbers: the class with the largest share keeps all its samples.
    long_tail : float, optional
        Class c of C keeps a share ``factor ** (-c / (C - 1))`` of its samples (Cui et al., CVPR 2019, section 5).
    subset : int, optional
        How many pool samples to keep, drawn at random.
    validation : float or int, optional
        A share (below 1) or a number of the pool samples that become validation data, stratified by class.
    seed : int
        Of the data set, not of a run: all runs of an experiment see the same samples.

    Raises
    ------
    ConfigError
        An option does not fit the data set.
    """
    if imbalance is None and long_tail is None and subset is None and validation is None:
        return dataset
    if imbalance is not None and long_tail is not None:
        raise ConfigError("dataset: imbalance and long_tail exclude each other; give one of them")
    ids = torch.arange(len(dataset.pool))
    n_classes = len(dataset.classes)
    if dataset.task != "classification" and (imbalance is not None or long_tail is not None):
        raise ConfigError(f"dataset: imbalance and long_tail need one class a sample; {dataset.task} has none")
    if imbalance is not None:
        ids = _thin(dataset.pool, ids, parse_imbalance(imbalance, n_classes), seed)
    if long_tail is not None:
        if long_tail < 1:
            raise ConfigError(f"dataset.long_tail is the size of the largest class over the smallest: {long_tail} < 1")
        shares = [long_tail ** (-c / max(1, n_classes - 1)) for c in range(n_classes)]
        ids = _thin(dataset.pool, ids, shares, seed)
    if subset is not None:
        if not 1 <= subset <= len(ids):
            raise ConfigError(f"dataset.subset = {subset}, but there are {len(ids)} samples to choose from")
        order = torch.randperm(len(ids), generator=streams.generator(seed, "dataset", "subset"))
        ids = ids[order[:subset]].sort().values
    validation_ids = None
    if validation is not None:
        if dataset.validation is not None:
            raise ConfigError("dataset.validation: this data set brings a validation split of its own; leave it out")
        count = round(validation * len(ids)) if isinstance(validation, float) else validation
        if not 1 <= count < len(ids):
            raise ConfigError(
                f"dataset.validation = {validation} asks for {count} of {len(ids)} samples: "
                f"give a share between 0 and 1, or a number below {len(ids)}"
            )
        held_out = stratified(dataset, ids, count, streams.generator(seed, "dataset", "validation"))
        validation_ids = ids[held_out]
        keep = torch.ones(len(ids), dtype=torch.bool)
        keep[held_out] = False
        ids = ids[keep]
    return Resampled(dataset, ids, validation_ids)


def parse_imbalance(shares: str | Sequence[float], n_classes: int) -> list[float]:
    """Return one share a class, the largest scaled to 1, from ``"1:2:...:10"``, ``"1:2:5"`` or numbers."""
    if isinstance(shares, str):
        parts = [part.strip() for part in shares.split(":")]
        try:
            if len(parts) == 4 and parts[2].strip(".") == "" and parts[2]:
                first, second, last = float(parts[0]), float(parts[1]), float(parts[3])
                steps = round((last - first) / (second - first))
                values = [first + step * (second - first) for step in range(steps + 1)]
            else:
                values = [float(part) for part in parts]
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"dataset.imbalance = {shares!r}: write shares as 1:2:...:10 or 1:2:5") from None
    else:
        values = [float(share) for share in shares]
    if len(values) != n_classes or min(values) <= 0:
        raise ConfigError(
            f"dataset.imbalance = {shares!r} gives {len(values)} shares; "
            f"{n_classes} positive ones are needed, one a class"
        )
    return [value / max(values) for value in values]


def stratified(dataset: Dataset, ids: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ascending positions of ``count`` of pool ``ids``, each class in its proportion; at random for masks."""
    order = torch.randperm(len(ids), generator=generator)
    if dataset.task == "classification":
        labels = dataset.pool.labels(ids)
        # Rank within the class over the class's size: taking the smallest takes every class in proportion.
        rank = torch.empty(len(ids), dtype=torch.float64)
        shuffled = labels[order]
        for label in shuffled.unique():
            members = order[shuffled == label]
            rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
        order = order[rank[order].sort(stable=True).indices]
    return order[:count].sort().values


def _thin(split: Split, ids: Tensor, shares: Sequence[float], seed: int) -> Tensor:
    """Keep of each class its share of its samples, rounded down, at least one."""
    labels = split.labels(ids)
    kept = []
    for label, share in enumerate(shares):
        members = ids[labels == label]
        order = torch.randperm(len(members), generator=streams.generator(seed, "dataset", "class", label))
        kept.append(members[order[: max(1, int(share * len(members) + 1e-9))]])
    return torch.cat(kept).sort().values
