"""The extension itself: the fixed order of its sums, levels, threads, DLPack, signals and forks."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from poolwright import kernels

INFO = kernels.build_info()

RNG = np.random.default_rng(3)


def fixed_order(x: np.ndarray, center: np.ndarray) -> np.ndarray:
    """The sum that every backend promises: 16 interleaved float32 sums, halved 16 -> 8 -> 4 -> 2 -> 1."""
    n, d = x.shape
    lanes = np.zeros((n, 16), np.float32)
    for start in range(0, d, 16):
        difference = x[:, start : start + 16].astype(np.float32) - center[start : start + 16].astype(np.float32)
        lanes[:, : difference.shape[1]] += difference * difference
    for half in (8, 4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return lanes[:, 0]


def fold(native, x, centers, **options):
    mind = np.full(len(x), np.inf, np.float32)
    best = native.k_center_fold(x, centers, mind, **options)
    return mind, best


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("d", [0, 1, 3, 15, 16, 17, 48, 100])
def test_sums_follow_the_fixed_order_on_every_level(native, level, d, dtype):
    x = RNG.standard_normal((77, d)).astype(dtype)
    centers = RNG.standard_normal((3, d)).astype(np.float32)
    expected = np.minimum.reduce([fixed_order(x, center) for center in centers])
    mind, (index, value) = fold(native, x, centers)
    assert np.array_equal(mind, expected)
    assert (index, value) == (int(expected.argmax()), float(expected.max()))
    for other in (np.asfortranarray(x), x[::-1, ::-1].copy()[::-1, ::-1]):
        assert np.array_equal(fold(native, other, centers)[0], expected)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_no_bit(native, level, threads):
    x = RNG.standard_normal((5000, 40)).astype(np.float32)
    centers = RNG.standard_normal((9, 40)).astype(np.float32)
    alone, best_alone = fold(native, x, centers, threads=1)
    together, best_together = fold(native, x, centers, threads=threads)
    assert np.array_equal(alone, together)
    assert best_alone == best_together


def test_the_farthest_of_equal_points_is_the_lowest_for_any_number_of_threads(native, level):
    x = np.ones((100_000, 16), np.float32)
    for threads in (1, 2, 5):
        assert fold(native, x, np.zeros((1, 16), np.float32), threads=threads)[1] == (0, 16.0)


@pytest.mark.parametrize("d", [1, 16])
def test_every_half_is_widened_exactly(native, level, d):
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    x = np.repeat(halves[:, None], d, axis=1)
    for center in (0.0, 1.0):
        centers = np.full((1, d), center, np.float32)
        assert np.array_equal(fold(native, x, centers)[0], fixed_order(x, centers[0]))


@pytest.mark.parametrize("d", [1, 16])
def test_every_bfloat_is_widened_exactly(native, level, d):
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16)
    values = values[values.float().abs() < 1e15]
    x = values[:, None].repeat(1, d)
    for center in (0.0, 1.0):
        centers = np.full((1, d), center, np.float32)
        assert np.array_equal(fold(native, x, centers)[0], fixed_order(x.float().numpy(), centers[0]))


def test_flushing_of_denormals_changes_no_bit(native, level):
    x = (RNG.standard_normal((64, 33)) * 1e-21).astype(np.float32)  # the squares are denormal
    centers = np.zeros((1, 33), np.float32)
    expected, _ = fold(native, x, centers)
    torch.set_flush_denormal(True)
    try:
        flushed, _ = fold(native, x, centers)
    finally:
        torch.set_flush_denormal(False)
    assert (expected > 0).any()
    assert np.array_equal(expected.view(np.uint32), flushed.view(np.uint32))


def test_ineligible_rows_are_neither_folded_nor_found(native, level):
    x = np.arange(20, dtype=np.float32)[:, None]
    eligible = np.zeros(20, np.uint8)
    eligible[[3, 9, 12]] = 1
    mind, best = fold(native, x, np.zeros((1, 1), np.float32), eligible=eligible)
    assert best == (12, 144.0)
    assert np.isinf(mind[eligible == 0]).all()
    assert fold(native, x, np.zeros((1, 1), np.float32), eligible=np.zeros(20, np.uint8))[1] == (-1, -1.0)


def test_the_variable_and_the_argument_choose_the_level(native, monkeypatch):
    monkeypatch.delenv("POOLWRIGHT_CPU_LEVEL", raising=False)
    assert native.cpu_level() == INFO["levels"][-1]
    monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", "base")
    assert native.cpu_level() == "base"
    assert native.cpu_level(INFO["levels"][-1]) == INFO["levels"][-1]
    assert kernels.build_info()["environment"]["POOLWRIGHT_CPU_LEVEL"] == "base"


def test_an_unknown_level_is_refused_by_name(native, monkeypatch):
    monkeypatch.setenv("POOLWRIGHT_CPU_LEVEL", "sse9")
    with pytest.raises(ValueError, match=r"POOLWRIGHT_CPU_LEVEL=sse9.*base"):
        kernels.k_center(np.zeros((2, 2), np.float32), 1)
    assert "sse9" in kernels.build_info()["level_error"]


def test_a_process_started_at_the_lowest_level_picks_what_the_highest_does(native, monkeypatch):
    monkeypatch.delenv("POOLWRIGHT_CPU_LEVEL", raising=False)
    x = np.random.default_rng(0).standard_normal((300, 50)).astype(np.float32)
    result = kernels.k_center(x, 100)
    code = """
        import numpy as np, poolwright.kernels as kernels
        x = np.random.default_rng(0).standard_normal((300, 50)).astype(np.float32)
        result = kernels.k_center(x, 100)
        print(kernels.build_info()["level"], result.indices.tolist(), result.radii.tolist())
    """
    expected = f"base {result.indices.tolist()} {result.radii.tolist()}"
    assert run(code, POOLWRIGHT_CPU_LEVEL="base") == expected


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_several_threads_at_once_get_their_own_results(native):
    pools = [np.random.default_rng(i).standard_normal((3000, 32)).astype(np.float32) for i in range(8)]
    expected = [kernels.k_center(x, 40).indices.tolist() for x in pools]
    with ThreadPoolExecutor(8) as executor:
        got = list(executor.map(lambda x: kernels.k_center(x, 40).indices.tolist(), pools))
    assert got == expected


def test_a_forked_child_computes_the_same_and_does_not_hang(native):
    # Cosine, so that torch's own parallel loops run in the child as well as ours.
    code = """
        import os, numpy as np, torch, poolwright.kernels as kernels
        x = np.random.default_rng(0).standard_normal((20000, 64)).astype(np.float32)
        torch.from_numpy(x).mul(2).sum()
        torch.set_num_threads(2)
        expected = kernels.k_center(x, 10, metric="cosine").indices.tolist()
        child = os.fork()
        if child == 0:
            same = kernels.k_center(x, 10, metric="cosine").indices.tolist() == expected
            os._exit(0 if same and torch.get_num_threads() == 2 else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code) == "0"


def test_an_interrupt_stops_a_long_run(native):
    code = """
        import os, signal, threading, numpy as np, poolwright.kernels as kernels
        x = np.random.default_rng(0).standard_normal((200000, 64)).astype(np.float32)
        kernels.k_center(x, 1)
        try:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            kernels.k_center(x, 200000)  # hours
        except KeyboardInterrupt:
            print("stopped")
    """
    assert run(code) == "stopped"


class OldProducer:
    """An array library from before DLPack 1.0: no max_version, an unversioned capsule."""

    def __init__(self, tensor):
        self._tensor = tensor

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()

    def __dlpack__(self, *, stream=None):
        return self._tensor.__dlpack__()


def test_capsules_of_before_dlpack_1_are_read(native):
    x = torch.arange(12.0).reshape(4, 3)
    mind = torch.full((4,), torch.inf)
    assert native.k_center_fold(OldProducer(x), OldProducer(x[:1].clone()), mind) == (3, 243.0)
    assert mind.tolist() == [0.0, 27.0, 108.0, 243.0]


def bad_arguments():
    x, centers = np.zeros((4, 3), np.float32), np.zeros((2, 3), np.float32)
    mind, eligible = np.zeros(4, np.float32), np.ones(4, np.uint8)
    frozen = mind.copy()
    frozen.flags.writeable = False
    return {
        "no array": (([1], centers, mind), TypeError, "x must be an array with __dlpack__.*list"),
        "x of integers": ((x.astype(np.int32), centers, mind), TypeError, "x must be float32.*not int32"),
        "x a vector": ((x[0], centers, mind), ValueError, "x must have 2 dimensions, not 1"),
        "centers of another width": ((x, centers[:, :2].copy(), mind), ValueError, "centers must have size 3"),
        "centers of another type": ((x, centers.astype(np.float16), mind), TypeError, "centers must be float32"),
        "centers not contiguous": ((x, np.asfortranarray(centers), mind), ValueError, "centers must be contig"),
        "mind too short": ((x, centers, mind[:3]), ValueError, "mind must have size 4 along axis 0, not 3"),
        # numpy before 2.1 refuses the export of a read-only array itself, with BufferError.
        "mind read-only": ((x, centers, frozen), (ValueError, BufferError), "mind is read-only|readonly array"),
        "eligible of another type": ((x, centers, mind, eligible.astype(bool)), TypeError, "eligible.*bool"),
    }


@pytest.mark.parametrize("name", bad_arguments())
def test_arrays_that_do_not_fit_are_refused_by_name(native, name):
    arguments, error, message = bad_arguments()[name]
    with pytest.raises(error, match=message):
        native.k_center_fold(*arguments)


def test_every_family_runs_the_best_code_it_has_for_a_level(native, level):
    levels = native.table_levels(level)
    widest = "avx512" if level == "amx" else level
    assert levels == {"fold": widest, "advance": level, "outer": widest, "transport": widest}
