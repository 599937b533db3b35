"""Masks in data sets and samples: compact, checked, read by rows."""

from __future__ import annotations

import pytest
import torch

from poolwright import (
    ConfigError,
    DatasetError,
    Samples,
    TensorSplit,
)
from poolwright.dataset import Episode, whole
from poolwright.masks import LabelRows, first_stray
from poolwright.oracle import DatasetOracle
from poolwright.preparation import load_dataset
from poolwright.resample import resample
from poolwright.testing import make_dataset

from .helpers.build import EMPTY, play, session
from .helpers.toys import Lowest, Masks, Random, Scenes, Signs, load


class Lazy:
    """A split whose samples are made when they are read; counts what is asked of it."""

    def __init__(self, masks: torch.Tensor, height: int | None = None) -> None:
        self.masks = masks
        self.height = height or masks.shape[1]
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.masks)

    def inputs(self, ids):
        return torch.zeros(len(ids), 1, self.height, self.masks.shape[2])

    def labels(self, ids):
        self.read += ids.tolist()
        return self.masks[ids].long()


def lazy_dataset(masks, **options):
    class Own(Masks):
        def load(self):
            super().load()
            self.pool = Lazy(masks, **options)

    return Own


# -- what is loaded ----------------------------------------------------------------------------------------------


def test_a_split_in_memory_keeps_masks_as_they_are_and_gives_int64():
    masks = torch.randint(0, 19, (5, 2, 3), dtype=torch.uint8)
    split = TensorSplit(torch.zeros(5, 1, 2, 3), masks)
    assert split.masks is masks
    assert split.labels(torch.tensor([4, 0])).dtype == torch.int64
    assert split.labels(torch.tensor([4, 0])).tolist() == masks[[4, 0]].tolist()
    assert TensorSplit(torch.zeros(5, 2), torch.zeros(5)).masks is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_masks_that_are_no_integers_are_refused(dtype):
    with pytest.raises(DatasetError, match=f"masks must be integers, one class a pixel, not {dtype}"):
        TensorSplit(torch.zeros(5, 1, 2, 3), torch.zeros(5, 2, 3, dtype=dtype))


def test_a_data_set_with_ignored_pixels_is_taken():
    assert len(load_dataset(Scenes, EMPTY).pool) == 12


@pytest.mark.parametrize("part", ["pool", "test"])
@pytest.mark.parametrize("value", [2, 254])
def test_a_value_that_is_neither_a_class_nor_ignored_is_named_with_its_id(part, value):
    class Own(Scenes):
        def load(self):
            super().load()
            getattr(self, part).masks[5, 1, 2] = value

    expected = rf"mask of id 5 of its {part} holds {value}, which is no class: there are 0\.\.1, and 255"
    with pytest.raises(DatasetError, match=expected):
        load_dataset(Own, EMPTY)


def test_the_ignore_index_of_the_data_set_counts():
    class Own(Scenes):
        ignore_index = 7

    assert len(load_dataset(Own, EMPTY, ignored=7).pool) == 12
    with pytest.raises(DatasetError, match="holds 255, which is no class"):
        load_dataset(Own, EMPTY, ignored=255)


def test_a_negative_ignore_index_is_not_taken_for_255():
    class Own(Scenes):
        ignore_index = -1

    with pytest.raises(DatasetError, match=r"holds 255, which is no class: there are .*, and -1 for pixels"):
        load_dataset(Own, EMPTY)


def test_an_ignore_index_that_is_a_class_is_refused():
    class Own(Scenes):
        ignore_index = 1

    with pytest.raises(DatasetError, match="ignore_index = 1 is the class 'positive'"):
        load_dataset(Own, EMPTY)


@pytest.mark.parametrize(
    ("masks", "options"),
    [
        (torch.zeros(6, 2, 3, dtype=torch.uint8), {"height": 4}),
        (torch.zeros(6, 2, 3, 3, dtype=torch.uint8), {"height": 2}),
    ],
)
def test_masks_of_another_shape_than_their_images_are_refused(masks, options):
    with pytest.raises(DatasetError, match=r"pool have prepared inputs of shape .* and masks of shape"):
        load_dataset(lazy_dataset(masks, **options), EMPTY)


def test_a_large_split_on_disk_is_looked_at_and_not_read_whole():
    masks = torch.zeros(5000, 2, 3, dtype=torch.uint8)
    data = load_dataset(lazy_dataset(masks), EMPTY, subset=4000, validation=0.2)
    assert 0 < len(data.pool.base.read) < 50
    assert {0, 4999} <= set(data.pool.base.read)


def test_what_was_not_looked_at_is_checked_when_it_is_read():
    masks = torch.zeros(5000, 2, 3, dtype=torch.uint8)
    masks[3] = 9
    data = load_dataset(lazy_dataset(masks), EMPTY)
    samples = whole(data, data.pool)
    samples.labels[:3]
    with pytest.raises(DatasetError, match="the mask of id 3 holds 9, which is no class"):
        samples.labels[torch.tensor([4, 3])]


def test_options_that_need_one_class_a_sample_say_so_without_reading_masks():
    data = load(lazy_dataset(torch.zeros(50, 2, 3, dtype=torch.uint8))())
    for options in ({"imbalance": "1:2"}, {"long_tail": 10}):
        with pytest.raises(ConfigError, match="need one class a sample; segmentation has none"):
            resample(data, **options)
    assert data.pool.read == []


# -- samples -----------------------------------------------------------------------------------------------------


def test_masks_of_samples_are_read_batch_by_batch():
    split = Lazy(torch.randint(0, 2, (40, 2, 3), dtype=torch.uint8))
    data = load(Masks())
    samples = Samples(data, split, torch.arange(10, 40), split.labels)
    assert isinstance(samples.labels, LabelRows)
    batches = samples.batches(8, generator=torch.Generator().manual_seed(0))
    next(batches)
    assert len(split.read) == 8
    got = [y for _, y in samples.batches(8)]
    assert torch.equal(torch.cat(got), split.masks[10:].long())
    assert samples.labels.shape == (30, 2, 3)
    assert torch.equal(samples.labels[torch.tensor([29, 0])], split.masks[[39, 10]].long())


def test_a_session_hands_masks_to_the_learner_by_rows():
    seen: list = []

    class Looking(Signs):
        def fit(self, labeled, **options):
            seen.append(labeled.labels)
            super().fit(labeled, **options)

    run = play(session(Lowest, learner=Looking, dataset=load(Masks()), initial=torch.arange(3), budget=4, batch=2))
    assert all(isinstance(labels, LabelRows) for labels in seen)
    assert torch.equal(seen[-1][:], run.dataset.pool.labels(torch.arange(7)))


@pytest.mark.parametrize("where", ["pool", "test"])
def test_a_run_never_holds_all_masks_as_int64(where):
    """Peak of numpy and Python memory says nothing of torch's, so count what is widened at a time."""
    widened: list[int] = []

    class Counting(TensorSplit):
        def labels(self, ids):
            widened.append(len(ids))
            return super().labels(ids)

    class Own(Masks):
        def load(self):
            super().load()
            for name in ("pool", "test"):
                x = torch.randn(200, 1, 2, 3)
                setattr(self, name, (Counting if name == where else TensorSplit)(x, (x[:, 0] > 0).to(torch.uint8)))

    class Small(Signs):
        predict_batch_size = 20

    data = load(Own())
    play(
        session(
            Random,
            learner=Small,
            dataset=data,
            initial=60,
            reserve={"state": torch.arange(100, 150)},
            budget=80,
            batch=40,
            oracle=DatasetOracle(data.pool),
        )
    )
    assert widened
    assert max(widened) <= 20


def test_augmentation_changes_images_and_masks_together_or_is_refused():
    data = make_dataset(task="segmentation")
    samples = Samples(data, data.pool, torch.arange(6), data.pool.labels)
    assert not samples.can_augment
    with pytest.raises(ConfigError, match="cannot augment images together with their masks"):
        next(samples.batches(3, generator=torch.Generator(), augment=True))

    class Mirrored(type(data)):
        def augment_pair(self, inputs, masks, generator):
            return inputs.flip(3), masks.flip(2)

    data = load(Mirrored(task="segmentation"))
    for dataset in (data, resample(data, subset=20), Episode(data, torch.arange(6), data.pool.labels)):
        samples = Samples(dataset, dataset.pool, torch.arange(6), data.pool.labels)
        assert samples.can_augment
        ((plain_x, plain_y),) = Samples(data, data.pool, samples._base_ids, samples.labels[:]).batches(6)
        ((x, y),) = Samples(data, data.pool, samples._base_ids, samples.labels[:]).batches(
            6, generator=torch.Generator().manual_seed(0), augment=True
        )
        order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
        assert torch.equal(x, plain_x[order].flip(3))
        assert torch.equal(y, plain_y[order].flip(2))


class Resident(TensorSplit):
    """A split that claims to be resident on the CPU, and counts copies from the host."""

    copies = 0

    def resident(self, device):
        return self.data

    def inputs(self, ids):
        self.copies += 1
        return super().inputs(ids)


def test_resident_data_are_read_on_the_device_without_a_copy_from_the_host():
    data = make_dataset(n=20)
    split = Resident(data.pool.data, data.pool.labels(torch.arange(20)))
    subset = resample(data, subset=10)
    subset.pool.base = split
    samples = Samples(subset, subset.pool, torch.arange(3, 10), subset.pool.labels(torch.arange(3, 10)))
    got = torch.cat([x for x, _ in samples.batches(4)])
    assert split.copies == 0
    assert torch.equal(got, data.prepare(data.pool.data[subset.pool.ids[3:]]))


def test_the_first_stray_pixel_is_found_across_blocks(monkeypatch):
    monkeypatch.setattr("poolwright.masks.BLOCK_VALUES", 12)
    masks = torch.zeros(9, 2, 3, dtype=torch.uint8)
    masks[7, 1, 0] = 200
    assert first_stray(masks, 3, 255) == (7, 1, 0, 200)
    masks[7, 1, 0] = 255
    assert first_stray(masks, 3, 255) is None
