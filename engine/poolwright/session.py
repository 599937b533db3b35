"""The stepper: ``advance()`` runs a cycle up to the ids it asks for, ``tell()`` takes the answers.

``poolwright run`` is a loop over the two with an oracle; a person who labels, an environment for reinforcement
learning and a simulated episode use the same two calls::

    session = Session(dataset, learner="mlp", strategy="margin", initial=50, budget=300, batch=25)
    while (ids := session.advance()) is not None:
        session.tell(ids, ask_somebody(ids))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog
from .composition import Composition, Roles
from .cycle import Cycle
from .dataset import Checked, Dataset, Episode, Samples
from .errors import ConfigError, PluginError, PoolError, close_matches
from .events import Event, Listener, ignore
from .hookspecs import LEARNER_NEEDS, NEEDS
from .learner import LearnerFactory
from .ledger import Ledger
from .masks import first_stray, no_class
from .metrics import task_named
from .oracle import Oracle
from .pool import ASKED, LABELED, UNLABELED, Label, Pool, as_ids, read_labels
from .rows import default_memory_limit
from .spec import as_roles
from .state import CycleRecord, CycleState
from .store import Store
from .training import Training

IDLE_LIMIT = 1000
"""Cycles in a row that may pass without buying a label (a strategy that only re-picks what it released)."""


class Session:
    """One run of one strategy, cycle by cycle.

    Parameters
    ----------
    dataset : Dataset
        Loaded.
    learner : str or callable, optional
        An installed name, or a function or class that makes a fresh learner. Without one nothing is fitted
        (``poolwright select``).
    strategy : str, class, dict or Roles, optional
        An installed name, a class, or who plays which role as in ``{"score": "random", "select": "coreset"}``.
        Without one the caller chooses with :meth:`ask`.
    budget : int
        Labels to buy after the initial pool.
    batch : int, optional
        Labels to ask for in a cycle; the strategy decides without it.
    initial : Tensor or int, optional
        int64 ids that are asked before the first cycle, or how many to draw at random.
    reserve : dict of str to Tensor, optional
        Ids set aside by name; the data set's labels for them are known from the start.
    candidates : int, optional
        Score and select see this many unlabeled samples, drawn anew each cycle.
    seed : int
    start : {"scratch", "warm", "pretrained"}
        How each fit begins, see :meth:`Learner.fit`.
    refit_every : int, optional
        Fit anew only when so many labels have come; go on from the present weights in between.
    report_learner : str or callable, optional
        A second learner, fitted on the same labels, whose test metrics go into the records instead.
    report : bool
        Evaluate on test data.
    report_every : int, optional
        Only when so many labels were paid for since the last time, at the start and at the end; each cycle without it.
    device : str
    memory_limit : int, optional
        Bytes that one matrix of outputs may take in memory.
    allow_truth : bool
        Plugins may read hidden labels (upper bounds); the records are marked.
    marked : bool
        Hidden labels were used before the session began (to choose its initial pool); the records are marked.
    store : Store, optional
        Journal and checkpoints; a store that holds a run is gone on with. In memory without one.
    oracle : Oracle, optional
        For :meth:`answer`.
    members : Tensor, optional
        Only these ids are in the pool.
    given : dict of str to Tensor, optional
        Outputs for all samples that no learner computes, such as ``{"embeddings": x}``.
    listener : callable
        Hears what happens, see :mod:`poolwright.events`.
    catalog : Catalog, optional
        Where names of plugins are looked up; the environment's by default.
    label : str
        Of the strategy, for events.

    Raises
    ------
    ConfigError, PluginError, PoolError, StoreError
        Something does not fit; nothing has been written then.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        budget: int,
        learner: LearnerFactory | str | None = None,
        strategy: Roles | Mapping[str, Any] | str | Callable[..., Any] | None = None,
        batch: int | None = None,
        initial: Tensor | int | None = None,
        reserve: Mapping[str, Tensor] | None = None,
        candidates: int | None = None,
        seed: int = 0,
        start: str = "scratch",
        refit_every: int | None = None,
        report_learner: LearnerFactory | str | None = None,
        report: bool = True,
        report_every: int | None = None,
        device: str = "cpu",
        memory_limit: int | None = None,
        allow_truth: bool = False,
        marked: bool = False,
        store: Store | None = None,
        oracle: Oracle | None = None,
        members: Tensor | None = None,
        given: Mapping[str, Tensor] | None = None,
        listener: Listener = ignore,
        catalog: Catalog | None = None,
        label: str = "",
    ) -> None:
        self.dataset = dataset
        self.task = task_named(dataset.task)
        self.budget = budget
        self.batch = batch
        self.seed = seed
        self.device = device
        self.oracle = oracle
        self.pool = Pool(len(dataset.pool), members)
        self.history: list[CycleRecord] = []
        self.finished = False
        self._candidates = candidates
        self._marked = marked
        self._memory_limit = memory_limit or default_memory_limit()
        self._ledger = Ledger(store, by_hand=strategy is None)
        self._given = dict(given or {})
        self._listener = self._located(listener)
        self._label = label
        self._catalog = catalog
        self._factory = self._made(learner)
        self.training = Training(
            dataset,
            self._factory,
            start=start,
            refit_every=refit_every,
            report_learner=self._made(report_learner),
            report=report,
            report_every=report_every,
            device=device,
            seed=seed,
        )
        self._composition = self._compose(as_roles(strategy), allow_truth) if strategy else None
        self._check_settings()
        self._order: list[int] = []
        self._free: set[int] = set()
        self._mask_shape: tuple[int, ...] = ()
        self._baseline: dict[str, float] | None = None
        self._idle = 0
        self._shown: CycleState | None = None
        known: Callable[[Tensor], Tensor] = (
            Checked(dataset, dataset.pool) if dataset.task == "segmentation" else dataset.pool.labels
        )
        for name, ids in (reserve or {}).items():
            self.pool.reserve(name, ids, read_labels(known, ids))
        if isinstance(initial, int):
            initial = self._draw(initial)
        if initial is not None:
            self._order += self.pool.ask(initial, initial=True).tolist()
        self._check_budget()
        self._ledger.identify(self._facts(initial))
        self._resume()

    def _made(self, learner: LearnerFactory | str | None) -> LearnerFactory | None:
        """Return what makes the learner; without a name nothing is looked up, since episodes come by the thousand."""
        if not isinstance(learner, str):
            return learner
        self._catalog = self._catalog or Catalog()
        return self._catalog.learner(learner, {}, device=self.device)

    def _compose(self, roles: Roles, allow_truth: bool, catalog: Catalog | None = None) -> Composition:
        catalog = catalog or self._catalog or Catalog()
        composition = Composition(roles, catalog, task=self.dataset.task, provides=self.provides)
        for member in composition.members:
            if "validation" in member.needs and self.training.validation is None:
                raise ConfigError(f"{member.who} needs validation data: set [dataset] validation = 0.1")
            if "features" in member.needs and self.dataset.features is None:
                raise ConfigError(f"{member.who} needs the data set's own features, and this one has none")
            if "learner" in member.needs and self.training.learner is None:
                raise ConfigError(f"{member.who} needs a learner, and there is none here")
            if "truth" in member.needs and not allow_truth:
                raise ConfigError(
                    f"{member.who} reads hidden labels: set allow_truth = true if an upper bound is meant"
                )
        return composition

    def _check_settings(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch = {self.batch}: ask for at least one label a cycle, or leave batch out")
        if self.budget < 0:
            raise ConfigError(f"budget = {self.budget}: it counts labels to buy and cannot be negative")
        if self._candidates is not None and self._candidates < max(1, self.batch or 1):
            raise ConfigError(f"candidates = {self._candidates} is fewer than a batch of {self.batch or 1}: raise it")

    def _draw(self, size: int) -> Tensor:
        """Return ``size`` unlabeled ids, drawn at random."""
        ids = self.pool.ids(UNLABELED)
        if not 0 <= size <= len(ids):
            raise ConfigError(f"initial = {size}, but the pool has {len(ids)} samples: choose fewer")
        return ids[torch.randperm(len(ids), generator=streams.generator(self.seed, "initial"))[:size]]

    def _facts(self, initial: Tensor | None) -> dict[str, Any]:
        """Return what must not change while a store goes on; budget and batch may."""
        composition = self._composition
        return {
            "seed": self.seed,
            "pool": self.pool.n,
            "initial pool": [] if initial is None else sorted(as_ids(initial).tolist()),
            "learner": type(self.training.learner).__name__,
            "strategy": {} if composition is None else composition.owners,
            "plugins": [] if composition is None else [member.name for member in composition.members],
        }

    def _check_budget(self) -> None:
        free = len(self.pool.ids(UNLABELED))
        if self.budget > free:
            raise ConfigError(f"budget = {self.budget}, but only {free} samples are left to label: lower it to {free}")

    # -- stepping ------------------------------------------------------------------------------------------------

    @property
    def provides(self) -> frozenset[str]:
        """What the learner can do, and the outputs that were given."""
        return frozenset(self._given).union(self.training.learner.provides if self.training.learner else ())

    @property
    def left(self) -> int:
        """Labels that may still be asked for."""
        return max(0, min(self.budget - self.pool.spent, len(self.pool.ids(UNLABELED))))

    @property
    def _batch_size(self) -> int:
        """Labels to ask for next."""
        return min(self.batch or self.left, self.left)

    @property
    def index(self) -> int:
        """Number of the next cycle."""
        return len(self.history)

    @property
    def outstanding(self) -> Tensor:
        """Ids that were asked and are not answered, in the order in which they were selected."""
        asked = torch.tensor(self._order, dtype=torch.int64)
        self._order = asked[self.pool.state_of(asked) == ASKED].tolist()
        answered = self._ledger.waiting
        return torch.tensor([i for i in self._order if i not in answered], dtype=torch.int64)

    @property
    def _told(self) -> bool:
        """Whether an answer came since the last fit; samples of the batch that were bought again for free are none."""
        return not self._free.issuperset(self.pool.fresh.tolist())

    def advance(self) -> Tensor | None:
        """Run the next cycle and return the ids it asks for, int64, in the order of the selection.

        While nothing new has been told, the ids that are outstanding are returned again; once some of them are
        answered the next cycle runs with what is known. A session without a strategy returns an empty tensor: choose
        with :meth:`ask`. None when the run is over.
        """
        self._record_cycles()
        while not self.finished:
            self._ledger.replay(self.pool, self.index)
            outstanding = self.outstanding
            waits_for_answers = len(outstanding) and (not self._told or self.left == 0)
            waits_for_choice = self._composition is None and self.history and not len(self.pool.fresh)
            if waits_for_answers or waits_for_choice:
                return outstanding
            asked = self._cycle()
            if self._ledger.waiting:  # answered before the stop: nobody is asked again
                continue
            if len(asked) or (self._composition is None and not self.finished):
                return asked
        return None

    def ask(self, ids: Any) -> Tensor:
        """Choose ids by hand; return those whose answer is not known yet.

        Raises
        ------
        PoolError
            They are not unlabeled, or more than the budget allows.
        """
        checked = self.pool.check(ids, "ask", allowed=[UNLABELED])
        bought = int((~self.pool.is_paid(checked)).sum())
        if bought > self.budget - self.pool.spent:
            raise PoolError(f"ask: {bought} labels, but only {self.budget - self.pool.spent} are left of the budget")
        asked = self.pool.ask(checked)
        self._order += asked.tolist()
        self._free |= _without(checked, asked)
        self._save()
        return asked

    def tell(self, ids: Any, labels: Any) -> None:
        """Take answers; some, all, late ones and revisions of earlier ones. On disk when it returns.

        Parameters
        ----------
        ids : array of int
            Asked or labeled samples.
        labels : array of int
            Class indices ``(n,)``, or masks ``(n, height, width)`` (or a list of them) of classes and the data set's
            ``ignore_index``.

        Raises
        ------
        PoolError
            An id was never asked, or a label is no class. Nothing is taken then.
        """
        checked, values = self.pool.check_answers(ids, labels, self._ledger.waiting)
        for i, value in zip(checked.tolist(), values, strict=True):
            self._check_answer(i, value)
        self._ledger.note(self.pool, checked, values)

    def _check_answer(self, i: int, value: Label) -> None:
        """Refuse the answer for id ``i`` that the task has no use for."""
        one_class, n_classes = self.task.name == "classification", len(self.dataset.classes)
        if isinstance(value, int) != one_class:
            wanted = "one class index" if one_class else "one label array (a mask)"
            raise PoolError(f"tell: this data set's task ({self.task.name}) wants {wanted} for id {i}")
        if isinstance(value, int) and not 0 <= value < n_classes:
            raise PoolError(f"tell: label {value} of id {i} is no class; there are 0..{n_classes - 1}")
        if isinstance(value, Tensor):
            if not self._mask_shape:
                self._mask_shape = Samples(self.dataset, self.dataset.pool, torch.tensor([i])).shape[-2:]
            if tuple(value.shape) != self._mask_shape:
                raise PoolError(
                    f"tell: the mask of id {i} has the shape {tuple(value.shape)}, its image {self._mask_shape}"
                )
            stray = first_stray(value[None], n_classes, self.dataset.ignore_index)
            if stray is not None:
                reason = no_class(stray.value, n_classes, self.dataset.ignore_index)
                raise PoolError(f"tell: the mask of id {i} holds at row {stray.y}, column {stray.x} the value {reason}")

    def skip(self, ids: Any) -> None:
        """Give up on ids that were asked: nobody can tell. They cost nothing and are not asked again."""
        checked = self.pool.check(ids, "skip", allowed=[ASKED])
        self._ledger.note(self.pool, checked, [None] * len(checked))

    def answer(self) -> None:
        """Let the oracle answer all that is outstanding."""
        if self.oracle is None:
            raise PoolError("this session has no oracle: tell(ids, labels) the answers yourself")
        ids = self.outstanding
        self.tell(ids, self.oracle(ids) if self.task.name == "classification" else read_labels(self.oracle, ids))

    def view(self, needs: Collection[str] = (), *, name: str = "caller") -> Cycle:
        """Return what a ``select`` hook would see of the cycle that was fitted last, to choose by hand with.

        Parameters
        ----------
        needs : set of str
            What is to be read, as a strategy declares it.
        name : str
            Of the one who looks: for messages, and the key of the view's random stream.

        Raises
        ------
        PoolError
            The session has a strategy, or no cycle was fitted since it was made.
        ConfigError
            An unknown need, or one that the learner does not provide.
        """
        if self._shown is None:
            why = "its strategy chooses" if self._composition else "no cycle was fitted yet, call advance() first"
            raise PoolError(f"view: this session has no cycle to show: {why}")
        for need in needs:
            if need not in NEEDS:
                raise ConfigError(f"view: unknown need {need!r}: {close_matches(str(need), NEEDS)}")
            if need in LEARNER_NEEDS and need not in self.provides:
                raise ConfigError(f"view: nobody provides {need!r} here: name a learner that does")
        self._shown.needs = {*self._shown.needs, *(set(needs) & LEARNER_NEEDS)}
        return Cycle(self._shown, name, "select", needs)

    # -- one cycle -----------------------------------------------------------------------------------------------

    def _cycle(self) -> Tensor:
        """Fit, evaluate, reward, update, score, select; return the ids asked."""
        state = self._begin()
        if self._composition is None:  # whoever chooses by hand may look at it until the next one
            self._shown = state
            return self._run_cycle(state)
        try:
            return self._run_cycle(state)
        finally:
            state.close()

    def _begin(self) -> CycleState:
        return CycleState(
            index=self.index,
            final=self.left == 0,
            pool=self.pool,
            dataset=self.dataset,
            task=self.task,
            learner=self.training.learner,
            seed=self.seed,
            budget=self.left,
            batch_size=self._batch_size,
            device=self.device,
            memory_limit=self._memory_limit,
            validation=self.training.validation,
            history=tuple(self.history),
            metrics={},
            baseline=self._baseline,
            listener=self._listener,
            needs=self._composition.needs if self._composition else (),
            given=self._given,
            batch=self.pool.fresh,
            simulate=self._simulate if self._factory else None,
            truth=self._marked or (self._composition is not None and "truth" in self._composition.needs),
        )

    def _run_cycle(self, state: CycleState) -> Tensor:
        position, labeled, paid = self._ledger.position, len(self.pool.ids(LABELED)), self.pool.paid
        test: dict[str, float] = {}
        if self.training.learner is not None:
            test = self.training.fit_and_evaluate(state, self._phase)
        self.pool.fitted()
        selected = torch.empty(0, dtype=torch.int64)
        reward = None
        if self._composition is not None:
            self._phase("update")
            if state.index > 0 and len(state.batch):
                reward = self._composition.reward(state)
            spent = self.pool.spent
            self._composition.update(state, reward)
            if self.pool.spent < spent:  # what was refunded can be spent again, also after the last of the budget
                state.final, state.budget, state.batch_size = self.left == 0, self.left, self._batch_size
        if len(state.released) < len(state.batch) or not len(state.batch):
            self._baseline = dict(state.metrics) or None
        if self._composition is not None and not state.final:
            selected = self._choose(self._composition, state)
        self.finished = state.final or (self._composition is not None and not len(selected))
        if self.finished and not test and self.training.learner is not None:
            test = self.training.report_last(state)
        asked = self.pool.ask(selected)
        self._idle = self._idle + 1 if len(selected) and not len(asked) else 0
        self._order += asked.tolist()
        self._free = _without(selected, asked)
        record = CycleRecord(
            index=state.index,
            final=state.final,
            labeled=labeled,
            paid=paid,
            position=position,
            validation=dict(state.metrics),
            test=test,
            reward=reward,
            selected=selected.tolist(),
            released=len(state.released),
            truth=state.truth,
            seconds=state.seconds,
            logs=state.logs,
            streams=state.streams,
        )
        self.history.append(record)
        self._record_cycles()
        self._tell_cycle(record)
        if self._idle >= IDLE_LIMIT:
            raise PluginError(
                f"strategy {self._label!r} bought no label in {IDLE_LIMIT} cycles: it only picks what it released"
            )
        return asked

    def _choose(self, composition: Composition, state: CycleState) -> Tensor:
        """Draw candidates, score and select."""
        unlabeled = self.pool.ids(UNLABELED)
        if self._candidates is not None and self._candidates < len(unlabeled):
            stream = streams.generator(self.seed, "candidates", state.index)
            drawn = torch.randperm(len(unlabeled), generator=stream)[: self._candidates]
            state.candidates = unlabeled[drawn.sort().values]
        self._phase("score")
        scores = composition.score(state)
        self._phase("select")
        return composition.select(state, scores, self._batch_size)

    def _simulate(self, ids: Tensor, start: int | Tensor, budget: int, seed: int, reserve: Sequence[str]) -> Session:
        """Return a session on known labels, see :meth:`Cycle.simulate`."""
        unknown = ids[~torch.isin(ids, self.pool.known)]
        if len(unknown):
            raise PoolError(f"simulate: id {int(unknown[0])} has no known label; use labeled, released or reserved ids")
        stream = streams.generator(seed, "simulated initial pool")
        first = ids[torch.randperm(len(ids), generator=stream)[:start]] if isinstance(start, int) else as_ids(start)
        reserved = {name: self.pool.reserved(name) for name in reserve}
        inside = torch.cat([ids, *reserved.values()])
        if len(inside.unique()) < len(inside):
            raise PoolError(f"simulate: an id is named twice, in the pool of the episode and its reserves {reserve}")
        episode = Session(
            Episode(self.dataset, inside, self.pool.labels),
            learner=self._factory,
            budget=budget,
            batch=self.batch,
            initial=first.sort().values,
            reserve=reserved,
            seed=seed,
            start=self.training.start,
            refit_every=self.training.refit_every,
            report=False,
            device=self.device,
            memory_limit=self._memory_limit,
            oracle=self.pool.labels,
            members=inside,
            catalog=self._catalog,
            label="simulated",
        )
        episode.answer()
        return episode

    def _located(self, listener: Listener) -> Listener:
        """Say of a plugin's own progress which run it belongs to."""

        def hear(event: Event) -> None:
            if event.kind == "progress":
                event = replace(event, strategy=self._label, seed=self.seed, cycle=self.index)
            listener(event)

        return hear

    def _phase(self, name: str) -> None:
        self._listener(Event("phase", name, self._label, self.seed, self.index, self.pool.spent, self.budget))

    def _tell_cycle(self, record: CycleRecord) -> None:
        value = (record.test or record.validation).get(self.task.headline)
        self._listener(Event("cycle", "", self._label, self.seed, record.index, self.pool.spent, self.budget, value))

    # -- keeping -------------------------------------------------------------------------------------------------

    def _record_cycles(self) -> None:
        if self._ledger.unrecorded(self.history):
            self._save()
            self._ledger.record(self.history)

    def _save(self) -> None:
        if not self._ledger.durable:  # episodes by the thousand must not copy their weights for nothing
            return
        plugins = self._composition.state_dict() if self._composition else {}
        learners = self.training.state_dict()
        self._ledger.save(
            self.index,
            plugins | learners["states"],
            {
                "finished": self.finished,
                "order": list(self._order),
                "free": sorted(self._free),
                "baseline": self._baseline,
                "pool": self.pool.state_dict(),
                "history": [record.as_dict() for record in self.history],
                "plugins": plugins,
                "learners": learners,
            },
        )

    def _resume(self) -> None:
        """Go on from the last whole checkpoint, if there is one."""
        restored = self._ledger.restore(self.pool)
        if restored is None:
            return
        state, self.history = restored
        self.finished = state["finished"]
        self._order = state["order"]
        self._free = set(state["free"])
        self._baseline = state["baseline"]
        if self._composition is not None:
            self._composition.load_state_dict(state["plugins"])
        self.training.load_state_dict(state["learners"])


def _without(selected: Tensor, asked: Tensor) -> set[int]:
    """Return those of a batch that came free, as long as others of it are waited for."""
    return set(selected.tolist()) - set(asked.tolist()) if len(asked) else set()
