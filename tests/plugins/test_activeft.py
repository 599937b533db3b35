"""ActiveFT: the loss and its gradient by value, one sample a center, coverage of planted clusters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from poolwright import ConfigError, Cycle, Rows
from poolwright_plugins.strategies import activeft
from poolwright_plugins.strategies.activeft import (
    ActiveFT,
    UnitRows,
    along_sphere,
    attraction,
    nearest_distinct,
    repulsion,
)

from .conftest import LargestTensor, cycle_of, points

NOTHING = torch.empty(0, 2)


def unit(x: Tensor, step: int = 1000, **limits: int) -> UnitRows:
    return UnitRows(Rows(x, **limits), step, "cpu")


def clusters(k: int, n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``n`` points around each of ``k`` directions, and which."""
    stream = torch.Generator().manual_seed(seed)
    of = torch.arange(n * k) % k
    directions = F.normalize(torch.randn(k, d, generator=stream), dim=1)
    return 3 * directions[of] + 0.3 * torch.randn(n * k, d, generator=stream), of


def logged(cycle: Cycle, name: str) -> list[float]:
    found: list[float] = cycle._state.logs[f"tested.select.{name}"]
    return found


# -- the loss --------------------------------------------------------------------------------------------------------


def test_each_sample_pulls_the_nearest_of_two_centers() -> None:
    # Cosines to (1, 0) and (0, 1): .6 and .8, .8 and .6, 0 and 1; lengths do not count.
    x = torch.tensor([[3.0, 4.0], [8.0, 6.0], [0.0, 9.0]])
    mean, gradient = attraction(unit(x), torch.eye(2))
    assert mean == pytest.approx((0.8 + 0.8 + 1.0) / 3, rel=1e-6)
    torch.testing.assert_close(gradient, torch.tensor([[0.8, 0.6], [0.6, 1.8]]) / 3)


def test_two_centers_repel_each_other_by_their_similarity_over_the_temperature() -> None:
    centers = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    mean, gradient = repulsion(centers, NOTHING, 0.5)
    assert mean == pytest.approx(0.6 / 0.5, rel=1e-6)  # log exp(s / tau) for either
    torch.testing.assert_close(gradient, centers.flip(0) / 0.5)  # 2 c . c' / tau, by halves


def test_a_fixed_center_repels_and_has_no_term_of_its_own() -> None:
    moving, fixed = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    mean, gradient = repulsion(moving, fixed, 0.5)
    weights = torch.tensor([math.exp(1.2), 1.0])
    assert mean == pytest.approx(math.log(float(weights.sum())), rel=1e-6)
    torch.testing.assert_close(gradient[0], (weights / weights.sum()) @ fixed / 0.5)


def test_the_gradient_is_that_of_the_loss_in_the_parameters() -> None:
    x, theta, fixed = points(40, 5), points(6, 5, seed=1).double(), F.normalize(points(3, 5, seed=2), dim=1)
    tau, balance = 0.3, 0.7

    def loss(theta: Tensor) -> Tensor:
        moving, features = F.normalize(theta, dim=1), F.normalize(x.double(), dim=1)
        every = torch.cat([moving, fixed.double()])
        others = (moving @ every.T / tau).masked_fill(torch.eye(6, 9, dtype=torch.bool), -torch.inf)
        return -(features @ every.T).amax(1).mean() / tau + balance * others.logsumexp(1).mean()

    moving = F.normalize(theta, dim=1).float()
    similarity, pull = attraction(unit(x), torch.cat([moving, fixed]))
    closeness, push = repulsion(moving, fixed, tau)
    assert -similarity / tau + balance * closeness == pytest.approx(float(loss(theta)), rel=1e-5)
    (expected,) = torch.autograd.grad(loss(theta.requires_grad_()), theta)
    found = along_sphere(-pull[:6] / tau + balance * push, theta.detach().float())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_blocks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    x, centers, fixed = points(53, 4), F.normalize(points(7, 4, seed=1), dim=1), F.normalize(points(2, 4), dim=1)
    whole = attraction(unit(x), centers), repulsion(centers, fixed, 0.07)
    monkeypatch.setattr(activeft, "BLOCK_BYTES", 2 * 4 * 9)  # two centers a block
    parts = attraction(unit(x, step=6), centers), repulsion(centers, fixed, 0.07)
    for (mean, gradient), (same, alike) in zip(whole, parts, strict=True):
        assert same == pytest.approx(mean, rel=1e-6)
        torch.testing.assert_close(alike, gradient, rtol=1e-5, atol=1e-6)


# -- one sample a center ---------------------------------------------------------------------------------------------


def test_a_contested_sample_goes_to_the_center_that_is_nearest_to_it() -> None:
    angles, wanting = torch.tensor([0.0, 0.5, 1.2]), torch.tensor([0.7, 0.55])  # 0.5 is the nearest to either
    x, centers = (torch.stack([of.cos(), of.sin()], 1) for of in (angles, wanting))
    assert nearest_distinct(unit(x), centers).tolist() == [2, 1]


def test_coinciding_samples_and_centers_give_the_lowest_rows() -> None:
    x = torch.ones(6, 3)
    assert nearest_distinct(unit(x, step=4), F.normalize(torch.ones(3, 3), dim=1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_as_many_different_ids_as_asked_for_whatever_the_data(seed: int) -> None:
    x = points(5, 3, seed).repeat(12, 1)  # five different points
    x[:7] = 0
    picks = ActiveFT(iterations=5).select(cycle_of(labeled=10, embeddings=x, seed=seed), 40)
    assert len(picks.unique()) == 40
    assert int(picks.min()) >= 10


@pytest.mark.parametrize(("budget", "expected"), [(0, 0), (1, 1), (9, 9), (50, 9)])
def test_budgets_from_nothing_to_the_whole_pool(budget: int, expected: int) -> None:
    picks = ActiveFT(iterations=2).select(cycle_of(labeled=3, embeddings=points(12, 3)), budget)
    assert len(picks.unique()) == expected


# -- what is selected ------------------------------------------------------------------------------------------------


def test_planted_clusters_are_covered_better_than_by_random_draws() -> None:
    found, drawn, near, far = 0, 0, 0.0, 0.0
    for seed in range(12):
        x, of = clusters(5, 24, 8, seed)
        picks = ActiveFT(lr=0.02, iterations=150).select(cycle_of(embeddings=x, seed=seed), 5)
        others = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:5]
        similarity = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
        found, drawn = found + len(of[picks].unique()), drawn + len(of[others].unique())
        near += float(similarity[:, picks].amax(1).mean()) / 12
        far += float(similarity[:, others].amax(1).mean()) / 12
    assert found > drawn + 5
    assert near > far + 0.05


def test_centers_that_begin_one_in_a_cluster_end_in_its_middle() -> None:
    x, of = clusters(6, 40, 16, seed=3)
    strategy = ActiveFT(lr=0.02, iterations=200, balance=0.0)
    pool = unit(x)
    centers = strategy._centers(cycle_of(embeddings=x), pool, pool.take(torch.arange(6)).clone(), pool.take(of[:0]))
    means = F.normalize(torch.stack([F.normalize(x[of == c], dim=1).sum(0) for c in range(6)]), dim=1)
    assert float((centers * means).sum(1).min()) > 0.999
    assert of[nearest_distinct(pool, centers)].tolist() == list(range(6))


def test_the_loss_falls_and_is_logged_with_the_similarity() -> None:
    x, _ = clusters(5, 20, 8, seed=0)
    cycle = cycle_of(embeddings=x)
    ActiveFT(iterations=60, lr=0.01).select(cycle, 8)
    losses, similarities = logged(cycle, "loss"), logged(cycle, "similarity")
    assert len(losses) == len(similarities) == 60
    assert losses[-1] < losses[0] - 0.5
    assert all(0 < value <= 1 for value in similarities)


def test_balance_spreads_the_picks() -> None:
    x = torch.cat([points(300, 6) * 0.2 + 1, points(20, 6, seed=1)])

    def spread(balance: float) -> float:
        picks = ActiveFT(iterations=150, lr=0.02, balance=balance).select(cycle_of(embeddings=x), 10)
        c = F.normalize(x[picks], dim=1)
        return float((c @ c.T).fill_diagonal_(0).sum() / 90)

    assert spread(3.0) < spread(0.0) - 0.05


def test_what_is_labeled_keeps_new_picks_away() -> None:
    around, apart = clusters(2, 60, 8, seed=4)
    x = torch.cat([around[apart == 0], around[apart == 1]])  # ids below 60 are one cluster
    picks = ActiveFT(iterations=150, lr=0.05).select(cycle_of(labeled=30, embeddings=x), 1)
    assert int(picks) >= 60


# -- reading ---------------------------------------------------------------------------------------------------------


def test_a_pool_read_again_in_every_iteration_gives_the_picks_of_one_in_memory() -> None:
    x = points(400, 8)

    def picked(limit: int) -> Tensor:
        cycle = cycle_of(labeled=5, embeddings=x)
        cycle._state.memory_limit = limit
        return ActiveFT(iterations=20, lr=0.01).select(cycle, 12)

    assert torch.equal(picked(2**31), picked(4 * 400 * 8))


def test_small_blocks_give_the_same_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clusters(5, 40, 8, seed=1)
    whole = ActiveFT(iterations=50, lr=0.01).select(cycle_of(embeddings=x), 9)
    monkeypatch.setattr(activeft, "BLOCK_BYTES", 4 * 17 * 7)
    assert torch.equal(ActiveFT(iterations=50, lr=0.01).select(cycle_of(embeddings=x), 9), whole)


def test_no_matrix_of_samples_and_centers_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activeft, "BLOCK_BYTES", 2**12)
    cycle = cycle_of(embeddings=points(2000, 4))
    with LargestTensor() as largest:
        ActiveFT(iterations=2).select(cycle, 60)
    assert largest.numel <= 2000 * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_features_of_other_precisions_are_read(dtype: torch.dtype) -> None:
    x = points(60, 4)
    picks = ActiveFT(iterations=3).select(cycle_of(embeddings=x.to(dtype)), 6)
    assert len(picks.unique()) == 6


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    x = points(30, 3)
    x[7, 1] = value
    with pytest.raises(ConfigError, match="activeft: embeddings hold NaN or infinity"):
        ActiveFT().select(cycle_of(embeddings=x), 4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0}, "temperature must be a number, above 0, not 0"),
        ({"balance": -1.0}, "balance must be a number, 0 or more, not -1.0"),
        ({"lr": math.inf}, "lr must be a number, above 0, not inf"),
        ({"lr": "fast"}, "lr must be a number, above 0, not 'fast'"),
        ({"iterations": 0}, "iterations must be an integer of at least 1, not 0"),
        ({"iterations": True}, "iterations must be an integer of at least 1, not True"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"activeft: {message}"):
        ActiveFT(**parameters).select(cycle_of(embeddings=points(9, 2)), 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_different_ids_are_picked_and_the_loss_falls() -> None:
    x, _ = clusters(5, 40, 8, seed=1)
    cycle = cycle_of(embeddings=x)
    cycle.device = "cuda"
    assert len(ActiveFT(iterations=50, lr=0.01).select(cycle, 9).unique()) == 9
    assert logged(cycle, "loss")[-1] < logged(cycle, "loss")[0]
