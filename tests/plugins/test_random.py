"""Random sampling is uniform and comes from the plugin's own stream."""

from __future__ import annotations

import torch

from poolwright_plugins.strategies.random import Random

from .conftest import cycle_of


def scores(seed: int = 0, n: int = 20, labeled: int = 0) -> torch.Tensor:
    return Random().score(
        cycle_of(role="score", seed=seed, labeled=labeled, needs={"inputs"}, embeddings=torch.ones(n, 1))
    )


def test_each_unlabeled_sample_gets_a_score() -> None:
    assert scores(labeled=6).shape == (14,)


def test_the_highest_scores_are_a_uniform_draw() -> None:
    picked = torch.stack([scores(seed, n=10).topk(3).indices for seed in range(600)])
    counts = torch.bincount(picked.flatten(), minlength=10)
    # 180 expected each, standard deviation 11.2: a sample that is favored or never drawn falls outside.
    assert counts.min() > 130
    assert counts.max() < 230


def test_another_seed_draws_others_and_the_same_seed_the_same() -> None:
    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))
