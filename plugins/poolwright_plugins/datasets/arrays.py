"""Your own data from a .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poolwright import Dataset, DatasetError, Rows, TensorSplit

from .options import path_of, share_of
from .splitting import stratified_split

KEYS = ("x", "y", "x_test", "y_test", "x_validation", "y_validation", "classes")


class Arrays(Dataset):
    """Arrays in a ``.npz`` file, as ``numpy.savez(path, x=x, y=y)`` writes it.

    ``x``
        The samples to choose from: vectors ``(n, d)``, gray images ``(n, height, width)`` or images ``(n, channels,
        height, width)``. uint8 is scaled from 0..255 to [0, 1]; other numbers are taken as they are, in float32.
    ``y``
        Their classes, integers from 0, ``(n,)``.
    ``x_test``, ``y_test``
        Test data. Without them a share of each class, always the same, is cut from ``x``; the other samples keep
        their order, and ``pool_rows`` holds their rows in ``x``.
    ``x_validation``, ``y_validation``
        Validation data, optional.
    ``classes``
        Names of the classes, optional; without them 0, 1, ... up to the largest label.

    Vectors are features too, for initial selections.

    Parameters
    ----------
    path : str
        The file.
    test : float
        Share of x that becomes test data where the file has none; above 0 and below 1.

    Attributes
    ----------
    pool_rows : Tensor
        int64 ``(n_pool,)``: the row in x of each pool sample.
    """

    task = "classification"
    pool: TensorSplit
    test: TensorSplit
    pool_rows: Tensor

    def __init__(self, *, path: str, test: float = 0.2) -> None:
        self.path = path
        self.test_share = test

    def load(self) -> None:
        """Read the file.

        Raises
        ------
        DatasetError
            It is missing or damaged, or its arrays do not fit each other.
        ConfigError
            ``test`` is no share, or ``path`` no path.
        """
        arrays = read_npz(path_of(self.path, "arrays", "path"))
        x, y = self._pair(arrays, "x", "y")
        if "x_test" in arrays or "y_test" in arrays:
            self.pool_rows = torch.arange(len(x))
            self.test = TensorSplit(*self._pair(arrays, "x_test", "y_test", like=x))
        else:
            self.pool_rows, rows = stratified_split(y, share_of(self.test_share, "arrays"), "arrays")
            self.test = TensorSplit(x[rows], y[rows])
            x, y = x[self.pool_rows], y[self.pool_rows]
        self.pool = TensorSplit(x, y)
        if "x_validation" in arrays or "y_validation" in arrays:
            self.validation = TensorSplit(*self._pair(arrays, "x_validation", "y_validation", like=x))
        self.classes = self._names(arrays)
        if x.ndim == 2:
            self.features = Rows(self.prepare(x))

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return float32; what is stored as uint8 in [0, 1]."""
        return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs.float()

    def _pair(
        self, arrays: Mapping[str, Any], x_key: str, y_key: str, *, like: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return samples and labels, checked against each other and the samples ``like``."""
        absent = [key for key in (x_key, y_key) if key not in arrays]
        if absent:
            raise self._error(
                f"has no array {' and no '.join(map(repr, absent))}; it holds: {', '.join(sorted(arrays))}"
            )
        x, y = self._samples(arrays[x_key], x_key), arrays[y_key]
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise self._error(f"{y_key} must hold one integer a sample, from 0, not {y.dtype} of shape {y.shape}")
        if len(x) != len(y):
            raise self._error(f"{x_key} holds {len(x)} samples, but {y_key} {len(y)} labels")
        if like is not None and (x.shape[1:] != like.shape[1:] or x.dtype != like.dtype):
            raise self._error(
                f"samples of {x_key} are {x.dtype} {tuple(x.shape[1:])}, "
                f"those of x {like.dtype} {tuple(like.shape[1:])}"
            )
        return x, torch.from_numpy(y.astype(np.int64))

    def _samples(self, x: Any, key: str) -> Tensor:
        if x.ndim not in (2, 3, 4) or x.dtype.kind not in "biuf":
            raise self._error(
                f"{key} must hold numbers of shape (n, d), (n, height, width) or "
                f"(n, channels, height, width), not {x.dtype} of shape {x.shape}"
            )
        if x.size == 0:
            raise self._error(f"{key} is empty, of shape {x.shape}")
        samples = torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32))
        bad = ~torch.isfinite(samples).reshape(len(samples), -1).all(1)
        if bad.any():
            raise self._error(
                f"{int(bad.sum())} of {len(bad)} samples of {key} hold NaN or infinity, the first is row "
                f"{int(bad.nonzero()[0])}: remove or impute them"
            )
        return samples[:, None] if samples.ndim == 3 else samples

    def _names(self, arrays: Mapping[str, Any]) -> Sequence[str]:
        labels = np.concatenate([arrays[key] for key in KEYS if key.startswith("y") and key in arrays])
        names = arrays["classes"] if "classes" in arrays else np.arange(max(2, int(labels.max()) + 1))
        if names.ndim != 1:
            raise self._error(f"classes must be a list of names, not an array of shape {names.shape}")
        if labels.min() < 0 or labels.max() >= len(names):
            raise self._error(f"labels lie in {labels.min()}..{labels.max()}, but the classes are 0..{len(names) - 1}")
        return tuple(str(name) for name in names)

    def _error(self, what: str) -> DatasetError:
        return DatasetError(f"data set arrays: {self.path}: {what}")


def read_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of a .npz file that a data set may hold.

    Raises
    ------
    DatasetError
        The file is missing, damaged, or holds Python objects.
    """
    if not path.is_file():
        raise DatasetError(f"data set arrays: there is no file {path}: write one with numpy.savez(path, x=x, y=y)")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DatasetError(f"data set arrays: {path} is a single array: write numpy.savez(path, x=x, y=y)")
        with file:
            return {key: file[key] for key in KEYS if key in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"data set arrays: {path} cannot be read as .npz ({reason})") from error
