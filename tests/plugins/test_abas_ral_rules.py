"""ABAS-RAL's arithmetic, by hand values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolwright_plugins.strategies.abas_ral.agent import BatchAgent
from poolwright_plugins.strategies.abas_ral.rules import (
    Targets,
    fell_twice,
    largest_batch,
    returns,
    scaled,
    sorted_margins,
)


def test_the_state_is_the_margins_ascending():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.4, 0.35, 0.25]])

    assert sorted_margins(p).tolist() == pytest.approx([0.05, 0.2, 0.8])


@pytest.mark.parametrize(("unlabeled", "largest"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (30, 3), (259, 25)])
def test_the_largest_batch_is_a_tenth_rounded_down_and_one_at_least(unlabeled, largest):
    assert largest_batch(unlabeled) == largest


def test_an_episode_of_the_warm_start_ends_at_two_decreases_in_a_row():
    assert fell_twice([3.0, 2.0, 1.0])
    assert not fell_twice([2.0, 1.0])
    assert not fell_twice([3.0, 2.0, 2.0])
    assert not fell_twice([3.0, 2.0, 2.5, 1.0])


def test_targets_are_the_highest_precision_and_the_smallest_share_that_reached_it():
    assert Targets.of([(0.5, 0.1), (0.8, 0.4), (0.8, 0.3), (0.7, 0.2)]) == Targets(0.8, 0.3)


def test_either_ends_at_precision_or_budget_and_both_at_precision_within_the_budget():
    targets = Targets(0.8, 0.3)
    points = [(0.7, 0.2), (0.8, 0.2), (0.7, 0.3), (0.9, 0.31)]

    assert [targets.reached(*point, "either") for point in points] == [False, True, True, True]
    assert [targets.reached(*point, "both") for point in points] == [False, True, False, False]


class TwoActions(torch.nn.Module):
    """Values that are known: of the smaller and of the larger of two batch sizes."""

    def __init__(self, small: float, large: float) -> None:
        super().__init__()
        self.small, self.large = small, large

    def forward(self, states: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return torch.where(sizes == 0, self.small, self.large)  # 1 of 2; 2 of 2 and 1 of 1 are 1


def test_the_target_takes_the_online_network_s_action_at_the_target_network_s_value():
    agent: Any = BatchAgent(1, bias=0.0, unit=1.0, lr=1e-3, gamma=0.5, rate=0.01, capacity=4, exponent=3.0, minibatch=2)
    agent.online, agent.target = TwoActions(5.0, 1.0), TwoActions(2.0, 9.0)
    drawn = {
        "reward": torch.tensor([1.0, 1.0, 1.0]),
        "next_state": torch.zeros(3, 1),
        "next_largest": torch.tensor([2, 1, 2]),  # with one size alone, it is the whole share
        "terminal": torch.tensor([False, False, True]),
    }

    assert agent.targets(drawn).tolist() == [1 + 0.5 * 2, 1 + 0.5 * 9, 1]


def test_batch_sizes_enter_the_network_as_shares_of_the_largest_between_minus_one_and_one():
    assert scaled(torch.arange(1, 5), 4).tolist() == [-0.5, 0.0, 0.5, 1.0]
    assert float(scaled(30, 40)) == 0.5


def test_returns_are_discounted_sums_of_what_follows():
    assert returns([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


def test_the_last_bias_is_the_mean_reward_in_units_and_values_are_outside_of_them():
    agent = BatchAgent(3, bias=-0.02, unit=0.01, lr=1e-3, gamma=1, rate=0.1, capacity=2, exponent=3, minibatch=2)
    assert agent.online.out.bias.tolist() == [-2.0]
    torch.nn.init.zeros_(agent.online.out.weight)
    assert agent.values(torch.zeros(3), 4).tolist() == pytest.approx([-0.02] * 4)
    assert agent.best(torch.zeros(3), 4) == 1  # of equal ones the smallest


def test_priorities_follow_the_errors_of_what_was_drawn():
    torch.manual_seed(0)
    agent = BatchAgent(2, bias=0.0, unit=2.0, lr=1e-9, gamma=0.0, rate=0.1, capacity=8, exponent=3, minibatch=64)
    for reward in (0.0, 6.0):
        agent.remember(torch.zeros(2), 1, 2, reward, torch.zeros(2), 1, terminal=True)
    value = float(agent.values(torch.zeros(2), 2)[0]) / 2
    agent.learn(1, torch.Generator().manual_seed(0))
    assert agent.replay.priorities.tolist() == pytest.approx([abs(value) ** 3, abs(3 - value) ** 3], rel=1e-4)
