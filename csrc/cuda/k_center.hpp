// Greedy k-center on CUDA: the same sums in the same order as cpu/k_center.hpp, so the same bits. Nothing here
// allocates or synchronizes; all pointers are device pointers; work is queued on `stream` (a cudaStream_t as an
// integer). CUDA errors at launch come back as std::runtime_error.
#pragma once

#include <cstdint>
#include <functional>

#include "../dtype.hpp"

namespace poolwright::cuda {

// A best point as one ordered 64-bit number: the bits of the squared distance (never negative, so they sort like
// integers), then the complement of the index, so that the largest key is the farthest point with the lowest index.
// 0 means that no point was eligible.
using Key = unsigned long long;
constexpr int64_t kMaxRows = 0xfffffffe;

// mind[i] = min(mind[i], min_j ||x_i - c_j||^2) for eligible rows; *best = max(*best, key) where best is not null.
// centers: m x d float32, contiguous; m may be 0. eligible may be null.
void fold(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, Key* best, int device,
          uint64_t stream);

// The plain greedy loop, one launch a pick: `keys` (k, zeros before) takes the picks. eligible[] is cleared and mind
// brought up to date for each pick but the last, and for that too where fold_last says so. first < 0: none.
void k_center_eager(const Matrix& x, float* mind, uint8_t* eligible, Key* keys, int64_t k, int64_t first,
    bool fold_last,
                    int device, uint64_t stream, const std::function<void()>& poll);

// Keys to indices (-1 for no point) and squared distances.
void decode(const Key* keys, int64_t* indices, float* squared, int64_t count, int device, uint64_t stream);

}  // namespace poolwright::cuda
