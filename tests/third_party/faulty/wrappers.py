"""Wrappers, each with the fault that its name tells."""

from __future__ import annotations

import torch
from poolwright import hookimpl
from poolwright.testing import strategies, wrappers


class Stops:
    """End the run after a number of cycles that select less than the whole budget.

    Parameters
    ----------
    patience : int
        How many cycles.
    """

    needs = frozenset({"probabilities"})

    def __init__(self, *, patience=1000):
        self.patience = patience
        self._waited = 0

    @hookimpl(wrapper=True)
    def update(self, cycle):
        self._waited += 1
        return (yield)

    @hookimpl(wrapper=True)
    def select(self, cycle):
        ids = yield
        cycle.log("certain", float(cycle.probabilities().amax(1).mean()))
        return ids[:0] if self._waited > self.patience else ids

    def state_dict(self):
        return {"waited": self._waited}

    def load_state_dict(self, state):
        self._waited = state["waited"]


class NotMarked(Stops):
    """A hook that is not marked as a wrapper."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled))


class ForgetsTheResult(Stops):
    """Returns nothing in place of the ids."""

    @hookimpl(wrapper=True)
    def select(self, cycle):
        yield


class EndsAtOnce(Stops):
    """Is triggered from the beginning."""

    @hookimpl(wrapper=True)
    def select(self, cycle):
        ids = yield
        return ids[:0]


class Reverses(Stops):
    """Changes the order of every batch."""

    @hookimpl(wrapper=True)
    def select(self, cycle):
        ids = yield
        return ids.flip(0)


class Draws(Stops):
    """Drops ids by a generator that nobody can repeat."""

    @hookimpl(wrapper=True)
    def select(self, cycle):
        ids = yield
        return ids[torch.randperm(len(ids), generator=_unseeded())]


def _unseeded():
    generator = torch.Generator()
    generator.seed()
    return generator


class Forgets(Stops):
    """Keeps a count that is not in its state."""

    def __init__(self, *, patience=1000):
        super().__init__(patience=patience)
        self._selections = 0

    @hookimpl(wrapper=True)
    def select(self, cycle):
        self._selections += 1
        return (yield)


FAULTS = [
    (strategies.CONTRACT, "must be marked @hookimpl(wrapper=True)", NotMarked),
    (strategies.SELECTED, "returned None from select", ForgetsTheResult),
    (wrappers.THROUGH, "ended the run", EndsAtOnce),
    (wrappers.THROUGH, "changed the batch of cycle 0", Reverses),
    (strategies.SAME, "in two runs with the same seed", Draws),
    (strategies.CHANGES, "attribute '_selections' changes", Forgets),
]
GOOD = [Stops]
