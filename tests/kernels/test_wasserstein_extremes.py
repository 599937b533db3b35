"""Transport where numbers are far apart, tiny, huge or many: rounding must not show."""

import numpy as np
import pytest
import torch

from poolwright.kernels import build_info, wasserstein

from .point_sets import emd

INFO = build_info()


def test_many_points_of_equal_weight_weigh_the_same(native):
    n = 99801  # 2^43 / n rounds badly: half a unit a point, all of one sign
    x = np.zeros((n, 2), np.float32)
    x[0] = 1e6
    assert wasserstein(x, np.zeros((10, 2), np.float32), method="exact") == pytest.approx(
        1e6 * np.sqrt(2 / n), rel=1e-7
    )


@pytest.mark.slow
def test_millions_of_points_keep_a_positive_weight(native):
    x = np.zeros((2097148, 2), np.float32)
    x[0] = 1e6
    got = wasserstein(x, np.zeros((2, 2), np.float32), method="exact")
    assert got == pytest.approx(1e6 * np.sqrt(2 / len(x)), rel=1e-5)


@pytest.mark.parametrize("far", [1e6, 1e11])
def test_a_far_point_on_the_line_does_not_hide_a_near_one(native, far):
    x, y = np.array([[0.0], [far]]), np.array([[1.0], [far + 1]])
    assert wasserstein(x, y, p=32, method="exact") == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-25, 1e-37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_that_are_tiny_beside_the_coordinates_count(native, scale, dtype):
    s = dtype(scale)
    x = np.array([[1, 0], [1, s], [1, 2 * s]], dtype)
    y = np.array([[1, 5 * s], [1, 7 * s], [1, 9 * s]], dtype)
    assert wasserstein(x, y, method="exact") == pytest.approx(np.sqrt((25 + 36 + 49) / 3) * scale, rel=1e-6)
    assert wasserstein(x, y[:2], method="exact", p=1) == pytest.approx(5 * scale, rel=1e-6)
    assert wasserstein(x, y[:1], method="exact") == pytest.approx(np.sqrt((25 + 16 + 9) / 3) * scale, rel=1e-6)


def test_one_huge_pair_among_small_ones_fits_a_limit_of_its_own_size(native):
    rng = np.random.default_rng(1)
    xs = [rng.standard_normal((n, 3)).astype(np.float32) for n in (20, 200, 20, 100, 30, 20)]
    ys = [rng.standard_normal((n, 3)).astype(np.float32) for n in (20, 180, 10, 100, 20, 30)]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        got = wasserstein(xs, ys, method="exact", memory_limit=native.transport_bytes(200, 180, 3))
    finally:
        torch.set_num_threads(before)
    assert got == pytest.approx([emd(x, y) for x, y in zip(xs, ys, strict=True)], rel=1e-5)


def test_results_do_not_depend_on_flush_to_zero(native):
    x = np.full((4, 2), 1e-40, np.float32)
    y = np.zeros((4, 2), np.float32)
    expected = wasserstein(x, y, method="exact")
    assert expected == pytest.approx(np.sqrt(2) * 1e-40, rel=1e-4)
    assert torch.set_flush_denormal(True)
    try:
        got = wasserstein(x, y, method="exact")
    finally:
        torch.set_flush_denormal(False)
    assert got == expected


@pytest.mark.parametrize(("p", "far"), [(2, 1e9), (4, 1e5), (8, 1e3)])
def test_plans_are_optimal_where_costs_span_more_than_float32_tells_apart(native, p, far):
    scipy_optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 40, 2))
    x[20:, 0] += far
    y[20:, 0] += far
    near = [np.linalg.norm(a[:, None] - b, axis=2) ** p for a, b in ((x[:20], y[:20]), (x[20:], y[20:]))]
    rows = [cost[scipy_optimize.linear_sum_assignment(cost)] for cost in near]
    expected = (np.concatenate(rows).mean()) ** (1 / p)
    found = wasserstein(x, y, p=p, method="exact", bounds=True)
    assert found.distance == pytest.approx(expected, rel=1e-5)
    assert found.lower <= expected <= found.upper * (1 + 1e-6)


@pytest.mark.parametrize("method", ["sinkhorn", "gaussian", "sliced"])
def test_no_lower_bound_is_above_a_translation_or_a_permutation(method):
    rng = np.random.default_rng(3)
    for d in (2, 30):
        x = rng.standard_normal((60, d))
        assert wasserstein(x, x[::-1], method=method, bounds=True).lower == 0
        found = wasserstein(x, x + 1e-7, method=method, bounds=True)
        assert found.lower <= 1e-7 * np.sqrt(d) * (1 + 1e-8)
        assert found.upper >= 1e-7 * np.sqrt(d) * (1 - 1e-8)


@pytest.mark.parametrize(
    ("method", "options", "scale", "dtype"),
    [
        ("sinkhorn", {}, 1e154, np.float64),
        ("sinkhorn", {"p": 32}, 1e10, np.float32),
        ("sinkhorn", {"epsilon": 1e-310, "max_iterations": 20}, 1.0, np.float64),
        ("sliced", {"p": 32}, 1e10, np.float32),
        ("sliced", {}, 1e160, np.float64),
        ("sliced", {}, 1e-300, np.float64),
        ("gaussian", {}, 1e154, np.float64),
        ("gaussian", {}, 1e-300, np.float64),
    ],
)
def test_finite_points_of_any_scale_give_the_scaled_distance(method, options, scale, dtype):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((20, 3)).astype(np.float32), rng.standard_normal((15, 3)).astype(np.float32)
    factor = 2.0 ** np.round(np.log2(scale))
    plain = wasserstein(x.astype(dtype), y.astype(dtype), method=method, bounds=True, **options)
    found = wasserstein(
        (x.astype(dtype) * factor).astype(dtype),
        (y.astype(dtype) * factor).astype(dtype),
        method=method,
        bounds=True,
        **options,
    )
    assert np.isfinite(plain.distance)
    assert found.distance == pytest.approx(plain.distance * factor, rel=1e-9)
    assert found.lower == pytest.approx(plain.lower * factor, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "backend"),
    [("gaussian", "auto"), ("gaussian", "reference"), ("sliced", "auto"), ("exact", "reference")],
)
def test_every_method_keeps_the_limit(method, backend):
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=r"memory_limit = 100 bytes is too little for pair 0 \(4 and 4 points\)"):
        wasserstein(x, x + 1, method=method, backend=backend, memory_limit=100)


def test_the_limit_of_auto_names_what_exact_needs(native):
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=r'at least \d+ are needed \(method="exact": \d+\)'):
        wasserstein(x, x + 1, memory_limit=100)


@pytest.mark.parametrize("method", ["exact", "sinkhorn", "sliced", "gaussian"])
def test_a_set_with_a_weightless_point_is_at_zero_from_itself(method):
    x = np.random.default_rng(5).standard_normal((12, 3)).astype(np.float32)
    weights = np.r_[0, np.ones(11)]
    assert wasserstein(x, x, method=method, x_weights=weights, y_weights=weights) == 0
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="pair 0: x holds NaN"):
        wasserstein(x, x, method=method, x_weights=weights, y_weights=weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [("p", "2"), ("projections", 2.5), ("memory_limit", 1e9), ("seed", "a"), ("epsilon", None), ("tolerance", "x")],
)
def test_options_of_another_type_are_named(name, value):
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(TypeError, match=f"{name} must be"):
        wasserstein(x, x + 1, **{name: value})


@pytest.mark.skipif(not (INFO["cuda"] and torch.cuda.is_available()), reason="needs CUDA kernels and a device")
def test_float64_points_on_cuda_are_not_narrowed():
    rng = np.random.default_rng(6)
    x, y = (torch.from_numpy(1e6 + 1e-4 * rng.standard_normal((25, 4))).cuda() for _ in range(2))
    found = wasserstein(x, y, method="sinkhorn", bounds=True)
    exact = emd(x.cpu().numpy() - 1e6, y.cpu().numpy() - 1e6)
    assert float(found.lower) <= exact * (1 + 1e-6)
    assert float(found.upper) == pytest.approx(exact, rel=0.05)
    with pytest.raises(ValueError, match='pair 0: backend="cuda" computes in float32 and the points are float64'):
        wasserstein(x, y, backend="cuda")
