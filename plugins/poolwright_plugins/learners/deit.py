"""DeiT-Small, a vision transformer, from local weights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolwright import ConfigError, LearnerError, Samples

from ..datasets.pixels import IMAGENET_MEAN, IMAGENET_STD
from .base import DropoutLearner, is_number
from .classification import ClassificationLearner
from .network import Network, colors, load_weights

HEAD_WIDTH = 64
"""Embedding dimensions of an attention head, as in all ViTs and DeiTs."""
FILE = "dino_deitsmall16_pretrain.pth, which DINO's authors publish"


def per_channel(values: Sequence[float]) -> Tensor:
    """Return one number a channel so that it broadcasts over images, float32 ``(channels, 1, 1)``."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


class DeiTNetwork(Network):
    """timm's vision transformer, the images brought to the size and scale that it wants, dropout, and a head.

    Parameters
    ----------
    channels, n_classes : int
        Of the images.
    size, patch : int
        Pixels of a side of the resized images and of the patches that they are cut into.
    width, depth : int
        Embedding dimensions, and blocks.
    scale : pair of sequence of float, optional
        Mean and deviation that the images come in, one number a channel; they are changed for ImageNet's.
    dropout : float
        Before the head.
    """

    optional = ("head.", "colors.")

    def __init__(
        self,
        channels: int,
        n_classes: int,
        *,
        size: int,
        patch: int,
        width: int,
        depth: int,
        scale: tuple[Sequence[float], Sequence[float]] | None,
        dropout: float,
    ) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer  # an extra, which takes seconds to import

        self.size = size
        self.scale = scale is not None
        mean, std = scale or ([0.0] * channels, [1.0] * channels)
        for name, values in (("mean", mean), ("std", std), ("to_mean", IMAGENET_MEAN), ("to_std", IMAGENET_STD)):
            self.register_buffer(name, per_channel(values), persistent=False)
        self.colors = colors(channels)
        self.body = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=max(1, width // HEAD_WIDTH),
            num_classes=0,
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_classes)

    def resized(self, inputs: Tensor) -> Tensor:
        """Return images of any size as the transformer wants them: float32 ``(n, 3, size, size)``.

        Bicubic with antialiasing, as Pillow resizes, without keeping the proportions.
        """
        if self.scale:
            inputs = inputs * self.std + self.mean
        if tuple(inputs.shape[2:]) != (self.size, self.size):
            # In front of all weights: on CUDA its gradient would not be deterministic.
            inputs = F.interpolate(inputs, (self.size, self.size), mode="bicubic", align_corners=False, antialias=True)
        inputs = self.colors(inputs)
        return (inputs - self.to_mean) / self.to_std if self.scale else inputs

    def features(self, inputs: Tensor) -> Tensor:
        """Return the class token after the last norm, ``(n, width)``."""
        features: Tensor = self.drop(self.body(self.resized(inputs)))
        return features

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state dict of DINO's or timm's backbone, or of a whole checkpoint of DINO or DeiT."""
        for key in ("teacher", "model"):
            if isinstance(state.get(key), Mapping):
                state = state[key]
        state = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
        if "cls_token" not in state:
            return state
        own = {f"body.{name}": value for name, value in state.items() if not name.startswith("head.")}
        # DINO's own head is a projection of several layers, which no classifier begins from.
        return own | {name: state[name] for name in ("head.weight", "head.bias") if name in state}


@dataclass(kw_only=True, eq=False)
class DeiTSmall(ClassificationLearner, DropoutLearner):
    """DeiT-Small: a vision transformer, finetuned from local weights (Touvron et al., ICML 2021; timm's network).

    Images of any size are resized to 224 x 224 pixels (bicubic with antialiasing, proportions not kept), gray ones go
    through a 1 x 1 convolution to three channels that begins by repeating them. Embeddings are the 384 numbers of the
    class token. Further parameters are those of
    :class:`~poolwright_plugins.learners.classification.ClassificationLearner`.

    Every fit that begins anew begins from ``weights``, with ``start = "scratch"`` as with ``start = "pretrained"``:
    a transformer that starts from random weights learns nothing from a few thousand images. It has to be said if that
    is what is wanted: ``weights = "none"``.

    Needs timm: ``pip install 'poolwright[deit]'``. Nothing is downloaded.

    Parameters
    ----------
    weights : str or False
        Required. File with the weights: DINO's ``dino_deitsmall16_pretrain.pth`` or whole checkpoint (its teacher),
        timm's or DeiT's state dict of ``deit_small_patch16_224``, or what
        ``torch.save(learner.state_dict(), path)`` wrote; a head for another number of classes keeps fresh weights.
        ``"none"`` or false: random weights.
    mean, std : list of float, optional
        Mean and deviation to which the data set prepared its pixels, one number a channel, where they are not
        ImageNet's: images are then brought to ImageNet's, which pretrained weights expect. CIFAR-10's are
        ``[0.4914, 0.4822, 0.4465]`` and ``[0.2470, 0.2435, 0.2616]``.
    size : int
        Pixels of a side of the resized images, a multiple of ``patch``.
    patch : int
        Pixels of a side of a patch.
    width : int
        Embedding dimensions: below 128, or a multiple of 64, the width of an attention head.
    depth : int
        Blocks.
    dropout : float
        Before the head; above 0 the learner provides ``dropout``.
    predict_batch_size : int
        Samples that the engine lets it predict at a time.

    Notes
    -----
    The defaults are those of BRAL-T's section 5.3: SGD, 1000 epochs, batches of 512, cosine; learning rate and weight
    decay, which it does not give, are those of the code of ActiveFT (Xie et al., CVPR 2023). That code also takes label
    smoothing, stochastic depth, clipped gradients and an average of the weights; BRAL-T does not mention them, and they
    are left out. Two cores are enough for ``size = 32, patch = 8, width = 64, depth = 2``, to try things out.
    """

    weights: str | bool | None = None  # type: ignore[assignment]
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    size: int = 224
    patch: int = 16
    width: int = 384
    depth: int = 12
    epochs: int = 1000
    batch_size: int = 512
    lr: float = 0.01
    optimizer: str = "sgd"
    predict_batch_size: int = 128

    name = "deit-small"

    def check_parameters(self) -> None:
        """Refuse parameters that cannot be used, naming the first."""
        super().check_parameters()
        self._check_integers(size=1, patch=1, width=1, depth=1, predict_batch_size=1)
        if self.size % self.patch:
            raise ConfigError(f"learner {self.name}: size = {self.size} is no multiple of patch = {self.patch}")
        if self.width >= 2 * HEAD_WIDTH and self.width % HEAD_WIDTH:
            raise ConfigError(f"learner {self.name}: width must be below 128 or a multiple of 64, not {self.width}")
        for name in ("mean", "std"):
            value, least = getattr(self, name), 0 if name == "std" else -float("inf")
            if value is not None and not (
                isinstance(value, (list, tuple)) and value and all(is_number(each) and each > least for each in value)
            ):
                raise ConfigError(
                    f"learner {self.name}: {name} must be a list of numbers{', above 0' * (name == 'std')}"
                )
        if (self.mean is None) != (self.std is None):
            raise ConfigError(f"learner {self.name}: mean and std are given together, or neither")
        self._check_weights()

    def _check_weights(self) -> None:
        """Refuse what is neither a file nor a refusal of one."""
        way_out = f'set it to a file such as {FILE}, or to "none" if random weights are meant'
        if self.weights is None:
            raise ConfigError(f"learner {self.name}: there are no pretrained weights: weights is not set; {way_out}")
        if not self._random and not (isinstance(self.weights, str) and self.weights):
            raise ConfigError(
                f"learner {self.name}: weights must be the path of a file, not {self.weights!r}; {way_out}"
            )
        if not self._random and not Path(str(self.weights)).expanduser().is_file():
            raise LearnerError(
                f"learner {self.name}: there is no weights file {self.weights!r}: change weights; {way_out}"
            )

    @property
    def _random(self) -> bool:
        return self.weights is False or self.weights == "none"

    def build(self, shape: tuple[int, ...], n_classes: int) -> Network:
        """Return a network with fresh weights."""
        if len(shape) != 3:
            raise LearnerError(
                f"learner {self.name}: samples must be images (channels, height, width), not {tuple(shape)}"
            )
        if self.mean is not None and self.std is not None and {len(self.mean), len(self.std)} != {shape[0]}:
            raise ConfigError(
                f"learner {self.name}: mean and std must hold one number for each of the images' {shape[0]} channels"
            )
        try:
            return DeiTNetwork(
                shape[0],
                n_classes,
                size=self.size,
                patch=self.patch,
                width=self.width,
                depth=self.depth,
                scale=None if self.mean is None or self.std is None else (self.mean, self.std),
                dropout=self.dropout,
            )
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "timm":
                raise
            raise ConfigError(f"learner {self.name} needs timm: pip install 'poolwright[deit]'") from error

    def _start(self, labeled: Samples, start: str) -> Network:
        if start == "pretrained" and self._random:
            raise ConfigError(
                f"learner {self.name}: weights = {self.weights!r} leaves start = 'pretrained', or an initial pool, "
                f"nothing to begin from: set weights to a file such as {FILE}"
            )
        before = self._network
        network = super()._start(labeled, "scratch" if start == "pretrained" else start)
        if network is not before and not self._random:
            with torch.serialization.safe_globals([argparse.Namespace]):  # a checkpoint of DINO holds its arguments
                load_weights(network, str(self.weights), self.name)
        return network
