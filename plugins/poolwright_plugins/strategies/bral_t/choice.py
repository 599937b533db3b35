"""From predicted rewards to a batch: which action clusters, and which samples of the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from poolwright import Rows

Cut = Literal["center", "random"]


@dataclass(frozen=True)
class Choice:
    """An action cluster.

    Attributes
    ----------
    rows : Tensor
        int64: its samples, as rows of the unlabeled embeddings.
    reward : float
        What it is expected to be worth.
    """

    rows: Tensor
    reward: float


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Divide a budget among groups: as equally as their sizes allow; what is left over goes to the first.

    Parameters
    ----------
    sizes : sequence of int
        What each group has.
    budget : int
        At most their sum.

    Examples
    --------
    >>> shares([9, 1, 9], 8)
    [4, 1, 3]
    """
    given = [0] * len(sizes)
    while budget:
        hungry = [i for i, size in enumerate(sizes) if given[i] < size]
        each, extra = divmod(budget, len(hungry))
        for place, i in enumerate(hungry):
            more = min(each + (place < extra), sizes[i] - given[i])
            given[i] += more
            budget -= more
    return given


def picked(
    groups: Sequence[Sequence[Choice]], budget: int, x: Tensor | Rows, generator: torch.Generator | None
) -> Tensor:
    """Return the rows of a batch: the same number from each group, its action clusters from high to low reward.

    Parameters
    ----------
    groups : sequence of sequence of Choice
        No sample twice.
    budget : int
        At most as many as there are samples.
    x : Tensor or Rows
        Float ``(n, d)``: the unlabeled embeddings.
    generator : torch.Generator, optional
        Draws the samples that are taken of an action cluster which does not fit; without it they are those
        nearest to its mean.

    Returns
    -------
    Tensor
        int64 ``(budget,)``, the groups with the highest reward first.
    """
    ordered = [sorted(group, key=lambda choice: -choice.reward) for group in groups]
    ordered.sort(key=lambda group: -group[0].reward)
    parts = []
    for group, left in zip(ordered, shares([sum(len(c.rows) for c in g) for g in ordered], budget), strict=True):
        for choice in group:
            rows = choice.rows
            if len(rows) > left:
                rows = rows[_order(x, rows, generator)[:left]]
            parts.append(rows)
            left -= len(rows)
    return torch.cat(parts)


def _order(x: Tensor | Rows, rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return the order in which samples of a cluster are taken: at random, or by the distance to their mean."""
    if generator is not None:
        return torch.randperm(len(rows), generator=generator)
    wide = (x[rows] if isinstance(x, Rows) else x[rows.to(x.device)]).double()
    distance: Tensor = torch.linalg.vector_norm(wide - wide.mean(0), dim=1)
    return distance.sort(stable=True).indices.cpu()
