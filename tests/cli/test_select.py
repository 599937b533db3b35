"""``poolwright select`` and ``poolwright.select``."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
import torch

import poolwright as pw

from ..kernels import memory


@pytest.fixture
def matrix(tmp_path):
    """Three groups of points, far apart; the last group has one point."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (20, 4)), rng.normal(10, 0.1, (20, 4)), [[100.0] * 4]]).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy", x


def test_coreset_reaches_every_group_that_is_not_labeled(poolwright, tmp_path, matrix):
    path, x = matrix
    (tmp_path / "labeled.txt").write_text("0\n3\n")
    outcome = poolwright(
        "select", "--features", path, "-k", 2, "--labeled", tmp_path / "labeled.txt", "--out", tmp_path / "picks.csv"
    )
    assert outcome.status == 0, outcome.err
    rows = list(csv.DictReader((tmp_path / "picks.csv").open()))
    assert [row["rank"] for row in rows] == ["0", "1"]
    assert rows[0]["id"] == "40"
    assert 20 <= int(rows[1]["id"]) < 40
    assert pw.select(x, 2, labeled=[0, 3]).tolist() == [int(row["id"]) for row in rows]


def test_ids_come_back_in_kind(matrix):
    _, x = matrix
    assert isinstance(pw.select(x, 3), np.ndarray)
    assert pw.select(x, 3).dtype == np.int64
    assert isinstance(pw.select(torch.from_numpy(x), 3), torch.Tensor)
    assert pw.select(torch.from_numpy(x), 0).tolist() == []


def test_probabilities_of_ones_own_model_are_used(poolwright, tmp_path, matrix):
    path, x = matrix
    p = np.full((len(x), 2), [0.9, 0.1])
    p[[7, 30]] = [0.5, 0.5], [0.6, 0.4]
    np.save(tmp_path / "p.npy", p)
    out = tmp_path / "picks.npy"
    arguments = ["--probabilities", tmp_path / "p.npy", "--strategy", "margin", "--out", out]
    assert poolwright("select", "--features", path, "-k", 2, *arguments).status == 0
    assert np.load(out).tolist() == [7, 30]


def test_labels_give_a_learner_to_strategies_that_need_probabilities(poolwright, tmp_path, matrix):
    path, x = matrix
    labels = np.full(len(x), -1)
    labels[[0, 1, 20, 21]] = 0, 0, 1, 1
    np.save(tmp_path / "y.npy", labels)
    out = tmp_path / "picks.txt"
    outcome = poolwright(
        "select", "--features", path, "-k", 3, "--labels", tmp_path / "y.npy", "--strategy", "margin", "--out", out
    )
    assert outcome.status == 0, outcome.err
    picked = [int(line) for line in out.read_text().split()]
    assert len(set(picked)) == 3
    assert not set(picked) & {0, 1, 20, 21}


def test_everything_labeled_or_k_beyond_the_pool_is_refused(matrix):
    _, x = matrix
    with pytest.raises(pw.ConfigError, match="39 samples are unlabeled"):
        pw.select(x, 40, labeled=[0, 1])
    assert len(pw.select(x, 39, labeled=[0, 1])) == 39


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": np.zeros(3, np.float32)}, "features must be a floating point matrix"),
        ({"features": np.array([[1.0], [np.nan], [np.inf]])}, "2 of 3 rows hold NaN or infinity, the first is id 1"),
        ({"labeled": [99]}, "99 is not an id"),
        ({"labeled": [0.5]}, "labeled must be integers"),
        ({"labels": [0, 1]}, "labels has 2 entries, but features has 41 rows"),
        ({"labels": [-2] * 41}, "-2 at id 0 is no class"),
        ({"labels": [-1] * 41, "labeled": [4]}, "id 4 is named, but its label is -1"),
        ({"probabilities": np.zeros((2, 2))}, "probabilities has 2 rows, but features has 41"),
        ({"probabilities": np.full((41, 2), 0.7)}, "41 of 41 rows are negative or do not sum to 1, the first is id 0"),
        ({"strategy": "margin", "labels": [-1] * 41}, "no sample is labeled to fit a learner on"),
        ({"strategy": "margin"}, "'margin' needs probabilities.*--labels"),
        ({"strategy": "corset"}, "did you mean 'coreset'"),
        ({"params": {"metrik": 1}}, "no parameter 'metrik'"),
        ({"k": -1}, "k = -1"),
    ],
)
def test_bad_arrays_are_refused_with_the_first_culprit(matrix, change, words):
    arguments = {"features": matrix[1], "k": 2} | change
    with pytest.raises(pw.PoolwrightError, match=words):
        pw.select(**arguments)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", b"no numpy file", "is no .npy file: save the array with numpy.save"),
        ("x.npy", b"", "is no .npy file"),
        ("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape'", "no readable .npy file"),
        ("x.h5", b"", "only .npy files"),
    ],
)
def test_damaged_and_unknown_files_are_named(poolwright, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    outcome = poolwright("select", "--features", tmp_path / name, "-k", 1, "--out", tmp_path / "picks.csv")
    assert outcome.status == 2
    assert words in outcome.err
    assert str(tmp_path / name) in outcome.err
    assert not (tmp_path / "picks.csv").exists()


def test_what_a_kernel_says_of_data_and_limits_is_no_fault_of_the_strategy(poolwright, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32))
    outcome = poolwright("select", "--features", tmp_path / "x.npy", "-k", 3, "--memory-limit", "100")
    assert outcome.status == 2
    assert "memory_limit = 100 bytes is too little" in outcome.err
    assert "plugin" not in outcome.err


def test_ids_are_read_from_each_kind_of_file(poolwright, tmp_path, matrix):
    path, x = matrix
    np.save(tmp_path / "a.npy", np.array([0, 3]))
    (tmp_path / "a.txt").write_text("0\n3\n")
    (tmp_path / "a.csv").write_text("rank,id\n0,0\n1,3\n")
    expected = pw.select(x, 4, labeled=[0, 3]).tolist()
    for name in ("a.npy", "a.txt", "a.csv"):
        out = tmp_path / "picks.npy"
        assert poolwright("select", "--features", path, "-k", 4, "--labeled", tmp_path / name, "--out", out).status == 0
        assert np.load(out).tolist() == expected
    (tmp_path / "a.txt").write_text("0\nthree\n")
    outcome = poolwright("select", "--features", path, "-k", 4, "--labeled", tmp_path / "a.txt")
    assert "line 2: 'three' is no id" in outcome.err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(poolwright, tmp_path, matrix):
    outcome = poolwright("select", "--features", matrix[0], "-k", 1, "--out", tmp_path / "none" / "picks.csv")
    assert outcome.status == 2
    assert "does not exist" in outcome.err
    assert "picks.pdf" in poolwright("select", "--features", matrix[0], "-k", 1, "--out", tmp_path / "picks.pdf").err


def test_a_file_that_is_read_is_not_overwritten(poolwright, matrix):
    path, x = matrix
    outcome = poolwright("select", "--features", path, "-k", 1, "--out", path)
    assert outcome.status == 2
    assert "is one of the files to read" in outcome.err
    assert np.array_equal(np.load(path), x)


def test_arrays_that_torch_cannot_share_are_read_too(matrix):
    _, x = matrix
    records = np.zeros(len(x), dtype=[("x", np.float32, x.shape[1]), ("flag", np.int8)])
    records["x"] = x
    expected = pw.select(x, 4, labeled=[0]).tolist()
    for form in (records["x"], x.astype(">f4"), x[::-1].copy()[::-1]):
        assert pw.select(form, 4, labeled=[0]).tolist() == expected


SELECT = """
import sys
from pathlib import Path
import poolwright
from poolwright import files
torch.set_num_threads(1)
for strategy in ("coreset", "kmeans"):  # what the first call imports and allocates is not of the data
    poolwright.select(np.ones((50, 4), np.float32), 2, strategy)
with Peak() as peak:
    x = files.read_matrix(Path(sys.argv[1]))
    ids = poolwright.select(x, 3, sys.argv[2], labeled=[0, 5], memory_limit=x.nbytes // 2, seed=1)
print(peak.bytes / x.nbytes, *ids)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("strategy", ["coreset", "kmeans"])
def test_a_file_twice_as_large_as_the_memory_limit_is_selected_from_within_it(strategy, tmp_path):
    x = np.random.default_rng(0).standard_normal((100_000, 400), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    used, *ids = memory.run(SELECT, str(tmp_path / "x.npy"), strategy).split()
    assert float(used) < 0.5
    assert [int(i) for i in ids] == pw.select(
        x, 3, strategy, labeled=[0, 5], memory_limit=4 * x.nbytes, seed=1
    ).tolist()
