"""The machine that a run uses: device, threads, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import threadpoolctl
import torch

from .dataset import Dataset
from .errors import ConfigError
from .metrics import task_named
from .spec import Experiment


def choose_device(name: str) -> str:
    """Return the device that a name stands for, or raise ConfigError where there is none."""
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
def configured(threads: int, device: str) -> Iterator[str]:
    """Set threads of torch, BLAS and scikit-learn (and deterministic algorithms on CUDA); put them back after."""
    import sklearn.cluster  # noqa: F401 - so that its thread pools and BLAS' are there to be limited

    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with threadpoolctl.threadpool_limits(threads):
            yield device
    finally:
        torch.set_num_threads(before)
        if device != "cpu":  # not called in vain: it imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(deterministic)


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("poolwright", "torch", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe(experiment: Experiment, dataset: Dataset, threads: int, device: str, jobs: int = 1) -> dict[str, Any]:
    """Return what an experiment ran with: configuration, data, machine and versions."""
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
            "jobs": jobs,
        },
        "versions": versions(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
