"""Transport where numbers are far apart, tiny, huge or many: rounding must not show."""

import numpy as np
import pytest
import torch

from poolwright.kernels import wasserstein

from .point_sets import emd


def test_many_points_of_equal_weight_weigh_the_same(native):
    n = 99801  # 2^43 / n rounds badly: half a unit a point, all of one sign
    x = np.zeros((n, 2), np.float32)
    x[0] = 1e6
    assert wasserstein(x, np.zeros((10, 2), np.float32), method="exact") == pytest.approx(
        1e6 * np.sqrt(2 / n), rel=1e-7
    )


@pytest.mark.slow
def test_millions_of_points_keep_a_positive_weight(native):
    x = np.zeros((2097148, 2), np.float32)
    x[0] = 1e6
    got = wasserstein(x, np.zeros((2, 2), np.float32), method="exact")
    assert got == pytest.approx(1e6 * np.sqrt(2 / len(x)), rel=1e-5)


@pytest.mark.parametrize("far", [1e6, 1e11])
def test_a_far_point_on_the_line_does_not_hide_a_near_one(native, far):
    x, y = np.array([[0.0], [far]]), np.array([[1.0], [far + 1]])
    assert wasserstein(x, y, p=32, method="exact") == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-25, 1e-37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_that_are_tiny_beside_the_coordinates_count(native, scale, dtype):
    s = dtype(scale)
    x = np.array([[1, 0], [1, s], [1, 2 * s]], dtype)
    y = np.array([[1, 5 * s], [1, 7 * s], [1, 9 * s]], dtype)
    assert wasserstein(x, y, method="exact") == pytest.approx(np.sqrt((25 + 36 + 49) / 3) * scale, rel=1e-6)
    assert wasserstein(x, y[:2], method="exact", p=1) == pytest.approx(5 * scale, rel=1e-6)
    assert wasserstein(x, y[:1], method="exact") == pytest.approx(np.sqrt((25 + 16 + 9) / 3) * scale, rel=1e-6)


def test_one_huge_pair_among_small_ones_fits_a_limit_of_its_own_size(native):
    rng = np.random.default_rng(1)
    xs = [rng.standard_normal((n, 3)).astype(np.float32) for n in (20, 200, 20, 100, 30, 20)]
    ys = [rng.standard_normal((n, 3)).astype(np.float32) for n in (20, 180, 10, 100, 20, 30)]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        got = wasserstein(xs, ys, method="exact", memory_limit=native.transport_bytes(200, 180, 3))
    finally:
        torch.set_num_threads(before)
    assert got == pytest.approx([emd(x, y) for x, y in zip(xs, ys, strict=True)], rel=1e-5)


def test_results_do_not_depend_on_flush_to_zero(native):
    x = np.full((4, 2), 1e-40, np.float32)
    y = np.zeros((4, 2), np.float32)
    expected = wasserstein(x, y, method="exact")
    assert expected == pytest.approx(np.sqrt(2) * 1e-40, rel=1e-4)
    assert torch.set_flush_denormal(True)
    try:
        got = wasserstein(x, y, method="exact")
    finally:
        torch.set_flush_denormal(False)
    assert got == expected
