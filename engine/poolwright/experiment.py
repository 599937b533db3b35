"""Running an experiment: strategies x seeds, each a session with a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .catalog import Catalog
from .composition import Roles
from .dataset import Dataset
from .errors import ConfigError, DatasetError, PoolwrightError, StoreError
from .events import Event, Listener, ignore
from .folder import (
    DESCRIPTION,
    make_folder,
    open_folder,
    read_initial,
    refuse_other,
    run_folder,
    with_saved_strategies,
    write_initial,
    write_json,
)
from .gallery import keep_pictures
from .initial import draw_initial
from .learner import LearnerFactory
from .machine import choose_device, configured, describe
from .metrics import task_named
from .oracle import DatasetOracle, NoisyOracle, Oracle
from .policies import check_policies
from .preparation import draw_reserves, load_dataset
from .results import Result, RunResult
from .rows import default_memory_limit
from .session import Session
from .spec import Experiment, LearnerSpec, PluginSpec
from .state import CycleRecord, InitialPool
from .store import Store, locked

log = logging.getLogger(__name__)


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    listener: Listener = ignore,
    catalog: Catalog | None = None,
    keep_going: bool = False,
    jobs: int = 1,
) -> Result:
    """Run every strategy with every seed.

    Parameters
    ----------
    experiment : Experiment
    out : path, optional
        Folder for journals and checkpoints; nothing is kept without it.
    resume : bool
        Go on with the runs in ``out``; strategies and seeds may have been added.
    listener : callable
        Hears what happens, see :mod:`poolwright.events`.
    catalog : Catalog, optional
        Where names of plugins are looked up; the environment's by default.
    keep_going : bool
        When a run fails, note it in the result and go on with the next one (a full disk still ends all).
    jobs : int
        How many runs are done side by side, each in a process of its own that reads the data set for itself. The
        picks are those of one job with as many threads. Unless the experiment says otherwise, the processes share
        torch's threads. On CUDA they share the device. A script that asks for several must call this function under
        ``if __name__ == "__main__":``, since the processes import it.

    Returns
    -------
    Result
        A run for each strategy and seed.

    Raises
    ------
    PoolwrightError
        Something the user can mend; what was done before is kept.
    """
    catalog = catalog or Catalog()
    experiment.check_plugins(catalog)
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs}: give at least 1")
    jobs = min(jobs, len(experiment.strategies) * len(experiment.seed_list))
    folder = None if out is None else Path(out)
    saved = open_folder(folder, experiment, resume) if folder else {}
    if not saved:  # a run that goes on has read its policy
        check_policies(experiment, catalog)
    threads = saved.get("threads") or experiment.threads or max(1, torch.get_num_threads() // jobs)
    with configured(threads, choose_device(experiment.device)) as device:
        dataset = load_dataset(experiment.dataset, catalog)
        info = describe(experiment, dataset, threads, device, jobs)
        bench = Bench(experiment, dataset, catalog, device, listener)
        if folder and saved:
            bench.recall(folder)
        for number in range(len(experiment.strategies)):  # what cannot begin is refused before anything runs
            bench.session(number, experiment.seed_list[0], None)
        if folder:
            make_folder(folder)
        with locked(folder) if folder else nullcontext() as lock:
            if folder:
                saved = open_folder(folder, experiment, resume)  # as it is now that nobody else can change it
                write_json(folder / DESCRIPTION, with_saved_strategies(info, saved))
            if jobs > 1:
                from .workers import run_side_by_side

                runs = run_side_by_side(bench, jobs, threads, folder, keep_going, lock)
            else:
                runs = [
                    run_one(bench, i, seed, folder, keep_going)
                    for seed in experiment.seed_list
                    for i in range(len(experiment.strategies))
                ]
    order = {spec.label: i for i, spec in enumerate(experiment.strategies)}
    info["initial_pools"] = [start.initial.as_dict() for _, start in sorted(bench.starts.items())]
    return Result(sorted(runs, key=lambda r: (order[r.strategy], r.seed)), info, folder)


class Start(NamedTuple):
    """What all strategies of a seed begin with."""

    reserved: dict[str, Tensor]
    initial: InitialPool


@dataclass
class Bench:
    """What all runs of an experiment share; initial pools and reserves are drawn once per seed."""

    experiment: Experiment
    dataset: Dataset
    catalog: Catalog
    device: str
    listener: Listener

    def __post_init__(self) -> None:
        self.starts: dict[int, Start] = {}
        self.kept: set[int] = set()

    def recall(self, folder: Path) -> None:
        """Take over the initial pools that ``folder`` holds, as far as they fit."""
        for seed in self.experiment.seed_list:
            initial = read_initial(folder, seed)
            if initial is not None and len(initial.selected) == self.experiment.initial.size:
                self.starts[seed] = Start(self._reserves(seed), initial)

    def start(self, seed: int) -> Start:
        """Return what all strategies of ``seed`` begin with; drawn once."""
        if seed not in self.starts:
            reserved = self._reserves(seed)
            initial = self.experiment.initial
            factory = None
            if initial.learner is not None:
                factory = self.learner(initial.learner)
            pool = draw_initial(
                self.dataset,
                Roles(name=initial.part),
                initial.size,
                seed,
                reserved=reserved,
                catalog=self.catalog,
                learner=factory,
                hold_out=initial.hold_out,
                device=self.device,
                memory_limit=self.memory_limit,
                allow_truth=self.experiment.allow_truth,
                listener=self.listener,
            )
            self.starts[seed] = Start(reserved, pool)
        return self.starts[seed]

    def _reserves(self, seed: int) -> dict[str, Tensor]:
        fixed = self.experiment.reserve_seed
        return draw_reserves(self.dataset, self.experiment.reserve, seed if fixed is None else fixed)

    def keep(self, folder: Path, seed: int) -> None:
        """Write down how the initial pool of ``seed`` was selected, unless it has been done."""
        initial = self.start(seed).initial
        if seed not in self.kept:
            write_initial(folder, initial)
            self.kept.add(seed)

    @property
    def memory_limit(self) -> int:
        """Bytes that one matrix may take."""
        return int(self.experiment.memory_limit or default_memory_limit())

    def learner(self, spec: LearnerSpec | PluginSpec) -> LearnerFactory:
        """Return a function that makes the learner."""
        return self.catalog.learner(spec.name, spec.params, device=self.device)

    def oracle(self, seed: int) -> Oracle:
        """Return who answers in the runs of ``seed``."""
        spec = self.experiment.oracle
        if not spec.rate:
            return DatasetOracle(self.dataset.pool)
        if self.dataset.task != "classification":
            raise ConfigError(
                f"oracle.rate = {spec.rate}: a wrong label is another class of a sample, and {self.dataset.task} has "
                f"masks: leave it out",
                ("oracle", "rate"),
            )
        superclass = spec.superclass
        if superclass is True:
            if self.dataset.superclasses is None:
                raise ConfigError(
                    "oracle.superclass = true, but this data set names none: give them as a list",
                    ("oracle", "superclass"),
                )
            superclass = list(self.dataset.superclasses)
        return NoisyOracle(
            self.dataset.pool,
            len(self.dataset.classes),
            rate=spec.rate,
            superclass=superclass or None,
            seed=seed if spec.seed is None else spec.seed,
        )

    def session(self, number: int, seed: int, store: Store | None) -> Session:
        """Return the session of one strategy and seed."""
        e = self.experiment
        spec = e.strategies[number]
        oracle = self.oracle(seed)  # what cannot answer is refused before an initial pool is selected, which takes long
        reserved, initial = self.start(seed)
        return Session(
            self.dataset,
            learner=self.learner(e.learner),
            strategy=spec.roles(e.wrappers),
            budget=e.budget,
            batch=spec.batch or e.batch,
            initial=initial.ids,
            reserve=reserved,
            candidates=spec.candidates or e.candidates,
            seed=seed,
            start=e.learner.start,
            refit_every=e.learner.refit_every,
            report_learner=self.learner(e.report_learner) if e.report_learner else None,
            report_every=e.report_every,
            device=self.device,
            memory_limit=self.memory_limit,
            allow_truth=e.allow_truth,
            marked=initial.truth,
            store=store,
            oracle=oracle,
            listener=self.listener,
            catalog=self.catalog,
            label=spec.label,
        )


def _keep_pictures(dataset: Dataset, records: Sequence[CycleRecord], folder: Path) -> None:
    """Keep pictures of what was selected; a run is no worse for a picture that cannot be read any more."""
    try:
        keep_pictures(dataset, records, folder)
    except DatasetError as error:
        log.warning("the report will show no pictures of %s: %s", folder, error)


def run_one(bench: Bench, number: int, seed: int, folder: Path | None, keep_going: bool) -> RunResult:
    """Do, or go on with, the run of strategy ``number`` with ``seed``; see :func:`run` for the others."""
    label = bench.experiment.strategies[number].label
    headline = task_named(bench.dataset.task).headline
    store = Store(run_folder(folder, label, seed)) if folder else None
    session = None
    error = ""
    try:
        if store is not None:
            refuse_other(store, bench.experiment.strategies[number].as_dict())
            store.set_meta("run", {"strategy": label, "seed": seed, "headline": headline})
            store.set_meta("error", "")
        if folder is not None:
            bench.keep(folder, seed)
        session = bench.session(number, seed, store)
        while session.advance() is not None:
            session.answer()
        if store is not None:
            store.set_meta("complete", True)
            if seed == bench.experiment.seed_list[0]:
                _keep_pictures(bench.dataset, session.history, store.folder)
    except StoreError:
        raise
    except PoolwrightError as failure:
        if store is not None:
            store.set_meta("error", str(failure))
        if not keep_going:
            raise
        error = str(failure)
        bench.listener(Event("failed", error, label, seed))
    finally:
        if store is not None:
            store.close()
    records = session.history if session else []
    bench.listener(Event("run", "", label, seed, len(records), bench.experiment.budget, bench.experiment.budget))
    return RunResult(label, seed, headline, records, not error, error, store.folder if store is not None else None)
