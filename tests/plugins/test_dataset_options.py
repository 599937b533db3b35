"""Options that several data sets have are refused by name, before any file is looked for."""

from __future__ import annotations

from typing import Any

import pytest

from poolwright import ConfigError
from poolwright_plugins.datasets.arrays import Arrays
from poolwright_plugins.datasets.bdd100k import BDD100K
from poolwright_plugins.datasets.caltech import Caltech101, Caltech256
from poolwright_plugins.datasets.cifar import CIFAR10, CIFAR100
from poolwright_plugins.datasets.cityscapes import Cityscapes
from poolwright_plugins.datasets.fashion_mnist import FashionMNIST
from poolwright_plugins.datasets.image_folder import ImageFolder
from poolwright_plugins.datasets.image_mask_folder import ImageMaskFolder
from poolwright_plugins.datasets.imagenet import ImageNet


@pytest.mark.parametrize(
    ("data", "option"),
    [
        (Arrays(path=2024), "path"),  # type: ignore[arg-type]
        (ImageMaskFolder(root=2024, classes=2), "root"),  # type: ignore[arg-type]
        *(
            (dataset(root=2024), "root")
            for dataset in (
                BDD100K, Caltech101, Caltech256, CIFAR10, CIFAR100, Cityscapes, FashionMNIST, ImageFolder, ImageNet,
            )
        ),
    ],
)  # fmt: skip
def test_a_path_that_is_a_number_wants_quotes(data: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"data set .+: {option} must be a path, in quotes, not 2024"):
        data.load()


@pytest.mark.parametrize(
    ("data", "option"),
    [
        (ImageFolder(root=".", flip="no"), "flip"),  # type: ignore[arg-type]
        (Caltech101(background="no"), "background"),  # type: ignore[arg-type]
        (Caltech256(clutter="no"), "clutter"),  # type: ignore[arg-type]
    ],
)
def test_a_switch_that_is_text_is_refused(data: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"data set .+: {option} must be true or false, not 'no'"):
        data.load()
