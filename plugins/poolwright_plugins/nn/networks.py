"""Convolutional encoders and decoders for any image size, and the discriminator.

Layers and widths are those of VAAL (Sinha, Ebrahimi and Darrell, ICCV 2019) and of its authors' code at 32 x 32
pixels; what other sizes need follows from :func:`image_stages`.

Weights are drawn as in the authors' code: those of convolutions and linear layers from Kaiming's normal distribution,
with biases of 0; those of transposed convolutions, and of the heads for mu and log variance, from torch's own, smaller,
uniform one, so that variances begin near 1.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

LARGEST_MAP = 8
"""Longest side that the last feature map may have, in pixels."""
WIDEST = 8
"""Channels of the widest convolution, in multiples of ``width``."""


class ImageShape(NamedTuple):
    """Shape of one image."""

    channels: int
    height: int
    width: int


def image_stages(height: int, width: int) -> int:
    """Return how many halvings an image of ``height`` x ``width`` pixels goes through.

    The papers' four at 28, 32 and 64 pixels; fewer where the shorter side would end below 2 pixels (two at 8), more
    until the longer side ends at 8 or less (five at 220 and 224, seven at 688).
    """
    stages = min(4, max(1, round(math.log2(max(2, min(height, width)) / 2))))
    return max(stages, math.ceil(math.log2(max(height, width) / LARGEST_MAP)))


def stage_channels(width: int, stages: int) -> list[int]:
    """Return the channels after each halving: ``width`` times 1, 2, 4, 8, 8, ..."""
    return [width * min(2**stage, WIDEST) for stage in range(stages)]


class Frame(NamedTuple):
    """How images are padded to a multiple of what the halvings need."""

    rows: int
    """Of the last feature map."""
    columns: int
    padding: tuple[int, int, int, int]
    """Pixels added left, right, above and below."""

    @classmethod
    def of(cls, height: int, width: int) -> Frame:
        """Return the frame of images of ``height`` x ``width`` pixels."""
        unit = 2 ** image_stages(height, width)
        rows, columns = -(-height // unit), -(-width // unit)
        tall, wide = rows * unit - height, columns * unit - width
        return cls(rows, columns, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


def kaiming(network: nn.Module) -> None:
    """Draw fresh weights of convolutions and linear layers, not of transposed ones, from Kaiming's distribution."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Trunk(nn.Module):
    """Stages of [4 x 4 convolution with stride 2, batch norm, ReLU], then all in one row.

    Parameters
    ----------
    shape : ImageShape
    width : int
        Channels of the first stage.

    Attributes
    ----------
    features : int
        Length of what comes out: 4096 for 32 x 32 pixels and width 128.
    """

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        self.frame = Frame.of(shape.height, shape.width)
        channels = stage_channels(width, image_stages(shape.height, shape.width))
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise([shape.channels, *channels]):
            layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out)]
            layers.append(nn.ReLU(inplace=True))
        self.stages = nn.Sequential(*layers)
        self.features = channels[-1] * self.frame.rows * self.frame.columns
        kaiming(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return features, float ``(n, features)``, of images ``(n, channels, height, width)``."""
        padded = F.pad(images, self.frame.padding, mode="replicate") if any(self.frame.padding) else images
        maps: Tensor = self.stages(padded)
        return maps.flatten(1)


class GaussianHead(nn.Module):
    """Two linear layers: mean and log variance of a diagonal Gaussian over the latent space."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.mu = nn.Linear(features, latent)
        self.logvar = nn.Linear(features, latent)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log sigma^2, float32 ``(n, latent)`` each (also under autocast)."""
        return self.mu(features).float(), self.logvar(features).float()


class Encoder(nn.Module):
    """q(z | x): a trunk and one Gaussian head."""

    def __init__(self, shape: ImageShape, width: int, latent: int) -> None:
        super().__init__()
        self.trunk = Trunk(shape, width)
        self.head = GaussianHead(self.trunk.features, latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log sigma^2, float32 ``(n, latent)`` each."""
        mu, logvar = self.head(self.trunk(images))
        return mu, logvar


class Decoder(nn.Module):
    """The trunk mirrored: latent vectors to images, or to any number of maps of the images' size.

    A linear layer to a map of twice the trunk's last one, stages of [4 x 4 transposed convolution with stride 2,
    batch norm, ReLU], a 1 x 1 transposed convolution; the padding of the trunk is cut off.

    Parameters
    ----------
    shape : ImageShape
        Of what comes out: the images' height and width, and any number of channels.
    width : int
        As of the trunk.
    latent : int
        Length of the latent vectors.
    """

    def __init__(self, shape: ImageShape, width: int, latent: int) -> None:
        super().__init__()
        self.shape = shape
        frame = Frame.of(shape.height, shape.width)
        channels = stage_channels(width, image_stages(shape.height, shape.width))[::-1]
        self.top, self.left = frame.padding[2], frame.padding[0]
        self.start = (channels[0], 2 * frame.rows, 2 * frame.columns)
        self.expand = nn.Linear(latent, math.prod(self.start))
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out)]
            layers.append(nn.ReLU(inplace=True))
        self.stages = nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], shape.channels, 1))
        kaiming(self)

    def forward(self, z: Tensor) -> Tensor:
        """Return maps, float ``(n, channels, height, width)``, of latent vectors ``(n, latent)``."""
        maps: Tensor = self.stages(self.expand(z).reshape(len(z), *self.start))
        return maps[..., self.top : self.top + self.shape.height, self.left : self.left + self.shape.width]


class MLP(nn.Module):
    """Two hidden layers of 512 units with ReLU.

    Parameters
    ----------
    n_in, n_out : int
        Length of the inputs and of the outputs.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_in, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, n_out),
        )
        kaiming(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs, float32 ``(n, n_out)`` (also under autocast)."""
        outputs: Tensor = self.layers(inputs)
        return outputs.float()


class Discriminator(nn.Module):
    """D: the logit of "labeled" for each latent vector, by an MLP with layers n_in-512-512-1.

    The paper counts five layers, activations included. There is no sigmoid at the end: 1 - sigmoid is 0 in float32
    beyond 17, and losses on logits stay finite.
    """

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.mlp = MLP(n_in, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Return logits, float32 ``(n,)``."""
        logits: Tensor = self.mlp(z)
        return logits.squeeze(1)


class ImageDiscriminator(nn.Module):
    """D on images: the encoder's trunk, then the discriminator's MLP (ablation "no VAE")."""

    def __init__(self, shape: ImageShape, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(shape, width)
        self.discriminator = Discriminator(self.trunk.features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, float32 ``(n,)``."""
        logits: Tensor = self.discriminator(self.trunk(images))
        return logits
