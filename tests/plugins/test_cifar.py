"""Reading CIFAR-10 and CIFAR-100 from small files of the official form."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from poolwright import DatasetError, testing
from poolwright_plugins.datasets.cifar import CIFAR10, CIFAR100

from .picture_trees import cifar_pixels, loaded, pickled, snapshot, write_cifar10, write_cifar100


def test_batches_of_cifar10_follow_each_other_and_nothing_is_written(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    before = snapshot(tmp_path)
    data = loaded(CIFAR10, root=str(tmp_path))
    expected = np.concatenate([cifar_pixels(f"data_batch_{i}", 6) for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert torch.equal(data.pool.data, torch.from_numpy(expected))
    assert torch.equal(data.test.data, torch.from_numpy(cifar_pixels("test_batch", 6).reshape(-1, 3, 32, 32)))
    start = [sum(f"data_batch_{i}".encode()) for i in range(1, 6)]
    assert data.pool.labels(torch.arange(30)).tolist() == [(s + i) % 10 for s in start for i in range(6)]
    assert data.classes[3] == "cat"
    assert snapshot(tmp_path) == before


def test_read_as_torchvision_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision checks the official files' sums, which made ones do not have."""
    write_cifar100(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = datasets.CIFAR100(str(tmp_path), train=True)
    ours = loaded(CIFAR100, root=str(tmp_path))
    assert torch.equal(ours.pool.data, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert ours.pool.labels(torch.arange(200)).tolist() == theirs.targets
    assert list(ours.classes) == theirs.classes


def test_superclasses_of_cifar100_are_the_coarse_labels_of_its_classes(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    data = loaded(CIFAR100, root=str(tmp_path))
    assert list(data.superclasses) == [c * 7 % 20 for c in range(100)]


def test_a_class_in_two_superclasses_is_refused(tmp_path: Path) -> None:
    folder = write_cifar100(tmp_path)
    content = pickle.loads((folder / "train").read_bytes(), encoding="latin1")
    content["coarse_labels"][150] = (content["coarse_labels"][50] + 1) % 20
    (folder / "train").write_bytes(pickled(content))
    with pytest.raises(DatasetError, match=r"train is damaged \(not every class is in exactly one superclass\)"):
        loaded(CIFAR100, root=str(tmp_path))


def test_arrays_in_the_order_of_fortran_are_read_as_well(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path)
    data = np.asfortranarray(cifar_pixels("test_batch", 6))
    (folder / "test_batch").write_bytes(pickled({"data": data, "labels": [0] * 6}))
    assert torch.equal(
        loaded(CIFAR10, root=str(tmp_path)).test.data, torch.from_numpy(data.copy("C").reshape(-1, 3, 32, 32))
    )


def test_missing_files_are_named_with_the_folder_and_the_ways_to_get_them(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError) as caught:
        loaded(CIFAR10, root=str(tmp_path))
    message = str(caught.value)
    assert "data_batch_4 not found" in message
    assert "data_batch_3" not in message
    assert str(folder) in message
    assert "download = true" in message


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without(key: str) -> Any:
    def change(content: bytes) -> bytes:
        return pickled({k: v for k, v in pickle.loads(content, encoding="latin1").items() if k != key})

    return change


def with_(key: str, value: Any) -> Any:
    def change(content: bytes) -> bytes:
        return pickled(pickle.loads(content, encoding="latin1") | {key: value})

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (cut, "truncated"),
        (lambda _: b"", "Ran out of input"),
        (lambda _: b"<html>not found</html>", "pickle|key|load"),
        (lambda _: pickled([1, 2]), "no dictionary"),
        (without("data"), "3,072 bytes an image"),
        (without("labels"), "not a list of one class"),
        (with_("data", np.zeros((6, 3071), np.uint8)), "3,072 bytes an image"),
        (with_("data", np.zeros((6, 3072), np.float32)), "3,072 bytes an image"),
        (with_("labels", [0] * 5), "not a list of one class"),
        (with_("labels", [0, 1, 2, 3, 4, 10]), "0 to 9"),
        (with_("labels", [0, 1, 2, 3, 4, -1]), "0 to 9"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, change: Any, why: str) -> None:
    path = write_cifar10(tmp_path) / "data_batch_2"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DatasetError, match=rf"data_batch_2 is damaged .*({why}).*remove it and get it again"):
        loaded(CIFAR10, root=str(tmp_path))


def test_any_single_damaged_byte_is_read_or_refused_by_name(tmp_path: Path) -> None:
    """Bytes of pixels cannot be told from sound ones; those around them make nothing worse than the one error."""
    path = write_cifar10(tmp_path, n=1) / "data_batch_1"
    sound = path.read_bytes()
    around = [*range(200), *range(len(sound) - 60, len(sound))]
    messages = []
    for position in around:
        for value in (0x2E, 0xFF):
            path.write_bytes(sound[:position] + bytes([value]) + sound[position + 1 :])
            try:
                loaded(CIFAR10, root=str(tmp_path))
            except DatasetError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert all("data_batch_1 is damaged" in message for message in messages)


def test_a_pickle_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made by the pickle"),)

    path = write_cifar10(tmp_path) / "test_batch"
    path.write_bytes(pickle.dumps({"data": Evil()}, protocol=2))
    with pytest.raises(DatasetError, match=r"test_batch is damaged \(UnpicklingError: it names \w+\.mkdir"):
        loaded(CIFAR10, root=str(tmp_path))
    assert not (tmp_path / "made by the pickle").exists()


def test_names_that_are_no_names_are_damage(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path)
    (folder / "batches.meta").write_bytes(pickled({"label_names": [1, 2]}))
    with pytest.raises(DatasetError, match=r"batches.meta is damaged \(no names under 'label_names'\)"):
        loaded(CIFAR10, root=str(tmp_path))


@pytest.mark.parametrize(("dataset", "write"), [(CIFAR10, write_cifar10), (CIFAR100, write_cifar100)])
def test_download_fetches_only_what_is_missing(
    dataset: type, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        write(tmp_path)

    monkeypatch.setattr(datasets, dataset.__name__, fetch)
    for _ in range(2):
        loaded(dataset, root=str(tmp_path), download=True)
    assert asked == [(str(tmp_path), True)]


@pytest.mark.parametrize("reason", [RuntimeError("no route to host"), OSError(28, "No space left on device")])
def test_a_failed_download_is_an_error_that_says_where_it_was_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    def fail(root: str, download: bool) -> None:
        raise reason

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(DatasetError, match=r"CIFAR-10 could not be downloaded to .*(no route|No space)"):
        loaded(CIFAR10, root=str(tmp_path), download=True)


def test_prepared_pixels_have_each_channels_mean_taken_off_and_its_deviation_divided_out() -> None:
    x = torch.zeros(2, 3, 1, 1, dtype=torch.uint8)
    x[1] = 255
    mean, std = torch.tensor(CIFAR10.mean), torch.tensor(CIFAR10.std)
    prepared = CIFAR10().prepare(x)
    torch.testing.assert_close(prepared[:, :, 0, 0], torch.stack([-mean / std, (1 - mean) / std]))
    assert x.tolist() == [[[[0]]] * 3, [[[255]]] * 3]


def test_augmentation_shifts_by_at_most_four_pixels_mirrors_and_fills_with_black() -> None:
    data = CIFAR10()
    x = torch.full((600, 3, 32, 32), 128, dtype=torch.uint8)
    x[:, :, 12, 9] = 255
    prepared = data.prepare(x)
    out = data.augment(prepared, torch.Generator().manual_seed(0))
    place = out[:, 1].flatten(1).argmax(1)
    assert set((place // 32).tolist()) == set(range(8, 17))
    assert set((place % 32).tolist()) == set(range(5, 14)) | set(range(18, 27))
    levels = out * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
    assert set((255 * levels).round().int().unique().tolist()) == {0, 128, 255}


@pytest.mark.parametrize(("dataset", "write"), [(CIFAR10, write_cifar10), (CIFAR100, write_cifar100)])
def test_both_conform(dataset: type, write: Any, tmp_path: Path) -> None:
    write(tmp_path)
    testing.assert_conforms("dataset", dataset, {"root": str(tmp_path)})
