"""Pools, and the check that a sequence of picks is greedy, shared by the tests of every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poolwright import kernels
from poolwright.kernels import reference


def integer_pool(n: int = 300, d: int = 19, seed: int = 0, largest: int = 7) -> np.ndarray:
    """Small integers: every distance is exact in float32, and many of them tie."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, (n, d)).astype(np.float32)


def adversarial_pools() -> dict[str, np.ndarray]:
    """Pools that have broken published kernels."""
    rng = np.random.default_rng(7)
    gaussian = rng.standard_normal((400, 33)).astype(np.float32)
    zeros = gaussian.copy()
    zeros[::3] = 0
    return {
        "gaussian": gaussian,
        "duplicates": np.repeat(gaussian[:50], 8, axis=0),
        "zero-vectors": zeros,
        "heavy-tailed-norms": (gaussian * rng.standard_cauchy((400, 1)) ** 2).astype(np.float32),
        "all-equal": np.full((60, 5), 3.25, dtype=np.float32),
        "scale-1e4": (gaussian * 1e4).astype(np.float32),
        "far-from-origin": (gaussian + 1000).astype(np.float32),
        "one-dimension": rng.standard_normal((200, 1)).astype(np.float32),
        "wide": rng.standard_normal((30, 1031)).astype(np.float32),
        "one-row": gaussian[:1],
    }


def points(x: Any, metric: str) -> torch.Tensor:
    """The rows in float64, at length 1 for cosine."""
    rows = torch.as_tensor(np.array(x) if isinstance(x, np.ndarray) else x).detach().cpu().double()
    if metric == "cosine":
        norms = rows.norm(dim=1, keepdim=True)
        rows = torch.where(norms > 0, rows / norms, rows)
    return rows


def assert_greedy(x: Any, result: kernels.KCenterResult, k: int, *, tolerance: float = 1e-6, **options: Any) -> None:
    """Hold `result` to the float64 reference: the same picks, or at each other pick a tie within `tolerance`."""
    metric = options.get("metric", "euclidean")
    rows = points(x, metric)
    indices, radii, _ = reference.k_center(rows, k, **{**options, "metric": metric})
    got = torch.as_tensor(result.indices).cpu()
    got_radii = torch.as_tensor(result.radii).cpu()
    assert got.dtype == torch.int64
    assert got.shape == got_radii.shape == (k,)
    assert len(set(got.tolist())) == k
    assert not set(got.tolist()) & set(options.get("labeled", ()))
    assert (got_radii[1:] <= got_radii[:-1]).all(), "radii grow"

    # Replay: is every pick as far as the farthest eligible point of its moment?
    eligible = torch.zeros(len(rows), dtype=torch.bool)
    candidates = options.get("candidates")
    eligible[torch.arange(len(rows)) if candidates is None else torch.as_tensor(candidates)] = True
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for center in options.get("labeled", ()):
        eligible[center] = False
        nearest = torch.minimum(nearest, (rows - rows[center]).norm(dim=1))
    for pick, index in enumerate(got.tolist()):
        assert eligible[index]
        largest = nearest[eligible].max()
        forced = pick == 0 and options.get("first") is not None
        assert forced or nearest[index] >= (1 - tolerance) * largest, f"pick {pick} is not the farthest point"
        radius = largest**2 / 2 if metric == "cosine" else largest
        assert got_radii[pick] == pytest.approx(float(radius), rel=4 * tolerance, abs=1e-7)
        eligible[index] = False
        nearest = torch.minimum(nearest, (rows - rows[index]).norm(dim=1))
    if k:
        assert float(got_radii[-1]) == pytest.approx(float(radii[-1]), rel=4 * tolerance, abs=1e-7)
    if torch.equal(got, indices):
        return
    first = int((got != indices).nonzero()[0])
    assert first > 0 or options.get("labeled"), "the first pick is fixed"
