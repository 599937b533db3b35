"""Fixtures that run a test on each backend and CPU level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from poolwright import kernels

from ..cuda_emulation.build import build, compiler

INFO = kernels.build_info()
LEVELS = ["base", "avx2", "avx512", "amx"]
COMPUTES = [*(f"native-{level}" for level in LEVELS), "torch"]


def select_level(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `level` the CPU level in force, or skip the test where it is not to be had."""
    if not INFO["native"]:
        pytest.skip(INFO["reason"])
    if level not in INFO["levels"]:
        pytest.skip(f"level {level} is not in this build or not on this processor")
    monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", level)


@pytest.fixture(params=COMPUTES)
def k_center(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`kernels.k_center` on each CPU backend and level in turn."""
    backend, _, level = request.param.partition("-")
    if level:
        select_level(level, monkeypatch)
    return lambda *args, **options: kernels.k_center(*args, backend=backend, **options)


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each CPU level of the native kernels in turn."""
    select_level(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def native() -> Any:
    """The extension module itself."""
    if not INFO["native"]:
        pytest.skip(INFO["reason"])
    from poolwright.kernels import _native

    return _native


@pytest.fixture(scope="session")
def _emulated_cuda(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The CUDA kernels compiled for the CPU: made once, and kept by pytest's cache while the sources stay the same."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler to build the emulation of CUDA with")
    cache = getattr(pytestconfig, "cache", None)
    return build(Path(cache.mkdir("cuda_emulation")) if cache is not None else tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def emulated_cuda(_emulated_cuda: ModuleType) -> Iterator[ModuleType]:
    """The emulated device as it is by default; a test may `configure` it."""
    _emulated_cuda.configure()
    yield _emulated_cuda
    _emulated_cuda.configure()
