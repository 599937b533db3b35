"""k-means beside scikit-learn and the reference, and the traps of Lloyd's iterations."""

from __future__ import annotations

import ctypes
import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from poolwright import kernels
from poolwright.kernels import _lloyd, kmeans

from .conftest import select_level
from .pools import adversarial_pools

RNG = np.random.default_rng(11)
X = (RNG.standard_normal((1500, 12)) + 4 * RNG.integers(0, 3, (1500, 12))).astype(np.float32)


@pytest.fixture(params=["native", "faiss", "torch"])
def cluster(request):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    if request.param == "native" and not kernels.build_info()["native"]:
        pytest.skip("not built")
    return lambda *args, **options: kmeans(*args, backend=request.param, **options)


def inertia_of(x, result, weights=None) -> float:
    squared = ((np.asarray(x, np.float64) - np.asarray(result.centroids)[np.asarray(result.labels)]) ** 2).sum(1)
    return float((squared if weights is None else squared * weights).sum())


def test_the_same_start_gives_the_clusters_of_scikit_learn_and_of_the_reference(cluster):
    start = X[:20].copy()
    theirs = KMeans(20, init=start, n_init=1, max_iter=10, tol=0).fit(X)
    for result in (
        cluster(X, 20, init=start, iterations=10, tolerance=0),
        kmeans(X, 20, init=start, iterations=10, backend="reference"),
    ):
        assert (result.labels != theirs.labels_).mean() < 0.002
        assert result.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
        assert result.inertia == pytest.approx(inertia_of(X, result), rel=1e-5)
        np.testing.assert_array_equal(result.counts, np.bincount(result.labels))


def test_over_seeds_the_inertia_is_that_of_scikit_learn(cluster):
    ours = [cluster(X, 30, seed=seed, iterations=50).inertia for seed in range(8)]
    theirs = [
        KMeans(30, n_init=1, max_iter=50, init="k-means++", random_state=seed).fit(X).inertia_ for seed in range(8)
    ]
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def with_outlier(value) -> np.ndarray:
    return np.float32([[0.0], [1.0]] * 500 + [[value]])


@pytest.mark.parametrize("far", [1e3, 1e7, 1e11])
def test_the_inertia_never_rises(cluster, far):
    x = np.concatenate([X, X[:200] + np.float32(1000), X[:1] + np.float32(far)])
    results = [cluster(x, 40, seed=3, init="random", iterations=i, tolerance=0) for i in range(12)]
    inertias = [inertia_of(x, result) for result in results]
    assert [result.inertia for result in results] == pytest.approx(inertias, rel=1e-5)
    # What is computed in float64 may rise by the rounding of the float32 distances that were compared.
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(inertias))
    assert inertias[-1] < 0.9 * inertias[0]


@pytest.mark.parametrize("name", adversarial_pools())
def test_no_cluster_is_empty_and_labels_are_nearest(cluster, name):
    x = adversarial_pools()[name]
    distinct = len(np.unique(x, axis=0))
    result = cluster(x, min(20, len(x)))
    assert (result.counts > 0).all()
    assert result.counts.sum() == len(x)
    assert len(result.counts) == min(20, distinct)
    wide = x.astype(np.float64)
    squared = ((wide[:, None] - result.centroids[None].astype(np.float64)) ** 2).sum(2)
    chosen = squared[np.arange(len(x)), result.labels]
    assert (chosen <= squared.min(1) * (1 + 1e-5)).all()
    assert result.inertia == pytest.approx(chosen.sum(), rel=1e-5)


@pytest.mark.parametrize("far", [1e7, 1e11])
def test_an_outlier_takes_no_digits_from_the_others(cluster, far):
    x = with_outlier(far)
    for seed in range(5):
        result = cluster(x, 3, seed=seed)
        assert sorted(result.counts.tolist()) == [1, 500, 500]
        assert result.inertia == 0
    pair = cluster(x, 2, seed=1)
    assert sorted(pair.counts.tolist()) == [1, 1000]
    assert pair.inertia == pytest.approx(250)


def test_a_cluster_that_lost_an_outlier_has_exact_sums(cluster):
    x = np.concatenate([with_outlier(1e17), np.full((3, 1), 9e16, np.float32)])
    start = np.float32([[1e15], [0.25], [1e18]])
    result = cluster(x, 3, init=start, iterations=20, tolerance=0)
    assert result.inertia == pytest.approx(inertia_of(x, result), rel=1e-5)
    order = np.argsort(result.centroids[:, 0])
    assert result.counts[order].tolist() == [1000, 3, 1]
    assert result.centroids[order[0], 0] == 0.5


def test_a_cluster_without_points_moves_to_the_farthest_point(cluster):
    x = np.float32([[0], [1], [2], [50], [100]])
    result = cluster(x, 3, init=np.float32([[1], [-1e4], [-2e4]]), iterations=1)
    assert sorted(result.centroids[:, 0].tolist()) == pytest.approx([0, 30.6, 100])
    result = cluster(x, 3, init=np.float32([[1], [-1e4], [-2e4]]), iterations=0)
    assert (result.counts > 0).all()
    assert len(result.counts) == 3


def test_fewer_distinct_points_than_k_give_fewer_clusters(cluster):
    x = np.repeat(X[:4], 25, axis=0)
    for backend in (cluster, lambda *args: kmeans(*args, backend="reference")):
        result = backend(x, 9)
        assert sorted(result.counts.tolist()) == [25] * 4
        assert result.inertia == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(result.centroids[result.labels], x, atol=1e-5)


def test_equal_distances_go_to_the_lowest_cluster(cluster):
    x = np.float32([[0, 0], [2, 2], [-2, -2], [1, -1], [-1, 1]] * 40)
    labels = cluster(x, 2, init=np.float32([[1, 1], [-1, -1]]), iterations=0).labels
    assert labels[:5].tolist() == [0, 0, 1, 0, 0]
    search = _lloyd.ProductSearch(_lloyd.two_nearest_by_torch, torch.zeros(2))
    assert search(torch.zeros(9, 2), torch.ones(4, 2))[0].tolist() == [0] * 9


def test_faiss_gives_ties_to_the_lowest_too():
    faiss = pytest.importorskip("faiss")
    rows = torch.from_numpy(RNG.integers(-3, 4, (500, 6)).astype(np.float32))
    centroids = torch.from_numpy(RNG.integers(-3, 4, (64, 6)).astype(np.float32))
    found, _ = _lloyd.ProductSearch(_lloyd.FaissCpu(faiss), torch.zeros(6))(rows, centroids)
    squared = (rows[:, None] - centroids[None]).square().sum(2)
    assert torch.equal(found, (squared == squared.min(1, keepdim=True).values).long().argmax(1))


def test_backends_differ_in_the_search_alone(cluster):
    ours, theirs = kmeans(X, 25, seed=2, backend="torch"), cluster(X, 25, seed=2)
    assert ours.iterations == theirs.iterations
    assert np.array_equal(ours.labels, theirs.labels)
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)


def test_products_in_low_precision_find_the_same_labels():
    rows, centroids = torch.from_numpy(X), torch.from_numpy(X[::25].copy())
    search = _lloyd.ProductSearch(_lloyd.two_nearest_by_torch, torch.zeros(12))
    expected = search(rows, centroids)[0]

    def rounded(rows, centroids):
        return _lloyd.two_nearest_by_torch(rows.bfloat16().float(), centroids.bfloat16().float())

    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = _lloyd.ProductSearch(rounded, torch.zeros(12))(rows, centroids)[0]
    finally:
        torch.set_float32_matmul_precision(precision)
    assert not torch.equal(rounded(rows, centroids)[0], expected), "rounding decided nothing"
    assert torch.equal(found, expected)


def test_faiss_on_the_gpu_gets_rows_in_memory_order():
    seen = []

    class Params(SimpleNamespace):
        pass

    stub = SimpleNamespace(
        StandardGpuResources=lambda: SimpleNamespace(setTempMemory=seen.append),
        GpuDistanceParams=Params,
        METRIC_L2=1,
        IndicesDataType_I64=0,
        cast_integer_to_float_ptr=lambda pointer: pointer,
        cast_integer_to_idx_t_ptr=lambda pointer: pointer,
    )

    def search(resources, ask):
        def read(pointer, shape, kind):
            count = int(np.prod(shape))
            return np.ctypeslib.as_array((kind * count).from_address(pointer)).reshape(shape)

        assert ask.vectorsRowMajor
        assert ask.queriesRowMajor
        queries = read(ask.queries, (ask.numQueries, ask.dims), ctypes.c_float)
        vectors = read(ask.vectors, (ask.numVectors, ask.dims), ctypes.c_float)
        squared = ((queries[:, None] - vectors[None]) ** 2).sum(2)
        nearest = squared.argsort(1)[:, : ask.k]
        read(ask.outIndices, nearest.shape, ctypes.c_int64)[:] = nearest
        read(ask.outDistances, nearest.shape, ctypes.c_float)[:] = np.take_along_axis(squared, nearest, 1)

    stub.bfKnn = search
    rows, centroids = torch.from_numpy(np.asfortranarray(X)), torch.from_numpy(np.asfortranarray(X[::100]))
    labels, squared = _lloyd.FaissGpu(stub)._two_nearest(rows, centroids, 0)
    exact = torch.cdist(rows.double(), centroids.double()).square().topk(2, largest=False)
    assert torch.equal(labels[:, 0], exact.indices[:, 0])
    torch.testing.assert_close(squared.double(), exact.values, rtol=1e-5, atol=1e-5)
    assert seen, "the temporary memory is not bounded"


def test_more_than_2_to_the_24_points_of_a_cluster_are_counted():
    x = np.zeros((2**24 + 10, 1), np.float32)
    x[:4] = 1000
    result = kmeans(x, 2, init=np.float32([[0], [1000]]), iterations=1)
    assert result.counts.tolist() == [2**24 + 6, 4]
    assert result.centroids[:, 0].tolist() == [0, 1000]


def test_far_from_the_origin_clusters_are_still_told_apart(cluster):
    x = (RNG.integers(0, 2, (400, 1)) * 8 + RNG.standard_normal((400, 5)) + 1e4).astype(np.float32)
    result = cluster(x, 2)
    assert result.inertia == pytest.approx(KMeans(2, n_init=3).fit(x.astype(np.float64)).inertia_, rel=1e-3)


def test_weights_weigh_the_centroids_and_the_inertia(cluster):
    x, weights = np.float32([[0], [1], [10], [99]]), np.array([3, 1, 2, 0])
    result = cluster(x, 2, weights=weights)
    assert sorted(result.centroids[:, 0].tolist()) == [0.25, 10]
    assert result.inertia == pytest.approx(3 / 16 + 9 / 16)
    repeated = cluster(np.repeat(X, 2, axis=0), 10, init=X[:10], iterations=5)
    weighted = cluster(X, 10, init=X[:10], iterations=5, weights=np.full(len(X), 2.0))
    assert weighted.inertia == pytest.approx(repeated.inertia, rel=1e-6)


def test_all_points_are_used_unless_a_subsample_is_asked_for(cluster, monkeypatch):
    seen = []
    init = _lloyd.Lloyd.__init__
    monkeypatch.setattr(_lloyd.Lloyd, "__init__", lambda self, m, *rest: (seen.append(m.n), init(self, m, *rest))[1])
    cluster(X, 2)
    assert seen == [len(X)]
    result = cluster(X, 2, subsample=50)
    assert seen == [len(X), 100, len(X)]
    assert len(result.labels) == result.counts.sum() == len(X)
    assert result.inertia == pytest.approx(inertia_of(X, result), rel=1e-5)


class Rows:
    def __init__(self, x):
        self._x, self.shape = torch.as_tensor(x), x.shape

    def __getitem__(self, rows):
        return self._x[rows].clone()

    def blocks(self):
        yield 0, self._x


@pytest.mark.parametrize("form", ["memmap", "fortran", "float64", "float16", "bfloat16", "grad", "rows", "read-only"])
def test_every_form_of_a_matrix_is_clustered_alike_and_in_blocks(cluster, form, tmp_path):
    x = np.round(X * 4) / 4  # exact in bfloat16
    np.save(tmp_path / "x.npy", x)
    read_only = x.copy()
    read_only.flags.writeable = False
    given = {
        "memmap": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "fortran": np.asfortranarray(x),
        "float64": x.astype(np.float64),
        "float16": x.astype(np.float16),
        "bfloat16": torch.from_numpy(x).bfloat16(),
        "grad": torch.from_numpy(x).requires_grad_(),
        "rows": Rows(x),
        "read-only": read_only,
    }[form]
    whole = cluster(x, 15, seed=1)
    result = cluster(given, 15, seed=1, memory_limit=len(x) * 48 + 100_000)
    assert (np.asarray(result.labels) == whole.labels).mean() > 0.998
    assert result.inertia == pytest.approx(whole.inertia, rel=1e-5)
    assert isinstance(result.labels, np.ndarray if isinstance(given, np.ndarray) else torch.Tensor)


def test_the_same_seed_gives_the_same_result(cluster):
    first, again, other = (cluster(X, 15, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.labels, other.labels)


def test_sums_are_the_same_without_atomic_additions():
    rows, labels = torch.from_numpy(X), torch.from_numpy(RNG.integers(0, 7, len(X)))
    labels[labels == 3] = 2
    torch.testing.assert_close(
        _lloyd.sums_by_label(rows.double(), labels, 9), _lloyd.sums_of_segments(rows.double(), labels, 9)
    )


def test_k_of_n_and_one_row(cluster):
    assert cluster(X[:40], 40).inertia == pytest.approx(0, abs=1e-4)
    assert cluster(X[:1], 1).labels.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "1 to 1500 clusters"),
        ({"k": 1501}, ValueError, "1 to 1500 clusters"),
        ({"k": 2.5}, TypeError, "integer"),
        ({"iterations": -1}, ValueError, "iterations must not be negative"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        ({"subsample": 0}, ValueError, "subsample"),
        ({"init": "farthest"}, ValueError, "init must be"),
        ({"init": X[:4]}, ValueError, r"init must be \(3, 12\)"),
        ({"init": np.full((3, 12), np.nan)}, ValueError, "init holds NaN"),
        ({"init": np.full((3, 12), 1e30)}, ValueError, "init holds values above.*overflow"),
        ({"init": np.full((3, 12), 1e200)}, ValueError, "init holds values above.*overflow"),
        ({"x": X[:0]}, ValueError, "x has no rows"),
        ({"x": X[0]}, ValueError, "x must be a matrix"),
        ({"memory_limit": "1GB"}, TypeError, "memory_limit must be an integer"),
        ({"memory_limit": 2e5}, TypeError, "memory_limit must be an integer"),
        ({"memory_limit": 1500 * 46 + 3 * 64 * 12}, ValueError, "memory_limit = .* is too little"),
        ({"k": 2, "subsample": 300, "memory_limit": 1500 * 46 + 40_000}, ValueError, "lower subsample"),
        ({"weights": np.ones(3)}, ValueError, "one number a row"),
        ({"weights": -np.ones(1500)}, ValueError, "1500 weights are negative.*row 0"),
        ({"weights": np.arange(1500) < 2}, ValueError, "only 2 points have a positive weight"),
        ({"memory_limit": 1000}, ValueError, "too little"),
        ({"backend": "sklearn"}, ValueError, "backend must be"),
        ({"x": np.where(X > 9, np.nan, X)}, ValueError, "rows of x with NaN"),
    ],
)
def test_wrong_input_is_refused_with_a_way_out(options, error, message):
    with pytest.raises(error, match=message):
        kmeans(**{"x": X, "k": 3, **options})


@pytest.fixture
def slow_level(monkeypatch):
    """A CPU whose native search is not the fastest."""
    if kernels.build_info()["native"]:
        monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", "base")


def test_without_faiss_auto_falls_back_to_torch_and_the_name_raises(monkeypatch, slow_level):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert kmeans(X, 5).inertia == kmeans(X, 5, backend="torch").inertia
    with pytest.raises(RuntimeError, match=r"poolwright\[faiss\]"):
        kmeans(X, 5, backend="faiss")


def test_a_faiss_that_does_not_load_is_named(monkeypatch, slow_level, tmp_path, caplog):
    (tmp_path / "faiss.py").write_text("raise ImportError('libcublas.so is missing')")
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level("INFO", logger="poolwright.kernels"):
        assert kmeans(X, 5).inertia == kmeans(X, 5, backend="torch").inertia
    assert "backend torch, since FAISS does not load: libcublas.so is missing" in caplog.text
    with pytest.raises(RuntimeError, match="libcublas"):
        kmeans(X, 5, backend="faiss")


def test_auto_takes_the_native_search_where_it_is_fast(monkeypatch):
    select_level("avx512", monkeypatch)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(_lloyd, "two_nearest_by_torch", None)
    assert np.array_equal(kmeans(X, 5).labels, kmeans(X, 5, backend="native").labels)


def test_the_reference_tells_how_many_updates_it_did():
    result = kmeans(X[:60], 3, iterations=500, backend="reference")
    assert 0 < result.iterations < 100
    assert kmeans(X[:60], 3, iterations=result.iterations, backend="reference").inertia == result.inertia
