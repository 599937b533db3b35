"""The picks of independent implementations, on the same pool from the same first point."""

from __future__ import annotations

import numpy as np
import pytest

from poolwright import kernels

N, D, K = 2000, 24, 60


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(11).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(x: np.ndarray) -> list[int]:
    return list(kernels.k_center(x, K, labeled=[0]).indices)


def test_fpsample(x, ours):
    fpsample = pytest.importorskip("fpsample", reason="fpsample is not installed (it has no wheel for this platform)")
    assert fpsample.fps_sampling(x, K + 1, start_idx=0)[1:].tolist() == ours


def test_scikit_activeml(x, ours):
    pool = pytest.importorskip("skactiveml.pool", reason="scikit-activeml is not installed")
    labels = np.full(N, np.nan)
    labels[0] = 0
    assert pool.CoreSet(random_state=0).query(X=x, y=labels, batch_size=K).tolist() == ours


def test_alipy(x, ours):
    strategies = pytest.importorskip("alipy.query_strategy", reason="alipy is not installed")
    strategy = strategies.QueryInstanceCoresetGreedy(x, np.zeros(N), np.arange(N))
    assert list(strategy.select([0], list(range(1, N)), batch_size=K)) == ours
