// The body of the k-center fold, compiled once per instruction set. A level's file defines before including this:
//   kWidth   floats in one native register (a divisor of 16)
//   kRows    rows folded at once: enough independent sums to hide the latency of an addition, few enough to stay in
//            registers
//   Native   a vector of kWidth floats; widen_half(const uint16_t*) -> Native; and sum_lanes(Native) -> float, which
//            adds the upper half of the lanes to the lower half until one is left
//
// Everything is in an anonymous namespace and nothing of the C++ library is used: a shared inline function compiled
// here with wide instructions could be the copy the linker keeps, and then crash on an older processor.

#pragma once

#include "k_center_args.hpp"

namespace poolwright {
namespace {

constexpr int kLanes = 16;
constexpr int kParts = kLanes / kWidth;

typedef Native NativeUnaligned __attribute__((aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));

// How elements are stored, and how kWidth neighbors become floats; always exact.
struct F32 {
    using Stored = float;
    static inline Native widen(const float* at) { return *reinterpret_cast<const NativeUnaligned*>(at); }
};
struct F16 {
    using Stored = uint16_t;
    static inline Native widen(const uint16_t* at) { return widen_half(at); }
};
struct BF16 {
    using Stored = uint16_t;
    static inline Native widen(const uint16_t* at) {
        const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(at), Words) << 16;
        return reinterpret_cast<Native>(words);
    }
};

// 16 running sums per row.
struct Sums {
    Native part[kParts];
};

template <class Element>
inline void accumulate(Sums& sums, const typename Element::Stored* row, const float* center) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
        const Native difference = Element::widen(row + p * kWidth) - F32::widen(center + p * kWidth);
        sums.part[p] += difference * difference;
    }
}

// 16 -> 8 -> 4 -> 2 -> 1: first whole registers, then within one.
inline float halve(Sums sums) {
#pragma GCC unroll 2
    for (int half = kParts / 2; half > 0; half /= 2) {
#pragma GCC unroll 2
        for (int p = 0; p < half; ++p) sums.part[p] += sums.part[p + half];
    }
    return sum_lanes(sums.part[0]);
}

// ||row - center||^2 for several rows.
template <class Element, int kCount>
inline void distances(const typename Element::Stored* const (&rows)[kCount], int64_t col_stride, const float* center,
                      int64_t d, float (&out)[kCount]) {
    using Stored = typename Element::Stored;
    Sums sums[kCount] = {};
    const int64_t whole = col_stride == 1 ? d - d % kLanes : 0;
    for (int64_t j = 0; j < whole; j += kLanes) {
#pragma GCC unroll 8
        for (int r = 0; r < kCount; ++r) accumulate<Element>(sums[r], rows[r] + j, center + j);
    }
    // The last, incomplete group, and all groups of a matrix whose columns are not neighbors: copied together first.
    // Missing dimensions are zeros on both sides and add +0, which changes no bit.
    for (int64_t j = whole; j < d; j += kLanes) {
        const int64_t count = d - j < kLanes ? d - j : kLanes;
        float center_group[kLanes] = {};
        for (int64_t l = 0; l < count; ++l) center_group[l] = center[j + l];
        for (int r = 0; r < kCount; ++r) {
            Stored group[kLanes] = {};
            for (int64_t l = 0; l < count; ++l) group[l] = rows[r][(j + l) * col_stride];
            accumulate<Element>(sums[r], group, center_group);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kCount; ++r) out[r] = halve(sums[r]);
}

// Fold all centers into `count` <= kRows rows, and keep the best.
template <class Element>
inline void fold_group(const FoldArgs& a, const int64_t (&ids)[kRows], int count, Best& best) {
    using Stored = typename Element::Stored;
    const Stored* rows[kRows];
    for (int r = 0; r < kRows; ++r)  // an incomplete group repeats its first row and drops the result
        rows[r] = static_cast<const Stored*>(a.x.data) + ids[r < count ? r : 0] * a.x.row_stride;
    for (int64_t c = 0; c < a.m; ++c) {
        float squared[kRows];
        distances<Element>(rows, a.x.col_stride, a.centers + c * a.x.d, a.x.d, squared);
        for (int r = 0; r < count; ++r)
            if (squared[r] < a.mind[ids[r]]) a.mind[ids[r]] = squared[r];
    }
    for (int r = 0; r < count; ++r)  // ids ascend, so ">" leaves ties with the lowest
        if (a.mind[ids[r]] > best.value) best = Best{a.mind[ids[r]], ids[r]};
}

template <class Element>
Best fold(const FoldArgs& a) {
    Best best{-1.0f, -1};
    int64_t ids[kRows];
    int count = 0;
    for (int64_t i = a.begin; i < a.end; ++i) {
        if (a.eligible != nullptr && a.eligible[i] == 0) continue;
        ids[count++] = i;
        if (count == kRows) {
            fold_group<Element>(a, ids, count, best);
            count = 0;
        }
    }
    if (count > 0) fold_group<Element>(a, ids, count, best);
    return best;
}

}  // namespace
}  // namespace poolwright
