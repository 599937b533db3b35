"""Targets and gradient steps of the deep Q-network and of DDPG, and exploration noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def soft_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Move the weights of ``target`` towards those of ``source``, in place.

    theta' = rate * theta + (1 - rate) * theta', buffers (such as running means) are copied. After k such steps the
    distance to a source that stands still is (1 - rate)^k of what it was.

    Source: Lillicrap et al., *Continuous Control with Deep Reinforcement Learning*, ICLR 2016, algorithm 1.

    Parameters
    ----------
    target, source : Module
        Of one architecture.
    rate : float
        Above 0 and at most 1; 1 copies.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1, not {rate}")
    with torch.no_grad():
        for to, of in zip(target.parameters(), source.parameters(), strict=True):
            to.lerp_(of, rate)
        for to, of in zip(target.buffers(), source.buffers(), strict=True):
            to.copy_(of)


def double_dqn_target(
    rewards: Tensor, online: Tensor, target: Tensor, terminal: Tensor, *, gamma: float, allowed: Tensor | None = None
) -> Tensor:
    """Return y = r + gamma * Q'(s', argmax_a Q(s', a)), and y = r after the last step of an episode.

    The online network chooses the action and the target network values it, which keeps the maximum over noisy
    estimates from being an overestimate.

    Source: van Hasselt, Guez and Silver, *Deep Reinforcement Learning with Double Q-learning*, AAAI 2016, equation 4.

    Parameters
    ----------
    rewards : Tensor
        Floating point ``(n,)``.
    online, target : Tensor
        Q(s', .) and Q'(s', .) of all actions, ``(n, actions)``.
    terminal : Tensor
        bool ``(n,)``: no action follows, so the rows of ``online`` and ``target`` do not count.
    gamma : float
        Discount.
    allowed : Tensor, optional
        bool ``(n, actions)``: the actions that can be taken in s'; all by default.

    Returns
    -------
    Tensor
        ``(n,)``, without gradient.
    """
    if online.shape != target.shape or online.ndim != 2 or rewards.shape != online.shape[:1]:
        raise ValueError(
            f"one row of actions a reward: rewards {tuple(rewards.shape)}, Q {tuple(online.shape)} "
            f"and Q' {tuple(target.shape)}"
        )
    if allowed is not None:
        if not (allowed.any(1) | terminal).all():
            raise ValueError("a next state that is not terminal allows no action")
        online = online.masked_fill(~allowed, -torch.inf)
    best = online.detach().argmax(1, keepdim=True)
    following = target.detach().gather(1, best).squeeze(1)
    return rewards + gamma * following.masked_fill(terminal, 0)


def decayed_gaussian(
    shape: tuple[int, ...], step: int, *, sigma: float, decay: float, generator: torch.Generator
) -> Tensor:
    """Return exploration noise N(0, (sigma * decay^step)^2), float32; ``step`` counts the actions taken before."""
    return sigma * decay**step * torch.randn(shape, generator=generator)


class DDPG:
    """Deep deterministic policy gradient: an actor, a critic, their targets and an Adam for each of the first two.

    One step fits the critic to y = r + gamma * Q'(s', pi'(s')) by squared error, moves the actor up Q(s, pi(s)), and
    lets both targets follow softly.

    Source: Lillicrap et al., *Continuous Control with Deep Reinforcement Learning*, ICLR 2016, algorithm 1.

    Parameters
    ----------
    actor : Module
        States ``(n, ...)`` to actions ``(n, a)``.
    critic : Module
        Called with states and actions, to values ``(n,)``.
    target_actor, target_critic : Module
        Of the same architectures; they take over the weights of the former two.
    lr : float
        Learning rate of both Adams.
    gamma : float
        Discount.
    rate : float
        Of the soft updates.
    """

    def __init__(
        self,
        actor: nn.Module,
        critic: nn.Module,
        target_actor: nn.Module,
        target_critic: nn.Module,
        *,
        lr: float,
        gamma: float,
        rate: float,
    ) -> None:
        self.actor, self.critic = actor, critic
        self.target_actor, self.target_critic = target_actor, target_critic
        self.gamma = gamma
        self.rate = rate
        soft_update(target_actor, actor, 1)
        soft_update(target_critic, critic, 1)
        self._actor_adam = torch.optim.Adam(actor.parameters(), lr=lr)
        self._critic_adam = torch.optim.Adam(critic.parameters(), lr=lr)

    def act(self, states: Tensor) -> Tensor:
        """Return the actor's actions for ``states``, without gradient."""
        with torch.no_grad():
            actions: Tensor = self.actor(states)
        return actions

    def targets(self, rewards: Tensor, next_states: Tensor) -> Tensor:
        """Return y = r + gamma * Q'(s', pi'(s')), ``(n,)``, without gradient."""
        with torch.no_grad():
            following: Tensor = self.target_critic(next_states, self.target_actor(next_states))
        return rewards + self.gamma * following

    def update(self, states: Tensor, actions: Tensor, rewards: Tensor, next_states: Tensor) -> tuple[float, float]:
        """Take one step of critic, actor and targets.

        Parameters
        ----------
        states, next_states : Tensor
            float32 ``(n, ...)``.
        actions : Tensor
            float32 ``(n, a)``.
        rewards : Tensor
            float32 ``(n,)``.

        Returns
        -------
        tuple of float
            The critic's squared error, and the mean value of the actor's actions, both before their steps.
        """
        error = nn.functional.mse_loss(self.critic(states, actions), self.targets(rewards, next_states))
        self._critic_adam.zero_grad()
        error.backward()
        self._critic_adam.step()

        value = self.critic(states, self.actor(states)).mean()
        self._actor_adam.zero_grad()
        (-value).backward()  # the critic's gradients of this pass are cleared before its next step
        self._actor_adam.step()

        soft_update(self.target_actor, self.actor, self.rate)
        soft_update(self.target_critic, self.critic, self.rate)
        return float(error.detach()), float(value.detach())

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the four networks and the states of both optimizers."""
        return {name: _copied(part.state_dict()) for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, for networks of the same architecture."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
            "actor_adam": self._actor_adam,
            "critic_adam": self._critic_adam,
        }


def _copied(value: Any) -> Any:
    """Return a copy of a state as plain dicts and lists, its tensors detached and on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value
