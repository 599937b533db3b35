"""What is ready before the first cycle: the data set, reserved ids and the initial pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog
from .composition import Composition, Roles
from .dataset import Dataset, Samples, validate
from .errors import ConfigError, DatasetError, PoolwrightError
from .events import Listener, ignore
from .learner import LearnerFactory
from .metrics import task_named
from .pool import UNLABELED, Pool
from .resample import resample, stratified
from .rows import default_memory_limit
from .spec import DatasetSpec
from .state import CycleState


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
        count = round(share * len(dataset.pool))
        if not count:
            raise ConfigError(
                f"reserve.{name} = {share} of {len(dataset.pool)} samples is none: raise it", ("reserve", name)
            )
        drawn = stratified(dataset.pool, rest, count, stream)
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
    allow_truth: bool = False,
    listener: Listener = ignore,
) -> tuple[Tensor, bool]:
    """Return the ids of the initial pool, and whether hidden labels were used to choose them.

    They come from update, score and select of a strategy before anything is labeled.

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
        listener=listener,
        needs=composition.needs,
        truth="truth" in composition.needs,
        given=given,
    )
    try:
        composition.update(state, None)
        ids = composition.select(state, composition.score(state), size)
    finally:
        state.close()
    if len(ids) < size:
        raise ConfigError(f"the initial strategy {roles.name and roles.name.name!r} chose {len(ids)} of {size} samples")
    return ids, state.truth
