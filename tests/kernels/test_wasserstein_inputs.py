"""What wasserstein accepts, in which form results come back, and how it refuses the rest."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from poolwright.kernels import WassersteinResult, wasserstein

from .point_sets import emd, ragged, random_weights

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.standard_normal((9, 5)).astype(np.float32)
EXPECTED = emd(X, Y)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def padded_rows(array):
    wide = np.full((2 * array.shape[0], 3 * array.shape[1]), np.nan, array.dtype)
    wide[::2, ::3] = array
    return wide[::2, ::3]


FORMS = {
    "plain": lambda a: a,
    "fortran": np.asfortranarray,
    "strided": padded_rows,
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian": lambda a: a.astype(">f4"),
    "read-only": read_only,
    "float64": lambda a: a.astype(np.float64),
    "tensor": torch.from_numpy,
    "requires-grad": lambda a: torch.from_numpy(a).requires_grad_(),
    "transposed-tensor": lambda a: torch.from_numpy(np.ascontiguousarray(a.T)).T,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["exact", "sinkhorn", "gaussian", "sliced"])
def test_every_form_of_the_points_gives_the_same_in_kind(form, method):
    before = X.copy()
    got = wasserstein(FORMS[form](X), FORMS[form](Y), method=method)
    assert float(got) == pytest.approx(float(wasserstein(X, Y, method=method)), rel=1e-6)
    if isinstance(FORMS[form](X), torch.Tensor):
        assert isinstance(got, torch.Tensor)
        assert (got.shape, got.dtype, got.requires_grad) == ((), torch.float64, False)
    else:
        assert isinstance(got, float)
    assert np.array_equal(X, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_points_are_widened_exactly(dtype):
    x, y = torch.from_numpy(X).to(dtype), torch.from_numpy(Y).to(dtype)
    got = wasserstein(x, y)
    assert float(got) == pytest.approx(emd(x.float().numpy(), y.float().numpy()), rel=1e-6)
    assert float(wasserstein(x, torch.from_numpy(Y).to(torch.float64))) == pytest.approx(
        emd(x.float().numpy(), Y), rel=1e-6
    )


def test_lists_stacks_and_offsets_agree():
    xs, ys = ragged(np.random.default_rng(1), 9, 4)
    a, b = (random_weights(np.random.default_rng(2), sets) for sets in (xs, ys))
    offsets = [np.cumsum([0, *map(len, sets)]) for sets in (xs, ys)]
    for weights in ({}, {"x_weights": a, "y_weights": b}):
        expected = wasserstein(xs, ys, **weights)
        flat = {name: np.concatenate(value) for name, value in weights.items()}
        got = wasserstein(np.concatenate(xs), np.concatenate(ys), x_offsets=offsets[0], y_offsets=offsets[1], **flat)
        assert np.array_equal(got, expected)
        half = {name: value[3:6] for name, value in weights.items()}
        part = wasserstein(
            np.concatenate(xs),
            ys[3:6],
            x_offsets=torch.from_numpy(offsets[0])[3:7],
            **({} if not half else {"x_weights": flat["x_weights"], "y_weights": half["y_weights"]}),
        )
        assert np.array_equal(part, expected[3:6])
    stack = np.random.default_rng(3).standard_normal((2, 6, 8, 3)).astype(np.float32)
    assert np.array_equal(wasserstein(stack[0], stack[1]), wasserstein(list(stack[0]), list(stack[1])))
    tensors = wasserstein([torch.from_numpy(x) for x in xs], [torch.from_numpy(y) for y in ys])
    assert isinstance(tensors, torch.Tensor)
    assert np.array_equal(tensors.numpy(), wasserstein(xs, ys))


def test_one_set_against_many_is_not_copied_and_not_confused():
    ys = ragged(np.random.default_rng(4), 20, 5)[1]
    assert np.array_equal(wasserstein([X] * 20, ys), [wasserstein(X, y) for y in ys])


def test_a_memory_map_is_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert wasserstein(mapped, Y) == wasserstein(X, Y)


def test_no_pairs_are_legal():
    assert wasserstein([], []).shape == (0,)
    assert wasserstein([], [], bounds=True).method == ()


def test_pairs_may_differ_in_dimensions():
    xs, ys = [X, X[:, :1], X[:, :3]], [Y, Y[:, :1], Y[:, :3]]
    for method in ("exact", "sinkhorn", "gaussian", "sliced"):
        got = wasserstein(xs, ys, method=method)
        assert got == pytest.approx([wasserstein(x, y, method=method) for x, y in zip(xs, ys, strict=True)], rel=1e-6)


def test_bounds_come_in_kind():
    found = wasserstein(torch.from_numpy(X), torch.from_numpy(Y), bounds=True)
    assert isinstance(found, WassersteinResult)
    assert found.method == "exact"
    assert float(found.lower) == pytest.approx(float(found.upper), rel=1e-5)
    assert found.converged.dtype == torch.bool
    many = wasserstein([X], [Y], bounds=True, method="sinkhorn")
    assert isinstance(many.lower, np.ndarray)
    assert many.method == ("sinkhorn",)


def test_points_of_weight_zero_play_no_part():
    spoiled = X.copy()
    spoiled[3] = np.nan
    weights = np.ones(12)
    weights[3] = 0
    for method in ("exact", "sinkhorn", "gaussian", "sliced"):
        got = wasserstein(spoiled, Y, method=method, x_weights=weights)
        assert got == pytest.approx(wasserstein(np.delete(X, 3, axis=0), Y, method=method), rel=1e-6)


NAN, INF = X.copy(), X.copy()
NAN[4, 2], INF[0, 0] = np.nan, -np.inf

REFUSED = {
    "NaN": (([X, NAN], [Y, Y]), {}, ValueError, "pair 1: x holds NaN or infinity"),
    "infinity": (([X, Y], [Y, INF]), {}, ValueError, "pair 1: y holds NaN or infinity"),
    "NaN on a line": (([NAN[:, 2:3]], [X[:, :1]]), {}, ValueError, "pair 0: x holds NaN"),
    "no points": (([X, X[:0]], [Y, Y]), {}, ValueError, "pair 1: x has no points"),
    "no dimensions": (([X[:, :0]], [Y[:, :0]]), {}, ValueError, "pair 0: the points have no dimensions"),
    "other dimensions": (([X, X], [Y, Y[:, :3]]), {}, ValueError, "pair 1: x has 5 dimensions and y has 3"),
    "other number": (([X, X], [Y]), {}, ValueError, "xs holds 2 point sets and ys 1"),
    "one and many": ((X, [Y, Y]), {}, ValueError, r"xs is one set and ys are many: repeat it \(\[set\] \* 2"),
    "vector": (([X[0]], [Y]), {}, ValueError, r"xs\[0\] must be a matrix .* shape \(5,\)"),
    "integers": ((X.astype(int), Y), {}, TypeError, "xs must be float32.*not int64"),
    "no array": (([[1.0]], [Y]), {}, TypeError, r"xs\[0\] must be a numpy array or a torch tensor, not list"),
    "no sets": ((3, Y), {}, TypeError, "xs must be a matrix, a list of matrices"),
    "negative weight": (
        ([X, X], [Y, Y]),
        {"x_weights": [np.ones(12), -np.ones(12)]},
        ValueError,
        "pair 1: x_weights is negative",
    ),
    "NaN weight": ((X, Y), {"y_weights": np.full(9, np.nan)}, ValueError, "pair 0: y_weights holds NaN"),
    "zero weights": ((X, Y), {"y_weights": np.zeros(9)}, ValueError, "pair 0: y_weights are all zero"),
    "few weights": ((X, Y), {"x_weights": np.ones(3)}, ValueError, "pair 0: x has 12 points and 3 weights"),
    "falling offsets": (
        (X, [Y, Y]),
        {"x_offsets": [0, 5, 5]},
        ValueError,
        "pair 1: x has no points",
    ),
    "far offsets": ((X, [Y]), {"x_offsets": [0, 13]}, ValueError, "x_offsets run from 0 to 13, and xs has 12 rows"),
    "offsets of a list": (([X], [Y]), {"x_offsets": [0, 12]}, ValueError, "x_offsets are for xs in one matrix"),
    "p": ((X, Y), {"p": 0.5}, ValueError, "p must be from 1"),
    "p NaN": ((X, Y), {"p": float("nan")}, ValueError, "p must be from 1"),
    "p of gaussian": ((X, Y), {"p": 1, "method": "gaussian"}, ValueError, "p must be 2"),
    "method": ((X, Y), {"method": "fast"}, ValueError, "method must be one of .*not 'fast'"),
    "backend": ((X, Y), {"backend": "gpu"}, ValueError, "backend must be one of .*not 'gpu'"),
    "method and backend": ((X, Y), {"method": "sliced", "backend": "pot"}, ValueError, '"sliced" runs on "torch"'),
    "epsilon": ((X, Y), {"epsilon": 0.0}, ValueError, "epsilon must be positive"),
    "iterations": ((X, Y), {"max_iterations": 0}, ValueError, "max_iterations must be at least 1"),
    "limit": ((X, Y), {"memory_limit": 0}, ValueError, "memory_limit must be a positive"),
    "too little": (
        ([X, X], [Y, X]),
        {"memory_limit": 100, "method": "exact"},
        ValueError,
        r"memory_limit = 100 bytes is too little for pair 0 \(12 and 9 points\)",
    ),
    "two devices": (
        (torch.zeros(2, 2), torch.zeros(2, 2, device="meta")),
        {},
        ValueError,
        "all points must be on one device",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_legal_is_refused_by_name(name):
    arguments, options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        wasserstein(*arguments, **options)


def test_nan_is_named_by_every_method():
    for method in ("exact", "sinkhorn", "gaussian", "sliced"):
        with pytest.raises(ValueError, match="pair 2: y holds NaN"):
            wasserstein([X] * 3, [Y, Y, NAN], method=method)


def test_a_tight_limit_uses_fewer_threads_and_changes_nothing(native):
    xs, ys = ragged(np.random.default_rng(5), 30, 6)
    need = max(native.transport_bytes(len(x), len(y), 6) for x, y in zip(xs, ys, strict=True))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        tight = wasserstein(xs, ys, method="exact", memory_limit=need)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(tight, wasserstein(xs, ys))
    with pytest.raises(ValueError, match="is too little for pair"):
        wasserstein(xs, ys, method="exact", memory_limit=need - 1)


def test_several_threads_at_once_get_their_own_results():
    batches = [ragged(np.random.default_rng(i), 10, 8) for i in range(8)]
    expected = [wasserstein(xs, ys).tolist() for xs, ys in batches]
    with ThreadPoolExecutor(8) as executor:
        assert list(executor.map(lambda batch: wasserstein(*batch).tolist(), batches)) == expected


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_child_computes_the_same_and_does_not_hang(native):
    code = """
        import os, numpy as np, torch
        from poolwright.kernels import wasserstein
        torch.set_num_threads(2)
        x = list(np.random.default_rng(0).standard_normal((8, 60, 20)).astype(np.float32))
        expected = wasserstein(x, x[::-1]).tolist()
        child = os.fork()
        if child == 0:
            os._exit(0 if wasserstein(x, x[::-1]).tolist() == expected else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0"


@pytest.mark.parametrize(("pairs", "threads"), [(1, 1), (3, 2)])
def test_an_interrupt_stops_a_long_run(native, pairs, threads):
    code = f"""
        import os, signal, threading, numpy as np, torch
        from poolwright.kernels import wasserstein
        torch.set_num_threads({threads})
        x = np.random.default_rng(0).standard_normal(({pairs}, 6000, 2)).astype(np.float32)
        try:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            wasserstein(list(x), list(x + 1 + 0.1 * x[:, ::-1]), method="exact", memory_limit=1 << 40)
        except KeyboardInterrupt:
            print("stopped")
    """
    assert run(code) == "stopped"
