"""VGG-16 for classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .base import DropoutLearner
from .classification import ClassificationLearner
from .network import Network, colors
from .resampling import average_to
from .resnet import SMALL, check_image

BLOCKS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of the convolutions, in multiples of the width; each block ends in a max pooling."""
POOLED = 7
"""Side of the maps that the standard classifier reads."""


class VGG16Network(Network):
    """VGG-16 (configuration D), named as in torchvision, with one of two classifiers.

    Poolings keep what is left over at the edge (``ceil_mode``), so that images of any size pass; at multiples of 32
    pixels they are the original ones.

    Parameters
    ----------
    channels, n_classes : int
        Of the images.
    width : int
        Channels of the first convolutions.
    small : bool
        Average the last maps and put two layers of 8 times the width on them; else pool them to 7 x 7 and put the
        two layers of 64 times the width of the original on them.
    batch_norm : bool
        After each convolution.
    dropout : float
        After each of the two layers.
    """

    optional = ("head.", "hidden.", "colors.")

    def __init__(
        self, channels: int, n_classes: int, *, width: int, small: bool, batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.colors = colors(channels)
        self.small = small
        layers: list[nn.Module] = []
        n_in = 3
        for block in BLOCKS:
            for n_out in (width * multiple for multiple in block):
                layers.append(nn.Conv2d(n_in, n_out, 3, padding=1))
                layers += [nn.BatchNorm2d(n_out)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                n_in = n_out
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.body = nn.Sequential(*layers)
        hidden = 8 * width if small else 64 * width
        self.hidden = nn.Sequential(
            nn.Linear(n_in if small else n_in * POOLED**2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear) and not small:
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the activations of the last hidden layer."""
        maps = self.body(self.colors(inputs))
        features: Tensor = self.hidden(maps.mean((2, 3)) if self.small else average_to(maps, POOLED).flatten(1))
        return features

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return torchvision's state dict under the names used here; the small classifier has no weights there."""
        if "features.0.weight" not in state:
            return dict(state)
        named = {}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            if part == "features":
                named[f"body.{rest}"] = value
            elif part != "classifier":
                named[name] = value
            elif not self.small:
                named[rest.replace("6.", "head.") if rest.startswith("6.") else f"hidden.{rest}"] = value
        return named


@dataclass(kw_only=True, eq=False)
class VGG16(ClassificationLearner, DropoutLearner):
    """VGG-16, for images of 8 x 8 pixels and more (Simonyan and Zisserman, ICLR 2015; named as in torchvision).

    Embeddings are the last hidden layer. Grey images go through a 1 x 1 convolution to three channels first. Further
    parameters are those of :class:`~poolwright_plugins.learners.classification.ClassificationLearner`; ``weights`` may
    also be a state dict of torchvision's ``vgg16`` or ``vgg16_bn``, of which the small classifier takes the
    convolutions only.

    Parameters
    ----------
    classifier : {"auto", "small", "standard"}
        What stands on the convolutions. ``"standard"``: 7 x 7 maps into two layers of 4096 units. ``"small"``: their
        mean into two layers of 512, as is usual for CIFAR. ``"auto"`` takes the small one for images of less than 64
        pixels.
    batch_norm : bool
        After each convolution (``vgg16_bn``, which the authors of VAAL train). Without it, training from fresh weights
        may not get going.
    width : int
        Channels of the first convolutions; all others follow from it.
    dropout : float
        After both hidden layers; above 0 the learner provides ``dropout``.
    predict_batch_size : int
        Samples that the engine lets it predict at a time.

    Notes
    -----
    The defaults are VAAL's: Adam with learning rate 5e-4, batches of 64, 100 epochs.
    """

    classifier: str = "auto"
    batch_norm: bool = True
    width: int = 64
    dropout: float = 0.5
    epochs: int = 100
    batch_size: int = 64
    lr: float = 5e-4
    predict_batch_size: int = 128

    name = "vgg16"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(width=1, predict_batch_size=1)
        self._check_choice("classifier", ("auto", "small", "standard"))

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        check_image(shape, self.name)
        small = max(shape[1:]) < SMALL if self.classifier == "auto" else self.classifier == "small"
        return VGG16Network(
            shape[0],
            n_classes,
            width=self.width,
            small=small,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
        )
