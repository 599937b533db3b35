"""Multinomial logistic regression."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from .classification import ClassificationLearner
from .network import Network


class LinearNetwork(Network):
    """Inputs, flattened, into one linear layer."""

    def __init__(self, n_inputs: int, n_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(n_inputs, n_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the flattened inputs."""
        return inputs.flatten(1)


@dataclass(kw_only=True, eq=False)
class Linear(ClassificationLearner):
    """Multinomial logistic regression on the flattened inputs, which are the embeddings too.

    Parameters are those of :class:`~poolwright_plugins.learners.classification.ClassificationLearner`.
    """

    epochs: int = 30
    min_steps: int = 200
    lr: float = 1e-2

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        return LinearNetwork(math.prod(shape), n_classes)
