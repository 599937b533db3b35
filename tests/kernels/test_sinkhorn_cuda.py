"""Batched Sinkhorn on CUDA: the kernel itself, run by the emulation on the CPU and, where there is one, on a device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from poolwright import kernels
from poolwright.kernels import _sinkhorn_cuda
from poolwright.kernels._ragged import Packed

OPTIONS = {"p": 2.0, "epsilon": 0.05, "tolerance": 1e-4, "max_iterations": 2000}
# The default device of the emulation, and one whose shared memory holds only pairs of 30 x 30 points and less.
LARGE, SMALL = 232448, 20000


class Solver:
    """`sinkhorn` with the emulated device, or the real one."""

    def __init__(self, module=None):
        self.module = module

    def __call__(self, packed, **options):
        options = {**OPTIONS, **options}
        if self.module is None:
            on_device = {
                field.name: getattr(packed, field.name).cuda()
                for field in dataclasses.fields(packed)
                if isinstance(getattr(packed, field.name), torch.Tensor)
            }
            result = _sinkhorn_cuda.sinkhorn(dataclasses.replace(packed, **on_device), **options)
            return type(result)(*(part.cpu() for part in result))
        options.setdefault("memory_limit", 1 << 30)
        return _sinkhorn_cuda.run(self.module, packed, device=0, stream=0, **options)


@pytest.fixture(params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def solve(request):
    if request.param == "emulated":
        return Solver(request.getfixturevalue("emulated_cuda"))
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if not kernels.build_info()["cuda"]:
        pytest.skip(kernels.build_info()["cuda_compiler"] or kernels.build_info()["reason"])
    return Solver()


def points(rng, n, d, dtype=torch.float32):
    return torch.from_numpy(rng.normal(size=(n, d))).to(dtype)


def uniform(count):
    return torch.full((count,), 1 / count, dtype=torch.float64)


def pack(pairs):
    """Pack ``(x, y, a, b)``."""
    x, y, a, b = (list(part) for part in zip(*pairs, strict=True))
    sizes = [tuple(len(part) for part in side) for side in (x, y)]
    offsets = [torch.tensor([0, *np.cumsum(side)]) for side in sizes]
    return Packed(torch.cat(x), torch.cat(y), *offsets, torch.cat(a), torch.cat(b), *sizes)


def costs(pair, p):
    x, y = (part.to(torch.float64).numpy() for part in pair[:2])
    return cdist(x, y) ** p


def weights(pair):
    return [part.to(torch.float64).numpy() / part.to(torch.float64).sum().item() for part in pair[2:]]


def exact(pair, p):
    ot = pytest.importorskip("ot")
    a, b = weights(pair)
    # numItermax: POT's default stops early on the largest of these.
    return ot.emd2(a, b, costs(pair, p), numItermax=10_000_000)


def assert_bounds(result, pairs, p):
    d = pairs[0][0].shape[1]
    for i, pair in enumerate(pairs):
        cost = exact(pair, p)
        # POT's own rounding: a few ulp of the largest cost.
        slack = 1e-13 * costs(pair, p).max()
        assert result.lower[i].item() <= cost + slack
        assert cost <= result.value[i].item() * (1 + _sinkhorn_cuda.cost_error(d, p)) + slack


def entropic_cost(pair, p, epsilon):
    """Log-domain Sinkhorn in float64 to the last digit; the cost of its plan."""
    (a, b), c = weights(pair), costs(pair, p)
    epsilon = epsilon * (a @ c @ b)
    f, g, log_a, log_b = np.zeros(len(a)), np.zeros(len(b)), np.log(a), np.log(b)
    for _ in range(20_000):
        before = f
        f = -epsilon * logsumexp((g - c) / epsilon + log_b, axis=1)
        g = -epsilon * logsumexp((f[:, None] - c) / epsilon + log_a[:, None], axis=0)
        if np.abs(f - before).max() < 1e-12 * epsilon:
            break
    plan = np.exp((f[:, None] + g - c) / epsilon + log_a[:, None] + log_b)
    assert np.abs(plan.sum(axis=1) - a).sum() < 1e-9
    return (plan * c).sum()


def mixed_pairs(d, dtype=torch.float32, seed=0):
    """Sizes 1 to 150; uniform, random, sparse and repeated weights; duplicates and an offset."""
    rng = np.random.default_rng(seed)
    pairs = []
    for n, m in [(1, 1), (1, 9), (12, 1), (5, 5), (31, 33), (64, 65), (20, 150), (130, 45)]:
        x, y = points(rng, n, d, dtype), points(rng, m, d, dtype)
        pairs.append((x, y, uniform(n), uniform(m)))
    x, y = points(rng, 40, d, dtype), points(rng, 25, d, dtype) + 3
    a, b = torch.from_numpy(rng.random(40)), torch.from_numpy(rng.random(25))
    pairs.append((x, y.to(dtype), a, b))
    a, b = a * torch.from_numpy(rng.random(40) < 0.3), b * torch.from_numpy(rng.random(25) < 0.5)
    pairs.append((x, y.to(dtype), a, b))
    pairs.append((x[[0] * 10 + [1, 2]], x[[0, 1, 2, 2, 2]], uniform(12), uniform(5)))
    return pairs


@pytest.mark.parametrize(
    ("p", "d", "dtype"),
    [
        (2, 1, torch.float32),
        (2, 33, torch.float32),
        (2, 512, torch.float32),
        (1, 17, torch.float32),
        (1, 2, torch.float16),
        (1.5, 5, torch.bfloat16),
        (3, 16, torch.float32),
        (4.5, 3, torch.float32),
    ],
)
def test_the_exact_cost_lies_between_the_bounds(solve, p, d, dtype):
    pairs = mixed_pairs(d, dtype)
    result = solve(pack(pairs), p=p)
    assert result.converged.all()
    assert_bounds(result, pairs, p)
    # Bounds that say something: a gap of a few times epsilon.
    upper = np.array([max(exact(pair, p), 0.2 * costs(pair, p).mean()) for pair in pairs])
    assert ((result.value - result.lower).numpy() <= 0.3 * upper).all()


def test_dimensions_beyond_many_tiles(solve):
    pairs = [pair for pair in mixed_pairs(2048) if len(pair[0]) < 50]
    result = solve(pack(pairs))
    assert_bounds(result, pairs, 2)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.5, 0.02])
def test_the_value_is_that_of_sinkhorn_in_float64(solve, p, epsilon):
    rng = np.random.default_rng(3)
    sizes = [(1, 6), (17, 17), (40, 61), (90, 20)]
    pairs = [
        (points(rng, n, 7), points(rng, m, 7) + 0.3, torch.from_numpy(rng.random(n) + 0.1), uniform(m))
        for n, m in sizes
    ]
    result = solve(pack(pairs), p=p, epsilon=epsilon, tolerance=3e-6, max_iterations=20_000)
    assert result.converged.all()
    for value, pair in zip(result.value.tolist(), pairs, strict=True):
        # Rounding moves less than the tolerance's mass, each over the largest distance.
        assert value == pytest.approx(entropic_cost(pair, p, epsilon), abs=1e-5 * costs(pair, p).max())


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_a_small_epsilon_gives_the_exact_cost(solve, epsilon):
    # Plain float32 exponents would be off by 2^-24 / epsilon: here by 1 at the most, and the plan with them.
    rng = np.random.default_rng(4)
    pairs = [(points(rng, 8, 3), points(rng, m, 3) + 1, uniform(8), uniform(m)) for m in (8, 5)]
    result = solve(pack(pairs), epsilon=epsilon, tolerance=1e-4, max_iterations=30_000)
    assert_bounds(result, pairs, 2)
    expected = [exact(pair, 2) for pair in pairs]
    assert result.value.tolist() == pytest.approx(expected, rel=2 * epsilon + 3e-4)
    assert result.lower.tolist() == pytest.approx(expected, rel=2 * epsilon + 3e-4)


def test_bounds_hold_without_convergence(solve):
    pairs = mixed_pairs(6)
    result = solve(pack(pairs), epsilon=1e-4, tolerance=1e-6, max_iterations=1)
    assert not result.converged.all()
    # At most 20 for each halving from the largest cost down to 1e-4 of the mean, then one.
    assert (result.iterations <= 20 * 17 + 1).all()
    assert_bounds(result, pairs, 2)


def test_points_without_weight_change_no_bit(solve):
    rng = np.random.default_rng(5)
    x, y = points(rng, 50, 20), points(rng, 70, 20)
    a, b = torch.from_numpy(rng.random(50)), torch.from_numpy(rng.random(70))
    heavy_a, heavy_b = rng.random(50) < 0.5, rng.random(70) < 0.4
    a, b = a * torch.from_numpy(heavy_a), b * torch.from_numpy(heavy_b)
    far_x, far_y = x.clone(), y.clone()
    far_x[~heavy_a], far_y[~heavy_b] = 1e4, -1e4
    full = solve(pack([(far_x, far_y, a, b)]))
    bare = solve(pack([(x[heavy_a], y[heavy_b], a[heavy_a], b[heavy_b])]))
    # The weights are summed by other threads: equal up to the last digit of their total.
    assert full.value.item() == pytest.approx(bare.value.item(), rel=1e-6)
    assert full.lower.item() == pytest.approx(bare.lower.item(), rel=1e-6)
    assert full.iterations.item() == bare.iterations.item()


def test_weights_count_like_repeated_points(solve):
    rng = np.random.default_rng(6)
    x, y, counts = points(rng, 9, 4), points(rng, 14, 4), torch.tensor([1, 2, 1, 3, 1, 1, 2, 1, 1])
    repeated = x.repeat_interleave(counts, 0)
    result = solve(
        pack([(x, y, counts.double(), uniform(14)), (repeated, y, uniform(13), uniform(14))]), tolerance=1e-5
    )
    assert result.value[0].item() == pytest.approx(result.value[1].item(), rel=1e-4)
    assert result.lower[0].item() == pytest.approx(result.lower[1].item(), rel=1e-4)


def test_tiny_weights_spoil_nothing(solve):
    # Row sums of 1e-35 are taken with their maximum subtracted; 1e-300 is below float32 altogether.
    rng = np.random.default_rng(7)
    x, y, a, b = points(rng, 30, 5), points(rng, 20, 5), uniform(30), uniform(20)
    a[3], a[4], b[0], b[7] = 1e-35, 1e-300, 1e-33, 1e-200
    result = solve(pack([(x, y, a, b)]))
    assert result.converged.all()
    assert_bounds(result, [(x, y, a, b)], 2)
    kept_a, kept_b = a > 1e-9, b > 1e-9
    without = solve(pack([(x[kept_a], y[kept_b], a[kept_a], b[kept_b])]))
    assert result.value.item() == pytest.approx(without.value.item(), rel=1e-4)


def test_equal_points_cost_nothing(solve):
    x = torch.full((7, 3), 0.1)
    result = solve(pack([(x, x[:4], uniform(7), uniform(4)), (0 * x, 0 * x, uniform(7), uniform(7))]))
    assert result.value.tolist() == [0, 0]
    assert result.lower.tolist() == [0, 0]
    assert result.converged.all()


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("scale", [1e-19, 1e-25, 1e-37])
def test_differences_far_below_the_coordinates_are_no_zeros(solve, p, scale):
    rng = np.random.default_rng(21)
    x, y = points(rng, 12, 3) * scale, points(rng, 15, 3) * scale + scale
    x[:, 0] = y[:, 0] = 1.0  # says nothing, and is larger by far
    (pair,) = pairs = [(x, y, uniform(12), uniform(15))]
    result = solve(pack(pairs), p=p)
    cost = exact_scaled(pair, p, scale)
    assert result.lower.item() <= cost <= result.value.item() * (1 + _sinkhorn_cuda.cost_error(3, p))
    assert result.value.item() <= 1.5 * cost
    assert result.converged.all()


def exact_scaled(pair, p, scale):
    """Exact, of numbers that POT's absolute tolerances suit; the first column is the same for all."""
    x, y, a, b = pair
    return exact((x.double()[:, 1:] / scale, y.double()[:, 1:] / scale, a, b), p) * scale**p


@pytest.mark.parametrize("p", [1, 2])
def test_costs_that_underflow_beside_large_ones_stay_below_the_bound(solve, p):
    # Half of the mass has nothing to pay but 1e-25, which is lost in float32 beside 1; the rest is further than that.
    x = torch.tensor([[0.0], [1.0]])
    y = torch.tensor([[1e-25], [1.0]])
    pairs = [(x, y, uniform(2), uniform(2))]
    result = solve(pack(pairs), p=p, epsilon=1e-7)
    assert 0 <= result.lower.item() <= 0.5 * 1e-25**p <= result.value.item()


def test_a_pair_of_single_points_is_their_distance(solve):
    x, y = torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 0.0]])
    for p in (1, 2, 3):
        result = solve(pack([(x, y, uniform(1), uniform(1))]), p=p)
        assert result.value.item() == pytest.approx(5.0**p, rel=1e-6)
        assert result.lower.item() == pytest.approx(5.0**p, rel=1e-5)


@pytest.mark.parametrize("power", [-60, -20, 20, 60])
def test_powers_of_two_scale_the_result_exactly(solve, power):
    pairs = [pair for pair in mixed_pairs(5) if len(pair[0]) < 40]
    scaled = [(x * 2.0**power, y * 2.0**power, a, b) for x, y, a, b in pairs]
    result, expected = solve(pack(scaled)), solve(pack(pairs))
    assert result.value.tolist() == (expected.value * 4.0**power).tolist()
    assert result.lower.tolist() == (expected.lower * 4.0**power).tolist()
    assert result.iterations.tolist() == expected.iterations.tolist()


def test_a_large_common_offset_does_not_cancel(solve):
    rng = np.random.default_rng(8)
    x, y = (torch.from_numpy(rng.integers(-50, 50, size=(30, 9))).float() + 1e5 for _ in range(2))
    pairs = [(x, y, uniform(30), uniform(30)), (x - 1e5, y - 1e5, uniform(30), uniform(30))]
    result = solve(pack(pairs))
    assert_bounds(result, pairs, 2)
    assert result.value[0].item() == pytest.approx(result.value[1].item(), rel=1e-6)


def test_a_pair_gives_the_same_bits_alone_and_in_any_batch(solve):
    pairs = mixed_pairs(11)
    whole = solve(pack(pairs))
    reverse = solve(pack(pairs[::-1]))
    for i, pair in enumerate(pairs):
        alone = solve(pack([pair]))
        for part, (one, batch, other) in enumerate(zip(alone, whole, reverse, strict=True)):
            assert one[0].item() == batch[i].item() == other[len(pairs) - 1 - i].item(), part


def test_swapping_the_sides_keeps_the_bounds(solve):
    pairs = mixed_pairs(8)
    result = solve(pack([(y, x, b, a) for x, y, a, b in pairs]))
    assert_bounds(result, pairs, 2)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_costs_are_as_accurate_as_stated(solve, p):
    # The cost of single points is their distance, whatever epsilon; a sum of 1000 equal squares rounds the most.
    rng = np.random.default_rng(13)
    d = 1000
    for x, y in [(points(rng, 1, d), points(rng, 1, d)), (torch.full((1, d), 0.1), torch.full((1, d), 1.3))]:
        cost = np.linalg.norm(x.double() - y.double()) ** p
        error = _sinkhorn_cuda.cost_error(d, p)
        result = solve(pack([(x, y, uniform(1), uniform(1))]), p=p)
        assert abs(result.value.item() / cost - 1) <= error < 1e-5
        assert cost * (1 - 2.1 * error) <= result.lower.item() <= cost


def test_no_pairs_give_empty_results(solve):
    none = torch.zeros(1, dtype=torch.int64)
    nothing = torch.empty(0, dtype=torch.float64)
    result = solve(Packed(torch.empty(0, 3), torch.empty(0, 3), none, none, nothing, nothing, (), ()))
    assert [len(part) for part in result] == [0, 0, 0, 0]


def test_float32_weights_and_points_that_require_grad(solve):
    pairs = mixed_pairs(4)
    packed = pack(pairs)
    narrow = dataclasses.replace(packed, a=packed.a.float(), b=packed.b.float(), x=packed.x.requires_grad_())
    assert_bounds(solve(narrow), [(x.detach(), y, a.float(), b.float()) for x, y, a, b in pairs], 2)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"x": torch.ones(5, 2, dtype=torch.float64)}, {}, TypeError, r"float64 and torch.float32.*\.float\(\)"),
        ({"x_sizes": (4,)}, {}, ValueError, "x_sizes sum to 4, but x has 5 points"),
        ({"y_sizes": (3, 3)}, {}, ValueError, "x_sizes names 1 pairs and y_sizes 2"),
        ({"x_sizes": (5, 0), "y_sizes": (3, 3)}, {}, ValueError, "pair 1 has 0 and 3 points"),
        ({"y": torch.ones(6, 3)}, {}, ValueError, "y must have size 2 along axis 1, not 3"),
        ({"x": torch.ones(2, 5).T}, {}, ValueError, "x must be contiguous"),
        ({"a": torch.ones(4, dtype=torch.float64)}, {}, ValueError, "a must have size 5"),
        ({"x_offsets": torch.zeros(3, dtype=torch.int64)}, {}, ValueError, "x_offsets must have size 2"),
        ({}, {"p": 0.5}, ValueError, "p must be at least 1"),
        ({}, {"p": float("inf")}, ValueError, "p must be at least 1 and finite"),
        ({}, {"epsilon": 0.0}, ValueError, "epsilon must be positive"),
        ({}, {"epsilon": float("nan")}, ValueError, "epsilon must be positive"),
        ({}, {"tolerance": 0.0}, ValueError, "tolerance must be positive"),
        ({}, {"max_iterations": 0}, ValueError, "max_iterations must be at least 1"),
        ({}, {"memory_limit": 0}, ValueError, "memory_limit must be a positive number"),
        ({}, {"memory_limit": 300}, ValueError, r"pair 0 of 5 x 6 points needs a workspace of \d+: raise it"),
    ],
)
def test_bad_input_is_named(solve, change, options, error, message):
    packed = pack([(torch.ones(5, 2), torch.ones(6, 2), uniform(5), uniform(6))])
    with pytest.raises(error, match=message):
        solve(dataclasses.replace(packed, **change), **options)


def test_points_on_the_cpu_are_refused():
    if not kernels.build_info()["cuda"]:
        pytest.skip("built without CUDA")
    packed = pack([(torch.ones(5, 2), torch.ones(6, 2), uniform(5), uniform(6))])
    with pytest.raises(ValueError, match="must be on a CUDA device, not on cpu"):
        _sinkhorn_cuda.sinkhorn(packed, **OPTIONS)


# ---- the plan of launches, and devices of other sizes: only the emulation has those


def plan(module, sizes, memory_limit=1 << 40):
    x_sizes, y_sizes = (torch.tensor(side, dtype=torch.int64) for side in zip(*sizes, strict=True))
    order = torch.empty(len(sizes), dtype=torch.int64)
    launches = module.cuda_sinkhorn_plan(x_sizes, y_sizes, order, memory_limit=memory_limit, device=0)
    return launches, order.tolist()


def test_the_number_of_launches_does_not_grow_with_the_pairs(emulated_cuda):
    rng = np.random.default_rng(9)
    counts = []
    for pairs in (100, 10_000):
        sizes = rng.integers(10, 301, size=(pairs, 2)).tolist()
        launches, order = plan(emulated_cuda, sizes)
        counts.append(len(launches))
        assert sorted(order) == list(range(pairs))
        assert sum(launch.count for launch in launches) == pairs
        start = 0
        for launch in launches:
            work = [sizes[i][0] * sizes[i][1] for i in order[start : start + launch.count]]
            assert work == sorted(work, reverse=True)
            start += launch.count
    assert counts[0] == counts[1] <= 5


def test_shared_memory_holds_the_cost_matrix_of_230_by_230_on_hopper(emulated_cuda):
    assert plan(emulated_cuda, [(230, 230)])[0][0].shared_bytes > 4 * 230 * 230
    assert plan(emulated_cuda, [(240, 240)])[0][0].shared_bytes < 4 * 240 * 240
    assert plan(emulated_cuda, [(240, 240)])[0][0].workspace_bytes > 4 * 240 * 240


def test_memory_limit_bounds_the_workspace_of_every_launch(emulated_cuda):
    emulated_cuda.configure(multiprocessors=100)
    sizes = [(400 + i, 500) for i in range(50)] + [(3000, 2000)] + [(20, 20)] * 500
    free, _ = plan(emulated_cuda, sizes)
    limit = 30_000_000
    bound, _ = plan(emulated_cuda, sizes, limit)
    assert max(launch.workspace_bytes for launch in free) > limit
    assert all(0 < launch.workspace_bytes <= limit for launch in bound)
    assert [launch.count for launch in bound] == [launch.count for launch in free]
    # A pair far larger than the rest does not take their blocks' room.
    assert len(free) == 3


@pytest.mark.parametrize("order", [0, 1, 11])
@pytest.mark.parametrize("shared_bytes", [LARGE, SMALL])
def test_every_kernel_under_every_order_of_threads_gives_the_bounds(emulated_cuda, shared_bytes, order):
    emulated_cuda.configure(shared_bytes=shared_bytes, order=order, multiprocessors=2)
    pairs = mixed_pairs(19)
    rng = np.random.default_rng(10)
    # One for each size of block, and one that no shared memory holds.
    for n, m in [(95, 90), (140, 150), (200, 210), (250, 231)]:
        pairs.append((points(rng, n, 19), points(rng, m, 19), uniform(n), uniform(m)))
    sizes = [(len(x), len(y)) for x, y, _, _ in pairs]
    kinds = {launch.kind for launch in plan(emulated_cuda, sizes)[0]}
    assert kinds == ({0, 1, 2, 3, 4} if shared_bytes == LARGE else {3, 4})
    result = Solver(emulated_cuda)(pack(pairs), epsilon=0.2, tolerance=1e-3)
    assert_bounds(result, pairs, 2)


def test_fewer_blocks_give_the_same_bits(emulated_cuda):
    emulated_cuda.configure(shared_bytes=SMALL)
    pairs = [pair for pair in mixed_pairs(7) if len(pair[0]) > 30]
    solver = Solver(emulated_cuda)
    many, one = solver(pack(pairs)), solver(pack(pairs), memory_limit=50_000)
    assert many.value.tolist() == one.value.tolist()
    assert many.lower.tolist() == one.lower.tolist()


# ---- only a device has these


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_work_is_queued_on_the_current_stream():
    pairs = mixed_pairs(16)
    packed = pack(pairs)
    expected = Solver()(packed)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 64
        late = {
            field.name: getattr(packed, field.name).cuda()
            for field in dataclasses.fields(packed)
            if isinstance(getattr(packed, field.name), torch.Tensor)
        }
        # Made on this stream, after the long work: a kernel on another stream would read it too early.
        late["x"] = late["x"] + 0 * busy[0, 0].nan_to_num()
        result = _sinkhorn_cuda.sinkhorn(dataclasses.replace(packed, **late), **OPTIONS)
    stream.synchronize()
    assert result.value.tolist() == expected.value.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_thousands_of_pairs_of_mixed_sizes_on_the_device():
    rng = np.random.default_rng(12)
    pairs = [
        (points(rng, n, 64), points(rng, m, 64), uniform(n), uniform(m))
        for n, m in rng.integers(1, 301, size=(2000, 2)).tolist()
    ]
    result = Solver()(pack(pairs))
    assert result.converged.all()
    chosen = list(range(0, 2000, 50))
    part = type(result)(*(column[chosen] for column in result))
    assert_bounds(part, [pairs[i] for i in chosen], 2)
