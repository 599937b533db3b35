"""R_phi: the network that predicts what an action cluster is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolwright import ConfigError, streams


class RewardNetwork(nn.Module):
    """Two hidden layers with ReLU: state and action in, reward out (BRAL-T, equation 9 and appendix B).

    Embeddings are taken relative to a center, in units of a scale, so that one learning rate does for learners whose
    embeddings differ in size; rewards, being distances, are in units of scale sqrt(d). One scale for all coordinates
    keeps the order of the distances.

    Parameters
    ----------
    d : int
        Length of the embeddings; an input has 6 d entries, means and variances in turn.
    hidden : int
        Units of each hidden layer.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6 * d, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        self.register_buffer("center", torch.zeros(d))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def fresh(cls, x: Tensor, hidden: int) -> RewardNetwork:
        """Return a network with fresh weights, with center and scale of the embeddings ``x`` (n, d), on their device.

        The center is their mean, the scale the root mean square of the differences from it (1 where there are none).
        """
        network = cls(x.shape[1], hidden).to(x.device)
        network.center.copy_(x.mean(0))
        scale = float((x - network.center).double().square().mean().sqrt())
        network.scale.fill_(scale or 1)
        return network

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> RewardNetwork:
        """Return a network with the weights that ``state_dict`` gave."""
        with streams.seeded("bral-t", "restore"):  # fresh weights, about to be replaced, must not cost draws
            network = cls(len(state["center"]), len(state["layers.0.bias"]))
        network.load_state_dict(dict(state))
        return network

    @property
    def unit(self) -> Tensor:
        """What a reward of 1 inside the network is outside: scale sqrt(d)."""
        return self.scale * math.sqrt(len(self.center))

    def standardized(self, inputs: Tensor) -> Tensor:
        """Return inputs ``(n, 6 d)`` relative to the center, in units of the scale (variances: of its square)."""
        blocks = inputs.reshape(len(inputs), 3, 2, len(self.center))
        means = (blocks[:, :, 0] - self.center) / self.scale
        variances = blocks[:, :, 1] / self.scale.square()
        return torch.stack([means, variances], dim=2).flatten(1)

    def forward(self, standardized: Tensor) -> Tensor:
        """Return rewards in units of :attr:`unit`, float32 ``(n,)``, for :meth:`standardized` inputs."""
        out: Tensor = self.layers(standardized)
        return out.squeeze(1)

    def predict(self, inputs: Tensor) -> Tensor:
        """Return the rewards that are expected, float32 ``(n,)``, for inputs ``(n, 6 d)``."""
        with torch.no_grad():
            rewards: Tensor = self(self.standardized(inputs)) * self.unit
            return rewards


class RewardTrainer:
    """Fits a reward network to a buffer of what actions were worth (BRAL-T, equation 10).

    Parameters
    ----------
    network : RewardNetwork
    lr : float
        Of SGD.
    minibatch : int
        Pairs a step, drawn with replacement.
    capacity : int
        Pairs that the buffer holds; the oldest go first.
    generator : torch.Generator
        For the draws, on the CPU.
    """

    def __init__(
        self, network: RewardNetwork, *, lr: float, minibatch: int, capacity: int, generator: torch.Generator
    ) -> None:
        self._network = network
        self._optimizer = torch.optim.SGD(network.parameters(), lr=lr, fused=True)
        self._lr = lr
        self._minibatch = minibatch
        self._capacity = capacity
        self._generator = generator
        device = network.center.device
        self._inputs = torch.empty(0, 6 * len(network.center), device=device)
        self._rewards = torch.empty(0, device=device)

    def __len__(self) -> int:
        """Return how many pairs the buffer holds."""
        return len(self._rewards)

    def add(self, inputs: Tensor, rewards: Tensor) -> None:
        """Take pairs of (state and action, reward) into the buffer."""
        self._inputs = torch.cat([self._inputs, self._network.standardized(inputs)])[-self._capacity :]
        self._rewards = torch.cat([self._rewards, rewards / self._network.unit])[-self._capacity :]

    def fit(self, steps: int) -> float:
        """Take ``steps`` steps down the mean squared error; return its mean over them, in squared units.

        Raises
        ------
        ConfigError
            The error became NaN or infinite.
        """
        total = torch.zeros((), device=self._rewards.device)
        for _ in range(steps):
            rows = torch.randint(len(self), (self._minibatch,), generator=self._generator).to(self._rewards.device)
            loss = F.mse_loss(self._network(self._inputs[rows]), self._rewards[rows])
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        mean = float(total) / steps
        if not math.isfinite(mean):
            raise ConfigError(f"bral-t: the error of the reward network became {mean}: lower lr (now {self._lr:g})")
        return mean
