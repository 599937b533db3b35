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
