"""The native search for the nearest center, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

RNG = np.random.default_rng(23)


def search(native, x, centers, level="", threads=1):
    nearest, squared = np.full(len(x), -1, np.int32), np.full(len(x), -1, np.float32)
    native.nearest_center(x, centers, nearest, squared, level=level, threads=threads)
    return nearest, squared


def brute_force(x, centers):
    """float64 differences, ties to the lowest; (n, m) squared distances."""
    wide = torch.as_tensor(np.array(x) if isinstance(x, np.ndarray) else x).double().numpy()
    squared = ((wide[:, None] - centers[None].astype(np.float64)) ** 2).sum(2)
    return squared.argmin(1), squared


@pytest.mark.parametrize("d", [1, 7, 16, 33, 130])
@pytest.mark.parametrize("m", [1, 5, 64, 200])
def test_integers_tie_to_the_lowest_center(native, level, d, m):
    x = RNG.integers(-3, 4, (700, d)).astype(np.float32)
    centers = RNG.integers(-3, 4, (m, d)).astype(np.float32)
    centers[m // 2 :] = centers[: m - m // 2]  # duplicates
    expected, squared = brute_force(x, centers)
    for threads in (1, 3):
        nearest, found = search(native, x, centers, level, threads)
        np.testing.assert_array_equal(nearest, expected)
        np.testing.assert_array_equal(found, squared.min(1))


@pytest.mark.parametrize("offset", [0, 1e4, 1e7])
@pytest.mark.parametrize("outlier", [0, 1e11])
def test_offsets_and_outliers_take_no_digits(native, level, offset, outlier):
    x = (RNG.standard_normal((500, 40)) * max(1, offset / 1e4) + offset).astype(np.float32)
    centers = x[:90].copy()
    centers[-1] += np.float32(outlier)
    x[-1] += np.float32(outlier)
    nearest, found = search(native, x, centers, level)
    _, squared = brute_force(x, centers)
    chosen = squared[np.arange(500), nearest]
    assert (chosen <= squared.min(1) * (1 + 1e-5)).all()
    np.testing.assert_allclose(found, chosen, rtol=1e-5)
    assert nearest[:89].tolist() == list(range(89))


FORMS = ["contiguous", "fortran", "steps", "reversed", "float16", "bfloat16"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(native, level, form):
    x = RNG.integers(-8, 9, (300, 21)).astype(np.float32) / 4
    centers = RNG.integers(-8, 9, (70, 21)).astype(np.float32) / 4
    given = {
        "contiguous": x,
        "fortran": np.asfortranarray(x),
        "steps": np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
        "reversed": np.ascontiguousarray(x[::-1])[::-1],
        "float16": x.astype(np.float16),
        "bfloat16": torch.from_numpy(x).bfloat16(),
    }[form]
    nearest, found = search(native, given, centers, level)
    expected, squared = brute_force(x, centers)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(found, squared.min(1))


def test_no_centers_are_refused(native):
    with pytest.raises(ValueError, match="centers must have 1 to"):
        search(native, np.ones((4, 2), np.float32), np.ones((0, 2), np.float32))
    with pytest.raises(ValueError, match="centers must have size 2"):
        search(native, np.ones((4, 2), np.float32), np.ones((3, 5), np.float32))
