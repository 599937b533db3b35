"""Training a policy ahead of the runs that use it; see :mod:`poolwright.policies` for what a strategy must have."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from . import streams
from .catalog import Catalog
from .composition import named
from .contract import Member
from .cycle import Cycle
from .errors import ConfigError, PluginError, StoreError
from .events import Event, Listener, ignore
from .experiment import Bench
from .folder import make_folder, plain, warn_versions
from .machine import choose_device, configured, versions
from .policies import FORMAT, METHODS, check_same, choose, part_of, read_part, write_part
from .preparation import load_dataset
from .session import Session
from .spec import Experiment, StrategySpec
from .store import unreadable


def train_policy(
    experiment: Experiment,
    label: str | None,
    out: str | Path,
    *,
    seed: int | None = None,
    listener: Listener = ignore,
    catalog: Catalog | None = None,
) -> Path:
    """Train the policy of a strategy ahead, or go on with a training that was stopped.

    After each piece the state is kept in ``out`` with ``.part`` behind its name, written atomically. Called again
    after a stop, however it came, it goes on from there to the policy of a training that was never stopped.

    Parameters
    ----------
    experiment : Experiment
        Gives data set, learner, reserves, initial pool, oracle, and the strategy with its parameters.
    label : str or None
        Of the strategy; not needed where only one can be trained ahead.
    out : path
        The file to write.
    seed : int, optional
        Of the initial pool, of the reserves without ``reserve_seed``, and of the training; the experiment's first one
        by default.
    listener : callable
        Hears what happens, see :mod:`poolwright.events`.
    catalog : Catalog, optional
        Where names of plugins are looked up; the environment's by default.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        The strategy cannot be trained ahead; ``out`` is there; the part is of another training, or damaged.
    PluginError
        The strategy failed, or yielded what is no share.
    StoreError
        The file cannot be written, or another process trains it; the last piece is kept.
    """
    catalog = catalog or Catalog()
    experiment.check_plugins(catalog)
    spec, part = choose(experiment, label, catalog)
    seed = experiment.seed_list[0] if seed is None else seed
    if experiment.reserve and experiment.reserve_seed is None and experiment.seed_list != [seed]:
        raise ConfigError(
            "without reserve_seed each seed has reserves of its own, and runs would choose among samples whose labels "
            "the policy was trained on: set reserve_seed = 0",
            ("reserve_seed",),
        )
    out = Path(out)
    make_folder(out.parent)
    with _alone(out):
        if out.exists():
            raise ConfigError(f"{out} is there already: choose another --out, or remove it to train it again")
        saved = read_part(part_of(out))
        threads = experiment.threads or saved.get("config", {}).get("threads") or torch.get_num_threads()
        with configured(threads, choose_device(experiment.device)) as device:
            config = experiment.as_dict() | {"strategy": [spec.as_dict()], "threads": threads, "device": device}
            facts = {
                "format": FORMAT,
                "strategy": part.name,
                "parameters": plain(part.params),
                "config": plain(config),
                "seed": seed,
                "versions": versions(),
            }
            if saved:
                check_same(saved, facts, part_of(out), spec.label)
                warn_versions(saved, "training")
            if saved.get("complete"):  # stopped before the part got its last name
                listener(Event("policy", part.name, spec.label, seed, value=1.0))
            else:
                bench = Bench(experiment, load_dataset(experiment.dataset, catalog), catalog, device, listener)
                _train(bench, spec, saved, facts, part_of(out))
        with _guarded(out):
            part_of(out).replace(out)  # the part holds all that the policy does: at no moment are there both
    return out


def _train(bench: Bench, spec: StrategySpec, saved: dict[str, Any], facts: dict[str, Any], path: Path) -> None:
    """Train, from the state in ``saved`` where there is one, and keep every piece in ``path``."""
    seed = facts["seed"]
    member, cycle = _prepared(bench, spec, seed)
    strategy = member.instance

    def tell(share: float) -> None:
        bench.listener(Event("policy", member.name, spec.label, seed, value=share))

    def keep(share: float, complete: bool) -> None:
        with named(member, "state_dict"):
            state = strategy.state_dict()
        if wrong := unreadable(state):
            raise PluginError(
                f"{member.who}: a policy holds tensors, numbers, strings, lists and dicts, but {wrong} in its "
                f"state_dict()"
            )
        with _guarded(path):
            write_part(path, {**facts, "done": share, "complete": complete, "state": state})

    share = saved.get("done", 0.0)
    tell(share)
    with streams.seeded(seed, "policy", member.name):
        if saved:
            with named(member, "load_state_dict"):
                strategy.load_state_dict(saved["state"])
        for share in shares(member, cycle):
            keep(share, False)
            tell(share)
        keep(1.0, True)


def shares(member: Member, cycle: Cycle) -> Iterator[float]:
    """Train a strategy piece by piece, and yield after each the share that is done.

    Raises
    ------
    PluginError
        The strategy failed, or its ``train_policy`` gives what is no share.
    """
    with named(member, "train_policy"):
        pieces = member.instance.train_policy(cycle)
    if not isinstance(pieces, Iterator):
        raise PluginError(
            f"{member.who} returned {type(pieces).__name__} from train_policy: make it a generator that yields the "
            f"share which is done, in (0, 1]"
        )
    while True:
        with named(member, "train_policy"):
            try:
                share = next(pieces)
            except StopIteration:
                return
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not math.isfinite(share) or not 0 < share <= 1:
            raise PluginError(
                f"{member.who} yielded {share!r} from train_policy: yield the share that is done, a number in (0, 1]"
            )
        yield float(share)


def _prepared(bench: Bench, spec: StrategySpec, seed: int) -> tuple[Member, Cycle]:
    """Return the strategy's plugin, checked, and the cycle that it is trained with."""
    experiment = bench.experiment
    oracle = bench.oracle(seed)
    reserved, initial = bench.start(seed)
    free = len(bench.dataset.pool) - len(initial.ids) - sum(map(len, reserved.values()))
    session = Session(
        bench.dataset,
        learner=bench.learner(experiment.learner),
        budget=free,  # not that of the runs, which may be another than that of the next runs
        initial=initial.ids,
        reserve=reserved,
        seed=seed,
        start=experiment.learner.start,
        refit_every=experiment.learner.refit_every,
        report=False,
        device=bench.device,
        memory_limit=bench.memory_limit,
        allow_truth=experiment.allow_truth,
        marked=initial.truth or experiment.allow_truth,
        oracle=oracle,
        listener=bench.listener,
        catalog=bench.catalog,
        label=spec.label,
    )
    composition = session._compose(spec.roles([]), experiment.allow_truth)
    member = next(m for m in composition.members if m.kind == "strategy" and hasattr(m.instance, METHODS[0]))
    session.answer()
    session.advance()
    return member, session.view(member.needs, name=member.name)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error}. Make room (or mend the folder) and run the same command again: it goes on "
            f"from the last piece that was kept"
        ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a policy alone while it is trained; a lock that a kill leaves behind holds nobody up."""
    path = out.with_name(out.name + ".lock")
    try:
        file = path.open("w")
    except OSError as error:
        raise StoreError(f"cannot write in {out.parent}: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{out} is trained by another process: wait for it, or choose another --out") from None
        try:
            yield
        finally:
            with suppress(OSError):  # an empty file is left where the folder cannot be written any more
                path.unlink()
