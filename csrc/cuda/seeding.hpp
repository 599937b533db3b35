// D^2 sampling (k-means++) on CUDA by rejection, of rows or of outer products of two matrices' rows. Nothing here
// allocates or synchronizes: the caller gives the workspace, queues batches, and looks now and then how many picks
// there are.
#pragma once

#include <cstdint>

#include "k_center.hpp"

namespace poolwright::cuda {

constexpr int kSeedingBatch = 64;  // picks between two refreshes at most

// What the caller gives; device pointers. `right` is null, or the points are the outer products of the rows of left and
// of right, which have one type.
struct SeedingArgs {
    Matrix left;
    const Matrix* right;
    float* nearest;     // n: squared distances to the nearest center (inf: none); 0 for picked and ineligible rows
    uint8_t* eligible;  // n: cleared at each pick
    Key* keys;          // k: the picks, as keys whose index part counts
    int64_t k;
    void* workspace;
    int device;
    uint64_t stream;
};

// Bytes of workspace. It begins with four int64: picks that `nearest` has seen, picks made, draws, pairs compared; then
// one that is 1 once every eligible row coincides with a center: then no draw can be made.
int64_t seeding_workspace(const Matrix& left, const Matrix* right);

// Before the first batch. first >= 0: that row is the first pick, and `nearest` is infinite; else there are centers.
void seeding_start(const SeedingArgs& args, int64_t first);

// Queues `batches` batches: a refresh, then draws until there are k picks, or 64 more, or `patience` were rejected. The
// random numbers are those of Philox4x32-10 with the key `seed`, one counter a draw.
void seeding_batches(const SeedingArgs& args, uint64_t seed, int64_t patience, int64_t batches);

// `nearest` sees the last picks.
void seeding_finish(const SeedingArgs& args);

// nearest[i] = min(nearest[i], min_j |g_i - c_j|^2) over outer products, centers given by their factors (m x left.d and
// m x right.d float32).
void outer_fold(const Matrix& left, const Matrix& right, const float* center_left, const float* center_right, int64_t m,
                float* nearest, const uint8_t* eligible, void* workspace, int device, uint64_t stream);

}  // namespace poolwright::cuda
