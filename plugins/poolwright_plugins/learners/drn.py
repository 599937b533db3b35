"""The dilated residual network DRN-D-22 for segmentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .network import colors
from .resnet import check_image
from .segmentation import SegmentationLearner, SegmentationNetwork

RESIDUAL_LEVELS = ((4, 2, 1), (8, 2, 1), (16, 1, 2), (32, 1, 4))
"""Channels in multiples of the width, stride and dilation of levels 3 to 6, of two residual blocks each."""


def convolution(n_in: int, n_out: int, *, size: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size at stride 1, with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, padding=dilation * (size // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class DilatedBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: the basic block of ResNet, dilated.

    torchvision's block of this shape refuses dilation.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return maps of the block's channels."""
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        return F.relu(self.bn2(self.conv2(hidden)) + self.downsample(inputs))


class DRND22Network(SegmentationNetwork):
    """DRN-D-22: eight levels, of which 5 and 6 are dilated instead of strided and 7 and 8 remove the gridding.

    Layers are named as in the authors' implementation: ``layer0`` to ``layer8`` and the 1 x 1 convolution ``fc``.

    Parameters
    ----------
    channels, n_classes : int
        Of the images.
    width : int
        Channels of the first level; the last ones have 32 times as many.
    dropout : float
        Of the maps before the last layer.
    """

    heads = ("fc.",)
    optional = ("fc.", "colors.")

    def __init__(self, channels: int, n_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.colors = colors(channels)
        levels = [
            convolution(3, width, size=7),
            convolution(width, width),
            convolution(width, 2 * width, stride=2),
        ]
        n_in = 2 * width
        for multiple, stride, dilation in RESIDUAL_LEVELS:
            n_out = multiple * width
            first = DilatedBlock(n_in, n_out, stride=stride, dilation=dilation)
            levels.append(nn.Sequential(first, DilatedBlock(n_out, n_out, stride=1, dilation=dilation)))
            n_in = n_out
        levels += [convolution(n_in, n_in, dilation=2), convolution(n_in, n_in)]
        for number, level in enumerate(levels):
            self.add_module(f"layer{number}", level)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Conv2d(n_in, n_classes, 1)
        self.depth = len(levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.colors:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)
        self.guard_batch_norm()

    @property
    def n_classes(self) -> int:
        """How many classes the network tells apart."""
        return self.fc.out_channels

    def maps(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the maps of the last level, an eighth of the image's size, as ``out``."""
        hidden = self.colors(inputs)
        for number in range(self.depth):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return {"out": hidden}

    def classify(self, maps: Tensor) -> Tensor:
        """Return logits of the maps' pixels."""
        logits: Tensor = self.fc(self.drop(maps))
        return logits

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state dict of the authors' segmentation network under the names of their classifier."""
        if "seg.weight" not in state:
            return dict(state)
        named = {re.sub(r"^base\.(\d)", r"layer\1", name): value for name, value in state.items()}
        return {name.replace("seg.", "fc."): value for name, value in named.items() if not name.startswith("up.")}


@dataclass(kw_only=True, eq=False)
class DRND22(SegmentationLearner):
    """Dilated residual network D-22 for segmentation (Yu, Koltun, Funkhouser, *Dilated Residual Networks*, CVPR 2017).

    Embeddings are the mean of its last maps (512 at the full width). Grey images go through a 1 x 1 convolution to
    three channels first. Further parameters are those of
    :class:`~poolwright_plugins.learners.segmentation.SegmentationLearner` and
    :class:`~poolwright_plugins.learners.base.TorchLearner`; ``weights`` may also be a state dict of the authors'
    ``drn_d_22`` (ImageNet) or of their segmentation network.

    Parameters
    ----------
    width : int
        Channels of the first level; all others follow from it.
    dropout : float
        Of the last maps; above 0 the learner provides ``dropout``. The original has none.

    Notes
    -----
    The defaults are VAAL's for Cityscapes and BDD100K: Adam with learning rate 1e-3, batches of 8, 100 epochs. The
    authors of DRN take ``optimizer = "sgd"``, batches of 16, 250 epochs and begin from ImageNet weights. A machine
    without a GPU trains ``width = 4, epochs = 20, batch_size = 4, lr = 0.005`` on 60 scenes of 64 x 64 pixels in about
    10 seconds of one core; ``poolwright check drn-d-22`` wants ``--set width=4 --set epochs=2`` there.
    """

    width: int = 16

    name = "drn-d-22"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(width=1)

    def build(self, shape: tuple[int, ...], n_classes: int) -> SegmentationNetwork:
        """Return a network with fresh weights."""
        check_image(shape, self.name)
        return DRND22Network(shape[0], n_classes, self.width, self.dropout)
