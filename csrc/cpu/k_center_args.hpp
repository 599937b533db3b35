// What the code compiled per CPU level is called with: plain structures, so that no function of the C++ library is
// instantiated with wide instructions (the linker could keep that copy for everybody).
//
// Every distance is summed in one fixed order whatever the level, the number of threads or the batch it is computed
// in: lane l of 16 sums the dimensions l, l + 16, l + 32, ... in float32 without fused multiply-add; the lanes are then
// halved, 16 -> 8 -> 4 -> 2 -> 1. Equal inputs give equal bits everywhere, the CUDA side included.
#pragma once

#include <cstdint>

#include "../dtype.hpp"

namespace poolwright {

constexpr int kPanel = 64;  // centers in a panel

// What a level's kernel reads. Products are of y = x - mean and c' = c - mean, rounded to the product's type:
//   ||x - c||^2 >= |y|^2 + floor[j] - 2 p - 2 |yh| slack[j] - 2 |yh - y| norm[j],
// where yh is y as rounded, p the computed product of yh and c', floor[j] a lower bound of |c'|^2, norm[j] an upper
// bound of |c'|, and slack[j] one of the rounding of c' and of the sum, per unit of |yh| (Cauchy-Schwarz).
struct CenterView {
    int64_t d;
    const float* mean;     // d
    const float* rows;     // m x d
    const void* panels;    // ceil(m / 64) x panel_bytes: float32 as d x 64; bfloat16 as ceil(d / 32) x 4 x 16 x 16 x 2
    int64_t panel_bytes;
    const float* floor;
    const float* slack;
    const float* norm;
    float sum_slack;  // upper bound of the relative error of a squared distance summed in float32, and a little more
};

struct Best {
    float value;    // -1 where no point is eligible
    int64_t index;  // -1 where no point is eligible
};

// Rows [begin, end) of one matrix against m centers of d float32, contiguous. `eligible` may be null (all are).
struct FoldArgs {
    Matrix x;
    int64_t begin;
    int64_t end;
    const float* centers;
    int64_t m;
    float* mind;
    const uint8_t* eligible;
};

// mind[i] = min(mind[i], min_j ||x_i - c_j||^2) for the eligible rows i; returns the largest mind among them, ties to
// the lowest index. With m = 0 it only searches. One table per level, indexed by DType.
using FoldFn = Best (*)(const FoldArgs&);
struct FoldTable {
    FoldFn by_dtype[kFloatingTypes];
};
extern const FoldTable kFoldBase;
#if defined(POOLWRIGHT_X86_LEVELS)
extern const FoldTable kFoldAvx2;
extern const FoldTable kFoldAvx512;
#endif

// Items [begin, end) of a list of points: item t is row rows[t] of x, its minimum so far is mind[t] and accounts for
// the first seen[t] centers. Brings the minima up to date against the centers seen[t] .. now - 1, but stops for an
// item whose minimum is below `cut`; seen[t] says how far it came. `seen` ascends. Returns the number of pairs dealt
// with.
struct AdvanceArgs {
    Matrix x;
    const int64_t* rows;
    float* mind;
    int32_t* seen;
    int64_t begin;
    int64_t end;
    CenterView centers;
    int32_t now;
    float cut;
    float* scratch;    // advance_scratch(d) floats, aligned to 64 bytes
    int32_t* nearest;  // which center gave each item its minimum, ties to the lowest; may be null
};
using AdvanceFn = int64_t (*)(const AdvanceArgs&);
struct AdvanceTable {
    AdvanceFn by_dtype[kFloatingTypes];
};
extern const AdvanceTable kAdvanceBase;
#if defined(POOLWRIGHT_X86_LEVELS)
extern const AdvanceTable kAdvanceAvx2;
extern const AdvanceTable kAdvanceAvx512;
#if defined(POOLWRIGHT_AMX_LEVEL)
extern const AdvanceTable kAdvanceAmx;
#endif
#endif

// Rows that are dealt with together: as many as the caches hold, a multiple of the 32 of a tile product.
constexpr int kAdvanceRows = 64;
constexpr int advance_rows_at_once(int64_t d) { return d <= 4096 ? kAdvanceRows : 32; }
// Floats: the rows as they are packed, and their products with a panel of centers.
constexpr int64_t advance_scratch(int64_t d) { return advance_rows_at_once(d) * ((d + 31) / 32 * 32 + kPanel); }

}  // namespace poolwright
