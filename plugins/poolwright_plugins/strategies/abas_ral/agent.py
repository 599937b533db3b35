"""The BatchAgent: a double deep Q-network over batch sizes, with prioritised replay."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolwright import ConfigError

from ...rl.replay import PrioritizedReplay
from ...rl.updates import double_dqn_target, soft_update
from .rules import scaled


class QNetwork(nn.Module):
    """Q(s, k): the state through a hidden layer, then the batch size beside it through another, both sigmoid.

    The sizes are those of LAL-RL, the code that ABAS-RAL builds on.

    Parameters
    ----------
    n_state : int
        Length of a state.
    hidden : (int, int)
        Units of the two hidden layers.
    """

    def __init__(self, n_state: int, hidden: tuple[int, int] = (10, 5)) -> None:
        super().__init__()
        self.state = nn.Linear(n_state, hidden[0])
        self.both = nn.Linear(hidden[0] + 1, hidden[1])
        self.out = nn.Linear(hidden[1], 1)

    def forward(self, states: Tensor, sizes: Tensor) -> Tensor:
        """Return values, float32 ``(n, a)``, of batch sizes ``(n, a)``, scaled, in states ``(n, m)``."""
        seen = torch.sigmoid(self.state(states))[:, None].expand(-1, sizes.shape[1], -1)
        both = torch.sigmoid(self.both(torch.cat([seen, sizes[..., None]], dim=2)))
        values: Tensor = self.out(both)
        return values.squeeze(2)


class BatchAgent:
    """Learns what batch sizes are worth (ABAS-RAL, sections 3.4, 3.9 and 3.10).

    Rewards are kept in units of ``unit``, so that one learning rate does for data sets whose rewards differ by orders
    of magnitude; that changes no order among actions.

    Parameters
    ----------
    n_state : int
        Length of a state.
    bias, unit : float
        Of the output layer at the start (the mean reward of the warm start, section 3.10), and of rewards, above 0.
    lr, gamma, rate : float
        Learning rate of Adam, discount, and rate of the target network.
    capacity : int
        Transitions in the replay buffer.
    exponent : float
        Of the priorities.
    minibatch : int
        Transitions a step.
    """

    def __init__(
        self,
        n_state: int,
        *,
        bias: float,
        unit: float,
        lr: float,
        gamma: float,
        rate: float,
        capacity: int,
        exponent: float,
        minibatch: int,
    ) -> None:
        self.n_state, self.unit = n_state, unit
        self.online, self.target = QNetwork(n_state), QNetwork(n_state)
        nn.init.constant_(self.online.out.bias, bias / unit)
        soft_update(self.target, self.online, 1)
        self._adam = torch.optim.Adam(self.online.parameters(), lr=lr)
        self._lr, self._gamma, self._rate, self._minibatch = lr, gamma, rate, minibatch
        fields = {
            "state": ((n_state,), torch.float16),
            "size": ((), torch.float32),
            "reward": ((), torch.float32),
            "next_state": ((n_state,), torch.float16),
            "next_largest": ((), torch.int64),
            "terminal": ((), torch.bool),
        }
        self.replay = PrioritizedReplay(capacity, fields, exponent=exponent)

    def values(self, state: Tensor, largest: int) -> Tensor:
        """Return what batches of ``1..largest`` samples are expected to be worth, float32 ``(largest,)``."""
        with torch.no_grad():
            values: Tensor = self.online(state[None], scaled(torch.arange(1, largest + 1), largest)[None])[0]
        return values * self.unit

    def best(self, state: Tensor, largest: int) -> int:
        """Return the batch size of the highest value; of equal ones the smallest."""
        return int(self.values(state, largest).argmax()) + 1

    def remember(
        self,
        state: Tensor,
        k: int,
        largest: int,
        reward: float,
        next_state: Tensor,
        next_largest: int,
        *,
        terminal: bool,
    ) -> None:
        """Store a transition: of ``largest`` possible samples ``k`` were asked for; next there are ``next_largest``."""
        self.replay.add(
            state=state,
            size=scaled(k, largest),
            reward=reward / self.unit,
            next_state=next_state,
            next_largest=next_largest,
            terminal=terminal,
        )

    def targets(self, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the targets of stored transitions, ``(n,)``, in units of :attr:`unit` (double DQN)."""
        largest = drawn["next_largest"]
        widest = int(largest.max())
        counts = torch.arange(1, widest + 1)
        allowed = counts <= largest[:, None]
        sizes = scaled(counts, largest[:, None])
        with torch.no_grad():
            online = self.online(drawn["next_state"], sizes)
            target = self.target(drawn["next_state"], sizes)
        return double_dqn_target(drawn["reward"], online, target, drawn["terminal"], gamma=self._gamma, allowed=allowed)

    def learn(self, steps: int, generator: torch.Generator) -> float:
        """Take ``steps`` steps from the replay buffer; return the mean squared error over them.

        Raises
        ------
        ConfigError
            The network diverged.
        """
        total = 0.0
        for _ in range(steps):
            slots, drawn = self.replay.sample(self._minibatch, generator)
            values = self.online(drawn["state"], drawn["size"][:, None]).squeeze(1)
            goal = self.targets(drawn)
            loss = F.mse_loss(values, goal)
            error = float(loss.detach())
            if not math.isfinite(error):
                raise ConfigError(f"abas-ral: the Q-network diverged (NaN or infinity): lower lr, now {self._lr:g}")
            self._adam.zero_grad(set_to_none=True)
            loss.backward()
            self._adam.step()
            soft_update(self.target, self.online, self._rate)
            self.replay.update(slots, (goal - values).detach())
            total += error
        return total / steps

    def state_dict(self, *, training: bool) -> dict[str, Any]:
        """Return the networks, and with ``training`` the optimizer and the replay buffer."""
        state: dict[str, Any] = {"n_state": self.n_state, "unit": self.unit, "online": _copied(self.online)}
        if training:
            state |= {
                "target": _copied(self.target),
                "adam": copy.deepcopy(self._adam.state_dict()),
                "replay": self.replay.state_dict(),
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave to an agent with the same parameters."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state.get("target", state["online"]))
        if "adam" in state:
            self._adam.load_state_dict(copy.deepcopy(dict(state["adam"])))
            self.replay.load_state_dict(state["replay"])


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
