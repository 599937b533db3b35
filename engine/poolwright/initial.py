"""The initial pool: what is labeled before the first cycle, chosen by a strategy in a cycle of its own (-1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog
from .composition import Composition, Roles
from .dataset import Dataset, Samples
from .errors import ConfigError, close_matches
from .events import Event, Listener, ignore
from .learner import Learner, LearnerFactory
from .metrics import task_named
from .pool import UNLABELED, Pool, read_labels
from .rows import default_memory_limit
from .state import CycleState, InitialPool
from .training import named

LABEL = "initial pool"
"""How events call the selection."""


def draw_initial(
    dataset: Dataset,
    roles: Roles,
    size: int,
    seed: int,
    *,
    reserved: dict[str, Tensor],
    catalog: Catalog,
    learner: LearnerFactory | None = None,
    hold_out: int | Sequence[int | str] | None = None,
    device: str = "cpu",
    memory_limit: int | None = None,
    allow_truth: bool = False,
    listener: Listener = ignore,
) -> InitialPool:
    """Select the initial pool by update, score and select of a strategy before anything is labeled.

    Embeddings are those of ``learner``, which brings its own pretrained weights, or the data set's features.

    Parameters
    ----------
    hold_out : int or sequence of int or str, optional
        How many classes, drawn by ``seed``, or which (by number or name), the pool must not hold: the biased initial
        pool of VAAL (Sinha et al., ICCV 2019). The strategy selects among the samples of the others.

    Raises
    ------
    ConfigError
        The pool is too small, or the strategy needs what is not there before the first fit.
    """
    pool = Pool(len(dataset.pool))
    for name, ids in reserved.items():
        pool.reserve(name, ids, read_labels(dataset.pool.labels, ids))
    excluded = torch.empty(0, dtype=torch.int64)
    candidates = None
    free = unlabeled = pool.ids(UNLABELED)
    if hold_out is not None:
        excluded = held_out_classes(dataset, hold_out, seed)
        free = candidates = unlabeled[~torch.isin(dataset.pool.labels(unlabeled), excluded)]
    if size > len(free):
        where = "" if candidates is None else " outside of the classes that are held out"
        raise ConfigError(f"initial.size = {size}, but the pool has {len(free)} samples{where}", ("initial", "size"))
    model = learner() if learner else None
    if model is not None:
        with streams.seeded(seed, "initial", "learner"):  # what the weights leave out is drawn
            _load_pretrained(dataset, model)
    composition, given = _compose(dataset, roles, model, catalog)
    if "truth" in composition.needs and not allow_truth:
        raise ConfigError("the initial strategy reads hidden labels: set allow_truth = true if an upper bound is meant")
    state = CycleState(
        index=-1,
        final=False,
        pool=pool,
        dataset=dataset,
        task=task_named(dataset.task),
        learner=model,
        seed=seed,
        budget=size,
        batch_size=size,
        device=device,
        memory_limit=memory_limit or default_memory_limit(),
        validation=None,
        history=(),
        metrics={},
        baseline=None,
        listener=lambda event: listener(replace(event, strategy=LABEL, seed=seed, cycle=-1)),
        needs=composition.needs,
        truth="truth" in composition.needs,
        given=given,
        candidates=candidates,
    )
    try:
        for phase in ("update", "score", "select"):
            state.listener(Event("phase", phase, total=size))
            if phase == "update":
                composition.update(state, None)
            elif phase == "score":
                scores = composition.score(state)
            else:
                ids = composition.select(state, scores, size)
    finally:
        state.close()
    if len(ids) < size:
        raise ConfigError(f"the initial strategy {roles.name and roles.name.name!r} chose {len(ids)} of {size} samples")
    return InitialPool(
        seed=seed,
        selected=ids.tolist(),
        held_out=[dataset.classes[c] for c in excluded.tolist()],
        truth=state.truth,
        seconds=state.seconds,
        logs=state.logs,
    )


def _load_pretrained(dataset: Dataset, model: Learner) -> None:
    load = getattr(model, "load_pretrained", None)
    if load is None:
        raise ConfigError(f"initial.learner: {type(model).__name__} has no pretrained weights to load")
    with named(model, "load_pretrained"):
        load(Samples(dataset, dataset.pool, torch.arange(len(dataset.pool))))


def _compose(
    dataset: Dataset, roles: Roles, model: Learner | None, catalog: Catalog
) -> tuple[Composition, dict[str, Tensor]]:
    """Return the strategy, and the outputs that it finds without a learner."""
    features = dataset.features
    given = {"embeddings": features[:]} if model is None and features is not None else {}
    provides = set(given) if model is None else set(model.provides)
    try:
        return Composition(roles, catalog, task=dataset.task, provides=provides), given
    except ConfigError as error:
        raise ConfigError(
            f"the initial pool: {error}. Before the first fit there are only the data set's features "
            f"(as embeddings) or those of [initial] learner = {{ name = ..., weights = ... }}"
        ) from error


def held_out_classes(dataset: Dataset, hold_out: int | Sequence[int | str], seed: int) -> Tensor:
    """Return the classes that the initial pool must not hold, int64 ascending.

    Raises
    ------
    ConfigError
        The task has no classes of samples, a class is unknown, or none would be left.
    """
    key = ("initial", "hold_out")
    names = [str(name) for name in dataset.classes]
    if dataset.task != "classification":
        raise ConfigError(f"initial.hold_out needs one class a sample; {dataset.task} has none: leave it out", key)
    if isinstance(hold_out, int):
        order = torch.randperm(len(names), generator=streams.generator(seed, "initial", "hold_out"))
        chosen = set(order[:hold_out].tolist())
    else:
        chosen = set()
        for wanted in hold_out:
            known = 0 <= wanted < len(names) if isinstance(wanted, int) else wanted in names
            if not known:
                raise ConfigError(
                    f"initial.hold_out names {wanted!r}, which is no class: "
                    + (f"they are 0..{len(names) - 1}" if isinstance(wanted, int) else close_matches(wanted, names)),
                    key,
                )
            chosen.add(wanted if isinstance(wanted, int) else names.index(wanted))
    if len(chosen) >= len(names) or (isinstance(hold_out, int) and hold_out >= len(names)):
        raise ConfigError(f"initial.hold_out leaves none of the {len(names)} classes: hold out fewer", key)
    return torch.tensor(sorted(chosen), dtype=torch.int64)
