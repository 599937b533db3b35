"""VAAL: what is trained, what is scored, and what must not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolwright import ConfigError, PluginError, testing
from poolwright_plugins.nn.images import PoolBatches
from poolwright_plugins.nn.losses import kl_divergence
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import FINDER, SMALL, Pictures, cycle_with, logged, parameters, planted, trained

ABLATIONS = ["none", "no-vae", "frozen-vae", "no-discriminator"]


# -- what the paper says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ["none", "no-vae", "no-discriminator"])
def test_a_kind_of_sample_that_is_never_labeled_is_wanted_most(ablation) -> None:
    images, foreign = planted()
    strategy = VAAL(**FINDER, ablation=ablation)
    scores = trained(strategy, cycle_with(Pictures(images), labeled=40))

    best = scores.argsort(descending=True)[: int(foreign.sum())]
    assert float(foreign[best].float().mean()) >= 0.9


def test_permuted_labels_change_nothing() -> None:
    images, _ = planted()
    labels = torch.arange(len(images)) % 2
    permuted = labels[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    first, second = (trained(VAAL(**SMALL), cycle_with(Pictures(images, y), labeled=40)) for y in (labels, permuted))

    assert not torch.equal(labels, permuted)
    assert torch.equal(first, second)


def test_the_encoder_feels_the_discriminator_and_the_decoder_does_not() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, lambda_vae=0.0)
    networks = strategy._start(cycle)
    batch = next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))
    strategy.players(networks.train(), cycle)[0].losses(batch).total.backward()

    felt = networks["encoder"].head.mu.weight.grad
    assert float(felt.abs().max()) > 0
    assert all(not p.grad.any() for p in networks["decoder"].parameters() if p.grad is not None)


def test_the_discriminators_step_leaves_the_encoder_alone() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    networks = strategy._start(cycle)
    batch = next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))
    strategy.players(networks.train(), cycle)[1].losses(batch).total.backward()

    assert all(p.grad is None for p in networks["encoder"].parameters())
    assert all(p.grad is not None for p in networks["discriminator"].parameters())


def test_the_whole_loss_is_eq_4() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, lambda_vae=0.5, lambda_adv=7.0, beta=3.0)
    networks = strategy._start(cycle)
    batch = next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))
    losses = strategy.players(networks, cycle)[0].losses(batch)

    parts = losses.logged
    expected = 0.5 * (parts["reconstruction"] + 3 * parts["kl"]) + 7 * parts["adversarial"]
    torch.testing.assert_close(losses.total, expected)
    divergence = kl_divergence(*networks["encoder"](batch.images))
    torch.testing.assert_close(parts["kl"], divergence[:9].mean() + divergence[9:].mean())


def test_the_kl_term_can_be_summed_over_the_batch() -> None:
    cycle = cycle_with()
    mean, total = VAAL(**SMALL), VAAL(**SMALL, kl_reduction="sum")
    networks = mean._start(cycle)
    batch = next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))
    divergence = kl_divergence(*networks["encoder"](batch.images))

    torch.testing.assert_close(total.players(networks, cycle)[0].losses(batch).logged["kl"], divergence.sum())


# -- scores ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_scores_do_not_depend_on_the_size_of_the_batch(ablation) -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, ablation=ablation)
    scores = trained(strategy, cycle)
    for size in (1, 5, 100):
        strategy.batch_size = size
        torch.testing.assert_close(strategy.score(cycle), scores, atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_the_order() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    scores = trained(strategy, cycle)
    images = torch.cat(list(cycle.inputs()))
    order = torch.randperm(len(images))
    with torch.no_grad():
        again = strategy.scorer(strategy._networks, cycle)(images[order])

    torch.testing.assert_close(again, scores[order], atol=1e-5, rtol=1e-5)


def test_the_score_is_minus_the_logit_of_the_posterior_mean() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    scores = trained(strategy, cycle)
    networks = strategy._networks.eval()
    with torch.no_grad():
        mu, _ = networks["encoder"](torch.cat(list(cycle.inputs())))
        torch.testing.assert_close(scores, -networks["discriminator"](mu), atol=1e-6, rtol=1e-5)


def test_without_prepared_images_in_memory_the_scores_are_the_same(monkeypatch) -> None:
    kept = trained(VAAL(**SMALL), cycle_with())
    monkeypatch.setattr("poolwright_plugins.nn.images.RESIDENT_BYTES", 0)

    torch.testing.assert_close(trained(VAAL(**SMALL), cycle_with()), kept, atol=1e-5, rtol=1e-5)


def test_images_are_scored_in_batches() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    trained(strategy, cycle)
    sizes = []
    strategy._networks["encoder"].register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
    strategy.batch_size = 4
    strategy.score(cycle)

    assert max(sizes) == 8
    assert sum(sizes) == len(cycle.pool.unlabeled)


@pytest.mark.parametrize("params", [{"n": 10, "labeled": 9}, {"n": 10, "labeled": 1}, {"identical": True}])
def test_a_single_sample_of_a_pool_and_equal_samples_are_enough(params) -> None:
    labeled = params.pop("labeled", 9)
    scores = trained(VAAL(**SMALL), cycle_with(testing.make_dataset(**params), labeled=labeled))

    assert bool(torch.isfinite(scores).all())


# -- training ----------------------------------------------------------------------------------------------------


def test_training_lowers_the_reconstruction_error() -> None:
    images, _ = planted()
    cycle = cycle_with(Pictures(images), labeled=40)
    trained(VAAL(**SMALL | {"epochs": 15}, reconstruction="sum"), cycle)

    series = logged(cycle, "reconstruction")
    assert series[-1] < 0.5 * series[0]


def test_a_posterior_that_carries_nothing_has_no_active_units() -> None:
    images, _ = planted()
    cycle = cycle_with(Pictures(images), labeled=40)
    trained(VAAL(**SMALL | {"epochs": 15}, beta=100.0), cycle)
    assert logged(cycle, "active_units")[-1] == 0

    cycle = cycle_with(Pictures(images), labeled=40)
    trained(VAAL(**SMALL | {"epochs": 15}, reconstruction="sum"), cycle)
    assert logged(cycle, "active_units")[-1] > 0


def test_the_vae_takes_as_many_steps_as_it_is_told_to() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL, vae_steps=3)
    passes = {"decoder": 0, "discriminator": 0}
    build = strategy.build

    def counted(*args: Any) -> Any:
        networks = build(*args)
        for name in passes:
            networks[name].register_forward_hook(lambda *_, name=name: passes.update({name: passes[name] + 1}))
        return networks

    strategy.build = counted  # type: ignore[method-assign]
    strategy.update(cycle)

    steps = 2 * -(-len(cycle.pool) // 16)
    assert passes["decoder"] == 3 * steps
    assert passes["discriminator"] == (3 + 1) * steps  # the adversarial loss goes through it as well


def test_an_epoch_has_as_many_steps_as_the_pool_has_batches_and_sees_all_of_it() -> None:
    cycle = cycle_with()
    batches = PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 10)
    epoch = list(batches.epoch(cycle.generator))

    assert len(epoch) == batches.steps == 5
    assert [len(batch.labeled) for batch in epoch] == [9] * 5
    assert sorted(torch.cat([batch.unlabeled for batch in epoch]).unique().tolist()) == list(range(39))
    for batch in epoch:
        ids = torch.cat([cycle.pool.labeled[batch.labeled], cycle.pool.unlabeled[batch.unlabeled]])
        assert torch.equal(batch.images, next(cycle.inputs(ids)))


def test_progress_is_shown_for_every_step() -> None:
    cycle = cycle_with()
    events = []
    cycle._state.listener = events.append
    VAAL(**SMALL).update(cycle)

    last = events[-1]
    assert last.text == "vaal: training the VAE and the discriminator"
    assert (last.done, last.total) == (6, 6)


def test_nothing_is_trained_in_the_final_cycle() -> None:
    cycle = cycle_with()
    cycle.final = True
    strategy = VAAL(**SMALL)
    strategy.update(cycle)

    assert strategy.state_dict() == {}
    assert not cycle._state.logs


@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_start_goes_on_from_the_last_weights(warm) -> None:
    strategy = VAAL(**SMALL, warm_start=warm, lr_vae=1e-9, lr_d=1e-9)
    trained(strategy, cycle_with())
    before = parameters(strategy, "discriminator")
    torch.manual_seed(123)
    strategy.update(cycle_with())
    close = all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(before, parameters(strategy, "discriminator"), strict=True)
    )

    assert close == warm


def test_a_warm_start_begins_anew_on_other_images() -> None:
    strategy = VAAL(**SMALL, warm_start=True)
    trained(strategy, cycle_with())
    scores = trained(strategy, cycle_with(testing.make_dataset(shape=(3, 12, 10))))

    assert bool(torch.isfinite(scores).all())


def test_only_what_scores_is_kept_unless_the_next_cycle_goes_on_with_it() -> None:
    cold, warm = VAAL(**SMALL), VAAL(**SMALL, warm_start=True)
    for strategy in (cold, warm):
        trained(strategy, cycle_with())

    assert not any(name.startswith("decoder") for name in cold.state_dict()["networks"])
    assert any(name.startswith("decoder") for name in warm.state_dict()["networks"])


def test_a_restored_strategy_scores_alike() -> None:
    cycle = cycle_with()
    strategy = VAAL(**SMALL)
    scores = trained(strategy, cycle)
    restored = VAAL(**SMALL)
    restored.load_state_dict(strategy.state_dict())

    assert torch.equal(restored.score(cycle), scores)


# -- errors ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_the_network_the_loss_and_the_step() -> None:
    images, _ = planted()
    images[50] = 1e30  # finite, but its square is not
    with pytest.raises(
        PluginError, match=r"vaal: the VAE's loss 'reconstruction' .* epoch 1 of 2, at step \d: lower lr_vae"
    ):
        VAAL(**SMALL | {"batch_size": 100}).update(cycle_with(Pictures(images), labeled=40))


def test_the_network_whose_loss_failed_first_is_named() -> None:
    images, _ = planted()
    images[50] = 1e38
    with pytest.raises(PluginError, match=r"the discriminator's loss 'discriminator' became NaN or infinite"):
        VAAL(**SMALL, ablation="no-vae").update(cycle_with(Pictures(images), labeled=40))


@pytest.mark.parametrize(
    ("rate", "ablation", "network"), [("lr_vae", "no-discriminator", "VAE"), ("lr_d", "none", "discriminator")]
)
def test_weights_that_the_last_step_spoiled_are_an_error(rate, ablation, network) -> None:
    params = SMALL | {"epochs": 1, "batch_size": 100, "ablation": ablation, rate: 1e39}
    with pytest.raises(PluginError, match=rf"weights of the {network} became NaN or infinite in epoch 1 of 1.*1e\+39"):
        VAAL(**params).update(cycle_with())


def test_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vaal: samples must be images .* not of shape \(5,\)"):
        VAAL(**SMALL).update(cycle_with(testing.make_dataset(shape=(5,))))


def test_something_must_be_labeled() -> None:
    with pytest.raises(ConfigError, match="nothing is labeled yet: let another strategy choose the initial pool"):
        VAAL(**SMALL).update(cycle_with(labeled=0))


def test_scores_need_a_training() -> None:
    with pytest.raises(PluginError, match="update has not been called"):
        VAAL(**SMALL).score(cycle_with())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 0}, "width must be an integer of at least 1, not 0"),
        ({"latent": 2.5}, "latent must be an integer of at least 1, not 2.5"),
        ({"epochs": True}, "epochs must be an integer"),
        ({"batch_size": 1}, "batch_size must be an integer of at least 2, not 1"),
        ({"vae_steps": 0}, "vae_steps must be"),
        ({"lr_vae": 0}, "lr_vae must be above 0, not 0"),
        ({"lr_d": float("nan")}, "lr_d must be above 0, not nan"),
        ({"beta": -1}, "beta must be 0 or more, not -1"),
        ({"lambda_vae": "1"}, "lambda_vae must be 0 or more, not '1'"),
        ({"lambda_adv": float("inf")}, "lambda_adv must be 0 or more, not inf"),
        ({"reconstruction": "bce"}, "reconstruction is one of mean, sum, not 'bce'"),
        ({"kl_reduction": "none"}, "kl_reduction is one of mean, sum"),
        ({"precision": "half"}, "precision is one of auto, float32, bf16, fp16"),
        ({"ablation": "all"}, "ablation is one of none, no-vae, frozen-vae, no-discriminator, not 'all'"),
        ({"warm_start": 1}, "warm_start must be true or false, not 1"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(params, message) -> None:
    with pytest.raises(ConfigError, match=f"vaal: {message}"):
        VAAL(**params).update(cycle_with())


def on_gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


# -- devices -----------------------------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("precision", ["auto", "float32", "bf16", "fp16"])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_on_cuda_it_finds_the_same_kind_of_sample(ablation, precision) -> None:
    images, foreign = planted()
    cycle = cycle_with(Pictures(images), labeled=40)
    cycle.device = "cuda"
    strategy = VAAL(**FINDER, ablation=ablation, precision=precision)
    scores = trained(strategy, cycle)
    strategy.batch_size = 3
    torch.testing.assert_close(strategy.score(cycle), scores, atol=1e-5, rtol=1e-5)
    if ablation != "frozen-vae":
        best = scores.argsort(descending=True)[: int(foreign.sum())].cpu()
        assert float(foreign[best].float().mean()) >= 0.9


@on_gpu
def test_on_cuda_no_step_waits_for_the_device() -> None:
    cycle = cycle_with()
    cycle.device = "cuda"
    strategy = VAAL(**SMALL)
    strategy.update(cycle)  # what is set up once may wait
    networks = strategy._start(cycle)
    batches = PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16)
    epoch = batches.epoch(cycle.generator)
    first = next(epoch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for player in strategy.players(networks.train(), cycle):
            player.losses(first).total.backward()
        next(epoch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
