"""torchvision's segmentation networks on a dilated ResNet-50: FCN and DeepLabv3."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from poolwright import ConfigError

from .base import is_number
from .network import colors
from .resampling import upsample_bilinear
from .resnet import check_image
from .segmentation import SegmentationLearner, SegmentationNetwork, pixel_cross_entropy


class ImagePooling(nn.Sequential):
    """The image pooling of DeepLabv3: layers on the mean of the maps, repeated over the image.

    torchvision repeats by bilinear upsampling, whose gradient on CUDA is not deterministic.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the size of ``maps`` that are the same everywhere."""
        pooled: Tensor = super().forward(maps)
        return pooled.expand(-1, -1, *maps.shape[2:])


class ResNet50SegmentationNetwork(SegmentationNetwork):
    """A segmentation network of torchvision, with its names: ``backbone``, ``classifier``, ``aux_classifier``.

    Parameters
    ----------
    model : nn.Module
        What torchvision made.
    channels : int
        Of the images.
    dropout : float
        Of the classifier.
    """

    heads = ("classifier.4.", "aux_classifier.4.")
    optional = ("classifier.", "aux_classifier.", "colors.")

    def __init__(self, model: nn.Module, channels: int, dropout: float) -> None:
        super().__init__()
        self.colors = colors(channels)
        self.backbone = model.backbone
        self.classifier = model.classifier
        self.aux_classifier = model.aux_classifier
        for module in self.classifier.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        self.guard_batch_norm()

    @property
    def n_classes(self) -> int:
        """How many classes the network tells apart."""
        return self.classifier[-1].out_channels

    def maps(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the maps of the last stage as ``out``, those of the one before as ``aux``: an eighth of the image."""
        maps: dict[str, Tensor] = self.backbone(self.colors(inputs))
        return maps

    def classify(self, maps: Tensor) -> Tensor:
        """Return logits of the maps' pixels."""
        logits: Tensor = self.classifier(maps)
        return logits

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state dict of torchvision's segmentation network, or of its ``resnet50`` as the backbone."""
        if "conv1.weight" in state:
            return {f"backbone.{name}": value for name, value in state.items() if not name.startswith("fc.")}
        without = "aux_classifier." if self.aux_classifier is None else ()
        return {name: value for name, value in state.items() if not name.startswith(without)}


@dataclass(kw_only=True, eq=False)
class ResNet50SegmentationLearner(SegmentationLearner):
    """A segmentation learner on torchvision's dilated ResNet-50.

    Parameters
    ----------
    aux_weight : float
        Weight of the loss of an auxiliary classifier on the last stage but one; 0 leaves that classifier out.
    """

    aux_weight: float = 0.5

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        if not (is_number(self.aux_weight) and self.aux_weight >= 0):
            raise ConfigError(f"learner {self.name}: aux_weight must be 0 or more, not {self.aux_weight!r}")

    def _loss_of(self, network: SegmentationNetwork, maps: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        loss = super()._loss_of(network, maps, labels)
        if "aux" in maps:
            logits = upsample_bilinear(network.get_submodule("aux_classifier")(maps["aux"]), labels.shape[1:])
            loss = loss + self.aux_weight * pixel_cross_entropy(logits, labels)
        return loss

    @abstractmethod
    def model(self, n_classes: int) -> nn.Module:
        """Return torchvision's network with fresh weights."""

    def build(self, shape: tuple[int, ...], n_classes: int) -> SegmentationNetwork:
        """Return a network with fresh weights."""
        check_image(shape, self.name)
        return ResNet50SegmentationNetwork(self.model(n_classes), shape[0], self.dropout)


@dataclass(kw_only=True, eq=False)
class FCNResNet50(ResNet50SegmentationLearner):
    """Fully convolutional network on ResNet-50 for segmentation (Long et al., CVPR 2015; torchvision's network).

    Embeddings are the mean of the backbone's 2048 last maps. Grey images go through a 1 x 1 convolution to three
    channels first. Further parameters are those of
    :class:`~poolwright_plugins.learners.segmentation.SegmentationLearner` and
    :class:`~poolwright_plugins.learners.base.TorchLearner`; ``weights`` may also be a state dict of torchvision's
    ``fcn_resnet50``, or of its ``resnet50`` (ImageNet), which gives the backbone.

    Parameters
    ----------
    dropout : float
        Before the classifier's last layer; above 0 the learner provides ``dropout``.

    Notes
    -----
    torchvision's own recipe is ``optimizer = "sgd"``, ``schedule = "poly"``, ``lr = 0.02``, 30 epochs, batches of 32,
    from ImageNet weights. The defaults are VAAL's for DRN.
    """

    dropout: float = 0.1

    name = "fcn-resnet50"

    def model(self, n_classes: int) -> nn.Module:
        """Return torchvision's network with fresh weights."""
        from torchvision.models.segmentation import fcn_resnet50  # it takes a second to import

        return fcn_resnet50(weights=None, weights_backbone=None, num_classes=n_classes, aux_loss=self.aux_weight > 0)


@dataclass(kw_only=True, eq=False)
class DeepLabV3ResNet50(ResNet50SegmentationLearner):
    """DeepLabv3 on ResNet-50 for segmentation (Chen et al., arXiv 1706.05587, 2017; torchvision's network).

    Embeddings are the mean of the backbone's 2048 last maps. Grey images go through a 1 x 1 convolution to three
    channels first. Further parameters are those of
    :class:`~poolwright_plugins.learners.segmentation.SegmentationLearner` and
    :class:`~poolwright_plugins.learners.base.TorchLearner`; ``weights`` may also be a state dict of torchvision's
    ``deeplabv3_resnet50``, or of its ``resnet50`` (ImageNet), which gives the backbone.

    Parameters
    ----------
    dropout : float
        After the spatial pyramid; above 0 the learner provides ``dropout``.

    Notes
    -----
    torchvision's own recipe is ``optimizer = "sgd"``, ``schedule = "poly"``, ``lr = 0.02``, 30 epochs, batches of 32,
    from ImageNet weights. The defaults are VAAL's for DRN.
    """

    dropout: float = 0.5

    name = "deeplabv3-resnet50"

    def model(self, n_classes: int) -> nn.Module:
        """Return torchvision's network with fresh weights."""
        from torchvision.models.segmentation import deeplabv3_resnet50  # it takes a second to import

        model = deeplabv3_resnet50(
            weights=None, weights_backbone=None, num_classes=n_classes, aux_loss=self.aux_weight > 0
        )
        branches = model.classifier[0].convs
        branches[-1] = ImagePooling(*branches[-1])
        return model
