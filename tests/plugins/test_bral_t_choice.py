"""BRAL-T's choice of a batch out of action clusters with predicted rewards."""

from __future__ import annotations

import pytest
import torch

from poolwright_plugins.strategies.bral_t.choice import Choice, picked, shares

LINE = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0, 50.0, 52.0, 53.0, 61.0])[:, None]


def rows(*which: int) -> torch.Tensor:
    return torch.tensor(which)


CLUSTERS = [
    [Choice(rows(0, 1, 2), -3.0), Choice(rows(3, 4), -1.0)],
    [Choice(rows(5, 6, 7, 8), -2.0)],
]


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [
        ([9, 9, 9], 6, [2, 2, 2]),
        ([9, 9, 9], 8, [3, 3, 2]),
        ([9, 1, 9], 8, [4, 1, 3]),
        ([1, 2, 3], 6, [1, 2, 3]),
        ([5, 5], 0, [0, 0]),
        ([4], 3, [3]),
        ([3, 3, 3], 1, [1, 0, 0]),
        ([], 0, []),
    ],
)
def test_a_budget_is_shared_as_equally_as_the_sizes_allow(sizes: list[int], budget: int, expected: list[int]) -> None:
    assert shares(sizes, budget) == expected


def test_each_group_gives_its_share_from_high_to_low_reward() -> None:
    assert picked(CLUSTERS, 6, LINE, None).tolist() == [3, 4, 1, 7, 6, 5]


def test_one_group_is_taken_from_high_to_low_reward() -> None:
    merged = [[choice for cluster in CLUSTERS for choice in cluster]]
    assert picked(merged, 2, LINE, None).tolist() == [3, 4]
    assert picked(merged, 4, LINE, None).tolist() == [3, 4, 7, 6]
    assert picked(merged, 9, LINE, None).tolist() == [3, 4, 5, 6, 7, 8, 0, 1, 2]


def test_a_cluster_that_does_not_fit_is_cut_around_its_own_mean() -> None:
    # The mean of 50, 52, 53, 61 is 54.
    for n, expected in ((1, [7]), (2, [7, 6]), (3, [7, 6, 5])):
        assert picked([CLUSTERS[1]], n, LINE, None).tolist() == expected


def test_a_random_cut_draws_every_sample_of_the_cluster_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([picked([CLUSTERS[1]], 2, LINE, generator) for _ in range(400)])
    assert (draws[:, 0] != draws[:, 1]).all()
    share = torch.bincount(draws.flatten(), minlength=9)[5:] / 400
    # Four standard deviations of a share of 400 draws with p = 1/2.
    assert (share - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("budget", range(10))
def test_exactly_the_budget_is_picked_and_nothing_twice(budget: int) -> None:
    for groups in (CLUSTERS, [[choice for cluster in CLUSTERS for choice in cluster]]):
        chosen = picked(groups, budget, LINE, torch.Generator().manual_seed(1))
        assert len(chosen) == len(chosen.unique()) == budget
