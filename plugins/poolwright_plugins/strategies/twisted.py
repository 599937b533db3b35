"""Twisted initial sets: the rare or the main classes are almost missing from the first labels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, hookimpl

Favor = Literal["main", "rare"]


class Twisted:
    """Draw an initial pool in which half of the classes are scarce: ``[initial] strategy = "twisted"``.

    Classes are sorted by how many samples the pool has of them; the first half (the smaller one, where their number is
    odd) is rare, the others are main. Of the scarce half ``few`` samples are drawn at random, all others of a batch
    from the other half.

    It reads hidden labels, so it must be allowed (``allow_truth = true``) and the results are marked.

    Source: BRAL-T, section C.4 ("Quality Effect of Initial Labeled Set"), Table 8: 50 samples of five rare classes and
    950 of the main ones ("twisted main"), and the other way round ("twisted rare").

    Parameters
    ----------
    favor : {"main", "rare"}
        Which half of the classes most samples come from.
    few : int
        Samples of the other half, 0 or more.
    """

    needs = frozenset({"truth"})
    tasks = frozenset({"classification"})

    def __init__(self, *, favor: Favor = "main", few: int = 50) -> None:
        self.favor = favor
        self.few = few

    @hookimpl
    def select(self, cycle: Cycle, budget: int) -> Tensor:
        """Return ``budget`` ids, drawn at random from either half; what a half lacks comes from the other."""
        self._check()
        unlabeled = cycle.pool.unlabeled
        labels = cycle.truth(unlabeled)
        order = torch.bincount(labels, minlength=cycle.n_classes).sort(stable=True).indices
        rare = torch.isin(labels, order[: cycle.n_classes // 2])
        scarce = rare if self.favor == "main" else ~rare
        drawn = unlabeled[torch.randperm(len(unlabeled), generator=cycle.generator)]
        of_scarce = scarce[torch.searchsorted(unlabeled, drawn)]
        few, many = drawn[of_scarce], drawn[~of_scarce]
        taken = min(self.few, budget)
        return torch.cat([few[:taken], many, few[taken:]])[:budget]

    def _check(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        if self.favor not in get_args(Favor):
            raise ConfigError(f"twisted: favor is one of {', '.join(get_args(Favor))}, not {self.favor!r}")
        if not isinstance(self.few, int) or self.few < 0:
            raise ConfigError(f"twisted: few must be an integer of at least 0, not {self.few!r}")
