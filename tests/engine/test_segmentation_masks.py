"""Where masks with values that are no class are found, and how often masks are read."""

from __future__ import annotations

import pytest
import torch

from poolwright import DatasetError, SubsetSplit, TensorSplit, load_dataset
from poolwright.masks import LabelRows

from .helpers.build import session
from .helpers.toys import Random, Scenes, Signs


class Stray(Scenes):
    """One mask, number 11 of the pool, holds 7."""

    def load(self):
        super().load()
        self.pool.masks[11, 1, 2] = 7


class Shared(Stray):
    """Pool and test data are parts of one array, the stray mask far back in the test data."""

    def load(self):
        super().load()
        self.pool, self.test = (SubsetSplit(self.pool, ids) for ids in (torch.arange(4), torch.arange(4, 12)))


class Lazy(Stray):
    """The pool's masks lie outside of memory, more than are looked at beforehand."""

    class Files:
        def __init__(self, base):
            self.base = base

        def __len__(self):
            return 600

        def inputs(self, ids):
            return self.base.inputs(ids % 11)

        def labels(self, ids):
            return self.base.labels(torch.where(ids == 7, 11, ids % 11))

    def load(self):
        super().load()
        self.pool = self.Files(self.pool)


class Plain:
    """A class of one's own without ignore_index."""

    task, classes, validation, features, superclasses = "segmentation", ("a", "b"), None, None, None

    def load(self):
        self.pool = self.test = TensorSplit(torch.zeros(4, 1, 2, 3), torch.zeros(4, 2, 3, dtype=torch.uint8))

    def prepare(self, inputs):
        return inputs


def test_masks_in_memory_are_checked_whole_also_as_a_part_of_others():
    with pytest.raises(DatasetError, match=r"the mask of id 7 of its test holds 7, which is no class"):
        load_dataset(Shared)


def test_reserved_masks_are_checked_as_they_are_read():
    data = load_dataset(Lazy)
    with pytest.raises(DatasetError, match=r"the mask of id 7 holds 7, which is no class"):
        session(Random, dataset=data, learner=Signs, initial=3, budget=2, batch=1, reserve={"state": torch.tensor([7])})


def test_a_data_set_without_an_ignore_index_is_told_to_have_one():
    with pytest.raises(DatasetError, match="has no ignore_index: set it to 255"):
        load_dataset(Plain)


def test_masks_too_large_for_a_device_are_not_read_again_to_find_that_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    reads = []

    def read(ids):
        reads.append(ids)
        return torch.zeros(len(ids), 8, 8, dtype=torch.int64)

    rows = LabelRows(torch.arange(10), read)
    assert [rows.resident(torch.device("cuda", 0)) for _ in range(5)] == [None] * 5
    assert len(reads) == 1
