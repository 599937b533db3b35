"""Networks of the torch learners, their layers and their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolwright import LearnerError


class Network(nn.Module, ABC):
    """A network that ends in one linear layer, ``head``; what goes into it are the embeddings.

    Attributes
    ----------
    heads : tuple of str
        Beginnings of the names whose shapes follow from the number of classes: a file of weights may have them in
        another shape, and they keep their fresh weights then.
    optional : tuple of str
        Beginnings of the names that a file of weights may lack; they keep their fresh weights too.
    """

    head: nn.Linear
    heads: tuple[str, ...] = ("head.",)
    optional: tuple[str, ...] = ("head.",)

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Return embeddings, float ``(n, d)``, of prepared inputs."""

    @property
    def n_classes(self) -> int:
        """How many classes the network tells apart."""
        return self.head.out_features

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, float ``(n, classes)``."""
        logits: Tensor = self.head(self.features(inputs))
        return logits

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state dict of a public implementation of this network under the names used here."""
        return dict(state)


def set_batch_norm(network: nn.Module, *, training: bool) -> None:
    """Put the batch norm layers, and only these, in training or eval mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(training)


def colors(channels: int) -> nn.Module:
    """Return what gives images of any number of channels the three that a network was designed for.

    Three channels pass as they are, others go through a 1 x 1 convolution; that of grey images begins by repeating
    the grey, as is usual in front of pretrained weights.
    """
    if channels == 3:
        return nn.Identity()
    convolution = nn.Conv2d(channels, 3, 1)
    if channels == 1:
        nn.init.ones_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    return convolution


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
    except Exception as error:  # what a damaged file makes of the unpickler has no common type
        reason = str(error).partition("\n")[0]
        raise LearnerError(
            f"learner {learner}: {str(file)!r} cannot be read as weights ({type(error).__name__}: {reason})"
        ) from error
    own = network.state_dict()
    state = {
        name: value
        for name, value in network.renamed(_tensors(saved)).items()
        if not (name.startswith(network.heads) and name in own and _shape(value) != own[name].shape)
    }
    wrong = _misfits(state, own, network.optional)
    if wrong:
        raise LearnerError(
            f"learner {learner}: {str(file)!r} holds weights of another network; they differ in {', '.join(wrong[:3])}"
        )
    network.load_state_dict(state, strict=False)


def _tensors(saved: Any) -> dict[str, Any]:
    """Return the tensors by name of whatever was saved: a state dict, or something that holds one."""
    for key in ("network", "state_dict"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    named = saved if isinstance(saved, dict) else {}
    return {str(name).removeprefix("module."): value for name, value in named.items()}


def _shape(value: Any) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _misfits(state: Mapping[str, Any], own: Mapping[str, Tensor], optional: tuple[str, ...]) -> Sequence[str]:
    """Return the names that only one side has, outside ``optional``, or that differ in shape."""
    # Files from before torch 0.4.1, such as the authors' of DRN, do not count batches; nothing here reads the count.
    uncounted = (name for name in own if not name.endswith(".num_batches_tracked"))
    missing = [name for name in uncounted if name not in state and not name.startswith(optional)]
    foreign = [name for name in state if name not in own]
    changed = [name for name in state if name in own and _shape(state[name]) != own[name].shape]
    return [*missing, *foreign, *changed]
