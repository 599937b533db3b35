"""k_center on a CUDA device: the same bits as on the CPU."""

import numpy as np
import pytest
import torch

from poolwright import kernels
from poolwright.kernels._k_center_cuda import CudaBackend

from .pools import adversarial_pools, assert_greedy, integer_pool

INFO = kernels.build_info()

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
POOLS = adversarial_pools()


@pytest.fixture(params=["cuda", "torch"])
def backend(request):
    if request.param == "cuda" and not INFO["cuda"]:
        pytest.skip(INFO["reason"] or INFO["cuda_compiler"])
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_integer_valued_data_give_the_reference_indices_on_the_device(backend, dtype):
    x = torch.from_numpy(integer_pool(n=3000)).to(getattr(torch, dtype))
    options = {"labeled": [5, 17, 250], "candidates": list(range(10, 2900))}
    expected = kernels.k_center(x, 300, backend="reference", **options)
    result = kernels.k_center(x.cuda(), 300, backend=backend, **options)
    assert result.indices.is_cuda
    assert result.indices.tolist() == expected.indices.tolist()
    assert torch.equal(result.radii.cpu(), expected.radii)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("name", ["gaussian", "zero-vectors", "heavy-tailed-norms", "scale-1e4", "wide"])
def test_adversarial_pools_are_picked_greedily_on_the_device(backend, name, metric):
    x = POOLS[name]
    k = min(len(x), 100)
    result = kernels.k_center(torch.from_numpy(x).cuda(), k, metric=metric, backend=backend)
    assert_greedy(x, result, k, metric=metric)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_cuda_and_native_give_the_same_bits(native, name, dtype):
    if not INFO["cuda"]:
        pytest.skip(INFO["cuda_compiler"])
    x = torch.from_numpy(POOLS[name]).clamp(-60000, 60000).to(getattr(torch, dtype))
    k = min(len(x), 100)
    cpu = kernels.k_center(x, k, backend="native")
    gpu = kernels.k_center(x.cuda(), k, backend="cuda")
    assert gpu.indices.tolist() == cpu.indices.tolist()
    assert torch.equal(gpu.radii.cpu(), cpu.radii)


def test_strides_are_respected_on_the_device(backend):
    x = torch.from_numpy(POOLS["gaussian"]).cuda()
    expected = kernels.k_center(x, 50, backend=backend).indices.tolist()
    for other in (x.T.contiguous().T, x.repeat_interleave(2, 0)[::2], x.repeat_interleave(3, 1)[:, ::3]):
        assert kernels.k_center(other, 50, backend=backend).indices.tolist() == expected


def test_first_is_the_first_pick_on_the_device(backend):
    x = POOLS["gaussian"]
    result = kernels.k_center(torch.from_numpy(x).cuda(), 20, first=123, backend=backend)
    assert_greedy(x, result, 20, first=123)


def test_equal_points_are_picked_in_order_on_the_device(backend):
    x = torch.ones(5000, 20, device="cuda")
    assert kernels.k_center(x, 64, backend=backend).indices.tolist() == list(range(64))


def test_blocks_on_the_device_give_the_same_bits_as_memory():
    x = torch.from_numpy(POOLS["gaussian"]).cuda()

    class Blocks:
        shape, dtype = x.shape, x.dtype

        def __getitem__(self, rows):
            return x[rows if isinstance(rows, slice) else rows.cuda()].clone()

        def blocks(self):
            yield 0, x

    whole = kernels.k_center(x, 60, labeled=[1])
    blocks = kernels.k_center(Blocks(), 60, labeled=[1], memory_limit=400 * 12 + 33 * 32 * 20)
    assert torch.equal(whole.indices, blocks.indices)
    assert torch.equal(whole.radii, blocks.radii)


def test_work_is_queued_on_the_current_stream(backend):
    x = torch.from_numpy(POOLS["gaussian"])
    expected = kernels.k_center(x.cuda(), 50, backend=backend).indices.tolist()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        busy = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 64
        # Made on this stream, after the long work: a kernel on another stream would read it too early.
        late = torch.zeros(x.shape, device="cuda") + x.cuda() + 0 * busy[0, 0].nan_to_num()
        result = kernels.k_center(late, 50, backend=backend).indices
    stream.synchronize()
    assert result.tolist() == expected


def test_auto_takes_cuda_for_cuda_tensors_and_native_refuses_them(native):
    x = torch.from_numpy(POOLS["gaussian"]).cuda()
    with pytest.raises(ValueError, match=r"x\.cpu\(\)"):
        kernels.k_center(x, 1, backend="native")
    with pytest.raises(ValueError, match="x must be in CPU memory"):
        native.k_center_fold(x, np.zeros((1, 33), np.float32), np.zeros(400, np.float32))
    assert kernels.k_center(x, 5).indices.is_cuda


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_pool_on_another_device_than_the_current_one(backend):
    x = torch.from_numpy(POOLS["gaussian"])
    expected = kernels.k_center(x.to("cuda:0"), 50, backend=backend)
    result = kernels.k_center(x.to("cuda:1"), 50, backend=backend)
    assert result.indices.device == torch.device("cuda:1")
    assert result.indices.tolist() == expected.indices.tolist()
    assert torch.cuda.current_device() == 0


# ---- the kernels themselves: what the emulation runs, on a device


@pytest.fixture
def compute():
    """Make the CUDA backend with rounds from the second pick on."""
    if not INFO["cuda"]:
        pytest.skip(INFO["reason"] or INFO["cuda_compiler"])
    return lambda eager_picks=1: CudaBackend(eager_picks=eager_picks)


def greedy(compute, x, k):
    mind = torch.full((len(x),), torch.inf, device=x.device)
    return compute.greedy(x, mind, torch.ones(len(x), dtype=torch.uint8, device=x.device), k, None)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("n", "d"), [(3000, 19), (40_000, 512), (20_000, 768), (5000, 3000), (100_000, 8)])
def test_rounds_make_the_picks_of_the_plain_loop_on_the_device(compute, n, d, dtype):
    x = torch.randn(n, d, device="cuda").to(getattr(torch, dtype))
    k = min(n // 4, 1500)
    indices, squared, pairs = greedy(compute(eager_picks=k), x, k)
    lazy_indices, lazy_squared, lazy_pairs = greedy(compute(), x, k)
    assert torch.equal(lazy_indices, indices)
    assert torch.equal(lazy_squared, squared)
    assert pairs == sum(n - i for i in range(1, k))
    assert lazy_pairs > 0


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_folding_by_tensor_cores_gives_the_bits_of_the_plain_pass(compute, native, name, dtype):
    x = torch.from_numpy(POOLS[name]).clamp(-6e4, 6e4).to(getattr(torch, dtype)).cuda()
    centers = torch.cat([x[::2].float(), x[:60].float() + torch.randn(min(60, len(x)), x.shape[1], device="cuda")])
    eligible = (torch.arange(len(x), device="cuda") % 7 != 3).to(torch.uint8)
    expected = torch.full((len(x),), torch.inf, device="cuda")
    mind = expected.clone()
    stream = torch.cuda.current_stream().cuda_stream
    native.cuda_k_center_fold(x, centers, expected, eligible, None, stream=stream)
    compute().fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


def test_ties_go_to_the_lowest_index_in_rounds_on_the_device(compute):
    x = torch.from_numpy(integer_pool(n=60_000, d=3, largest=2)).cuda()  # 125 distinct points
    expected = greedy(compute(eager_picks=400), x, 400)[0]
    assert torch.equal(greedy(compute(), x, 400)[0], expected)


def test_rounds_neither_allocate_nor_synchronize_and_can_be_captured_in_a_graph(compute, native):
    x = torch.randn(20_000, 64, device="cuda")
    expected = greedy(compute(), x, 500)[0]
    mind = torch.full((len(x),), torch.inf, device="cuda")
    eligible = torch.ones(len(x), dtype=torch.uint8, device="cuda")
    keys = torch.zeros(500, dtype=torch.int64, device="cuda")
    indices, squared = torch.empty_like(keys), torch.empty(500, device="cuda")
    workspace = torch.empty(native.cuda_k_center_lazy_workspace(x), dtype=torch.uint8, device="cuda")
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        raw = stream.cuda_stream
        native.cuda_k_center_eager(x, mind, eligible, keys, k=1, fold_last=True, stream=raw)
        native.cuda_k_center_lazy_start(x, eligible, workspace, picks=1, pairs=0, stream=raw)
        # A capture fails on anything that waits for the device.
        graph.capture_begin()
        native.cuda_k_center_lazy_rounds(x, mind, eligible, keys, workspace, rounds=1, stream=raw)
        graph.capture_end()
        for _ in range(500):  # each round makes one pick at least
            graph.replay()
        native.cuda_k_center_decode(keys, indices, squared, stream=raw)
    stream.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    assert torch.equal(indices, expected)


def test_distances_are_counted_on_the_device(compute):
    x = torch.randn(50_000, 128, device="cuda")
    result = kernels.k_center(x, 600, backend="cuda")
    # Each row meets each pick at least once where it stays eligible, and few pairs are measured again.
    assert 0.9 * 50_000 * 500 < result.distances_evaluated < 3 * 50_000 * 600
