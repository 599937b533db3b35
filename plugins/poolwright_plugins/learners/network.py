"""Networks of the torch learners, their layers and their weights."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolwright import LearnerError


class Network(nn.Module, ABC):
    """A network that ends in one linear layer, ``head``; what goes into it are the embeddings."""

    head: nn.Linear

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Return embeddings, float ``(n, d)``, of prepared inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, float ``(n, classes)``."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


def set_batch_norm(network: nn.Module, *, training: bool) -> None:
    """Put the batch norm layers, and only these, in training or eval mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(training)


def load_weights(network: Network, path: str | None, learner: str) -> None:
    """Load weights from a file into ``network``; a head of another shape keeps its fresh weights.

    Raises
    ------
    LearnerError
        No path, no file, a damaged file, or weights of another network.
    """
    if path is None:
        raise LearnerError(f"learner {learner}: start = 'pretrained' needs the parameter weights, the path of a file")
    file = Path(path).expanduser()
    if not file.is_file():
        raise LearnerError(f"learner {learner}: there is no weights file {str(file)!r}")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise LearnerError(
            f"learner {learner}: {str(file)!r} cannot be read as weights ({type(error).__name__}: {reason})"
        ) from error
    state = saved.get("network", saved) if isinstance(saved, dict) else {}
    own = network.state_dict()
    state = {
        name: value
        for name, value in state.items()
        if not (name.startswith("head.") and isinstance(value, Tensor) and value.shape != own[name].shape)
    }
    wrong = _misfits(state, own)
    if wrong:
        raise LearnerError(
            f"learner {learner}: {str(file)!r} holds weights of another network; they differ in {', '.join(wrong[:3])}"
        )
    network.load_state_dict(state, strict=False)


def _misfits(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> Sequence[str]:
    """Return the names, outside the head, that only one side has or that differ in shape."""
    missing = [name for name in own if name not in state and not name.startswith("head.")]
    foreign = [name for name in state if name not in own]
    changed = [name for name in state if name in own and getattr(state[name], "shape", None) != own[name].shape]
    return [*missing, *foreign, *changed]
