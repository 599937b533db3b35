"""What the torch learners of classes share: the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from poolwright import ConfigError

from .base import TorchLearner
from .network import Network
from .superloss import super_cross_entropy


@dataclass(kw_only=True, eq=False)
class ClassificationLearner(TorchLearner):
    """A classifier trained with cross entropy, or SuperLoss on it; subclasses say which network in :meth:`build`.

    Further parameters are those of :class:`~poolwright_plugins.learners.base.TorchLearner`.

    Parameters
    ----------
    loss : {"cross-entropy", "superloss"}
        What is minimised: the mean cross entropy, or its SuperLoss, which gives samples with a small loss more weight
        (Castells et al., NeurIPS 2020; see ``bral-t``).
    lam : float
        SuperLoss's lambda, above 0: the larger, the less it does.
    """

    loss: str = "cross-entropy"
    lam: float = 1.0
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_choice("loss", ("cross-entropy", "superloss"))
        if not isinstance(self.lam, (int, float)) or not 0 < self.lam < math.inf:
            raise ConfigError(f"learner {self.name}: lam must be a number above 0, not {self.lam!r}")

    def _loss(self, network: Network, inputs: Tensor, labels: Tensor) -> Tensor:
        logits = network(inputs)
        if self.loss == "superloss":
            return super_cross_entropy(logits, labels, self.lam)
        return F.cross_entropy(logits, labels)
