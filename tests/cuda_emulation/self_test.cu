// Kernels that test the emulation: one that uses everything rightly, and one for each mistake that it must report.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "../../csrc/cuda/launch.cuh"
#include "../../csrc/cuda/mma.cuh"

namespace py = pybind11;
using poolwright::cuda::dynamic_shared;
using poolwright::cuda::launch;
using poolwright::cuda::launch_cooperative;

namespace {

// Sums 0 .. n-1 over a cooperative grid: shuffles, shared memory, atomics, a grid barrier.
__global__ void sum_of_numbers(long long n, unsigned long long* total, unsigned long long* seen) {
    __shared__ unsigned long long block_total;
    unsigned long long* warps = dynamic_shared<unsigned long long>();
    if (threadIdx.x == 0) block_total = 0;
    unsigned long long mine = 0;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += i;
    for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < blockDim.x / 32) atomicAdd(&block_total, warps[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(total, block_total);
    grid_sync();
    if (threadIdx.x == 0) seen[blockIdx.x] = *total;
}

// Which lane holds which number: a is the identity, so c = b.
__global__ void product_with_identity(const uint16_t* b, float* c) {
    uint16_t* shared = dynamic_shared<uint16_t>();  // 16 x 16 identity, then b: 8 columns of 16
    for (int i = threadIdx.x; i < 256; i += 32) shared[i] = i / 16 == i % 16 ? 0x3f80 : 0;
    if (threadIdx.x < 16) poolwright::cuda::copy_async16(shared + 256 + threadIdx.x * 8, b + threadIdx.x * 8);
    poolwright::cuda::commit_async();
    poolwright::cuda::wait_async<0>();
    __syncthreads();
    const int lane = threadIdx.x;
    uint32_t a[4], words[4];
    poolwright::cuda::load_matrices(a, shared + (lane % 16) * 16 + lane / 16 * 8);
    poolwright::cuda::load_matrices(words, shared + 256 + (lane % 8) * 16 + lane / 8 % 2 * 8);
    float sums[4] = {};
    const uint32_t columns[2] = {words[0], words[1]};
    poolwright::cuda::multiply_add_bf16(sums, a, columns);
    for (int r = 0; r < 4; ++r) c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sums[r];
}

// c + a . b for 16 numbers: row 0 of one fragment, column 0 of the other.
__global__ void dot_product(const uint16_t* a, const uint16_t* b, float* c) {
    const int lane = threadIdx.x;
    const auto two = [&](const uint16_t* from, int at) {
        return lane < 4 ? static_cast<uint32_t>(from[at]) | static_cast<uint32_t>(from[at + 1]) << 16 : 0u;
    };
    const uint32_t rows[4] = {two(a, lane % 4 * 2), 0, two(a, lane % 4 * 2 + 8), 0};
    const uint32_t column[2] = {two(b, lane % 4 * 2), two(b, lane % 4 * 2 + 8)};
    float sums[4] = {*c, 0.0f, 0.0f, 0.0f};
    poolwright::cuda::multiply_add_bf16(sums, rows, column);
    if (lane == 0) *c = sums[0];
}

__global__ void barrier_in_a_branch() {
    if (threadIdx.x < 40) __syncthreads();
}
__global__ void two_barriers() {
    if (threadIdx.x < 40) __syncthreads();
    else __syncthreads();
}
__global__ void shuffle_with_a_missing_lane(int* out) {
    if (threadIdx.x != 3) *out = __shfl_xor_sync(0xffffffffu, 1, 1);
}
__global__ void write_past_shared() { dynamic_shared<float>()[4] = 0; }
__global__ void missing_barrier(float* out) {
    float* shared = dynamic_shared<float>();
    shared[threadIdx.x] = static_cast<float>(threadIdx.x);
    out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}
__global__ void unawaited_copy(const float* from, float* out) {
    float* shared = dynamic_shared<float>();
    poolwright::cuda::copy_async16(shared, from);
    poolwright::cuda::commit_async();
    poolwright::cuda::wait_async<1>();
    *out = shared[0];
    poolwright::cuda::wait_async<0>();
}
__global__ void grid_barrier_left_out() {
    if (blockIdx.x > 0) grid_sync();
}

py::list run_wrong(const std::string& name) {
    alignas(16) float values[64] = {1, 2, 3, 4};
    float out[64] = {};
    int number = 0;
    if (name == "barrier_in_a_branch") launch(barrier_in_a_branch, 1, 64, 0, nullptr);
    else if (name == "two_barriers") launch(two_barriers, 1, 64, 0, nullptr);
    else if (name == "shuffle_with_a_missing_lane") launch(shuffle_with_a_missing_lane, 1, 32, 0, nullptr, &number);
    else if (name == "write_past_shared") launch(write_past_shared, 1, 1, 16, nullptr);
    else if (name == "missing_barrier") launch(missing_barrier, 1, 64, 256, nullptr, out);
    else if (name == "unawaited_copy") launch(unawaited_copy, 1, 1, 16, nullptr, values, out);
    else if (name == "grid_barrier_left_out") launch_cooperative(grid_barrier_left_out, 2, 64, 0, nullptr);
    else if (name == "grid_barrier_in_a_plain_launch") launch(grid_barrier_left_out, 2, 64, 0, nullptr);
    else if (name == "too_many_blocks") launch_cooperative(grid_barrier_left_out, 99, 64, 0, nullptr);
    else throw py::value_error("no such kernel: " + name);
    py::list list;
    for (const float value : out) list.append(value);
    return list;
}

}  // namespace

void register_self_test(py::module_& module) {
    module.def("sum_of_numbers", [](long long n) {
        unsigned long long total = 0, seen[3] = {};
        launch_cooperative(sum_of_numbers, 3, 96, 3 * sizeof total, nullptr, n, &total, seen);
        return py::make_tuple(seen[0], seen[1], seen[2]);
    });
    module.def("transposed_by_tensor_cores", []() {
        // b holds the numbers 0 .. 127, column by column; they are exact in bfloat16.
        alignas(16) uint16_t b[128];
        for (int i = 0; i < 128; ++i) b[i] = static_cast<uint16_t>(__float_as_uint(static_cast<float>(i)) >> 16);
        float c[128] = {};
        launch(product_with_identity, 1, 32, 1024, nullptr, b, c);
        py::list list;
        for (const float value : c) list.append(value);
        return list;
    });
    module.def("dot_by_tensor_cores", [](const std::vector<float>& a, const std::vector<float>& b, float c) {
        if (a.size() != 16 || b.size() != 16) throw py::value_error("a and b must have 16 numbers");
        uint16_t left[16], right[16];
        for (int i = 0; i < 16; ++i) {
            left[i] = static_cast<uint16_t>(__float_as_uint(a[i]) >> 16);
            right[i] = static_cast<uint16_t>(__float_as_uint(b[i]) >> 16);
        }
        launch(dot_product, 1, 32, 0, nullptr, left, right, &c);
        return c;
    });
    module.def("run_wrong", &run_wrong);
}
