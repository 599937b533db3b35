// Folding many centers into the minimum squared distances of all rows by tensor cores, with the bits of the fixed
// order: see refresh.cu.
#pragma once

#include <cuda_bf16.h>

#include "rows.cuh"

namespace poolwright::cuda {

constexpr int kMaxPending = 1024;   // centers of one refresh at most
constexpr int kCenterTile = 128;    // centers that a block works on at once

// Where the centers are: float32 matrices, or rows of x that keys name. How many is known here or on the device.
struct Centers {
    const float* dense;        // count x d, or null
    const float* dense_right;  // the same of the right factor of outer products
    const Key* keys;           // else keys[range[0]] ... keys[range[1] - 1]
    const int64_t* range;      // on the device; null with dense centers
    int64_t count;             // of dense centers; with keys, the most that there can be
};

// Centers prepared for the product, and the row that is subtracted from all rows and centers before they are rounded.
struct RefreshSpace {
    __nv_bfloat16* rounded;  // kMaxPending x padded columns of both factors
    float *low, *high;       // bounds of the squared norm of the rounded center, with the error of the product
    float* delta;            // bound of the distance between a center and its rounded self
    float* mean;             // padded columns, zeros after d; zeros for outer products

    static RefreshSpace take(Parts& parts, const Matrix& x, const Matrix* right);
};
__host__ __device__ inline int64_t padded_columns(int64_t d) { return d < 1 ? 64 : (d + 63) / 64 * 64; }

// Chooses the row to subtract from a sample of the eligible rows. Once for a matrix. `right` is null, or the rows are
// the outer products of the rows of x and of right (of the same type), which are never made.
void refresh_prepare(const Matrix& x, const Matrix* right, const uint8_t* eligible, const RefreshSpace& space,
                     cudaStream_t stream);

// mind[i] = min(mind[i], min_j ||x_i - c_j||^2) for the eligible rows (null: all). At most kMaxPending centers.
// *pairs (null: not wanted) grows by the number of distances computed. `device` is the current one.
void refresh(const Matrix& x, const Matrix* right, const Centers& centers, float* mind, const uint8_t* eligible,
             const RefreshSpace& space, unsigned long long* pairs, int device, cudaStream_t stream);

}  // namespace poolwright::cuda
