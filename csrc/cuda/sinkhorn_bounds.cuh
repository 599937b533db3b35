// Bounds of the exact transport cost from the potentials that the iterations left, by the block of the pair.
#pragma once

#include "sinkhorn_pair.cuh"

namespace poolwright::cuda::sinkhorn {

// Calls term(i, j) for every row of 32 columns and hands each column's combined value to done(j, value).
template <class Operation, int kThreads, class Index, class Term, class Done>
__device__ void over_columns(const Pair<Index>& pair, double neutral, Term term, Done done) {
    double* const partial = reinterpret_cast<double*>(pair.staging);
    const int lane = threadIdx.x % 32;
    for (int tile = 0; tile < pair.m; tile += 32) {
        const int j = tile + lane;
        double value = neutral;
        if (j < pair.m)
            for (int i = threadIdx.x / 32; i < pair.n; i += kThreads / 32) value = Operation::of(value, term(i, j));
        partial[threadIdx.x] = value;
        __syncthreads();
        if (threadIdx.x < 32 && j < pair.m) {
            for (int warp = 1; warp < kThreads / 32; ++warp) value = Operation::of(value, partial[warp * 32 + lane]);
            done(j, value);
        }
        __syncthreads();
    }
}

template <class Operation>
__device__ __forceinline__ double over_warp(double value) {
    for (int flip = 16; flip > 0; flip /= 2) value = Operation::of(value, __shfl_xor_sync(0xffffffffu, value, flip));
    return value;
}

// Cost of the plan after rounding it to the marginals (Altschuler, Weed and Rigollet 2017, algorithm 2). The float32
// masses are taken as the plan, the same bits in each pass; all else is float64.
template <int kThreads, class Index>
__device__ __noinline__ double rounded_cost(Pair<Index> pair) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const auto cost = [&](int i, int j) { return pair.cost[static_cast<Index>(i) * pair.m + j]; };
    const auto plan = [&](int i, int j) {
        return static_cast<double>(mass(pair.row[i], pair.column[j], cost(i, j), pair.inverse));
    };
    for (int i = warp; i < pair.n; i += kThreads / 32) {
        double sum = 0.0;
        for (int j = lane; j < pair.m; j += 32) sum += plan(i, j);
        sum = over_warp<Sum>(sum);
        if (lane == 0) pair.row_scale()[i] = sum > pair.a()[i] ? pair.a()[i] / sum : 1.0;
    }
    __syncthreads();
    over_columns<Sum, kThreads>(
        pair, 0.0, [&](int i, int j) { return pair.row_scale()[i] * plan(i, j); },
        [&](int j, double sum) {
            const double scale = sum > pair.b()[j] ? pair.b()[j] / sum : 1.0;
            pair.column_scale()[j] = scale;
            pair.excess()[j] = fmax(0.0, pair.b()[j] - scale * sum);
        });
    double paid = 0.0, missing = 0.0, moved = 0.0;
    for (int i = warp; i < pair.n; i += kThreads / 32) {
        double sum = 0.0, rest = 0.0;
        for (int j = lane; j < pair.m; j += 32) {
            const double part = pair.row_scale()[i] * plan(i, j) * pair.column_scale()[j];
            sum += part;
            paid += part * cost(i, j);
            rest += cost(i, j) * pair.excess()[j];
        }
        const double lacks = fmax(0.0, pair.a()[i] - over_warp<Sum>(sum));
        moved += lacks * rest;
        if (lane == 0) missing += lacks;
    }
    paid = over_block<Sum, kThreads>(paid);
    missing = over_block<Sum, kThreads>(missing);
    moved = over_block<Sum, kThreads>(moved);
    return missing > 0.0 ? paid + moved / missing : paid;
}

// A dual objective that the exact cost cannot be below. The potentials are made feasible, f_i + g_j <= c_ij, by
// g_j = min_i (c_ij - f_i), then f_i = min_j (c_ij - g_j), for costs lowered by their rounding error: `relative` of
// themselves and `absolute` more.
template <int kThreads, class Index>
__device__ __noinline__ double feasible_dual(Pair<Index> pair, double relative, double absolute) {
    const auto cost = [&](int i, int j) {
        return pair.cost[static_cast<Index>(i) * pair.m + j] * (1.0 - relative) - absolute;
    };
    over_columns<Smallest, kThreads>(
        pair, static_cast<double>(INFINITY), [&](int i, int j) { return cost(i, j) - pair.f()[i]; },
        [&](int j, double smallest) { pair.g()[j] = smallest; });
    double dual = 0.0, magnitude = 0.0;
    for (int i = threadIdx.x / 32; i < pair.n; i += kThreads / 32) {
        double smallest = INFINITY;
        for (int j = threadIdx.x % 32; j < pair.m; j += 32) smallest = fmin(smallest, cost(i, j) - pair.g()[j]);
        smallest = over_warp<Smallest>(smallest);
        if (threadIdx.x % 32 != 0) continue;
        dual += pair.a()[i] * smallest;
        magnitude += pair.a()[i] * fabs(smallest);
    }
    for (int j = threadIdx.x; j < pair.m; j += kThreads) {
        dual += pair.b()[j] * pair.g()[j];
        magnitude += pair.b()[j] * fabs(pair.g()[j]);
    }
    dual = over_block<Sum, kThreads>(dual);
    magnitude = over_block<Sum, kThreads>(magnitude);
    // float64's own rounding: of the weights, of the feasibility (costs are at most 1) and of the sums.
    return dual - (static_cast<double>(pair.n) + pair.m + 16) * 2.3e-16 * (magnitude + 1.0);
}

}  // namespace poolwright::cuda::sinkhorn
