"""Training and prediction of the torch learners."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from poolwright import ConfigError, LearnerError, Samples
from poolwright.metrics import evaluate
from poolwright_plugins.datasets.digits import Digits
from poolwright_plugins.learners.base import learning_rate
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.learners.linear import Linear
from poolwright_plugins.learners.mlp import MLP

from .learner_parts import TORCH_LEARNERS, Blobs, fit, logits, quick

each_learner = pytest.mark.parametrize("kind", TORCH_LEARNERS)


# -- outputs ---------------------------------------------------------------------------------------------------------


@each_learner
def test_one_pass_gives_logits_of_the_head_on_the_embeddings_and_their_softmax(kind: type) -> None:
    data = Blobs()
    learner = fit(quick(kind), data.labeled())
    out = learner.predict(data.inputs)
    assert set(out) | {"head"} == learner.provides
    torch.testing.assert_close(out["logits"], learner.head(out["embeddings"]))
    torch.testing.assert_close(out["probabilities"], out["logits"].softmax(1))
    assert not any(value.requires_grad for value in out.values())


@each_learner
def test_predictions_do_not_depend_on_the_batch_or_its_order(kind: type) -> None:
    data = Blobs()
    learner = fit(quick(kind), data.labeled())
    together = logits(learner, data.inputs)
    alone = torch.cat([logits(learner, x) for x in data.inputs.split(1)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(learner, data.inputs.flip(0)).flip(0), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_predicting_is_in_eval_mode_whatever_happened_before(kind: type) -> None:
    data = Blobs()
    learner = fit(quick(kind, dropout=0.5), data.labeled())
    before = logits(learner, data.inputs)
    weights = learner.state_dict()["network"]
    learner._network.train()
    assert torch.equal(logits(learner, data.inputs), before)
    after = learner.state_dict()["network"]
    assert all(torch.equal(after[name], weights[name]) for name in weights)


def test_embeddings_of_the_linear_learner_are_the_flattened_inputs() -> None:
    data = Blobs()
    learner = fit(quick(Linear), data.labeled())
    assert torch.equal(learner.predict(data.inputs)["embeddings"], data.inputs.flatten(1))


def test_embeddings_of_the_mlp_are_the_last_hidden_layer() -> None:
    data = Blobs()
    out = fit(quick(MLP, hidden=(12, 5)), data.labeled()).predict(data.inputs)
    assert out["embeddings"].shape == (40, 5)
    assert (out["embeddings"] >= 0).all()


@each_learner
def test_asking_an_unfitted_learner_is_an_error(kind: type) -> None:
    with pytest.raises(LearnerError, match=f"learner {kind.__name__.lower()} has not been fitted"):
        kind().predict(torch.zeros(1, 1, 8, 8))


# -- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_dropout_samples_come_from_the_given_generator_alone(kind: type) -> None:
    data = Blobs()
    learner = fit(quick(kind, dropout=0.5), data.labeled())
    state = torch.get_rng_state()
    one, same, other = (
        learner.sample(data.inputs, torch.Generator().manual_seed(seed))["probabilities"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_dropout_samples_leave_batch_norm_and_predictions_as_they_were(kind: type) -> None:
    data = Blobs()
    learner = fit(quick(kind, dropout=0.5), data.labeled())
    before, weights = logits(learner, data.inputs), learner.state_dict()["network"]
    learner.sample(data.inputs, torch.Generator().manual_seed(1))
    after = learner.state_dict()["network"]
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert torch.equal(logits(learner, data.inputs), before)


def test_dropout_samples_of_one_image_do_not_depend_on_its_neighbors_statistics() -> None:
    data = Blobs()
    learner = fit(quick(CNN, dropout=0.3), data.labeled())
    x = data.inputs[:2]
    # Same masks for a batch of two whichever the second image is: with batch norm in training mode row 0 would move.
    one = learner.sample(x, torch.Generator().manual_seed(1))["logits"][0]
    two = learner.sample(torch.stack([x[0], 9 * x[1]]), torch.Generator().manual_seed(1))["logits"][0]
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_a_learner_without_dropout_neither_provides_nor_samples_it(kind: type) -> None:
    learner = fit(quick(kind), Blobs().labeled())
    assert "dropout" not in learner.provides
    assert "dropout" in quick(kind, dropout=0.1).provides
    with pytest.raises(LearnerError, match="has no dropout to sample with: set dropout"):
        learner.sample(Blobs().inputs, torch.Generator())


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "accuracy"), [(Linear, 0.88), (MLP, 0.91), (CNN, 0.93)])
def test_learns_digits_from_300_labels(kind: type, accuracy: float) -> None:
    data = Digits()
    data.load()
    ids = torch.randperm(len(data.pool), generator=torch.Generator().manual_seed(0))[:300]
    learner = fit(kind(), Samples(data, data.pool, ids, data.pool.labels(ids)))
    test_ids = torch.arange(len(data.test))
    test = Samples(data, data.test, test_ids, data.test.labels(test_ids))
    assert evaluate(learner, test)["accuracy"] > accuracy


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 8, 11)])
def test_the_cnn_takes_images_of_any_size_and_channels(shape: tuple[int, ...]) -> None:
    data = Blobs(shape=shape)
    learner = fit(CNN(width=4, epochs=15, min_steps=0, batch_size=20), data.labeled())
    assert (logits(learner, data.inputs).argmax(1) == torch.arange(40) % 3).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(64,), (1, 7, 8)])
def test_the_cnn_refuses_what_is_no_image_of_8_by_8(shape: tuple[int, ...]) -> None:
    with pytest.raises(LearnerError, match="at least 8 x 8 pixels"):
        fit(CNN(), Blobs(shape=shape).labeled())


@each_learner
@pytest.mark.parametrize("ids", [(4,), (0, 3), (0, 3, 6, 9), (0, 1, 2, 3, 4)])
def test_tiny_labeled_sets_train_to_finite_outputs(kind: type, ids: tuple[int, ...]) -> None:
    # One sample, one class only, and a last batch of one sample under batch norm.
    data = Blobs()
    out = fit(quick(kind, batch_size=4), data.labeled(*ids)).predict(data.inputs)
    assert all(torch.isfinite(value).all() for value in out.values())
    assert out["probabilities"].shape == (40, 3)


def test_one_labeled_class_is_predicted_for_everything() -> None:
    data = Blobs()
    learner = fit(MLP(), data.labeled(1, 4))
    assert (logits(learner, data.inputs).argmax(1) == 1).all()


@pytest.mark.parametrize(("ids", "batches"), [((4,), 0), ((0, 1, 2, 3, 4), 1)])
def test_batch_norm_statistics_never_come_from_one_sample(ids: tuple[int, ...], batches: int) -> None:
    learner = fit(quick(CNN, batch_size=4, epochs=3), Blobs().labeled(*ids))
    counts = [value for name, value in learner.state_dict()["network"].items() if name.endswith("batches_tracked")]
    assert counts
    assert all(count == 3 * batches for count in counts)


@each_learner
def test_a_fit_depends_on_the_seeds_alone(kind: type) -> None:
    data = Blobs()
    first, again = (logits(fit(quick(kind), data.labeled(), seed=1), data.inputs) for _ in range(2))
    shuffled = logits(fit(quick(kind, batch_size=8), data.labeled(), seed=1, stream=5), data.inputs)
    other = logits(fit(quick(kind), data.labeled(), seed=2), data.inputs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, shuffled)


def test_the_order_of_the_samples_comes_from_the_generator_of_the_fit() -> None:
    data = Blobs()
    params: dict[str, Any] = {"batch_size": 4, "epochs": 1}
    one, same, other = (logits(fit(quick(MLP, **params), data.labeled(), stream=s), data.inputs) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_augmentation_is_used_in_training_only_and_only_where_asked() -> None:
    data = Blobs()
    learner = fit(quick(MLP, augment=True, batch_size=16), data.labeled())
    assert data.augmented == [16, 16, 8] * 2
    evaluate(learner, data.labeled())
    learner.predict(data.inputs)
    assert len(data.augmented) == 6
    fit(quick(MLP), data.labeled())
    assert len(data.augmented) == 6


def test_inputs_too_large_to_keep_are_trained_on_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Blobs()
    kept = logits(fit(quick(MLP, batch_size=16), data.labeled()), data.inputs)
    monkeypatch.setattr("poolwright_plugins.learners.base.RESIDENT_BYTES", 100)
    assert torch.equal(logits(fit(quick(MLP, batch_size=16), data.labeled()), data.inputs), kept)


def test_min_steps_adds_passes_to_small_labeled_sets() -> None:
    data = Blobs()
    fit(quick(MLP, augment=True, epochs=1, min_steps=7, batch_size=16), data.labeled(0, 1, 2))
    assert data.augmented == [3] * 7


def test_the_cosine_schedule_falls_from_the_start_to_0_and_the_constant_one_stays() -> None:
    rates = [learning_rate(0.2, "cosine", done) for done in (0.0, 0.25, 0.5, 1.0)]
    assert rates == pytest.approx([0.2, 0.1 * (1 + 2**-0.5), 0.1, 0.0])
    assert learning_rate(0.2, "constant", 0.7) == 0.2


def test_the_poly_schedule_falls_to_0_as_the_power_0_9_of_what_is_left() -> None:
    rates = [learning_rate(0.2, "poly", done) for done in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([0.2, 0.2 * 0.535886731, 0.0])


@pytest.mark.parametrize("params", [{"optimizer": "sgd", "lr": 0.1}, {"schedule": "constant"}, {"schedule": "poly"}])
def test_each_optimizer_and_schedule_learns(params: dict[str, Any]) -> None:
    data = Blobs()
    learner = fit(MLP(**params), data.labeled())
    assert (logits(learner, data.inputs).argmax(1) == torch.arange(40) % 3).all()


def test_weight_decay_keeps_weights_small() -> None:
    data = Blobs()
    norms = [float(fit(Linear(weight_decay=decay), data.labeled()).head.weight.detach().norm()) for decay in (0.0, 1.0)]
    assert norms[1] < 0.5 * norms[0]


@each_learner
def test_a_loss_that_is_not_finite_names_learner_epoch_and_way_out(kind: type) -> None:
    data = Blobs(scale=1e38)
    with pytest.raises(LearnerError, match=rf"learner {kind.__name__.lower()}: .* epoch \d of 2: lower lr"):
        fit(quick(kind), data.labeled())


@each_learner
def test_weights_that_the_last_step_spoiled_are_an_error(kind: type) -> None:
    with pytest.raises(
        LearnerError, match=r"the weights became NaN or infinite at the last step: lower lr \(now 1e\+39"
    ):
        fit(quick(kind, epochs=1, batch_size=100, lr=1e39), Blobs().labeled())


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (Linear, {"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        (Linear, {"epochs": True}, "epochs must be an integer of at least 1, not True"),
        (Linear, {"lr": "1e-3"}, "lr must be above 0, not '1e-3'"),
        (Linear, {"lr": float("inf")}, "lr must be above 0, not inf"),
        (Linear, {"weight_decay": float("inf")}, "weight_decay must be 0 or more, not inf"),
        (Linear, {"augment": "no"}, "augment must be true or false, not 'no'"),
        (MLP, {"dropout": "0.5"}, "dropout must be at least 0 and below 1, not '0.5'"),
        (Linear, {"min_steps": -1}, "min_steps must be an integer of at least 0"),
        (Linear, {"batch_size": 2.5}, "batch_size must be an integer"),
        (Linear, {"lr": 0.0}, "lr must be above 0"),
        (Linear, {"weight_decay": -1.0}, "weight_decay must be 0 or more"),
        (Linear, {"optimizer": "lion"}, "optimizer is one of adam, sgd, not 'lion'"),
        (Linear, {"schedule": "step"}, "schedule is one of cosine, constant"),
        (Linear, {"precision": "fp8"}, "precision is one of auto, float32, bf16, fp16"),
        (Linear, {"device": "toaster"}, "device 'toaster'"),
        (MLP, {"hidden": []}, "hidden must be a list of positive sizes"),
        (MLP, {"hidden": [0]}, "hidden must be a list of positive sizes"),
        (MLP, {"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        (CNN, {"width": 0}, "width must be an integer of at least 1"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(kind: type, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(kind(**params), Blobs().labeled())


def test_other_tasks_are_refused() -> None:
    data = Blobs()
    data.task = "segmentation"
    with pytest.raises(LearnerError, match="does classification, not segmentation"):
        fit(MLP(), data.labeled())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float32", "bf16", "fp16"])
def test_mixed_precision_on_cuda_learns_and_predicts_in_float32(precision: str) -> None:
    data = Blobs()
    learner = fit(CNN(width=4, epochs=15, batch_size=20, precision=precision, device="cuda"), data.labeled())
    out = learner.predict(data.inputs.cuda())
    assert all(value.dtype == torch.float32 and value.is_cuda for value in out.values())
    assert (out["logits"].argmax(1).cpu() == torch.arange(40) % 3).float().mean() > 0.9
