"""Targets, soft updates, DDPG and noise, by hand values."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from poolwright.testing.fingerprints import fingerprint
from poolwright_plugins.rl.updates import DDPG, decayed_gaussian, double_dqn_target, soft_update


def test_soft_updates_close_the_distance_geometrically():
    target, source = nn.Linear(3, 2), nn.Linear(3, 2)
    start = copy.deepcopy(target)
    for _ in range(50):
        soft_update(target, source, 0.01)

    expected = source.weight + 0.99**50 * (start.weight - source.weight)
    assert torch.allclose(target.weight, expected, atol=1e-6)
    assert not torch.allclose(target.weight, start.weight, atol=1e-2)


def test_a_soft_update_copies_buffers_and_leaves_the_source():
    target, source = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    source(torch.randn(8, 2))
    before = copy.deepcopy(source.state_dict())
    soft_update(target, source, 0.5)

    assert torch.equal(target.running_mean, source.running_mean)
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())


@pytest.mark.parametrize("rate", [0, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1"):
        soft_update(nn.Linear(1, 1), nn.Linear(1, 1), rate)


def test_the_online_network_chooses_and_the_target_network_values():
    # Two actions: the online net prefers the first, the target net the second.
    y = double_dqn_target(
        torch.tensor([1.0, 1.0, -1.0]),
        torch.tensor([[3.0, 2.0], [0.0, 1.0], [5.0, 4.0]]),
        torch.tensor([[10.0, 20.0], [10.0, 20.0], [10.0, 20.0]]),
        torch.tensor([False, False, True]),
        gamma=0.5,
    )

    assert y.tolist() == [6, 11, -1]  # plain DQN would give 11 in the first place


def test_actions_that_are_not_allowed_are_not_chosen():
    q = torch.tensor([[3.0, 2.0], [3.0, 2.0]])
    allowed = torch.tensor([[False, True], [False, False]])
    y = double_dqn_target(torch.zeros(2), q, 10 * q, torch.tensor([False, True]), gamma=1, allowed=allowed)

    assert y.tolist() == [20, 0]
    with pytest.raises(ValueError, match="allows no action"):
        double_dqn_target(torch.zeros(2), q, q, torch.tensor([False, False]), gamma=1, allowed=allowed)


def test_no_gradient_flows_through_a_target():
    q = torch.ones(1, 2, requires_grad=True)

    assert not double_dqn_target(torch.ones(1), q, q, torch.tensor([False]), gamma=1).requires_grad


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="one row of actions a reward"):
        double_dqn_target(torch.ones(3), torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2).bool(), gamma=1)


def test_noise_decays_and_hangs_on_the_generator_alone():
    def noise(step: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return decayed_gaussian((20000,), step, sigma=0.1, decay=0.9, generator=generator)

    assert float(noise(0).std()) == pytest.approx(0.1, rel=0.02)
    assert torch.allclose(noise(10), 0.9**10 * noise(0))
    assert not torch.equal(noise(0, seed=1), noise(0))


# -- DDPG --------------------------------------------------------------------------------------------------------


class Weight(nn.Module):
    """An actor whose action is one weight, whatever the state."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(states), 1)


class Slope(nn.Module):
    """A critic that values an action by one weight times it."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return (actions * self.value).squeeze(1)


def made(lr: float = 0.1) -> DDPG:
    return DDPG(Weight(0.5), Slope(2.0), Weight(0.0), Slope(0.0), lr=lr, gamma=0.5, rate=0.25)


def test_targets_start_as_copies_and_value_what_the_target_actor_does_next():
    agent = made()
    agent.actor.value.data.fill_(-1.0)  # the targets do not see it before a soft update
    agent.critic.value.data.fill_(7.0)

    assert agent.targets(torch.tensor([1.0, -1.0]), torch.zeros(2, 1)).tolist() == [1.5, -0.5]  # r + 0.5 * 2 * 0.5


def test_one_update_moves_critic_then_actor_then_targets():
    agent = made()
    error, value = agent.update(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([3.0]), torch.zeros(1, 1))

    assert error == pytest.approx((2 * 1 - 3.5) ** 2)  # Q(s, 1) = 2; y = 3 + 0.5 * 2 * 0.5
    assert agent.critic.value.item() == pytest.approx(2.1)  # Adam's first step is lr against the gradient's sign
    assert value == pytest.approx(2.1 * 0.5)  # by the critic that has moved already
    assert agent.actor.value.item() == pytest.approx(0.6)
    assert agent.target_critic.value.item() == pytest.approx(0.75 * 2 + 0.25 * 2.1)
    assert agent.target_actor.value.item() == pytest.approx(0.75 * 0.5 + 0.25 * 0.6)


def test_the_actors_step_leaves_no_trace_in_the_critic():
    state, action = torch.zeros(1, 1), torch.full((1, 1), 0.5)
    agent = made()
    assert agent.targets(torch.tensor([0.5]), state).tolist() == [1]  # Q(s, 0.5) already: nothing to learn
    for _ in range(3):
        agent.update(state, action, torch.tensor([0.5]), state)
        agent.target_actor.value.data.fill_(0.5)
        agent.target_critic.value.data.fill_(2.0)

    assert agent.critic.value.item() == 2
    assert agent.actor.value.item() > 0.5


def test_a_restored_agent_goes_on_as_the_saved_one_would():
    def step(agent: DDPG) -> None:
        agent.update(torch.zeros(2, 1), torch.tensor([[1.0], [-0.5]]), torch.tensor([3.0, 1.0]), torch.zeros(2, 1))

    agent, restored = made(), made(lr=0.5)
    step(agent)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    step(agent)
    step(restored)

    assert fingerprint(agent.state_dict()) == fingerprint(restored.state_dict())
