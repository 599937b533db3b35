"""Exact transport: against POT, a linear program and closed forms, on every level and backend."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from poolwright import kernels
from poolwright.kernels import reference, wasserstein

from .point_sets import DIMENSIONS, emd, ragged, random_weights

KINDS = ["gaussian", "grid", "duplicates", "far", "near"]
BACKENDS = ["native", "torch", "pot"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "native" and not kernels.build_info()["native"]:
        pytest.skip(kernels.build_info()["reason"])
    if request.param != "native":
        pytest.importorskip("ot")
    return request.param


def check(got, expected):
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("kind", KINDS)
def test_native_agrees_with_pot(level, kind, equal):
    rng = np.random.default_rng(KINDS.index(kind))
    for d in DIMENSIONS:
        xs, ys = ragged(rng, 6, d, kind=kind, equal=equal)
        got = wasserstein(xs, ys, method="exact", backend="native")
        check(got, [emd(x, y) for x, y in zip(xs, ys, strict=True)])


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_native_agrees_with_pot_for_every_power_and_any_weights(level, p):
    rng = np.random.default_rng(7)
    for d in (1, 2, 40):
        xs, ys = ragged(rng, 8, d)
        a, b = random_weights(rng, xs), random_weights(rng, ys)
        got = wasserstein(xs, ys, p=p, backend="native", x_weights=a, y_weights=b)
        check(got, [emd(*pair[:2], p, *pair[2:]) for pair in zip(xs, ys, a, b, strict=True)])


@pytest.mark.parametrize("p", [8, 32])
def test_high_powers_neither_overflow_nor_lose_to_pot(native, p):
    # Costs span so many orders of magnitude that POT stops early.
    rng = np.random.default_rng(7)
    xs, ys = ragged(rng, 20, 5)
    got = wasserstein(xs, ys, p=p)
    assert (got >= wasserstein(xs, ys, p=3)).all()
    assert (got <= np.array([emd(x, y, p) for x, y in zip(xs, ys, strict=True)]) * (1 + 1e-5)).all()
    farthest = [np.linalg.norm(x[:, None] - y, axis=2).max() for x, y in zip(xs, ys, strict=True)]
    assert (got <= np.array(farthest) * (1 + 1e-6)).all()


def test_every_backend_agrees_with_the_linear_program(backend):
    rng = np.random.default_rng(1)
    for kind in KINDS:
        for d in (1, 5):
            xs, ys = ragged(rng, 3, d, largest=12, kind=kind)
            a, b = random_weights(rng, xs), random_weights(rng, ys)
            got = wasserstein(xs, ys, backend=backend, x_weights=a, y_weights=b)
            expected = wasserstein(xs, ys, backend="reference", x_weights=a, y_weights=b)
            assert got == pytest.approx(expected, rel=1e-5, abs=1e-7)
            assert wasserstein(xs, ys, backend=backend, p=1) == pytest.approx(
                [
                    reference.wasserstein(torch.from_numpy(x), torch.from_numpy(y), p=1)
                    for x, y in zip(xs, ys, strict=True)
                ],
                rel=1e-5,
                abs=1e-7,
            )


@pytest.mark.parametrize("sizes", [(300, 300), (300, 210)])
def test_larger_problems_agree_with_pot(native, sizes):
    rng = np.random.default_rng(5)
    for d in (2, 64):
        x, y = (rng.standard_normal((n, d)).astype(np.float32) for n in sizes)
        check(wasserstein(x, y, backend="native"), emd(x, y))


def test_long_augmenting_paths_are_left_to_the_simplex_method(level):
    # A turned and stretched copy in the plane: nearly every path runs through nearly every row.
    x = np.random.default_rng(18).standard_normal((400, 2)).astype(np.float32)
    y = x + 1 + np.float32(0.1) * x[:, ::-1]
    check(wasserstein(x, y, backend="native"), emd(x, y))


@pytest.mark.slow
def test_many_random_ragged_problems_agree_with_pot(native):
    rng = np.random.default_rng(11)
    for trial in range(300):
        d = int(rng.choice(DIMENSIONS))
        xs, ys = ragged(rng, 10, d, largest=80, kind=KINDS[trial % 5], equal=trial % 2 == 0)
        check(wasserstein(xs, ys, backend="native"), [emd(x, y) for x, y in zip(xs, ys, strict=True)])


def test_a_set_is_at_zero_from_itself_in_any_order(backend):
    rng = np.random.default_rng(2)
    for d in (1, 2, 512):
        x = rng.standard_normal((50, d)).astype(np.float32)
        x[:5] = x[0]
        assert wasserstein(x, x, backend=backend) == 0.0
        if backend != "pot":  # which sums rounding errors of its own
            assert wasserstein(x, x[rng.permutation(50)], backend=backend) == 0.0


def test_a_translation_moves_by_its_length(backend):
    rng = np.random.default_rng(3)
    for d in (1, 3, 300):
        x, t = rng.integers(-50, 50, (40, d)), rng.integers(-50, 50, d)
        x = x.astype(np.float32)
        assert wasserstein(x, x + t.astype(np.float32), backend=backend) == pytest.approx(np.linalg.norm(t), rel=1e-6)


def test_order_of_arguments_and_points_does_not_matter(backend):
    rng = np.random.default_rng(4)
    xs, ys = ragged(rng, 10, 6)
    forward = wasserstein(xs, ys, backend=backend)
    assert wasserstein(ys, xs, backend=backend) == pytest.approx(forward, rel=1e-9)
    shuffled = [x[rng.permutation(len(x))] for x in xs]
    assert wasserstein(shuffled, ys, backend=backend) == pytest.approx(forward, rel=1e-9)


def test_the_triangle_inequality_holds(native):
    rng = np.random.default_rng(6)
    for p in (1, 2, 4):
        xs, ys = ragged(rng, 30, 3)
        _, zs = ragged(rng, 30, 3, kind="grid")
        direct = wasserstein(xs, zs, p=p)
        assert (direct <= (wasserstein(xs, ys, p=p) + wasserstein(ys, zs, p=p)) * (1 + 1e-7)).all()


@pytest.mark.parametrize("p", [1, 2, 5])
def test_on_a_line_sorted_points_are_matched(backend, p):
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, 101, 1)).astype(np.float32)
    expected = (np.abs(np.sort(x[:, 0]).astype(np.float64) - np.sort(y[:, 0])) ** p).mean() ** (1 / p)
    assert wasserstein(x, y, p=p, backend=backend) == pytest.approx(expected, rel=1e-9)


def test_integer_weights_are_repeated_points(backend):
    rng = np.random.default_rng(9)
    for d in (1, 4):
        x, y = rng.standard_normal((9, d)).astype(np.float32), rng.standard_normal((7, d)).astype(np.float32)
        a, b = rng.integers(0, 4, 9), rng.integers(1, 4, 7)
        got = wasserstein(x, y, x_weights=a, y_weights=b * 1e-30, backend=backend)
        assert got == pytest.approx(emd(np.repeat(x, a, axis=0), np.repeat(y, b, axis=0)), rel=1e-6)


def test_weights_of_any_scale_and_spread_are_legal(native):
    rng = np.random.default_rng(10)
    x, y = rng.standard_normal((2, 30, 3)).astype(np.float32)
    for a in (np.full(30, 1e300), np.logspace(-300, 0, 30), np.r_[np.full(29, 1e-17), 1.0], np.eye(30)[4]):
        check(wasserstein(x, y, x_weights=a), emd(x, y, a=a / a.max()))


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e6, 1e18])
def test_the_scale_of_the_points_scales_the_distance(native, scale):
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((20, 8)), rng.standard_normal((14, 8))
    factor = 2.0 ** np.round(np.log2(scale))
    for dtype in (np.float32, np.float64):
        plain = wasserstein(x.astype(dtype), y.astype(dtype))
        scaled = wasserstein((x.astype(dtype) * factor).astype(dtype), (y.astype(dtype) * factor).astype(dtype))
        assert scaled == pytest.approx(plain * factor, rel=1e-6)


def test_float64_points_are_told_apart_where_float32_would_not(native):
    rng = np.random.default_rng(13)
    x, y = 1e6 + 1e-4 * rng.standard_normal((2, 25, 4))
    check(wasserstein(x, y), emd(x - 1e6, y - 1e6))
    check(wasserstein(x, y[:9]), emd(x - 1e6, y[:9] - 1e6))


def test_levels_agree_and_threads_change_no_bit(native, monkeypatch):
    rng = np.random.default_rng(14)
    xs, ys = ragged(rng, 60, 33)
    weights = random_weights(rng, xs)
    results = []
    for name in kernels.build_info()["levels"]:
        monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", name)
        before = torch.get_num_threads()
        runs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            runs.append(wasserstein(xs, ys, x_weights=weights))
        torch.set_num_threads(before)
        assert all(np.array_equal(runs[0], other) for other in runs)
        results.append(runs[0])
    for one, other in pairwise(results):
        assert one == pytest.approx(other, rel=1e-7)


def test_one_large_pair_shares_its_costs_between_threads(native):
    rng = np.random.default_rng(15)
    x, y = rng.standard_normal((2, 333, 70)).astype(np.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(wasserstein(x, y))
    torch.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 30), (30, 1), (2, 3), (16, 17), (31, 32)])
def test_every_shape_of_a_problem_is_solved(level, sizes):
    rng = np.random.default_rng(16)
    for d in (2, 31, 33):
        x, y = (rng.standard_normal((n, d)).astype(np.float32) for n in sizes)
        check(wasserstein(x, y, backend="native"), emd(x, y))


def test_equal_points_everywhere_cost_nothing_or_their_distance(native):
    for n, m in ((20, 20), (20, 13)):
        assert wasserstein(np.ones((n, 3), np.float32), np.ones((m, 3), np.float32)) == 0.0
        assert wasserstein(np.ones((n, 4), np.float32), np.zeros((m, 4), np.float32)) == pytest.approx(2.0, rel=1e-12)
