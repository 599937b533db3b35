"""BRAL-T's environments: clusters, states, actions and rewards against what they are defined to be."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from poolwright import Rows, kernels
from poolwright_plugins.strategies.bral_t import environments
from poolwright_plugins.strategies.bral_t.environments import Clusters, Environments, moments

from .conftest import points


def world(*, clusters: int = 2, actions: int = 2, order: float = 1, limit: int = 512, seed: int = 0) -> Environments:
    generator = torch.Generator().manual_seed(seed)
    return Environments(clusters, actions, order, limit, generator, torch.device("cpu"))


def groups(*centers: float, n: int = 6, d: int = 2, width: float = 0.1, seed: int = 0) -> Tensor:
    """Return ``n`` points around each center on the diagonal, one group after the other."""
    noise = width * torch.randn(len(centers) * n, d, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(centers).repeat_interleave(n)[:, None] + noise


def test_moments_are_mean_and_population_variance_by_coordinate() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [7.0, -1.0]])
    mean, variance = moments(x, torch.tensor([0, 0, 1]))
    assert mean.tolist() == [[2.0, 5.0], [7.0, -1.0]]
    assert variance.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_moments_keep_their_digits_far_from_the_origin() -> None:
    x = points(1000, 3).double() + 1e6
    mean, variance = moments(x, torch.zeros(1000, dtype=torch.int64))
    torch.testing.assert_close(mean, x.mean(0, keepdim=True).float())
    torch.testing.assert_close(variance, x.var(0, unbiased=False)[None].float())


def test_moments_of_many_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, of = points(70, 3), torch.arange(70) % 4
    monkeypatch.setattr(environments, "CACHED_BYTES", 9 * 3 * 4)  # nine rows; the last block has seven
    mean, variance = moments(x, of)
    for c in range(4):
        torch.testing.assert_close(mean[c], x[of == c].mean(0))
        torch.testing.assert_close(variance[c], x[of == c].var(0, unbiased=False))


def test_clusters_partition_the_rows_and_describe_them() -> None:
    x = groups(0, 10, 20)[torch.randperm(18, generator=torch.Generator().manual_seed(1))]
    found = world().cluster(x, 3)
    assert torch.cat(list(found.members)).sort().values.tolist() == list(range(18))
    for rows, mean, variance in zip(found.members, found.mean, found.variance, strict=True):
        assert len(rows) == 6
        torch.testing.assert_close(mean, x[rows].mean(0))
        torch.testing.assert_close(variance, x[rows].var(0, unbiased=False))


def test_there_are_no_more_clusters_than_distinct_rows() -> None:
    assert [len(rows) for rows in world().cluster(torch.zeros(4, 2), 3).members] == [4]
    assert sorted(len(rows) for rows in world().cluster(groups(0, 9, n=1), 5).members) == [1, 1]


def test_rows_read_in_blocks_give_the_clusters_of_the_tensor() -> None:
    x = points(60, 4)
    whole, lazy = world().cluster(x, 5), world().cluster(Rows(x.numpy()), 5)
    assert all(torch.equal(a, b) for a, b in zip(whole.members, lazy.members, strict=True))
    assert torch.equal(whole.mean, lazy.mean)


@pytest.mark.parametrize("order", [1, 2])
def test_a_set_is_at_distance_0_from_itself_and_in_one_dimension_sorted_differences_count(order: int) -> None:
    x, y = points(9, 1, seed=1), points(9, 1, seed=2)
    same, other = world(order=order).distances([x, x], [x.clone(), y]).tolist()
    assert same == 0
    gaps = (x.sort(0).values - y.sort(0).values).double().abs()
    assert other == pytest.approx(float(gaps.pow(order).mean() ** (1 / order)), rel=1e-6)


def test_the_state_holds_the_nearest_labeled_cluster_and_the_unlabeled_one() -> None:
    labeled, unlabeled = groups(0, 10, 20, n=4, seed=1), groups(19, 1, seed=2)
    found, states = world(clusters=3).states(labeled, unlabeled)
    assert states.shape == (3, 8)
    for rows, state in zip(found.members, states, strict=True):
        near = labeled[8:] if int(rows[0]) < 6 else labeled[:4]
        mean, variance, own, spread = state.split(2)
        torch.testing.assert_close(mean, near.mean(0))
        torch.testing.assert_close(variance, near.var(0, unbiased=False))
        torch.testing.assert_close(own, unlabeled[rows].mean(0))
        torch.testing.assert_close(spread, unlabeled[rows].var(0, unbiased=False))


def test_nearest_is_by_the_distance_of_the_sets_not_of_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    # The unlabeled cluster lies at +-5; one labeled cluster at 0, near its mean, the other at -5.5 and 6.5.
    labeled, unlabeled = torch.tensor([[0.0], [-5.5], [0.0], [6.5]]), torch.tensor([[-5.0], [5.0]])
    parts = {4: torch.tensor([0, 1, 0, 1]), 2: torch.tensor([0, 0])}

    def given(self: Environments, x: Tensor, k: int) -> Clusters:
        of = parts[len(x)]
        return Clusters([(of == c).nonzero().squeeze(1) for c in of.unique()], *moments(x, of))

    monkeypatch.setattr(Environments, "cluster", given)
    _, (state,) = world().states(labeled, unlabeled)
    assert state.tolist() == [0.5, 36.0, 0.0, 25.0]


def test_actions_divide_their_cluster_and_carry_its_state() -> None:
    x = groups(0, 1, 50)
    members, inputs = world().actions_of(x, torch.arange(12), torch.arange(8.0))
    assert sorted(members, key=lambda rows: int(rows[0]))[0].tolist() == list(range(6))
    assert torch.cat(members).sort().values.tolist() == list(range(12))
    for rows, row in zip(members, inputs, strict=True):
        torch.testing.assert_close(row, torch.cat([torch.arange(8.0), x[rows].mean(0), x[rows].var(0, unbiased=False)]))


def test_the_reward_is_minus_the_distance_to_the_trustset_in_the_same_cluster() -> None:
    x = torch.cat([groups(0, 2, n=8), groups(50, 52, n=8, seed=5)])
    trusted = torch.arange(32) % 16 >= 8  # the right half of either cluster
    inputs, rewards = world().sample(x, trusted, 0.1)
    assert len(rewards) == 4
    for row, reward in zip(inputs, rewards, strict=True):
        center = float(row[8:10].mean())
        right = (center + 10) % 50 > 11
        assert float(reward) == pytest.approx(0.0 if right else -2 * 2**0.5, abs=0.15)


def test_the_rewards_are_those_of_the_definition() -> None:
    x, trusted = points(40, 3), torch.arange(40) % 4 == 0
    inputs, rewards = world(clusters=3, actions=4, order=2).sample(x, trusted, 0.25)
    again = world(clusters=3, actions=4, order=2)
    order = torch.randperm(40, generator=again.generator)
    rest = order[10:].sort().values
    found, states = again.states(x[order[:10]], x[rest])
    expected, features = [], []
    for state, rows in zip(states, found.members, strict=True):
        target = [int(i) for i in rest[rows] if trusted[i]]
        if not target:
            continue
        members, described = again.actions_of(x[rest], rows, state)
        features.append(described)
        expected += [-kernels.wasserstein(x[rest][m], x[target], p=2, backend="reference") for m in members]
    assert len(expected) > 6
    torch.testing.assert_close(rewards.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(inputs, torch.cat(features))


def test_clusters_without_a_sample_of_the_trustset_have_no_reward() -> None:
    x = groups(0, 50, n=10)
    inputs, rewards = world(actions=3).sample(x, torch.arange(20) < 10, 0.1)
    assert len(rewards) == 3
    assert (inputs[:, 4:6] < 25).all()
    inputs, rewards = world().sample(x, torch.zeros(20, dtype=torch.bool), 0.1)
    assert inputs.shape == (0, 12)
    assert rewards.shape == (0,)


@pytest.mark.parametrize(("n", "share", "size"), [(50, 0.1, 5), (2, 0.1, 1), (10, 0.999, 9), (3, 0.01, 1)])
def test_the_sizes_of_the_two_parts(n: int, share: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    states = Environments.states

    def noted(self: Environments, labeled: Tensor, unlabeled: Tensor) -> object:
        sizes.append((len(labeled), len(unlabeled)))
        assert not (labeled[:, None] == unlabeled[None]).all(2).any()
        return states(self, labeled, unlabeled)

    monkeypatch.setattr(Environments, "states", noted)
    world().sample(points(n, 2), torch.ones(n, dtype=torch.bool), share)
    assert sizes == [(size, n - size)]


def test_environments_differ_from_one_to_the_next_and_repeat_with_the_seed() -> None:
    x, trusted = points(30, 2), torch.arange(30) % 3 == 0
    one, other = world(seed=3), world(seed=3)
    first, second = one.sample(x, trusted, 0.3), one.sample(x, trusted, 0.3)
    assert torch.equal(first[0], other.sample(x, trusted, 0.3)[0])
    assert not torch.equal(first[0][:1], second[0][:1])


def test_time_is_kept_by_part() -> None:
    here = world()
    here.sample(points(20, 2), torch.ones(20, dtype=torch.bool), 0.5)
    assert set(here.seconds) == {"clusters", "distances"}
    assert min(here.seconds.values()) > 0


# -- the approximation ---------------------------------------------------------------------------------------------


def test_at_most_so_many_points_of_a_set_are_used_and_small_sets_are_whole() -> None:
    x = torch.arange(100.0)[:, None]
    rows = torch.arange(20, 80)
    drawn = world(limit=10).points_of(x, rows).squeeze(1)
    assert len(drawn.unique()) == 10
    assert torch.isin(drawn, rows.float()).all()
    assert torch.equal(world(limit=60).points_of(x, rows).squeeze(1), rows.float())


def test_distances_on_drawn_points_rank_pairs_as_exact_ones_do() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 0.7 * torch.randn(10, 32, generator=generator)
    sets, others = ([(mean + torch.randn(n, 32, generator=generator)).relu() for mean in means] for n in (600, 300))

    def pairs(limit: int) -> np.ndarray:
        here = world(limit=limit, seed=1)
        xs = [here.points_of(x, torch.arange(len(x))) for x in sets]
        ys = [here.points_of(y, torch.arange(len(y))) for y in others]
        return here.distances([x for x in xs for _ in ys], ys * len(xs)).reshape(10, 10).numpy()

    exact, drawn = pairs(600), pairs(128)
    assert scipy.stats.spearmanr(exact.ravel(), drawn.ravel()).statistic > 0.97
    assert (exact.argmin(1) == drawn.argmin(1)).all()
