"""R_phi: it fits a planted reward, in whatever units the embeddings are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError
from poolwright_plugins.strategies.bral_t.reward_network import RewardNetwork, RewardTrainer

from .conftest import points

D = 4


def trainer(network: RewardNetwork, *, lr: float = 0.01, capacity: int = 10_000) -> RewardTrainer:
    return RewardTrainer(network, lr=lr, minibatch=100, capacity=capacity, generator=torch.Generator().manual_seed(0))


def planted(n: int, scale: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs, and rewards that are linear in them but for a kink."""
    inputs = points(n, 6 * D, seed=seed)
    blocks = inputs.reshape(n, 3, 2, D)
    blocks[:, :, 1] = blocks[:, :, 1].square()
    reward = 0.5 * blocks[:, 2, 0, 0] - 0.5 * blocks[:, 1, 0, 1].abs() - 0.2 * blocks[:, 2, 1, 2]
    blocks[:, :, 0] *= scale
    blocks[:, :, 1] *= scale**2
    return inputs, scale * reward


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_a_planted_reward_is_learnt_with_the_papers_steps_whatever_the_scale(scale: float) -> None:
    torch.manual_seed(0)
    network = RewardNetwork.fresh(scale * points(500, D), 128)
    teacher = trainer(network)
    for seed in range(30):
        teacher.add(*planted(50, scale, seed=seed))
        teacher.fit(20)
    inputs, rewards = planted(300, scale, seed=99)
    left = (network.predict(inputs) - rewards).square().mean() / rewards.var()
    assert left < 0.35


def linear(groups: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs of groups of five actions each, and rewards that are linear in the actions' means."""
    inputs = points(5 * groups, 6 * D, seed=seed)
    blocks = inputs.reshape(len(inputs), 3, 2, D)
    blocks[:, :, 1] = blocks[:, :, 1].square()
    return inputs, blocks[:, 2, 0] @ torch.tensor([0.6, -0.3, 0.2, 0.0])


def gap_closed(seed: int) -> float:
    """Return how much of the gap between a random and the best action of each group the network's choice closes."""
    torch.manual_seed(seed)
    network = RewardNetwork.fresh(points(500, D, seed=seed), 64)
    teacher = trainer(network)
    for environment in range(30):
        teacher.add(*linear(10, seed=100 * seed + environment))
        teacher.fit(20)
    inputs, rewards = linear(60, seed=100 * seed + 99)
    values = rewards.reshape(60, 5)
    chosen = values.gather(1, network.predict(inputs).reshape(60, 5).argmax(1, keepdim=True)).mean()
    return float((chosen - values.mean()) / (values.max(1).values.mean() - values.mean()))


def test_choices_by_a_learnt_linear_reward_close_half_of_the_gap_between_random_and_the_best_possible() -> None:
    # Seeds that were not used while building; the interval is Student's.
    gaps = torch.tensor([gap_closed(seed) for seed in range(1000, 1010)])
    half_width = 2.262 * float(gaps.std()) / len(gaps) ** 0.5
    assert gaps.mean() >= 0.5, gaps
    assert gaps.mean() - half_width > 0, gaps


def test_center_and_scale_are_those_of_the_embeddings() -> None:
    x = 3 * points(200, D) + 7
    network = RewardNetwork.fresh(x, 8)
    torch.testing.assert_close(network.center, x.mean(0))
    spread = (x - x.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(network.scale, spread)
    torch.testing.assert_close(network.unit, spread * 2)
    standardized = network.standardized(torch.cat([x.mean(0), x.var(0)]).repeat(3)[None])
    expected = torch.cat([torch.zeros(D), x.var(0) / spread**2]).repeat(3)[None]
    torch.testing.assert_close(standardized, expected, atol=1e-5, rtol=1e-5)


def test_embeddings_that_are_all_the_same_have_a_scale_of_1() -> None:
    network = RewardNetwork.fresh(torch.full((5, D), 2.5), 8)
    assert float(network.scale) == 1
    assert torch.isfinite(network.predict(torch.zeros(2, 6 * D))).all()


def test_the_buffer_forgets_the_oldest_pairs_first() -> None:
    teacher = trainer(RewardNetwork(1, 4), capacity=5)
    for first in (0, 3, 6):
        teacher.add(torch.arange(first, first + 3.0)[:, None].expand(3, 6), torch.arange(first, first + 3.0))
    assert len(teacher) == 5
    assert teacher._rewards.tolist() == [4.0, 5.0, 6.0, 7.0, 8.0]
    assert teacher._inputs[:, 0].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_fit_returns_the_mean_error_of_its_steps() -> None:
    network = RewardNetwork(1, 4)
    for parameter in network.parameters():
        parameter.data.zero_()
    teacher = trainer(network, lr=1e-12)
    teacher.add(torch.zeros(1, 6), torch.tensor([3.0]))
    assert teacher.fit(7) == pytest.approx(9.0)


def test_an_error_that_grows_without_bound_names_the_way_out() -> None:
    network = RewardNetwork.fresh(points(50, D), 16)
    teacher = trainer(network, lr=1e6)
    teacher.add(*planted(50, 1.0, seed=0))
    with pytest.raises(ConfigError, match=r"reward network became (nan|inf): lower lr \(now 1e\+06\)"):
        teacher.fit(50)


def test_a_restored_network_predicts_the_same_and_costs_no_random_draws() -> None:
    network = RewardNetwork.fresh(points(20, D), 16)
    before = torch.get_rng_state()
    other = RewardNetwork.restored(network.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    inputs = points(9, 6 * D)
    assert torch.equal(network.predict(inputs), other.predict(inputs))


def test_predictions_are_in_units_of_the_rewards() -> None:
    network = RewardNetwork.fresh(10 * points(100, D), 16)
    inputs = points(3, 6 * D)
    inside = network(network.standardized(inputs)).detach()
    torch.testing.assert_close(network.predict(inputs), inside * float(network.scale) * math.sqrt(D))
