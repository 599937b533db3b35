"""k-means++ seeding: ours (exact draws by rejection) against scikit-learn, potential beside time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from poolwright_benchmarks.harness import Case, Contender, Problem
from poolwright_benchmarks.sizes import arithmetic, cpu_only, ladder, native_backend, normal_rows, product

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "k-means++ seeding"
TARGETS = {"cpu": (1_000_000, 64, 1000), "cuda": (1_000_000, 512, 1000)}


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield the row of the table for a device; `scale` multiplies n, and k where it would exceed a tenth of n."""
    n, d, k = TARGETS[device]
    k = max(10, min(k, int(n * scale) // 80))
    sizes = ladder(n, scale, steps=steps, least=2 * k, row_bytes=4 * d, device=device)
    settings = {"d": d, "k": k, "dtype": "float32", "device": device, "data": "100 Gaussian clusters"}
    yield Case(TITLE, settings, "n", sizes, lambda size: problem(size, d, k, device))


def problem(n: int, d: int, k: int, device: str) -> Problem:
    """Return the contenders on n rows."""
    from poolwright import kernels

    x = clusters(n, d, device)
    backend, missing = native_backend(device)
    array = x.numpy() if device == "cpu" else None

    def ours() -> Any:
        return kernels.kmeans_plus_plus(x, k, seed=0, backend=backend)  # type: ignore[arg-type]

    def sklearn(trials: int | None) -> Any:
        from sklearn.cluster import kmeans_plusplus

        return kmeans_plusplus(array, k, random_state=0, n_local_trials=trials)[1]

    reason = cpu_only(device)
    needs = ("scikit-learn",)
    contenders = [
        Contender(f"poolwright {backend}", ours, missing=missing),
        Contender("torch eager", lambda: torch_eager(x, k)),
        Contender(
            "scikit-learn, one trial", lambda: sklearn(1), requires=needs, missing=reason, imports=("sklearn.cluster",)
        ),
        Contender(
            "scikit-learn, default trials",
            lambda: sklearn(None),
            requires=needs,
            missing=reason,
            imports=("sklearn.cluster",),
        ),
    ]

    def quality(result: Any) -> dict[str, Any]:
        picks = result.indices if isinstance(result, tuple) else result
        figures: dict[str, Any] = {"potential": potential(x, picks), "full_flops": 2.0 * d * n * k}
        if isinstance(result, tuple):
            figures["trials_per_pick"] = result.trials / k
        evaluated = getattr(result, "distances_evaluated", None)
        return (
            figures if evaluated is None else figures | {"distances_evaluated": evaluated, "flops": 2.0 * d * evaluated}
        )

    return Problem(contenders, quality, *product(d, device), arithmetic(device))


def clusters(n: int, d: int, device: str) -> Tensor:
    """Return n rows around 100 centers, whose distance is about three times the spread of a cluster."""
    import torch

    x = normal_rows(n, d, device)
    centers = 2 * normal_rows(100, d, device, seed=1)
    generator = torch.Generator(device).manual_seed(2)
    for block in x.split(100_000):
        block += centers[torch.randint(100, (len(block),), generator=generator, device=device)]
    return x


def torch_eager(x: Tensor, k: int) -> Tensor:
    """Exact draws as they are usually written in torch: one pass over x per pick."""
    import torch

    generator = torch.Generator(x.device).manual_seed(0)
    norms = (x * x).sum(dim=1)
    picks = torch.empty(k, dtype=torch.int64, device=x.device)
    picks[0] = torch.randint(len(x), (1,), generator=generator, device=x.device)[0]
    nearest = torch.full_like(norms, torch.inf)
    for i in range(1, k):
        row = x[picks[i - 1]]
        distances = torch.addmv(norms, x, row, alpha=-2).add_(norms[picks[i - 1]]).clamp_(min=0)
        torch.minimum(nearest, distances, out=nearest)
        total = nearest.cumsum(0, dtype=torch.float64)
        draw = torch.rand(1, generator=generator, device=x.device, dtype=torch.float64) * total[-1]
        picks[i] = torch.searchsorted(total, draw)[0].clamp(max=len(x) - 1)
    return picks


def potential(x: Tensor, picks: Any) -> float:
    """Return the sum of squared distances to the nearest pick, in float64."""
    import torch

    centers = x[torch.as_tensor(picks).to(device=x.device, dtype=torch.int64)].to(torch.float64)
    norms = (centers * centers).sum(dim=1)
    total = 0.0
    for block in x.split(max(1, (256 << 20) // (8 * len(centers)))):
        wide = block.to(torch.float64)
        nearest = torch.addmm(norms, wide, centers.T, alpha=-2).amin(dim=1) + (wide * wide).sum(dim=1)
        total += float(nearest.clamp_(min=0).sum())
    return total
