"""What the segmentation learners share: the loss of pixels, what is left out of it, and the outputs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolwright import LearnerError, Samples

from .base import DropoutLearner
from .network import Network, set_batch_norm
from .resampling import upsample_bilinear

IGNORED = -100
"""What torch's losses leave out."""


class SegmentationNetwork(Network):
    """A network of feature maps, coarser than the image, and of a classifier that reads them.

    Call :meth:`guard_batch_norm` once all layers are there.
    """

    @abstractmethod
    def maps(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the feature maps ``out``, ``(n, d, h, w)``, and others that training uses."""

    @abstractmethod
    def classify(self, maps: Tensor) -> Tensor:
        """Return logits ``(n, classes, h, w)`` of the maps ``out``."""

    def features(self, inputs: Tensor) -> Tensor:
        """Return the feature maps, averaged over the image: ``(n, d)``."""
        return self.maps(inputs)["out"].mean((2, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of the pixels, ``(n, classes, height, width)``."""
        return upsample_bilinear(self.classify(self.maps(inputs)["out"]), inputs.shape[2:])

    def guard_batch_norm(self) -> None:
        """Let batch norm layers use the statistics they keep wherever a batch has one value a channel for them."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    if inputs[0].numel() == inputs[0].shape[1]:
        layer.eval()


def pixel_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross entropy, averaged over the pixels whose mask names a class; 0 where none does.

    Parameters
    ----------
    logits : Tensor
        Float ``(n, classes, height, width)``.
    masks : Tensor
        Integers ``(n, height, width)``; values outside ``0..classes - 1`` are left out.
    """
    known = (masks >= 0) & (masks < logits.shape[1])
    targets = torch.where(known, masks.long(), IGNORED)
    # Averaged here: torch's own reductions of this loss are not deterministic on CUDA, and give NaN for no pixels.
    losses = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
    return losses.sum() / known.sum().clamp(min=1)


@dataclass(kw_only=True, eq=False)
class SegmentationLearner(DropoutLearner):
    """A network trained with the cross entropy of pixels; subclasses say which in :meth:`build`.

    Probabilities are those of the pixels, ``(n, classes, height, width)``, from logits upsampled bilinearly to the
    image's size; embeddings are the feature maps averaged over the image. Pixels whose mask lies outside the classes
    are left out of the loss. Augmentation has to change an image and its mask alike: the data set needs a method
    ``augment_pair(inputs, masks, generator)`` that returns both.

    Parameters
    ----------
    predict_batch_size : int
        Samples that the engine lets it predict at a time.
    """

    epochs: int = 100
    batch_size: int = 8
    predict_batch_size: int = 8
    tasks: ClassVar[frozenset[str]] = frozenset({"segmentation"})

    @property
    def provides(self) -> frozenset[str]:
        """Names of what the learner can do."""
        return super().provides - {"head", "logits"}

    @property
    def head(self) -> nn.Linear:
        """Not there: what ends a segmentation network is no linear layer on the embeddings."""
        raise AttributeError(f"learner {self.name} has no head: its last layer reads pixels, not embeddings")

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(predict_batch_size=1)

    def _sample_bytes(self, labeled: Samples) -> int:
        mask = math.prod(labeled.shape[1:]) * _mask_type(labeled.n_classes).itemsize
        return super()._sample_bytes(labeled) + mask

    def _kept(self, labels: Tensor, n_classes: int) -> Tensor:
        known = (labels >= 0) & (labels < n_classes)
        return torch.where(known, labels, n_classes).to(_mask_type(n_classes))

    def _set_batch_norm(self, network: Network, inputs: Tensor) -> None:
        set_batch_norm(network, training=True)  # one image has statistics; guard_batch_norm sees to the rest

    def _loss(self, network: Network, inputs: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(network, SegmentationNetwork)
        if labels.shape != (len(inputs), *inputs.shape[2:]):
            raise LearnerError(
                f"learner {self.name}: masks of shape {tuple(labels.shape)} for images of shape "
                f"{tuple(inputs.shape)}: a mask has the height and width of its image"
            )
        return self._loss_of(network, network.maps(inputs), labels)

    def _loss_of(self, network: SegmentationNetwork, maps: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return the loss of the feature maps of a batch."""
        return pixel_cross_entropy(upsample_bilinear(network.classify(maps["out"]), labels.shape[1:]), labels)

    def _outputs(self, network: Network, inputs: Tensor) -> dict[str, Tensor]:
        assert isinstance(network, SegmentationNetwork)
        with torch.no_grad():
            maps = network.maps(inputs.to(next(network.parameters()).device))["out"]
            logits = upsample_bilinear(network.classify(maps), inputs.shape[2:])
            return {"probabilities": logits.softmax(1), "embeddings": maps.mean((2, 3))}


def _mask_type(n_classes: int) -> torch.dtype:
    """Return the smallest type that holds all classes and one number more."""
    return torch.uint8 if n_classes <= 255 else torch.int16 if n_classes < 2**15 else torch.int32
