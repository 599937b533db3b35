"""Decoding pictures from files: sizes, channels, kinds of files, damage, threads, memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from poolwright import ConfigError, DatasetError, SubsetSplit, TensorSplit
from poolwright_plugins.datasets import image_files
from poolwright_plugins.datasets.image_files import Form, ImageFiles, form_of, kept, read_image
from poolwright_plugins.datasets.pixels import channel_statistics

from .picture_trees import pixels, write_picture

EXACT = Form(8, 10, 3, "exact")


def files(folder: Path, n: int = 7, form: Form = EXACT, labels: Tensor | None = None) -> ImageFiles:
    paths = [str(write_picture(folder / f"{i}.png", pixels(i))) for i in range(n)]
    return ImageFiles("pictures", paths, torch.arange(n) if labels is None else labels, form)


def stored(*seeds: int) -> Tensor:
    return torch.stack([torch.from_numpy(pixels(seed)).permute(2, 0, 1) for seed in seeds])


@pytest.mark.parametrize("threads", [1, 2])
def test_any_ids_come_in_the_order_asked_for(tmp_path: Path, threads: int) -> None:
    split = files(tmp_path)
    torch.set_num_threads(threads)
    assert torch.equal(split.inputs(torch.tensor([5, 0, 5, 3])), stored(5, 0, 5, 3))
    assert split.labels(torch.tensor([5, 0])).tolist() == [5, 0]
    assert split.inputs(torch.arange(0)).shape == (0, 3, 8, 10)


def test_pictures_that_fit_are_kept_in_memory_and_are_the_same(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    lazy = files(tmp_path)
    (kept_split,) = kept([lazy], lazy.nbytes / 2**30)
    assert isinstance(kept_split, TensorSplit)
    ids = torch.tensor([6, 2, 2])
    assert torch.equal(kept_split.inputs(ids), lazy.inputs(ids))
    assert torch.equal(kept_split.labels(ids), lazy.labels(ids))
    assert "7 of 7 pictures read" in caplog.text


def test_pictures_beyond_the_memory_of_all_splits_are_not_kept(tmp_path: Path) -> None:
    splits = [files(tmp_path / part, 3) for part in ("a", "b")]
    limit = (splits[0].nbytes + splits[1].nbytes - 1) / 2**30
    assert kept(splits, limit) == splits


def test_memory_is_filled_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "BLOCK", 3)
    assert torch.equal(files(tmp_path).in_memory().data, stored(*range(7)))


@pytest.mark.parametrize("memory", [-1, float("nan"), "2GiB", True])
def test_memory_that_is_no_number_of_gib_is_refused(tmp_path: Path, memory: Any) -> None:
    with pytest.raises(ConfigError, match="memory must be a number of GiB"):
        kept([files(tmp_path)], memory)


def test_a_subset_opens_its_own_files_alone(tmp_path: Path) -> None:
    split = files(tmp_path)
    for number in (0, 1, 2, 4, 6):
        (tmp_path / f"{number}.png").unlink()
    subset = SubsetSplit(split, torch.tensor([5, 3]))
    assert torch.equal(subset.inputs(torch.tensor([0, 1])), stored(5, 3))


@pytest.mark.parametrize(
    ("mode", "end"),
    [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "png"), ("RGBA", "png"), ("CMYK", "jpg"),
     ("L", "jpg"), ("RGB", "webp"), ("RGB", "bmp"), ("RGB", "ppm"), ("L", "pgm"), ("RGB", "tiff")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_becomes_gray_or_rgb(tmp_path: Path, mode: str, end: str, channels: int) -> None:
    picture = Image.fromarray(np.full((8, 10, 3), (200, 100, 50), np.uint8)).convert(mode)
    how = {"lossless": True} if end == "webp" else {"quality": 100} if end == "jpg" else {}
    picture.save(tmp_path / f"a.{end}", **how)
    read = read_image(str(tmp_path / f"a.{end}"), Form(8, 10, channels, "exact"), "pictures")
    assert read.shape == (channels, 8, 10)
    expected = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(8, 10, channels)
    assert np.abs(read.transpose(1, 2, 0).astype(int) - expected).max() <= 3


def test_transparent_colors_of_a_palette_keep_their_color(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    read = read_image(str(tmp_path / "a.png"), Form(1, 2, 3, "exact"), "pictures")
    assert read[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_eight_bits_are_refused_not_clipped(tmp_path: Path, dtype: Any) -> None:
    Image.fromarray(np.full((8, 10), 300, dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(DatasetError, match=r"a.tiff has more than 8 bits a channel .*convert it"):
        read_image(str(tmp_path / "a.tiff"), EXACT, "pictures")


def test_a_rotation_in_exif_data_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_picture(tmp_path / "a.png", pixels(0), exif=exif)
    assert np.array_equal(read_image(str(tmp_path / "a.png"), EXACT, "pictures"), pixels(0).transpose(2, 0, 1))


def test_stretching_is_torchvisions_resize(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", pixels(0, 40, 30))
    theirs = transforms.Resize((12, 20))(Image.open(path))
    ours = read_image(str(path), Form(12, 20, 3, "stretch"), "pictures")
    assert np.array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(300, 421), (437, 260), (100, 90), (256, 256), (50, 800)])
def test_cropping_is_the_custom_of_imagenet(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_picture(tmp_path / "a.png", pixels(0, *size))
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(Image.open(path))
    ours = read_image(str(path), Form(224, 224, 3, "crop"), "pictures")
    assert np.array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_a_crop_of_another_shape_lies_in_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((32, 200, 3), np.uint8)
    wide[:, 80:120] = 255
    path = write_picture(tmp_path / "a.png", wide)
    read = read_image(str(path), Form(28, 70, 1, "crop"), "pictures")
    assert read.shape == (1, 28, 70)
    assert read[0, :, 16:54].min() == 255
    assert read[0, :, :14].max() == read[0, :, -14:].max() == 0


def test_a_picture_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    split = files(tmp_path)
    write_picture(tmp_path / "4.png", pixels(4, 8, 11))
    with pytest.raises(DatasetError, match=r"4.png has 11 x 8 pixels .*others 10 x 8: set size"):
        split.inputs(torch.arange(7))


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def damage_text(path: Path) -> None:
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize("damage", [damage_empty, damage_cut, damage_text])
@pytest.mark.parametrize("end", ["png", "jpg", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("threads", [1, 2])
def test_damaged_files_are_named_once_they_are_asked_for(tmp_path: Path, damage: Any, end: str, threads: int) -> None:
    paths = [str(write_picture(tmp_path / f"{i}.{end}", pixels(i))) for i in range(3)]
    damage(tmp_path / f"1.{end}")
    split = ImageFiles("pictures", paths, torch.arange(3), EXACT)
    torch.set_num_threads(threads)
    assert len(split.inputs(torch.tensor([0, 2]))) == 2
    with pytest.raises(DatasetError, match=rf"pictures: .*1.{end} cannot be read as a picture .*get it again"):
        split.inputs(torch.arange(3))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    split = files(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DatasetError, match=r"there is no file .*2.png"):
        split.inputs(torch.arange(7))


def test_a_picture_too_large_to_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DatasetError, match=r"0.png cannot be read as a picture \(DecompressionBombError"):
        files(tmp_path).inputs(torch.arange(1))


@pytest.mark.parametrize("size", [0, -3, 2.5, "large", [8], [8, 9, 10], [8, 0], True, None])
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: Any) -> None:
    with pytest.raises(ConfigError, match="data set pictures: size must be a number of pixels"):
        form_of("unread", size, 3, "pictures")


@pytest.mark.parametrize("channels", [0, 2, 4, "RGB", [3]])
def test_other_channels_are_refused(channels: Any) -> None:
    with pytest.raises(ConfigError, match="channels must be 1"):
        form_of("unread", 8, channels, "pictures")


def test_the_original_size_is_that_of_the_first_file(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", pixels(0, 6, 9))
    assert form_of(str(path), "original", 3, "pictures") == Form(6, 9, 3, "exact")
    assert form_of("unread", [6, 9], 1, "pictures") == Form(6, 9, 1, "stretch")
    assert form_of("unread", 7, 1, "pictures") == Form(7, 7, 1, "stretch")


class Large:
    """Pictures of 1,500 x 2,000 pixels; notes how many were asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 5

    def inputs(self, ids):
        self.asked.append(len(ids))
        return torch.stack([torch.full((3, 1500, 2000), 51 * int(i), dtype=torch.uint8) for i in ids])

    def labels(self, ids):
        return ids


def test_statistics_of_large_pictures_are_computed_a_picture_at_a_time():
    split = Large()
    mean, std = channel_statistics(split)
    assert mean == pytest.approx([0.4] * 3)
    assert std == pytest.approx([0.08**0.5] * 3)
    assert max(split.asked) == 1
