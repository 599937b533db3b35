"""Where strategies and wrappers are tried: made data, a made learner, partners for the roles they leave open."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import streams
from ..composition import Composition, Part, Roles
from ..contract import Member, check_plugin, declared_needs, hooks_of
from ..cycle import Cycle
from ..hookspecs import LEARNER_NEEDS, hookimpl
from ..metrics import TASKS
from ..session import Session
from ..state import CycleState
from ..store import Store
from .findings import Broken, Subject
from .made import BATCH, PROVIDES, MadeDataset, MadeLearner, make_dataset, make_learner, make_state

LABELED = 9
RESERVED = 4
"""Set aside as ``state``, the usual name for the reserve of learned policies."""


class Scores:
    """A partner that scores: numbers without any order that depend on the id alone."""

    @hookimpl
    def score(self, cycle: Cycle) -> Tensor:
        """Return a hash of each id."""
        return scores_of(cycle.pool.unlabeled)


class Neighbor:
    """A listener that draws random numbers and leaves a note in the log."""

    @hookimpl
    def update(self, cycle: Cycle) -> None:
        """Do what another plugin might do."""
        torch.rand(3)
        cycle.log("note", float(torch.rand(1, generator=cycle.generator)))


def scores_of(ids: Tensor) -> Tensor:
    """Return a number in [0, 1) for each id."""
    return (ids * 0.6180339887) % 1


def _member(subject: Subject) -> Member:
    return Member(subject.name, subject.kind, subject.distribution, subject.sample, frozenset())


def hooks(subject: Subject) -> set[str]:
    """Return the hooks that the subject has, checked against the contract."""
    member = _member(subject)
    check_plugin(member)
    return hooks_of(member)


def needs(subject: Subject) -> frozenset[str]:
    """Return what the subject declares, checked against what there is."""
    return declared_needs(_member(subject))


def roles(subject: Subject, *, neighbor: bool = False, wrapped: bool = True) -> Roles:
    """Return a cast in which the subject plays all it can, and :class:`Scores` gives scores if need be."""
    part = Part(subject.plugin, subject.params)
    update = (Part(Neighbor),) if neighbor else ()
    if subject.kind == "wrapper":
        return Roles(name=Part(Scores), update=update, wrappers=(part,) if wrapped else ())
    has = hooks(subject)
    takes_scores = "select" not in has or "scores" in inspect.signature(subject.sample.select).parameters
    partner = Part(Scores) if takes_scores and "score" not in has else None
    return Roles(name=part, score=partner, update=update)


class Bench:
    """One set-up: a data set and what the learner provides.

    Parameters
    ----------
    minimal : bool
        Give nothing but what the subject declares in its needs.
    dataset : dict
        Parameters of the made data set.
    task : str, optional
        Of the data set; the first that the subject works for by default.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        minimal: bool = False,
        dataset: Mapping[str, Any] | None = None,
        task: str | None = None,
    ) -> None:
        self.subject = subject
        self.task = task or tasks_of(subject)[0]
        wanted = needs(subject)
        self.provides = (wanted & LEARNER_NEEDS) | (frozenset() if minimal else PROVIDES)
        self.dataset: MadeDataset = make_dataset(task=self.task, **(dataset or {}))
        if minimal and "features" not in wanted:
            self.dataset.features = None
        if minimal and "validation" not in wanted:
            self.dataset.validation = None

    def learner(self) -> MadeLearner:
        """Return a learner that is not fitted."""
        return make_learner(self.provides)

    def compose(self) -> Composition:
        """Return the subject and its partners, freshly made and registered."""
        with streams.seeded("conformance", "constructor"):
            return Composition(roles(self.subject), self.subject.catalog, task=self.task, provides=self.provides)

    def state(self, index: int = 0, *, composition: Composition | None = None) -> CycleState:
        """Return the state of cycle ``index``, fitted and evaluated."""
        state = make_state(self.dataset, self.learner(), index=index, labeled=LABELED, reserve=RESERVED)
        state.needs = composition.needs if composition else needs(self.subject)
        return state

    def session(
        self, *, salt: str = "", neighbor: bool = False, wrapped: bool = True, store: Store | None = None
    ) -> Session:
        """Return a session.

        Parameters
        ----------
        salt : str
            Seeds the global streams while the plugins are made.
        neighbor : bool
            With a second plugin that listens.
        wrapped : bool
            A wrapper that is examined is there.
        store : Store, optional
            Where to keep it.
        """
        with streams.seeded("conformance", "constructor" + salt):
            return Session(
                self.dataset,
                learner=self.learner,
                strategy=roles(self.subject, neighbor=neighbor, wrapped=wrapped),
                budget=len(self.dataset.pool) - LABELED - RESERVED,
                batch=BATCH,
                initial=torch.arange(LABELED),
                reserve={"state": torch.arange(len(self.dataset.pool))[-RESERVED:]},
                report=False,
                allow_truth=True,
                oracle=self.dataset.pool.labels,
                store=store,
                catalog=self.subject.catalog,
            )


def batches(session: Session, cycles: int) -> list[list[int]]:
    """Run a session for some cycles and return the ids of each; fewer when it ends before."""
    if session.index == 0:
        session.answer()
    asked: list[list[int]] = []
    while len(asked) < cycles and session.advance() is not None:
        asked.append(session.history[-1].selected)
        session.answer()
    return asked


def instance_of(session: Session, subject: Subject) -> Any:
    """Return the subject's instance in a session."""
    composition = session._composition
    assert composition is not None
    return next(m.instance for m in composition.members if m.name == subject.name)


def tasks_of(subject: Subject) -> list[str]:
    """Return the tasks that the subject works for: those that it names, or all."""
    tasks = getattr(subject.sample, "tasks", None)
    found = [task for task in TASKS if tasks is None or task in tasks]
    if not found:
        raise Broken(f"tasks names {', '.join(sorted(tasks or ())) or 'nothing'}; known: {', '.join(TASKS)}")
    return found
