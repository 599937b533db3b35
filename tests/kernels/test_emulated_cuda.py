"""The emulation that runs CUDA kernels on the CPU does what a device does, and reports what would hang one."""

import math

import pytest


@pytest.mark.parametrize("order", [0, 1, 5])
def test_a_cooperative_grid_sums_through_shuffles_shared_memory_atomics_and_a_grid_barrier(emulated_cuda, order):
    emulated_cuda.configure(order=order)
    assert emulated_cuda.sum_of_numbers(1000) == (499500,) * 3


def test_the_fragments_of_the_tensor_cores_are_those_of_the_manual(emulated_cuda):
    # The identity times b, where b is given column by column and comes out row by row.
    assert emulated_cuda.transposed_by_tensor_cores() == [16 * column + row for row in range(16) for column in range(8)]


def test_tensor_cores_sum_in_both_ways_that_the_bounds_must_cover(emulated_cuda):
    small = [1.5 * 2**-24] * 15
    # One after the other, each of the small products is rounded up to 2^-23.
    assert emulated_cuda.dot_by_tensor_cores([1.0] * 16, [1.0, *small], 0.0) == 1 + 15 * 2**-23
    emulated_cuda.configure(truncating=True)
    # Aligned to the largest term, they are nothing: be that term a product or what is added to.
    assert emulated_cuda.dot_by_tensor_cores([1.0] * 16, [1.0, *small], 0.0) == 1
    assert emulated_cuda.dot_by_tensor_cores([1.0] * 16, [0.0, *small], -1.0) == -1
    assert emulated_cuda.dot_by_tensor_cores([1.0] * 16, [0.0, *small], 0.0) == 15 * 1.5 * 2**-24
    assert emulated_cuda.dot_by_tensor_cores([1.0] * 16, [1.0] * 16, 0.5) == 16.5
    assert math.isnan(emulated_cuda.dot_by_tensor_cores([1.0] * 16, [math.inf, -math.inf, *[0.0] * 14], 0.0))


@pytest.mark.parametrize(
    ("kernel", "report"),
    [
        ("barrier_in_a_branch", "deadlock in block 0: thread 0 is at the block barrier .*, thread 40 is ended"),
        ("two_barriers", "deadlock in block 0: thread 0 .* thread 40 is at the block barrier"),
        ("shuffle_with_a_missing_lane", "waits for a thread that has ended"),
        ("write_past_shared", "wrote past its dynamic shared memory"),
        ("grid_barrier_left_out", "other blocks left out"),
        ("grid_barrier_in_a_plain_launch", "not launched as cooperative"),
        ("too_many_blocks", "more cooperative blocks than fit"),
    ],
)
@pytest.mark.parametrize("order", [0, 3])
def test_what_would_hang_or_corrupt_a_device_is_reported(emulated_cuda, kernel, report, order):
    emulated_cuda.configure(order=order)
    with pytest.raises(RuntimeError, match=report):
        emulated_cuda.run_wrong(kernel)


@pytest.mark.parametrize("kernel", ["missing_barrier", "unawaited_copy"])
def test_what_is_read_too_early_is_nan(emulated_cuda, kernel):
    assert any(math.isnan(value) for value in emulated_cuda.run_wrong(kernel))
