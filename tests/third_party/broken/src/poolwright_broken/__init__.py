"""Plugins of a stranger, each with one fault."""

import torch
from poolwright import hookimpl


def first(cycle, budget):
    return cycle.pool.unlabeled[:budget]


class HookName:
    """A hook that does not exist."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled))

    @hookimpl
    def selekt(self, cycle, budget):
        return first(cycle, budget)


class Default:
    """A default argument, which pluggy would use instead of the hook's value."""

    @hookimpl
    def select(self, cycle, budget=10):
        return first(cycle, budget)


def class_factory():
    """A factory that forgets to make an instance."""
    return Default


class Specname:
    """A method that goes by another name."""

    @hookimpl(specname="select")
    def choose(self, cycle, budget):
        return first(cycle, budget)


class Undecorated:
    """A method that would never be called."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled))

    def select(self, cycle, budget):
        return first(cycle, budget)


class Length:
    """One score too few."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled) - 1)


class Labeled:
    """Selects what is labeled already."""

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.labeled[:budget]


class Repeated:
    """Selects one sample several times."""

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[:1].repeat(budget)


class Nan:
    """Divides by zero."""

    @hookimpl
    def score(self, cycle):
        scores = torch.zeros(len(cycle.pool.unlabeled))
        scores[3] /= 0
        return scores


class NoneScore:
    """Owns score, and returns nothing."""

    @hookimpl
    def score(self, cycle):
        return None


class NoneSelect:
    """Owns select, and returns nothing."""

    @hookimpl
    def select(self, cycle):
        return None


class Update:
    """Fails in its third update."""

    @hookimpl
    def select(self, cycle, budget):
        return first(cycle, budget)

    @hookimpl
    def update(self, cycle):
        if cycle.index == 2:
            raise ValueError("no policy for this many rewards\n  a second line that nobody needs")
