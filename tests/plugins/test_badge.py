"""BADGE against the explicit gradient embeddings that it never makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poolwright import Rows, kernels
from poolwright_plugins.strategies.badge import Badge, OutputGradients, output_gradients

from .conftest import LargestTensor, cycle_of, distributions, points


def explicit(p: Tensor, h: Tensor) -> Tensor:
    """The (n, classes * d) array of the paper, float64."""
    q = p.double() - torch.nn.functional.one_hot(p.argmax(1), p.shape[1])
    return torch.einsum("nc,nd->ncd", q, h.double()).flatten(1)


def test_output_gradients_subtract_the_one_hot_prediction() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    expected = torch.tensor([[-0.3, 0.2, 0.1], [0.25, 0.25, -0.5]])
    torch.testing.assert_close(output_gradients(p), expected, atol=1e-7, rtol=0)


def test_output_gradients_leave_the_probabilities_alone() -> None:
    p = distributions(5, 3).double()
    before = p.clone()
    output_gradients(p)
    assert torch.equal(p, before)


def test_the_potential_is_that_of_the_explicit_array() -> None:
    p, h = distributions(40, 6), points(40, 9)
    g = explicit(p, h)
    result = kernels.kmeans_plus_plus(kernels.Outer(output_gradients(p), h), 5, first="largest-norm")
    nearest = (g[:, None] - g[result.indices][None]).square().sum(2).min(1).values
    assert result.potential == pytest.approx(float(nearest.sum()), rel=1e-6)


def test_gradients_are_computed_for_the_rows_that_are_read() -> None:
    p = distributions(30, 4)
    lazy = OutputGradients(Rows(p, memory_limit=7 * 16))
    ids = torch.tensor([9, 2, 9])
    assert torch.equal(lazy[ids], output_gradients(p)[ids])
    blocks = list(lazy.blocks())
    assert len(blocks) == 5
    assert torch.equal(torch.cat([block for _, block in blocks]), output_gradients(p))


def test_the_first_pick_has_the_largest_gradient_not_the_largest_embedding() -> None:
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])
    h = torch.tensor([[100.0, 0.0], [2.0, 0.0], [3.0, 0.0], [1.0, 0.0]])
    picks = {int(Badge().select(cycle_of(seed=s, probabilities=p, embeddings=h), 1)) for s in range(5)}
    assert picks == {1}


def test_further_picks_follow_the_squared_distance_to_the_nearest_pick() -> None:
    p, h = distributions(6, 3, seed=4), points(6, 2, seed=5)
    g = explicit(p, h)
    first = int(g.square().sum(1).argmax())
    expected = (g - g[first]).square().sum(1)
    expected /= expected.sum()
    cycles = (cycle_of(seed=seed, probabilities=p, embeddings=h) for seed in range(600))
    draws = torch.stack([Badge().select(cycle, 2) for cycle in cycles])
    assert (draws[:, 0] == first).all()
    share = torch.bincount(draws[:, 1], minlength=6) / 600
    # Four standard deviations of a share of 600 draws are at most 0.082.
    assert (share - expected).abs().max() < 0.082


def test_distances_are_to_the_nearest_of_all_picks() -> None:
    # Two far groups and the origin: once both groups have a pick, a third one can only come from the origin.
    p = torch.tensor([[0.5, 0.5]] * 7)
    h = torch.tensor([[9.0, 0], [9.0, 0], [9.0, 0], [0, 8.0], [0, 8.0], [0, 8.0], [0, 0]])
    for seed in range(20):
        picks = Badge().select(cycle_of(seed=seed, probabilities=p, embeddings=h), 3).tolist()
        assert {pick // 3 for pick in picks} == {0, 1, 2}


def test_exactly_budget_different_samples_where_all_gradients_are_zero() -> None:
    draws = []
    for seed in range(6):
        cycle = cycle_of(labeled=3, seed=seed, probabilities=torch.eye(4).repeat(5, 1), embeddings=points(20, 3))
        picks = Badge().select(cycle, 12)
        assert len(picks.unique()) == 12
        assert picks.min() >= 3
        draws.append(tuple(picks.tolist()))
    assert len(set(draws)) == 6


def test_exactly_budget_different_samples_where_gradients_coincide() -> None:
    p, h = distributions(2, 3).repeat(10, 1), points(2, 4).repeat(10, 1)
    for seed in range(10):
        picks = Badge().select(cycle_of(seed=seed, probabilities=p, embeddings=h), 7)
        assert len(picks.unique()) == 7
        assert {int(pick) % 2 for pick in picks[:2]} == {0, 1}


def test_a_budget_beyond_the_pool_takes_everything() -> None:
    cycle = cycle_of(labeled=4, probabilities=distributions(10, 3), embeddings=points(10, 2))
    assert sorted(Badge().select(cycle, 99).tolist()) == list(range(4, 10))


def test_makes_neither_all_pairs_nor_the_gradient_embeddings() -> None:
    n, classes, d = 300, 20, 25
    cycle = cycle_of(probabilities=distributions(n, classes), embeddings=points(n, d))
    with LargestTensor() as largest:
        Badge().select(cycle, 10)
    assert largest.numel <= n * d


def test_the_same_seed_draws_the_same_batch_and_another_seed_another() -> None:
    def batch(seed: int) -> list[int]:
        cycle = cycle_of(seed=seed, probabilities=distributions(100, 4), embeddings=points(100, 5))
        return Badge().select(cycle, 10).tolist()

    assert batch(1) == batch(1) != batch(2)
