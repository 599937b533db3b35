// Rows as the kernels read them, and the one order in which a squared distance is summed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../dtype.hpp"
#include "check.cuh"
#include "k_center.hpp"
#include "launch.cuh"
#include "widen.cuh"

namespace poolwright::cuda {

constexpr int kLanes = 16;  // threads that share one row; the partial sums of the fixed order
constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kLanes;
constexpr int kMaxBlocks = 8192;  // more rows than this covers are looped over

__device__ inline Key make_key(float squared, int64_t row) {
    return (static_cast<Key>(__float_as_uint(squared)) << 32) | (0xffffffffu - static_cast<uint32_t>(row));
}
__device__ inline int64_t key_row(Key key) { return 0xffffffffu - static_cast<uint32_t>(key); }

// The 16 threads of this thread's row, as a mask of its warp.
__device__ inline unsigned row_mask() { return 0xffffu << (threadIdx.x % 32 / kLanes * kLanes); }

// 16 partial sums to one, which lane 0 gets.
__device__ inline float add_lanes(float sum, unsigned mask) {
    for (int half = kLanes / 2; half > 0; half /= 2) sum = __fadd_rn(sum, __shfl_down_sync(mask, sum, half, kLanes));
    return sum;
}

// Called by the 16 threads of one row together; lane 0 gets the sum. The _rn intrinsics are never fused.
template <class Stored, class Center>
__device__ inline float squared_distance(const Stored* row, int64_t row_step, const Center* center, int64_t center_step,
                                         int64_t d, int lane, unsigned mask) {
    float sum = 0.0f;
#pragma unroll 4
    for (int64_t j = lane; j < d; j += kLanes) {
        const float difference = __fsub_rn(widen(row[j * row_step]), widen(center[j * center_step]));
        sum = __fadd_rn(sum, __fmul_rn(difference, difference));
    }
    return add_lanes(sum, mask);
}

// The squared distance of outer products g = left (x) right in float64, for the 16 threads of one row together; lane 0
// gets it. With u, v the difference and the sum of the left factors, and w, z those of the right ones,
//   4 |g_i - g_j|^2 = |u|^2 |z|^2 + |v|^2 |w|^2 + 2 <u, v> <w, z>,
// which cancels nothing where the rows are close, unlike |g_i|^2 + |g_j|^2 - 2 <g_i, g_j>: equal rows are at exactly 0.
struct Compared {
    double apart, together, across;
};
template <class Stored, class Center>
__device__ inline Compared compare(const Stored* row, int64_t row_step, const Center* center, int64_t center_step,
                                   int64_t d, int lane, unsigned mask) {
    Compared sums{0.0, 0.0, 0.0};
    for (int64_t j = lane; j < d; j += kLanes) {
        const double a = widen(row[j * row_step]), b = widen(center[j * center_step]);
        sums.apart += (a - b) * (a - b);
        sums.together += (a + b) * (a + b);
        sums.across += (a - b) * (a + b);
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
        sums.apart += __shfl_down_sync(mask, sums.apart, half, kLanes);
        sums.together += __shfl_down_sync(mask, sums.together, half, kLanes);
        sums.across += __shfl_down_sync(mask, sums.across, half, kLanes);
    }
    return sums;
}
__device__ inline float outer_distance(const Compared& left, const Compared& right) {
    const double four = left.apart * right.together + left.together * right.apart + 2.0 * left.across * right.across;
    return static_cast<float>(four > 0.0 ? 0.25 * four : 0.0);
}

// A matrix whose type the kernel knows.
template <class Stored>
struct Rows {
    using Element = Stored;
    const Stored* data;
    int64_t n, d, row_stride, col_stride;
    __device__ const Stored* row(int64_t i) const { return data + i * row_stride; }
};
template <class Stored>
Rows<Stored> rows_of(const Matrix& x) {
    return {static_cast<const Stored*>(x.data), x.n, x.d, x.row_stride, x.col_stride};
}

// Calls f(Rows<...>) with the matrix as the type that it has.
template <class F>
void with_rows(const Matrix& x, F&& f) {
    if (x.dtype == DType::f32) f(rows_of<float>(x));
    else if (x.dtype == DType::f16) f(rows_of<__half>(x));
    else f(rows_of<Bfloat>(x));
}

inline int blocks_for(int64_t items, int per_block) {
    return static_cast<int>(std::min<int64_t>(kMaxBlocks, (items + per_block - 1) / per_block));
}
inline cudaStream_t as_stream(uint64_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

// Parts of one workspace, each aligned to 256 bytes. With a null workspace it only counts.
class Parts {
public:
    explicit Parts(void* workspace) : at_(static_cast<char*>(workspace)) {}
    template <class T>
    T* take(int64_t count) {
        char* part = at_ == nullptr ? nullptr : at_ + bytes_;
        bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
        return reinterpret_cast<T*>(part);
    }
    int64_t bytes() const { return bytes_; }

private:
    char* at_;
    int64_t bytes_ = 0;
};

}  // namespace poolwright::cuda
