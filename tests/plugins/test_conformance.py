"""The conformance suite, as third parties run it, on every built-in plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolwright import testing
from poolwright_plugins.datasets.arrays import Arrays
from poolwright_plugins.datasets.digits import Digits
from poolwright_plugins.learners.cnn import CNN
from poolwright_plugins.learners.deit import DeiTSmall
from poolwright_plugins.learners.drn import DRND22
from poolwright_plugins.learners.linear import Linear
from poolwright_plugins.learners.mlp import MLP
from poolwright_plugins.learners.resnet import ResNet18
from poolwright_plugins.learners.resnet50_segmentation import DeepLabV3ResNet50, FCNResNet50
from poolwright_plugins.learners.sklearn import Sklearn
from poolwright_plugins.learners.vgg import VGG16
from poolwright_plugins.strategies.activeft import ActiveFT
from poolwright_plugins.strategies.badge import Badge
from poolwright_plugins.strategies.bral_t.strategy import BralT
from poolwright_plugins.strategies.coreset import CoreSet
from poolwright_plugins.strategies.kmeans import KMeans
from poolwright_plugins.strategies.random import Random
from poolwright_plugins.strategies.rewards import AccuracyGain, ClassBalance, PrecisionPerLabel, TrustSetDistance
from poolwright_plugins.strategies.sraal import SRAAL, SRAALInit
from poolwright_plugins.strategies.sral import SRAL
from poolwright_plugins.strategies.twisted import Twisted
from poolwright_plugins.strategies.uncertainty import Entropy, LeastConfidence, Margin
from poolwright_plugins.strategies.vaal import VAAL
from poolwright_plugins.wrappers.stop_when import StopWhen

from .adversarial_parts import SMALL


@pytest.mark.parametrize("plugin", [Random, Entropy, LeastConfidence, Margin, CoreSet, KMeans, Badge, Twisted])
def test_strategies_conform(plugin: type) -> None:
    testing.assert_conforms("strategy", plugin)


def test_activeft_conforms() -> None:
    testing.assert_conforms("strategy", ActiveFT, {"iterations": 3})


@pytest.mark.parametrize(
    "params", [{}, {"retrain_every": 2}, {"per_cluster": False, "cut": "center"}, {"policy": "pseudo-score"}]
)
def test_bral_t_conforms(params: dict[str, Any]) -> None:
    testing.assert_conforms("strategy", BralT, {"environments": 2, "hidden": 8, "steps": 2, **params})


@pytest.mark.parametrize("plugin", [AccuracyGain, ClassBalance, PrecisionPerLabel, TrustSetDistance])
def test_rewards_conform(plugin: type) -> None:
    testing.assert_conforms("strategy", plugin)


@pytest.mark.parametrize(
    "params",
    [
        {"n": 4, "hidden": [8], "learning_starts": 2, "minibatch": 4},
        {"n": 4, "hidden": [8], "learning_starts": 1, "action": "chunk", "net": "conv", "features": "features"},
    ],
)
def test_sral_conforms(params: dict[str, Any]) -> None:
    testing.assert_conforms("strategy", SRAL, params)


@pytest.mark.parametrize(
    ("plugin", "params"),
    [
        (VAAL, {}),
        (VAAL, {"ablation": "no-vae"}),
        (VAAL, {"ablation": "frozen-vae"}),
        (VAAL, {"ablation": "no-discriminator"}),
        (VAAL, {"warm_start": True}),
        (SRAAL, {}),
        (SRAAL, {"relabel": False, "stl": False}),
        (SRAAL, {"warm_start": True}),
        (SRAALInit, {}),
    ],
)
def test_adversarial_strategies_conform(plugin: type, params: dict[str, Any]) -> None:
    testing.assert_conforms("strategy", plugin, SMALL | params)


@pytest.mark.parametrize("params", [{"threshold": 1.01}, {"stable": 2}])
def test_stop_when_conforms(params: dict[str, Any]) -> None:
    testing.assert_conforms("wrapper", StopWhen, params)


@pytest.mark.parametrize(
    ("plugin", "params"),
    [
        (Linear, {}),
        (MLP, {"dropout": 0.2}),
        (CNN, {"width": 4, "dropout": 0.2}),
        (ResNet18, {"epochs": 1, "dropout": 0.2}),
        (VGG16, {"width": 4, "epochs": 2}),
        (DeiTSmall, {"weights": "none", "size": 16, "patch": 8, "width": 16, "depth": 1, "epochs": 2, "dropout": 0.2}),
        (DRND22, {"width": 2, "epochs": 2, "dropout": 0.2}),
        pytest.param(FCNResNet50, {"epochs": 1}, marks=pytest.mark.slow),
        pytest.param(DeepLabV3ResNet50, {"epochs": 1}, marks=pytest.mark.slow),
        (Sklearn, {}),
        (Sklearn, {"estimator": "RandomForestClassifier", "params": {"n_estimators": 5}}),
    ],
)
def test_learners_conform(plugin: type, params: dict[str, Any]) -> None:
    testing.assert_conforms("learner", plugin, params)


def test_digits_conform() -> None:
    testing.assert_conforms("dataset", Digits)


def test_arrays_conform(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 3)
    testing.assert_conforms("dataset", Arrays, {"path": str(tmp_path / "data.npz")})
