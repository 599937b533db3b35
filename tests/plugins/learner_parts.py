"""Data and helpers for the tests of learners."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, Samples, TensorSplit, streams
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.learners.linear import Linear
from poolwright_plugins.learners.mlp import MLP

TORCH_LEARNERS = [Linear, MLP, CNN]
FAST: dict[type, dict[str, Any]] = {Linear: {}, MLP: {"hidden": (8,)}, CNN: {"width": 2}}


class Blobs(Dataset):
    """Noisy images around one image a class; notes when it is asked to augment."""

    task = "classification"

    def __init__(
        self, *, n: int = 40, classes: int = 3, shape: tuple[int, ...] = (1, 8, 8), scale: float = 1.0
    ) -> None:
        generator = torch.Generator().manual_seed(7)
        y = torch.arange(n) % classes
        means = torch.randn(classes, *shape, generator=generator)
        x = means[y] + 0.3 * torch.randn(n, *shape, generator=generator)
        self.classes = tuple(map(str, range(classes)))
        self.pool = TensorSplit(scale * x, y)
        self.test = self.pool
        self.augmented: list[int] = []

    def augment(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        self.augmented.append(len(inputs))
        return inputs + 0.01 * torch.randn(inputs.shape, generator=generator)

    def labeled(self, *ids: int) -> Samples:
        chosen = torch.tensor(ids) if ids else torch.arange(len(self.pool))
        return Samples(self, self.pool, chosen, self.pool.labels(chosen))

    @property
    def inputs(self) -> Tensor:
        return self.prepare(self.pool.data)


def fit(learner: Any, labeled: Samples, *, start: str = "scratch", seed: int = 0, stream: int | None = None) -> Any:
    """Fit as the engine does: global generators seeded by the run, the stream of its own."""
    generator = streams.generator("test", seed if stream is None else stream)
    with streams.seeded("test", seed):
        learner.fit(labeled, unlabeled=labeled, start=start, generator=generator)
    return learner


def quick(kind: type, **params: Any) -> Any:
    """Return a small learner that trains for a few steps."""
    return kind(**{"epochs": 2, "min_steps": 0, **FAST[kind], **params})


def logits(learner: Any, inputs: Tensor) -> Tensor:
    result: Tensor = learner.predict(inputs)["logits"]
    return result
