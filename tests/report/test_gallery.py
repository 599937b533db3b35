"""Pictures of selected samples: kept in the run's folder, shown on the page, left out where samples are no images."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from test_report_html import Page

from poolwright import StoreError, load_result
from poolwright import run as run_experiment
from poolwright.gallery import SHOWN, SIDES, png, row_of_pictures
from poolwright.report.html import render
from poolwright.spec import Experiment
from poolwright.testing import MadeDataset, MadeLearner, make_dataset


class First:
    """Select the lowest ids."""

    from poolwright import hookimpl

    @hookimpl
    def select(self, cycle, budget):
        return cycle.pool.unlabeled[:budget]


def swept(folder, *, seeds=2, budget=40, batch=20, **dataset):
    experiment = Experiment(
        dataset={"name": MadeDataset, "n": 60, **dataset},
        learner=MadeLearner,
        strategies=[{"label": "lowest first", "name": First}],
        initial={"strategy": First, "size": 6},
        seeds=seeds,
        budget=budget,
        batch=batch,
        threads=1,
        device="cpu",
    )
    return run_experiment(experiment, folder)


def shown(source: str) -> list[torch.Tensor]:
    files = [base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', source)]
    arrays = [np.array(Image.open(io.BytesIO(file))) for file in files]
    return [torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1) for array in arrays]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_shows_the_first_samples_of_the_first_and_last_batch_of_the_first_seed(tmp_path, channels):
    swept(tmp_path / "x", shape=(channels, 8, 8))
    source = render(load_result(tmp_path / "x"))
    data = make_dataset(n=60, shape=(channels, 8, 8))
    expected = [row_of_pictures(data.pool.inputs(torch.arange(start, start + SHOWN))) for start in (6, 26)]
    assert [torch.equal(*pair) for pair in zip(shown(source), expected, strict=True)] == [True, True]
    assert "First samples selected in cycle 0, seed 0" in source
    assert "First samples selected in cycle 1, seed 0" in source
    assert Page(source).tags.count("img") == 2
    folders = sorted(path.parent.name for path in (tmp_path / "x").rglob("pictures"))
    assert folders == ["seed-0"]


def test_a_run_of_one_batch_shows_it_once(tmp_path):
    swept(tmp_path / "x", budget=20)
    assert len(shown(render(load_result(tmp_path / "x")))) == 1


@pytest.mark.parametrize("shape", [(5,), (2, 4, 4)])
def test_samples_that_are_no_pictures_are_not_shown(tmp_path, shape):
    swept(tmp_path / "x", shape=shape, seeds=1)
    source = render(load_result(tmp_path / "x"))
    assert "Selected samples" not in source
    assert not list((tmp_path / "x").rglob("pictures"))


def test_without_a_folder_nothing_is_kept_and_the_page_is_written():
    assert "Selected samples" not in render(swept(None, seeds=1))


@pytest.mark.parametrize(("height", "width", "expected"), [(8, 8, (48, 48)), (64, 64, (64, 64)), (200, 400, (48, 96))])
def test_pictures_are_enlarged_or_reduced_to_a_handy_size(height, width, expected):
    row = row_of_pictures(torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8))
    assert row.shape == (3, expected[0], 3 * expected[1] + 4)
    assert max(expected) <= SIDES[1]


def test_few_levels_of_gray_are_stretched_and_a_blank_picture_is_no_error():
    row = row_of_pictures(torch.tensor([0, 16], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 64, 64))
    assert row[:, :, :64].eq(0).all()
    assert row[:, :, 66:].eq(255).all()
    assert row_of_pictures(torch.full((1, 1, 64, 64), 7, dtype=torch.uint8)).eq(0).all()
    assert png(row).startswith(b"\x89PNG")


def test_pictures_that_cannot_be_written_are_an_error_that_says_so(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("poolwright.gallery.write_atomically", full)
    with pytest.raises(StoreError, match=r"cannot write .*cycle-0.png: .*No space left.* --resume"):
        swept(tmp_path / "x", seeds=1)


def test_pictures_that_cannot_be_read_are_an_error_that_names_the_folder(tmp_path):
    swept(tmp_path / "x", seeds=1)
    (path,) = (tmp_path / "x").rglob("cycle-0.png")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"cannot read the pictures in .*pictures"):
        render(load_result(tmp_path / "x"))
