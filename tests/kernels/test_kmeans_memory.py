"""k-means keeps to its memory limit: measured, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolwright import kernels

from . import memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")

KMEANS = """
import sys
backend, form, (n, d, k, limit) = sys.argv[1], sys.argv[2], map(int, sys.argv[3:7])
kernels.kmeans(warm, 20, backend=backend, iterations=2)
kernels.kmeans(warm, 20, backend=backend, init=np.full((20, 8), 1e3), iterations=2)
x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
init = "k-means++"
if form == "lost centroids":
    init = x[:k].copy()
    init[: k // 10] = 1e6
elif form == "float64":
    x = x.astype(np.float64)
with Peak() as peak:
    kernels.kmeans(
        x, k, backend=backend, init=init, iterations=3, tolerance=0, memory_limit=limit,
        subsample=20 if form == "subsample" else None,
    )
print(peak.bytes)
"""


@pytest.mark.parametrize("backend", ["native", "faiss"])
@pytest.mark.parametrize(
    ("form", "n", "d", "k", "blocks"),
    [
        ("lost centroids", 6_000, 512, 2_000, 30_000_000),
        ("rows", 1_000_000, 4, 8, 10_000_000),
        ("float64", 60_000, 256, 50, 15_000_000),
        ("subsample", 60_000, 256, 500, 25_000_000),
    ],
)
def test_no_more_than_the_limit_is_allocated(backend, form, n, d, k, blocks):
    if backend == "faiss":
        pytest.importorskip("faiss")
    elif not kernels.build_info()["native"]:
        pytest.skip("not built")
    limit = 46 * n + 64 * k * d + blocks
    assert int(memory.run(KMEANS, backend, form, *map(str, (n, d, k, limit)))) <= limit
