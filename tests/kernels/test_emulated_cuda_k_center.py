"""The CUDA kernels of k-center, run on the CPU: the picks and the bits of the plain loop."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from poolwright import kernels
from poolwright.kernels._k_center_cuda import CudaBackend

from .pools import adversarial_pools, assert_greedy, integer_pool

POOLS = adversarial_pools()
# Shared memory for the whole pool, for a part of its rows, for their distances alone; one block and several.
DEVICES = {
    "whole-pool": {},
    "parts": {"multiprocessors": 2, "shared_bytes": 90_000, "order": 1},
    "one-block": {"multiprocessors": 1, "shared_bytes": 70_000, "order": 3},
}


class EmulatedBackend(CudaBackend):
    """The backend as it is, on CPU tensors."""

    def _stream(self, tensor):
        return 0


@pytest.fixture(params=["rounding", "truncating"])
def product(request, emulated_cuda):
    """The emulated device, whose tensor cores sum in one of two ways: call to configure the rest of it."""

    def configure(**options):
        emulated_cuda.configure(truncating=request.param == "truncating", **options)
        return emulated_cuda

    return configure


def greedy(module, x, k, *, eager=1, first=None, candidates=None, labeled=()):
    """Run the backend; return indices, squared distances, distances computed, and what is left in mind."""
    eligible = torch.ones(len(x), dtype=torch.uint8)
    if candidates is not None:
        eligible.zero_()
        eligible[candidates] = 1
    eligible[list(labeled)] = 0
    mind = torch.full((len(x),), torch.inf)
    compute = EmulatedBackend(module, eager_picks=eager)
    if labeled:
        compute.fold(x, x[list(labeled)].float(), mind, eligible)
    return (*compute.greedy(x, mind, eligible, k, first), mind)


def plain_fold(x, centers, mind, eligible):
    """The fixed order in numpy: lane l sums the dimensions l, l + 16, ...; then halves are added."""
    rows = x.float().numpy()
    out = mind.numpy().copy()
    for center in centers.numpy():
        squares = (rows - center) ** 2
        squares = np.pad(squares, ((0, 0), (0, -squares.shape[1] % 16))).reshape(len(rows), -1, 16)
        lanes = np.zeros((len(rows), 16), np.float32)
        for step in range(squares.shape[1]):
            lanes += squares[:, step]
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        out = np.where(eligible.numpy() != 0, np.minimum(out, lanes[:, 0]), out)
    return torch.from_numpy(out)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_folding_by_tensor_cores_gives_the_bits_of_the_fixed_order(product, name, dtype):
    emulated_cuda = product()
    x = torch.from_numpy(POOLS[name])[:150].clamp(-6e4, 6e4).to(getattr(torch, dtype))
    centers = torch.cat([x[::2].float(), x[:60].float() + torch.randn(min(60, len(x)), x.shape[1])])
    eligible = (torch.arange(len(x)) % 7 != 3).to(torch.uint8)
    mind = torch.full((len(x),), torch.inf)
    mind[::5] = 30.0
    expected = plain_fold(x, centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


@pytest.mark.parametrize(
    ("d", "shared_bytes"), [(1, 90_000), (300, 150_000), (300, 110_000), (300, 100_000), (300, 50_000)]
)
def test_every_height_of_the_product_gives_the_same_bits(product, d, shared_bytes):
    emulated_cuda = product(shared_bytes=shared_bytes, order=2)
    x, centers = torch.randn(140, d), torch.randn(130, d)
    mind, eligible = torch.full((140,), torch.inf), torch.ones(140, dtype=torch.uint8)
    expected = plain_fold(x, centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e17])
def test_folding_holds_at_every_scale(product, scale):
    emulated_cuda = product()
    x = torch.randn(100, 48) * scale
    centers = x[:40] * (1 + 1e-3 * torch.randn(40, 48))
    mind, eligible = torch.full((100,), torch.inf), torch.ones(100, dtype=torch.uint8)
    expected = plain_fold(x, centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


def test_near_ties_are_decided_by_the_fixed_order(product):
    emulated_cuda = product()
    # All centers are at distance 1 within 1e-4, far below the rounding to bfloat16.
    x = torch.randn(120, 48) * 0.01
    directions = torch.nn.functional.normalize(torch.randn(130, 48), dim=1)
    x -= x @ torch.linalg.pinv(directions[:40]) @ directions[:40]  # and no row leans towards the first 40
    centers = directions * (1 + 1e-4 * torch.rand(130, 1))
    centers[40:] *= 3
    mind, eligible = torch.full((120,), torch.inf), torch.ones(120, dtype=torch.uint8)
    expected = plain_fold(x, centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


def test_the_error_of_the_sums_alone_rules_no_center_out(product):
    # Numbers that bfloat16 holds, so that rounding them moves nothing; squared distances far below 2^-23 of the norms.
    emulated_cuda = product()
    x = torch.randn(120, 300).bfloat16().float()
    x[:, 0] = 0
    centers = x.clone()
    centers[:, 0] = 2.0**-9 * (1 + torch.arange(120) % 2)
    mind, eligible = torch.full((120,), 1e-4), torch.ones(120, dtype=torch.uint8)
    expected = plain_fold(x, centers, mind, eligible)
    assert (expected < mind).all()
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


def test_more_centers_than_one_refresh_takes_are_folded_in_parts(emulated_cuda):
    x, centers = torch.randn(40, 5), torch.randn(1100, 5)
    mind, eligible = torch.full((40,), torch.inf), torch.ones(40, dtype=torch.uint8)
    expected = plain_fold(x, centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


def test_rows_that_take_no_part_may_hold_anything(emulated_cuda):
    x, centers = torch.randn(200, 20) + 50, torch.randn(16, 20) + 50
    mind, eligible = torch.full((200,), torch.inf), torch.ones(200, dtype=torch.uint8)
    x[::3], eligible[::3] = torch.nan, 0
    x[1::30], eligible[1::30] = torch.inf, 0
    expected = plain_fold(x.nan_to_num(0, 0, 0), centers, mind, eligible)
    EmulatedBackend(emulated_cuda).fold(x, centers, mind, eligible)
    assert torch.equal(mind, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rounds_make_the_picks_of_the_plain_loop_with_the_same_bits(product, device, dtype):
    emulated_cuda = product(**DEVICES[device])
    x = (torch.from_numpy(integer_pool(n=500, d=40, seed=3)) + torch.randn(500, 40) / 64).to(getattr(torch, dtype))
    indices, squared, pairs, _ = greedy(emulated_cuda, x, 50, eager=100)
    assert pairs == sum(500 - i for i in range(1, 50))
    lazy_indices, lazy_squared, lazy_pairs, _ = greedy(emulated_cuda, x, 50)
    assert lazy_indices.tolist() == indices.tolist()
    assert torch.equal(lazy_squared, squared)
    assert lazy_pairs > 0


@pytest.mark.parametrize("device", ["whole-pool", "parts"])
@pytest.mark.parametrize("name", POOLS)
def test_adversarial_pools_are_picked_greedily_in_rounds(emulated_cuda, name, device):
    emulated_cuda.configure(**DEVICES[device])
    x = torch.from_numpy(POOLS[name])
    k = min(len(x), 40)
    indices, squared, _, _ = greedy(emulated_cuda, x, k)
    assert_greedy(POOLS[name], kernels.KCenterResult(indices, squared.double().sqrt(), 0), k)


def test_few_pairs_are_measured_twice(emulated_cuda):
    # The rounds read 400 rows against 1 + 29 picks; what the bounds leave open is measured once more.
    emulated_cuda.configure(**DEVICES["one-block"])
    x = torch.randn(400, 256) + 3
    pairs = greedy(emulated_cuda, x, 30)[2]
    product = 400 * 29
    assert pairs < 2 * product + 2 * 400


@pytest.mark.parametrize("device", DEVICES)
def test_ties_go_to_the_lowest_index_across_sets_and_rounds(emulated_cuda, device):
    emulated_cuda.configure(**DEVICES[device])
    x = integer_pool(n=800, d=3, largest=1)  # 27 distinct points: nearly all distances tie
    expected = kernels.k_center(x, 60, backend="reference").indices.tolist()
    assert greedy(emulated_cuda, torch.from_numpy(x), 60)[0].tolist() == expected


def test_sets_smaller_than_the_ties_are_cut_by_index(emulated_cuda):
    # Two hundred equal points and sets of a few dozen: only the index part of the keys tells them apart.
    emulated_cuda.configure(multiprocessors=1, shared_bytes=60_000)
    x = torch.zeros(1500, 200)
    x[700:] = 1
    indices, squared, _, _ = greedy(emulated_cuda, x, 6)
    assert indices.tolist() == [0, 700, 1, 2, 3, 4]
    assert squared.tolist() == [torch.inf, 200, 0, 0, 0, 0]


def test_every_point_can_be_picked_in_rounds(emulated_cuda):
    emulated_cuda.configure(**DEVICES["one-block"])
    x = torch.from_numpy(integer_pool(n=90, d=3, largest=1))
    expected = kernels.k_center(x, 90, backend="reference").indices.tolist()
    assert greedy(emulated_cuda, x, 90)[0].tolist() == expected


@pytest.mark.slow
def test_more_picks_than_one_refresh_takes_end_the_round(emulated_cuda):
    # One set holds the whole pool, so only the limit of pending centers ends a round.
    emulated_cuda.configure(multiprocessors=1)
    x = torch.from_numpy(integer_pool(n=1040, d=2, largest=100))
    expected = kernels.k_center(x, 1030, backend="reference").indices.tolist()
    assert greedy(emulated_cuda, x, 1030)[0].tolist() == expected


def test_labels_candidates_and_first_are_respected_in_rounds(emulated_cuda):
    emulated_cuda.configure(**DEVICES["parts"])
    x = torch.from_numpy(integer_pool(n=300))
    options = {"labeled": [5, 17, 250], "candidates": list(range(10, 290))}
    expected = kernels.k_center(x, 40, backend="reference", **options)
    indices, squared, _, _ = greedy(emulated_cuda, x, 40, **options)
    assert indices.tolist() == expected.indices.tolist()
    assert torch.equal(squared.double().sqrt(), expected.radii)
    assert greedy(emulated_cuda, x, 3, first=123)[0][0] == 123


def test_strides_are_respected_in_rounds(emulated_cuda):
    x = torch.randn(200, 33)
    expected = greedy(emulated_cuda, x, 20)[0].tolist()
    wide = torch.randn(200, 40)
    wide[:, :33] = x
    for other in (x.T.contiguous().T, x.repeat_interleave(2, 0)[::2], x.repeat_interleave(3, 1)[:, ::3], wide[:, :33]):
        assert greedy(emulated_cuda, other, 20)[0].tolist() == expected


def test_rows_past_the_queue_of_rounds_do_nothing(emulated_cuda):
    x = torch.randn(60, 8)
    mind, eligible, keys = torch.full((60,), torch.inf), torch.ones(60, dtype=torch.uint8), torch.zeros(5).long()
    workspace = torch.empty(emulated_cuda.cuda_k_center_lazy_workspace(x), dtype=torch.uint8)
    emulated_cuda.cuda_k_center_eager(x, mind, eligible, keys, k=1, fold_last=True, stream=0)
    emulated_cuda.cuda_k_center_lazy_start(x, eligible, workspace, picks=1, pairs=59, stream=0)
    for _ in range(2):
        emulated_cuda.cuda_k_center_lazy_rounds(x, mind, eligible, keys, workspace, rounds=8, stream=0)
        assert workspace[8:16].view(torch.int64).item() == 5
        after = [tensor.clone() for tensor in (mind, eligible, keys)]
    assert all(torch.equal(a, b) for a, b in zip(after, (mind, eligible, keys), strict=True))


def test_rounds_that_find_no_eligible_row_end_in_an_error(emulated_cuda):
    x = torch.randn(60, 8)
    with pytest.raises(RuntimeError, match=r"made 5 of 9 picks .* \(5 rows were eligible\)"):
        greedy(emulated_cuda, x, 9, candidates=[3, 14, 15, 26, 53])


class Counted:
    """The emulated kernels; counts the bytes of the workspaces that they are given."""

    def __init__(self, module):
        self._module = module
        self.seen = {}

    def __getattr__(self, name):
        def call(*args, **options):
            for value in args:
                if isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and len(value) > 10_000:
                    self.seen[value.data_ptr()] = len(value)
            return getattr(self._module, name)(*args, **options)

        return call


def test_blocks_share_one_workspace_of_the_stated_size(emulated_cuda):
    module = Counted(emulated_cuda)
    compute = EmulatedBackend(module, eager_picks=1)
    x, centers = torch.randn(90, 70), torch.randn(20, 70)
    for block in x.split(30):
        compute.fold(block, centers, torch.full((30,), torch.inf), torch.ones(30, dtype=torch.uint8))
    (folding,) = module.seen.values()
    assert compute.workspace_bytes(x[:30]) == folding + 20
    # 1024 centers of 128 padded columns in bfloat16, three bounds of each, and the row that is subtracted.
    assert folding == 2048 * 128 + 3 * 4096 + 4 * 128
    module.seen.clear()
    compute.greedy(x, torch.full((90,), torch.inf), torch.ones(90, dtype=torch.uint8), 12, 0)
    (rounds,) = module.seen.values()
    assert compute.workspace_bytes(x, 12) == rounds + 12 * 20


def test_a_workspace_that_is_too_small_is_refused(emulated_cuda):
    x = torch.randn(60, 8)
    with pytest.raises(ValueError, match=r"workspace must have [0-9]+ bytes, and has 10"):
        emulated_cuda.cuda_k_center_lazy_start(
            x, torch.ones(60, dtype=torch.uint8), torch.empty(10, dtype=torch.uint8), picks=0, pairs=0, stream=0
        )


def test_the_public_function_counts_what_the_rounds_computed(emulated_cuda, monkeypatch):
    # `k_center(backend="cuda")` as it is, but for the device of x.
    module = importlib.import_module("poolwright.kernels.k_center")
    monkeypatch.setattr(module, "choose_backend", lambda what, backend, device: backend)
    monkeypatch.setitem(module._BACKENDS, "cuda", lambda: EmulatedBackend(emulated_cuda, eager_picks=4))
    x = torch.randn(300, 24)
    result = kernels.k_center(x, 30, labeled=[1, 2], backend="cuda")
    assert_greedy(x.numpy(), result, 30, labeled=[1, 2])
    assert 298 * 2 < result.distances_evaluated < 3 * 298 * 31
