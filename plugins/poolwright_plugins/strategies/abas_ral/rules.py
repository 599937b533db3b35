"""ABAS-RAL's arithmetic: states, the largest batch, and when an episode is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..uncertainty import margin

Stop = Literal["either", "both"]


def sorted_margins(probabilities: Tensor) -> Tensor:
    """Return the state: the margins of the state data, ascending (ABAS-RAL, section 3.2).

    Parameters
    ----------
    probabilities : Tensor
        Floating point ``(n, classes)``.

    Returns
    -------
    Tensor
        float32 ``(n,)`` on the CPU: largest minus second largest probability, the least certain sample first.
    """
    ascending: Tensor = margin(probabilities).float().sort().values
    return ascending.cpu()


def largest_batch(unlabeled: int, share: float = 0.1) -> int:
    """Return the most samples that may be asked for: a ``share`` of the unlabeled, and one at least (section 3.5).

    Examples
    --------
    >>> largest_batch(259), largest_batch(9)
    (25, 1)
    """
    return max(1, int(share * unlabeled + 1e-9))  # 0.1 * 30 is 3.0000000000000004, 0.7 * 10 is 7, 0.29 * 100 is not 29


def fell_twice(rewards: Sequence[float]) -> bool:
    """Tell whether the reward decreased two times in a row, which ends an episode of the warm start (section 3.7)."""
    return len(rewards) >= 3 and rewards[-1] < rewards[-2] < rewards[-3]


@dataclass(frozen=True)
class Targets:
    """What the warm start reached (section 3.7).

    Attributes
    ----------
    precision : float
        The highest.
    budget : float
        The smallest share of the samples that had to be labeled for it.
    """

    precision: float
    budget: float

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> Targets:
        """Return the targets that pairs of precision and labeled share give; at least one pair."""
        best = max(precision for precision, _ in points)
        return cls(best, min(spent for precision, spent in points if precision == best))

    def reached(self, precision: float, spent: float, stop: Stop) -> bool:
        """Tell whether an episode is over.

        Parameters
        ----------
        precision : float
            Of the learner.
        spent : float
            Share of the samples that are labeled.
        stop : {"either", "both"}
            The target precision is reached or the target budget is spent (section 3.8); or the target precision is
            reached within the target budget (Algorithm 2).
        """
        if stop == "either":
            return precision >= self.precision or spent >= self.budget
        return precision >= self.precision and spent <= self.budget


def scaled(k: Tensor | int, largest: Tensor | int) -> Tensor:
    """Return batch sizes as the network reads them: shares of the largest possible one, moved to (-1, 1]."""
    return 2 * torch.as_tensor(k) / largest - 1


def returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """Return the discounted sum of the rewards from each step of an episode on.

    Examples
    --------
    >>> returns([1.0, 2.0, 4.0], 0.5)
    [3.0, 4.0, 4.0]
    """
    found: list[float] = []
    for reward in reversed(rewards):
        found.append(reward + gamma * (found[-1] if found else 0.0))
    return found[::-1]
