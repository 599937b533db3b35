"""Plugins of a stranger that keep every rule."""

import torch
from poolwright import hookimpl


class GoodScore:
    """Score by the Gini impurity, 1 - sum p^2 (Breiman et al. 1984)."""

    needs = {"probabilities"}

    @hookimpl
    def score(self, cycle):
        return 1 - cycle.probabilities().square().sum(1)


class GoodMemory:
    """Take the best scores, but leave out a share of the batch as long as the reward falls.

    Parameters
    ----------
    caution : float
        How much of the batch is left out for each cycle in which the reward fell.
    """

    def __init__(self, *, caution=0.1):
        self.caution = caution
        self._last = 0.0
        self._falls = 0

    @hookimpl
    def select(self, cycle, scores, budget):
        count = max(1, int(budget * (1 - self.caution * min(self._falls, 5)))) if budget else 0
        best = scores.sort(descending=True, stable=True).indices[:count]
        return cycle.pool.unlabeled[best]

    @hookimpl
    def update(self, cycle, reward):
        if reward is not None:
            self._falls = self._falls + 1 if reward < self._last else 0
            self._last = reward
        cycle.log("falls", self._falls)

    def state_dict(self):
        return {"last": self._last, "falls": self._falls}

    def load_state_dict(self, state):
        self._last, self._falls = state["last"], state["falls"]


class GoodStop:
    """End the run after a number of cycles.

    Parameters
    ----------
    cycles : int
        How many; 1000 by default, which is never.
    """

    def __init__(self, *, cycles=1000):
        self.cycles = cycles

    @hookimpl(wrapper=True)
    def select(self, cycle):
        ids = yield
        return ids[:0] if cycle.index >= self.cycles else ids
