"""made-shapes: generated scenes, the same for the same parameters."""

from __future__ import annotations

import pytest
import torch

from poolwright import ConfigError, load_dataset, testing
from poolwright_plugins.datasets.made_shapes import SHAPES, MadeShapes, without_outlines

SMALL = {"n": 40, "n_test": 12, "size": 32}


def made(**params):
    data = MadeShapes(**(SMALL | params))
    data.load()
    return data


def test_conforms():
    testing.assert_conforms("dataset", MadeShapes, SMALL)


def test_is_found_by_name_and_stored_compactly():
    data = load_dataset("made-shapes", **SMALL)
    assert (data.pool.data.dtype, data.pool.masks.dtype) == (torch.uint8, torch.uint8)
    assert data.pool.data.shape == (40, 3, 32, 32)
    assert data.pool.masks.shape == (40, 32, 32)
    assert len(data.test) == 12
    assert data.classes == ("ground", "circle", "square", "triangle", "cross")


def test_the_same_parameters_make_the_same_scenes_and_another_seed_others():
    first, again, other = made(), made(), made(seed=1)
    assert torch.equal(first.pool.data, again.pool.data)
    assert torch.equal(first.test.masks, again.test.masks)
    assert not torch.equal(first.pool.masks, other.pool.masks)
    assert not torch.equal(first.pool.data[:12], first.test.data)


def test_more_scenes_begin_with_the_same_ones():
    assert torch.equal(made(n=10).pool.data, made(n=25).pool.data[:10])


def test_loading_depends_on_no_global_generator():
    torch.manual_seed(1)
    first = made().pool.data
    torch.manual_seed(2)
    assert torch.equal(first, made().pool.data)


def test_every_class_occurs_the_last_one_least_and_few_pixels_are_ignored():
    data = made(n=150, n_classes=8)
    share = torch.tensor([(data.pool.masks == c).flatten(1).any(1).double().mean() for c in range(8)])
    assert (share > 0).all()
    assert share[1] > 2 * share[7]
    assert data.pool.masks.unique().tolist() == [*range(8), 255]
    assert 0.005 < (data.pool.masks == 255).double().mean() < 0.25


def test_prepared_images_are_around_zero():
    x = made(n=100).prepare(made(n=100).pool.data)
    assert abs(float(x.mean())) < 0.3
    assert 0.7 < float(x.std()) < 1.4


def test_outlines_are_the_pixels_that_differ_from_the_next_to_the_right_or_below():
    labels = torch.tensor([[0, 0, 1], [0, 2, 1], [0, 0, 0]])
    assert without_outlines(labels, 9).tolist() == [[0, 9, 1], [9, 9, 9], [0, 0, 0]]


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        ("circle", (0.6, 0.7), (0.8, 0.8)),
        ("square", (0.8, 0.8), (0.9, 0.0)),
        ("triangle", (0.0, 0.95), (0.5, 0.5)),
        ("cross", (0.9, 0.0), (0.5, 0.5)),
        ("ring", (0.8, 0.0), (0.0, 0.0)),
        ("bar", (0.9, 0.2), (0.0, 0.5)),
        ("moon", (-0.9, 0.0), (0.5, 0.0)),
    ],
)
def test_shapes_hold_the_points_that_their_names_promise(shape, inside, outside):
    holds = SHAPES[shape]
    assert holds(*(torch.tensor(value) for value in inside))
    assert not holds(*(torch.tensor(value) for value in outside))


def test_augmentation_mirrors_image_and_mask_together():
    data = made()
    x = data.pool.data.float()
    masks = data.pool.masks.long()
    x[:, 0] = masks.float()
    flipped, mirrored = data.augment_pair(x, masks, torch.Generator().manual_seed(0))
    assert torch.equal(flipped[:, 0].long(), mirrored)
    kinds = {
        tuple(torch.equal(mirrored[i], masks[i].flip(axes)) for axes in ((), (0,), (1,), (0, 1))) for i in range(40)
    }
    assert len(kinds) >= 4  # none, each, both


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 0}, "n must be an integer at least 1, not 0"),
        ({"n_test": 0}, "n_test must be"),
        ({"size": 8}, "size must be an integer at least 16"),
        ({"n_classes": 1}, "n_classes must be an integer from 2 to 8, not 1"),
        ({"n_classes": 9}, "n_classes must be an integer from 2 to 8, not 9"),
        ({"size": 32.0}, "size must be an integer"),
        ({"n": True}, "n must be an integer at least 1, not True"),
        ({"rare": 0}, "rare must be above 0"),
        ({"rare": "often"}, "rare must be above 0 and at most 1, not 'often'"),
        ({"rare": 1.5}, "rare must be above 0 and at most 1"),
    ],
)
def test_parameters_out_of_range_are_refused(params, message):
    with pytest.raises(ConfigError, match=message):
        made(**params)


def test_two_classes_are_enough():
    assert made(n_classes=2, rare=0.5).pool.masks.unique().tolist() == [0, 1, 255]
