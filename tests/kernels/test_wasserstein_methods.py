"""Sinkhorn's certificates, the Gaussian closed form, sliced distances, and what `auto` chooses."""

import importlib

import numpy as np
import pytest
import torch

from poolwright.kernels import _wasserstein_exact, wasserstein

from .point_sets import DIMENSIONS, emd, ragged, random_weights

# The function of the same name hides the module.
MODULE = importlib.import_module("poolwright.kernels.wasserstein")

KINDS = ["gaussian", "grid", "duplicates", "near"]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_sinkhorn_bounds_hold(kind, p):
    rng = np.random.default_rng(0)
    for d in DIMENSIONS:
        xs, ys = ragged(rng, 8, d, largest=25, kind=kind)
        for a, b in ((None, None), (random_weights(rng, xs), random_weights(rng, ys))):
            found = wasserstein(xs, ys, p=p, method="sinkhorn", x_weights=a, y_weights=b, bounds=True)
            nothing = [None] * len(xs)
            exact = [emd(x, y, p, v, w) for x, y, v, w in zip(xs, ys, a or nothing, b or nothing, strict=True)]
            assert (found.lower <= np.array(exact) * (1 + 1e-12)).all()
            assert (found.upper >= np.array(exact) * (1 - 1e-12)).all()
            assert np.array_equal(found.distance, found.upper)
            assert set(found.method) == {"sinkhorn"}


def test_sinkhorn_bounds_hold_where_it_was_stopped_early():
    rng = np.random.default_rng(1)
    xs, ys = ragged(rng, 20, 3)
    found = wasserstein(xs, ys, method="sinkhorn", epsilon=1e-4, tolerance=1e-9, max_iterations=1, bounds=True)
    exact = np.array([emd(x, y) for x, y in zip(xs, ys, strict=True)])
    assert not found.converged.all()
    assert (found.lower <= exact * (1 + 1e-9)).all()
    assert (found.upper >= exact * (1 - 1e-9)).all()


def test_sinkhorn_comes_closer_with_a_smaller_epsilon():
    rng = np.random.default_rng(2)
    xs, ys = ragged(rng, 12, 20)
    exact = np.array([emd(x, y) for x, y in zip(xs, ys, strict=True)])
    errors, gaps = [], []
    for epsilon in (0.1, 0.01, 0.001):
        found = wasserstein(xs, ys, method="sinkhorn", epsilon=epsilon, max_iterations=20000, bounds=True)
        assert found.converged.all()
        errors.append((found.distance / exact - 1).max())
        gaps.append((found.upper - found.lower).max())
    assert errors[0] > errors[1] > errors[2]
    assert gaps[0] > gaps[1] > gaps[2]
    assert errors[2] < 2e-3


def test_sinkhorn_gives_a_pair_the_same_result_in_any_company():
    rng = np.random.default_rng(3)
    xs, ys = ragged(rng, 30, 7, largest=60)
    together = wasserstein(xs, ys, method="sinkhorn")
    alone = [wasserstein(x, y, method="sinkhorn") for x, y in zip(xs, ys, strict=True)]
    assert together == pytest.approx(alone, rel=1e-6)
    little = wasserstein(xs, ys, method="sinkhorn", memory_limit=1 << 19)
    assert little == pytest.approx(alone, rel=1e-6)


def test_the_limit_of_sinkhorn_names_the_pair():
    sets = [np.zeros((3, 2), np.float32), np.ones((200, 2), np.float32)]
    with pytest.raises(ValueError, match=r"memory_limit = 100000 .*pair 1 \(200 and 200 points\)"):
        wasserstein(sets, [points + 1 for points in sets], method="sinkhorn", memory_limit=100_000)


@pytest.mark.parametrize("shape", [(5, 7, 40), (40, 30, 6), (4, 50, 10), (50, 4, 10), (1, 1, 3), (6, 6, 6)])
def test_gaussian_agrees_with_the_closed_form(shape):
    n, m, d = shape
    rng = np.random.default_rng(4)
    xs = [rng.standard_normal((n, d)) * 3 for _ in range(4)]
    ys = [rng.standard_normal((m, d)) + 1 for _ in range(4)]
    a, b = random_weights(rng, xs), random_weights(rng, ys)
    for weights in ({}, {"x_weights": a, "y_weights": b}):
        got = wasserstein(xs, ys, method="gaussian", **weights)
        expected = wasserstein(xs, ys, method="gaussian", backend="reference", **weights)
        assert got == pytest.approx(expected, rel=1e-6)


def test_gaussian_agrees_with_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((80, 5)), rng.standard_normal((70, 5)) * 2 + 1
    expected = ot.gaussian.empirical_bures_wasserstein_distance(x, y, reg=0)
    assert wasserstein(x, y, method="gaussian") == pytest.approx(float(expected), rel=1e-6)


def test_gaussian_is_never_nan_and_exact_near_zero():
    rng = np.random.default_rng(6)
    for n, d in ((1, 1), (2, 50), (10, 500), (500, 10), (20, 20)):
        x = rng.standard_normal((n, d))
        tiny = 1e-7 * rng.standard_normal(d)
        for y, expected in ((x.copy(), 0), (x[rng.permutation(n)], 0), (x + tiny, np.linalg.norm(tiny))):
            got = wasserstein(x, y, method="gaussian")
            assert np.isfinite(got)
            assert got == pytest.approx(expected, rel=1e-5, abs=1e-12)
        scaled = np.linalg.norm(x - x.mean(0)) / np.sqrt(n)  # W(x, (1 + s) x) = s * spread for centered x
        centered = x - x.mean(0)
        assert wasserstein(centered, 1.001 * centered, method="gaussian") == pytest.approx(1e-3 * scaled, rel=1e-6)


def test_gaussian_and_independent_couplings_bound_the_exact_distance():
    rng = np.random.default_rng(7)
    xs, ys = ragged(rng, 30, 4)
    found = wasserstein(xs, ys, method="gaussian", bounds=True)
    exact = np.array([emd(x, y) for x, y in zip(xs, ys, strict=True)])
    assert (found.lower <= exact * (1 + 1e-9)).all()
    assert (found.upper >= exact * (1 - 1e-9)).all()


def test_sliced_is_seeded_ranks_shifts_and_stays_below_the_exact_distance():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((60, 64)).astype(np.float32)
    ys = [rng.standard_normal((45, 64)).astype(np.float32) + shift for shift in (0.0, 0.3, 0.6, 1.2)]
    got = wasserstein([x] * 4, ys, method="sliced", seed=1)
    assert np.array_equal(got, wasserstein([x] * 4, ys, method="sliced", seed=1))
    assert not np.array_equal(got, wasserstein([x] * 4, ys, method="sliced", seed=2))
    assert (np.diff(got) > 0).all()
    assert (got <= [emd(x, y) for y in ys]).all()
    assert wasserstein([x] * 4, ys, method="sliced", seed=1, memory_limit=250_000) == pytest.approx(got, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sliced_on_a_line_is_exact_for_any_weights(p):
    rng = np.random.default_rng(9)
    xs, ys = ragged(rng, 20, 1)
    a, b = random_weights(rng, xs), random_weights(rng, ys)
    got = wasserstein(xs, ys, p=p, method="sliced", x_weights=a, y_weights=b)
    assert got == pytest.approx(wasserstein(xs, ys, p=p, method="exact", x_weights=a, y_weights=b), rel=1e-6)


def test_auto_is_exact_where_the_costs_fit_and_says_what_it_used():
    rng = np.random.default_rng(10)
    xs = [rng.standard_normal((n, 3)).astype(np.float32) for n in (5, 400, 1)]
    found = wasserstein(xs, xs[::-1], bounds=True)
    assert found.method == ("exact", "exact", "exact")
    assert (found.lower <= found.upper).all()
    assert found.lower == pytest.approx(found.upper, rel=1e-5)
    assert found.converged.all()
    assert wasserstein(xs[0], xs[1], bounds=True).method == "exact"


def test_auto_falls_back_to_sinkhorn_by_pair(monkeypatch):
    monkeypatch.setattr(MODULE, "_EXACT_ENTRIES", {"cpu": 100, "cuda": 100})
    rng = np.random.default_rng(11)
    xs = [rng.standard_normal((n, d)).astype(np.float32) for n, d in ((5, 3), (20, 3), (30, 1))]
    found = wasserstein(xs, xs[::1], bounds=True)
    assert found.method == ("exact", "sinkhorn", "exact")
    ys = [x + 1 for x in xs]
    found = wasserstein(xs, ys, bounds=True)
    assert found.distance[[0, 2]] == pytest.approx([np.sqrt(3), 1], rel=1e-6)
    assert found.lower[1] <= np.sqrt(3) * (1 + 1e-9)
    assert found.upper[1] >= np.sqrt(3) * (1 - 1e-9)


@pytest.mark.parametrize("method", ["exact", "sinkhorn", "gaussian"])
def test_a_set_is_at_zero_from_itself(method):
    x = np.random.default_rng(12).standard_normal((20, 6)).astype(np.float32)
    assert wasserstein(x, x, method=method) == 0.0
    assert wasserstein([x], [x], method=method, x_weights=[np.arange(20)], y_weights=[np.arange(20)[::-1]])[0] > 0


def test_exact_without_the_extension_uses_scipy_and_pot(monkeypatch):

    monkeypatch.setattr(MODULE, "load", lambda: (None, "not built"))
    rng = np.random.default_rng(13)
    x, y, z = (rng.standard_normal((n, 4)).astype(np.float32) for n in (20, 20, 15))
    got = wasserstein([x, x], [y, z])
    assert got == pytest.approx([emd(x, y), emd(x, z)], rel=1e-6)
    with pytest.raises(RuntimeError, match='backend="native" is not there: not built'):
        wasserstein(x, y, backend="native")
    for place in (MODULE, _wasserstein_exact):
        monkeypatch.setattr(place, "pot_missing", lambda: "POT does not import: pip install pot")
    assert wasserstein(x, y) == pytest.approx(emd(x, y), rel=1e-6)
    assert wasserstein([x, x], [y, z], bounds=True).method == ("exact", "sinkhorn")
    with pytest.raises(RuntimeError, match=r"pair 1 has unequal sizes.*pip install pot"):
        wasserstein([x, x], [y, z], method="exact")


def test_cuda_is_refused_by_name_without_its_points():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match='backend="cuda" needs points on a CUDA device'):
        wasserstein(x, x + 1, backend="cuda")
