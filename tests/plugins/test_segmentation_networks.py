"""The networks of the segmentation learners: layouts, and weights of others."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from poolwright import LearnerError
from poolwright_plugins.learners.drn import DRND22
from poolwright_plugins.learners.resnet50_segmentation import DeepLabV3ResNet50, FCNResNet50

from .learner_parts import Scenes, fit, small_drn, weights_of
from .test_image_learners import file_of, image, parameter_count, randomized

STILL: dict[str, Any] = {"lr": 1e-12, "epochs": 1, "weight_decay": 0.0}


# -- layouts ---------------------------------------------------------------------------------------------------------


def test_drn_d_22_has_the_size_and_names_of_the_paper_and_its_code() -> None:
    with torch.device("meta"):
        network: Any = DRND22().build((3, 64, 64), 1000)
    assert round(parameter_count(network) / 1e6, 1) == 16.4  # as its authors give it
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["layer0.0.weight"] == (16, 3, 7, 7)
    assert shapes["layer2.0.weight"] == (32, 16, 3, 3)
    assert shapes["layer3.0.downsample.0.weight"] == (64, 32, 1, 1)
    assert shapes["layer6.1.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["layer7.0.weight"] == shapes["layer8.0.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 512, 1, 1)
    tops = {name.partition(".")[0] for name in shapes}
    assert tops == {*(f"layer{i}" for i in range(9)), "fc"}
    dilations = {
        name.partition(".")[0]: module.dilation[0]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1
    }
    assert dilations == dict.fromkeys(map("layer{}".format, (0, 1, 2, 3, 4, 8)), 1) | {
        "layer5": 2, "layer6": 4, "layer7": 2
    }  # fmt: skip


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_maps_of_drn_are_an_eighth_and_its_logits_as_large_as_the_image(
    size: tuple[int, int], channels: int
) -> None:
    network: Any = DRND22(width=2).build((channels, *size), 5)
    x = image(channels, *size)
    assert network.maps(x)["out"].shape == (2, 64, *(math.ceil(side / 8) for side in size))
    assert network(x).shape == (2, 5, *size)


@pytest.mark.parametrize(("kind", "name"), [(FCNResNet50, "fcn_resnet50"), (DeepLabV3ResNet50, "deeplabv3_resnet50")])
def test_the_resnet50_networks_are_torchvisions(kind: type, name: str, tmp_path: Path) -> None:
    make = getattr(torchvision.models.segmentation, name)
    source = randomized(make(weights=None, weights_backbone=None, num_classes=3, aux_loss=True))
    learner = kind(weights=file_of(source, tmp_path), aux_weight=0)  # the file's auxiliary classifier is left out
    data = Scenes(n=2, size=(33, 40))
    learner.load_pretrained(data.labeled())
    out = learner.predict(data.inputs)
    with torch.no_grad():
        expected = source(data.inputs)["out"]
        maps = source.backbone(data.inputs)["out"]
    torch.testing.assert_close(out["probabilities"], expected.softmax(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(out["embeddings"], maps.mean((2, 3)), rtol=1e-3, atol=1e-5)
    assert parameter_count(kind().build((3, 33, 40), 3)) == parameter_count(source)


# -- weights of others -----------------------------------------------------------------------------------------------


def official(width: int, classes: int) -> dict[str, Tensor]:
    network: Any = randomized(DRND22(width=width).build((3, 32, 32), classes))
    result: dict[str, Tensor] = network.state_dict()
    return result


def test_drn_takes_the_authors_classifier_and_segmentation_networks(tmp_path: Path) -> None:
    state = official(2, 3)
    seg = {re.sub(r"^layer(\d)", r"base.\1", name).replace("fc.", "seg."): value for name, value in state.items()}
    forms = {
        "plain": state,
        "old": {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        "parallel": {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3},
        "segmentation": seg | {"up.weight": torch.zeros(3, 1, 16, 16)},
    }
    data = Scenes(n=2)
    for form, content in forms.items():
        torch.save(content, tmp_path / f"{form}.pth")
        learner = small_drn(weights=str(tmp_path / f"{form}.pth"))
        learner.load_pretrained(data.labeled())
        loaded = weights_of(learner)
        assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert len(forms["old"]) < len(state)


def test_weights_for_other_classes_leave_the_last_layer_fresh(tmp_path: Path) -> None:
    state = official(2, 1000)
    torch.save(state, tmp_path / "imagenet.pth")
    learner = fit(
        small_drn(weights=str(tmp_path / "imagenet.pth"), **STILL),
        Scenes(n=2, channels=1).labeled(),
        start="pretrained",
    )
    loaded = weights_of(learner)
    assert loaded["fc.weight"].shape == (3, 64, 1, 1)
    torch.testing.assert_close(loaded["layer8.0.weight"], state["layer8.0.weight"], rtol=0, atol=1e-5)


def test_a_resnet50_of_imagenet_gives_the_backbone(tmp_path: Path) -> None:
    source = randomized(torchvision.models.resnet50())
    learner = FCNResNet50(weights=file_of(source, tmp_path))
    data = Scenes(n=2, channels=1)
    learner.load_pretrained(data.labeled())
    expected = {f"backbone.{name}": value for name, value in source.state_dict().items() if not name.startswith("fc")}
    loaded = weights_of(learner)
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    with pytest.raises(LearnerError, match="weights of another network; they differ in layer0"):
        small_drn(weights=learner.weights).load_pretrained(data.labeled())


def test_weights_of_another_segmentation_network_or_a_damaged_file_are_refused(tmp_path: Path) -> None:
    torch.save(official(4, 3), tmp_path / "wide.pth")
    (tmp_path / "damaged.pth").write_bytes((tmp_path / "wide.pth").read_bytes()[:1000])
    labeled = Scenes(n=2).labeled()
    for name, message in (
        ("wide", "of another network; they differ in layer0.0.weight"),
        ("damaged", "cannot be read"),
    ):
        with pytest.raises(LearnerError, match=f"learner drn-d-22: .*{name}.pth' .*{message}"):
            fit(small_drn(weights=str(tmp_path / f"{name}.pth")), labeled, start="pretrained")
