"""ResNet-18 for classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from poolwright import LearnerError

from .base import DropoutLearner
from .classification import ClassificationLearner
from .network import Network, colors

SMALL = 64
"""Images whose longer side is below this count as small where an option says ``"auto"``."""


class ResNet18Network(Network):
    """torchvision's ResNet-18 without its last layer, dropout, and a head.

    Parameters
    ----------
    channels, n_classes : int
        Of the images.
    small : bool
        Begin with a 3 x 3 convolution of stride 1, which takes any number of channels, and no max pooling; else with
        torchvision's own stem, in front of which other images than those of three channels go through a 1 x 1
        convolution.
    dropout : float
        Before the head.
    """

    optional = ("head.", "colors.")

    def __init__(self, channels: int, n_classes: int, small: bool, dropout: float) -> None:
        super().__init__()
        from torchvision.models import resnet18  # it takes a second to import

        self.body = resnet18()
        self.colors: nn.Module = nn.Identity() if small else colors(channels)
        if small:
            self.body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.body.maxpool = nn.Identity()
        self.head = nn.Linear(self.body.fc.in_features, n_classes)
        self.body.fc = nn.Dropout(dropout)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the last feature maps, averaged over the image: ``(n, 512)``."""
        features: Tensor = self.body(self.colors(inputs))
        return features

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return torchvision's state dict, whose ``fc`` is the head here, under the names used here."""
        if "conv1.weight" not in state:
            return dict(state)
        heads = {"fc.weight": "head.weight", "fc.bias": "head.bias"}
        return {heads.get(name, f"body.{name}"): value for name, value in state.items()}


@dataclass(kw_only=True, eq=False)
class ResNet18(ClassificationLearner, DropoutLearner):
    """ResNet-18, for images of 8 x 8 pixels and more (He et al., CVPR 2016; torchvision's network).

    Embeddings are the 512 pooled features. Further parameters are those of
    :class:`~poolwright_plugins.learners.classification.ClassificationLearner`; ``weights`` may also be a state dict
    of torchvision's ``resnet18``, as its ImageNet weights are.

    Parameters
    ----------
    stem : {"auto", "small", "standard"}
        What the network begins with. ``"small"``: a 3 x 3 convolution of stride 1 and no max pooling, as is usual for
        CIFAR. ``"standard"``: torchvision's 7 x 7 convolution of stride 2 and max pooling, which is about 15 times
        cheaper; grey images go through a 1 x 1 convolution to three channels first. ``"auto"`` takes the small one
        for images of less than 64 pixels.
    dropout : float
        Before the head; above 0 the learner provides ``dropout``.
    predict_batch_size : int
        Samples that the engine lets it predict at a time.

    Notes
    -----
    The defaults are BRAL-T's for CIFAR-10: Adam with learning rate 1e-3, batches of 128, 50 epochs (40 for
    Fashion-MNIST, with ``stem = "standard"``). VAAL and SRAAL name 100 epochs, batches of 64 and 5e-4.
    """

    stem: str = "auto"
    epochs: int = 50
    batch_size: int = 128
    predict_batch_size: int = 256

    name = "resnet18"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(predict_batch_size=1)
        self._check_choice("stem", ("auto", "small", "standard"))

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        check_image(shape, self.name)
        small = max(shape[1:]) < SMALL if self.stem == "auto" else self.stem == "small"
        return ResNet18Network(shape[0], n_classes, small, self.dropout)


def check_image(shape: tuple[int, ...], learner: str) -> None:
    """Refuse samples that are no images of at least 8 x 8 pixels."""
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise LearnerError(
            f"learner {learner}: samples must be images (channels, height, width) of at least 8 x 8 pixels, "
            f"not {tuple(shape)}"
        )
