"""D^2 sampling: its distribution, its distances, and that nothing but the seed and the data decides."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from poolwright import kernels
from poolwright.kernels import Outer, _seeding, kmeans_plus_plus, reference

from . import memory
from .conftest import COMPUTES, select_level
from .pools import adversarial_pools

RNG = np.random.default_rng(3)
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
LEFT, RIGHT = (RNG.standard_normal((90, d)).astype(np.float32) for d in (7, 21))


@pytest.fixture(params=COMPUTES)
def seeding(request, monkeypatch):
    backend, _, level = request.param.partition("-")
    if level:
        select_level(level, monkeypatch)
    return lambda *args, **options: kmeans_plus_plus(*args, backend=backend, **options)


def squared_distances(x) -> torch.Tensor:
    """All pairs, float64; outer products are made."""
    if isinstance(x, Outer):
        left, right = (torch.as_tensor(np.asarray(part)).double() for part in (x.left, x.right))
        rows = torch.einsum("nc,nd->ncd", left, right).flatten(1)
    else:
        rows = torch.as_tensor(x).double()
    return (rows[:, None] - rows[None]).square().sum(2)


def probability(squared: torch.Tensor, sequence: tuple[int, ...]) -> float:
    """The chance of a sequence of picks, the first uniform, enumerated."""
    chance, nearest = 1 / len(squared), squared[sequence[0]].clone()
    for row in sequence[1:]:
        chance *= float(nearest[row] / nearest.sum())
        nearest = torch.minimum(nearest, squared[row])
    return chance


SMALL = {
    "rows": np.float32([[0, 0], [1, 0], [0, 3], [6, 6], [7, 6]]),
    "outer": Outer(RNG.standard_normal((5, 2)).astype(np.float32), RNG.standard_normal((5, 3)).astype(np.float32)),
}


@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
@pytest.mark.parametrize("form", SMALL)
def test_sequences_have_the_probabilities_of_eager_sampling(form, backend):
    if backend == "native" and not kernels.build_info()["native"]:
        pytest.skip("not built")
    x, generator, draws = SMALL[form], torch.Generator().manual_seed(5), 2000 if backend != "torch" else 1000
    squared = squared_distances(x)
    sequences = list(itertools.permutations(range(5), 3))
    expected = draws * np.array([probability(squared, sequence) for sequence in sequences])
    counts = dict.fromkeys(sequences, 0)
    trials = 0
    for _ in range(draws):
        result = kmeans_plus_plus(x, 3, seed=generator, backend=backend)
        counts[tuple(np.asarray(result.indices).tolist())] += 1
        trials += result.trials
    seen = np.array(list(counts.values()), dtype=float)
    rare = expected < 5  # too few for the chi-square distribution: one class together
    seen, expected = np.append(seen[~rare], seen[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    possible = expected > 0
    assert stats.chisquare(seen[possible], expected[possible]).pvalue > 1e-3
    if backend != "reference":
        assert trials > 2 * draws, "no draw was ever rejected: the test has not reached the rejection"


def test_sampling_stays_exact_when_bounds_are_stale_for_many_picks():
    x = RNG.standard_normal((400, 3)).astype(np.float32) * np.geomspace(0.1, 10, 400, dtype=np.float32)[:, None]
    ours, eager = [], []
    for seed in range(150):
        ours.append(kmeans_plus_plus(x, 40, seed=seed).potential)
        eager.append(reference.kmeans_plus_plus(torch.from_numpy(x), 40, torch.Generator().manual_seed(seed))[1])
    assert stats.ks_2samp(ours, eager).pvalue > 1e-3


@pytest.mark.parametrize("name", adversarial_pools())
def test_picks_differ_and_the_potential_is_exact(seeding, name):
    x = adversarial_pools()[name]
    k = min(len(x), 25)
    result = seeding(x, k, seed=1)
    assert len(set(result.indices.tolist())) == k
    left = np.setdiff1d(np.arange(len(x)), result.indices)
    exact = squared_distances(x)[left][:, result.indices].min(1).values.sum() if len(left) else 0.0
    assert result.potential == pytest.approx(float(exact), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_distances_of_outer_products_are_those_of_the_explicit_array(level, native, scale):
    left, right = LEFT.copy() * np.float32(scale), RIGHT.copy()
    left[40:50], right[40:50] = left[:10], right[:10]  # equal to centers
    left[50:60], right[50:60] = left[:10] * 2, right[:10] * np.float32(1 + 1e-5)
    left[60], left[61], right[62] = 0, left[1] * np.float32(1 + 3e-6), 0
    left[61 + 2], right[61 + 2] = left[2], right[2] * np.float32(1 + 1e-6)  # near a center
    expected = squared_distances(Outer(left, right))[:, :10].min(1).values.numpy()
    got = {}
    for threads in (1, 3):
        mind = np.full(90, np.inf, np.float32)
        native.outer_fold(left, right, left[:10].copy(), right[:10].copy(), mind, threads=threads)
        np.testing.assert_allclose(mind, expected, rtol=1e-5)
        assert (mind[:10] == 0).all()
        assert (mind[40:50] == 0).all()
        got[threads] = mind
    assert np.array_equal(got[1], got[3])
    few = np.full(3, np.inf, np.float32)
    native.outer_fold(left[61:64], right[61:64], left[:10].copy(), right[:10].copy(), few)
    assert np.array_equal(few, got[1][61:64]), "few rows, compared without the filter, get the same bits"


def test_every_level_gives_the_same_bits(native):
    left, right = (RNG.standard_normal((301, d)).astype(np.float32) + 3 for d in (40, 70))
    minima = []
    for level in kernels.build_info()["levels"]:
        mind = np.full(301, np.inf, np.float32)
        native.outer_fold(left, right, left[:77].copy(), right[:77].copy(), mind, level=level)
        minima.append(mind)
    assert all(np.array_equal(mind, minima[0]) for mind in minima)


def test_ineligible_rows_are_left_alone_and_wrong_arrays_refused(native):
    mind, eligible = np.full(90, np.inf, np.float32), np.arange(90).astype(np.uint8) % 2
    native.outer_fold(LEFT, RIGHT, LEFT[:4].copy(), RIGHT[:4].copy(), mind, eligible)
    assert (np.isinf(mind) == (eligible == 0)).all()
    with pytest.raises(ValueError, match="right must have size 90"):
        native.outer_fold(LEFT, RIGHT[:5], LEFT[:4].copy(), RIGHT[:4].copy(), mind)
    with pytest.raises(ValueError, match="center_right must have size 4"):
        native.outer_fold(LEFT, RIGHT, LEFT[:4].copy(), RIGHT[:3].copy(), mind)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_plain_torch_folds_outer_products_as_the_explicit_array(scale):
    rng = np.random.default_rng(0)
    left = torch.from_numpy(rng.standard_normal((300, 7)) * scale).float()
    right = torch.from_numpy(rng.standard_normal((300, 12)) + 5).float()
    left[1::9], right[1::9] = left[0], right[0]  # copies of a center, and rows near it
    left[2::9], right[2::9] = left[0] * (1 + 1e-6), right[0]
    g = torch.einsum("nc,nd->ncd", left.double(), right.double()).flatten(1)
    expected = torch.cdist(g, g[:40], compute_mode="donot_use_mm_for_euclid_dist").square().amin(1)
    nearest, eligible = torch.full((300,), torch.inf), torch.ones(300, dtype=torch.uint8)
    _seeding.torch_fold((left, right), (left[:40], right[:40]), nearest, eligible)
    assert (nearest[1::9] == 0).all()
    torch.testing.assert_close(nearest.double(), expected, rtol=1e-5, atol=0)


def outer_forms():
    reversed_left = np.ascontiguousarray(LEFT[::-1])[::-1]
    return {
        "fortran": (np.asfortranarray(LEFT), np.asfortranarray(RIGHT)),
        "steps": (np.repeat(LEFT, 3, axis=1)[:, ::3], np.repeat(RIGHT, 2, axis=0)[::2]),
        "reversed-and-float64": (reversed_left, RIGHT.astype(np.float64)),
        "grad": (torch.from_numpy(LEFT).requires_grad_(), torch.from_numpy(RIGHT)),
    }


@pytest.mark.parametrize("form", outer_forms())
def test_every_form_of_factors_gives_the_same_picks(seeding, form):
    expected = seeding(Outer(LEFT, RIGHT), 20, seed=4)
    result = seeding(Outer(*outer_forms()[form]), 20, seed=4)
    assert result.indices.tolist() == expected.indices.tolist()
    assert result.potential == expected.potential
    assert isinstance(result.indices, torch.Tensor if form == "grad" else np.ndarray)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_read_as_they_are(seeding, dtype):
    left, right = torch.from_numpy(LEFT).to(dtype), torch.from_numpy(RIGHT).to(dtype)
    wide = seeding(Outer(left.float(), right.float()), 20, seed=4)
    assert seeding(Outer(left, right), 20, seed=4).indices.tolist() == wide.indices.tolist()


@pytest.mark.parametrize("outer", [False, True])
def test_the_seed_alone_decides_not_threads_nor_the_memory_limit(native, outer):
    x = RNG.standard_normal((3000, 24)).astype(np.float32)
    x.flags.writeable = False
    given = Outer(x[:, :8].astype(np.float64), x) if outer else x.astype(np.float64)
    whole = kmeans_plus_plus(given, 150, seed=9, labeled=[5])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        blocks = kmeans_plus_plus(given, 150, seed=9, labeled=[5], memory_limit=3000 * 16 + 32 * 24 * 600)
    finally:
        torch.set_num_threads(threads)
    assert whole.indices.tolist() == blocks.indices.tolist()
    assert whole.potential == blocks.potential
    assert whole.indices.tolist() != kmeans_plus_plus(given, 150, seed=10, labeled=[5]).indices.tolist()


def test_a_generator_is_advanced(seeding):
    generator = torch.Generator().manual_seed(9)
    first, second = (seeding(LEFT, 10, seed=generator).indices.tolist() for _ in range(2))
    assert first == seeding(LEFT, 10, seed=9).indices.tolist() != second


def test_labeled_points_are_centers_and_candidates_bound_the_picks(seeding):
    x = np.float32([[0], [0], [5], [5], [9]])
    for seed in range(10):
        assert seeding(x, 1, seed=seed, labeled=[0, 2]).indices.tolist() == [4]
        assert seeding(x, 2, seed=seed, labeled=[0], candidates=[1, 2]).indices.tolist() == [2, 1]
    assert seeding(x, 0, labeled=range(5)).potential == 0
    assert seeding(x, 0, labeled=[0]).potential == 25 + 25 + 81


def test_the_first_pick_is_any_the_longest_or_the_one_named(seeding):
    x = np.float32([[1, 0], [0, -3], [3, 0], [1, 1]])
    assert {int(seeding(x, 1, seed=seed).indices[0]) for seed in range(40)} == {0, 1, 2, 3}
    assert seeding(x, 1, first="largest-norm").indices.tolist() == [1]
    assert seeding(x, 1, first="largest-norm", candidates=[0, 3]).indices.tolist() == [3]
    assert seeding(x, 2, first=3).indices[0] == 3
    outer = Outer(np.float32([[1], [5], [2]]), np.float32([[9, 0], [1, 0], [0, 5]]))
    assert seeding(outer, 1, first="largest-norm").indices.tolist() == [2]


def test_points_at_distance_zero_are_drawn_uniformly(seeding):
    x, counts = np.ones((5, 3), np.float32), np.zeros(5)
    for seed in range(500):
        result = seeding(x, 3, seed=seed)
        assert len(set(result.indices.tolist())) == 3
        counts[result.indices] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    assert sorted(seeding(x, 5).indices.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("x", "k", "options", "error", "message"),
    [
        (LEFT, 91, {}, ValueError, "only 90 points are eligible"),
        (LEFT, 1, {"first": "longest"}, ValueError, "largest-norm"),
        (LEFT, 1, {"first": 3, "labeled": [1]}, ValueError, "leave it out"),
        (LEFT, 1, {"first": 90}, ValueError, "no eligible row"),
        (LEFT, 1, {"seed": 0.5}, TypeError, "integer"),
        (LEFT, 1, {"memory_limit": 100}, ValueError, "too little"),
        (LEFT, 1, {"memory_limit": "1GB"}, TypeError, "memory_limit must be an integer"),
        (Outer(LEFT, RIGHT), 1, {"memory_limit": 90 * 16 + 32 * 7}, ValueError, "memory_limit = 1664 .* at least 2112"),
        (Outer(LEFT * 1e25, RIGHT * 1e-25), 1, {}, ValueError, "rows of left with values above"),
        (Outer(LEFT, RIGHT[:5]), 1, {}, ValueError, "left has 90 rows and right has 5"),
        (Outer(LEFT, RIGHT[0]), 1, {}, ValueError, "right must be a matrix"),
        (Outer(LEFT, RIGHT.astype(int)), 1, {}, TypeError, "right must be float32"),
        (Outer(LEFT, np.where(RIGHT > 2, np.nan, RIGHT)), 1, {}, ValueError, "rows of right with NaN"),
        (Outer(LEFT * 1e10, RIGHT * 1e10), 1, {}, ValueError, "outer products reach.*rescale"),
    ],
)
def test_wrong_input_is_refused_with_a_way_out(seeding, x, k, options, error, message):
    with pytest.raises(error, match=message):
        seeding(x, k, **options)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend must be"):
        kmeans_plus_plus(LEFT, 1, backend="opencl")


SEEDING = """
import sys
kernels.kmeans_plus_plus(warm, 5)
kernels.kmeans_plus_plus(kernels.Outer(warm, warm), 5)
x = np.load(sys.argv[1], mmap_mode="r")
given = kernels.Outer(x[:, :64], x) if sys.argv[2] == "outer" else x
with Peak() as peak:
    kernels.kmeans_plus_plus(given, 8)
print(peak.bytes / x.nbytes)
"""


@linux
@pytest.mark.parametrize("form", ["rows", "outer"])
def test_adds_at_most_15_percent_of_the_input_in_anonymous_memory(form, native, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((100_000, 512), dtype=np.float32))
    assert 0 <= float(memory.run(SEEDING, str(tmp_path / "x.npy"), form)) < 0.15


UNIFORM = """
import sys
kernels.kmeans_plus_plus(warm, 5)
x = np.ones((6_000_000, 1), np.float32)
x[1] = 0
with Peak() as peak:
    kernels.kmeans_plus_plus(x, int(sys.argv[1]))
print(peak.bytes / len(x))
"""


@linux
@pytest.mark.parametrize(("k", "most"), [(2, 13), (3, 18)])
def test_a_row_takes_16_bytes(k, most, native):
    # The first pick is uniform, and so is what is left after two distinct points: that takes 8 bytes more.
    assert float(memory.run(UNIFORM, str(k))) <= most


def test_uniform_draws_reach_every_chunk(monkeypatch):
    monkeypatch.setattr(_seeding, "_CHUNK", 64)
    x, counts = np.zeros((200, 2), np.float32), np.zeros(200)
    candidates = np.arange(0, 200, 2)
    for seed in range(300):
        counts[kmeans_plus_plus(x, 4, seed=seed, candidates=candidates).indices] += 1
    assert not counts[1::2].any()
    assert stats.chisquare(counts[::2]).pvalue > 1e-3
