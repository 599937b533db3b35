"""Multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from poolwright import ConfigError

from .base import DropoutLearner
from .classification import ClassificationLearner
from .network import Network


class MLPNetwork(Network):
    """Inputs, flattened, through hidden layers with ReLU and dropout."""

    def __init__(self, n_inputs: int, hidden: Sequence[int], n_classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for size in hidden:
            layers += [nn.Linear(n_inputs, size), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            n_inputs = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(n_inputs, n_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the activations of the last hidden layer."""
        hidden: Tensor = self.body(inputs)
        return hidden


@dataclass(kw_only=True, eq=False)
class MLP(ClassificationLearner, DropoutLearner):
    """Multilayer perceptron on the flattened inputs; embeddings are the last hidden layer.

    Further parameters are those of :class:`~poolwright_plugins.learners.classification.ClassificationLearner`.

    Parameters
    ----------
    hidden : sequence of int
        Sizes of the hidden layers, from the inputs on; at least one.
    dropout : float
        After each hidden layer; above 0 the learner provides ``dropout``.
    """

    hidden: Sequence[int] = (128,)
    epochs: int = 30
    min_steps: int = 200
    lr: float = 1e-2

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        if len(self.hidden) == 0 or not all(isinstance(size, int) and size > 0 for size in self.hidden):
            raise ConfigError(f"learner mlp: hidden must be a list of positive sizes, as in [128], not {self.hidden!r}")

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        return MLPNetwork(math.prod(shape), self.hidden, n_classes, self.dropout)
