"""D^2 sampling on a CUDA device."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from poolwright import kernels
from poolwright.kernels import _seeding_cuda

INFO = kernels.build_info()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(not INFO["cuda"], reason=INFO["reason"] or INFO["cuda_compiler"]),
]


def sample(left, right=None, *, k, first=0, seed=0):
    nearest = torch.full((len(left),), torch.inf, device=left.device)
    eligible = torch.ones(len(left), dtype=torch.uint8, device=left.device)
    return _seeding_cuda.sample(left, right, nearest, eligible, k, first, seed)


def squared_distances(left, right, centers):
    """Of all rows to some, in float64, of explicit rows."""
    rows = left.double() if right is None else torch.einsum("nc,nd->ncd", left.double(), right.double()).flatten(1)
    return torch.stack([(rows - rows[center]).square().sum(1) for center in centers], 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("outer", [False, True])
def test_picks_are_distinct_and_nearest_is_up_to_date_on_the_device(dtype, outer):
    left = torch.randn(6000, 40, device="cuda").to(getattr(torch, dtype))
    right = torch.randn(6000, 30, device="cuda").to(left.dtype) if outer else None
    indices, nearest, trials, _ = sample(left, right, k=200, seed=5)
    assert indices.is_cuda
    assert len(set(indices.tolist())) == 200
    expected = squared_distances(left, right, indices.tolist()).min(1).values
    torch.testing.assert_close(nearest.double(), expected, rtol=1e-5, atol=0)
    assert trials >= 199


def test_the_device_makes_the_picks_of_the_emulation(emulated_cuda):
    x = torch.randint(-3, 4, (3000, 6)).float()  # sums are exact in any order
    nearest, eligible = torch.full((3000,), torch.inf), torch.ones(3000, dtype=torch.uint8)
    expected = _seeding_cuda.sample(x, None, nearest, eligible, 150, 4, 77, module=emulated_cuda, stream=0)
    result = sample(x.cuda(), k=150, first=4, seed=77)
    assert result[0].tolist() == expected[0].tolist()
    assert torch.equal(result[1].cpu(), expected[1])


def test_draws_have_the_distribution_of_d_squared_sampling_on_the_device():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
    distances = squared_distances(x, None, range(5)).numpy()
    cells = list(itertools.permutations(range(1, 5), 2))
    expected = []
    for second, third in cells:
        after = np.minimum(distances[0], distances[second])
        expected.append(distances[0][second] / distances[0].sum() * after[third] / after.sum())
    counts = dict.fromkeys(cells, 0)
    for seed in range(2000):
        counts[tuple(sample(x.cuda(), k=3, seed=seed)[0].tolist()[1:])] += 1
    observed = np.array([counts[cell] for cell in cells])
    assert stats.chisquare(observed, 2000 * np.array(expected)).pvalue > 1e-4


@pytest.mark.parametrize(("c", "d"), [(10, 512), (1000, 768), (1000, 2048)])
def test_distances_of_outer_products_agree_with_float64_on_the_device(c, d):
    left, right = torch.randn(500, c, device="cuda").softmax(1), torch.randn(500, d, device="cuda")
    left[7], right[7] = left[0].clone(), right[0].clone()
    nearest = torch.full((500,), torch.inf, device="cuda")
    eligible = torch.ones(500, dtype=torch.uint8, device="cuda")
    _seeding_cuda.outer_fold((left, right), (left[:20].clone(), right[:20].clone()), nearest, eligible)
    a, b = left.double(), right.double()
    norms = a.square().sum(1) * b.square().sum(1)
    expected = norms[:, None] + norms[None, :20] - 2 * (a @ a[:20].T) * (b @ b[:20].T)
    expected = expected.clamp_(min=0).min(1).values
    torch.testing.assert_close(nearest.double()[20:], expected[20:], rtol=1e-5, atol=0)
    assert (nearest[:20] == 0).all()


def test_sampling_is_queued_on_the_current_stream():
    x = torch.randn(5000, 32)
    expected = sample(x.cuda(), k=100, seed=1)[0].tolist()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 64
        # Made on this stream, after the long work: a kernel on another stream would read it too early.
        late = torch.zeros(x.shape, device="cuda") + x.cuda() + 0 * busy[0, 0].nan_to_num()
        indices = sample(late, k=100, seed=1)[0]
    stream.synchronize()
    assert indices.tolist() == expected


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_sampling_on_another_device_than_the_current_one():
    x = torch.randn(2000, 16)
    expected = sample(x.to("cuda:0"), k=80, seed=1)[0].tolist()
    indices = sample(x.to("cuda:1"), k=80, seed=1)[0]
    assert indices.device == torch.device("cuda:1")
    assert indices.tolist() == expected
    assert torch.cuda.current_device() == 0
