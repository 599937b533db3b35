"""Pools, cycles and settings for the tests of the adversarial strategies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from poolwright import Cycle, Dataset, TensorSplit, testing

SMALL: dict[str, Any] = {"width": 4, "latent": 4, "epochs": 2, "batch_size": 16}

FINDER: dict[str, Any] = {
    "width": 8,
    "latent": 4,
    "epochs": 30,
    "batch_size": 32,
    "reconstruction": "sum",
    "lr_vae": 2e-3,
    "lr_d": 2e-3,
}
"""Settings that learn a small pool in seconds."""


class Pictures(Dataset):
    """Given images (and labels, 0 and 1 in turn, by default) as a data set that prepares nothing."""

    def __init__(self, images: Tensor, labels: Tensor | None = None, task: str = "classification") -> None:
        labels = torch.arange(len(images)) % 2 if labels is None else labels
        self.task = task
        self.classes = ("zero", "one")
        self.pool = TensorSplit(images, labels)
        self.test = TensorSplit(images[:4], labels[:4])


def planted(n_labeled: int = 40, n_mixed: int = 40, n_foreign: int = 20) -> tuple[Tensor, Tensor]:
    """Return images, the labeled ones first, and which of the unlabeled are of a kind that is never labeled."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.1 * torch.randn(n_labeled + n_mixed + n_foreign, 1, 8, 8, generator=generator)
    familiar, foreign = torch.zeros(8, 8), torch.zeros(8, 8)
    familiar[:, :4], foreign[:4] = 1, 1
    images = noise + familiar
    is_foreign = torch.zeros(n_mixed + n_foreign, dtype=torch.bool)
    is_foreign[n_mixed // 2 : n_mixed // 2 + n_foreign] = True
    images[n_labeled:][is_foreign] += foreign - familiar
    return images, is_foreign


def cycle_with(dataset: Dataset | None = None, *, labeled: int = 9, role: str = "update", **params: Any) -> Cycle:
    """Return a cycle in which the first ``labeled`` samples, and no more, are labeled; draws begin anew."""
    torch.manual_seed(5)
    return testing.make_cycle(
        plugin="tested", role=role, dataset=dataset or testing.make_dataset(), labeled=labeled, index=0, **params
    )


def trained(strategy: Any, cycle: Cycle) -> Tensor:
    """Let a strategy train, and return its scores."""
    torch.manual_seed(6)
    strategy.update(cycle)
    return strategy.score(cycle)


def logged(cycle: Cycle, name: str) -> list[float]:
    """Return a series that the tested plugin logged."""
    return cycle._state.logs[f"tested.{cycle._role}.{name}"]


def parameters(strategy: Any, name: str) -> list[Tensor]:
    """Return copies of the weights of one of a strategy's networks."""
    return [weights.detach().clone() for weights in strategy._networks[name].parameters()]
