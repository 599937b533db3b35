"""Wasserstein-2 of fitted Gaussians (Bures): ours against POT, with fewer and with more points than dimensions."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from poolwright_benchmarks.harness import Case, Contender, Problem

if TYPE_CHECKING:
    import numpy as np

TITLE = "Bures: Wasserstein-2 of Gaussians fitted to point sets"
PAIRS = 10
CHECKED = 2
"""Pairs whose distance is held against the textbook formula: its matrix roots take longer than all else here."""
RIDGE = 1e-13
"""Of the mean variance, added where a covariance is singular: its root does not converge otherwise."""


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield n < d, then n > d; `scale` multiplies the number of dimensions and of points."""
    for d, sizes in ((512, (64, 256)), (256, (512, 2048))):
        width = max(8, int(d * scale))
        some = tuple(
            sorted({s for size in sizes[-min(2, steps) :] for s in ((size // 2, size) if steps > 2 else (size,))})
        )
        points = tuple(max(4, int(size * scale)) for size in some)
        less = "n < d" if points[-1] < width else "n > d"
        settings = {"relation": less, "d": width, "pairs": PAIRS, "dtype": "float64", "device": device}

        def build(n: int, width: int = width) -> Problem:
            return problem(n, width, device)

        yield Case(TITLE, settings, "points", points, build)


def problem(n: int, d: int, device: str) -> Problem:
    """Return the contenders on ten pairs of n points in d dimensions, correlated and with unequal means."""
    import numpy as np
    import torch

    from poolwright import kernels

    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(0.1, 2.0, d, dtype=torch.float64)
    xs, ys = (
        [
            (torch.randn(n, d, generator=generator, dtype=torch.float64) * scales + shift).to(device)
            for _ in range(PAIRS)
        ]
        for shift in (0.0, 0.2)
    )

    def pot(reg: float) -> Any:
        distance = importlib.import_module("ot").gaussian.empirical_bures_wasserstein_distance
        return [float(distance(x, y, reg=reg)) for x, y in zip(xs, ys, strict=True)]

    contenders = [
        Contender("poolwright", lambda: kernels.wasserstein(xs, ys, method="gaussian")),
        Contender("POT, its default reg 1e-6", lambda: pot(1e-6), requires=("POT",), imports=("ot",)),
        Contender("POT, reg 0", lambda: pot(0.0), requires=("POT",), imports=("ot",)),
    ]
    some = list(zip(xs, ys, strict=True))[:CHECKED]
    truth = np.array([by_matrix_roots(x.cpu().numpy(), y.cpu().numpy()) for x, y in some])

    def quality(result: Any) -> dict[str, Any]:
        values = result.cpu().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
        checked = values[:CHECKED]
        right = np.isfinite(checked)
        errors = np.abs(checked[right] / truth[right] - 1)
        return {
            "largest_relative_error": float(errors.max()) if right.any() else None,
            "not_a_number": int((~np.isfinite(values)).sum()),
        }

    return Problem(contenders, quality)


def by_matrix_roots(x: np.ndarray, y: np.ndarray) -> float:
    """Return the distance by its definition, tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2, with scipy's roots in float64."""
    import numpy as np
    from scipy.linalg import sqrtm

    covariances = []
    for points in (x, y):
        covariance = np.cov(points, rowvar=False, bias=True)
        singular = len(points) <= covariance.shape[0]
        ridge = RIDGE * np.trace(covariance) / len(covariance) if singular else 0.0
        covariances.append(covariance + ridge * np.eye(len(covariance)))
    root = sqrtm(covariances[0]).real
    cross = np.trace(sqrtm(root @ covariances[1] @ root).real)
    means = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    squared = means + sum(np.trace(covariance) for covariance in covariances) - 2 * cross
    return float(max(0.0, squared) ** 0.5)
