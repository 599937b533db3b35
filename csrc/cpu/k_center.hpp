// Greedy k-center on the CPU: fold centers into the minimum squared distances, find the farthest point.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../dtype.hpp"
#include "centers.hpp"
#include "k_center_args.hpp"
#include "levels.hpp"

namespace poolwright {

// `fold` over all rows, on up to `threads` threads; many centers by matrix products, with the same bits.
Best fold_rows(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, CpuLevel level,
               int threads);

// Row `row` of x as d float32.
void copy_row(const Matrix& x, int64_t row, float* out);

// What one thread needs beside its rows: floats at an address that is a multiple of 64 bytes.
class Scratch {
public:
    explicit Scratch(int64_t d) : memory_(advance_scratch(d) + 16, 0.0f) {}
    static int64_t bytes(int64_t d) { return (advance_scratch(d) + 16) * static_cast<int64_t>(sizeof(float)); }
    float* data() {
        const auto address = reinterpret_cast<uintptr_t>(memory_.data());
        return memory_.data() + (64 - address % 64) % 64 / sizeof(float);
    }

private:
    std::vector<float> memory_;
};

// A point near the middle of the data, d float32: the mean of some hundred rows that take part (`eligible`; null: all).
std::vector<float> middle(const Matrix& x, const uint8_t* eligible);

// For every row the nearest of m centers (m x d float32, contiguous), ties to the lowest, and its squared distance.
void find_nearest(const Matrix& x, const float* centers, int64_t m, int32_t* nearest, float* squared, CpuLevel level,
                  int threads);

// advance() over [0, args.end) on up to scratch.size() threads; what it computes does not depend on their number.
int64_t advance_rows(const AdvanceArgs& args, CpuLevel level, std::vector<Scratch>& scratch);

// Rows of the pool, by id. `gather` is null where x holds the whole pool; else it returns the rows `ids` (ascending),
// at most `gather_rows` at once, as a matrix that is valid until it is called again.
struct Pool {
    Matrix x;
    int64_t n;
    int64_t d;
    std::function<Matrix(const int64_t* ids, int64_t count)> gather;
    int64_t gather_rows;
};

constexpr int64_t kLargestPool = 0xfffffffe;  // rows; an index is half of a 64-bit key

struct LazyArgs {
    Pool pool;
    float* mind;         // n: upper bounds of the squared distances to the nearest center; +inf where none is known
    int32_t* seen;       // n zeros: centers that mind[i] accounts for
    uint8_t* eligible;   // n: cleared at each pick
    float* centers;      // (labeled + k) x d; the first `labeled` are given
    int64_t labeled;
    int64_t* indices;    // k
    float* squared;      // k: the largest minimum squared distance before each pick
    int64_t k;
    int64_t first;       // the forced first pick, or -1; without labeled centers
};

// Bytes that k_center_lazy allocates for `count` centers of d dimensions beside the arrays of LazyArgs.
int64_t k_center_lazy_bytes(int64_t count, int64_t d, CpuLevel level, int threads);

// Greedy k-center by lazy evaluation, with the picks and the bits of the eager loop. Stale minima are upper bounds: the
// point with the largest one is brought up to date, and if it still leads (ties to the lowest index) it is the next
// pick. While that fails, twice as many points are brought up to date at once. Points whose bound never leads are never
// looked at again. Candidates are kept in a heap over the points with the largest bounds; when its best falls behind
// the best outside, the heap is filled anew (one pass over the bounds).
// Returns the number of distances computed. `poll` is called now and then and may throw to stop. Throws
// std::invalid_argument if fewer than k points are eligible.
int64_t k_center_lazy(const LazyArgs& args, CpuLevel level, int threads, const std::function<void()>& poll);

// The level whose table is used at `level`.
CpuLevel fold_level(CpuLevel level);
CpuLevel advance_level(CpuLevel level);

}  // namespace poolwright
