"""Running an experiment: strategies x seeds, each a session with a folder of its own."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog
from .composition import Composition, Roles
from .cycle import CycleRecord, CycleState
from .dataset import Dataset, Samples, validate
from .errors import ConfigError, DatasetError, PoolwrightError, StoreError
from .events import Event, Listener, ignore
from .learner import LearnerFactory
from .metrics import task_named
from .oracle import DatasetOracle, NoisyOracle, Oracle
from .pool import UNLABELED, Pool
from .resample import resample, stratified
from .results import Result, RunResult
from .rows import default_memory_limit
from .session import Session
from .spec import DatasetSpec, Experiment, LearnerSpec, PluginSpec
from .store import Store, locked, read_journal, write_atomically

__all__ = ["Experiment", "load_dataset", "load_result", "run"]

log = logging.getLogger(__name__)

DESCRIPTION = "experiment.json"


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    listener: Listener = ignore,
    catalog: Catalog | None = None,
    keep_going: bool = False,
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
    folder = None if out is None else Path(out)
    saved = _open_folder(folder, experiment, resume) if folder else None
    threads = (saved or {}).get("threads") or experiment.threads or torch.get_num_threads()
    with locked(folder) if folder else nullcontext(), _machine(threads, _device(experiment.device)) as device:
        dataset = load_dataset(experiment.dataset, catalog)
        info = _describe(experiment, dataset, threads, device)
        bench = _Bench(experiment, dataset, catalog, device, listener)
        if folder:
            _write_json(folder / DESCRIPTION, info)
        runs = [
            _run_one(bench, i, seed, folder, keep_going)
            for seed in experiment.seed_list
            for i in range(len(experiment.strategies))
        ]
    order = {spec.label: i for i, spec in enumerate(experiment.strategies)}
    return Result(sorted(runs, key=lambda r: (order[r.strategy], r.seed)), info, folder)


@dataclass
class _Bench:
    """What all runs of an experiment share; initial pools and reserves are drawn once per seed."""

    experiment: Experiment
    dataset: Dataset
    catalog: Catalog
    device: str
    listener: Listener

    def __post_init__(self) -> None:
        self._starts: dict[int, tuple[dict[str, Tensor], Tensor]] = {}

    def start(self, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return the reserved ids by name and the initial pool of ``seed``."""
        if seed not in self._starts:
            reserved = draw_reserves(self.dataset, self.experiment.reserve, seed)
            initial = self.experiment.initial
            factory = None
            if initial.learner is not None:
                factory = self.learner(initial.learner)
            ids = draw_initial(
                self.dataset,
                Roles(name=initial.part),
                initial.size,
                seed,
                reserved=reserved,
                catalog=self.catalog,
                learner=factory,
                device=self.device,
                memory_limit=self.memory_limit,
            )
            self._starts[seed] = reserved, ids
        return self._starts[seed]

    @property
    def memory_limit(self) -> int:
        """Bytes that one matrix may take."""
        return int(self.experiment.memory_limit or default_memory_limit())

    def learner(self, spec: LearnerSpec | PluginSpec) -> LearnerFactory:
        """Return a function that makes the learner."""
        return self.catalog.learner(spec.name, spec.params, device=self.device)

    def oracle(self) -> Oracle:
        """Return who answers."""
        spec = self.experiment.oracle
        if not spec.rate:
            return DatasetOracle(self.dataset.pool)
        superclass = spec.superclass
        if superclass is True:
            if self.dataset.superclasses is None:
                raise ConfigError("oracle.superclass = true, but this data set names none: give them as a list")
            superclass = list(self.dataset.superclasses)
        return NoisyOracle(
            self.dataset.pool,
            len(self.dataset.classes),
            rate=spec.rate,
            superclass=superclass or None,
            seed=spec.seed,
        )

    def session(self, number: int, seed: int, store: Store | None) -> Session:
        """Return the session of one strategy and seed."""
        e = self.experiment
        spec = e.strategies[number]
        reserved, initial = self.start(seed)
        return Session(
            self.dataset,
            learner=self.learner(e.learner),
            strategy=spec.roles(e.wrappers),
            budget=e.budget,
            batch=e.batch,
            initial=initial,
            reserve=reserved,
            candidates=spec.candidates or e.candidates,
            seed=seed,
            start=e.learner.start,
            refit_every=e.learner.refit_every,
            report_learner=self.learner(e.report_learner) if e.report_learner else None,
            device=self.device,
            memory_limit=self.memory_limit,
            allow_truth=e.allow_truth,
            store=store,
            oracle=self.oracle(),
            listener=self.listener,
            catalog=self.catalog,
            label=spec.label,
        )


def _run_one(bench: _Bench, number: int, seed: int, folder: Path | None, keep_going: bool) -> RunResult:
    label = bench.experiment.strategies[number].label
    headline = task_named(bench.dataset.task).headline
    store = Store(_run_folder(folder, label, seed)) if folder else None
    session = None
    error = ""
    try:
        if store is not None:
            store.set_meta("run", {"strategy": label, "seed": seed, "headline": headline})
            store.set_meta("error", "")
        session = bench.session(number, seed, store)
        while session.advance() is not None:
            session.answer()
        if store is not None:
            store.set_meta("complete", True)
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
    return RunResult(label, seed, headline, records, complete=not error, error=error)


# -- beginnings --------------------------------------------------------------------------------------------------


def load_dataset(
    spec: DatasetSpec | str | Callable[..., Any], catalog: Catalog | None = None, **options: Any
) -> Dataset:
    """Make, load, check and resample a data set.

    Parameters
    ----------
    spec : str, class or DatasetSpec
        An installed name, a class of your own, or a table of a configuration.
    catalog : Catalog, optional
        Where names are looked up; the environment's by default.
    options
        Parameters of the data set, and ``imbalance``, ``long_tail``, ``subset``, ``validation``, ``split_seed``.

    Raises
    ------
    DatasetError, ConfigError, UnknownNameError, PluginError
        It is missing, damaged, or its options do not fit.
    """
    if not isinstance(spec, DatasetSpec):
        spec = DatasetSpec(name=spec, **options)
    dataset, distribution = (catalog or Catalog()).build("dataset", spec.name, spec.params)
    who = f"data set {spec.name!r} of distribution {distribution!r}"
    try:
        dataset.load()
    except PoolwrightError:
        raise
    except Exception as error:
        raise DatasetError(f"{who} cannot be loaded: {type(error).__name__}: {error}") from error
    validate(dataset, str(spec.name))
    return resample(
        dataset,
        imbalance=spec.imbalance,
        long_tail=spec.long_tail,
        subset=spec.subset,
        validation=spec.validation,
        seed=spec.split_seed,
    )


def draw_reserves(dataset: Dataset, shares: dict[str, float], seed: int) -> dict[str, Tensor]:
    """Return ids to set aside by name, each a stratified share of the pool, none twice."""
    rest = torch.arange(len(dataset.pool))
    reserved = {}
    for name, share in shares.items():
        stream = streams.generator(seed, "reserve", name)
        drawn = stratified(dataset.pool, rest, round(share * len(dataset.pool)), stream)
        reserved[name] = rest[drawn]
        keep = torch.ones(len(rest), dtype=torch.bool)
        keep[drawn] = False
        rest = rest[keep]
    return reserved


def draw_initial(
    dataset: Dataset,
    roles: Roles,
    size: int,
    seed: int,
    *,
    reserved: dict[str, Tensor],
    catalog: Catalog,
    learner: LearnerFactory | None = None,
    device: str = "cpu",
    memory_limit: int | None = None,
) -> Tensor:
    """Return the ids of the initial pool: update, score and select of a strategy before anything is labeled.

    Embeddings are those of ``learner``, which brings its own pretrained weights, or the data set's features.

    Raises
    ------
    ConfigError
        The pool is too small, or the strategy needs what is not there before the first fit.
    """
    pool = Pool(len(dataset.pool))
    for name, ids in reserved.items():
        pool.reserve(name, ids, dataset.pool.labels(ids))
    if size > len(pool.ids(UNLABELED)):
        raise ConfigError(
            f"initial.size = {size}, but the pool has {len(pool.ids(UNLABELED))} samples", ("initial", "size")
        )
    model = learner() if learner else None
    if model is not None:
        load = getattr(model, "load_pretrained", None)
        if load is None:
            raise ConfigError(f"initial.learner: {type(model).__name__} has no pretrained weights to load")
        load(Samples(dataset, dataset.pool, torch.arange(len(dataset.pool))))
    features = dataset.features
    given = {"embeddings": features[:]} if model is None and features is not None else {}
    provides = set(given) if model is None else set(model.provides)
    try:
        composition = Composition(roles, catalog, task=dataset.task, provides=provides)
    except ConfigError as error:
        raise ConfigError(
            f"the initial pool: {error}. Before the first fit there are only the data set's features "
            f"(as embeddings) or those of [initial] learner = {{ name = ..., weights = ... }}"
        ) from error
    state = CycleState(
        index=-1,
        final=False,
        pool=pool,
        dataset=dataset,
        task=task_named(dataset.task),
        learner=model,
        seed=seed,
        budget=size,
        device=device,
        memory_limit=memory_limit or default_memory_limit(),
        validation=None,
        history=(),
        metrics={},
        baseline=None,
        listener=ignore,
        needs=composition.needs,
        given=given,
    )
    try:
        composition.update(state, None)
        ids = composition.select(state, composition.score(state), size)
    finally:
        state.close()
    if len(ids) < size:
        raise ConfigError(f"the initial strategy {roles.name and roles.name.name!r} chose {len(ids)} of {size} samples")
    return ids


# -- folders -----------------------------------------------------------------------------------------------------


def _run_folder(folder: Path, label: str, seed: int) -> Path:
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", label)
    if name != label or not name.strip("."):  # another label may be written alike
        name = f"{name}-{hashlib.blake2b(label.encode(), digest_size=4).hexdigest()}"
    return folder / "runs" / name / f"seed-{seed}"


def _open_folder(folder: Path, experiment: Experiment, resume: bool) -> dict[str, Any] | None:
    """Make sure that ``folder`` is new, or holds this experiment and is to be gone on with; return what it holds."""
    description = folder / DESCRIPTION
    if not description.exists():
        others = (
            [p.name for p in folder.iterdir() if p.name != ".lock" and p.suffix != ".tmp"] if folder.is_dir() else []
        )
        if others:
            raise ConfigError(
                f"{folder} is not empty and holds no Poolwright run (it has {sorted(others)[0]!r}): "
                f"choose another --out"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {folder}: {error}") from error
        return None
    saved = read_description(folder)
    if not resume:
        raise ConfigError(f"{folder} holds a run already: add --resume to go on with it, or choose another --out")
    _check_same(saved["config"], json.loads(json.dumps(experiment.as_dict(), default=str)), folder)
    _warn_versions(saved)
    return {"threads": saved["config"]["threads"]}


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the folder of an experiment says of it.

    Raises
    ------
    StoreError
        There is none, or it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text())
        description["config"]["strategy"]
    except FileNotFoundError:
        raise StoreError(f"{folder} holds no Poolwright run (there is no {DESCRIPTION} in it)") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return description


def _check_same(saved: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with another experiment; strategies and seeds may come and go."""
    labels = {spec["label"]: spec for spec in saved["strategy"]}
    for spec in now["strategy"]:
        if spec["label"] in labels and labels[spec["label"]] != spec:
            raise ConfigError(
                f"{folder} holds another strategy labeled {spec['label']!r}: give the new one a label of its own, "
                f"or choose another --out"
            )
    free = {"strategy", "seeds"} | ({"threads"} if "threads" not in now else set())
    for key in sorted((set(saved) | set(now)) - free):
        if saved.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with another {key} ({saved.get(key)!r}, now {now.get(key)!r}): "
                f"use the same, or choose another --out"
            )


def _warn_versions(saved: dict[str, Any]) -> None:
    for name, value in _versions().items():
        before = saved.get("versions", {}).get(name)
        if before != value:
            log.warning(
                "the run was begun with %s %s, now it is %s: results may differ from an uninterrupted run",
                name,
                before,
                value,
            )


def load_result(folder: str | Path) -> Result:
    """Return the result that is kept in the folder of an experiment, complete or not.

    Raises
    ------
    StoreError
        There is none, or it is damaged.
    """
    folder = Path(folder)
    info = read_description(folder)
    runs = []
    for spec in info["config"]["strategy"]:
        for path in sorted(_run_folder(folder, spec["label"], 0).parent.glob("seed-*"), key=lambda p: int(p.name[5:])):
            meta, cycles = read_journal(path)
            if "run" in meta:
                records = [CycleRecord(**record) for record in cycles]
                facts = meta["run"]
                complete, error = bool(meta.get("complete")), meta.get("error", "")
                runs.append(RunResult(facts["strategy"], facts["seed"], facts["headline"], records, complete, error))
    return Result(runs, info, folder)


def _write_json(path: Path, value: Any) -> None:
    try:
        write_atomically(path, json.dumps(value, indent=2, default=str).encode())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}. Make room, then run again with --resume") from error


# -- the machine -------------------------------------------------------------------------------------------------


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ConfigError(f"device = {name!r}: write auto, cpu, cuda or cuda:1", ("device",)) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device = {name!r}, but torch sees no CUDA device here: use device = 'auto'", ("device",))
    return name


@contextmanager
def _machine(threads: int, device: str) -> Iterator[str]:
    """Set threads (and deterministic algorithms on CUDA) for the run, and put them back."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield device
    finally:
        torch.set_num_threads(before)
        if device != "cpu":  # not called in vain: it imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(deterministic)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("poolwright", "torch", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _describe(experiment: Experiment, dataset: Dataset, threads: int, device: str) -> dict[str, Any]:
    return {
        "config": experiment.as_dict() | {"threads": threads},
        "task": dataset.task,
        "headline": task_named(dataset.task).headline,
        "classes": len(dataset.classes),
        "samples": {
            "pool": len(dataset.pool),
            "validation": len(dataset.validation) if dataset.validation else 0,
            "test": len(dataset.test),
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        },
        "versions": _versions(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
