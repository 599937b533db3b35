"""k-center keeps to its memory bounds: measured, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from . import memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")


def pool_file(path, n: int, d: int, dtype: str = "float32") -> int:
    """Write an .npy file of random rows in blocks; return its bytes."""
    rng = np.random.default_rng(0)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(n, d))
    for start in range(0, n, 10_000):
        x[start : start + 10_000] = rng.standard_normal((min(10_000, n - start), d), dtype=np.float32)
    x.flush()
    return x.nbytes


K_CENTER = """
import sys
kernels.k_center(warm, 100)
x = np.load(sys.argv[1], mmap_mode="r")
with Peak() as peak:
    kernels.k_center(x, int(sys.argv[2]), memory_limit=int(sys.argv[3]) or None)
print(peak.bytes)
"""


@pytest.mark.parametrize(
    ("n", "k"),
    [(100_000, 300), pytest.param(1_000_000, 1000, marks=pytest.mark.slow)],
)
def test_k_center_adds_at_most_15_percent_of_the_pool(tmp_path, n, k):
    size = pool_file(tmp_path / "x.npy", n, 512)
    assert int(memory.run(K_CENTER, str(tmp_path / "x.npy"), str(k), "0")) <= 0.15 * size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_file_twice_as_large_as_the_limit(tmp_path, dtype):
    size = pool_file(tmp_path / "x.npy", 60_000, 256, dtype)
    limit = size // 2
    assert int(memory.run(K_CENTER, str(tmp_path / "x.npy"), "100", str(limit))) <= limit


WIDE = """
import sys
backend, n, d, k, limit = sys.argv[1], *map(int, sys.argv[2:])
kernels.k_center(warm, 100, backend=backend)
x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
with Peak() as peak:
    kernels.k_center(x, k, backend=backend, memory_limit=limit)
print(peak.bytes)
"""


@pytest.mark.parametrize(
    ("backend", "n", "d", "k", "limit"),
    [
        ("native", 40, 200_000, 2, 8_000_000),  # no room for the panels of two centers
        ("native", 1_000_000, 2, 200, 30_000_000),
        ("torch", 1_000_000, 2, 200, 57_000_000),
        ("torch", 1_000_000, 2, 200, 150_000_000),
    ],
)
def test_narrow_and_wide_pools_keep_to_the_limit(backend, n, d, k, limit):
    # 4 MB: pages that the allocator keeps, and torch's buffers of a few rows
    assert int(memory.run(WIDE, backend, str(n), str(d), str(k), str(limit))) <= limit + (4 << 20)
