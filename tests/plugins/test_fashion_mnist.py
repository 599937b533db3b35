"""Reading Fashion-MNIST from small files of the official form."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from poolwright import DatasetError
from poolwright_plugins.datasets.augmentation import shift_and_flip
from poolwright_plugins.datasets.fashion_mnist import MEAN, STD, FashionMNIST, read_idx

SIZES = {"train": 5, "t10k": 3}


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()


def images(prefix: str) -> np.ndarray:
    return np.random.default_rng(len(prefix)).integers(0, 256, (SIZES[prefix], 28, 28), dtype=np.uint8)


def write(root: Path, *, packed: bool = True) -> Path:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, n in SIZES.items():
        for name, array in (("images-idx3", images(prefix)), ("labels-idx1", np.arange(n, dtype=np.uint8))):
            path = folder / f"{prefix}-{name}-ubyte"
            if packed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array)))
            else:
                path.write_bytes(idx(array))
    return folder


@pytest.mark.parametrize("packed", [True, False])
def test_reads_packed_and_unpacked_files_without_writing(tmp_path: Path, packed: bool) -> None:
    folder = write(tmp_path, packed=packed)
    before = sorted(folder.iterdir())
    data = FashionMNIST(root=str(tmp_path))
    data.load()
    assert torch.equal(data.pool.data, torch.from_numpy(images("train"))[:, None])
    assert torch.equal(data.test.data, torch.from_numpy(images("t10k"))[:, None])
    assert data.pool.labels(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert sorted(folder.iterdir()) == before


def test_missing_files_are_named_with_the_folder_and_the_ways_to_get_them(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError) as caught:
        FashionMNIST(root=str(tmp_path)).load()
    message = str(caught.value)
    assert "t10k-labels-idx1-ubyte" in message
    assert "train-images" not in message
    assert str(folder) in message
    assert "download = true" in message


@pytest.mark.parametrize("damage", ["cut", "magic", "unpacked length", "no gzip"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path)
    path = folder / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "magic":
        path.write_bytes(gzip.compress(idx(np.zeros((5, 28), np.uint8))))
    elif damage == "unpacked length":
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-1]))
    else:
        path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte.gz is damaged .*remove it and get it again"):
        FashionMNIST(root=str(tmp_path)).load()


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="is damaged"):
        read_idx(tmp_path / "file", 3)


def test_download_fetches_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        write(tmp_path)

    monkeypatch.setattr(datasets, "FashionMNIST", fetch)
    for _ in range(2):
        FashionMNIST(root=str(tmp_path), download=True).load()
    assert asked == [(str(tmp_path), True)]


def test_a_failed_download_is_an_error_that_says_where_it_was_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(root: str, download: bool) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(datasets, "FashionMNIST", fail)
    with pytest.raises(DatasetError, match=r"could not be downloaded to .*no route to host"):
        FashionMNIST(root=str(tmp_path), download=True).load()


def test_prepared_pixels_are_normalized() -> None:
    x = FashionMNIST().prepare(torch.tensor([0, 255], dtype=torch.uint8))
    torch.testing.assert_close(x, torch.tensor([-MEAN / STD, (1 - MEAN) / STD]))


def test_augmentation_shifts_by_at_most_two_pixels_mirrors_and_fills_with_background() -> None:
    x = torch.full((400, 1, 28, 28), -MEAN / STD)
    x[:, :, 10, 5] = 3.0
    before = x.clone()
    out = FashionMNIST().augment(x, torch.Generator().manual_seed(0))
    assert torch.equal(x, before)
    place = out.flatten(1).argmax(1)
    rows, columns = place // 28, place % 28
    assert set(rows.tolist()) == set(range(8, 13))
    assert set(columns.tolist()) == set(range(3, 8)) | set(range(20, 25))
    assert 140 < (columns > 14).sum() < 260
    assert torch.equal(out.sort(-1).values.flatten(1).sum(1), before.sort(-1).values.flatten(1).sum(1))


def test_images_keep_their_own_pixels_and_channels_when_shifted() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    out = shift_and_flip(x, torch.Generator().manual_seed(3), shift=0, fill=0.0)
    for image, changed in zip(x, out, strict=True):
        assert torch.equal(changed, image) or torch.equal(changed, image.flip(-1))
