"""Random ragged pairs of point sets for the Wasserstein tests, and POT as the oracle."""

from __future__ import annotations

import numpy as np
import pytest

DIMENSIONS = [1, 2, 3, 16, 17, 100, 512, 2048]


def emd(x, y, p=2.0, a=None, b=None):
    """W_p by POT's network simplex on float64 differences."""
    ot = pytest.importorskip("ot")
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    costs = np.stack([((row - y) ** 2).sum(axis=1) for row in x]) ** (p / 2)
    a, b = (np.ones(len(s)) if w is None else np.asarray(w, np.float64) for s, w in ((x, a), (y, b)))
    return max(ot.emd2(a / a.sum(), b / b.sum(), costs, numItermax=10**7), 0.0) ** (1 / p)


def ragged(rng, pairs, d, *, largest=40, equal=False, kind="gaussian", dtype=np.float32):
    """Lists of sets of 1 to `largest` points."""
    xs, ys = [], []
    for _ in range(pairs):
        n, m = rng.integers(1, largest + 1, size=2)
        m = n if equal else m
        x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.3
        if kind == "grid":  # many equal costs
            x, y = np.round(x), np.round(y)
        elif kind == "duplicates":
            x, y = x[rng.integers(0, n, n) // 2], y[rng.integers(0, m, m) // 2]
        elif kind == "far":  # differences small beside the coordinates
            x, y = x + 1000, y + 1000
        elif kind == "near":  # matched points far closer than the sets are wide
            y = x[rng.integers(0, n, m)] + 1e-3 * y
        xs.append(x.astype(dtype))
        ys.append(y.astype(dtype))
    return xs, ys


def random_weights(rng, sets):
    """Weights with some zeros, never all."""
    weights = []
    for points in sets:
        w = rng.random(len(points)) * (rng.random(len(points)) < 0.7)
        w[rng.integers(len(w))] += 0.1
        weights.append(w)
    return weights
