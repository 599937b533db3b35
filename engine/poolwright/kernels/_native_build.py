"""The compiled extension: whether it is there, why not, and what it was built with."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

# Variables of the build (setup.py) and of the run that change what the kernels do.
VARIABLES = ("POOLWRIGHT_CPU_LEVEL", "POOLWRIGHT_CUDA", "POOLWRIGHT_CUDA_ARCHS", "POOLWRIGHT_NO_EXT")

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


# GNU OpenMP's threads do not survive a fork, and the next parallel region of the child waits for them
# forever.
os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def serial_after_fork() -> Iterator[None]:
    """Run torch, and with it the kernels, on one thread inside a forked child; change nothing elsewhere."""
    if not _forked:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def load() -> tuple[ModuleType | None, str]:
    """Return the extension module, or None and the reason why it is not there."""
    try:
        return importlib.import_module("poolwright.kernels._native"), ""
    except ModuleNotFoundError:
        return None, (
            "this installation has no native kernels (built with POOLWRIGHT_NO_EXT=1, or run from sources "
            "that were not built: pip install -e . builds them)"
        )
    except ImportError as error:
        return None, f"the native kernels do not load: {error}"


def native() -> ModuleType:
    """Return the extension module.

    Raises
    ------
    RuntimeError
        It is not there; the message says why.
    """
    module, reason = load()
    if module is None:
        raise RuntimeError(reason)
    return module


def cuda_missing() -> str:
    """Return why the CUDA kernels are not there, or an empty string where they are."""
    module, reason = load()
    if module is None:
        return reason
    info = module.build_info()
    return "" if info["cuda"] else f"the native kernels were built without CUDA ({info['cuda_compiler']})"


def build_info() -> dict[str, Any]:
    """Return what the native kernels are and were built with, for ``poolwright doctor`` and benchmark
    results.

    Returns
    -------
    dict
        ``native`` (bool: the extension loads), ``reason`` (why not, else empty), ``level`` (CPU instruction
        set in force, None without one) and ``level_error`` (the variable names a level that is not there),
        ``levels`` (those that run on this machine), ``levels_built``, ``openmp`` (bool), ``compiler``,
        ``cuda`` (bool), ``cuda_compiler`` (with its version, or why there is none), ``cuda_archs`` (``sm_*``
        machine code, ``compute_*`` PTX) and ``environment`` (the variables of `VARIABLES` that are set). Says
        nothing of GPUs: it asks no driver.
    """
    module, reason = load()
    facts: dict[str, Any] = module.build_info() if module is not None else {}
    level, level_error = None, ""
    if module is not None:
        try:
            level = module.cpu_level()
        except ValueError as error:
            level_error = str(error)
    return {
        "native": module is not None,
        "reason": reason,
        "level": level,
        "level_error": level_error,
        "levels": facts.get("cpu_levels", []),
        "levels_built": facts.get("cpu_levels_built", []),
        "openmp": facts.get("openmp", False),
        "compiler": facts.get("compiler", ""),
        "cuda": facts.get("cuda", False),
        "cuda_compiler": facts.get("cuda_compiler", ""),
        "cuda_archs": facts.get("cuda_archs", []),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
