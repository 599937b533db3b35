"""k_center picks what the float64 reference picks, on every backend and CPU level."""

import numpy as np
import pytest
import torch

from poolwright import kernels

from .pools import adversarial_pools, assert_greedy, integer_pool

POOLS = adversarial_pools()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_integer_valued_data_give_the_reference_indices_and_radii(k_center, dtype, seed):
    x = torch.from_numpy(integer_pool(seed=seed)).to(getattr(torch, dtype))
    options = {"labeled": [5, 17, 250], "candidates": list(range(10, 290))}
    expected = kernels.k_center(x, 120, backend="reference", **options)
    result = k_center(x, 120, **options)
    assert result.indices.tolist() == expected.indices.tolist()
    assert torch.equal(result.radii, expected.radii)


def test_integer_valued_data_give_the_reference_indices_when_every_point_is_picked(k_center):
    x = integer_pool(n=90, d=3, largest=1)  # 27 distinct points: most of the picks are ties
    expected = kernels.k_center(x, 90, backend="reference")
    result = k_center(x, 90)
    assert result.indices.tolist() == expected.indices.tolist()
    assert sorted(result.indices) == list(range(90))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_adversarial_pools_are_picked_greedily(k_center, name, metric):
    x = POOLS[name]
    k = min(len(x), 100)
    if metric == "cosine" and name == "far-from-origin":
        # The directions almost coincide, and rounding them to float32 costs more than 1e-6 of their differences.
        radii = k_center(x, k, metric=metric).radii
        expected = kernels.k_center(x, k, metric=metric, backend="reference").radii
        np.testing.assert_allclose(radii, expected, rtol=1e-3, atol=1e-6)
        return
    assert_greedy(x, k_center(x, k, metric=metric), k, metric=metric)


@pytest.mark.parametrize("name", ["gaussian", "heavy-tailed-norms", "scale-1e4", "duplicates"])
def test_labeled_points_and_candidates_are_respected_on_floats(k_center, name):
    x = POOLS[name]
    options = {"labeled": [3, 4, 399], "candidates": list(range(0, 400, 2))}
    assert_greedy(x, k_center(x, 80, **options), 80, **options)


def test_picking_every_point_of_a_float_pool_is_a_permutation(k_center):
    x = POOLS["gaussian"][:150]
    result = k_center(x, 150)
    assert sorted(result.indices) == list(range(150))
    assert_greedy(x, result, 150)


def test_equal_points_are_picked_in_order(k_center):
    assert k_center(POOLS["all-equal"], 60).indices.tolist() == list(range(60))


def test_first_is_the_first_pick_and_its_radius_is_infinite(k_center):
    x = POOLS["gaussian"]
    result = k_center(x, 20, first=123)
    assert result.indices[0] == 123
    assert result.radii[0] == np.inf
    assert_greedy(x, result, 20, first=123)


def test_without_labels_the_first_pick_is_the_lowest_candidate(k_center):
    assert k_center(POOLS["gaussian"], 1, candidates=[40, 12, 70]).indices.tolist() == [12]


def test_labeled_points_make_the_first_radius_finite(k_center):
    x = np.float32([[0, 0], [3, 4], [6, 8]])
    result = k_center(x, 2, labeled=[0])
    assert result.indices.tolist() == [2, 1]
    assert result.radii.tolist() == [10.0, 5.0]


def test_points_neither_labeled_nor_candidates_are_not_covered(k_center):
    x = np.float32([[0], [1], [100]])
    result = k_center(x, 1, labeled=[0], candidates=[1])
    assert result.indices.tolist() == [1]
    assert result.radii.tolist() == [1.0]


def test_labels_named_twice_or_among_the_candidates_count_once(k_center):
    x = POOLS["gaussian"]
    expected = k_center(x, 10, labeled=[1, 2], candidates=[5, 6, 7, *range(20, 60)])
    result = k_center(x, 10, labeled=[2, 1, 1], candidates=[1, 5, 5, 6, 7, *range(20, 60)])
    assert result.indices.tolist() == expected.indices.tolist()


def test_cosine_ignores_the_length_of_rows(k_center):
    x = POOLS["gaussian"]
    powers = np.float32(2.0) ** np.random.default_rng(0).integers(-8, 9, (len(x), 1)).astype(np.float32)
    assert (
        k_center(x, 50, metric="cosine").indices.tolist() == k_center(x * powers, 50, metric="cosine").indices.tolist()
    )


def test_cosine_radii_are_one_minus_cosine(k_center):
    x = np.float32([[1, 0], [0, 5], [-2, 0]])
    result = k_center(x, 2, labeled=[0], metric="cosine")
    assert result.indices.tolist() == [2, 1]
    np.testing.assert_allclose(result.radii, [2.0, 1.0], rtol=1e-6)
