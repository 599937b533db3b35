"""BADGE's seeding: ours on the two factors of the gradients against those who write the n x (C d) array out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from poolwright_benchmarks.harness import Case, Contender, Problem
from poolwright_benchmarks.sizes import cpu_only, native_backend, normal_rows, product

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TITLE = "BADGE: k-means++ over gradient embeddings"


class Size(NamedTuple):
    """Shapes of one case: C classes, d dimensions, k picks, at each of these numbers of rows."""

    classes: int
    d: int
    k: int
    rows: tuple[int, ...]  # the explicit array fits on the first ones only


TARGETS = {
    "cpu": (Size(100, 128, 1000, (2500, 20_000, 1_000_000)), Size(1000, 64, 250, (500, 2000, 100_000))),
    "cuda": (Size(100, 512, 1000, (2500, 20_000, 1_000_000)), Size(1000, 512, 1000, (2500, 1_000_000))),
}


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield the rows of the table for a device; `scale` multiplies n, and k where it would exceed a fifth of n."""
    for size in TARGETS[device]:
        k = max(10, min(size.k, int(size.rows[0] * scale) // 5))
        sizes = {max(2 * k, int(n * scale)) for n in (size.rows[:2] if steps == 1 else size.rows)}
        if steps > 2:
            sizes |= {max(2 * k, int(size.rows[-1] * scale) // part) for part in (16, 4)}

        def build(n: int, size: Size = size, k: int = k) -> Problem:
            return problem(n, size.classes, size.d, k, device)

        settings = {"classes": size.classes, "d": size.d, "k": k, "dtype": "float32", "device": device}
        yield Case(TITLE, settings, "n", tuple(sorted(sizes)), build)


def problem(n: int, classes: int, d: int, k: int, device: str) -> Problem:
    """Return the contenders on n rows: probabilities of a classifier, and the features of its last layer."""
    import torch

    from poolwright import kernels

    probabilities = normal_rows(n, classes, device, seed=1)
    for block in probabilities.split(100_000):
        block.copy_(torch.softmax(3 * block, dim=1))
    features = normal_rows(n, d, device)
    factor = probabilities.clone()  # p - onehot(argmax p)
    factor[torch.arange(n, device=device), probabilities.argmax(dim=1)] -= 1
    backend, missing = native_backend(device)
    array = 4 * n * classes * d

    def ours() -> Any:
        rows = kernels.Outer(factor, features)
        return kernels.kmeans_plus_plus(rows, k, seed=0, first="largest-norm", backend=backend)  # type: ignore[arg-type]

    reason = cpu_only(device)
    contenders = [
        Contender(f"poolwright {backend}", ours, missing=missing),
        Contender(
            "explicit array, scikit-learn, one trial",
            lambda: explicit_sklearn(factor, features, k, 1),
            requires=("scikit-learn",),
            imports=("sklearn.cluster",),
            missing=reason,
            needs_bytes=2 * array,
        ),
        Contender(
            "explicit array, scikit-learn",
            lambda: explicit_sklearn(factor, features, k, None),
            requires=("scikit-learn",),
            imports=("sklearn.cluster",),
            missing=reason,
            needs_bytes=2 * array,
        ),
        Contender(
            "scikit-activeml Badge",
            lambda: skactiveml(probabilities.numpy(), features.numpy(), k),
            requires=("scikit-activeml",),
            imports=("skactiveml.pool", "skactiveml.base"),
            missing=reason,
            needs_bytes=4 * array,  # float64, and differences
        ),
    ]

    def quality(result: Any) -> dict[str, Any]:
        picks = result.indices if isinstance(result, tuple) else result
        figures: dict[str, Any] = {"potential": potential(factor, features, picks)}
        if isinstance(result, tuple):
            figures["trials_per_pick"] = result.trials / k
        evaluated = getattr(result, "distances_evaluated", None)
        if evaluated is None:
            return figures
        return figures | {"distances_evaluated": evaluated, "flops": 2.0 * (classes + d) * evaluated}

    return Problem(contenders, quality, *product(classes + d, device))


def explicit_sklearn(factor: Tensor, features: Tensor, k: int, trials: int | None) -> np.ndarray:
    """Write the gradients out, as the public implementations do, and seed with scikit-learn."""
    import numpy as np
    from sklearn.cluster import kmeans_plusplus

    left, right = factor.numpy(), features.numpy()
    gradients = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
    return np.asarray(kmeans_plusplus(gradients, k, random_state=0, n_local_trials=trials)[1])


def skactiveml(probabilities: np.ndarray, features: np.ndarray, k: int) -> Any:
    """scikit-activeml's Badge strategy with a classifier that answers with the given probabilities."""
    import numpy as np

    base = importlib.import_module("skactiveml.base").SkactivemlClassifier

    class Given(base):  # type: ignore[misc, valid-type]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Given:
            return self

        def predict_proba(self, X: Any) -> np.ndarray:
            return probabilities

    strategy = importlib.import_module("skactiveml.pool").Badge(random_state=0)
    unlabeled = np.full(len(features), np.nan)
    return strategy.query(X=features, y=unlabeled, clf=Given(), fit_clf=False, batch_size=k)


def potential(factor: Tensor, features: Tensor, picks: Any) -> float:
    """Return the sum of squared distances of the gradients to the nearest pick, in float64, over at most 20,000 rows.

    The rows are evenly spaced, and the same for every contender.
    """
    import torch

    ids = torch.as_tensor(picks).to(device=factor.device, dtype=torch.int64)
    left, right = factor[ids].double(), features[ids].double()
    norms = left.square().sum(dim=1) * right.square().sum(dim=1)
    every = -(-len(factor) // 20_000)
    total = 0.0
    for q, h in zip(factor[::every].split(4096), features[::every].split(4096), strict=True):
        q, h = q.double(), h.double()
        own = q.square().sum(dim=1) * h.square().sum(dim=1)
        distances = own[:, None] + norms - 2 * (q @ left.T) * (h @ right.T)
        total += float(distances.amin(dim=1).clamp_(min=0).sum())
    return total
