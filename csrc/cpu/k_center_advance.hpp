// Bringing minima up to date against many centers, compiled once per instruction set after k_center_lanes.hpp. A
// level's file defines besides:
//   kTileRows, kTileVectors   the block of products that stays in registers: rows x vectors of centers
//   multiply_add(a, b, c)     a * b + c, fused or not
// or, where POOLWRIGHT_TILE_PRODUCT is defined, its own Packed, packed_stride, pack_row and multiply.
//
// Most pairs are settled by a lower bound from a matrix product (k_center_args.hpp says which); only where the bound is
// below the row's minimum is the distance computed, in the one fixed order. So the minima have the bits of the plain
// loop over all centers, whatever the product's precision.

#include "k_center_args.hpp"

namespace poolwright {
namespace {

// What a product of few pairs saves does not pay for packing the rows.
constexpr int kFewRows = 3;
constexpr int kFewCenters = 12;
// Items go together although some have seen a part of the centers already: at most this, or a quarter of what is
// pending.
constexpr int32_t kSeenSlack = 8;

typedef int32_t Mask __attribute__((vector_size(4 * kWidth)));

inline Native spread(float value) { return value - Native{}; }

inline bool any(Mask mask) {
    int32_t all = 0;
    for (int lane = 0; lane < kWidth; ++lane) all |= mask[lane];
    return all != 0;
}

// A row, centered and rounded to the product's type, with upper bounds of its length and of the length of its rounding
// error, and a lower bound of the squared length before rounding.
struct RowBounds {
    float length;
    float lost;
    float floor;
};

// In float32 and without the C++ library; a NaN or an overflow ends up in "not settled".
inline RowBounds row_bounds(float squares, float rounding, int64_t longest_sum) {
    const float slack = static_cast<float>(longest_sum + 32) * 1.2e-7f;
    const float length = __builtin_sqrtf(squares) * (1 + slack);
    const float lost = __builtin_sqrtf(rounding) * (1 + slack) + length * 1.2e-7f;
    return {length + lost, lost, squares * (1 - slack)};
}

template <class Element>
inline float element(const typename Element::Stored* row, int64_t at, int64_t col_stride) {
    typename Element::Stored group[kWidth] = {row[at * col_stride]};
    return Element::widen(group)[0];
}

#if defined(POOLWRIGHT_TILE_PRODUCT)
template <class Element>
RowBounds pack_row(const typename Element::Stored* row, int64_t col_stride, const CenterView& centers, Packed* out);
void multiply(const Packed* rows, int count, const CenterView& centers, const void* panel, int from, int to,
              float (*scores)[kPanel]);
#else
using Packed = float;
constexpr int64_t packed_stride(int64_t d) { return (d + kWidth - 1) / kWidth * kWidth; }

template <class Element>
inline RowBounds pack_row(const typename Element::Stored* row, int64_t col_stride, const CenterView& centers,
                          Packed* out) {
    Native squares = {};
    const int64_t whole = col_stride == 1 ? centers.d - centers.d % kWidth : 0;
    for (int64_t j = 0; j < whole; j += kWidth) {
        const Native y = Element::widen(row + j) - F32::widen(centers.mean + j);
        *reinterpret_cast<NativeUnaligned*>(out + j) = y;
        squares += y * y;
    }
    float total = 0;
    for (int lane = 0; lane < kWidth; ++lane) total += squares[lane];
    for (int64_t j = whole; j < centers.d; ++j) {
        out[j] = element<Element>(row, j, col_stride) - centers.mean[j];
        total += out[j] * out[j];
    }
    return row_bounds(total, 0, centers.d - whole + whole / kWidth);
}

// scores[i][j] = row i . center j, for the columns of a panel that hold [from, to).
inline void multiply(const Packed* rows, int count, const CenterView& centers, const void* panel, int from, int to,
                     float (*scores)[kPanel]) {
    const int64_t d = centers.d, stride = packed_stride(d);
    constexpr int kTileColumns = kTileVectors * kWidth;
    for (int left = from / kTileColumns * kTileColumns; left < to; left += kTileColumns) {
        for (int at = 0; at < count; at += kTileRows) {
            const float* row[kTileRows];
            for (int r = 0; r < kTileRows; ++r) row[r] = rows + (at + r < count ? at + r : at) * stride;
            Native sums[kTileRows][kTileVectors] = {};
            const float* column = static_cast<const float*>(panel) + left;
            for (int64_t j = 0; j < d; ++j, column += kPanel) {
                Native c[kTileVectors];
#pragma GCC unroll 4
                for (int i = 0; i < kTileVectors; ++i) c[i] = F32::widen(column + i * kWidth);
#pragma GCC unroll 12
                for (int r = 0; r < kTileRows; ++r) {
                    const Native y = spread(row[r][j]);
#pragma GCC unroll 4
                    for (int i = 0; i < kTileVectors; ++i) sums[r][i] = multiply_add(y, c[i], sums[r][i]);
                }
            }
            for (int r = 0; r < kTileRows && at + r < count; ++r)
                for (int i = 0; i < kTileVectors; ++i)
                    *reinterpret_cast<NativeUnaligned*>(scores[at + r] + left + i * kWidth) = sums[r][i];
        }
    }
}
#endif

template <class Element>
inline float distance(const typename Element::Stored* row, int64_t col_stride, const float* center, int64_t d) {
    const typename Element::Stored* const rows[1] = {row};
    float squared[1];
    distances<Element>(rows, col_stride, center, d, squared);
    return squared[0];
}

// A row's smallest squared distance, and the center that gave it.
struct Smallest {
    float squared;
    int32_t center;
    inline void take(float other, int32_t index) {
        if (other < squared || (other == squared && index < center)) {
            squared = other;
            center = index;
        }
    }
};

// Fold the columns [from, to) of panel `which` into a row's minimum, given their products with the row, which become
// lower bounds of the squared distances.
template <class Element>
inline void fold_panel(const typename Element::Stored* row, int64_t col_stride, const CenterView& centers,
                       int64_t which, int from, int to, const RowBounds& bounds, float* scores, Smallest& smallest) {
    const int64_t start = which * kPanel;
    const float tiny = static_cast<float>(centers.d) * 1e-36f;  // squares below the smallest normal number are lost
    const auto limit = [&] { return smallest.squared * (1 + centers.sum_slack) - bounds.floor + tiny; };
    const Native two = spread(2), length = spread(2 * bounds.length), lost = spread(2 * bounds.lost);
    const Native threshold = spread(limit());
    Mask open = {};
    for (int at = from / kWidth * kWidth; at < to; at += kWidth) {
        const Native bound = F32::widen(centers.floor + start + at) - two * F32::widen(scores + at) -
                             length * F32::widen(centers.slack + start + at) -
                             lost * F32::widen(centers.norm + start + at);
        *reinterpret_cast<NativeUnaligned*>(scores + at) = bound;
        open |= ~(bound >= threshold);  // NaN settles nothing
    }
    if (!any(open)) return;
    // The most promising center first: after it few others are in question.
    int best = from;
    for (int j = from + 1; j < to; ++j)
        if (scores[j] < scores[best]) best = j;
    float settled = limit();
    for (int j = best, next = from; j < to; j = next++) {
        if (scores[j] >= settled) continue;
        scores[j] = __builtin_inff();  // computed
        smallest.take(distance<Element>(row, col_stride, centers.rows + (start + j) * centers.d, centers.d),
                      static_cast<int32_t>(start + j));
        settled = limit();
    }
}

inline Smallest smallest_of(const AdvanceArgs& a, int64_t item) {
    return {a.mind[item], a.nearest != nullptr ? a.nearest[item] : 0};
}

inline void keep(const AdvanceArgs& a, int64_t item, const Smallest& smallest) {
    a.mind[item] = smallest.squared;
    if (a.nearest != nullptr) a.nearest[item] = smallest.center;
}

// Items open[0 .. count), few or against few centers, pair by pair from center `from` on.
template <class Element>
int64_t advance_directly(const AdvanceArgs& a, const int64_t* open, int count, int32_t from) {
    using Stored = typename Element::Stored;
    const int64_t d = a.centers.d;
    const auto row_of = [&](int64_t item) {
        return static_cast<const Stored*>(a.x.data) + a.rows[item] * a.x.row_stride;
    };
    for (int i = 0; i < count; ++i) a.seen[open[i]] = a.now;
    if (a.now - from < kRows) {  // several rows at a time against each center
        for (int at = 0; at < count; at += kRows) {
            const Stored* rows[kRows];  // an incomplete group repeats its first row and drops the result
            for (int r = 0; r < kRows; ++r) rows[r] = row_of(open[at + r < count ? at + r : at]);
            for (int32_t c = from; c < a.now; ++c) {
                float squared[kRows];
                distances<Element>(rows, a.x.col_stride, a.centers.rows + c * d, d, squared);
                for (int r = 0; r < kRows && at + r < count; ++r) {
                    Smallest smallest = smallest_of(a, open[at + r]);
                    smallest.take(squared[r], c);
                    keep(a, open[at + r], smallest);
                }
            }
        }
    } else {  // several centers at a time against each row; a difference and its negative have the same square
        for (int i = 0; i < count; ++i) {
            for (int64_t j = 0; j < d; ++j) a.scratch[j] = element<Element>(row_of(open[i]), j, a.x.col_stride);
            Smallest smallest = smallest_of(a, open[i]);
            for (int32_t c = from; c < a.now; c += kRows) {
                const float* centers[kRows];
                for (int r = 0; r < kRows; ++r) centers[r] = a.centers.rows + (c + r < a.now ? c + r : c) * d;
                float squared[kRows];
                distances<F32>(centers, 1, a.scratch, d, squared);
                for (int r = 0; r < kRows && c + r < a.now; ++r) smallest.take(squared[r], c + r);
            }
            keep(a, open[i], smallest);
        }
    }
    return static_cast<int64_t>(count) * (a.now - from);
}

// The same by matrix products, a panel of centers at a time; a row is left alone once its minimum is below the cut.
template <class Element>
int64_t advance_by_products(const AdvanceArgs& a, int64_t* open, int count, int32_t from) {
    using Stored = typename Element::Stored;
    const int64_t stride = packed_stride(a.centers.d);
    float(*scores)[kPanel] = reinterpret_cast<float(*)[kPanel]>(a.scratch);
    Packed* packed = reinterpret_cast<Packed*>(a.scratch + advance_rows_at_once(a.centers.d) * kPanel);
    RowBounds bounds[kAdvanceRows];
    const auto row_of = [&](int64_t item) {
        return static_cast<const Stored*>(a.x.data) + a.rows[item] * a.x.row_stride;
    };
    for (int i = 0; i < count; ++i)
        bounds[i] = pack_row<Element>(row_of(open[i]), a.x.col_stride, a.centers, packed + i * stride);
    int64_t pairs = 0;
    for (int32_t which = from / kPanel; which * kPanel < a.now && count > 0; ++which) {
        const int32_t start = which * kPanel;
        const int first = from > start ? from - start : 0;
        const int stop = a.now - start < kPanel ? a.now - start : kPanel;
        multiply(packed, count, a.centers, static_cast<const char*>(a.centers.panels) + which * a.centers.panel_bytes,
                 first, stop, scores);
        pairs += static_cast<int64_t>(count) * (stop - first);
        int left = 0;
        for (int i = 0; i < count; ++i) {
            const int64_t item = open[i];
            Smallest smallest = smallest_of(a, item);
            fold_panel<Element>(row_of(item), a.x.col_stride, a.centers, which, first, stop, bounds[i], scores[i],
                                smallest);
            keep(a, item, smallest);
            a.seen[item] = start + stop;
            if (a.mind[item] < a.cut) continue;
            if (left < i) {
                open[left] = item;
                bounds[left] = bounds[i];
                for (int64_t j = 0; j < stride; ++j) packed[left * stride + j] = packed[i * stride + j];
            }
            ++left;
        }
        count = left;
    }
    return pairs;
}

template <class Element>
int64_t advance(const AdvanceArgs& a) {
    int64_t pairs = 0;
    int64_t open[kAdvanceRows];
    const int at_once = advance_rows_at_once(a.centers.d);
    for (int64_t begin = a.begin; begin < a.end;) {
        const int32_t from = a.seen[begin];
        const int32_t slack = kSeenSlack > (a.now - from) / 4 ? kSeenSlack : (a.now - from) / 4;
        int count = 0;
        while (begin < a.end && count < at_once && a.seen[begin] - from <= slack) open[count++] = begin++;
        const bool few = count <= kFewRows || a.now - from < kFewCenters;
        pairs += few ? advance_directly<Element>(a, open, count, from)
                     : advance_by_products<Element>(a, open, count, from);
    }
    return pairs;
}

}  // namespace
}  // namespace poolwright
