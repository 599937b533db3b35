"""The batches that the adversarial strategies train on, and what they hand to others."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from poolwright import PluginError, kernels, testing
from poolwright_plugins.nn.images import PoolBatches
from poolwright_plugins.strategies import sraal
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import SMALL, cycle_with, trained


def orders(seed: int, global_seed: int = 0) -> tuple[list[int], list[int]]:
    """Return the labeled and the unlabeled positions of two epochs, in the order of training."""
    cycle = cycle_with()
    batches = PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 10)
    torch.manual_seed(global_seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = [batch for _ in range(2) for batch in batches.epoch(generator)]
    return torch.cat([b.labeled for b in drawn]).tolist(), torch.cat([b.unlabeled for b in drawn]).tolist()


def test_both_pools_are_shuffled_anew_each_time_they_are_gone_through() -> None:
    labeled, unlabeled = orders(seed=1)

    for order, size in ((labeled, 9), (unlabeled, 39)):
        first, second = order[:size], order[size : 2 * size]
        assert sorted(first) == list(range(size))
        assert first != sorted(first)
        assert second != first


def test_the_order_of_training_comes_from_the_generator_alone() -> None:
    assert orders(seed=1) == orders(seed=1, global_seed=7)
    assert orders(seed=1) != orders(seed=2)


def test_a_state_that_was_taken_does_not_change_with_the_networks() -> None:
    strategy = VAAL(**SMALL)
    trained(strategy, cycle_with())
    state = strategy.state_dict()
    before = {name: values.clone() for name, values in state["networks"].items()}

    with torch.no_grad():
        for weights in strategy._networks.parameters():  # type: ignore[union-attr]
            weights.add_(1)

    assert all(torch.equal(values, before[name]) for name, values in state["networks"].items())


def test_taking_over_a_state_draws_no_random_numbers() -> None:
    strategy = VAAL(**SMALL)
    trained(strategy, cycle_with())
    state = strategy.state_dict()
    torch.manual_seed(3)
    expected = torch.rand(4)

    torch.manual_seed(3)
    VAAL(**SMALL).load_state_dict(state)

    assert torch.equal(torch.rand(4), expected)


def test_the_step_of_a_failure_counts_steps_of_the_training_and_not_of_the_network() -> None:
    def first_step(vae_steps: int) -> str:
        strategy = VAAL(**SMALL, vae_steps=vae_steps)
        build = strategy.build
        calls = 0

        def spoiled(*args: Any) -> Any:
            networks = build(*args)

            def fail_in_step_two(module: Any, inputs: Any, output: Any) -> Any:
                nonlocal calls
                calls += 1
                return output * float("nan") if calls > vae_steps else output

            networks["decoder"].register_forward_hook(fail_in_step_two)
            return networks

        strategy.build = spoiled  # type: ignore[method-assign]
        with pytest.raises(PluginError) as caught:
            strategy.update(cycle_with())
        return str(caught.value)

    assert re.search(r"the VAE.s loss .* at step 2:", first_step(vae_steps=1))
    assert re.search(r"the VAE.s loss .* at step 2:", first_step(vae_steps=3))


def test_the_initial_pool_starts_from_what_is_labeled_or_asked_already(monkeypatch: pytest.MonkeyPatch) -> None:
    centers = []
    run = kernels.k_center

    def recorded(x: Any, k: int, *, labeled: torch.Tensor, **params: Any) -> Any:
        centers.append(len(labeled))
        return run(x, k, labeled=labeled, **params)

    monkeypatch.setattr(sraal.kernels, "k_center", recorded)
    cycle = cycle_with(testing.make_dataset(n=14), labeled=2, role="select", needs={"inputs"})
    asked = cycle._state.pool.ask(torch.tensor([5, 7, 9]))
    chosen = sraal.SRAALInit(**SMALL).select(cycle, 3)

    assert centers == [2 + 3]
    assert not torch.isin(chosen, asked).any()
