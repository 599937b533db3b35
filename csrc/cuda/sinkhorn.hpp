// Batched log-domain Sinkhorn on CUDA for pairs of point sets of many sizes. sinkhorn_plan() decides on the host how
// the pairs are spread over launches; sinkhorn_run() queues one of them. Nothing here allocates or synchronizes; work
// is queued on `stream` (a cudaStream_t as an integer). Errors come back as std::runtime_error.
#pragma once

#include <cstdint>
#include <vector>

#include "../dtype.hpp"

namespace poolwright::cuda {

// One launch: the pairs order[first .. first + count), all of which fit its kernel.
struct SinkhornLaunch {
    int kind = 0;              // which kernel; see kKinds in sinkhorn.cu
    int64_t first = 0, count = 0;
    int64_t rows = 0, columns = 0;  // the most points that a pair of this launch has on either side
    int64_t block_bytes = 0;   // global workspace of one block
    int64_t blocks = 0;
    int64_t shared_bytes = 0;  // dynamic shared memory of one block

    int64_t workspace_bytes() const { return blocks * block_bytes; }
};

// All pointers are device pointers. x, y: contiguous rows of d elements of type `dtype`. Weights: finite, not negative;
// normalized here, per pair. Outputs have one element per pair.
struct SinkhornProblem {
    const void* x;
    const void* y;
    DType dtype;
    int64_t d;
    const int64_t* x_offsets;
    const int64_t* y_offsets;
    const double* a;
    const double* b;
    const int64_t* order;
    double p;
    double epsilon;    // of the pair's mean cost under the product of its weights
    double tolerance;  // L1 distance of the plan's marginals from the weights
    int64_t max_iterations;  // at the last epsilon
    double* value;
    double* lower;
    int64_t* iterations;
    uint8_t* converged;
};

// Fills `order` (pairs elements, on the host) and returns the launches: at most four, and one more for each factor of
// eight between the cost matrices that do not fit in shared memory. Launches may share one workspace, of the largest
// workspace_bytes(). Throws std::invalid_argument if a pair needs more than memory_limit bytes.
std::vector<SinkhornLaunch> sinkhorn_plan(const int64_t* x_sizes, const int64_t* y_sizes, int64_t pairs,
                                          int64_t memory_limit, int device, int64_t* order);

// Queues one launch. *counter is 0 before, and belongs to this launch.
void sinkhorn_run(const SinkhornProblem& problem, const SinkhornLaunch& launch, unsigned long long* counter,
                  void* workspace, int device, uint64_t stream);

}  // namespace poolwright::cuda
