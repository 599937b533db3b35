"""A step of VAAL and of SRAAL: which loss reads what, which batch is whose, and who learns at which rate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from poolwright import Cycle
from poolwright_plugins.nn.images import Batch, PoolBatches
from poolwright_plugins.nn.losses import adversarial_loss, kl_divergence, on_both_states, sample_latents
from poolwright_plugins.nn.training import Losses, Player
from poolwright_plugins.strategies.sraal import SRAAL
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import SMALL, cycle_with


def first_batch(cycle: Cycle) -> Batch:
    return next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))


def test_the_decoder_reads_a_draw_and_the_discriminator_the_mean() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    networks = strategy._start(cycle)
    batch = first_batch(cycle)
    torch.manual_seed(1)
    parts = strategy.players(networks, cycle)[0].losses(batch).logged

    mu, logvar = networks["encoder"](batch.images)
    torch.manual_seed(1)
    error = (networks["decoder"](sample_latents(mu, logvar)) - batch.images).square().mean((1, 2, 3))
    torch.testing.assert_close(parts["reconstruction"], on_both_states(error, 9))
    torch.testing.assert_close(parts["adversarial"], adversarial_loss(networks["discriminator"](mu), 9))


def test_every_step_of_the_vae_has_a_new_batch_and_the_discriminator_takes_the_last() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL | {"epochs": 1}, vae_steps=2)
    batches: dict[str, list[Any]] = {"VAE": [], "discriminator": []}
    players = strategy.players

    def recorded(*args: Any) -> list[Player]:
        def watched(player: Player) -> Player:
            def losses(batch: Batch) -> Losses:
                batches[player.name].append(batch.unlabeled.tolist())
                return player.losses(batch)

            return replace(player, losses=losses)

        return [watched(player) for player in players(*args)]

    strategy.players = recorded  # type: ignore[method-assign]
    strategy.update(cycle)

    first, second = batches["VAE"][::2], batches["VAE"][1::2]
    assert len(first) == len(second) == 3
    assert all(set(one) != set(other) for one, other in zip(first, second, strict=True))
    assert batches["discriminator"] == second


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_each_head_has_a_loss_of_its_own(reduction) -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, kl_reduction=reduction)
    networks = strategy._start(cycle)
    batch = first_batch(cycle)
    torch.manual_seed(1)
    parts = strategy.players(networks, cycle)[0].losses(batch).logged

    uir, stl = networks["encoder"](batch.images)
    mu, logvar = (values[:9] for values in stl)  # nothing is known of the others
    torch.manual_seed(1)
    error = (networks["decoder"](sample_latents(*uir)) - batch.images).square().mean((1, 2, 3))
    logits = networks["stl"](sample_latents(mu, logvar))
    labels = cycle.labels(cycle.pool.labeled[batch.labeled])
    expected = {
        "reconstruction": on_both_states(error, 9),
        "kl": on_both_states(kl_divergence(*uir), 9, reduction),
        "adversarial": adversarial_loss(networks["discriminator"](torch.cat([uir[0], stl[0]], 1)), 9),
        "stl": torch.nn.functional.cross_entropy(logits, labels),
        "stl_kl": getattr(kl_divergence(mu, logvar), reduction)(),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)


@pytest.mark.parametrize(("rate", "learning"), [("lr_vae", {"encoder", "decoder", "stl"}), ("lr_d", {"discriminator"})])
def test_each_network_learns_at_its_own_rate(rate, learning) -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, warm_start=True, **{"lr_vae": 1e-12, "lr_d": 1e-12} | {rate: 1e-2})
    networks = strategy._start(cycle)
    before = {name: [weights.detach().clone() for weights in networks[name].parameters()] for name in networks}
    strategy.update(cycle)

    for name, weights in before.items():
        for old, new in zip(weights, networks[name].parameters(), strict=True):
            assert torch.allclose(old, new, atol=1e-9, rtol=0) != (name in learning)
