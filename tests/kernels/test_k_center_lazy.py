"""Lazy greedy: the picks and the bits of the eager loop, with fewer distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poolwright import kernels

from .pools import adversarial_pools, integer_pool
from .test_native import fixed_order

POOLS = {
    **adversarial_pools(),
    "integers": integer_pool(),
    "clusters": np.repeat(np.random.default_rng(1).standard_normal((40, 70)) * 5, 12, axis=0).astype(np.float32)
    + np.random.default_rng(2).standard_normal((480, 70)).astype(np.float32) * np.float32(0.01),
    "one-far-outlier": np.concatenate(
        [np.random.default_rng(3).standard_normal((300, 40)), np.full((1, 40), 3e7)]
    ).astype(np.float32),
    "tiny": np.random.default_rng(4).standard_normal((200, 24)).astype(np.float32) * np.float32(1e-18),
    "subnormal": np.random.default_rng(4).standard_normal((200, 24)).astype(np.float32) * np.float32(1e-40),
    "huge": np.random.default_rng(5).standard_normal((200, 24)).astype(np.float32) * np.float32(2e17),
    "far-and-tight": np.random.default_rng(6).standard_normal((300, 50)).astype(np.float32) * np.float32(1e-3) + 4096,
}


def eager(native: Any, x: Any, k: int, labeled: Any = ()) -> tuple[list[int], list[float]]:
    """One pass over the pool per pick, each distance in the fixed order."""
    n = len(x)
    mind, eligible = np.full(n, np.inf, np.float32), np.ones(n, np.uint8)
    eligible[list(labeled)] = 0
    rows = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(x))
    picks: list[int] = []
    values: list[float] = []
    for center in [*labeled, *([None] * k)]:
        if center is None:
            center, value = native.k_center_fold(torch.empty((n, 0)), torch.empty((0, 0)), mind, eligible)
            picks.append(center)
            values.append(value)
            eligible[center] = 0
        native.k_center_fold(x, rows[center : center + 1].float().contiguous(), mind, eligible)
    return picks, values


def squared(result: kernels.KCenterResult) -> list[float]:
    """The squared radii, as float32 again: the root in float64 keeps enough digits."""
    return [float(v) for v in np.float32(np.asarray(result.radii) ** 2)]


@pytest.mark.parametrize("name", POOLS)
def test_picks_and_bits_are_those_of_the_eager_loop(native, level, name):
    x = POOLS[name]
    for labeled in ([], [0], list(range(0, len(x), 3))):
        k = min(len(x) - len(labeled), 150)
        picks, values = eager(native, x, k, labeled)
        result = kernels.k_center(x, k, labeled=labeled, backend="native")
        assert result.indices.tolist() == picks
        # Values of which float64 roots keep all bits.
        normal = [v > 1e-37 for v in values]
        assert [v for v, ok in zip(squared(result), normal, strict=True) if ok] == [
            v for v, ok in zip(values, normal, strict=True) if ok
        ]


@pytest.mark.parametrize("name", ["gaussian", "clusters", "far-from-origin", "duplicates"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_too(native, level, name, dtype):
    x = torch.from_numpy(POOLS[name]).to(dtype)
    assert kernels.k_center(x, 100, backend="native").indices.tolist() == eager(native, x, 100)[0]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_larger_pool_on_several_threads(native, level, threads, monkeypatch):
    x = np.random.default_rng(0).standard_normal((6000, 37)).astype(np.float32)
    labeled = list(range(100))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = kernels.k_center(x, 400, labeled=labeled, backend="native")
    finally:
        torch.set_num_threads(before)
    assert result.indices.tolist() == eager(native, x, 400, labeled)[0]
    assert len(x) < result.distances_evaluated < 0.6 * len(x) * 500


def test_few_distances_are_computed_where_most_points_stay_near(k_center):
    x = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    assert k_center(x, 300).distances_evaluated < 0.3 * 20_000 * 300


def test_every_point_may_be_picked(native, level):
    for x in (POOLS["duplicates"], POOLS["all-equal"], integer_pool(90, 3)):
        result = kernels.k_center(x, len(x), backend="native")
        assert result.indices.tolist() == eager(native, x, len(x))[0]


def test_without_room_for_copies_of_the_picks_the_picks_are_the_same(native):
    x = np.random.default_rng(0).standard_normal((3000, 256)).astype(np.float32)
    expected = kernels.k_center(x, 300, labeled=range(200))
    # Room for a block of rows alone; then for the picks too, but not for the labeled rows.
    short = kernels.k_center(x, 300, labeled=range(200), memory_limit=3000 * 17 + 100_000)
    middle = kernels.k_center(x, 300, labeled=range(200), memory_limit=3000 * 17 + 2 * 8 * 320 * (256 + 64))
    for other in (short, middle):
        assert other.indices.tolist() == expected.indices.tolist()
        assert other.radii.tolist() == expected.radii.tolist()
    assert short.distances_evaluated > middle.distances_evaluated > expected.distances_evaluated


def test_rows_read_in_blocks_give_the_same_bits(native, level, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 30)) * rng.uniform(0.1, 3, (5000, 1))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")  # float64: rounded block by block
    expected = kernels.k_center(x.astype(np.float32), 200, labeled=[7, 3])
    got = kernels.k_center(mapped, 200, labeled=[7, 3], memory_limit=5000 * 17 + 300_000)
    assert got.indices.tolist() == expected.indices.tolist()
    assert got.radii.tolist() == expected.radii.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("d", [1, 3, 16, 17, 31, 32, 33, 48, 100])
@pytest.mark.parametrize("m", [12, 64, 130])
def test_folds_of_many_centers_have_the_bits_of_single_ones(native, level, m, d, dtype):
    rng = np.random.default_rng(d)
    x = (rng.standard_normal((150, d)) + 3).astype(dtype)
    centers = np.concatenate([rng.standard_normal((m - 2, d)) + 3, x[:2]]).astype(np.float32)
    expected = np.minimum.reduce([fixed_order(x, center) for center in centers])
    eligible = (np.arange(150) % 7 != 0).astype(np.uint8)
    for rows in (x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], torch.from_numpy(x)):
        mind = np.full(150, np.inf, np.float32)
        index, value = native.k_center_fold(rows, centers, mind, eligible)
        assert np.array_equal(mind[eligible == 1], expected[eligible == 1])
        assert np.isinf(mind[eligible == 0]).all()
        assert (index, value) == (
            int(np.where(eligible == 1, expected, -1).argmax()),
            float(expected[eligible == 1].max()),
        )


@pytest.mark.parametrize("name", POOLS)
def test_folds_of_many_centers_on_adversarial_pools(native, level, name):
    x = POOLS[name]
    centers = np.ascontiguousarray(x[np.random.default_rng(0).permutation(len(x))[: max(12, len(x) // 2)]])
    if len(centers) < 12:
        centers = np.repeat(centers, 12, axis=0)
    expected = np.minimum.reduce([fixed_order(x, center) for center in centers])
    mind = np.full(len(x), np.inf, np.float32)
    native.k_center_fold(x, centers, mind)
    assert np.array_equal(mind, expected)


def test_the_greedy_loop_refuses_more_picks_than_points(native):
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="fewer than k"):
        native.k_center_lazy(
            x,
            None,
            np.full(3, np.inf, np.float32),
            np.zeros(3, np.int32),
            np.array([1, 0, 1], np.uint8),
            np.empty((3, 2), np.float32),
            np.empty(3, np.int64),
            np.empty(3, np.float32),
        )


def test_an_error_while_rows_are_read_comes_back(native):
    def read(ids: Any) -> Any:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        native.k_center_lazy(
            None,
            read,
            np.full(30, np.inf, np.float32),
            np.zeros(30, np.int32),
            np.ones(30, np.uint8),
            np.empty((3, 2), np.float32),
            np.empty(3, np.int64),
            np.empty(3, np.float32),
            read_rows=8,
        )
