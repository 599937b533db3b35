"""The ablations of VAAL (section 5.4 of the paper)."""

from __future__ import annotations

import itertools

import pytest
import torch

from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import SMALL, cycle_with, logged, parameters, trained

ABLATIONS = ["none", "no-vae", "frozen-vae", "no-discriminator"]


def test_without_a_vae_the_discriminator_reads_images() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, ablation="no-vae")
    scores = trained(strategy, cycle)

    assert set(strategy._networks) == {"discriminator"}
    with torch.no_grad():
        logits = strategy._networks["discriminator"](torch.cat(list(cycle.inputs())))
    torch.testing.assert_close(scores, -logits, atol=1e-6, rtol=1e-5)


def test_a_frozen_vae_keeps_its_first_weights_while_the_discriminator_learns() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, ablation="frozen-vae")
    torch.manual_seed(6)
    fresh = strategy._start(cycle)
    encoder = [p.detach().clone() for p in fresh["encoder"].state_dict().values()]
    discriminator = [p.detach().clone() for p in fresh["discriminator"].parameters()]
    trained(strategy, cycle)

    assert all(map(torch.equal, strategy._networks["encoder"].state_dict().values(), encoder))
    assert not any(map(torch.equal, parameters(strategy, "discriminator")[::2], discriminator[::2]))


def test_without_a_discriminator_the_score_is_the_distance_to_the_labeled_data() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, ablation="no-discriminator")
    scores = trained(strategy, cycle)
    encoder = strategy._networks["encoder"].eval()
    with torch.no_grad():
        mu, logvar = encoder(torch.cat(list(cycle.inputs(cycle.pool.labeled))))
        draws = mu + (0.5 * logvar).exp() * torch.randn(20_000, *mu.shape)
        center, deviation = draws.mean((0, 1)), draws.std((0, 1))
        mu, logvar = encoder(torch.cat(list(cycle.inputs())))
    expected = ((mu - center).square() + ((0.5 * logvar).exp() - deviation).square()).sum(1).sqrt()

    torch.testing.assert_close(scores, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("ablation", "series"),
    [
        ("none", {"reconstruction", "kl", "adversarial", "active_units", "discriminator", "accuracy", "auc"}),
        ("no-vae", {"discriminator", "accuracy", "auc"}),
        ("frozen-vae", {"discriminator", "accuracy", "auc"}),
        ("no-discriminator", {"reconstruction", "kl", "active_units"}),
    ],
)
def test_the_losses_are_logged_once_an_epoch(ablation, series) -> None:
    cycle = cycle_with()
    trained(VAAL(**SMALL, ablation=ablation), cycle)

    assert {name.rpartition(".")[2] for name in cycle._state.logs} == series
    assert all(len(logged(cycle, name)) == SMALL["epochs"] for name in series)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ABLATIONS, 2)))
def test_every_ablation_is_another_strategy(first, second) -> None:
    scores = [trained(VAAL(**SMALL, ablation=name), cycle_with()) for name in (first, second)]

    assert not torch.allclose(*scores)
