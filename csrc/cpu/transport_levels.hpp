// The inner loops of exact optimal transport, one table per CPU level.
//
// Rows of a cost matrix are padded to a multiple of kTransportLanes with +inf, and vectors over columns to the same
// length, so that no loop has a tail. Costs are float32, everything on potentials is float64 (see transport.hpp).
#pragma once

#include <cstdint>

namespace poolwright {

constexpr int64_t kTransportLanes = 16;

constexpr int64_t padded_lanes(int64_t count) {
    return (count + kTransportLanes - 1) / kTransportLanes * kTransportLanes;
}

struct Smallest {
    double value;  // +inf where every entry is
    int64_t at;    // ties to the lowest index
};

struct TwoSmallest {
    Smallest first;
    Smallest second;  // at = -1 where there is only one entry
};

// out[i * ld + j] = ||x_i - y_j||^2 for rows [begin, end) of x, and all columns. y is packed: group g holds columns
// 16 g to 16 g + 15 as d times 16 neighbors. Columns m to ld - 1 receive the distance to whatever the padding holds.
template <class T>
struct SquaresArgs {
    const T* x;
    int64_t x_stride;
    int64_t begin;
    int64_t end;
    const T* y_packed;
    int64_t d;
    float* out;
    int64_t ld;
};

struct TransportTable {
    void (*squares_f32)(const SquaresArgs<float>&);
    void (*squares_f64)(const SquaresArgs<double>&);
    // Rows of y to groups of 16 columns; the last group repeats the last row.
    void (*pack_f32)(const float* y, int64_t stride, int64_t m, int64_t d, float* packed);
    void (*pack_f64)(const double* y, int64_t stride, int64_t m, int64_t d, double* packed);
    // The largest absolute value of n x d numbers; not finite if one of them is not.
    double (*largest_f32)(const float* x, int64_t stride, int64_t n, int64_t d);
    double (*largest_f64)(const double* x, int64_t stride, int64_t n, int64_t d);
    // ||x - y||^2 in float64, summed in one order on every level.
    double (*square_f32)(const float* x, const float* y, int64_t d);
    double (*square_f64)(const double* x, const double* y, int64_t d);
    // Square roots in place.
    void (*roots)(float* c, int64_t count);
    // Round the costs (not negative) to multiples of limit / 2^23; those from `limit` on already are.
    void (*round)(float* c, int64_t count, float limit);
    // min and argmin over j of c[j] - v[j].
    Smallest (*smallest)(const float* c, const double* v, int64_t count);
    TwoSmallest (*two_smallest)(const float* c, const double* v, int64_t count);
    // key[j] = min(key[j], c[j] - v[j] - shift), from[j] = row where that lowers it; returns the smallest key.
    Smallest (*relax)(const float* c, const double* v, double shift, double* key, int64_t* from, int64_t row,
                      int64_t count);
};

extern const TransportTable kTransportBase;
#if defined(POOLWRIGHT_X86_LEVELS)
extern const TransportTable kTransportAvx2;
extern const TransportTable kTransportAvx512;
#endif

}  // namespace poolwright
