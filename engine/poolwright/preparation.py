"""What is ready before the first cycle: the data set and reserved ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import streams
from .catalog import Catalog
from .checks import validate
from .dataset import Dataset
from .errors import ConfigError, DatasetError, PoolwrightError
from .resample import resample, stratified
from .spec import DatasetSpec


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
        drawn = stratified(dataset, rest, count, stream)
        reserved[name] = rest[drawn]
        keep = torch.ones(len(rest), dtype=torch.bool)
        keep[drawn] = False
        rest = rest[keep]
    return reserved
