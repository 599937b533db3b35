"""k-means beside scikit-learn and the reference, and the traps of Lloyd's iterations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from poolwright import kernels
from poolwright.kernels import _lloyd, kmeans

from .pools import adversarial_pools

RNG = np.random.default_rng(11)
X = (RNG.standard_normal((1500, 12)) + 4 * RNG.integers(0, 3, (1500, 12))).astype(np.float32)


@pytest.fixture(params=["faiss", "torch"])
def cluster(request):
    if request.param == "faiss":
        pytest.importorskip("faiss")
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


def test_the_inertia_never_rises(cluster):
    x = np.concatenate([X, X[:200] + 1000])
    inertias = [cluster(x, 40, seed=3, init="random", iterations=i, tolerance=0).inertia for i in range(12)]
    assert all(after <= before for before, after in itertools.pairwise(inertias))
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
    # float32 products around the mean are off by some 1e-6 of the squared spread.
    assert (chosen <= squared.min(1) * (1 + 1e-4) + 1e-5 * wide.var(0).sum() + 1e-5 * squared.max(1)).all()


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
    assert _lloyd.nearest_by_torch(torch.zeros(9, 2), torch.ones(4, 2)).tolist() == [0] * 9


def test_faiss_gives_ties_to_the_lowest_too():
    faiss = pytest.importorskip("faiss")
    rows = torch.from_numpy(RNG.integers(-3, 4, (500, 6)).astype(np.float32))
    centroids = torch.from_numpy(RNG.integers(-3, 4, (64, 6)).astype(np.float32))
    found = _lloyd.FaissCpu(faiss)(rows, centroids)
    squared = (rows[:, None] - centroids[None]).square().sum(2)
    assert torch.equal(found, (squared == squared.min(1, keepdim=True).values).long().argmax(1))


def test_faiss_and_torch_differ_in_the_search_alone():
    pytest.importorskip("faiss")
    ours, theirs = (kmeans(X, 25, seed=2, backend=backend) for backend in ("torch", "faiss"))
    assert ours.iterations == theirs.iterations
    assert (ours.labels == theirs.labels).mean() > 0.998
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)


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
        _lloyd.sums_by_label(rows, labels, None, 9), _lloyd.sums_of_segments(rows.double(), labels, 9)
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


def test_without_faiss_auto_falls_back_to_torch_and_the_name_raises(monkeypatch):
    monkeypatch.setattr(kernels.kmeans.__globals__["importlib"].util, "find_spec", lambda name: None)
    assert kmeans(X, 5).inertia == kmeans(X, 5, backend="torch").inertia
    with pytest.raises(RuntimeError, match=r"poolwright\[faiss\]"):
        kmeans(X, 5, backend="faiss")
