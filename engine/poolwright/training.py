"""The learners of a session: fitted on what is labeled, evaluated, kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import streams
from .catalog import one_line
from .dataset import Dataset, Samples, whole
from .errors import ConfigError, LearnerError, PoolError, PoolwrightError
from .learner import STARTS, Learner, LearnerFactory, check_members
from .metrics import evaluate
from .pool import LABELED, UNLABELED
from .state import CycleState


class Training:
    """The learner that strategies see, and perhaps a second one that the figures are made with.

    Parameters
    ----------
    dataset : Dataset
    learner, report_learner : callable, optional
        Make a fresh learner.
    start : {"scratch", "warm", "pretrained"}
        How each fit begins.
    refit_every : int, optional
        Fit anew only when so many labels have come; go on from the present weights in between.
    report : bool
        Evaluate on test data.
    report_every : int, optional
        Only when so many labels were paid for since the last time, at the start and at the end; each cycle without it.
    device : str
    seed : int
        Of the run.

    Attributes
    ----------
    learner : Learner or None
    validation : Samples or None

    Raises
    ------
    ConfigError
        The learner cannot start as it is asked to.
    """

    def __init__(
        self,
        dataset: Dataset,
        learner: LearnerFactory | None,
        *,
        start: str,
        refit_every: int | None,
        report_learner: LearnerFactory | None,
        report: bool,
        report_every: int | None,
        device: str,
        seed: int,
    ) -> None:
        self.learner: Learner | None = learner() if learner else None
        self.validation = whole(dataset, dataset.validation) if dataset.validation else None
        self.start = start
        self.refit_every = refit_every
        self._report_every = report_every
        self._reported_labels: int | None = None
        self._report_learner: Learner | None = report_learner() if report_learner else None
        for made in self._learners().values():
            check_members(made)
        self._test = whole(dataset, dataset.test) if report and learner else None
        self._device = device
        self._seed = seed
        self._fitted_labels = 0
        self._check(dataset.task)

    def _check(self, task: str) -> None:
        for made in self._learners().values():
            tasks = getattr(made, "tasks", None)
            if tasks is not None and task not in tasks:
                raise ConfigError(
                    f"learner {type(made).__name__} works for {', '.join(sorted(tasks))}, "
                    f"not for this data set's task {task!r}: choose another learner"
                )
        if self.start not in STARTS:
            raise ConfigError(f"learner.start = {self.start!r}: choose one of {', '.join(STARTS)}")
        continues = self.start == "warm" or self.refit_every is not None
        if continues and self.learner is not None and not hasattr(self.learner, "state_dict"):
            raise ConfigError(
                f"learner {type(self.learner).__name__} keeps no state, so it cannot go on from its weights: "
                f"set learner.start = 'scratch' and leave refit_every out"
            )

    def fit_and_evaluate(self, state: CycleState, tell_phase: Callable[[str], None]) -> dict[str, float]:
        """Fit on what is labeled, put the validation metrics into ``state``, return those on test data."""
        assert self.learner is not None
        labeled = len(state.pool.ids(LABELED))
        if not labeled:
            raise PoolError("nothing is labeled, so nothing can be fitted: give an initial pool ([initial] size)")
        tell_phase("fit")
        due = self.refit_every is None or labeled - self._fitted_labels >= self.refit_every or state.index == 0
        start = self.start if due else "warm"
        if state.index == 0 and start == "warm":
            start = "scratch"
        if due:
            self._fitted_labels = labeled
        self._fit(self.learner, "learner", start, state, "fit")
        tell_phase("evaluate")
        began = time.perf_counter()
        if self.validation is not None:
            state.metrics = evaluate(self.learner, self.validation, device=self._device)
        state.seconds["evaluate"] = time.perf_counter() - began
        return self._report(self._test, state) if self._test is not None and self._report_due(state) else {}

    def report_last(self, state: CycleState) -> dict[str, float]:
        """Return the metrics on test data of a cycle that turned out to be the last, and had none."""
        return {} if self._test is None else self._report(self._test, state)

    def _report_due(self, state: CycleState) -> bool:
        paid, last = state.pool.paid, self._reported_labels
        due = self._report_every is None or last is None or state.final or paid - last >= self._report_every
        if due:
            self._reported_labels = paid
        return due

    def _report(self, test: Samples, state: CycleState) -> dict[str, float]:
        """Return the metrics on test data, of the report learner where there is one."""
        assert self.learner is not None
        judge = self.learner
        if self._report_learner is not None:
            judge = self._report_learner
            self._fit(judge, "report_learner", "scratch", state, "report")
        began = time.perf_counter()
        metrics = evaluate(judge, test, device=self._device)
        state.seconds["report"] = state.seconds.get("report", 0.0) + time.perf_counter() - began
        return metrics

    def _fit(self, learner: Learner, role: str, start: str, state: CycleState, phase: str) -> None:
        pool, dataset = state.pool, state.dataset
        labeled_ids = pool.ids(LABELED)
        masks = dataset.task == "segmentation"  # read when they are used: together they would fill the memory
        labeled = Samples(dataset, dataset.pool, labeled_ids, pool.labels if masks else pool.labels(labeled_ids))
        unlabeled = Samples(dataset, dataset.pool, pool.ids(UNLABELED))
        stream = streams.generator(self._seed, role, state.index)
        began = time.perf_counter()
        with streams.seeded(self._seed, "fit", role, state.index):
            with named(learner, f"fit on {len(labeled)} samples (cycle {state.index})"):
                learner.fit(labeled, unlabeled=unlabeled, start=start, generator=stream)
            state.streams[role] = streams.digest(stream)
        state.seconds[phase] = time.perf_counter() - began

    # -- keeping -------------------------------------------------------------------------------------------------

    def _learners(self) -> dict[str, Learner]:
        named = {"learner": self.learner, "report_learner": self._report_learner}
        return {role: learner for role, learner in named.items() if learner is not None}

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the learners that have one, when they were fitted anew, and when test data were read."""
        states = {}
        for role, learner in self._learners().items():
            if hasattr(learner, "state_dict"):
                with named(learner, "state_dict"):
                    states[role] = learner.state_dict()
        return {"states": states, "fitted_labels": self._fitted_labels, "reported_labels": self._reported_labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._fitted_labels = state["fitted_labels"]
        self._reported_labels = state["reported_labels"]
        for role, learner in self._learners().items():
            if role in state["states"]:
                with named(learner, "load_state_dict"):
                    learner.load_state_dict(state["states"][role])  # type: ignore[attr-defined]


@contextmanager
def named(learner: Learner, what: str) -> Iterator[None]:
    """Name the learner in whatever it raises."""
    try:
        yield
    except PoolwrightError:
        raise
    except Exception as error:
        raise LearnerError(f"learner {type(learner).__name__} failed in {what}: {one_line(error)}") from error
