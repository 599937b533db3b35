"""A small convolutional network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from poolwright import LearnerError

from .base import DropoutLearner
from .classification import ClassificationLearner
from .network import Network


def convolution(n_in: int, n_out: int) -> list[nn.Module]:
    """Return a 3 x 3 convolution with batch norm and ReLU."""
    return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


class CNNNetwork(Network):
    """One convolution, then two blocks of two, each after halving the image; global average pooling.

    Parameters
    ----------
    channels, n_classes : int
        Of the images.
    width : int
        Channels of the first convolution; the blocks have twice and four times as many.
    dropout : float
        Before each halving and before the head.
    """

    def __init__(self, channels: int, n_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        layers = convolution(channels, width)
        for n_in, n_out in ((width, 2 * width), (2 * width, 4 * width)):
            if dropout > 0:
                layers.append(nn.Dropout2d(dropout))
            layers += [nn.MaxPool2d(2), *convolution(n_in, n_out), *convolution(n_out, n_out)]
        self.body = nn.Sequential(*layers)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, n_classes)

    def features(self, inputs: Tensor) -> Tensor:
        """Return the last feature maps, averaged over the image."""
        # A mean, not AdaptiveAvgPool2d, whose gradient on CUDA is not deterministic.
        features: Tensor = self.drop(self.body(inputs).mean((2, 3)))
        return features


@dataclass(kw_only=True, eq=False)
class CNN(ClassificationLearner, DropoutLearner):
    """Small convolutional network with batch norm, for images of 8 x 8 pixels and more.

    Embeddings are the pooled features. Further parameters are those of
    :class:`~poolwright_plugins.learners.classification.ClassificationLearner`.

    Parameters
    ----------
    width : int
        Channels of the first convolution.
    dropout : float
        Whole channels between the blocks, units before the head; above 0 the learner provides ``dropout``.
    predict_batch_size : int
        Samples that the engine lets it predict at a time.
    """

    width: int = 16
    epochs: int = 20
    min_steps: int = 100
    batch_size: int = 64
    lr: float = 5e-3
    predict_batch_size: int = 256

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(width=1, predict_batch_size=1)

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        if len(shape) != 3 or min(shape[1:]) < 8:
            raise LearnerError(
                f"learner cnn: samples must be images (channels, height, width) of at least 8 x 8 pixels, "
                f"not {tuple(shape)}; for vectors take learner 'mlp'"
            )
        return CNNNetwork(shape[0], n_classes, self.width, self.dropout)
