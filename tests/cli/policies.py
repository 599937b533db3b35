"""A strategy whose policy is a list of random numbers, one a piece of its training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from poolwright import Cycle, hookimpl, read_policy, streams

INTERRUPT_AFTER: int | None = None
"""Pieces after which somebody presses Ctrl-C."""


class Numbering:
    """Score by a number that a policy drew.

    Parameters
    ----------
    policy : str, optional
        File of a policy.
    epochs : int
        Pieces of the training.
    """

    def __init__(self, *, policy: str | None = None, epochs: int = 3) -> None:
        self.policy = policy
        self.epochs = epochs
        self._seed: int | None = None
        self._numbers: list[float] = []

    def train_policy(self, cycle: Cycle) -> Iterator[float]:
        """Draw a number in each piece."""
        if self._seed is None:
            self._seed = int(torch.randint(2**31, (), generator=cycle.generator))
        while len(self._numbers) < self.epochs:
            if len(self._numbers) == INTERRUPT_AFTER:
                raise KeyboardInterrupt
            stream = streams.generator(self._seed, "piece", len(self._numbers))
            self._numbers.append(float(torch.rand((), generator=stream)))
            yield len(self._numbers) / self.epochs

    @hookimpl
    def update(self, cycle: Cycle) -> None:
        """Take the policy over."""
        if cycle.index == 0 and self.policy is not None:
            self.load_state_dict(read_policy(self.policy, "numbering"))

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return the remainder of each id divided by the sum of the numbers."""
        return cycle.pool.unlabeled.float() % (0.1 + sum(self._numbers))

    def state_dict(self) -> dict[str, Any]:
        """Return seed and numbers."""
        return {"seed": self._seed, "numbers": list(self._numbers), "done": len(self._numbers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._seed, self._numbers = state["seed"], list(state["numbers"])
