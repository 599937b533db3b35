"""The segmentation learners: loss, layouts, weights of others, training."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from poolwright import ConfigError, LearnerError
from poolwright.metrics import evaluate
from poolwright_plugins.learners import segmentation
from poolwright_plugins.learners.drn import DRND22
from poolwright_plugins.learners.resnet50_segmentation import DeepLabV3ResNet50, FCNResNet50
from poolwright_plugins.learners.segmentation import pixel_cross_entropy

from .learner_parts import Blobs, Scenes, fit, operations, small_drn, weights_of
from .test_image_learners import image

RESNET50 = [FCNResNet50, DeepLabV3ResNet50]
ALL = [DRND22, *RESNET50]
STILL: dict[str, Any] = {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}


def probabilities(learner: Any, inputs: Tensor) -> Tensor:
    result: Tensor = learner.predict(inputs)["probabilities"]
    return result


# -- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_pixels_that_name_a_class() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]).reshape(1, 2, 1, 2)
    assert float(pixel_cross_entropy(logits, torch.tensor([[[0, 0]]]))) == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2
    )
    assert float(pixel_cross_entropy(logits, torch.tensor([[[255, 1]]]))) == pytest.approx(math.log(4))


@pytest.mark.parametrize("stray", [255, -1, -100, 3, 2**40])
def test_ignored_pixels_change_neither_the_loss_nor_its_gradient(stray: int) -> None:
    logits, masks = image(3, 5, 4), torch.randint(3, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    masks[:, 1:3] = stray
    changed = logits.clone()
    changed[:, :, 1:3] = 100 * torch.randn(2, 3, 2, 4)
    gradients = []
    for values in (logits.requires_grad_(), changed.requires_grad_()):
        loss = pixel_cross_entropy(values, masks)
        loss.backward()
        gradients.append((loss.detach(), values.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
    assert (gradients[0][1][:, :, 1:3] == 0).all()
    assert (gradients[0][1][:, :, 0] != 0).all()


def test_a_batch_of_ignored_pixels_has_loss_0_and_no_gradient() -> None:
    logits = image(3, 4, 4).requires_grad_()
    loss = pixel_cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_scenes_that_are_ignored_whole_leave_the_weights_as_they_were() -> None:
    data = Scenes(n=4)
    data.pool._labels.fill_(255)
    fresh = weights_of(fit(small_drn(lr=1e-30, weight_decay=0.0), data.labeled()))
    trained = fit(small_drn(lr=0.1, weight_decay=0.0), data.labeled())
    assert all(torch.equal(parameter, fresh[name]) for name, parameter in trained._network.named_parameters())


# -- training --------------------------------------------------------------------------------------------------------


def test_drn_learns_scenes_in_seconds() -> None:
    data = Scenes(n=32, size=(64, 64))
    unseen = data.labeled(*range(24, 32))
    params: dict[str, Any] = {"width": 2, "batch_size": 4, "lr": 1e-2}
    untrained, trained = (
        evaluate(fit(small_drn(**params | {"epochs": epochs, "lr": lr}), data.labeled(*range(24))), unseen)
        for epochs, lr in ((1, 1e-9), (16, 1e-2))
    )
    assert trained["miou"] > untrained["miou"] + 0.15
    assert trained["miou"] > 0.4


@pytest.mark.parametrize("kind", RESNET50)
def test_a_step_of_each_resnet50_network_changes_backbone_and_classifiers(kind: type) -> None:
    data = Scenes(n=2)
    still, moved = (fit(kind(epochs=1, batch_size=2, lr=lr), data.labeled()) for lr in (1e-30, 1e-3))
    before = dict(still._network.named_parameters())
    changed = {name for name, value in moved._network.named_parameters() if not torch.equal(value, before[name])}
    for part in ("backbone.conv1.", "backbone.layer4.", "classifier.", "aux_classifier."):
        assert any(name.startswith(part) for name in changed), part
    out = moved.predict(data.inputs)
    assert out["probabilities"].shape == (2, 3, 32, 32)
    assert out["embeddings"].shape == (2, 2048)


def test_the_auxiliary_loss_counts_by_its_weight() -> None:
    data = Scenes(n=2)
    learner = fit(FCNResNet50(aux_weight=1.0, dropout=0.0, **STILL), data.labeled())
    network: Any = learner._network.eval()
    masks = data.pool.labels(torch.arange(2))
    with torch.no_grad():
        aux = network.aux_classifier(network.maps(data.inputs)["aux"])
        aux_loss = pixel_cross_entropy(segmentation.upsample_bilinear(aux, (32, 32)), masks)
        losses = []
        for weight in (0.0, 1.0, 3.0):
            learner.aux_weight = weight
            losses.append(learner._loss(network, data.inputs, masks))
    torch.testing.assert_close(losses[0], pixel_cross_entropy(network(data.inputs), masks))
    torch.testing.assert_close(losses[1] - losses[0], aux_loss)
    torch.testing.assert_close(losses[2] - losses[0], 3 * aux_loss)


@pytest.mark.parametrize("learner", [small_drn(), DeepLabV3ResNet50(epochs=1)], ids=["drn", "deeplab"])
@pytest.mark.parametrize("size", [(8, 8), (33, 40)])
def test_one_scene_is_enough_and_its_image_has_statistics(learner: Any, size: tuple[int, int]) -> None:
    data = Scenes(n=3, size=size)
    out = fit(learner, data.labeled(0)).predict(data.inputs)
    assert all(torch.isfinite(value).all() for value in out.values())
    counts = {value.item() for name, value in weights_of(learner).items() if name.endswith("batches_tracked")}
    # One value a channel, as after an image pooling or in maps of one pixel, gives no statistics.
    assert counts == ({0, 1} if learner.name == "deeplabv3-resnet50" or size == (8, 8) else {1})


def test_batch_norm_that_met_a_single_value_learns_from_the_next_batch() -> None:
    data = Scenes(n=3)
    learner = fit(DeepLabV3ResNet50(epochs=1, batch_size=2), data.labeled())
    pooling = "classifier.0.convs.4.2.num_batches_tracked"
    assert weights_of(learner)["backbone.bn1.num_batches_tracked"] == 2
    assert weights_of(learner)[pooling] == 1


@pytest.mark.parametrize("shape", [(1, 31, 50), (3, 48, 48)])
def test_probabilities_are_those_of_pixels_and_embeddings_one_vector_an_image(shape: tuple[int, ...]) -> None:
    data = Scenes(n=5, channels=shape[0], size=shape[1:])  # type: ignore[arg-type]
    out = fit(small_drn(), data.labeled()).predict(data.inputs)
    assert out["probabilities"].shape == (5, 3, *shape[1:])
    torch.testing.assert_close(out["probabilities"].sum(1), torch.ones(5, *shape[1:]))
    assert out["embeddings"].shape == (5, 64)
    assert all(value.dtype == torch.float32 for value in out.values())


@pytest.mark.parametrize("kind", ALL)
def test_they_do_segmentation_alone_and_have_no_head(kind: type) -> None:
    learner = kind()
    assert learner.tasks == {"segmentation"}
    assert {"probabilities", "embeddings"} <= learner.provides <= {"probabilities", "embeddings", "dropout"}
    assert not hasattr(learner, "head")
    with pytest.raises(LearnerError, match=f"learner {learner.name} does segmentation, not classification"):
        fit(learner, Blobs(shape=(3, 32, 32)).labeled())


def test_a_warm_start_goes_on_and_a_state_comes_back() -> None:
    data = Scenes(n=4)
    learner = fit(small_drn(epochs=2), data.labeled(), seed=1)
    before = probabilities(learner, data.inputs)
    restored = small_drn(**STILL)
    restored.load_state_dict(learner.state_dict())
    assert torch.equal(probabilities(restored, data.inputs), before)
    fit(restored, data.labeled(), start="warm", seed=2)
    assert torch.equal(weights_of(restored)["fc.bias"], weights_of(learner)["fc.bias"])
    fit(restored, data.labeled(), start="scratch", seed=2)
    assert not torch.equal(weights_of(restored)["fc.weight"], weights_of(learner)["fc.weight"])


def test_dropout_samples_differ_by_the_generator_and_leave_predictions_as_they_were() -> None:
    data = Scenes(n=3)
    learner = fit(small_drn(dropout=0.5), data.labeled())
    before = probabilities(learner, data.inputs)
    one, same, other = (
        learner.sample(data.inputs, torch.Generator().manual_seed(seed))["probabilities"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(probabilities(learner, data.inputs), before)
    assert "dropout" in learner.provides
    assert "dropout" not in small_drn().provides


def test_scenes_that_are_kept_train_like_those_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Scenes(n=6)
    kept = fit(small_drn(batch_size=4), data.labeled())
    size = len(data.pool) * (4 * 3 * 32 * 32 + 32 * 32)
    read: list[int] = []
    labels = data.pool.labels
    monkeypatch.setattr(data.pool, "labels", lambda ids: read.append(len(ids)) or labels(ids))
    monkeypatch.setattr("poolwright_plugins.learners.base.RESIDENT_BYTES", size)
    fit(small_drn(batch_size=4, epochs=3), data.labeled())
    assert read == [4, 2]
    monkeypatch.setattr("poolwright_plugins.learners.base.RESIDENT_BYTES", size - 1)
    streamed = fit(small_drn(batch_size=4), data.labeled())
    assert read == [4, 2] * 2
    assert all(torch.equal(value, weights_of(kept)[name]) for name, value in weights_of(streamed).items())


@pytest.mark.parametrize(("n_classes", "dtype"), [(3, torch.uint8), (255, torch.uint8), (256, torch.int16)])
def test_kept_masks_are_small_and_still_know_what_to_ignore(n_classes: int, dtype: torch.dtype) -> None:
    masks = torch.tensor([[[0, n_classes - 1, n_classes, 255 if n_classes < 255 else 10**6, -1]]])
    kept = small_drn()._kept(masks, n_classes)
    assert kept.dtype == dtype
    logits = torch.randn(1, n_classes, 1, 5)
    torch.testing.assert_close(pixel_cross_entropy(logits, kept), pixel_cross_entropy(logits, masks))


class Flipped(Scenes):
    """Scenes that are mirrored whenever they are trained on."""

    def augment_pair(self, inputs: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        torch.rand(1, generator=generator)
        return inputs.flip(3), masks.flip(2)


def test_augmentation_changes_image_and_mask_alike() -> None:
    data = Flipped(n=8)
    mirrored = Scenes(n=8)
    mirrored.pool._inputs, mirrored.pool._labels = data.pool._inputs.flip(3), data.pool._labels.flip(2)
    augmented = fit(small_drn(augment=True), data.labeled())
    expected = fit(small_drn(), mirrored.labeled())
    torch.testing.assert_close(
        probabilities(augmented, data.inputs), probabilities(expected, data.inputs), rtol=1e-3, atol=1e-4
    )


def test_augmentation_without_a_way_to_move_the_masks_is_refused() -> None:
    with pytest.raises(ConfigError, match="set augment = false"):
        fit(small_drn(augment=True), Scenes(n=2).labeled())


def test_masks_of_another_size_than_their_images_are_an_error() -> None:
    data = Scenes(n=2)
    data.pool._labels = data.pool._labels[:, :16]
    with pytest.raises(LearnerError, match=r"masks of shape \(2, 16, 32\) for images of shape \(2, 3, 32, 32\)"):
        fit(small_drn(), data.labeled())


def test_a_loss_that_is_not_finite_names_learner_and_epoch() -> None:
    data = Scenes(n=2)
    data.pool._inputs[1, 0, 3, 3] = math.inf
    with pytest.raises(LearnerError, match=r"learner drn-d-22: the loss became NaN or infinite in epoch 1 of 1"):
        fit(small_drn(), data.labeled())


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (small_drn(width=0), "learner drn-d-22: width must be an integer of at least 1"),
        (small_drn(predict_batch_size=0), "learner drn-d-22: predict_batch_size must be an integer"),
        (FCNResNet50(aux_weight=-1.0), "learner fcn-resnet50: aux_weight must be 0 or more, not -1.0"),
        (FCNResNet50(aux_weight="1"), "learner fcn-resnet50: aux_weight must be 0 or more, not '1'"),
        (DeepLabV3ResNet50(dropout=1.0), "learner deeplabv3-resnet50: dropout must be at least 0 and below 1"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(learner: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(learner, Scenes(n=2).labeled())


@pytest.mark.parametrize("kind", ALL)
def test_images_below_8_by_8_are_refused(kind: type) -> None:
    with pytest.raises(LearnerError, match="at least 8 x 8 pixels"):
        fit(kind(), Scenes(n=2, size=(7, 32)).labeled())


# -- CUDA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_no_step_uses_an_operation_whose_gradient_on_cuda_is_not_deterministic(kind: type) -> None:
    data = Scenes(n=2)
    learner = kind()
    network = learner.build((3, 32, 32), 3).train()
    used = operations(learner._loss(network, data.inputs, data.pool.labels(torch.arange(2))))
    assert "NllLoss2DBackward" in used
    assert not {name for name in used if re.search("Upsample|AdaptiveAvgPool|Reduced|ReflectionPad|Gather", name)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ALL)
def test_fits_on_cuda_are_deterministic_and_predict_in_float32(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    data = Scenes(n=8, size=(64, 64))
    torch.use_deterministic_algorithms(True)
    try:
        first, again = (
            fit(kind(epochs=2, batch_size=4, device="cuda"), data.labeled()).predict(data.inputs.cuda())
            for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for name, values in first.items():
        assert values.dtype == torch.float32
        assert values.is_cuda
        assert torch.equal(values, again[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["auto", "float32", "bf16", "fp16"])
def test_mixed_precision_on_cuda_learns_scenes(precision: str) -> None:
    data = Scenes(n=32, size=(64, 64))
    params: dict[str, Any] = {"width": 4, "epochs": 25, "batch_size": 4, "lr": 1e-2, "device": "cuda"}
    learner = fit(small_drn(**params, precision=precision), data.labeled(*range(24)))
    assert evaluate(learner, data.labeled(*range(24, 32)), device="cuda")["miou"] > 0.4
