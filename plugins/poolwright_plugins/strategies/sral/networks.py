"""SRAL's actor and critic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...rl.updates import DDPG

HIDDEN = {"mlp": (256, 128, 64, 32), "conv": (128, 64)}
"""Hidden layers by kind of network: five fully connected layers in all (section 4.1), or three behind the
convolutions (section 2.2). The paper gives no widths."""
CHANNELS = (8, 16)
LAST_LAYER = 3e-3
"""Bound of the last layers' first weights (Lillicrap et al. 2016, section 7): the noise decides the first actions."""


class Actor(nn.Module):
    """States to actions in (-1, 1).

    Parameters
    ----------
    shape : (int, int)
        Samples of a chunk, and length of their features.
    n_actions : int
    net : {"mlp", "conv"}
    hidden : sequence of int
        Sizes of the hidden fully connected layers.
    """

    def __init__(self, shape: tuple[int, int], n_actions: int, net: str, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body, width = body(shape, net)
        self.head = perceptron([width, *hidden, n_actions])

    def forward(self, states: Tensor) -> Tensor:
        """Return actions ``(batch, n_actions)`` for states ``(batch, n, d)``."""
        actions: Tensor = self.head(self.body(states)).tanh()
        return actions


class Critic(nn.Module):
    """States and actions to values; parameters as for :class:`Actor`."""

    def __init__(self, shape: tuple[int, int], n_actions: int, net: str, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body, width = body(shape, net)
        self.head = perceptron([width + n_actions, *hidden, 1])

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return Q ``(batch,)`` for states ``(batch, n, d)`` and actions ``(batch, n_actions)``."""
        values: Tensor = self.head(torch.cat([self.body(states), actions], 1)).squeeze(1)
        return values


def body(shape: tuple[int, int], net: str) -> tuple[nn.Module, int]:
    """Return what turns states ``(batch, n, d)`` into vectors, and their length."""
    if net == "mlp":
        return nn.Flatten(), math.prod(shape)
    first, second = CHANNELS
    pooled = math.ceil(shape[0] / 2) * math.ceil(shape[1] / 2)
    layers = nn.Sequential(
        nn.Unflatten(1, (1, shape[0])),
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
    )
    return layers, second * pooled


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Return fully connected layers with ReLU between them; the last one starts close to zero."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    layers.pop()
    for parameter in layers[-1].parameters():
        nn.init.uniform_(parameter, -LAST_LAYER, LAST_LAYER)
    return nn.Sequential(*layers)


def agent(
    shape: tuple[int, int],
    n_actions: int,
    net: str,
    hidden: Sequence[int] | None,
    *,
    lr: float,
    gamma: float,
    rate: float,
) -> DDPG:
    """Return actor, critic and targets with fresh weights, on the CPU (they are small beside any learner)."""
    sizes = HIDDEN[net] if hidden is None else tuple(hidden)
    actors = [Actor(shape, n_actions, net, sizes) for _ in range(2)]
    critics = [Critic(shape, n_actions, net, sizes) for _ in range(2)]
    return DDPG(actors[0], critics[0], actors[1], critics[1], lr=lr, gamma=gamma, rate=rate)
