"""ResNet-18 and VGG-16: layouts, stems, weights of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from poolwright import ConfigError, LearnerError
from poolwright_plugins.learners.resampling import average_to, upsample_bilinear
from poolwright_plugins.learners.resnet import ResNet18
from poolwright_plugins.learners.vgg import VGG16

from .learner_parts import Blobs, fit, logits

STILL: dict[str, Any] = {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}


def network_of(learner: Any, shape: tuple[int, ...], classes: int = 10) -> nn.Module:
    network: nn.Module = learner.build(shape, classes)
    return network


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norm statistics that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 0.1 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var *= 1 + torch.rand(module.running_var.shape, generator=generator)
    return network.eval()


def file_of(network: nn.Module, folder: Path) -> str:
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


# -- ResNet-18 -------------------------------------------------------------------------------------------------------


def test_the_standard_resnet18_is_torchvisions() -> None:
    standard = network_of(ResNet18(stem="standard"), (3, 32, 32), 1000)
    assert parameter_count(standard) == parameter_count(torchvision.models.resnet18()) == 11_689_512


def test_the_small_stem_is_a_3_by_3_convolution_of_stride_1_without_pooling() -> None:
    network: Any = network_of(ResNet18(stem="small"), (3, 32, 32))
    assert parameter_count(network) == 11_173_962  # the figure that is known for CIFAR's ResNet-18
    maps: list[Tensor] = []
    network.body.layer1.register_forward_hook(lambda module, inputs, output: maps.append(output))
    assert network(image(3, 32, 32)).shape == (2, 10)
    assert maps[0].shape == (2, 64, 32, 32)


@pytest.mark.parametrize(
    ("shape", "stem", "small"),
    [
        ((3, 32, 32), "auto", True),
        ((1, 28, 28), "auto", True),
        ((3, 63, 40), "auto", True),
        ((3, 64, 64), "auto", False),
        ((1, 28, 28), "standard", False),
        ((3, 224, 224), "small", True),
    ],
)
def test_auto_takes_the_small_stem_below_64_pixels(shape: tuple[int, ...], stem: str, small: bool) -> None:
    network: Any = network_of(ResNet18(stem=stem), shape)
    assert network.body.conv1.kernel_size == ((3, 3) if small else (7, 7))
    assert isinstance(network.body.maxpool, nn.Identity) == small


def test_grey_images_reach_the_standard_stem_through_a_1_by_1_convolution_that_repeats_them_at_first() -> None:
    network: Any = randomized(network_of(ResNet18(stem="standard"), (1, 28, 28)))
    assert (network.colors.kernel_size, network.colors.out_channels) == ((1, 1), 3)
    grey = image(1, 28, 28)
    repeated = network.head(network.body(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(network(grey), repeated)


@pytest.mark.parametrize(("stem", "shape", "epochs"), [("standard", (1, 8, 8), 25), ("small", (3, 9, 13), 6)])
def test_a_resnet18_learns_from_few_steps_and_gives_512_features(
    stem: str, shape: tuple[int, ...], epochs: int
) -> None:
    data = Blobs(shape=shape)
    learner = fit(ResNet18(stem=stem, epochs=epochs, batch_size=20), data.labeled())
    out = learner.predict(data.inputs)
    assert out["embeddings"].shape == (40, 512)
    assert (out["logits"].argmax(1) == torch.arange(40) % 3).float().mean() > 0.9


def test_the_resnet18_drops_out_before_the_head_alone() -> None:
    data = Blobs()
    learner = fit(ResNet18(dropout=0.5, epochs=1), data.labeled())
    sampled = learner.sample(data.inputs, torch.Generator().manual_seed(0))["embeddings"]
    kept = learner.predict(data.inputs)["embeddings"]
    assert torch.all((sampled == 0) | torch.isclose(sampled, 2 * kept, rtol=1e-4, atol=1e-5))
    assert 0.4 < (sampled == 0).float().mean() < 0.75


def test_torchvisions_resnet18_weights_give_its_logits(tmp_path: Path) -> None:
    source = randomized(torchvision.models.resnet18(num_classes=3))
    learner = ResNet18(stem="standard", weights=file_of(source, tmp_path))
    data = Blobs(shape=(3, 32, 32))
    learner.load_pretrained(data.labeled())
    torch.testing.assert_close(logits(learner, data.inputs), source(data.inputs).detach(), rtol=1e-4, atol=1e-4)


def test_weights_of_other_classes_and_colors_leave_these_layers_fresh(tmp_path: Path) -> None:
    source = randomized(torchvision.models.resnet18(num_classes=1000))
    data = Blobs(shape=(1, 16, 16))
    learner = fit(
        ResNet18(stem="standard", weights=file_of(source, tmp_path), **STILL), data.labeled(), start="pretrained"
    )
    assert learner.head.out_features == 3
    weight = learner.state_dict()["network"]["body.layer4.1.conv2.weight"]
    torch.testing.assert_close(weight, source.layer4[1].conv2.weight.detach(), rtol=0, atol=1e-5)


def test_files_from_before_batches_were_counted_are_read(tmp_path: Path) -> None:
    source = randomized(torchvision.models.resnet18(num_classes=3))
    old = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(source.state_dict())
    torch.save(old, tmp_path / "old.pth")
    learner = ResNet18(stem="standard", weights=str(tmp_path / "old.pth"))
    data = Blobs(shape=(3, 32, 32))
    learner.load_pretrained(data.labeled())
    torch.testing.assert_close(logits(learner, data.inputs), source(data.inputs).detach(), rtol=1e-4, atol=1e-4)


def test_weights_with_another_stem_are_refused(tmp_path: Path) -> None:
    path = file_of(torchvision.models.resnet18(), tmp_path)
    with pytest.raises(LearnerError, match=r"learner resnet18: .* of another network; they differ in body.conv1"):
        fit(ResNet18(weights=path), Blobs(shape=(3, 32, 32)).labeled(), start="pretrained")


@pytest.mark.parametrize("content", [[1, 2], {"network": 3}, {7: torch.zeros(1)}, {"state_dict": {}}])
def test_files_that_hold_no_weights_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(LearnerError, match="holds weights of another network"):
        fit(ResNet18(weights=str(tmp_path / "odd.pt")), Blobs().labeled(), start="pretrained")


# -- VGG-16 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_norm", "known"), [(False, 138_357_544), (True, 138_365_992)])
def test_the_standard_vgg16_is_torchvisions(batch_norm: bool, known: int) -> None:
    with torch.device("meta"):
        network = network_of(VGG16(classifier="standard", batch_norm=batch_norm), (3, 224, 224), 1000)
        original = (torchvision.models.vgg16_bn if batch_norm else torchvision.models.vgg16)()
    assert parameter_count(network) == parameter_count(original) == known
    renamed = network.renamed(original.state_dict())  # type: ignore[operator]
    own = network.state_dict()
    assert {name: value.shape for name, value in renamed.items()} == {n: value.shape for n, value in own.items()}


def test_the_small_vgg16_is_the_one_known_for_cifar() -> None:
    network = network_of(VGG16(batch_norm=False), (3, 32, 32))
    assert parameter_count(network) == 14_714_688 + 2 * (512 * 512 + 512) + 512 * 10 + 10
    assert network.features(image(3, 32, 32)).shape == (2, 512)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("shape", "classifier", "small"),
    [((1, 28, 28), "auto", True), ((3, 64, 64), "auto", False), ((3, 32, 32), "standard", False)],
)
def test_auto_takes_the_small_classifier_below_64_pixels(shape: tuple[int, ...], classifier: str, small: bool) -> None:
    network: Any = network_of(VGG16(width=2, classifier=classifier), shape)
    assert network.head.in_features == (16 if small else 128)
    assert network(image(*shape)).shape == (2, 10)


def test_torchvisions_convolutions_serve_both_classifiers(tmp_path: Path) -> None:
    with torch.device("meta"):
        source = torchvision.models.vgg16_bn()
    convolutions = randomized(source.features.to_empty(device="cpu").apply(reset))
    path = tmp_path / "weights.pth"
    torch.save({f"features.{name}": value for name, value in convolutions.state_dict().items()}, path)
    data = Blobs(shape=(3, 32, 32), n=2)
    learner = VGG16(weights=str(path))
    learner.load_pretrained(data.labeled())
    network: Any = learner._network
    torch.testing.assert_close(network.body(data.inputs), convolutions(data.inputs))


def reset(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
        module.reset_parameters()


def test_the_classifier_of_a_file_goes_into_the_standard_one_and_is_left_out_of_the_small_one() -> None:
    state = dict.fromkeys(("features.0.weight", "classifier.0.weight", "classifier.3.bias", "classifier.6.bias"), 0)
    standard: Any = network_of(VGG16(width=1, classifier="standard"), (3, 32, 32))
    small: Any = network_of(VGG16(width=1), (3, 32, 32))
    assert set(standard.renamed(state)) == {"body.0.weight", "hidden.0.weight", "hidden.3.bias", "head.bias"}
    assert set(small.renamed(state)) == {"body.0.weight"}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 45)])
def test_a_small_vgg16_learns(shape: tuple[int, ...]) -> None:
    data = Blobs(shape=shape)
    learner = fit(VGG16(width=4, epochs=30, batch_size=20, lr=5e-3, dropout=0.1), data.labeled())
    assert (logits(learner, data.inputs).argmax(1) == torch.arange(40) % 3).float().mean() > 0.9
    assert "dropout" in learner.provides


@pytest.mark.parametrize("kind", [ResNet18, VGG16])
@pytest.mark.parametrize("shape", [(64,), (3, 7, 20)])
def test_what_is_no_image_of_8_by_8_is_refused(kind: type, shape: tuple[int, ...]) -> None:
    with pytest.raises(LearnerError, match="at least 8 x 8 pixels"):
        fit(kind(), Blobs(shape=shape).labeled())


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (ResNet18(stem="tiny"), "learner resnet18: stem is one of auto, small, standard, not 'tiny'"),
        (ResNet18(predict_batch_size=0), "learner resnet18: predict_batch_size must be an integer of at least 1"),
        (VGG16(classifier="mlp"), "learner vgg16: classifier is one of auto, small, standard"),
        (VGG16(width=0), "learner vgg16: width must be an integer of at least 1"),
    ],
)
def test_unusable_parameters_are_errors_that_name_them(learner: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(learner, Blobs().labeled())


# -- resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "target"), [((4, 4), (32, 32)), ((5, 9), (33, 71)), ((1, 1), (8, 3)), ((6, 6), (6, 6))]
)
def test_upsampling_is_torchs_bilinear_in_value_and_gradient(size: tuple[int, int], target: tuple[int, int]) -> None:
    ours, torchs = (image(3, *size).requires_grad_() for _ in range(2))
    weights = torch.randn(2, 3, *target)
    up = upsample_bilinear(ours, target)
    expected = F.interpolate(torchs, size=target, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up, expected)
    for result in (up, expected):
        (result * weights).sum().backward()
    torch.testing.assert_close(ours.grad, torchs.grad)


@pytest.mark.parametrize("size", [(7, 7), (1, 2), (10, 13)])
def test_averaging_is_torchs_adaptive_pooling(size: tuple[int, int]) -> None:
    maps = image(3, *size)
    torch.testing.assert_close(average_to(maps, 7), F.adaptive_avg_pool2d(maps, 7))


def test_upsampling_is_float32_under_mixed_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert upsample_bilinear(image(3, 4, 4).bfloat16(), (8, 8)).dtype == torch.float32
