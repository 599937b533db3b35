"""Blocks of matrices that may lie on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolwright import ConfigError, Rows
from poolwright.rows import default_memory_limit, parse_size

MATRIX = np.arange(60, dtype=np.float32).reshape(20, 3)


def packed(matrix):
    """Return the matrix as a field of records of an odd size."""
    records = np.zeros(len(matrix), dtype=[("x", np.float32, matrix.shape[1]), ("flag", np.int8)])
    records["x"] = matrix
    return records["x"]


def unaligned(matrix):
    """Return the matrix one byte off."""
    buffer = np.zeros(matrix.nbytes + 1, np.uint8)
    view = buffer[1:].view(np.float32).reshape(matrix.shape)
    view[:] = matrix
    assert not view.flags.aligned
    return view


def sources(folder):
    """Return the same matrix in every form it may come in."""
    path = folder / "x.npy"
    np.save(path, MATRIX)
    np.save(folder / "big.npy", MATRIX.astype(">f4"))
    read_only = MATRIX.copy()
    read_only.flags.writeable = False
    return {
        "array": MATRIX.copy(),
        "tensor": torch.from_numpy(MATRIX.copy()),
        "memmap": np.load(path, mmap_mode="r"),
        "big-endian": np.load(folder / "big.npy", mmap_mode="r"),
        "read-only": read_only,
        "Fortran order": np.asfortranarray(MATRIX),
        "reversed": MATRIX[::-1].copy()[::-1],
        "packed records": packed(MATRIX),
        "unaligned": unaligned(MATRIX),
    }


FORMS = [
    "array",
    "tensor",
    "memmap",
    "big-endian",
    "read-only",
    "Fortran order",
    "reversed",
    "packed records",
    "unaligned",
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_rows_read_any_matrix(form, tmp_path):
    rows = Rows(sources(tmp_path)[form], memory_limit=50)
    assert rows.shape == (20, 3)
    assert len(rows) == 20
    assert rows.dtype == torch.float32
    assert (rows.row_nbytes, rows.nbytes) == (12, 240)
    assert torch.equal(rows[2:5], torch.from_numpy(MATRIX[2:5]))
    assert torch.equal(rows[torch.tensor([7, 0, 7])], torch.from_numpy(MATRIX[[7, 0, 7]]))
    blocks = list(rows.blocks())
    assert [start for start, _ in blocks] == [0, 4, 8, 12, 16]
    assert all(block.nbytes <= 50 for _, block in blocks)
    assert torch.equal(torch.cat([block for _, block in blocks]), torch.from_numpy(MATRIX))


@pytest.mark.parametrize("form", FORMS)
def test_take_is_a_view_in_the_order_asked_and_can_be_taken_from_again(form, tmp_path):
    rows = Rows(sources(tmp_path)[form], memory_limit=24).take(torch.tensor([9, 3, 5, 3]))
    assert rows.shape == (4, 3)
    assert rows[:][:, 0].tolist() == [27, 9, 15, 9]
    again = rows.take(torch.tensor([2, 0]))
    assert again[:][:, 0].tolist() == [15, 27]
    assert again.memory_limit == 24
    assert [(start, block[:, 0].tolist()) for start, block in rows.blocks()] == [(0, [27, 9]), (2, [15, 9])]
    assert rows[torch.tensor([1])][0, 0] == 9


def test_a_block_holds_at_least_one_row_and_a_limit_may_be_given_for_once():
    rows = Rows(MATRIX, memory_limit=1)
    assert [len(block) for _, block in rows.blocks()] == [1] * 20
    assert [len(block) for _, block in rows.blocks(memory_limit=10**6)] == [20]


def test_what_lies_on_disk_is_never_written(tmp_path):
    np.save(tmp_path / "x.npy", MATRIX)
    rows = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"))
    rows[:].zero_()
    rows[torch.tensor([1])].zero_()
    assert np.array_equal(np.load(tmp_path / "x.npy"), MATRIX)


def test_more_dimensions_and_other_types_are_rows_too():
    rows = Rows(np.arange(24, dtype=">i2").reshape(4, 2, 3))
    assert rows.shape == (4, 2, 3)
    assert (rows.dtype, rows.row_nbytes) == (torch.int16, 12)
    assert rows[1:2].tolist() == [[[6, 7, 8], [9, 10, 11]]]
    half = Rows(torch.zeros(5, 2, dtype=torch.bfloat16))
    assert (half.dtype, half.nbytes) == (torch.bfloat16, 20)
    assert repr(half) == "Rows(shape=(5, 2), dtype=torch.bfloat16)"
    assert list(Rows(np.zeros((0, 3))).blocks()) == []


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"needs a matrix, not an array of shape \(3,\)"):
        Rows(np.zeros(3))
    with pytest.raises(TypeError, match="reads numpy arrays and torch tensors, not list"):
        Rows([[1.0]])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("8GiB", 8 * 2**30),
        ("500 MB", 5 * 10**8),
        ("1.5k", 1536),
        ("2 tib", 2**41),
        ("10b", 10),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "8 GiBs", "-1GB", "0", 0, -5, "1.2.3M"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="memory"):
        parse_size(text)


def test_the_default_limit_is_a_part_of_the_memory_of_this_machine():
    assert 2**26 < default_memory_limit() < 2**45


def test_concatenated_rows_are_read_like_one_matrix(tmp_path):
    np.save(tmp_path / "x.npy", MATRIX)
    parts = Rows(np.load(tmp_path / "x.npy", mmap_mode="r"), memory_limit=40), Rows(MATRIX[:0]), Rows(MATRIX[:7])
    rows, whole = Rows.concat(*parts), torch.from_numpy(np.concatenate([MATRIX, MATRIX[:7]]))
    assert rows.shape == (27, 3)
    for at in (slice(0, 27), slice(18, 23), slice(3, 9), slice(25, 20), slice(1, 26, 4)):
        assert torch.equal(rows[at], whole[at.start : max(at.start, at.stop) : at.step])
    ids = torch.tensor([26, 0, 20, 19, 26, 3])
    assert torch.equal(rows[ids], whole[ids])
    assert torch.equal(rows.take(ids)[torch.tensor([1, 0])], whole[[0, 26]])
    assert torch.equal(torch.cat([block for _, block in rows.blocks()]), whole)
    tail = Rows.concat(Rows(MATRIX[:3]), Rows(MATRIX))[5:9]
    assert np.shares_memory(tail.numpy(), MATRIX), "what lies in one part is not copied"
    assert Rows.concat(parts[0]) is parts[0]
    with pytest.raises(ValueError, match="one shape and type"):
        Rows.concat()
    with pytest.raises(ValueError, match="one shape and type"):
        Rows.concat(Rows(MATRIX), Rows(MATRIX[:, :2]))
