"""Lloyd's k-means: ours against faiss.Kmeans, scikit-learn and torch, all from the same initial centers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from poolwright_benchmarks.harness import Case, Contender, Problem
from poolwright_benchmarks.kmeans_plus_plus import clusters
from poolwright_benchmarks.machine import installed
from poolwright_benchmarks.sizes import cpu_only, ladder, product

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "k-means, Lloyd's iterations"
ITERATIONS = 10
TARGETS = {"cpu": ((200_000, 512, 100),), "cuda": ((1_000_000, 512, 1000), (10_000_000, 512, 1000))}


def cases(device: str, scale: float, steps: int) -> Iterator[Case]:
    """Yield the rows of the table for a device; `scale` multiplies n."""
    for n, d, k in TARGETS[device]:
        sizes = ladder(n, scale, steps=steps, least=50 * k, row_bytes=4 * d, device=device)

        def build(size: int, d: int = d, k: int = k) -> Problem:
            return problem(size, d, k, device)

        settings = {"d": d, "k": k, "iterations": ITERATIONS, "dtype": "float32", "device": device}
        yield Case(TITLE, settings, "n", sizes, build)


def problem(n: int, d: int, k: int, device: str) -> Problem:
    """Return the contenders on n rows; the first k rows are the initial centers of all."""
    import torch

    from poolwright import kernels

    x = clusters(n, d, device)
    start = x[:k].clone()
    array, initial = (x.numpy(), start.numpy()) if device == "cpu" else (None, None)

    def ours(backend: str) -> Any:
        result = kernels.kmeans(
            x,
            k,
            init=start,
            iterations=ITERATIONS,
            tolerance=0.0,
            backend=backend,  # type: ignore[arg-type]
        )
        return result.centroids

    def sklearn() -> Any:
        from sklearn.cluster import KMeans

        model = KMeans(k, init=initial, n_init=1, max_iter=ITERATIONS, tol=0.0, algorithm="lloyd")
        return model.fit(array).cluster_centers_

    has_faiss = installed("faiss-gpu") or installed("faiss-cpu")
    no_faiss = "" if has_faiss else "not installed (pip install faiss-cpu or faiss-gpu)"
    contenders = [
        Contender("poolwright auto", lambda: ours("auto")),
        *_native(ours, device),
        Contender("poolwright faiss", lambda: ours("faiss"), missing=no_faiss or _faiss_lacks(device)),
        Contender("poolwright torch", lambda: ours("torch")),
        Contender(
            "faiss.Kmeans", lambda: faiss_kmeans(x, start), missing=no_faiss or _faiss_lacks(device), imports=("faiss",)
        ),
        Contender("torch eager", lambda: torch_lloyd(x, start)),
        Contender(
            "scikit-learn", sklearn, requires=("scikit-learn",), missing=cpu_only(device), imports=("sklearn.cluster",)
        ),
    ]

    def quality(centroids: Any) -> dict[str, Any]:
        centers = torch.as_tensor(centroids).to(device=x.device, dtype=torch.float32)
        return {"inertia": inertia(x, centers), "flops": 2.0 * n * d * k * ITERATIONS}

    return Problem(contenders, quality, *product(d, device))


def _native(ours: Callable[[str], Any], device: str) -> list[Contender]:
    """Return our own search on the CPU, where this version of the kernels has it."""
    from poolwright import kernels

    module = importlib.import_module("poolwright.kernels.kmeans")
    if "native" not in get_args(module.KMeansBackend):
        return []
    missing = cpu_only(device) or kernels.build_info()["reason"]
    return [Contender("poolwright native", lambda: ours("native"), missing=missing)]


def _faiss_lacks(device: str) -> str:
    if device == "cpu":
        return ""
    faiss = importlib.import_module("faiss")
    return "" if getattr(faiss, "get_num_gpus", int)() > 0 else "this FAISS sees no GPU"


def faiss_kmeans(x: Tensor, start: Tensor) -> Any:
    """faiss.Kmeans on all points (by default it draws 256 per centroid)."""
    import torch

    faiss = importlib.import_module("faiss")
    if not x.is_cuda:
        faiss.omp_set_num_threads(torch.get_num_threads())
    k, d = start.shape
    model = faiss.Kmeans(
        d,
        k,
        niter=ITERATIONS,
        gpu=x.is_cuda,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    model.train(x.cpu().numpy(), init_centroids=start.cpu().numpy())
    return model.centroids


def torch_lloyd(x: Tensor, start: Tensor) -> Tensor:
    """Lloyd as it is usually written in torch: a product in blocks, argmin, index_add."""
    import torch

    centers = start
    for _ in range(ITERATIONS):
        norms = (centers * centers).sum(dim=1)
        sums, counts = torch.zeros_like(centers), torch.zeros(len(centers), device=x.device)
        for block in x.split(65536):
            labels = torch.addmm(norms, block, centers.T, alpha=-2).argmin(dim=1)
            sums.index_add_(0, labels, block)
            counts += torch.bincount(labels, minlength=len(centers))
        centers = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centers)
    return centers


def inertia(x: Tensor, centers: Tensor) -> float:
    """Return the sum of squared distances to the nearest centroid; which is nearest is found in float32."""
    import torch

    norms = (centers * centers).sum(dim=1)
    total = 0.0
    for block in x.split(65536):
        nearest = torch.addmm(norms, block, centers.T, alpha=-2).argmin(dim=1)
        total += float((block - centers[nearest]).square().sum(dim=1, dtype=torch.float64).sum())
    return total
