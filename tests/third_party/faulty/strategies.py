"""Strategies, each with the fault that its name tells: Remembers but for one thing."""

from __future__ import annotations

import itertools
import random

import torch
from poolwright import hookimpl
from poolwright.testing import general, strategies

from .good import Listens, ReadsEverything, Remembers, Segments, Simulates, Trains


def cannot_be_made():
    """A factory that fails."""
    raise OSError("no such policy")


class Undocumented(Remembers):
    def __init__(self, *, weight=0.5):
        super().__init__(weight=weight)


class ParameterUndocumented(Remembers):
    """Say nothing of one parameter."""

    def __init__(self, *, weight=0.5, sharpness=2):
        super().__init__(weight=weight)
        self.sharpness = sharpness


class Converts(Remembers):
    """Convert a parameter.

    Parameters
    ----------
    weight : float
    """

    def __init__(self, *, weight=0.5):
        super().__init__(weight=float(weight))


class Copies(Remembers):
    """Copy a parameter.

    Parameters
    ----------
    layers : list
    """

    def __init__(self, *, layers=(1, 2)):
        super().__init__()
        self.layers = list(layers)


class Renames(Remembers):
    """Keep a parameter under another name.

    Parameters
    ----------
    layers : tuple
    """

    def __init__(self, *, layers=(1, 2)):
        super().__init__()
        self._layers = layers


class DefaultArgument(Remembers):
    """Give an argument of a hook a default."""

    @hookimpl
    def score(self, cycle=None):
        return super().score(cycle)


class UnknownTask(Remembers):
    """Work for a task that nobody knows."""

    tasks = frozenset({"ranking"})


class UnknownNeed(Remembers):
    """Declare a need that nobody knows."""

    needs = frozenset({"probabilities", "embedings"})


class Undeclared(Remembers):
    """Use embeddings without saying so."""

    @hookimpl
    def score(self, cycle):
        return cycle.embeddings().sum(1)


class UndeclaredHead(Remembers):
    """Use the learner's head where any learner was asked for."""

    needs = frozenset({"probabilities", "learner"})

    @hookimpl
    def score(self, cycle):
        return super().score(cycle) + cycle.learner.head.bias.sum()


class UndeclaredMetrics(Remembers):
    """Count on validation metrics without declaring validation."""

    @hookimpl
    def reward(self, cycle, batch):
        return cycle.metrics["accuracy"]


class Raises(Remembers):
    """Cannot do without a reward."""

    @hookimpl
    def update(self, cycle, reward):
        super().update(cycle, reward + 1)


class EndlessReward(Remembers):
    """Give an infinite reward."""

    @hookimpl
    def reward(self, cycle, batch):
        return float("inf")


class IntegerScores(Remembers):
    """Give integers for scores."""

    @hookimpl
    def score(self, cycle):
        return torch.arange(len(cycle.pool.unlabeled))


class ShortIds(Remembers):
    """Give int32 ids."""

    @hookimpl
    def select(self, cycle, scores, budget):
        return super().select(cycle, scores, budget).int()


class AtLeastOne(Remembers):
    """Select one sample even where nothing may be bought."""

    @hookimpl
    def select(self, cycle, scores, budget):
        return super().select(cycle, scores, max(1, budget))


class CountsOnAll(Remembers):
    """Fail when there are not as many samples as the budget."""

    @hookimpl
    def select(self, cycle, scores, budget):
        assert budget <= len(scores)
        return super().select(cycle, scores, budget)


class CountsOnScore(Remembers):
    """Use in select what its own score left behind."""

    @hookimpl
    def score(self, cycle):
        self._kept = super().score(cycle)
        return self._kept

    @hookimpl
    def select(self, cycle, scores, budget):
        return super().select(cycle, self._kept, budget)

    def state_dict(self):
        return {"mean": self._mean, "kept": self._kept}

    def load_state_dict(self, state):
        self._mean, self._kept = state["mean"], state["kept"]


class Unseeded(Remembers):
    """Draw from a generator that nobody can repeat."""

    @hookimpl
    def score(self, cycle):
        generator = torch.Generator()
        generator.seed()
        return torch.rand(len(cycle.pool.unlabeled), generator=generator)


class DrawsWhenMade(Remembers):
    """Draw in the constructor."""

    def __init__(self):
        super().__init__()
        self._phase = random.random()

    @hookimpl
    def score(self, cycle):
        return torch.sin(cycle.pool.unlabeled * 1000 * self._phase)


class ReadsOthersLogs(Remembers):
    """Let the logs of other plugins count."""

    @hookimpl
    def score(self, cycle):
        logs = sum(len(record.logs) for record in cycle.history)
        return torch.sin(cycle.pool.unlabeled * (1.0 + logs))


class WritesOutputs(Remembers):
    """Change probabilities that other plugins read."""

    @hookimpl
    def score(self, cycle):
        return cycle.probabilities().mul_(2).amax(1)


class WritesBehindTorch(Remembers):
    """Change probabilities that other plugins read, where torch does not see it."""

    @hookimpl
    def score(self, cycle):
        scores = super().score(cycle)
        cycle.probabilities().numpy().sort(axis=1)
        return scores


class OddState(Remembers):
    """Keep a range in the state."""

    def state_dict(self):
        return super().state_dict() | {"steps": range(3)}


class HalfAState(Remembers):
    """Save, but never load."""

    load_state_dict = property()


class ForgetsCalls(Remembers):
    """Count calls, and leave the count out of the state."""

    def __init__(self):
        super().__init__()
        self._calls = 0

    @hookimpl
    def update(self, cycle, reward):
        super().update(cycle, reward)
        self._calls += 1


class ForgetsAll:
    """Learn, and keep no state at all."""

    def __init__(self):
        self._seen = []

    @hookimpl
    def update(self, cycle):
        self._seen.append(cycle.index)

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[:budget]


class HidesAnIterator(Remembers):
    """Keep its place in an iterator, which no state can hold."""

    def __init__(self):
        super().__init__()
        self._ticks = itertools.count(1)

    @hookimpl
    def score(self, cycle):
        return torch.sin(cycle.pool.unlabeled * 1.0 * next(self._ticks))


class WantsTwo(Remembers):
    """Compare with the second best score."""

    @hookimpl
    def score(self, cycle):
        scores = super().score(cycle)
        return scores - scores.topk(2).values[1]


class WantsDifferent(Remembers):
    """Fail where all samples are the same."""

    @hookimpl
    def score(self, cycle):
        scores = super().score(cycle)
        assert len(scores) == 1 or scores.max() - scores.min() > 1e-4, "nothing to choose"
        return scores


class TwoFaults(ParameterUndocumented):
    """Say nothing of one parameter, and select one sample too many."""

    @hookimpl
    def select(self, cycle, scores, budget):
        return super().select(cycle, scores, max(1, budget))


class NeedsParameter(Remembers):
    """Cannot be made without a parameter.

    Parameters
    ----------
    path : str
    """

    def __init__(self, *, path):
        super().__init__()
        self.path = path


class OneClassASample:
    """Compare the labels with one class, as only classification allows, and do not say so."""

    needs = frozenset({"labels"})

    @hookimpl
    def select(self, cycle, budget):
        counts = torch.bincount(cycle.labels(cycle.pool.labeled), minlength=cycle.n_classes)
        return cycle.pool.unlabeled[:budget] if counts.sum() else cycle.pool.unlabeled[-budget:]


class TrainsOnOneStream(Trains):
    """Draw for all pieces from one stream, which a stopped training begins anew."""

    def train_policy(self, cycle):
        while self._pieces < 3:
            self._mean = self._mean + torch.rand((), generator=cycle.generator)
            self._pieces += 1
            yield self._pieces / 3


class TrainsWithoutEnd(Trains):
    """Yield epochs instead of shares."""

    def train_policy(self, cycle):
        yield from range(1, 4)


class TakesNoPolicy(Remembers):
    """Train what nobody can use."""

    def train_policy(self, cycle):
        yield 1.0


FAULTS = [
    (general.MADE, "OSError: no such policy", cannot_be_made),
    (general.DOCUMENTED, "no docstring", Undocumented),
    (general.DOCUMENTED, "'sharpness'", ParameterUndocumented),
    (general.CONSTRUCTOR, "does more with its parameters", Converts),
    (general.CONSTRUCTOR, "'layers' is [1, 2], not the same object", Copies),
    (general.CONSTRUCTOR, "'layers' is not kept as attribute 'layers'", Renames),
    (strategies.CONTRACT, "gives its argument 'cycle' a default", DefaultArgument),
    (strategies.CONTRACT, "tasks names ranking", UnknownTask),
    (strategies.NEEDED, "did you mean 'embeddings'", UnknownNeed),
    (strategies.NEEDED, "cycle.embeddings() in score without declaring it", Undeclared),
    (strategies.NEEDED, "no 'head'", UndeclaredHead),
    (strategies.NEEDED, "KeyError: 'accuracy'", UndeclaredMetrics),
    (strategies.UPDATES, "TypeError", Raises),
    (strategies.REWARDS, "must be finite", EndlessReward),
    (strategies.SCORED, "torch.int64", IntegerScores),
    (strategies.SELECTED, "torch.int32", ShortIds),
    (strategies.BUDGETS, "with a budget of 0", AtLeastOne),
    (strategies.BUDGETS, "AssertionError", CountsOnAll),
    (strategies.ALONE, "select without the other hooks before it", CountsOnScore),
    (strategies.SAME, "in two runs with the same seed", Unseeded),
    (strategies.GLOBAL, "does the constructor draw", DrawsWhenMade),
    (strategies.NEIGHBORS, "with another plugin", ReadsOthersLogs),
    (strategies.SCORED, "changed probabilities in place", WritesOutputs),
    (strategies.UNTOUCHED, "score changed the outputs", WritesBehindTorch),
    (strategies.PLAIN, "more than tensors, numbers, strings, lists and dicts", OddState),
    (strategies.PLAIN, "state_dict but no load_state_dict", HalfAState),
    (strategies.CHANGES, "'_calls' changes during a run, but is not restored", ForgetsCalls),
    (strategies.CHANGES, "'_seen' changes during a run, but there is no state_dict", ForgetsAll),
    (strategies.RESUMED, "the batch after a stop is", HidesAnIterator),
    (strategies.ONE, "selected index k out of range", WantsTwo),
    (strategies.DUPLICATES, "nothing to choose", WantsDifferent),
    (strategies.TASKS, "for segmentation: ", OneClassASample),
    (strategies.TRAINED, "has another state after the second", TrainsOnOneStream),
    (strategies.TRAINED, "yielded 2 from train_policy", TrainsWithoutEnd),
    (strategies.TRAINED, "train_policy() but lacks a parameter policy", TakesNoPolicy),
]
GOOD = [Remembers, Listens, ReadsEverything, Segments, Simulates, Trains]
