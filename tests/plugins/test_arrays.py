"""Data of one's own from a .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poolwright import ConfigError, DatasetError
from poolwright_plugins.datasets.arrays import Arrays

X = np.random.default_rng(0).normal(size=(20, 3))
Y = np.arange(20) % 2


def loaded(folder: Path, *, test: float = 0.2, **arrays: Any) -> Arrays:
    np.savez(folder / "data.npz", **arrays)
    data = Arrays(path=str(folder / "data.npz"), test=test)
    data.load()
    return data


def test_test_data_are_cut_by_class_and_the_pool_knows_its_rows(tmp_path: Path) -> None:
    data = loaded(tmp_path, test=0.3, x=X, y=Y)
    assert torch.bincount(data.test.labels(torch.arange(6))).tolist() == [3, 3]
    assert np.array_equal(data.pool.data.numpy(), X[data.pool_rows].astype(np.float32))
    assert np.array_equal(data.pool.labels(torch.arange(14)).numpy(), Y[data.pool_rows])
    assert torch.equal(data.pool_rows, data.pool_rows.sort().values)
    assert torch.equal(loaded(tmp_path, test=0.3, x=X, y=Y).pool_rows, data.pool_rows)


def test_given_test_and_validation_data_are_used_and_nothing_is_cut(tmp_path: Path) -> None:
    data = loaded(tmp_path, x=X, y=Y, x_test=X[:4], y_test=Y[:4], x_validation=X[5:7], y_validation=Y[5:7])
    assert len(data.pool) == 20
    assert torch.equal(data.pool_rows, torch.arange(20))
    assert np.array_equal(data.test.data.numpy(), X[:4].astype(np.float32))
    assert data.validation is not None
    assert data.validation.labels(torch.arange(2)).tolist() == [1, 0]


def test_without_validation_arrays_there_is_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, x=X, y=Y).validation is None


def test_classes_are_named_by_the_file_or_numbered(tmp_path: Path) -> None:
    assert tuple(loaded(tmp_path, x=X, y=Y, classes=np.array(["cat", "dog", "eel"])).classes) == ("cat", "dog", "eel")
    assert tuple(loaded(tmp_path, x=X, y=3 * Y).classes) == ("0", "1", "2", "3")


def test_vectors_are_features_and_images_are_not(tmp_path: Path) -> None:
    data = loaded(tmp_path, x=X, y=Y)
    assert data.features is not None
    assert torch.equal(data.features[torch.arange(16)], data.prepare(data.pool.data))
    assert loaded(tmp_path, x=np.zeros((20, 1, 8, 8)), y=Y).features is None


def test_uint8_is_kept_and_prepared_to_0_1_and_floats_stay(tmp_path: Path) -> None:
    data = loaded(tmp_path, x=np.full((20, 9, 8), 255, np.uint8), y=Y)
    assert data.pool.data.dtype == torch.uint8
    assert data.pool.data.shape[1:] == (1, 9, 8)
    assert (data.prepare(data.pool.data) == 1).all()
    data = loaded(tmp_path, x=np.full((20, 3, 9, 8), 7.5), y=Y)
    assert data.pool.data.shape[1:] == (3, 9, 8)
    assert (data.prepare(data.pool.data) == 7.5).all()


NAN = X.copy()
NAN[[4, 9], 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array 'y'; it holds: x"),
        ({"x": X, "y": Y[:19]}, "x holds 20 samples, but y 19 labels"),
        ({"x": NAN, "y": Y}, "2 of 20 samples of x hold NaN or infinity, the first is row 4"),
        ({"x": X, "y": Y.astype(float)}, "y must hold one integer a sample"),
        ({"x": X, "y": Y - 1}, r"labels lie in -1..0, but the classes are 0..1"),
        ({"x": X, "y": Y, "classes": np.array(["one"])}, r"labels lie in 0..1, but the classes are 0..0"),
        ({"x": X[:, 0], "y": Y}, r"x must hold numbers of shape \(n, d\)"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty"),
        ({"x": X, "y": Y, "x_test": X[:4]}, "has no array 'y_test'"),
        ({"x": X, "y": Y, "y_validation": Y}, "has no array 'x_validation'"),
        ({"x": X, "y": Y, "x_test": X[:4, :2], "y_test": Y[:4]}, r"samples of x_test are torch.float32 \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_errors_that_name_file_and_array(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=rf"data\.npz: {message}"):
        loaded(tmp_path, **arrays)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DatasetError, match=r"data\.npz cannot be read as \.npz"):
        Arrays(path=str(tmp_path / "data.npz")).load()


def test_a_file_cut_in_the_middle_is_an_error(tmp_path: Path) -> None:
    loaded(tmp_path, x=X, y=Y)
    path = tmp_path / "data.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"cannot be read as \.npz"):
        Arrays(path=str(path)).load()


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read as \.npz"):
        loaded(tmp_path, x=np.array([{}, {}], dtype=object), y=Y[:2])


def test_a_missing_file_and_a_single_array_are_errors_that_say_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no file .*nowhere\.npz: write one with numpy\.savez"):
        Arrays(path=str(tmp_path / "nowhere.npz")).load()
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DatasetError, match="is a single array"):
        Arrays(path=str(tmp_path / "one.npy")).load()


@pytest.mark.parametrize("share", [0, 1, -0.5, "half", True])
def test_a_test_share_outside_0_and_1_is_an_error(tmp_path: Path, share: Any) -> None:
    with pytest.raises(ConfigError, match="test must be above 0 and below 1"):
        loaded(tmp_path, test=share, x=X, y=Y)
