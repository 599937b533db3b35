"""The initial pool of SRAAL: k-center in the latent space of an autoencoder."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError, Cycle, Dataset, PluginError, kernels, testing
from poolwright_plugins.strategies import sraal
from poolwright_plugins.strategies.sraal import SRAALInit

from .adversarial_parts import SMALL, Pictures, cycle_with, logged, planted


def initial(dataset: Dataset | None = None, labeled: int = 0) -> Cycle:
    return cycle_with(dataset or testing.make_dataset(n=14), labeled=labeled, role="select", needs={"inputs"})


class Recorded:
    """k_center, which keeps what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latents = torch.empty(0)
        self.labeled = torch.empty(0)
        self._run = kernels.k_center
        monkeypatch.setattr(sraal.kernels, "k_center", self)

    def __call__(self, x: Any, k: int, **params: Any) -> Any:
        self.latents, self.labeled = x[:].clone(), params["labeled"]
        return self._run(x, k, **params)


def radius(x: Tensor, centers: Tensor) -> float:
    """Return the largest distance of a point to its nearest center."""
    return float(torch.cdist(x, x[centers]).amin(1).max())


@pytest.mark.parametrize("start", [None, 3])
def test_the_initial_pool_covers_the_latent_space_within_twice_the_optimum(start, monkeypatch) -> None:
    recorded = Recorded(monkeypatch)
    cycle = initial()
    ids = SRAALInit(**SMALL, start=start).select(cycle, 5)
    x = recorded.latents.double()

    best = min(radius(x, torch.tensor(centers)) for centers in itertools.combinations(range(14), 5))
    assert len(ids.unique()) == 5
    drawn = 1 if start is None else 3
    assert torch.equal(ids[:drawn], recorded.labeled)
    if start is None:  # with more random points than one the bound does not hold
        assert radius(x, ids) <= 2 * best + 1e-5
    for n in range(drawn, 5):
        distance = torch.cdist(x, x[ids[:n]]).amin(1)
        assert float(distance[ids[n]]) == pytest.approx(float(distance.max()), rel=1e-5)


def test_the_covering_radius_never_grows() -> None:
    cycle = initial(testing.make_dataset())
    SRAALInit(**SMALL).select(cycle, 20)
    radii = logged(cycle, "radius")

    assert len(radii) == 19
    assert all(later <= earlier for earlier, later in itertools.pairwise(radii))
    assert radii[-1] < radii[0]


def test_it_logs_the_losses_of_the_autoencoder_alone() -> None:
    cycle = initial()
    SRAALInit(**SMALL).select(cycle, 5)

    assert {name.rpartition(".")[2] for name in cycle._state.logs} == {"reconstruction", "kl", "active_units", "radius"}
    assert len(logged(cycle, "reconstruction")) == 2


def test_a_hundredth_is_drawn_at_random_by_default(monkeypatch) -> None:
    recorded = Recorded(monkeypatch)
    SRAALInit(**SMALL).select(initial(testing.make_dataset(n=300)), 250)

    assert len(recorded.labeled) == 2


def test_what_is_labeled_already_is_where_it_starts_from(monkeypatch) -> None:
    recorded = Recorded(monkeypatch)
    cycle = initial(labeled=4)
    ids = SRAALInit(**SMALL).select(cycle, 3)
    distance = torch.cdist(recorded.latents, recorded.latents[:4]).amin(1)

    assert recorded.labeled.tolist() == [0, 1, 2, 3]
    assert int(ids[0]) == int(distance.argmax())


def test_the_autoencoder_learns_from_samples_too_that_are_no_candidates(monkeypatch) -> None:
    seen = []
    batches = sraal.PoolBatches
    monkeypatch.setattr(sraal, "PoolBatches", lambda *args: seen.append(args[2]) or batches(*args))
    cycle = initial()
    cycle._state.candidates = torch.arange(3, 14)  # as where [initial] hold_out is set
    ids = SRAALInit(**SMALL).select(cycle, 4)

    assert seen[0].tolist() == list(range(14))
    assert int(ids.min()) >= 3


@pytest.mark.parametrize(("budget", "expected"), [(0, 0), (14, 14), (20, 14)])
def test_nothing_is_trained_where_there_is_no_choice(budget, expected) -> None:
    cycle = initial()
    ids = SRAALInit(**SMALL).select(cycle, budget)

    assert len(ids) == expected
    assert not cycle._state.logs


def test_more_random_points_than_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="sraal-init: start = 6, but only 5 samples are to be chosen: lower it"):
        SRAALInit(**SMALL, start=6).select(initial(), 5)


@pytest.mark.parametrize("start", [0, 1.5, True])
def test_the_number_of_random_points_is_checked(start) -> None:
    with pytest.raises(ConfigError, match="sraal-init: start must be an integer of at least 1"):
        SRAALInit(**SMALL, start=start).select(initial(), 5)


def test_an_autoencoder_that_diverges_is_an_error() -> None:
    images, _ = planted()
    images[3] = 1e30
    with pytest.raises(PluginError, match="sraal-init: the VAE's loss 'reconstruction' became NaN"):
        SRAALInit(**SMALL).select(initial(Pictures(images)), 5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_initial_pool_is_chosen() -> None:
    cycle = initial()
    cycle.device = "cuda"

    assert len(SRAALInit(**SMALL).select(cycle, 5).unique()) == 5
