"""Test data cut from a data set that brings none."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwright import streams


def stratified_split(labels: Tensor, share: float, name: str) -> tuple[Tensor, Tensor]:
    """Return ascending rows of the pool and of the test data.

    The split depends on labels, share and name alone, never on a run's seed.

    Parameters
    ----------
    labels : Tensor
        int64 ``(n,)``.
    share : float
        Of each class that becomes test data, rounded; at least one sample of each stays in the pool.
    name : str
        Of the data set: the key of the random stream.
    """
    generator = streams.generator("dataset", name, "test")
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        held_out[members[order[: min(len(members) - 1, round(share * len(members)))]]] = True
    return (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)
