"""Data sets of pictures in class folders: image-folder, Caltech-101, Caltech-256 and ImageNet."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from poolwright import ConfigError, DatasetError, Experiment, TensorSplit, load_dataset, run, testing
from poolwright_plugins.datasets.caltech import Caltech101, Caltech256
from poolwright_plugins.datasets.class_folders import ClassFolders
from poolwright_plugins.datasets.image_files import ImageFiles
from poolwright_plugins.datasets.image_folder import ImageFolder
from poolwright_plugins.datasets.imagenet import ImageNet

from .picture_trees import loaded, pixels, snapshot, write_classes, write_picture

ANIMALS = {"cat": 10, "ant": 5, "bee": 20}


def folder_with_parts(root: Path, *parts: str) -> Path:
    for number, part in enumerate(parts):
        write_classes(root / part, {"cat": 4 + number, "ant": 2})
    return root


def labels(split: Any) -> list[int]:
    found: list[int] = split.labels(torch.arange(len(split))).tolist()
    return found


def test_train_and_test_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    root = folder_with_parts(tmp_path, "train", "test")
    before = snapshot(root)
    data = loaded(ImageFolder, root=str(root))
    assert data.classes == ("ant", "cat")
    assert labels(data.pool) == [0, 0, 1, 1, 1, 1]
    assert labels(data.test) == [0, 0, 1, 1, 1, 1, 1]
    # the first class written is number 0 of write_classes
    assert torch.equal(data.pool.inputs(torch.tensor([2]))[0], torch.from_numpy(pixels(0)).permute(2, 0, 1))
    assert data.validation is None
    assert snapshot(root) == before


def test_the_order_does_not_hang_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path, ANIMALS)
    first = loaded(ImageFolder, root=str(root), memory=0.0)
    scan = os.scandir

    class Backwards:
        def __init__(self, folder: Any) -> None:
            self.entries = list(scan(folder))[::-1]

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    again = loaded(ImageFolder, root=str(root), memory=0.0)
    assert (again.pool.paths, again.test.paths) == (first.pool.paths, first.test.paths)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_is_validation_data_beside_test_and_test_data_without(tmp_path: Path, name: str) -> None:
    both = loaded(ImageFolder, root=str(folder_with_parts(tmp_path / "both", "train", "test", name)))
    assert (len(both.pool), len(both.test), len(both.validation)) == (6, 7, 8)
    alone = loaded(ImageFolder, root=str(folder_with_parts(tmp_path / "alone", "train", name)))
    assert (len(alone.pool), len(alone.test), alone.validation) == (6, 7, None)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path, {"car": 10, "train": 10, "test": 10})
    data = loaded(ImageFolder, root=str(tmp_path))
    assert data.classes == ("car", "test", "train")
    assert (len(data.pool), len(data.test)) == (24, 6)


def test_test_data_may_lack_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"a": 2, "b": 2, "c": 2})
    write_classes(tmp_path / "test", {"a": 1, "c": 2})
    assert labels(loaded(ImageFolder, root=str(tmp_path)).test) == [0, 2, 2]


@pytest.mark.parametrize("below", ["", "train"])
def test_without_test_data_a_share_of_each_class_is_cut(tmp_path: Path, below: str) -> None:
    write_classes(tmp_path / below, ANIMALS)
    data = loaded(ImageFolder, root=str(tmp_path), memory=0.0)
    assert torch.tensor(labels(data.pool)).bincount().tolist() == [4, 16, 8]
    assert torch.tensor(labels(data.test)).bincount().tolist() == [1, 4, 2]
    assert sorted(data.pool.paths + data.test.paths) == sorted(str(path) for path in tmp_path.rglob("*.png"))
    for split in (data.pool, data.test):
        assert [data.classes[label] for label in labels(split)] == [Path(path).parent.name for path in split.paths]


def test_in_memory_and_from_files_give_the_same(tmp_path: Path) -> None:
    write_classes(tmp_path, ANIMALS, end=".jpg", size=(9, 13))
    kept, lazy = (loaded(ImageFolder, root=str(tmp_path), size=[16, 12], memory=memory) for memory in (1.0, 0.0))
    assert isinstance(kept.pool, TensorSplit)
    assert isinstance(lazy.pool, ImageFiles)
    for one, other in ((kept.pool, lazy.pool), (kept.test, lazy.test)):
        ids = torch.arange(len(one)).flip(0)
        assert torch.equal(one.inputs(ids), other.inputs(ids))
        assert torch.equal(one.labels(ids), other.labels(ids))
        assert torch.equal(kept.prepare(one.inputs(ids)), lazy.prepare(other.inputs(ids)))


def test_loading_opens_no_picture_but_the_first(tmp_path: Path) -> None:
    root = folder_with_parts(tmp_path, "train", "test")
    for path in root.rglob("*.png"):
        if (path.parent.name, path.name) != ("ant", "0.png"):
            path.write_bytes(b"")
    data = loaded(ImageFolder, root=str(root), memory=0.0, mean=[0.5] * 3, std=[0.5] * 3)
    assert (len(data.pool), len(data.test)) == (6, 7)
    with pytest.raises(DatasetError, match=r"train/cat/0.png cannot be read"):
        data.pool.inputs(torch.tensor([0, 2]))


def test_a_damaged_picture_is_named_while_loading_into_memory(tmp_path: Path) -> None:
    write_classes(tmp_path, ANIMALS, end=".jpg")
    path = tmp_path / "bee" / "7.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"bee/7.jpg cannot be read as a picture .*truncated"):
        loaded(ImageFolder, root=str(tmp_path))


def test_mean_and_deviation_are_those_of_the_pool(tmp_path: Path) -> None:
    root = folder_with_parts(tmp_path, "train", "test")
    data = loaded(ImageFolder, root=str(root))
    x = data.prepare(data.pool.inputs(torch.arange(len(data.pool)))).transpose(0, 1).flatten(1)
    torch.testing.assert_close(x.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_mean_and_deviation_may_be_given_and_one_color_can_be_scaled(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(3):
            write_picture(tmp_path / name / f"{i}.png", np.full((4, 4), 51, np.uint8))
    auto = loaded(ImageFolder, root=str(tmp_path), channels=1)
    assert auto.prepare(auto.pool.inputs(torch.arange(2))).abs().amax() < 1e-4
    given = loaded(ImageFolder, root=str(tmp_path), channels=1, mean=[0.1], std=[0.2])
    torch.testing.assert_close(given.prepare(given.pool.inputs(torch.arange(2))), torch.full((2, 1, 4, 4), 0.5))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mean": [0.5, 0.5]}, "mean must be 'auto' or 3 numbers"),
        ({"mean": "imagenet"}, "mean must be 'auto'"),
        ({"std": [0.5, 0.5, 0.0]}, "std must be .* above 0"),
        ({"std": [0.5, 0.5, float("nan")]}, "std must be"),
        ({"test": 0.0}, "test must be above 0"),
        ({"test": 1}, "test must be above 0"),
        ({"size": "big"}, "size must be"),
        ({"channels": 4}, "channels must be"),
        ({"memory": -1.0}, "memory must be"),
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, params: dict[str, Any], message: str) -> None:
    write_classes(tmp_path, ANIMALS)
    with pytest.raises(ConfigError, match=f"data set image-folder: {message}"):
        loaded(ImageFolder, root=str(tmp_path), **params)


def no_folder(root: Path) -> None: ...


def one_class(root: Path) -> None:
    write_classes(root, {"cat": 3})


def empty_class(root: Path) -> None:
    write_classes(root, ANIMALS)
    (root / "dog").mkdir()


def only_text(root: Path) -> None:
    write_classes(root, ANIMALS)
    (root / "dog").mkdir()
    (root / "dog" / "a.txt").write_text("not a picture")


def class_unknown_to_train(root: Path) -> None:
    folder_with_parts(root, "train", "test")
    write_classes(root / "test", {"eel": 1})


def empty_test(root: Path) -> None:
    folder_with_parts(root, "train")
    (root / "test").mkdir()


def too_few_for_test(root: Path) -> None:
    write_classes(root, {"cat": 1, "dog": 1})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (no_folder, "there is no folder .*missing: set root"),
        (one_class, "holds 1 folders"),
        (empty_class, "no picture in .*dog"),
        (only_text, "no picture in .*dog"),
        (class_unknown_to_train, "holds classes that .*train does not: eel"),
        (empty_test, "test is empty"),
        (too_few_for_test, "is no picture at all"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, build: Callable[[Path], None], message: str) -> None:
    build(tmp_path / "missing")
    with pytest.raises(DatasetError, match=f"image-folder: .*{message}"):
        loaded(ImageFolder, root=str(tmp_path / "missing"))


def test_other_files_are_passed_over_and_the_first_is_named(tmp_path: Path, caplog: Any) -> None:
    write_classes(tmp_path, ANIMALS)
    (tmp_path / "cat" / "notes.txt").write_text("about cats")
    (tmp_path / "cat" / "RENAME2").write_text("a script")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "more.png").mkdir()
    with caplog.at_level(logging.WARNING):
        data = loaded(ImageFolder, root=str(tmp_path))
    assert len(data.pool) + len(data.test) == 35
    assert data.classes == ("ant", "bee", "cat")
    assert "3 entries that are no pictures" in caplog.text
    assert "the first is RENAME2" in caplog.text
    assert "DS_Store" not in caplog.text


def test_without_flip_pictures_are_never_mirrored(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(3):
            left = np.zeros((16, 16, 3), np.uint8)
            left[:, :8] = 255
            write_picture(tmp_path / name / f"{i}.png", left)
    for flip in (True, False):
        data = loaded(ImageFolder, root=str(tmp_path), flip=flip)
        x = data.prepare(data.pool.inputs(torch.zeros(100, dtype=torch.int64)))
        out = data.augment(x, torch.Generator().manual_seed(0))
        mirrored = int((out[:, 0, 8, 4] < out[:, 0, 8, 11]).sum())
        assert 30 < mirrored < 70 if flip else mirrored == 0


def test_the_engines_options_work_on_files_that_are_not_in_memory(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 30, "b": 30, "c": 30})
    params = {"root": str(tmp_path), "memory": 0.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    data = load_dataset("image-folder", **params, imbalance="1:2:4", subset=40, validation=0.25)
    assert (len(data.pool), len(data.validation), len(data.test)) == (30, 10, 18)
    assert data.prepare(data.pool.inputs(torch.tensor([29, 0]))).shape == (2, 3, 8, 10)


def test_a_run_on_files_that_are_not_in_memory(tmp_path: Path) -> None:
    for name, level in (("dark", 40), ("light", 200)):
        for i in range(20):
            write_picture(tmp_path / name / f"{i}.png", (pixels(i) // 8 + level).astype(np.uint8))
    result = run(
        Experiment(
            dataset={"name": "image-folder", "root": str(tmp_path), "memory": 0.0},
            learner={"name": "linear", "epochs": 10},
            strategies=["margin"],
            budget=12,
            batch=4,
            initial={"size": 4},
        )
    )
    assert result.runs[0].records[-1].test["accuracy"] == 1.0


@pytest.mark.parametrize("parts", [(), ("train", "test")])
@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_image_folder_conforms(tmp_path: Path, parts: tuple[str, ...], memory: float) -> None:
    root = folder_with_parts(tmp_path, *parts) if parts else write_classes(tmp_path, ANIMALS)
    testing.assert_conforms("dataset", ImageFolder, {"root": str(root), "memory": memory})


def test_a_loaded_data_set_can_be_sent_to_another_process(tmp_path: Path) -> None:
    data = loaded(ImageFolder, root=str(write_classes(tmp_path, ANIMALS)), memory=0.0)
    copy = pickle.loads(pickle.dumps(data))
    ids = torch.tensor([3, 1])
    assert torch.equal(copy.prepare(copy.pool.inputs(ids)), data.prepare(data.pool.inputs(ids)))


# -- Caltech -----------------------------------------------------------------------------------------------------


def write_caltech101(root: Path, home: str = "caltech101/101_ObjectCategories") -> Path:
    folder = write_classes(root / home, {"Faces": 10, "BACKGROUND_Google": 5, "ant": 10, "yin_yang": 10}, end=".jpg")
    write_picture(folder / "ant" / "0.jpg", pixels(0, 20, 30, channels=1))
    write_picture(folder / "ant" / "1.jpg", pixels(1, 30, 20))
    return folder


def write_caltech256(root: Path, home: str = "caltech256/256_ObjectCategories") -> Path:
    return write_classes(root / home, {"001.ak47": 10, "002.american-flag": 10, "257.clutter": 10}, end=".jpg")


@pytest.mark.parametrize(
    "home", ["caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories", "101_ObjectCategories"]
)
def test_caltech101_is_read_from_each_place_in_one_size_and_in_color(tmp_path: Path, home: str) -> None:
    write_caltech101(tmp_path, home)
    before = snapshot(tmp_path)
    data = loaded(Caltech101, root=str(tmp_path))
    assert data.classes == ("Faces", "ant", "yin_yang")
    assert data.pool.inputs(torch.arange(len(data.pool))).shape == (24, 3, 220, 220)
    assert torch.tensor(labels(data.test)).bincount().tolist() == [2, 2, 2]
    assert snapshot(tmp_path) == before


def test_background_and_clutter_come_last_where_they_are_wanted(tmp_path: Path) -> None:
    write_caltech101(tmp_path)
    write_caltech256(tmp_path)
    with_background = loaded(Caltech101, root=str(tmp_path), background=True, memory=0.0)
    assert with_background.classes == ("Faces", "ant", "yin_yang", "BACKGROUND_Google")
    assert with_background.pool.labels(torch.arange(8)).tolist() == [0] * 8
    assert loaded(Caltech256, root=str(tmp_path)).classes == ("001.ak47", "002.american-flag")
    assert loaded(Caltech256, root=str(tmp_path), clutter=True).classes[-1] == "257.clutter"


def test_caltech256_is_scaled_to_224_pixels_and_a_tenth_is_for_tests(tmp_path: Path) -> None:
    write_caltech256(tmp_path)
    data = loaded(Caltech256, root=str(tmp_path), memory=0.0)
    assert data.pool.inputs(torch.arange(1)).shape == (1, 3, 224, 224)
    assert (len(data.pool), len(data.test)) == (18, 2)


def test_a_folder_that_is_no_class_of_caltech256_is_refused(tmp_path: Path) -> None:
    (write_caltech256(tmp_path) / "greg").mkdir()
    with pytest.raises(DatasetError, match=r"greg is no class of it"):
        loaded(Caltech256, root=str(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "write", "name"),
    [(Caltech101, write_caltech101, "caltech101"), (Caltech256, write_caltech256, "caltech256")],
)
def test_caltech_missing_downloaded_or_not_to_be_had(
    dataset: type, write: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match=rf"{name}: there is no folder .*{name}/.*download = true"):
        loaded(dataset, root=str(tmp_path))
    asked = []

    def fail(root: str, download: bool) -> None:
        raise ModuleNotFoundError("no gdown")

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        write(tmp_path)

    monkeypatch.setattr(datasets, dataset.__name__, fail)
    with pytest.raises(DatasetError, match=rf"{name} could not be downloaded to .*no gdown"):
        loaded(dataset, root=str(tmp_path), download=True)
    monkeypatch.setattr(datasets, dataset.__name__, fetch)
    for _ in range(2):
        loaded(dataset, root=str(tmp_path), download=True)
    assert asked == [(str(tmp_path), True)]


# -- ImageNet ----------------------------------------------------------------------------------------------------


def write_imagenet(root: Path) -> Path:
    for part, count in (("train", 4), ("val", 2)):
        write_classes(root / part, {"n01443537": count, "n01440764": count}, end=".JPEG", size=(30, 40))
    return root


def test_imagenet_is_read_from_torchvisions_folders(tmp_path: Path) -> None:
    data = loaded(ImageNet, root=str(write_imagenet(tmp_path)))
    assert data.classes == ("n01440764", "n01443537")
    assert (labels(data.pool), labels(data.test)) == ([0] * 4 + [1] * 4, [0, 0, 1, 1])
    assert data.pool.inputs(torch.arange(2)).shape == (2, 3, 224, 224)


def test_imagenet_that_is_missing_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*/train and no .*/val: .*image-net.org"):
        loaded(ImageNet, root=str(tmp_path))


def test_imagenets_validation_pictures_that_are_not_sorted_into_classes_are_refused(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    for path in sorted((tmp_path / "val").rglob("*.JPEG")):
        path.rename(tmp_path / "val" / f"{path.parent.name}_{path.name}")
    for folder in ("n01443537", "n01440764"):
        (tmp_path / "val" / folder).rmdir()
    with pytest.raises(DatasetError, match=r"2 classes are in one of .*sorted into class folders"):
        loaded(ImageNet, root=str(tmp_path))


@pytest.mark.parametrize(
    ("dataset", "write", "params"),
    [
        (Caltech101, write_caltech101, {"size": 24}),
        (Caltech256, write_caltech256, {"size": [16, 24], "clutter": True}),
        (ImageNet, write_imagenet, {"size": 32, "memory": 0.0}),
    ],
)
def test_these_conform(dataset: type[ClassFolders], write: Any, params: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path)
    testing.assert_conforms("dataset", dataset, {"root": str(tmp_path), **params})


# -- real pictures -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar10_as_jpeg_files() -> None:
    """POOLWRIGHT_DATA names a folder with cifar10/train/CLASS/*.jpg and cifar10/test/CLASS/*.jpg, all 60,000."""
    root = os.environ.get("POOLWRIGHT_DATA")
    if not root:
        pytest.skip("POOLWRIGHT_DATA is not set")
    data = loaded(ImageFolder, root=str(Path(root) / "cifar10"))
    assert torch.tensor(labels(data.pool)).bincount().tolist() == [5000] * 10
    assert torch.tensor(labels(data.test)).bincount().tolist() == [1000] * 10
    assert data.pool.inputs(torch.tensor([49999])).shape == (1, 3, 32, 32)
    from poolwright_plugins.datasets.cifar import CIFAR10

    mean, std = data._scale()
    assert mean == pytest.approx(CIFAR10.mean, abs=0.01)
    assert std == pytest.approx(CIFAR10.std, abs=0.01)
