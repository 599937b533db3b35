"""How uncertain a learner is of a sample, in [0, 1]: SRAAL's state of unlabeled samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from poolwright import Rows

Indicator = Literal["oui", "entropy", "std", "binary"]

BLOCK_BYTES = 2**26
"""Probabilities that are looked at together."""


def online_uncertainty(p: Tensor) -> Tensor:
    """Return 1 - MINVar(p) / Var(p) * max(p), the online uncertainty indicator, ``(n,)``.

    MINVar is the smallest variance that C probabilities with the maximum m can have: that of m and C - 1 equal
    ones, (m - 1/C)^2 / (C - 1). One-hot p gives 0, (m, rest equal) 1 - m, and uniform p, where both variances are 0,
    1 - 1/C.

    Source: Zhang et al., CVPR 2020, eqs. 3 and 4; the latter simplified, with C - 1 where 1 - C is printed below 1 - m.

    Parameters
    ----------
    p : Tensor
        float ``(n, C)``, C >= 2, probabilities.
    """
    p = p.double()
    n_classes = p.shape[1]
    largest = p.amax(1)
    variance = (p - 1 / n_classes).square().mean(1)
    smallest = (largest - 1 / n_classes).square() / (n_classes - 1)
    rounding = 4 * torch.finfo(torch.float32).eps / n_classes  # within it p is uniform, and the ratio would be noise
    ratio = torch.where(variance > rounding**2, smallest / variance, 1.0).clamp(max=1)
    return (1 - ratio * largest).clamp(0, 1).float()


def relative_entropy(p: Tensor) -> Tensor:
    """Return the Shannon entropy of p over its largest value, log C, ``(n,)``: 0 for one-hot, 1 for uniform p."""
    return (torch.special.entr(p.double()).sum(1) / math.log(p.shape[1])).clamp(0, 1).float()


def relative_deviation(p: Tensor) -> Tensor:
    """Return 1 - std(p) / std(one-hot) = 1 - std(p) C / sqrt(C - 1), ``(n,)``: 0 for one-hot, 1 for uniform p."""
    n_classes = p.shape[1]
    largest = math.sqrt(n_classes - 1) / n_classes
    deviation = (p.double() - 1 / n_classes).square().mean(1).sqrt()
    return (1 - deviation / largest).clamp(0, 1).float()


INDICATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "oui": online_uncertainty,
    "entropy": relative_entropy,
    "std": relative_deviation,
}
"""Those that read probabilities; "binary" is 1 for every unlabeled sample."""


def indicator_of(probabilities: Rows, indicator: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the indicator of each row, float32 ``(n,)``, reading the matrix in blocks."""
    return torch.cat([indicator(block) for _, block in probabilities.blocks(BLOCK_BYTES)])
