// Squared distances of outer products g_i = left_i (x) right_i on the CPU; the products themselves are never made.
//
// A float32 matrix product of both factors gives every pair a rigorous lower bound; a pair whose bound is below the
// row's minimum is computed again in float64, in one fixed order:
//
//   a = left_i - left_j, s = left_i + left_j, b = right_i - right_j, t = right_i + right_j
//   4 |g_i - g_j|^2 = |a|^2 |t|^2 + |s|^2 |b|^2 + 2 <a, s> <b, t>
//
// which is g_i - g_j = (a (x) t + s (x) b) / 2, and unlike |g_i|^2 + |g_j|^2 - 2 <g_i, g_j> cancels nothing where the
// rows are close: equal rows are at exactly 0. The minimum is over these float64 values alone, so its bits depend on
// neither level, threads, blocks nor the order of the centers.
#pragma once

#include <cstdint>

#include "../dtype.hpp"
#include "levels.hpp"

namespace poolwright {

// Rows [begin, end) against m centers.
struct OuterArgs {
    Matrix left;   // (n, left.d)
    Matrix right;  // (n, right.d)
    int64_t begin;
    int64_t end;
    const float* center_left;   // (m, left.d), contiguous
    const float* center_right;  // (m, right.d), contiguous
    int64_t m;
    // The centers in tiles of OuterTable::tile: packed[(tile index * d + dimension) * tile + lane], zeros behind m.
    const float* packed_left;
    const float* packed_right;
    const double* center_norms;  // (m, 2): |left_j|^2, |right_j|^2
    float* mind;
    const uint8_t* eligible;  // null: all are
    float* scratch;           // rows * (left.d + right.d) floats of the thread
};

// mind[i] = min(mind[i], min_j |g_i - g_j|^2) for the eligible rows i. `fold` wants the packed centers; `fold_few`
// compares every pair in float64 without them, and needs scratch for one row. One table per level, indexed by the types
// of left and right.
using OuterFn = void (*)(const OuterArgs&);
struct OuterTable {
    int tile;  // centers in a tile
    int rows;  // rows in a group
    OuterFn fold[kFloatingTypes][kFloatingTypes];
    OuterFn fold_few[kFloatingTypes][kFloatingTypes];
};
extern const OuterTable kOuterBase;
#if defined(POOLWRIGHT_X86_LEVELS)
extern const OuterTable kOuterAvx2;
extern const OuterTable kOuterAvx512;
#endif

// Either over all rows, on up to `threads` threads. Both matrices have n rows.
void outer_fold(const Matrix& left, const Matrix& right, const float* center_left, const float* center_right,
                int64_t m, float* mind, const uint8_t* eligible, CpuLevel level, int threads);

// The level whose table is used at `level`.
CpuLevel outer_level(CpuLevel level);

}  // namespace poolwright
