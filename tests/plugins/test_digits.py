"""The digits that travel with scikit-learn."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from poolwright_plugins.datasets.digits import Digits
from poolwright_plugins.datasets.splitting import stratified_split


def loaded() -> Digits:
    data = Digits()
    data.load()
    return data


def test_pool_and_test_are_the_digits_with_their_labels_each_once() -> None:
    data = loaded()
    rows = [
        (tuple(x.flatten().tolist()), int(y))
        for split in (data.pool, data.test)
        for x, y in zip(split.data, split.labels(torch.arange(len(split))), strict=True)
    ]
    source = load_digits()
    assert sorted(rows) == sorted((tuple(map(int, x)), int(y)) for x, y in zip(source.data, source.target, strict=True))
    assert data.pool.data.dtype == torch.uint8
    assert data.pool.data.shape == (1347, 1, 8, 8)


def test_the_test_split_is_a_quarter_of_each_class_and_always_the_same() -> None:
    first, second = loaded(), loaded()
    everywhere = torch.bincount(torch.from_numpy(load_digits().target))
    counts = torch.bincount(first.test.labels(torch.arange(len(first.test))))
    assert ((counts - everywhere / 4).abs() <= 0.5).all()
    torch.manual_seed(99)
    assert torch.equal(first.test.data, second.test.data)


def test_inputs_are_scaled_to_0_1_and_features_are_these_pixels() -> None:
    data = loaded()
    x = data.prepare(data.pool.data)
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert torch.equal(data.features[torch.arange(len(x))], x.flatten(1))


def test_a_split_keeps_order_and_at_least_one_sample_of_each_class_in_the_pool() -> None:
    labels = torch.tensor([0, 1, 0, 0, 2, 0, 1])
    pool, test = stratified_split(labels, 0.9, "name")
    assert torch.equal(torch.cat([pool, test]).sort().values, torch.arange(7))
    assert torch.equal(pool, pool.sort().values)
    assert set(labels[pool].tolist()) == {0, 1, 2}
    assert not torch.equal(stratified_split(labels, 0.5, "a")[1], stratified_split(labels, 0.5, "c")[1])
