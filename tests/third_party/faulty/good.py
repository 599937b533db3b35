"""Strategies that keep every rule, each in its own way."""

from __future__ import annotations

import torch
from poolwright import hookimpl, streams


class Remembers:
    """Mix entropy with the mean entropy of the cycles before; select at random among the better half.

    Parameters
    ----------
    weight : float
        Of the past.
    """

    needs = frozenset({"probabilities"})

    def __init__(self, *, weight=0.5):
        self.weight = weight
        self._mean = torch.zeros(())

    @hookimpl
    def update(self, cycle, reward):
        entropy = torch.special.entr(cycle.probabilities()).sum(1)
        self._mean = self.weight * self._mean + (1 - self.weight) * entropy.mean()

    @hookimpl
    def score(self, cycle):
        return torch.special.entr(cycle.probabilities()).sum(1) - self._mean

    @hookimpl
    def select(self, cycle, scores, budget):
        order = scores.sort(descending=True, stable=True).indices
        better = order[: max(budget, len(order) // 2)]
        drawn = torch.randperm(len(better), generator=cycle.generator)[:budget]
        return cycle.pool.unlabeled[better[drawn]]

    @hookimpl
    def reward(self, cycle, batch):
        return float(len(batch))

    def state_dict(self):
        return {"mean": self._mean}

    def load_state_dict(self, state):
        self._mean = state["mean"]


class Listens:
    """Only hear updates, and keep no state."""

    @hookimpl
    def update(self, cycle, reward):
        cycle.log("reward", -1.0 if reward is None else reward)


class ReadsEverything:
    """Use every ability that a learner may have, and all that a cycle gives."""

    tasks = ("classification",)
    needs = frozenset(
        {"probabilities", "head", "dropout", "members", "loss", "labels", "validation", "features", "inputs", "truth"}
    )

    @hookimpl
    def score(self, cycle):
        ids = cycle.pool.unlabeled
        x = torch.cat(list(cycle.inputs()))
        drawn = cycle.learner.sample(x, cycle.generator)["probabilities"].amax(1)
        votes = torch.stack([member.predict(x)["probabilities"] for member in cycle.learner.members]).var(0).sum(1)
        scores = drawn + votes + cycle.losses() + cycle.learner.head.weight.sum() + cycle.rows("features")[:].mean(1)
        assert len(cycle.labels(cycle.pool.labeled)) == len(cycle.pool.labeled)
        assert len(cycle.labels(cycle.pool.reserved("state"))) == 4
        return scores + cycle.truth(ids) + len(cycle.validation)


class Segments:
    """Work for segmentation only."""

    tasks = frozenset({"segmentation"})
    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle):
        return 1 - cycle.probabilities().amax(1)


class Simulates:
    """Train on episodes of what is labeled, and give the last batch back where they promise nothing."""

    needs = frozenset({"labels"})

    @hookimpl
    def update(self, cycle):
        episode = cycle.simulate(cycle.pool.labeled, 5, 3, seed=1)
        episode.advance()
        if cycle.index and len(cycle.pool.batch) > 1:
            cycle.pool.release(cycle.pool.batch[-1:])

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[-budget:] if budget else cycle.pool.unlabeled[:0]


class Trains(Remembers):
    """Be trained ahead, in three pieces that draw from streams of their own.

    Parameters
    ----------
    weight : float
        Of the past.
    policy : str, optional
        File of a policy.
    """

    def __init__(self, *, weight=0.5, policy=None):
        super().__init__(weight=weight)
        self.policy = policy
        self._seed = None
        self._pieces = 0

    def train_policy(self, cycle):
        if self._seed is None:
            self._seed = int(torch.randint(2**31, (), generator=cycle.generator))
        while self._pieces < 3:
            self._mean = self._mean + torch.rand((), generator=streams.generator(self._seed, self._pieces))
            self._pieces += 1
            yield self._pieces / 3

    def state_dict(self):
        return super().state_dict() | {"seed": self._seed, "pieces": self._pieces}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._seed, self._pieces = state["seed"], state["pieces"]
