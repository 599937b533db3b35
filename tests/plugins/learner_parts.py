"""Data and helpers for the tests of learners."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, Samples, TensorSplit, streams
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.learners.drn import DRND22
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


class Scenes(Dataset):
    """Pictures of a bright square and a dark disc on noise, and the class of each pixel; a row of every mask is 255."""

    task = "segmentation"
    classes = ("background", "square", "disc")

    def __init__(self, *, n: int = 24, channels: int = 3, size: tuple[int, int] = (32, 32)) -> None:
        generator = torch.Generator().manual_seed(3)
        height, width = size
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        x = 0.5 + 0.1 * torch.randn(n, channels, *size, generator=generator)
        y = torch.zeros(n, *size, dtype=torch.int64)
        for scene, mask in zip(x, y, strict=True):
            top, left, center_row, center_column = (torch.rand(4, generator=generator) * 0.6).tolist()
            square = (rows >= top * height) & (rows < (top + 0.3) * height)
            square = square & (columns >= left * width) & (columns < (left + 0.3) * width)
            away = ((rows / height - center_row - 0.2) ** 2 + (columns / width - center_column - 0.2) ** 2) < 0.03
            for shape, brightness, label in ((square, 0.4, 1), (away, -0.4, 2)):
                scene += brightness * shape
                mask[shape] = label
            mask[0] = 255
        self.pool = TensorSplit(x, y)
        self.test = self.pool

    def labeled(self, *ids: int) -> Samples:
        chosen = torch.tensor(ids) if ids else torch.arange(len(self.pool))
        return Samples(self, self.pool, chosen, self.pool.labels)

    @property
    def inputs(self) -> Tensor:
        return self.prepare(self.pool.data)


def small_drn(**params: Any) -> DRND22:
    """Return a learner that trains in a second."""
    return DRND22(**{"width": 2, "epochs": 1, "batch_size": 8, **params})


def weights_of(learner: Any) -> dict[str, Tensor]:
    result: dict[str, Tensor] = learner.state_dict()["network"]
    return result


def operations(value: Tensor) -> set[str]:
    """Return the names of what autograd recorded for ``value``; reductions of the pixels' loss are named as such."""
    found, todo = set(), [value.grad_fn]
    seen = set(todo)
    while todo:
        node: Any = todo.pop()
        reduced = getattr(node, "_saved_reduction", 0) != 0
        found.add(node.name().rstrip("0") + ("Reduced" if reduced else ""))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return found
