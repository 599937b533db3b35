// Greedy k-center on the CPU: fold centers into the minimum squared distances, find the farthest point.
//
// Every distance is summed in one fixed order whatever the level, the number of threads or the batch it is computed
// in: lane l of 16 sums the dimensions l, l + 16, l + 32, ... in float32 without fused multiply-add; the lanes are then
// halved, 16 -> 8 -> 4 -> 2 -> 1. Equal inputs give equal bits everywhere, the CUDA side included.
#pragma once

#include <cstdint>
#include <functional>

#include "../dtype.hpp"
#include "levels.hpp"

namespace poolwright {

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

// `fold` over all rows, on up to `threads` threads.
Best fold_rows(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, CpuLevel level,
               int threads);

// The whole greedy loop. Clears eligible[] at each pick; `scratch` holds d floats; indices and squared hold k.
// squared[i] is the largest minimum squared distance before pick i. first < 0 means no forced first pick.
// `poll` is called once a pick and may throw to stop. Throws std::invalid_argument if fewer than k are eligible.
void k_center_eager(const Matrix& x, float* mind, uint8_t* eligible, float* scratch, int64_t* indices, float* squared,
                    int64_t k, int64_t first, CpuLevel level, int threads, const std::function<void()>& poll);

}  // namespace poolwright
