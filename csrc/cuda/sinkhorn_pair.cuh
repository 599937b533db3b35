// What one block of threads does for one pair of point sets: cost matrix and Sinkhorn iterations.
//
// Costs are divided by the largest of the pair, so that all lie in [0, 1]. Sizes below count points of positive weight
// only. The entropic plan is
//     P_ij = a_i b_j exp((f_i + g_j - c_ij) / epsilon),
// and after each half step its rows (or columns) sum to their weights, so no exponent is above 0: sums need no maximum
// subtracted. Halving epsilon keeps that so (P_ij / (a_i b_j) <= 1 / max(a_i, b_j), squared at most). A sum that is
// out of range all the same (weights below 1e-30, masses that underflow) is taken again with its maximum subtracted.
//
// Potentials are kept in float64, and for the n m exponents of an iteration as a multiple of 2^-20 (exactly in float32)
// plus a remainder. Then (F_i + G_j) is exact, its difference to c_ij has one rounding, relative to itself, and small
// values of epsilon lose nothing: in plain float32 the exponent has the error 2^-24 / epsilon.
#pragma once

#include <cmath>
#include <cstdint>

#include "launch.cuh"
#include "widen.cuh"

namespace poolwright::cuda::sinkhorn {

constexpr int kDepth = 16;         // dimensions that are staged at once, and the length of a float32 sum
constexpr int kTileColumns = 64;   // of a tile of the cost matrix; rows: threads / 4
constexpr int kPad = 4;            // keeps the staging rows 16-byte aligned and spreads them over the banks
constexpr int kSweepColumns = 128; // columns that a warp sums at once
constexpr double kUnit = 5.9604644775390625e-8;  // 2^-24, the unit roundoff of float32
constexpr double kGrid = 1048576.0;              // potentials are split at multiples of 1 / kGrid

// Floats of shared memory for staging points; the partial sums of columns share it.
__host__ __device__ constexpr int staging_floats(int threads) {
    return kDepth * (threads / 4 + kTileColumns + 2 * kPad);
}

// 2^x; results below 2^-126 are 0 on a device.
__device__ __forceinline__ float power_of_two(float x) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return std::exp2(x);
#endif
}

// A pair as its block sees it. Index addresses the cost matrix: int where that lies in shared memory. The vectors that
// are touched once an iteration, or less, lie in the block's global workspace, one after the other; their places are
// worked out when needed, so that they hold no registers in the inner loops.
template <class Index>
struct Pair {
    int n, m;            // points of positive weight
    float* cost;         // n x m
    float2 *row, *column;  // (multiple of 1 / kGrid, remainder / epsilon + log weight), in base 2
    float* staging;
    float inverse;       // log2(e) / epsilon
    double step;         // 1 / inverse
    double* workspace;
    int rows, columns;   // room in the workspace

    __device__ double* at(int side, int other) const {
        return workspace + static_cast<int64_t>(side) * rows + static_cast<int64_t>(other) * columns;
    }
    __device__ double* f() const { return at(0, 0); }
    __device__ double* a() const { return at(1, 0); }  // weights, summing to 1
    __device__ double* row_scale() const { return at(2, 0); }
    __device__ double* g() const { return at(3, 0); }
    __device__ double* b() const { return at(3, 1); }
    __device__ double* column_scale() const { return at(3, 2); }
    __device__ double* excess() const { return at(3, 3); }  // what the rounded columns lack
    __device__ float* log_a() const { return reinterpret_cast<float*>(at(3, 4)); }  // base 2
    __device__ float* log_b() const { return log_a() + rows; }
    __device__ int* x_rows() const { return reinterpret_cast<int*>(log_b() + columns); }  // points of positive weight
    __device__ int* y_rows() const { return x_rows() + rows; }
    __device__ float2* global_rows() const { return reinterpret_cast<float2*>(y_rows() + columns); }
};

// ---- over the block; all threads call these and get the same value

struct Sum {
    template <class T>
    __device__ static T of(T a, T b) { return a + b; }
};
struct Largest {
    template <class T>
    __device__ static T of(T a, T b) { return a > b ? a : b; }
};

struct Smallest {
    template <class T>
    __device__ static T of(T a, T b) { return a < b ? a : b; }
};

template <class Operation, int kThreads, class T>
__device__ T over_block(T value) {
    __shared__ T partial[kThreads / 32];
    for (int flip = 16; flip > 0; flip /= 2) value = Operation::of(value, __shfl_xor_sync(0xffffffffu, value, flip));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < kThreads / 32; ++warp) value = Operation::of(value, partial[warp]);
    __syncthreads();
    return value;
}

// Writes the numbers and normalized weights of the points of positive weight, in order; returns how many they are.
template <int kThreads>
__device__ __noinline__ int gather_positive(const double* weights, int64_t count, int* points, double* kept,
                                            float* logarithms) {
    __shared__ int per_warp[kThreads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int found = 0;
    double total = 0.0;
    for (int64_t start = 0; start < count; start += kThreads) {
        const int64_t point = start + threadIdx.x;
        const double weight = point < count ? weights[point] : 0.0;
        const unsigned positive = __ballot_sync(0xffffffffu, weight > 0.0);
        if (lane == 0) per_warp[warp] = __popc(positive);
        __syncthreads();
        int position = found + __popc(positive & ((1u << lane) - 1));
        for (int other = 0; other < kThreads / 32; ++other) {
            if (other < warp) position += per_warp[other];
            found += per_warp[other];
        }
        if (weight > 0.0) {
            points[position] = static_cast<int>(point);
            kept[position] = weight;
            total += weight;
        }
        __syncthreads();
    }
    total = over_block<Sum, kThreads>(total);
    for (int i = threadIdx.x; i < found; i += kThreads) {
        kept[i] = kept[i] / total;
        logarithms[i] = static_cast<float>(log2(kept[i]));
    }
    __syncthreads();
    return found;
}

// ---- cost matrix

template <int kThreads, class T>
__device__ __noinline__ float largest_coordinate(const T* x, const int* points, int count, int64_t d) {
    float largest = 0.0f;
    for (int i = threadIdx.x / 32; i < count; i += kThreads / 32) {
        const T* point = x + points[i] * d;
        for (int64_t k = threadIdx.x % 32; k < d; k += 32) largest = fmaxf(largest, fabsf(widen(point[k])));
    }
    return over_block<Largest, kThreads>(largest);
}

// Squared distances as sums of squared differences, nothing that cancels: each thread takes 4 x 4 of a tile. Sums of
// kDepth terms are summed again, so the relative error is at most distance_error(d). Returns the largest.
template <int kThreads, class T, class Index>
__device__ __noinline__ float squared_distances(Pair<Index> pair, const T* x, const T* y, int64_t d, float scale) {
    // One load brings dimension k of kLines points; the first four loads of a thread are rows, the others columns.
    constexpr int kRows = kThreads / 4, kLines = kThreads / kDepth, kLoads = 4 + kTileColumns / kLines;
    constexpr int kLeft = kRows + kPad, kRight = kTileColumns + kPad;
    float* const left = dynamic_shared<float>();
    float* const right = left + kDepth * kLeft;
    const int top = threadIdx.x / 16 * 4, side = threadIdx.x % 16 * 4;
    const int k = threadIdx.x % kDepth, line = threadIdx.x / kDepth;
    float largest = 0.0f;
    for (int first_row = 0; first_row < pair.n; first_row += kRows) {
        for (int first_column = 0; first_column < pair.m; first_column += kTileColumns) {
            int point[kLoads];
            float next[kLoads];
            float total[4][4] = {};
            // Beyond the last point: that point again; what comes out of it is not stored.
#pragma unroll
            for (int load = 0; load < kLoads; ++load)
                point[load] = load < 4 ? pair.x_rows()[min(first_row + load * kLines + line, pair.n - 1)]
                                       : pair.y_rows()[min(first_column + (load - 4) * kLines + line, pair.m - 1)];
            const auto fetch = [&](int64_t start) {
#pragma unroll
                for (int load = 0; load < kLoads; ++load)
                    next[load] = start + k < d ? widen((load < 4 ? x : y)[point[load] * d + start + k]) : 0.0f;
            };
            fetch(0);
            for (int64_t start = 0; start < d; start += kDepth) {
#pragma unroll
                for (int load = 0; load < kLoads; ++load)
                    (load < 4 ? left + k * kLeft + load * kLines
                              : right + k * kRight + (load - 4) * kLines)[line] = __fmul_rn(next[load], scale);
                __syncthreads();
                if (start + kDepth < d) fetch(start + kDepth);
                float part[4][4] = {};
#pragma unroll
                for (int depth = 0; depth < kDepth; ++depth) {
                    const float4 u = *reinterpret_cast<const float4*>(left + depth * kLeft + top);
                    const float4 v = *reinterpret_cast<const float4*>(right + depth * kRight + side);
                    const float us[4] = {u.x, u.y, u.z, u.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                    for (int i = 0; i < 4; ++i)
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            const float difference = __fsub_rn(us[i], vs[j]);
                            part[i][j] = __fmaf_rn(difference, difference, part[i][j]);
                        }
                }
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) total[i][j] = __fadd_rn(total[i][j], part[i][j]);
                __syncthreads();
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int row = first_row + top + i, column = first_column + side + j;
                    if (row >= pair.n || column >= pair.m) continue;
                    pair.cost[static_cast<Index>(row) * pair.m + column] = total[i][j];
                    largest = fmaxf(largest, total[i][j]);
                }
        }
    }
    return over_block<Largest, kThreads>(largest);
}

// Bound of the relative error of squared_distances: 2 roundings of a squared difference count thrice, then the sums.
__device__ inline double distance_error(int64_t d) {
    return 1.001 * kUnit * static_cast<double>(3 + kDepth + (d + kDepth - 1) / kDepth);
}

// Squared distances to costs in [0, 1]; returns their mean under the product of the weights.
template <int kThreads, class Index>
__device__ __noinline__ double costs_from_squares(Pair<Index> pair, float inverse_largest, double p) {
    double mean = 0.0;
    for (int i = threadIdx.x / 32; i < pair.n; i += kThreads / 32) {
        float* line = pair.cost + static_cast<Index>(i) * pair.m;
        double sum = 0.0;
        for (int j = threadIdx.x % 32; j < pair.m; j += 32) {
            float cost = __fmul_rn(line[j], inverse_largest);
            if (p == 1.0) cost = __fsqrt_rn(cost);
            else if (p != 2.0) cost = static_cast<float>(pow(static_cast<double>(cost), p / 2));
            line[j] = cost;
            sum += pair.b()[j] * cost;
        }
        mean += pair.a()[i] * sum;
    }
    return over_block<Sum, kThreads>(mean);
}

// ---- iterations

__device__ __forceinline__ float exponent(float2 own, float2 other, float cost, float inverse) {
    return __fmaf_rn(__fsub_rn(__fadd_rn(own.x, other.x), cost), inverse, __fadd_rn(own.y, other.y));
}
__device__ __forceinline__ float mass(float2 own, float2 other, float cost, float inverse) {
    return power_of_two(exponent(own, other, cost, inverse));
}

// log2 of the sum of `count` masses, however large or small: one thread, in two passes.
template <class Index>
__device__ __noinline__ float log_sum_shifted(float2 own, const float2* others, const float* cost, Index stride,
                                              int count, float inverse) {
    float largest = -INFINITY;
    for (int k = 0; k < count; ++k) largest = fmaxf(largest, exponent(own, others[k], cost[k * stride], inverse));
    float sum = 0.0f;
    for (int k = 0; k < count; ++k)
        sum = __fadd_rn(sum, power_of_two(__fsub_rn(exponent(own, others[k], cost[k * stride], inverse), largest)));
    return __fadd_rn(largest, log2f(sum));
}

__device__ __forceinline__ bool in_range(float sum) { return sum >= 1e-30f && sum <= 1e30f; }

__device__ __forceinline__ float2 entry(double potential, float log_weight, float inverse) {
    const double multiple = rint(potential * kGrid) * (1.0 / kGrid);
    return make_float2(static_cast<float>(multiple),
                       __fmaf_rn(static_cast<float>(potential - multiple), inverse, log_weight));
}

// New epsilon: the remainders are in its units.
template <int kThreads, class Index>
__device__ void enter_potentials(const Pair<Index>& pair) {
    for (int i = threadIdx.x; i < pair.n; i += kThreads)
        pair.row[i] = entry(pair.f()[i], pair.log_a()[i], pair.inverse);
    for (int j = threadIdx.x; j < pair.m; j += kThreads)
        pair.column[j] = entry(pair.g()[j], pair.log_b()[j], pair.inverse);
    __syncthreads();
}

// Sums of four values over the warp at once: lane l gets that of value l / 8.
__device__ __forceinline__ float sum_of_quarter(const float (&value)[4]) {
    const bool high = (threadIdx.x & 16) != 0, odd = (threadIdx.x & 8) != 0;
    const float first = (high ? value[2] : value[0]) +
                        __shfl_xor_sync(0xffffffffu, high ? value[0] : value[2], 16);
    const float second = (high ? value[3] : value[1]) +
                         __shfl_xor_sync(0xffffffffu, high ? value[1] : value[3], 16);
    float sum = (odd ? second : first) + __shfl_xor_sync(0xffffffffu, odd ? first : second, 8);
    for (int flip = 4; flip > 0; flip /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, flip);
    return sum;
}

// f such that the rows sum to a: a warp takes four rows at a time.
template <int kThreads, class Index>
__device__ void update_rows(const Pair<Index>& pair) {
    const int lane = threadIdx.x % 32;
    for (int first = threadIdx.x / 32 * 4; first < pair.n; first += kThreads / 32 * 4) {
        float2 own[4];
        const float* line[4];
        float sum[4] = {};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int row = min(first + r, pair.n - 1);
            own[r] = pair.row[row];
            line[r] = pair.cost + static_cast<Index>(row) * pair.m;
        }
        for (int j = lane; j < pair.m; j += 32) {
            const float2 other = pair.column[j];
#pragma unroll
            for (int r = 0; r < 4; ++r) sum[r] = __fadd_rn(sum[r], mass(own[r], other, line[r][j], pair.inverse));
        }
        const float total = sum_of_quarter(sum);
        const int row = first + lane / 8;
        if (lane % 8 != 0 || row >= pair.n) continue;
        const float logarithm = in_range(total) ? log2f(total)
                                                : log_sum_shifted<Index>(pair.row[row], pair.column,
                                                                         pair.cost + static_cast<Index>(row) * pair.m,
                                                                         1, pair.m, pair.inverse);
        const double potential = pair.f()[row] + (static_cast<double>(pair.log_a()[row]) - logarithm) * pair.step;
        pair.f()[row] = potential;
        pair.row[row] = entry(potential, pair.log_a()[row], pair.inverse);
    }
    __syncthreads();
}

// Masses of this warp's rows in kGroups x 32 columns from `tile` on, to the warp's part of the staging memory.
template <int kThreads, int kGroups, class Index>
__device__ __forceinline__ void sum_columns(const Pair<Index>& pair, int tile) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float2 own[kGroups];
    int column[kGroups];
    float sum[kGroups] = {};
#pragma unroll
    for (int c = 0; c < kGroups; ++c) {
        column[c] = min(tile + 32 * c + lane, pair.m - 1);
        own[c] = pair.column[column[c]];
    }
#pragma unroll 2
    for (int i = warp; i < pair.n; i += kThreads / 32) {
        const float2 other = pair.row[i];
        const float* line = pair.cost + static_cast<Index>(i) * pair.m;
#pragma unroll
        for (int c = 0; c < kGroups; ++c)
            sum[c] = __fadd_rn(sum[c], mass(own[c], other, line[column[c]], pair.inverse));
    }
#pragma unroll
    for (int c = 0; c < kGroups; ++c) pair.staging[warp * kSweepColumns + 32 * c + lane] = sum[c];
}

// g such that the columns sum to b; returns how far they were from it before, in L1. A lane takes one column (up to
// four, 32 apart), so that a warp reads 32 neighbours; the warps share the rows.
template <int kThreads, class Index>
__device__ double update_columns(const Pair<Index>& pair) {
    double violation = 0.0;
    for (int tile = 0; tile < pair.m; tile += kSweepColumns) {
        const int left = pair.m - tile;
        if (left > 96) sum_columns<kThreads, 4>(pair, tile);
        else if (left > 64) sum_columns<kThreads, 3>(pair, tile);
        else if (left > 32) sum_columns<kThreads, 2>(pair, tile);
        else sum_columns<kThreads, 1>(pair, tile);
        __syncthreads();
        const int j = tile + threadIdx.x;
        if (threadIdx.x < kSweepColumns && j < pair.m) {
            float total = 0.0f;
            for (int warp = 0; warp < kThreads / 32; ++warp)
                total = __fadd_rn(total, pair.staging[warp * kSweepColumns + threadIdx.x]);
            float logarithm = log2f(total);
            if (!in_range(total)) {
                logarithm = log_sum_shifted<Index>(pair.column[j], pair.row, pair.cost + j, pair.m, pair.n,
                                                   pair.inverse);
                total = power_of_two(logarithm);
            }
            violation += fabs(total - pair.b()[j]);
            const double potential = pair.g()[j] + (static_cast<double>(pair.log_b()[j]) - logarithm) * pair.step;
            pair.g()[j] = potential;
            pair.column[j] = entry(potential, pair.log_b()[j], pair.inverse);
        }
        __syncthreads();
    }
    return over_block<Sum, kThreads>(violation);
}

}  // namespace poolwright::cuda::sinkhorn
