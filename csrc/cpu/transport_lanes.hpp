// The bodies of TransportTable, compiled once per instruction set. A level's file defines before including this:
//   kWidth                floats in one native register (a divisor of 16)
//   kRows, kWideRows      rows of a register tile in float32 and float64: enough independent sums to hide the latency
//                         of an addition, few enough to stay in registers
//   kGroups               groups of 16 columns in a float32 tile
//   Native                a vector of kWidth floats; multiply_add(a, b, c) -> a * b + c;
//                         root(Native), correctly rounded
//   Wide, Index           vectors of kWide doubles and of as many int64; multiply_add likewise
//   Mask                  the outcome of less(Wide, Wide) and equal(Index, Index); choose(Mask, yes, no) for Wide and
//                         Index
//   widen(const float*)   kWide floats as doubles
//   least_lane(Wide), lowest_lane(Index, Index)   the smallest of all lanes
//
// Everything is in an anonymous namespace and nothing of the C++ library is used: a shared inline function compiled
// here with wide instructions could be the copy the linker keeps, and then crash on an older processor.

#include "transport_levels.hpp"

namespace poolwright {
namespace {

typedef Native NativeUnaligned __attribute__((aligned(4), may_alias));
typedef Wide WideUnaligned __attribute__((aligned(8), may_alias));
typedef Index IndexUnaligned __attribute__((aligned(8), may_alias));

constexpr double kInfinity = __builtin_inf();

// How elements of type T are held in registers.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
    using Vector = Native;
    using Unaligned = NativeUnaligned;
    static constexpr int kCount = kWidth, kTileRows = kRows, kTileGroups = kGroups;
};
template <>
struct Lanes<double> {
    using Vector = Wide;
    using Unaligned = WideUnaligned;
    static constexpr int kCount = kWide, kTileRows = kWideRows, kTileGroups = 1;
};

template <class T>
inline typename Lanes<T>::Vector load(const T* at) {
    return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(at);
}

// A register tile: rows first to first + count - 1 (count <= kTile; the last one fills the tile) against `G` groups.
template <bool kProducts, class T, int kTile, int G>
inline void tile(const SquaresArgs<T>& a, int64_t first, int64_t count, int64_t column) {
    using Vector = typename Lanes<T>::Vector;
    constexpr int kLane = Lanes<T>::kCount, kParts = static_cast<int>(kTransportLanes) / kLane;
    const T* rows[kTile];
#pragma GCC unroll 16
    for (int r = 0; r < kTile; ++r) rows[r] = a.x + (first + (r < count ? r : count - 1)) * a.x_stride;
    const T* group = a.y_packed + column * a.d;
    const int64_t next = kTransportLanes * a.d;
    Vector sums[kTile][G * kParts] = {};
    for (int64_t k = 0; k < a.d; ++k) {
        Vector y[G * kParts];
#pragma GCC unroll 8
        for (int v = 0; v < G * kParts; ++v)
            y[v] = load(group + (v / kParts) * next + k * kTransportLanes + (v % kParts) * kLane);
#pragma GCC unroll 16
        for (int r = 0; r < kTile; ++r) {
            const Vector x = rows[r][k] - Vector{};  // broadcast
#pragma GCC unroll 8
            for (int v = 0; v < G * kParts; ++v) {
                if constexpr (kProducts) {
                    sums[r][v] = multiply_add(x, y[v], sums[r][v]);
                } else {
                    const Vector difference = x - y[v];
                    sums[r][v] = multiply_add(difference, difference, sums[r][v]);
                }
            }
        }
    }
    typedef float Narrow __attribute__((vector_size(4 * kLane)));
    typedef Narrow NarrowUnaligned __attribute__((aligned(4), may_alias));
#pragma GCC unroll 16
    for (int r = 0; r < kTile; ++r) {
        if (r >= count) break;
        float* out = a.out + (first + r) * a.ld + column;
#pragma GCC unroll 8
        for (int v = 0; v < G * kParts; ++v) {
            Vector value = sums[r][v];
            if constexpr (kProducts) {
                const Vector norms = a.x_norms[first + r] + load(a.y_norms + column + v * kLane);
                value = norms - (value + value);
                value = value < norms * kCancelled ? Vector{} - 1 : value;
            }
            *reinterpret_cast<NarrowUnaligned*>(out + v * kLane) = __builtin_convertvector(value, Narrow);
        }
    }
}

template <bool kProducts, class T, int kTile>
inline void row_tiles(const SquaresArgs<T>& a, int64_t first, int64_t count) {
    constexpr int G = Lanes<T>::kTileGroups;
    int64_t column = 0;
    for (; column + G * kTransportLanes <= a.ld; column += G * kTransportLanes)
        tile<kProducts, T, kTile, G>(a, first, count, column);
    for (; column < a.ld; column += kTransportLanes) tile<kProducts, T, kTile, 1>(a, first, count, column);
}

template <class T, bool kProducts = false>
void squares(const SquaresArgs<T>& a) {
    constexpr int kLarge = Lanes<T>::kTileRows, kSmall = kLarge < 4 ? kLarge : 4;
    int64_t i = a.begin;
    for (; i + kLarge <= a.end; i += kLarge) row_tiles<kProducts, T, kLarge>(a, i, kLarge);
    for (; i < a.end; i += kSmall) row_tiles<kProducts, T, kSmall>(a, i, a.end - i < kSmall ? a.end - i : kSmall);
}

void norms(const float* x, int64_t stride, int64_t n, int64_t d, float* out) {
    for (int64_t i = 0; i < n; ++i) {
        const float* row = x + i * stride;
        Native sums[2] = {};
        int64_t k = 0;
        for (; k + 2 * kWidth <= d; k += 2 * kWidth)
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const Native value = load(row + k + half * kWidth);
                sums[half] = multiply_add(value, value, sums[half]);
            }
        const Native sum = sums[0] + sums[1];
        float total = 0;
        for (int l = 0; l < kWidth; ++l) total += sum[l];
        for (; k < d; ++k) total += row[k] * row[k];
        out[i] = total;
    }
}

template <class T>
void pack(const T* y, int64_t stride, int64_t m, int64_t d, T* packed) {
    constexpr int64_t kStep = 16;  // columns of a cache line, so that each line of y is read once
    for (int64_t column = 0; column < m; column += kTransportLanes, packed += kTransportLanes * d) {
        const T* rows[kTransportLanes];
        for (int64_t j = 0; j < kTransportLanes; ++j) rows[j] = y + (column + j < m ? column + j : m - 1) * stride;
        for (int64_t start = 0; start < d; start += kStep) {
            const int64_t stop = start + kStep < d ? start + kStep : d;
            for (int64_t j = 0; j < kTransportLanes; ++j)
                for (int64_t k = start; k < stop; ++k) packed[k * kTransportLanes + j] = rows[j][k];
        }
    }
}

template <class T>
double largest(const T* x, int64_t stride, int64_t n, int64_t d) {
    using Vector = typename Lanes<T>::Vector;
    constexpr int kLane = Lanes<T>::kCount;
    const Vector none = {};
    Vector most[2] = {}, spoiled[2] = {};  // spoiled: 0 as long as all values are finite, then NaN
    double rest = 0, rest_spoiled = 0;
    for (int64_t i = 0; i < n; ++i) {
        const T* row = x + i * stride;
        int64_t k = 0;
        for (; k + 2 * kLane <= d; k += 2 * kLane)
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const Vector value = load(row + k + half * kLane);
                const Vector size = value < none ? -value : value;
                most[half] = size > most[half] ? size : most[half];
                spoiled[half] += value * none;
            }
        for (; k < d; ++k) {
            const double value = row[k];
            const double size = value < 0 ? -value : value;
            rest = size > rest ? size : rest;
            rest_spoiled += value * 0;
        }
    }
    for (int half = 0; half < 2; ++half)
        for (int l = 0; l < kLane; ++l) {
            rest = most[half][l] > rest ? most[half][l] : rest;
            rest_spoiled += spoiled[half][l];
        }
    return rest + rest_spoiled;
}

// Lane l of 8 sums the dimensions l, l + 8, ...; then 8 -> 4 -> 2 -> 1. No fused multiply-add: the same on each level.
template <class T>
double square(const T* x, const T* y, int64_t d) {
    constexpr int kLane = 8;
    typedef double Eight __attribute__((vector_size(8 * kLane)));
    typedef T Stored __attribute__((vector_size(sizeof(T) * kLane), aligned(sizeof(T)), may_alias));
    Eight sums[2] = {};
    int64_t k = 0;
    for (; k + 2 * kLane <= d; k += 2 * kLane)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const Eight a = __builtin_convertvector(*reinterpret_cast<const Stored*>(x + k + half * kLane), Eight);
            const Eight b = __builtin_convertvector(*reinterpret_cast<const Stored*>(y + k + half * kLane), Eight);
            sums[half] += (a - b) * (a - b);
        }
    const Eight sum = sums[0] + sums[1];
    double total = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
    for (; k < d; ++k) {
        const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
        total += difference * difference;
    }
    return total;
}

void roots(float* c, int64_t count) {
    for (int64_t j = 0; j < count; j += kWidth) *reinterpret_cast<NativeUnaligned*>(c + j) = root(load(c + j));
}

void round_to(float* c, int64_t count, float limit) {
    for (int64_t j = 0; j < count; j += kWidth) {
        const Native cost = load(c + j), rounded = (cost + limit) - limit;
        *reinterpret_cast<NativeUnaligned*>(c + j) = cost < limit ? rounded : cost;
    }
}

inline Wide broadcast(double value) { return value - Wide{}; }

// The column numbers of a vector that begins at column 0.
inline Index first_columns() {
    Index columns = {};
    for (int l = 0; l < kWide; ++l) columns[l] = l;
    return columns;
}

inline Index broadcast_index(int64_t value) { return value - Index{}; }

constexpr int64_t kLast = INT64_MAX;

// The smallest lane; of equal ones that with the lowest index.
inline Smallest lowest(Wide value, Index at) {
    const double least = least_lane(value);
    const Index tied = choose(less(broadcast(least), value), broadcast_index(kLast), at);
    return Smallest{least, lowest_lane(tied, tied)};
}

// Running minima in two chains, so that one comparison need not wait for the last.
struct Minimum {
    Wide value[2];
    Index at[2];
    Index column[2];
    Minimum() {
        for (int half = 0; half < 2; ++half) {
            value[half] = broadcast(kInfinity);
            column[half] = first_columns() + half * kWide;
            at[half] = column[half];
        }
    }
    inline void take(int half, Wide next) {
        const Mask lower = less(next, value[half]);
        value[half] = choose(lower, next, value[half]);
        at[half] = choose(lower, column[half], at[half]);
        column[half] += 2 * kWide;
    }
    inline Smallest result() const {
        const Mask lower = less(value[1], value[0]);
        const double least = least_lane(choose(lower, value[1], value[0]));
        // Of equal values the one with the lowest index, whichever chain and lane holds it.
        const Index none = broadcast_index(kLast);
        const Index first = choose(less(broadcast(least), value[0]), none, at[0]);
        const Index second = choose(less(broadcast(least), value[1]), none, at[1]);
        return Smallest{least, lowest_lane(first, second)};
    }
};

Smallest smallest(const float* c, const double* v, int64_t count) {
    Minimum minimum;
    for (int64_t j = 0; j < count; j += 2 * kWide)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
            minimum.take(half, widen(c + j + half * kWide) - load(v + j + half * kWide));
    return minimum.result();
}

TwoSmallest two_smallest(const float* c, const double* v, int64_t count) {
    Wide first = broadcast(kInfinity), second = first;
    Index column = first_columns(), first_at = column, second_at = column;
    for (int64_t j = 0; j < count; j += kWide) {
        const Wide value = widen(c + j) - load(v + j);
        const Mask lowest = less(value, first), lower = less(value, second);
        second = choose(lowest, first, choose(lower, value, second));
        second_at = choose(lowest, first_at, choose(lower, column, second_at));
        first = choose(lowest, value, first);
        first_at = choose(lowest, column, first_at);
        column += kWide;
    }
    const Smallest best = lowest(first, first_at);
    // In the lane of the best its second counts, in the others their first.
    const Mask winner = equal(first_at, broadcast_index(best.at));
    Smallest other = lowest(choose(winner, second, first), choose(winner, second_at, first_at));
    if (other.value == kInfinity) other.at = -1;
    return TwoSmallest{best, other};
}

Smallest relax(const float* c, const double* v, double shift, double* key, int64_t* from, int64_t row, int64_t count) {
    Minimum minimum;
    const Index rows = row - Index{};
    for (int64_t j = 0; j < count; j += 2 * kWide)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const int64_t at = j + half * kWide;
            const Wide found = widen(c + at) - load(v + at) - shift;
            const Wide old = load(key + at);
            const Mask lower = less(found, old);
            const Wide now = choose(lower, found, old);
            *reinterpret_cast<WideUnaligned*>(key + at) = now;
            IndexUnaligned* sources = reinterpret_cast<IndexUnaligned*>(from + at);
            *sources = choose(lower, rows, static_cast<Index>(*sources));
            minimum.take(half, now);
        }
    return minimum.result();
}

constexpr TransportTable kTable = {
    squares<float>, squares<double>, squares<float, true>, norms, pack<float>, pack<double>, largest<float>,
    largest<double>, square<float>, square<double>, roots, round_to, smallest, two_smallest, relax};

}  // namespace
}  // namespace poolwright
