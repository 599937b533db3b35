"""SRAAL: the unified representation, relabeled states, and the initial pool by k-center."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError, Dataset, PluginError, TensorSplit, testing
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.nn.annotations import IGNORED, Annotations
from poolwright_plugins.nn.images import PoolBatches
from poolwright_plugins.nn.indicators import INDICATORS, online_uncertainty
from poolwright_plugins.nn.losses import discriminator_loss
from poolwright_plugins.strategies.sraal import SRAAL, unified
from poolwright_plugins.strategies.vaal import VAAL

from .adversarial_parts import FINDER, SMALL, Pictures, cycle_with, logged, planted, trained


def first_batch(cycle: Any) -> Any:
    return next(PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator))


def scenes(**params: Any) -> Dataset:
    return testing.make_dataset(task="segmentation", shape=(3, 12, 20), **params)


# -- what the paper says -----------------------------------------------------------------------------------------


def test_a_kind_of_sample_that_is_never_labeled_is_wanted_most() -> None:
    images, foreign = planted()
    scores = trained(SRAAL(**FINDER), cycle_with(Pictures(images), labeled=40))

    best = scores.argsort(descending=True)[: int(foreign.sum())]
    assert float(foreign[best].float().mean()) >= 0.9


def test_the_discriminator_is_told_what_the_learner_is_certain_of() -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL)
    networks = strategy._start(cycle)
    batch = first_batch(cycle)
    losses = strategy.players(networks, cycle)[1].losses(batch)

    indicator = online_uncertainty(cycle.probabilities(cycle.pool.unlabeled[batch.unlabeled]))
    logits = networks["discriminator"](unified(networks["encoder"](batch.images)))
    torch.testing.assert_close(losses.total, discriminator_loss(logits, 9, indicator))
    assert logged(cycle, "indicator") == [pytest.approx(float(online_uncertainty(cycle.probabilities()).mean()))]


@pytest.mark.parametrize("params", [{"indicator": "binary"}, {"relabel": False}])
def test_binary_states_give_the_discriminators_loss_of_vaal(params) -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, **params)
    networks = strategy._start(cycle)
    batch = first_batch(cycle)
    losses = strategy.players(networks, cycle)[1].losses(batch)

    logits = networks["discriminator"](unified(networks["encoder"](batch.images)))
    assert torch.equal(losses.total.detach(), discriminator_loss(logits, batch.n_labeled).detach())


def test_with_neither_relabeling_nor_stl_it_is_vaal() -> None:
    cycle = cycle_with()
    mine, theirs = SRAAL(**SMALL, relabel=False, stl=False), VAAL(**SMALL)
    networks, other = mine._start(cycle), theirs._start(cycle)
    other["encoder"].trunk.load_state_dict(networks["encoder"].trunk.state_dict())
    other["encoder"].head.load_state_dict(networks["encoder"].uir.state_dict())
    for name in ("decoder", "discriminator"):
        other[name].load_state_dict(networks[name].state_dict())
    batch = first_batch(cycle)
    for ours, vaals in zip(mine.players(networks, cycle), theirs.players(other, cycle), strict=True):
        torch.manual_seed(0)
        found = ours.losses(batch)
        torch.manual_seed(0)
        expected = vaals.losses(batch)
        torch.testing.assert_close(found.total, expected.total)
        assert set(found.logged) == set(expected.logged)


def test_the_discriminator_reads_both_representations() -> None:
    cycle = cycle_with()
    both, one = SRAAL(**SMALL), SRAAL(**SMALL, stl=False)
    images = next(cycle.inputs())
    networks = both._start(cycle)
    (uir, _), (stl, _) = networks["encoder"](images)

    assert torch.equal(unified(networks["encoder"](images)), torch.cat([uir, stl], 1))
    assert unified(one._start(cycle)["encoder"](images)).shape == (len(images), 4)


def test_the_encoder_feels_the_discriminator_in_both_heads() -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, lambda_uir=0.0, lambda_stl=0.0)
    networks = strategy._start(cycle)
    strategy.players(networks.train(), cycle)[0].losses(first_batch(cycle)).total.backward()

    for head in (networks["encoder"].uir, networks["encoder"].stl):
        assert float(head.mu.weight.grad.abs().max()) > 0


def test_the_supervised_loss_is_of_labeled_samples_alone() -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, lambda_uir=0.0, lambda_adv=0.0)
    networks = strategy._start(cycle)
    batch = first_batch(cycle)
    images = batch.images.clone().requires_grad_()
    strategy.players(networks, cycle)[0].losses(batch._replace(images=images)).total.backward()

    assert bool(images.grad[: batch.n_labeled].any())
    assert not bool(images.grad[batch.n_labeled :].any())


def test_the_whole_loss_is_eq_7() -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, lambda_uir=0.5, lambda_stl=3.0, lambda_adv=7.0, beta=2.0, beta_stl=0.25)
    networks = strategy._start(cycle)
    losses = strategy.players(networks, cycle)[0].losses(first_batch(cycle))

    parts = losses.logged
    uir = parts["reconstruction"] + 2 * parts["kl"]
    expected = 0.5 * uir + 3 * (parts["stl"] + 0.25 * parts["stl_kl"]) + 7 * parts["adversarial"]
    torch.testing.assert_close(losses.total, expected)


def test_the_supervised_representation_learns_the_labels() -> None:
    cycle = cycle_with(labeled=30)
    trained(SRAAL(**FINDER | {"epochs": 60}, beta_stl=0.01), cycle)

    series = logged(cycle, "stl")
    assert series[-1] < 0.5 * series[0]


def test_permuted_labels_change_it() -> None:
    images, _ = planted()
    labels = torch.arange(len(images)) % 2
    first, second = (
        trained(SRAAL(**SMALL), cycle_with(Pictures(images, y), labeled=40)) for y in (labels, labels.flip(0))
    )

    assert not torch.allclose(first, second)


def test_the_learners_probabilities_are_taken_in_eval_mode() -> None:
    learner = CNN(width=2, epochs=1, dropout=0.5, device="cpu")
    cycle = cycle_with(learner=learner)
    learner._network.train()
    found = SRAAL(**SMALL)._indicator(cycle)
    learner._network.eval()
    with torch.no_grad():
        expected = learner._network(torch.cat(list(cycle.inputs()))).softmax(1)

    torch.testing.assert_close(found, online_uncertainty(expected), atol=1e-5, rtol=0)


# -- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "needs"),
    [
        ({}, {"inputs", "labels", "probabilities"}),
        ({"relabel": False}, {"inputs", "labels"}),
        ({"indicator": "binary"}, {"inputs", "labels"}),
        ({"stl": False}, {"inputs", "probabilities"}),
        ({"stl": False, "relabel": False}, {"inputs"}),
    ],
)
def test_it_needs_only_what_it_reads(params, needs) -> None:
    strategy = SRAAL(**SMALL, **params)

    assert strategy.needs == needs
    trained(strategy, cycle_with(needs=needs))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"relabel": False},
    {"stl": False},
    {"relabel": False, "stl": False},
    {"indicator": "entropy"},
    {"indicator": "std"},
]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(VARIANTS, 2)))
def test_every_ablation_and_indicator_is_another_strategy(first, second) -> None:
    scores = [trained(SRAAL(**SMALL, **params), cycle_with()) for params in (first, second)]

    assert not torch.allclose(*scores)


@pytest.mark.parametrize("name", INDICATORS)
def test_the_indicator_that_is_named_is_used(name) -> None:
    cycle = cycle_with()

    expected = INDICATORS[name](cycle.probabilities())
    torch.testing.assert_close(SRAAL(**SMALL, indicator=name)._indicator(cycle), expected)


@pytest.mark.parametrize("params", VARIANTS)
def test_the_losses_are_logged_once_an_epoch(params) -> None:
    cycle = cycle_with()
    trained(SRAAL(**SMALL, **params), cycle)

    series = {"reconstruction", "kl", "adversarial", "active_units", "discriminator", "accuracy", "auc"}
    series |= {"stl", "stl_kl"} if params.get("stl", True) else set()
    found = {name.rpartition(".")[2] for name in cycle._state.logs} - {"indicator"}
    assert found == series
    assert all(len(logged(cycle, name)) == SMALL["epochs"] for name in series)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"indicator": "margin"}, "indicator is one of oui, entropy, std, binary, not 'margin'"),
        ({"relabel": "no"}, "relabel must be true or false, not 'no'"),
        ({"stl": 0}, "stl must be true or false, not 0"),
        ({"lambda_uir": -1}, "lambda_uir must be 0 or more, not -1"),
        ({"lambda_stl": float("nan")}, "lambda_stl must be 0 or more, not nan"),
        ({"beta_stl": -0.1}, "beta_stl must be 0 or more"),
        ({"lr_d": 0}, "lr_d must be above 0"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(params, message) -> None:
    with pytest.raises(ConfigError, match=f"sraal: {message}"):
        SRAAL(**params).update(cycle_with())


def test_a_loss_that_is_not_finite_names_the_network() -> None:
    images, _ = planted()
    images[50] = 1e30
    with pytest.raises(
        PluginError, match=r"sraal: the generator's loss 'reconstruction' became NaN or infinite in epoch"
    ):
        SRAAL(**SMALL).update(cycle_with(Pictures(images), labeled=40))


# -- scores ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", VARIANTS[:4])
def test_scores_depend_neither_on_the_size_of_the_batch_nor_on_the_order(params) -> None:
    cycle = cycle_with()
    strategy = SRAAL(**SMALL, **params)
    scores = trained(strategy, cycle)
    strategy.batch_size = 3
    torch.testing.assert_close(strategy.score(cycle), scores, atol=1e-5, rtol=1e-5)

    images = torch.cat(list(cycle.inputs()))
    order = torch.randperm(len(images))
    with torch.no_grad():
        again = strategy.scorer(strategy._networks, cycle)(images[order])
    torch.testing.assert_close(again, scores[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("params", [{"n": 10, "labeled": 9}, {"n": 10, "labeled": 1}, {"identical": True}])
def test_a_single_sample_of_a_pool_and_equal_samples_are_enough(params) -> None:
    labeled = params.pop("labeled", 9)
    scores = trained(SRAAL(**SMALL), cycle_with(testing.make_dataset(**params), labeled=labeled))

    assert bool(torch.isfinite(scores).all())


def test_a_restored_strategy_scores_alike() -> None:
    cycle = cycle_with()
    for params in ({}, {"warm_start": True}):
        strategy, restored = SRAAL(**SMALL, **params), SRAAL(**SMALL, **params)
        scores = trained(strategy, cycle)
        restored.load_state_dict(strategy.state_dict())
        assert torch.equal(restored.score(cycle), scores)


# -- segmentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [VAAL(**SMALL), SRAAL(**SMALL), SRAAL(**SMALL, stl=False)])
def test_scenes_are_scored(strategy) -> None:
    scores = trained(strategy, cycle_with(scenes()))

    assert scores.shape == (39,)
    assert bool(torch.isfinite(scores).all())


def test_for_segmentation_the_supervised_decoder_gives_maps_of_the_classes() -> None:
    cycle = cycle_with(scenes())
    networks = SRAAL(**SMALL)._start(cycle)

    assert networks["stl"](torch.zeros(2, 4)).shape == (2, 3, 12, 20)


def test_the_supervised_representation_learns_masks() -> None:
    cycle = cycle_with(scenes(), labeled=30)
    trained(SRAAL(**FINDER, beta_stl=0.0), cycle)

    series = logged(cycle, "stl")
    assert series[-1] < 0.9 * series[0]


class Masked(Dataset):
    """Scenes whose masks are ignored in part, or whole."""

    def __init__(self, ignored: slice) -> None:
        made = scenes()
        masks = made.pool.labels(torch.arange(48)).clone()
        masks[:, ignored] = 255
        self.task, self.classes = "segmentation", made.classes
        self.pool = TensorSplit(made.prepare(made.pool.inputs(torch.arange(48))), masks)
        self.test = made.test


class Clueless:
    """A learner that learns nothing."""

    provides = frozenset({"probabilities"})

    def fit(self, labeled: Any, **params: Any) -> None:
        """Do nothing."""

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the same for every class."""
        return {"probabilities": torch.full((len(inputs), 3, *inputs.shape[2:]), 1 / 3)}


def test_ignored_pixels_are_not_learned() -> None:
    annotations = Annotations(cycle_with(Masked(slice(0, 5)), learner=Clueless(), needs={"labels"}))
    masks = annotations[torch.arange(9)]

    assert masks.dtype == torch.int64
    assert bool((masks[:, :5] == IGNORED).all())
    assert bool(((masks[:, 5:] >= 0) & (masks[:, 5:] < 3)).all())


def test_masks_that_are_ignored_whole_cost_nothing() -> None:
    cycle = cycle_with(Masked(slice(None)), learner=Clueless(), needs={"inputs", "labels"})
    scores = trained(SRAAL(**SMALL, relabel=False), cycle)

    assert logged(cycle, "stl") == [0.0, 0.0]
    assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize("dataset", [None, scenes()])
def test_labels_that_do_not_fit_are_read_as_they_are_needed(dataset, monkeypatch) -> None:
    cycle = cycle_with(dataset)
    rows = torch.tensor([4, 0, 7])
    kept = Annotations(cycle)[rows]
    monkeypatch.setattr("poolwright_plugins.nn.images.RESIDENT_BYTES", 0)

    assert torch.equal(Annotations(cycle)[rows], kept)
    assert torch.equal(kept, cycle.labels(rows))


# -- devices -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dataset", [None, scenes()])
def test_on_cuda_it_scores_alike_for_any_batch_size(dataset) -> None:
    cycle = cycle_with(dataset)
    cycle.device = "cuda"
    strategy = SRAAL(**SMALL)
    scores = trained(strategy, cycle)
    strategy.batch_size = 3
    torch.testing.assert_close(strategy.score(cycle), scores, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dataset", [None, scenes()])
def test_on_cuda_no_step_waits_for_the_device(dataset) -> None:
    cycle = cycle_with(dataset)
    cycle.device = "cuda"
    strategy = SRAAL(**SMALL)
    strategy.update(cycle)  # what is set up once may wait
    networks = strategy._start(cycle)
    players = strategy.players(networks.train(), cycle)
    epoch = PoolBatches(cycle, cycle.pool.labeled, cycle.pool.unlabeled, 16).epoch(cycle.generator)
    next(epoch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = next(epoch)
        for player in players:
            player.losses(batch).total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
