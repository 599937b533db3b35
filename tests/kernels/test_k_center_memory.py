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
