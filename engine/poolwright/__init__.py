"""Poolwright: from a pool too large to label, pick the samples worth labelling.

The names below are the public interface; each is imported when it is first used, so that ``import poolwright`` and
``poolwright --help`` need neither torch nor any plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import kernels, metrics, streams, testing
    from .composition import Part, Roles
    from .cycle import Cycle, PoolView
    from .dataset import Dataset, Samples, Split, SubsetSplit, TensorSplit
    from .episodes import Episodes
    from .errors import (
        ConfigError,
        DatasetError,
        LabelLeakError,
        LearnerError,
        PluginError,
        PoolError,
        PoolwrightError,
        StoreError,
        UnknownNameError,
        WorkerError,
    )
    from .experiment import run
    from .folder import load_result
    from .hookspecs import hookimpl, hookspec
    from .learner import Learner, LearnerView
    from .oracle import DatasetOracle, NoisyOracle, Oracle
    from .policies import read_policy
    from .policy_training import train_policy
    from .preparation import load_dataset
    from .results import Result, RunResult
    from .rows import Rows
    from .selection import select
    from .session import Session
    from .spec import Experiment
    from .state import CycleRecord, InitialPool
    from .store import Store

_HOME = {
    "kernels": ("kernels", None),
    "metrics": ("metrics", None),
    "streams": ("streams", None),
    "testing": ("testing", None),
    **{name: ("composition", name) for name in ("Part", "Roles")},
    **{name: ("cycle", name) for name in ("Cycle", "PoolView")},
    **{name: ("dataset", name) for name in ("Dataset", "Samples", "Split", "SubsetSplit", "TensorSplit")},
    **{
        name: ("errors", name)
        for name in (
            "ConfigError",
            "DatasetError",
            "LabelLeakError",
            "LearnerError",
            "PluginError",
            "PoolError",
            "PoolwrightError",
            "StoreError",
            "UnknownNameError",
            "WorkerError",
        )
    },
    "Episodes": ("episodes", "Episodes"),
    "run": ("experiment", "run"),
    **{name: ("hookspecs", name) for name in ("hookimpl", "hookspec")},
    **{name: ("learner", name) for name in ("Learner", "LearnerView")},
    **{name: ("oracle", name) for name in ("DatasetOracle", "NoisyOracle", "Oracle")},
    **{name: ("results", name) for name in ("Result", "RunResult")},
    **{name: ("state", name) for name in ("CycleRecord", "InitialPool")},
    "Experiment": ("spec", "Experiment"),
    "Rows": ("rows", "Rows"),
    "load_dataset": ("preparation", "load_dataset"),
    "load_result": ("folder", "load_result"),
    "read_policy": ("policies", "read_policy"),
    "select": ("selection", "select"),
    "Session": ("session", "Session"),
    "Store": ("store", "Store"),
    "train_policy": ("policy_training", "train_policy"),
}

__all__ = [
    "ConfigError",
    "Cycle",
    "CycleRecord",
    "Dataset",
    "DatasetError",
    "DatasetOracle",
    "Episodes",
    "Experiment",
    "InitialPool",
    "LabelLeakError",
    "Learner",
    "LearnerError",
    "LearnerView",
    "NoisyOracle",
    "Oracle",
    "Part",
    "PluginError",
    "PoolError",
    "PoolView",
    "PoolwrightError",
    "Result",
    "Roles",
    "Rows",
    "RunResult",
    "Samples",
    "Session",
    "Split",
    "Store",
    "StoreError",
    "SubsetSplit",
    "TensorSplit",
    "UnknownNameError",
    "WorkerError",
    "__version__",
    "hookimpl",
    "hookspec",
    "kernels",
    "load_dataset",
    "load_result",
    "metrics",
    "read_policy",
    "run",
    "select",
    "streams",
    "testing",
    "train_policy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'poolwright' has no attribute {name!r}")
    module_name, attribute = _HOME[name]
    module = importlib.import_module(f"poolwright.{module_name}")
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
