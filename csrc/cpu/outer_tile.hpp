// The body of the fold of outer products, compiled once per instruction set. A level's file defines before including
// this:
//   kWidth    floats in one native register
//   kVectors  registers of centers in a tile
//   kRows     rows in a group: kRows * kVectors running sums stay in registers, enough to hide the latency of one
//   Native    a vector of kWidth floats; widen_half(const uint16_t*) -> Native; fused(a, b, c) -> a * b + c, rounded
//             once where the processor can
//
// Everything is in an anonymous namespace and nothing of the C++ library is used: a shared inline function compiled
// here with wide instructions could be the copy the linker keeps, and then crash on an older processor.

#include "half.hpp"
#include "outer.hpp"

namespace poolwright {
namespace {

constexpr int kTile = kWidth * kVectors;
constexpr int kWide = 8;  // lanes of every float64 sum, on every level

typedef Native NativeUnaligned __attribute__((aligned(4), may_alias));
typedef float Floats __attribute__((vector_size(4 * kWide)));
typedef Floats FloatsUnaligned __attribute__((aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(8 * kWide)));

inline Native load(const float* at) { return *reinterpret_cast<const NativeUnaligned*>(at); }

struct F32 {
    using Stored = float;
    static inline float one(float value) { return value; }
    static inline Native widen(const float* at) { return load(at); }
};
struct F16 {
    using Stored = uint16_t;
    static inline float one(uint16_t bits) { return half_to_float(bits); }
    static inline Native widen(const uint16_t* at) { return widen_half(at); }
};
struct BF16 {
    using Stored = uint16_t;
    typedef uint16_t Halves __attribute__((vector_size(2 * kWidth), aligned(2), may_alias));
    typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
    static inline float one(uint16_t bits) { return bfloat_to_float(bits); }
    static inline Native widen(const uint16_t* at) {
        const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(at), Words) << 16;
        return reinterpret_cast<Native>(words);
    }
};

// Row `row` as contiguous float32: where it lies, or copied to `copy`.
template <class Element>
inline const float* row_of(const Matrix& x, int64_t row, float* copy) {
    using Stored = typename Element::Stored;
    const Stored* at = static_cast<const Stored*>(x.data) + row * x.row_stride;
    if constexpr (sizeof(Stored) == sizeof(float)) {
        if (x.col_stride == 1) return reinterpret_cast<const float*>(at);
    }
    int64_t j = 0;
    if (x.col_stride == 1)
        for (; j + kWidth <= x.d; j += kWidth) *reinterpret_cast<NativeUnaligned*>(copy + j) = Element::widen(at + j);
    for (; j < x.d; ++j) copy[j] = Element::one(at[j * x.col_stride]);
    return copy;
}

inline double sum_of(Doubles v) {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// |a - b|^2, |a + b|^2 and <a - b, a + b>, in one fixed order: lane l sums the dimensions l, l + 8, ...
struct Sums {
    double apart, together, across;
};
inline Sums compare(const float* a, const float* b, int64_t d) {
    Doubles apart = {}, together = {}, across = {};
    for (int64_t j = 0; j < d; j += kWide) {
        Floats u = {}, v = {};
        if (j + kWide <= d) {
            u = *reinterpret_cast<const FloatsUnaligned*>(a + j);
            v = *reinterpret_cast<const FloatsUnaligned*>(b + j);
        } else {
            for (int64_t l = 0; l < d - j; ++l) u[l] = a[j + l], v[l] = b[j + l];
        }
        const Doubles x = __builtin_convertvector(u, Doubles), y = __builtin_convertvector(v, Doubles);
        const Doubles minus = x - y, plus = x + y;
        apart += minus * minus;
        together += plus * plus;
        across += minus * plus;
    }
    return {sum_of(apart), sum_of(together), sum_of(across)};
}

inline float exact(const float* left, const float* right, const float* center_left, const float* center_right,
                   int64_t left_d, int64_t right_d) {
    const Sums l = compare(left, center_left, left_d), r = compare(right, center_right, right_d);
    const double squared = 0.25 * ((l.apart * r.together + l.together * r.apart) + 2 * (l.across * r.across));
    return static_cast<float>(squared > 0 ? squared : 0);
}

inline double norm_of(const float* row, int64_t d) {
    Doubles sum = {};
    int64_t j = 0;
    for (; j + kWide <= d; j += kWide) {
        const Doubles x = __builtin_convertvector(*reinterpret_cast<const FloatsUnaligned*>(row + j), Doubles);
        sum += x * x;
    }
    double total = sum_of(sum);
    for (; j < d; ++j) total += static_cast<double>(row[j]) * row[j];
    return total;
}

// out[r][t] = <rows[r], center t of the tile>
inline void products(const float* const (&rows)[kRows], const float* packed, int64_t d, float (&out)[kRows][kTile]) {
    Native sums[kRows][kVectors] = {};
    for (int64_t j = 0; j < d; ++j) {
        Native center[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) center[v] = load(packed + j * kTile + v * kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
            const Native value = Native{} + rows[r][j];
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; ++v) sums[r][v] = fused(value, center[v], sums[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) *reinterpret_cast<NativeUnaligned*>(out[r] + v * kWidth) = sums[r][v];
    }
}

// How far a float32 sum of d products may be off: `share` of the product of the norms, plus `least` where products
// underflow.
struct Error {
    double share, least;
};
inline Error error_of(int64_t d) {
    const double roundings = (static_cast<double>(d) + 2) * 0x1p-24;
    return {roundings / (1 - roundings), static_cast<double>(d) * 0x1p-149};
}

// Fold all centers into `count` <= kRows rows.
template <class Left, class Right>
inline void fold_group(const OuterArgs& a, const int64_t (&ids)[kRows], int count) {
    const int64_t left_d = a.left.d, right_d = a.right.d;
    const float *left[kRows], *right[kRows];
    double left_norms[kRows], right_norms[kRows];  // squared
    for (int r = 0; r < kRows; ++r) {              // an incomplete group repeats its first row and drops the result
        if (r >= count) {
            left[r] = left[0], right[r] = right[0];
            continue;
        }
        float* copy = a.scratch + r * (left_d + right_d);
        left[r] = row_of<Left>(a.left, ids[r], copy);
        right[r] = row_of<Right>(a.right, ids[r], copy + left_d);
        left_norms[r] = norm_of(left[r], left_d);
        right_norms[r] = norm_of(right[r], right_d);
    }
    const Error left_error = error_of(left_d), right_error = error_of(right_d);
    const double wide_error = 8 * (static_cast<double>(left_d + right_d) + 32) * 0x1p-53;
    for (int64_t start = 0; start < a.m; start += kTile) {
        const int valid = static_cast<int>(a.m - start < kTile ? a.m - start : kTile);
        float left_dots[kRows][kTile], right_dots[kRows][kTile];
        products(left, a.packed_left + start * left_d, left_d, left_dots);
        products(right, a.packed_right + start * right_d, right_d, right_dots);
        for (int r = 0; r < count; ++r) {
            double lower[kTile];
            for (int t = 0; t < valid; ++t) {
                const double l = a.center_norms[2 * (start + t)], r2 = a.center_norms[2 * (start + t) + 1];
                const double l_both = __builtin_sqrt(left_norms[r] * l), r_both = __builtin_sqrt(right_norms[r] * r2);
                const double l_off = left_error.share * l_both + left_error.least;
                const double r_off = right_error.share * r_both + right_error.least;
                const double off = 2 * (l_off * (r_both + r_off) + l_both * r_off);
                // (|left_i| + |left_j|)^2 (|right_i| + |right_j|)^2 bounds every term of both float64 formulas.
                const double terms = (left_norms[r] + l + 2 * l_both) * (right_norms[r] + r2 + 2 * r_both);
                const double inner = static_cast<double>(left_dots[r][t]) * right_dots[r][t];
                lower[t] = (left_norms[r] * right_norms[r] + l * r2 - 2 * inner) - 1.0001 * off - wide_error * terms;
            }
            float best = a.mind[ids[r]];
            for (;;) {  // the most promising first: few others are then left to check
                int next = 0;
                for (int t = 1; t < valid; ++t)
                    if (lower[t] < lower[next]) next = t;
                if (!(lower[next] < best)) break;
                const int64_t c = start + next;
                const float squared = exact(left[r], right[r], a.center_left + c * left_d,
                                            a.center_right + c * right_d, left_d, right_d);
                if (squared < best) best = squared;
                lower[next] = __builtin_inf();
            }
            a.mind[ids[r]] = best;
        }
    }
}

template <class Left, class Right>
void fold(const OuterArgs& a) {
    int64_t ids[kRows];
    int count = 0;
    for (int64_t i = a.begin; i < a.end; ++i) {
        if (a.eligible != nullptr && a.eligible[i] == 0) continue;
        ids[count++] = i;
        if (count == kRows) {
            fold_group<Left, Right>(a, ids, count);
            count = 0;
        }
    }
    if (count > 0) fold_group<Left, Right>(a, ids, count);
}

// Every pair in float64, without the filter.
template <class Left, class Right>
void fold_few(const OuterArgs& a) {
    const int64_t left_d = a.left.d, right_d = a.right.d;
    for (int64_t i = a.begin; i < a.end; ++i) {
        if (a.eligible != nullptr && a.eligible[i] == 0) continue;
        const float* left = row_of<Left>(a.left, i, a.scratch);
        const float* right = row_of<Right>(a.right, i, a.scratch + left_d);
        for (int64_t c = 0; c < a.m; ++c) {
            const float squared =
                exact(left, right, a.center_left + c * left_d, a.center_right + c * right_d, left_d, right_d);
            if (squared < a.mind[i]) a.mind[i] = squared;
        }
    }
}

}  // namespace
}  // namespace poolwright

// The table of a level, as the initializer of its OuterTable.
#define POOLWRIGHT_OUTER_TABLE                                                                       \
    {kTile,                                                                                          \
     kRows,                                                                                          \
     {{fold<F32, F32>, fold<F32, F16>, fold<F32, BF16>},                                             \
      {fold<F16, F32>, fold<F16, F16>, fold<F16, BF16>},                                             \
      {fold<BF16, F32>, fold<BF16, F16>, fold<BF16, BF16>}},                                         \
     {{fold_few<F32, F32>, fold_few<F32, F16>, fold_few<F32, BF16>},                                 \
      {fold_few<F16, F32>, fold_few<F16, F16>, fold_few<F16, BF16>},                                 \
      {fold_few<BF16, F32>, fold_few<BF16, F16>, fold_few<BF16, BF16>}}}
