// The level every processor runs: 4-float vectors, which the compiler maps to SSE2 on x86-64 and NEON on ARM.
#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 4, kWide = 2;
constexpr int kRows = 2, kGroups = 1, kWideRows = 1;
typedef float Native __attribute__((vector_size(4 * kWidth)));
typedef double Wide __attribute__((vector_size(8 * kWide)));
typedef int64_t Index __attribute__((vector_size(8 * kWide)));
typedef Index Mask;

inline Native multiply_add(Native a, Native b, Native c) { return a * b + c; }
inline Wide multiply_add(Wide a, Wide b, Wide c) { return a * b + c; }
inline Native root(Native a) {
    for (int l = 0; l < kWidth; ++l) a[l] = __builtin_sqrtf(a[l]);
    return a;
}
inline Mask less(Wide a, Wide b) { return a < b; }
inline Mask equal(Index a, Index b) { return a == b; }
inline Wide choose(Mask mask, Wide yes, Wide no) {
    return reinterpret_cast<Wide>((reinterpret_cast<Index>(yes) & mask) | (reinterpret_cast<Index>(no) & ~mask));
}
inline Index choose(Mask mask, Index yes, Index no) { return (yes & mask) | (no & ~mask); }
inline Wide widen(const float* at) { return Wide{at[0], at[1]}; }
inline double least_lane(Wide a) { return a[0] < a[1] ? a[0] : a[1]; }
inline int64_t lowest_lane(Index a, Index b) {
    const int64_t low = a[0] < b[0] ? a[0] : b[0], high = a[1] < b[1] ? a[1] : b[1];
    return low < high ? low : high;
}
}  // namespace
}  // namespace poolwright

#include "transport_lanes.hpp"

namespace poolwright {
const TransportTable kTransportBase = kTable;
}
