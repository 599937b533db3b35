"""A strategy whose policy is trained ahead, and experiments that train it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from poolwright import Cycle, Experiment, hookimpl, read_policy, streams

from .toys import Blobs, Random, Softmax


class Weighing:
    """Score by a direction in probability space that a policy learned in episodes on the reserve.

    Parameters
    ----------
    policy : str, optional
        The file of a policy; without one the direction is zero.
    epochs : int
        Pieces of the training.
    wait : float
        Seconds before each piece ends.
    """

    needs = frozenset({"probabilities", "labels"})

    def __init__(self, *, policy: str | None = None, epochs: int = 4, wait: float = 0.0) -> None:
        self.policy = policy
        self.epochs = epochs
        self.wait = wait
        self._seed: int | None = None
        self._done = 0
        self._direction = torch.zeros(4)

    def train_policy(self, cycle: Cycle) -> Iterator[float]:
        """Move the direction in every epoch by what an episode of its own shows."""
        if self._seed is None:
            self._seed = int(torch.randint(2**31, (), generator=cycle.generator))
        ids = cycle.pool.reserved("policy")
        while self._done < self.epochs:
            with streams.seeded(self._seed, "epoch", self._done):
                self._direction = self._direction + self._episode(cycle, ids)
            self._done += 1
            time.sleep(self.wait)
            yield self._done / self.epochs

    def _episode(self, cycle: Cycle, ids: Tensor) -> Tensor:
        episode = cycle.simulate(ids, 4, 4, self._done)
        episode.advance()
        p = episode.view({"probabilities"}).probabilities(ids)
        own = torch.nn.functional.one_hot(cycle.labels(ids), 4)
        return (own - p).mean(0) + 0.1 * torch.rand(4)

    @hookimpl
    def update(self, cycle: Cycle) -> None:
        """Take the policy over in the first cycle."""
        if cycle.index == 0 and self.policy is not None:
            self.load_state_dict(read_policy(self.policy, "weighing"))

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return the probabilities along the direction."""
        return cycle.probabilities() @ self._direction

    def state_dict(self) -> dict[str, Any]:
        """Return what training has left."""
        return {"seed": self._seed, "done": self._done, "direction": self._direction.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self._seed, self._done, self._direction = state["seed"], state["done"], state["direction"].clone()


def policy_experiment(*strategies: Any, **changes: Any) -> Experiment:
    """Return an experiment on blobs, a fifth of which is reserved for the policy."""
    settings: dict[str, Any] = {
        "dataset": Blobs,
        "learner": Softmax,
        "strategies": list(strategies or [Weighing]),
        "initial": {"strategy": Random, "size": 8},
        "reserve": {"policy": 0.2},
        "reserve_seed": 3,
        "seeds": [5, 6],
        "budget": 10,
        "batch": 5,
        "threads": 1,
        "device": "cpu",
    }
    return Experiment(**settings | changes)
