"""What k_center accepts, what it returns for it, and what it refuses."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from poolwright import kernels
from poolwright.kernels import _arguments, _k_center_backends, _native_build

from .pools import integer_pool

X = integer_pool(n=120, d=21)
EXPECTED = kernels.k_center(X, 30, labeled=[2], backend="reference").indices.tolist()


class FakeRows:
    """A matrix that can only be read in blocks; counts the rows that were read."""

    def __init__(self, x):
        self._x = torch.as_tensor(x)
        self.shape, self.dtype = tuple(self._x.shape), self._x.dtype
        self.rows_read = 0

    def __getitem__(self, rows):
        block = self._x[rows]
        self.rows_read += len(block)
        return block.clone()

    def blocks(self):
        yield 0, self[0 : len(self._x)]


def readonly(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def memmap(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def packed_records(x):
    records = np.zeros(len(x), dtype=[("id", "u1"), ("row", "f4", x.shape[1])])
    records["row"] = x
    return records["row"]


FORMS = {
    "c-order": lambda x, _: x,
    "fortran-order": lambda x, _: np.asfortranarray(x),
    "column-step": lambda x, _: np.repeat(x, 3, axis=1)[:, ::3],
    "row-step": lambda x, _: np.repeat(x, 2, axis=0)[::2],
    "negative-strides": lambda x, _: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "read-only": lambda x, _: readonly(x),
    "memmap": memmap,
    "byte-swapped": lambda x, _: x.astype(">f4"),
    "packed-records": lambda x, _: packed_records(x),
    "float16": lambda x, _: x.astype(np.float16),
    "float64": lambda x, _: x.astype(np.float64),
    "torch": lambda x, _: torch.from_numpy(x),
    "torch-transposed": lambda x, _: torch.from_numpy(np.ascontiguousarray(x.T)).T,
    "torch-bfloat16": lambda x, _: torch.from_numpy(x).bfloat16(),
    "torch-float64": lambda x, _: torch.from_numpy(x).double(),
    "torch-grad": lambda x, _: torch.from_numpy(x).requires_grad_(),
    "rows": lambda x, _: FakeRows(x),
    "rows-float64": lambda x, _: FakeRows(x.astype(np.float64)),
}


@pytest.mark.parametrize("limit", [None, 40_000], ids=["fits", "in-blocks"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_matrix_gives_the_same_picks_in_kind(k_center, form, limit, tmp_path):
    x = FORMS[form](X, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = k_center(x, 30, labeled=[2], memory_limit=limit)
    assert result.indices.tolist() == EXPECTED
    kind = np.ndarray if isinstance(x, np.ndarray) else torch.Tensor
    assert isinstance(result.indices, kind)
    assert isinstance(result.radii, kind)
    assert str(result.indices.dtype).endswith("int64")
    assert str(result.radii.dtype).endswith("float64")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_blocks_give_the_same_bits_as_memory(native, metric):
    x = np.random.default_rng(0).standard_normal((500, 37)).astype(np.float32)
    whole = kernels.k_center(x, 60, metric=metric, labeled=[1, 2], backend="native")
    blocks = kernels.k_center(
        FakeRows(x), 60, metric=metric, labeled=[1, 2], backend="native", memory_limit=500 * 12 + 37 * 32 * 20
    )
    assert whole.indices.tolist() == blocks.indices.tolist()
    assert whole.radii.tolist() == blocks.radii.tolist()


def test_x_is_never_written(k_center):
    x = X.copy()
    k_center(x, 30, metric="cosine")
    k_center(x, 30)
    assert np.array_equal(x, X)


def test_few_candidates_of_a_matrix_on_disk_are_read_once():
    x = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32)
    rows, candidates = FakeRows(x), np.arange(100, 200)
    result = kernels.k_center(rows, 50, labeled=[0], candidates=candidates, memory_limit=120_000)
    assert result.indices.tolist() == kernels.k_center(x, 50, labeled=[0], candidates=candidates).indices.tolist()
    assert rows.rows_read < 2 * len(x)  # one pass to check, then the candidates alone, and not one pass a pick


@pytest.mark.parametrize("ids", [np.array([2], np.int32), torch.tensor([2]), [2], (2,), np.array([2], np.uint8)])
def test_ids_may_be_any_sequence_of_integers(k_center, ids):
    assert k_center(X, 30, labeled=ids).indices.tolist() == EXPECTED


def test_no_picks_from_a_pool_an_empty_one_and_a_labeled_one(k_center):
    for x, labeled in ((X, None), (X[:0], []), (X[:3], [0, 1, 2])):
        result = k_center(x, 0, labeled=labeled)
        assert result.indices.shape == result.radii.shape == (0,)
        assert result.indices.dtype == np.int64


def test_one_row_and_no_columns(k_center):
    assert k_center(X[:1], 1).indices.tolist() == [0]
    assert k_center(np.empty((4, 0), np.float32), 3).indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("k", "options", "message"),
    [
        (121, {}, "only 120 points are eligible.*at most 120"),
        (1, {"labeled": range(120)}, "only 0 points are eligible.*120 labeled"),
        (3, {"candidates": [1, 2]}, "only 2 points.*candidates"),
        (-1, {}, "negative"),
        (1, {"labeled": [120]}, "labeled holds 120.*0 to 119"),
        (1, {"candidates": [-1]}, "candidates holds -1"),
        (1, {"candidates": [[1, 2]]}, "one dimension"),
        (1, {"first": 7, "labeled": [1]}, "leave it out"),
        (1, {"first": 120}, "no eligible row"),
        (1, {"first": 7, "candidates": [1]}, "no eligible row"),
        (1, {"metric": "manhattan"}, "metric"),
        (1, {"memory_limit": 100}, "memory_limit = 100 bytes is too little.*at least"),
    ],
)
def test_wrong_values_are_refused_with_a_way_out(k_center, k, options, message):
    with pytest.raises(ValueError, match=message):
        k_center(X, k, **options)


@pytest.mark.parametrize(
    ("x", "k", "options", "message"),
    [
        (X.astype(np.int64), 1, {}, "int64.*float32"),
        (torch.from_numpy(X).int(), 1, {}, "int32.*float32"),
        ([1, 2], 1, {}, "not list"),
        (torch.from_numpy(X).to_sparse(), 1, {}, "dense"),
        (X, 1.5, {}, "integer"),
        (X, 1, {"labeled": np.zeros(120, bool)}, "mask"),
        (X, 1, {"labeled": [0.5]}, "integers"),
    ],
)
def test_wrong_types_are_refused(k_center, x, k, options, message):
    with pytest.raises(TypeError, match=message):
        k_center(x, k, **options)


def test_a_vector_is_refused_with_the_way_out(k_center):
    with pytest.raises(ValueError, match="None"):
        k_center(X[:, 0].copy(), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted_and_named(k_center, bad):
    x = X.copy()
    x[[30, 70], 3] = bad
    with pytest.raises(ValueError, match=r"2 rows of x with NaN or infinity.*row 30"):
        k_center(x, 3)
    with pytest.raises(ValueError, match=r"1 rows of x with NaN or infinity.*row 70"):
        k_center(x, 3, labeled=[70], candidates=[1, 2, 3, 4])


def test_rows_that_are_not_finite_and_take_no_part_do_no_harm(k_center):
    x = X.copy()
    x[[30, 70]] = np.nan
    others = [i for i in range(120) if i not in (30, 70)]
    clean = k_center(X, 40, candidates=others)
    assert k_center(x, 40, candidates=others).indices.tolist() == clean.indices.tolist()


def test_values_whose_squares_overflow_are_refused(k_center):
    x = X.copy()
    x[11] = 1e19
    with pytest.raises(ValueError, match=r"1 rows.*overflow.*row 11"):
        k_center(x, 3)
    assert len(k_center(x, 3, metric="cosine").indices) == 3  # lengths do not count there


def test_a_backend_that_is_unknown_or_for_another_device_is_refused(native):
    with pytest.raises(ValueError, match="backend must be"):
        kernels.k_center(X, 1, backend="opencl")
    if kernels.build_info()["cuda"]:
        with pytest.raises(ValueError, match=r"x\.cuda\(\)"):
            kernels.k_center(X, 1, backend="cuda")
    else:
        with pytest.raises(RuntimeError, match="without CUDA"):
            kernels.k_center(X, 1, backend="cuda")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: kernels.k_center(X, "10"), "k"),
        (lambda: kernels.k_center(X, 2.5), "k"),
        (lambda: kernels.k_center(X, 2, first="3"), "first"),
        (lambda: kernels.k_center(X, 2, memory_limit="1GB"), "memory_limit"),
        (lambda: kernels.kmeans(X, 2, iterations="3"), "iterations"),
        (lambda: kernels.kmeans(X, 2, subsample="x"), "subsample"),
        (lambda: kernels.kmeans_plus_plus(X, 2, seed="a"), "seed"),
        (lambda: kernels.kmeans_plus_plus(X, None), "k"),
    ],
)
def test_what_is_no_integer_is_refused_by_name(call, name):
    with pytest.raises(TypeError, match=rf"^{name} must be"):
        call()


def test_without_the_extension_auto_falls_back_and_a_name_raises(monkeypatch, caplog):
    monkeypatch.setattr(_arguments, "load", lambda: (None, "not built here"))
    monkeypatch.setattr(_arguments, "cuda_missing", lambda: "not built here")
    monkeypatch.setattr(_arguments, "_said", set())
    with caplog.at_level("INFO", logger="poolwright.kernels"):
        for _ in range(2):
            assert kernels.k_center(X, 30, labeled=[2]).indices.tolist() == EXPECTED
    assert [record.message for record in caplog.records] == ["k_center: backend torch, since not built here"]
    for name in ("native", "cuda"):
        with pytest.raises(RuntimeError, match="not built here"):
            kernels.k_center(X, 1, backend=name)


def test_auto_takes_the_native_kernels_on_the_cpu(native, monkeypatch):
    lazily, used = _k_center_backends.NativeBackend.lazily, []

    def spy(self, *args):
        used.append(self)
        return lazily(self, *args)

    monkeypatch.setattr(_k_center_backends.NativeBackend, "lazily", spy)
    kernels.k_center(X, 3)
    assert len(used) == 1


def test_importing_the_kernels_imports_neither_torch_nor_numpy():
    code = "import sys, poolwright.kernels as k; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_extension_that_does_not_load_is_explained(monkeypatch):
    def broken(name):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    _native_build.load.cache_clear()
    monkeypatch.setattr(_native_build.importlib, "import_module", broken)
    try:
        info = kernels.build_info()
        assert info["native"] is False
        assert "libgomp" in info["reason"]
        with pytest.raises(RuntimeError, match="libgomp"):
            kernels.k_center(X, 1, backend="native")
    finally:
        _native_build.load.cache_clear()
