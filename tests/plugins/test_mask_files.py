"""Data sets of pictures and masks: image-mask-folder, Cityscapes and BDD100K."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poolwright import ConfigError, DatasetError, Experiment, SubsetSplit, TensorSplit, load_dataset, run, testing
from poolwright_plugins.datasets.bdd100k import BDD100K
from poolwright_plugins.datasets.cityscapes import Cityscapes
from poolwright_plugins.datasets.image_mask_folder import ImageMaskFolder
from poolwright_plugins.datasets.mask_files import ImageMaskFiles

from .picture_trees import loaded, mask, pixels, snapshot, write_pairs, write_picture

NAMES = [f"{i}.jpg" for i in range(10)]


def folder(root: Path, **how: Any) -> str:
    write_pairs(root / "images", root / "masks", NAMES, **how)
    return str(root)


def all_labels(split: Any) -> Any:
    return split.labels(torch.arange(len(split)))


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_masks_belong_to_their_pictures_whatever_is_asked_for(tmp_path: Path, memory: float) -> None:
    root = folder(tmp_path)
    before = snapshot(tmp_path)
    data = loaded(ImageMaskFolder, root=root, classes=["a", "b", "c"], memory=memory)
    assert (len(data.pool), len(data.test), data.validation) == (8, 2, None)
    assert isinstance(data.pool, TensorSplit if memory else ImageMaskFiles)
    lazy = loaded(ImageMaskFolder, root=root, classes=3, memory=0.0)
    numbers = [int(Path(path).stem) for path in lazy.pool.paths + lazy.test.paths]
    assert numbers[:8] == sorted(numbers[:8])
    assert sorted(numbers) == list(range(10))
    ids = torch.tensor([7, 0, 7])
    masks = data.pool.labels(ids)
    assert masks.dtype == torch.int64
    assert torch.equal(masks, torch.stack([torch.from_numpy(mask(numbers[i])).long() for i in ids]))
    assert torch.equal(data.pool.inputs(ids), lazy.pool.inputs(ids))
    assert data.ignore_index == 255
    assert (masks == 255).any()
    assert snapshot(tmp_path) == before


def test_parts_are_read_and_val_is_validation_or_test_data(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        write_pairs(tmp_path / part / "images", tmp_path / part / "masks", NAMES[:count])
    data = loaded(ImageMaskFolder, root=str(tmp_path), classes=3)
    assert (len(data.pool), len(data.test), len(data.validation)) == (4, 2, 3)
    (tmp_path / "test" / "images").rename(tmp_path / "test" / "elsewhere")
    data = loaded(ImageMaskFolder, root=str(tmp_path), classes=3)
    assert (len(data.pool), len(data.test), data.validation) == (4, 3, None)
    (tmp_path / "val" / "images").rename(tmp_path / "val" / "elsewhere")
    data = loaded(ImageMaskFolder, root=str(tmp_path), classes=3, test=0.25)
    assert (len(data.pool), len(data.test)) == (3, 1)


def test_scaled_masks_hold_stored_numbers_at_the_nearest_pixel(tmp_path: Path) -> None:
    root = folder(tmp_path, size=(8, 12))
    stored = loaded(ImageMaskFolder, root=root, classes=3, memory=0.0)
    data = loaded(ImageMaskFolder, root=root, classes=3, size=[4, 36], memory=0.0)
    expected = all_labels(stored.pool)[:, 1::2].repeat_interleave(3, dim=2)
    assert torch.equal(all_labels(data.pool), expected)
    assert data.pool.inputs(torch.arange(2)).shape == (2, 3, 4, 36)


@pytest.mark.parametrize(("stored", "wanted"), [((8, 10), (5, 7)), ((8, 10), (16, 30)), ((8, 10), (8, 10))])
def test_masks_are_scaled_as_pillow_does(tmp_path: Path, stored: tuple[int, int], wanted: tuple[int, int]) -> None:
    data = loaded(ImageMaskFolder, root=folder(tmp_path, size=stored), classes=3, size=list(wanted), memory=0.0)
    for number, path in enumerate(data.pool.masks):
        theirs = Image.open(path).resize(wanted[::-1], Image.Resampling.NEAREST)
        assert torch.equal(data.pool.labels(torch.tensor([number]))[0], torch.from_numpy(np.array(theirs)).long())


def palette(array: Any) -> Image.Image:
    picture = Image.fromarray(array, "P")
    picture.putpalette([level for i in range(256) for level in (i * 7 % 256, 255 - i, i)])
    return picture


@pytest.mark.parametrize(
    ("convert", "end", "numbers"),
    [
        (palette, "png", (0, 1, 2, 255)),
        (lambda array: Image.fromarray(array.astype(np.uint16)), "png", (0, 1, 2, 255)),
        (lambda array: Image.fromarray(array.astype(np.int32)), "tiff", (0, 1, 2, 255)),
        (lambda array: Image.fromarray(array > 0), "png", (0, 1)),
        (Image.fromarray, "bmp", (0, 1, 2, 255)),
        (Image.fromarray, "pgm", (0, 1, 2, 255)),
    ],
)
def test_palettes_count_by_index_and_gray_levels_by_level(
    tmp_path: Path, convert: Callable[[Any], Image.Image], end: str, numbers: tuple[int, ...]
) -> None:
    for number in range(10):
        write_picture(tmp_path / "images" / f"{number}.png", pixels(number))
        (tmp_path / "masks").mkdir(exist_ok=True)
        convert(mask(number, numbers)).save(tmp_path / "masks" / f"{number}.{end}")
    data = loaded(ImageMaskFolder, root=str(tmp_path), classes=3, memory=0.0)
    for sample, path in enumerate(data.pool.masks):
        expected = torch.from_numpy(mask(int(Path(path).stem), numbers)).long()
        assert torch.equal(data.pool.labels(torch.tensor([sample]))[0], expected)


def test_values_name_the_number_of_each_class_even_the_ignored_one(tmp_path: Path) -> None:
    root = folder(tmp_path, numbers=(0, 255))
    data = loaded(ImageMaskFolder, root=root, classes=["ground", "thing"], values=[0, 255])
    assert all_labels(data.pool).unique().tolist() == [0, 1]


def test_another_ignore_index_and_deep_masks(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / "images" / f"{number}.png", pixels(number))
        write_picture(tmp_path / "masks" / f"{number}.png", mask(number).astype(np.uint16) * 250)
    params = {"root": str(tmp_path), "classes": 3, "values": [0, 250, 500], "ignore_index": 63750}
    for memory in (0.0, 1.0):
        data = loaded(ImageMaskFolder, **params, memory=memory)
        assert all_labels(data.pool).unique().tolist() == [0, 1, 2, 63750]
        assert data.ignore_index == 63750


def lacks_a_mask(root: Path) -> None:
    (root / "masks" / "3.png").unlink()


def of_another_size(root: Path) -> None:
    write_picture(root / "masks" / "3.png", mask(3, size=(10, 8)))


def with_another_number(root: Path) -> None:
    wrong = mask(3)
    wrong[2, 3] = 9
    write_picture(root / "masks" / "3.png", wrong)


def in_colors(root: Path) -> None:
    write_picture(root / "masks" / "3.png", pixels(3))


def cut(root: Path) -> None:
    path = root / "masks" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])


def without_masks(root: Path) -> None:
    for path in (root / "masks").iterdir():
        path.unlink()
    (root / "masks").rmdir()


def two_pictures_of_one_name(root: Path) -> None:
    write_picture(root / "images" / "3.png", pixels(3))


def without_pictures(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


def without_anything(root: Path) -> None:
    without_pictures(root)
    (root / "images").rmdir()


def read_all(**params: Any) -> None:
    data = loaded(ImageMaskFolder, **params)
    for split in (data.pool, data.test):
        all_labels(split)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lacks_a_mask, r"1 of 10 pictures .* have no mask .*3.jpg: it should be called 3.png or 3.bmp"),
        (of_another_size, r"the mask .*3.png has 8 x 10 pixels .*3.jpg 10 x 8"),
        (with_another_number, r"3.png: 1 pixels hold numbers .*such as 9; known are 0, 1, 2, 255"),
        (in_colors, r"3.png is a picture in colors \(RGB\)"),
        (cut, r"3.png cannot be read as a picture"),
        (without_masks, r"masks cannot be read: No such file"),
        (two_pictures_of_one_name, r"several pictures in .* share the mask .*3.png"),
        (without_pictures, r"no picture in .*images"),
        (without_anything, r"there is no folder .*images .*set root"),
    ],
)
@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_what_does_not_fit_is_named(
    tmp_path: Path, damage: Callable[[Path], None], message: str, memory: float
) -> None:
    root = folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(DatasetError, match=f"image-mask-folder: .*{message}"):
        read_all(root=root, classes=3, memory=memory)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"classes": 1}, "classes must be"),
        ({"classes": ["a"]}, "classes must be"),
        ({"classes": ["a", "a"]}, "classes must be"),
        ({"classes": "ab"}, "classes must be"),
        ({"values": [0, 1]}, "values must be 3 different numbers"),
        ({"values": [0, 1, 1]}, "values must be 3 different numbers"),
        ({"values": [0, 1, -1]}, "values must be 3 different numbers"),
        ({"values": 3}, "values must be 3 different numbers .* not 3"),
        ({"values": [0, True, 2]}, "values must be 3 different numbers"),
        ({"ignore_index": 2}, "ignore_index must lie beyond"),
        ({"ignore_index": -1}, "ignore_index must lie beyond"),
        ({"test": 1.5}, "test must be above 0"),
        ({"size": [0, 1]}, "size must be"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    root = folder(tmp_path)
    with pytest.raises(ConfigError, match=f"data set image-mask-folder: {message}"):
        loaded(ImageMaskFolder, **{"root": root, "classes": 3, **params})


def test_a_share_that_leaves_no_test_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"test = 0.01 of 10 pictures makes 0 for tests"):
        loaded(ImageMaskFolder, root=folder(tmp_path), classes=3, test=0.01)


def test_a_subset_opens_its_own_files_alone(tmp_path: Path) -> None:
    data = loaded(ImageMaskFolder, root=folder(tmp_path), classes=3, memory=0.0)
    kept = data.pool.masks[5]
    for path in (tmp_path / "masks").iterdir():
        if str(path) != kept:
            path.unlink()
    subset = SubsetSplit(data.pool, torch.tensor([5]))
    assert subset.labels(torch.tensor([0])).shape == (1, 8, 10)


def test_the_engines_options_do_not_mix_up_pictures_and_masks(tmp_path: Path) -> None:
    root = folder(tmp_path)
    params = {"root": root, "classes": 3, "memory": 0.0}
    whole = load_dataset("image-mask-folder", **params)
    data = load_dataset("image-mask-folder", **params, subset=6, validation=2)
    assert (len(data.pool), len(data.validation)) == (4, 2)
    for split in (data.pool, data.validation):
        assert torch.equal(all_labels(split), whole.pool.labels(split.ids))
    with pytest.raises(ConfigError, match="one class a sample"):
        load_dataset("image-mask-folder", **params, long_tail=10)


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_a_run_on_masks_in_files(tmp_path: Path, memory: float) -> None:
    for number in range(10):
        truth = mask(number, (0, 1))
        write_picture(tmp_path / "images" / f"{number}.png", truth * 255)
        write_picture(tmp_path / "masks" / f"{number}.png", truth)
    result = run(
        Experiment(
            dataset={"name": "image-mask-folder", "root": str(tmp_path), "classes": 2, "memory": memory},
            learner=testing.make_learner,
            strategies=["random"],
            budget=4,
            batch=1,
            initial={"size": 2},
        )
    )
    assert result.runs[0].records[-1].test["miou"] > 0.95


@pytest.mark.parametrize("parts", [False, True])
def test_image_mask_folder_conforms(tmp_path: Path, parts: bool) -> None:
    for below in ("train", "test") if parts else ("",):
        folder(tmp_path / below, size=(32, 48), block=16)
    params = {"root": str(tmp_path), "classes": ["a", "b", "c"], "memory": 0.0 if parts else 1.0}
    testing.assert_conforms("dataset", ImageMaskFolder, params)


# -- random changes ----------------------------------------------------------------------------------------------


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures whose level is their mask's number, in blocks of 8 pixels, 255 in places."""
    blocks = torch.randint(3, (200, 4, 5), generator=torch.Generator().manual_seed(0))
    blocks[:, 1, 2] = 255
    masks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return masks[:, None].float().expand(-1, 3, -1, -1).clone(), masks


def test_picture_and_mask_are_mirrored_and_enlarged_together() -> None:
    images, masks = scene()
    before = images.clone(), masks.clone()
    changed, labels = Cityscapes().augment_pair(images, masks, torch.Generator().manual_seed(1))
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert (labels.shape, labels.dtype) == (masks.shape, masks.dtype)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 255}
    # Within blocks the level is the number; at their borders levels are mixed.
    assert (changed[:, 0] == labels).float().mean() > 0.75
    assert (changed[:, 0].round() == labels).float().mean() > 0.9
    assert not torch.equal(labels, masks)


def test_half_of_the_pictures_are_mirrored_and_none_shrinks() -> None:
    ramp = torch.linspace(0, 1, 40).expand(400, 1, 30, 40).contiguous()
    changed, _ = Cityscapes().augment_pair(
        ramp, torch.zeros(400, 30, 40, dtype=torch.int64), torch.Generator().manual_seed(0)
    )
    spans = changed[:, 0, 15, -1] - changed[:, 0, 15, 0]
    assert 160 < int((spans < 0).sum()) < 240
    assert spans.abs().max() <= 1
    assert 1 / 1.5 - 0.05 < spans.abs().min() < 0.75


def test_equal_generators_give_equal_changes() -> None:
    images, masks = scene()
    one, other = (Cityscapes().augment_pair(images, masks, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_changes_on_a_gpu_are_those_of_the_cpu() -> None:
    images, masks = scene()
    here = Cityscapes().augment_pair(images, masks, torch.Generator().manual_seed(5))
    there = Cityscapes().augment_pair(images.cuda(), masks.cuda(), torch.Generator().manual_seed(5))
    assert there[0].is_cuda
    assert there[1].is_cuda
    torch.testing.assert_close(there[0].cpu(), here[0], atol=1e-3, rtol=1e-4)
    assert (there[1].cpu() == here[1]).float().mean() > 0.999


# -- Cityscapes --------------------------------------------------------------------------------------------------


def write_cityscapes(root: Path, block: int = 1) -> Path:
    for part, cities in (("train", ("zurich", "aachen")), ("val", ("lindau",))):
        for city in cities:
            write_pairs(
                root / "leftImg8bit" / part / city,
                root / "gtFine" / part / city,
                [f"{city}_00000{i}_000019_leftImg8bit.png" for i in range(2)],
                mask_of=lambda name: name.replace("_leftImg8bit", "_gtFine_labelIds"),
                numbers=tuple(range(34)),
                size=(32, 64),
                block=block,
                first=len(city),
            )
            (root / "gtFine" / part / city / f"{city}_000000_000019_gtFine_color.png").write_bytes(b"unread")
    return root


def test_cityscapes_34_ids_become_19_classes_and_the_rest_is_ignored(tmp_path: Path) -> None:
    data = loaded(Cityscapes, root=str(write_cityscapes(tmp_path)), size="original")
    lazy = loaded(Cityscapes, root=str(tmp_path), size="original", memory=0.0)
    assert (len(data.pool), len(data.test)) == (4, 2)
    assert [Path(path).name.split("_")[0] for path in lazy.pool.paths] == ["aachen", "aachen", "zurich", "zurich"]
    assert data.classes[:3] == ("road", "sidewalk", "building")
    assert data.classes[16:] == ("train", "motorcycle", "bicycle")
    # The official ids of the classes, in the order of the benchmark.
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = torch.full((34,), 255)
    expected[ids] = torch.arange(19)
    stored = torch.from_numpy(mask(len("aachen"), tuple(range(34)), (32, 64))).long()
    assert torch.equal(data.pool.labels(torch.tensor([0]))[0], expected[stored])
    assert torch.equal(all_labels(data.pool), all_labels(lazy.pool))


def test_cityscapes_is_scaled_to_688_pixels_unless_told_otherwise(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    data = loaded(Cityscapes, root=str(tmp_path), memory=0.0)
    assert data.pool.inputs(torch.tensor([0])).shape == (1, 3, 688, 688)
    assert data.pool.labels(torch.tensor([0])).shape == (1, 688, 688)


def test_cityscapes_that_is_missing_or_incomplete_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*leftImg8bit/train and no .*gtFine/train: .*trainvaltest.zip"):
        loaded(Cityscapes, root=str(tmp_path))
    write_cityscapes(tmp_path)
    (tmp_path / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DatasetError, match=r"should be called lindau_000001_000019_gtFine_labelIds.png"):
        loaded(Cityscapes, root=str(tmp_path))


def test_cityscapes_without_a_city_is_refused(tmp_path: Path) -> None:
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "train").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"train holds no folder of a city"):
        loaded(Cityscapes, root=str(tmp_path))


# -- BDD100K -----------------------------------------------------------------------------------------------------

LAYOUTS = {
    "2020": ("bdd100k/images/10k", "bdd100k/labels/sem_seg/masks", "{}.png"),
    "2018": ("bdd100k/seg/images", "bdd100k/seg/labels", "{}_train_id.png"),
    "plain": ("images", "labels", "{}.png"),
}


def write_bdd100k(root: Path, layout: str = "2020", block: int = 1) -> Path:
    images, masks, name = LAYOUTS[layout]
    for part, count in (("train", 4), ("val", 2)):
        write_pairs(
            root / images / part,
            root / masks / part,
            [f"{part}-{i}.jpg" for i in range(count)],
            mask_of=lambda file: name.format(Path(file).stem),
            numbers=(*range(19), 255),
            size=(32, 64),
            block=block,
        )
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bdd100k_is_read_from_each_layout(tmp_path: Path, layout: str) -> None:
    data = loaded(BDD100K, root=str(write_bdd100k(tmp_path, layout)), size="original")
    assert (len(data.pool), len(data.test), len(data.classes)) == (4, 2, 19)
    expected = torch.stack([torch.from_numpy(mask(i, (*range(19), 255), (32, 64))).long() for i in range(4)])
    assert torch.equal(all_labels(data.pool), expected)


def test_bdd100k_that_is_missing_says_what_to_put_where(tmp_path: Path) -> None:
    (tmp_path / "images/10k/train").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"neither images/10k/train with labels/sem_seg/masks/train nor seg/images"):
        loaded(BDD100K, root=str(tmp_path))


@pytest.mark.parametrize(("dataset", "write"), [(Cityscapes, write_cityscapes), (BDD100K, write_bdd100k)])
@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_both_conform(tmp_path: Path, dataset: type, write: Any, memory: float) -> None:
    write(tmp_path, block=16)
    testing.assert_conforms("dataset", dataset, {"root": str(tmp_path), "size": [32, 48], "memory": memory})
