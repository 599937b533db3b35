"""Data sets, each with the fault that its name tells."""

from __future__ import annotations

from pathlib import Path

import torch
from poolwright import TensorSplit
from poolwright.testing import MadeDataset, datasets, general


class Plain(MadeDataset):
    """The made data set under another name, whose parameter ``test`` is not the test data.

    Parameters
    ----------
    test : float
    """

    def __init__(self, *, test=0.2):
        super().__init__()
        self.test_share = test


class ForPixels(MadeDataset):
    """A data set for segmentation."""

    def __init__(self):
        super().__init__(task="segmentation")


# -- faults: each class is the made data set but for one thing ----------------------------------------------------


class Made(MadeDataset):
    """Base of the faulty."""

    def __init__(self):
        super().__init__()


class Undocumented(Made):
    pass


class ReadsWhenMade(Made):
    """Make the data in the constructor."""

    def __init__(self):
        super().__init__()
        self.load()


class OpensWhenMade(Made):
    """Look into a file in the constructor.

    Parameters
    ----------
    path : str
    """

    def __init__(self, *, path="absent"):
        super().__init__()
        self.path = path
        try:
            Path(__file__).read_text()
        except OSError:
            pass


class ConvertsPath(Made):
    """Convert a parameter.

    Parameters
    ----------
    path : str
    """

    def __init__(self, *, path="absent"):
        super().__init__()
        self.path = Path(path)


class NoTest(Made):
    """Have no test data."""

    def load(self):
        super().load()
        self.test = None


class OneClass(Made):
    """Name one class."""

    def load(self):
        super().load()
        self.classes = ("all",)


class NoFeatures(Made):
    """Have features of too few samples."""

    def load(self):
        super().load()
        self.features = self.features.take(torch.arange(5))


class Short:
    """A split that says it is longer than it is."""

    def __init__(self, base):
        self.held = torch.zeros(len(base), dtype=torch.int64)
        self.base = base

    def __len__(self):
        return len(self.base) - 3

    def inputs(self, ids):
        return self.base.inputs(ids)

    def labels(self, ids):
        return self.base.labels(ids)


class SaysLess(Made):
    """Say it has fewer samples than labels."""

    def load(self):
        super().load()
        self.test = Short(self.test)


class OneLabelTooFew(Short):
    """Give a label too few."""

    def __len__(self):
        return len(self.base)

    def labels(self, ids):
        return self.base.labels(ids)[1:]


class LosesLabels(Made):
    """Give fewer labels than samples."""

    def load(self):
        super().load()
        self.validation = OneLabelTooFew(self.validation)


class FromOne(Made):
    """Number the classes from 1."""

    def load(self):
        super().load()
        ids = torch.arange(self.n)
        self.pool = TensorSplit(self.pool.inputs(ids), self.pool.labels(ids) + 1)


class Sorts(TensorSplit):
    """A split that gives samples by ascending id, whatever was asked for."""

    def inputs(self, ids):
        return super().inputs(ids.sort().values)


class AnyOrder(Made):
    """Give samples in an order of its own."""

    def load(self):
        super().load()
        ids = torch.arange(self.n)
        self.pool = Sorts(self.pool.inputs(ids), self.pool.labels(ids))


class Integers(Made):
    """Prepare nothing."""

    def load(self):
        super().load()
        self.features = None

    def prepare(self, inputs):
        return inputs


class DividesByZero(Made):
    """Prepare NaN."""

    def prepare(self, inputs):
        return inputs.float() / inputs.float().amin((1, 2, 3), keepdim=True).clamp(max=0)


class PreparesInPlace(Made):
    """Change what is stored."""

    def prepare(self, inputs):
        return super().prepare(inputs.clamp_(max=100))


class GlobalNoise(Made):
    """Augment from the global generator."""

    def augment(self, inputs, generator):
        return inputs + torch.randn(inputs.shape)


class Crops(Made):
    """Augment to another shape."""

    def augment(self, inputs, generator):
        return inputs[..., 1:]


class AugmentsInPlace(Made):
    """Change the samples it is given."""

    def augment(self, inputs, generator):
        return inputs.add_(torch.rand(inputs.shape, generator=generator))


class Scenes(MadeDataset):
    """Base of the faulty ones for segmentation."""

    def __init__(self):
        super().__init__(task="segmentation")


class OtherSize(Scenes):
    """Prepare images smaller than their masks."""

    def prepare(self, inputs):
        return super().prepare(inputs)[..., 1:]


class StrangeIgnored(Scenes):
    """Mark pixels by a value that is not the ignore_index."""

    ignore_index = 7

    def _split(self, n, generator):
        split = super()._split(n, generator)
        split.masks[:, 0] = 9
        return split


class Unknown(Scenes):
    """Know no class of any pixel."""

    def _split(self, n, generator):
        split = super()._split(n, generator)
        split.masks.fill_(255)
        return split


class Mirrors(Scenes):
    """Mirror images and masks together."""

    def augment_pair(self, inputs, masks, generator):
        flip = torch.rand(len(inputs), generator=generator) < 0.5
        inputs = torch.where(flip[:, None, None, None], inputs.flip(3), inputs)
        return inputs, torch.where(flip[:, None, None], masks.flip(2), masks)


class MovesImages(Scenes):
    """Mirror the images alone."""

    def augment_pair(self, inputs, masks, generator):
        return inputs.flip(3), masks


class MovesMostlyGround(Scenes):
    """Mirror images but not their masks, which hold next to nothing but ground."""

    def load(self):
        """Keep one pixel of another class."""
        super().load()
        x = self.pool.inputs(torch.arange(len(self.pool)))
        masks = torch.zeros(len(x), *x.shape[-2:], dtype=torch.int64)
        masks[:, 0, 0] = 1
        self.pool = TensorSplit(x, masks)

    def augment_pair(self, inputs, masks, generator):
        """Mirror every other image."""
        flip = torch.rand(len(inputs), generator=generator) < 0.5
        return torch.where(flip[:, None, None, None], inputs.flip(3), inputs), masks


class PairsAtRandom(Scenes):
    """Draw from the global generator."""

    def augment_pair(self, inputs, masks, generator):
        return inputs + torch.rand(len(inputs))[:, None, None, None], masks


class PairsInPlace(Scenes):
    """Change the masks it is given."""

    def augment_pair(self, inputs, masks, generator):
        return inputs, masks.fill_(0)


class CropsImages(Scenes):
    """Cut the images and not the masks."""

    def augment_pair(self, inputs, masks, generator):
        return inputs[..., 1:], masks


FAULTS = [
    (general.DOCUMENTED, "no docstring", Undocumented),
    (datasets.STORES, "made pool", ReadsWhenMade),
    (datasets.STORES, "opened", OpensWhenMade),
    (datasets.STORES, "does more with its parameters", ConvertsPath),
    (datasets.LOADS, "test is NoneType", NoTest),
    (datasets.LOADS, "at least two", OneClass),
    (datasets.LENGTHS, "features has 5 rows, the pool 48 samples", NoFeatures),
    (datasets.LENGTHS, "says it has 15 samples, but has 18 labels", SaysLess),
    (datasets.LENGTHS, "validation gave 2 samples and 1 labels", LosesLabels),
    (datasets.LABELS, "16 labels of pool lie outside 0..2, such as 3", FromOne),
    (datasets.ORDER, "in another order", AnyOrder),
    (datasets.PREPARES, "torch.uint8", Integers),
    (datasets.PREPARES, "NaN or infinity", DividesByZero),
    (datasets.PREPARES, "changes the samples", PreparesInPlace),
    (datasets.AUGMENTS, "for equal generators", GlobalNoise),
    (datasets.AUGMENTS, "(16, 1, 8, 7)", Crops),
    (datasets.AUGMENTS, "changes the samples", AugmentsInPlace),
    (datasets.LABELS, "masks of pool are (8, 8), prepared samples (1, 8, 7)", OtherSize),
    (datasets.LABELS, "lie outside 0..2, such as 9", StrangeIgnored),
    (datasets.LABELS, "no class at all", Unknown),
    (datasets.PAIRS, "moves the mask otherwise", MovesImages),
    (datasets.PAIRS, "moves the mask otherwise", MovesMostlyGround),
    (datasets.PAIRS, "for equal generators", PairsAtRandom),
    (datasets.PAIRS, "changes the samples", PairsInPlace),
    (datasets.PAIRS, "images (1, 8, 7) and masks (8, 8)", CropsImages),
]
GOOD = [Plain, ForPixels, Mirrors, MadeDataset]
