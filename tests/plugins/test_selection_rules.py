"""What every built-in strategy that selects keeps to."""

from __future__ import annotations

import pytest
import torch

from poolwright_plugins.strategies.badge import Badge
from poolwright_plugins.strategies.coreset import CoreSet
from poolwright_plugins.strategies.kmeans import KMeans

from .conftest import cycle_of, distributions, points

SELECTORS = [Badge, CoreSet, KMeans]


@pytest.mark.parametrize("strategy", SELECTORS)
def test_a_budget_of_0_selects_an_empty_int64_tensor(strategy: type) -> None:
    cycle = cycle_of(probabilities=distributions(9, 3), embeddings=points(9, 2))
    ids = strategy().select(cycle, 0)
    assert ids.dtype == torch.int64
    assert ids.shape == (0,)


@pytest.mark.parametrize("strategy", SELECTORS)
def test_randomness_comes_from_the_cycles_generator_alone(strategy: type) -> None:
    batches = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        cycle = cycle_of(probabilities=distributions(60, 3), embeddings=points(60, 2))
        state = torch.get_rng_state()
        batches.append(strategy().select(cycle, 8).tolist())
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(before, state)
    assert batches[0] == batches[1]


@pytest.mark.parametrize("strategy", SELECTORS)
def test_what_the_cycle_gives_is_not_written_to(strategy: type) -> None:
    p, x = distributions(40, 3), points(40, 2)
    cycle = cycle_of(labeled=5, probabilities=p.clone(), embeddings=x.clone())
    strategy().select(cycle, 6)
    assert torch.equal(cycle.probabilities(), p[5:])
    assert torch.equal(cycle.embeddings(), x[5:])
