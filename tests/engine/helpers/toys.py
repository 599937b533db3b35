"""Made data, a learner that fits in a millisecond, and strategies of a few lines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolwright import Dataset, Rows, TensorSplit, hookimpl
from poolwright.dataset import Samples


class Blobs(Dataset):
    """Gaussian blobs in the plane, one a class; the label of pool sample i is ``i % classes``."""

    task = "classification"

    def __init__(
        self, n: int = 80, n_classes: int = 4, n_test: int = 40, n_validation: int = 0, features: bool = False
    ) -> None:
        self.n = n
        self.n_classes = n_classes
        self.n_test = n_test
        self.n_validation = n_validation
        self.with_features = features

    def load(self) -> None:
        self.classes = tuple(f"class {c}" for c in range(self.n_classes))
        stream = torch.Generator().manual_seed(7)

        def split(n: int) -> TensorSplit:
            labels = torch.arange(n) % self.n_classes
            angle = labels * (2 * torch.pi / self.n_classes)
            center = 2 * torch.stack([angle.cos(), angle.sin()], 1)
            return TensorSplit(center + torch.randn(n, 2, generator=stream), labels)

        self.pool, self.test = split(self.n), split(self.n_test)
        if self.n_validation:
            self.validation = split(self.n_validation)
        if self.with_features:
            self.features = Rows(self.pool.data * 10)


class Masks(Dataset):
    """Images of 2 x 3 pixels whose mask is the sign of the pixel."""

    task = "segmentation"

    def load(self) -> None:
        self.classes = ("negative", "positive")
        x = torch.randn(20, 1, 2, 3, generator=torch.Generator().manual_seed(3))
        self.pool, self.test = (TensorSplit(part, (part[:, 0] > 0).long()) for part in (x[:12], x[12:]))


class Scenes(Masks):
    """Masks of 2 x 3 pixels in uint8, some to be ignored."""

    def __init__(self, ignored: int = 255) -> None:
        self.ignored = ignored

    def load(self) -> None:
        super().load()
        for name in ("pool", "test"):
            split = getattr(self, name)
            masks = split.masks.to(torch.uint8)
            masks[:, 0, 0] = self.ignored
            setattr(self, name, TensorSplit(split.data, masks))


class Signs:
    """Segments by the sign of the pixel; it has nothing to learn."""

    provides = frozenset({"probabilities", "logits"})

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        assert labeled.labels is not None
        assert labeled.labels.shape[1:] == (2, 3)

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        logits = torch.cat([-inputs, inputs], 1)
        return {"logits": logits, "probabilities": logits.softmax(1)}


def load(dataset: Dataset) -> Any:
    """Return ``dataset`` with its data read."""
    dataset.load()
    return dataset


class Stateless:
    """Softmax regression by a few steps of SGD on random minibatches; begins anew at every fit."""

    provides = frozenset({"probabilities", "embeddings", "logits", "head"})

    def __init__(self, steps: int = 6, rate: float = 0.3) -> None:
        self.steps = steps
        self.rate = rate
        self.head: torch.nn.Linear | None = None

    def fit(self, labeled: Samples, *, unlabeled: Samples, start: str, generator: torch.Generator) -> None:
        x = labeled.inputs(torch.arange(len(labeled)))
        y = labeled.labels
        if start != "warm":
            self.head = self._fresh(x.shape[1], labeled.n_classes)
            with torch.no_grad():
                self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=generator) / 4)
        for _ in range(self.steps):
            rows = torch.randperm(len(labeled), generator=generator)[:16]
            self._step(x[rows], y[rows])

    def _step(self, x: Tensor, y: Tensor) -> None:
        p = self.head(x).softmax(1)
        p[torch.arange(len(y)), y] -= 1
        with torch.no_grad():
            self.head.weight -= self.rate * p.T @ x / len(y)
            self.head.bias -= self.rate * p.mean(0)

    @staticmethod
    def _fresh(d: int, n_classes: int) -> torch.nn.Linear:
        head = torch.nn.Linear(d, n_classes).requires_grad_(False)
        head.bias.zero_()
        return head

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        logits = self.head(inputs)
        return {"logits": logits, "probabilities": logits.softmax(1), "embeddings": inputs}


class Softmax(Stateless):
    """The same, with a state: it can go on from its weights and be resumed."""

    def state_dict(self) -> dict[str, Any]:
        return {} if self.head is None else dict(self.head.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.head = self._fresh(state["weight"].shape[1], state["weight"].shape[0])
            self.head.load_state_dict(state)


class Random:
    """Random scores."""

    @hookimpl
    def score(self, cycle):
        return torch.rand(len(cycle.pool.unlabeled), generator=cycle.generator)


class LeastConfident:
    """1 - max p."""

    needs = frozenset({"probabilities"})

    @hookimpl
    def score(self, cycle):
        return 1 - cycle.probabilities().amax(1)


class Lowest:
    """The lowest ids; takes no scores."""

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[:budget]


class Flat:
    """The same score for all."""

    @hookimpl
    def score(self, cycle):
        return torch.zeros(len(cycle.pool.unlabeled))


class GlobalDraws:
    """Draws from the global generators of random, numpy and torch, as library code does."""

    @hookimpl
    def score(self, cycle):
        import random

        import numpy as np

        n = len(cycle.pool.unlabeled)
        return torch.rand(n) + torch.from_numpy(np.random.rand(n)).float() + random.random()


class Wandering:
    """A strategy whose picks hang on its state, on its stream, on the global ones and on the learner.

    It gives every eighth batch back, and half of every eighth, so that paid and labeled differ.
    """

    needs = frozenset({"probabilities"})

    def __init__(self) -> None:
        self.trace = torch.zeros(3, dtype=torch.float64)
        self.calls = 0

    @hookimpl
    def reward(self, cycle, batch):
        return cycle.metrics["accuracy"] - cycle.baseline["accuracy"] + 0.001 * len(batch)

    @hookimpl
    def update(self, cycle, reward):
        self.calls += 1
        draw = torch.rand(1, generator=cycle.generator, dtype=torch.float64) + torch.rand(1).double()
        self.trace = 0.5 * self.trace + torch.tensor([reward or 0.0, float(draw), self.calls], dtype=torch.float64)
        cycle.log("trace", float(self.trace.sum()))
        if cycle.index % 4 == 3 and len(cycle.pool.batch) > 1:
            cycle.pool.release(cycle.pool.batch[:: 1 if cycle.index % 8 == 7 else 2])

    @hookimpl
    def score(self, cycle):
        n = len(cycle.pool.unlabeled)
        noise = torch.rand(n, generator=cycle.generator) + torch.rand(n)
        return 1 - cycle.probabilities().amax(1) + float(self.trace.sum() % 1) * noise

    @hookimpl
    def select(self, cycle, scores, budget):
        best = scores.topk(min(len(scores), 3 * budget)).indices
        kept = best[torch.randperm(len(best), generator=cycle.generator)[:budget]]
        return cycle.pool.unlabeled[kept]

    def state_dict(self):
        return {"trace": self.trace.clone(), "calls": self.calls}

    def load_state_dict(self, state):
        self.trace, self.calls = state["trace"].clone(), state["calls"]


class Tilting:
    """A wrapper with a state that bends the scores."""

    def __init__(self) -> None:
        self.seen = 0

    @hookimpl(wrapper=True)
    def update(self, cycle):
        result = yield
        self.seen += 1 + int(torch.randint(5, (1,), generator=cycle.generator))
        return result

    @hookimpl(wrapper=True)
    def score(self, cycle):
        scores = yield
        return scores + 0.2 * torch.sin(self.seen * torch.arange(len(scores)))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]
