"""The CUDA kernels of D^2 sampling, run on the CPU."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from poolwright.kernels import _seeding_cuda

from .pools import adversarial_pools

POOLS = adversarial_pools()


@pytest.fixture
def sample(emulated_cuda):
    """`sample` on CPU tensors."""

    def run(left, right=None, *, k, first=0, seed=0, nearest=None, eligible=None):
        nearest = torch.full((len(left),), torch.inf) if nearest is None else nearest
        eligible = torch.ones(len(left), dtype=torch.uint8) if eligible is None else eligible
        return _seeding_cuda.sample(left, right, nearest, eligible, k, first, seed, module=emulated_cuda, stream=0)

    return run


def squared_distances(left, right=None):
    """All pairs, in float64, of explicit rows."""
    rows = left.double() if right is None else torch.einsum("nc,nd->ncd", left.double(), right.double()).flatten(1)
    return (rows[:, None] - rows[None]).square().sum(-1)


def philox(key, counter):
    """Philox4x32-10, from the paper."""
    c, k = [counter & 0xFFFFFFFF, counter >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_the_oracle_makes_the_published_random_numbers():
    # From the known answers of the Random123 library.
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize(("outer", "order"), [(False, 0), (True, 1)])
def test_draws_are_those_of_rejection_with_the_documented_random_numbers(emulated_cuda, sample, outer, order):
    emulated_cuda.configure(order=order)
    generator = torch.Generator().manual_seed(1)
    left = torch.randint(-3, 4, (2100, 5), generator=generator).float()  # sums are exact in any order
    right = torch.randint(-3, 4, (2100, 3), generator=generator).float() if outer else None
    eligible = (torch.arange(2100) % 5 != 2).to(torch.uint8)
    seed = 123456789012
    indices, _, trials, pairs = sample(left, right, k=75, first=7, seed=seed, eligible=eligible)

    distances = squared_distances(left, right).numpy()
    bounds = np.where(eligible.numpy() != 0, distances[7], 0.0)
    picks, folded, draws, rejected = [7], 1, 0, 0
    while len(picks) < 75:
        # A refresh after 64 picks or 8 rejections.
        if len(picks) - folded == 64 or rejected == 8:
            bounds = np.minimum(bounds, distances[picks].min(0))
            folded, rejected = len(picks), 0
        random = philox(seed, draws)
        draws += 1
        uniform = [(random[i] << 32 | random[i + 1]) >> 11 for i in (0, 2)]
        row = int(np.searchsorted(bounds.cumsum(), uniform[0] / 2**53 * bounds.sum(), side="right"))
        squared = min(bounds[row], distances[row, picks].min())
        if uniform[1] / 2**53 * bounds[row] < squared:
            picks.append(row)
            bounds[row] = 0
        else:
            bounds[row] = squared
            rejected += 1
        assert draws < 400
    assert indices.tolist() == picks
    assert trials == draws
    assert pairs >= 2100 * 0.8 * 75 - 75 * 75


def test_draws_have_exactly_the_distribution_of_d_squared_sampling(sample):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
    distances = squared_distances(x).numpy()
    cells = list(itertools.permutations(range(1, 5), 2))
    expected = []
    for second, third in cells:
        nearest = distances[0]
        after = np.minimum(nearest, distances[second])
        expected.append(nearest[second] / nearest.sum() * after[third] / after.sum())
    assert sum(expected) == pytest.approx(1)
    counts = dict.fromkeys(cells, 0)
    draws = 120
    for seed in range(draws):
        counts[tuple(sample(x, k=3, first=0, seed=seed)[0].tolist()[1:])] += 1
    observed = np.array([counts[cell] for cell in cells])
    assert stats.chisquare(observed, draws * np.array(expected)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["gaussian", "duplicates", "zero-vectors", "heavy-tailed-norms", "far-from-origin"])
def test_picks_are_distinct_and_nearest_is_up_to_date(sample, name):
    x = torch.from_numpy(POOLS[name])
    eligible = (torch.arange(len(x)) % 4 != 1).to(torch.uint8)
    indices, nearest, trials, _ = sample(x, k=70, first=2, seed=5, eligible=eligible)
    assert len(set(indices.tolist())) == 70
    assert eligible[indices].all()
    expected = squared_distances(x)[indices].min(0).values
    expected[eligible == 0] = 0
    torch.testing.assert_close(nearest.double(), expected, rtol=1e-5, atol=0)
    assert trials >= 1


def test_the_same_seed_gives_the_same_picks_on_every_device(emulated_cuda, sample):
    x = torch.randn(300, 20)
    expected = sample(x, k=80, seed=3)
    emulated_cuda.configure(multiprocessors=1, shared_bytes=80_000, order=4)
    again = sample(x, k=80, seed=3)
    assert again[0].tolist() == expected[0].tolist()
    assert torch.equal(again[1], expected[1])
    assert sample(x, k=80, seed=4)[0].tolist() != expected[0].tolist()


def test_centers_that_are_already_there_are_kept_away_from(sample):
    # All of the weight is in one cluster: the other one has a center.
    x = torch.cat([torch.zeros(50, 3), torch.full((50, 3), 5.0)])
    nearest = (x - x[0]).square().sum(1)
    picks = sample(x, k=1, first=-1, nearest=nearest)[0]
    assert int(picks[0]) >= 50


def test_points_that_coincide_with_centers_are_drawn_evenly(sample):
    x = torch.zeros(40, 3)
    x[20:] = 1
    indices = sample(x, k=40, seed=9)[0].tolist()
    assert sorted(indices) == list(range(40))
    assert indices[1] >= 20  # the only one with a distance
    assert sample(x, k=40, seed=10)[0].tolist() != indices


def test_sampling_refuses_to_start_without_a_center(sample):
    with pytest.raises(ValueError, match="say which row is the first pick"):
        sample(torch.randn(5, 2), k=2, first=-1)


def test_no_picks_need_no_device(sample):
    indices, nearest, trials, pairs = sample(torch.randn(5, 2), k=0, first=-1)
    assert (len(indices), trials, pairs) == (0, 0, 0)
    assert torch.isinf(nearest).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("c", "d", "shared_bytes"), [(10, 33, 232_448), (70, 130, 115_000), (70, 130, 90_000), (70, 130, 60_000)]
)
@pytest.mark.parametrize("truncating", [False, True])
def test_distances_of_outer_products_are_those_of_explicit_rows(emulated_cuda, dtype, c, d, shared_bytes, truncating):
    emulated_cuda.configure(shared_bytes=shared_bytes, order=2, truncating=truncating)
    left = torch.randn(90, c).softmax(1).sub(torch.eye(c)[torch.arange(90) % c]).to(getattr(torch, dtype))
    right = (torch.randn(90, d) + 1).to(getattr(torch, dtype))
    left[::9], right[::9] = left[0].clone(), right[0].clone()  # equal rows
    left[4] = 0
    wide, narrow = torch.zeros(90, d + 3, dtype=right.dtype), left.T.contiguous().T
    wide[:, :d] = right
    centers = torch.arange(0, 90, 3)
    expected = squared_distances(left, right)[:, centers].min(1).values
    for rows in ((left, right), (narrow, wide[:, :d])):
        nearest, eligible = torch.full((90,), torch.inf), torch.ones(90, dtype=torch.uint8)
        eligible[5] = 0
        picked = (left[centers].float().contiguous(), right[centers].float().contiguous())
        _seeding_cuda.outer_fold(rows, picked, nearest, eligible, module=emulated_cuda, stream=0)
        assert torch.isinf(nearest[5])
        nearest[5] = expected[5]
        torch.testing.assert_close(nearest.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("left_scale", "right_scale"), [(1e-12, 1e12), (1e-25, 1e15), (1e6, 1e6), (1e-6, 1e-6)])
@pytest.mark.parametrize("truncating", [False, True])
def test_outer_products_hold_at_every_scale(emulated_cuda, left_scale, right_scale, truncating):
    emulated_cuda.configure(truncating=truncating)
    left, right = torch.randn(70, 9) * left_scale, torch.randn(70, 21) * right_scale
    nearest, eligible = torch.full((70,), torch.inf), torch.ones(70, dtype=torch.uint8)
    _seeding_cuda.outer_fold((left, right), (left[:20], right[:20]), nearest, eligible, module=emulated_cuda, stream=0)
    expected = squared_distances(left, right)[:, :20].min(1).values
    torch.testing.assert_close(nearest.double(), expected, rtol=1e-5, atol=0)


def test_factors_of_two_types_are_widened(sample):
    left, right = torch.randn(60, 4).half(), torch.randn(60, 6)
    mixed = sample(left, right, k=20)
    assert mixed[0].tolist() == sample(left.float(), right, k=20)[0].tolist()


@pytest.mark.parametrize("types", [("float32", None), ("float16", "float16"), ("float16", "float32")])
def test_workspace_bytes_covers_what_is_allocated(emulated_cuda, types):
    n, d, e, k = 3000, 5, 7, 20
    left = torch.randn(n, d).to(getattr(torch, types[0]))
    right = None if types[1] is None else torch.randn(n, e).to(getattr(torch, types[1]))
    stated = _seeding_cuda.workspace_bytes(left, right, k, module=emulated_cuda)
    copies = 4 * n * d if types == ("float16", "float32") else 0
    columns = 64 if right is None else 128  # padded
    # Centers, their bounds, the mean; five numbers, a sum a group of rows and one a cluster: multiples of 256 bytes.
    kernels = 2048 * columns + 3 * 4096 + 4 * columns + 3 * 256
    assert stated == kernels + copies + 13 * n + 24 * k
    assert _seeding_cuda.workspace_bytes(left, right, 0, module=emulated_cuda) == kernels + copies
