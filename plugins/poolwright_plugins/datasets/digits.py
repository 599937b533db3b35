"""Handwritten digits that travel with scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from poolwright import Dataset, Rows, TensorSplit

from .splitting import stratified_split

TEST_SHARE = 0.25


class Digits(Dataset):
    """1,797 handwritten digits of 8 x 8 pixels in 17 levels of gray, ten classes.

    Real data that travels with scikit-learn: nothing to download. A quarter of each class, always the same,
    is the test data. Stored as uint8 ``(n, 1, 8, 8)``, prepared to [0, 1]; features are the pixels.

    Source: scikit-learn's ``load_digits``; the test part of Alpaydin and Kaynak, *Optical Recognition of
    Handwritten Digits*, UCI 1998.
    """

    task = "classification"
    pool: TensorSplit
    test: TensorSplit
    features: Rows

    def load(self) -> None:
        """Read the data."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
        y = torch.from_numpy(digits.target)
        pool, test = stratified_split(y, TEST_SHARE, "digits")
        self.classes = tuple(str(name) for name in digits.target_names)
        self.pool = TensorSplit(x[pool], y[pool])
        self.test = TensorSplit(x[test], y[test])
        self.features = Rows(self.prepare(x[pool]).flatten(1))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return gray levels in [0, 1]."""
        return inputs.float() / 16
