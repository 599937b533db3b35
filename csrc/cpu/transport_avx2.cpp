// AVX2: 8-float vectors, no fused multiply-add. Compiled with -mavx2 -mf16c, run only where levels.cpp finds both.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 8, kWide = 4;
constexpr int kRows = 4, kGroups = 1, kWideRows = 2;
typedef float Native __attribute__((vector_size(4 * kWidth)));
typedef double Wide __attribute__((vector_size(8 * kWide)));
typedef int64_t Index __attribute__((vector_size(8 * kWide)));
typedef __m256d Mask;

inline Native multiply_add(Native a, Native b, Native c) { return a * b + c; }
inline Wide multiply_add(Wide a, Wide b, Wide c) { return a * b + c; }
inline Native root(Native a) { return _mm256_sqrt_ps(a); }
inline Mask less(Wide a, Wide b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
inline Mask equal(Index a, Index b) { return reinterpret_cast<Mask>(a == b); }
inline Wide choose(Mask mask, Wide yes, Wide no) { return _mm256_blendv_pd(no, yes, mask); }
inline Index choose(Mask mask, Index yes, Index no) {
    return reinterpret_cast<Index>(
        _mm256_blendv_pd(reinterpret_cast<__m256d>(no), reinterpret_cast<__m256d>(yes), mask));
}
inline Wide widen(const float* at) { return _mm256_cvtps_pd(_mm_loadu_ps(at)); }
inline double least_lane(Wide a) {
    const double low = a[0] < a[1] ? a[0] : a[1], high = a[2] < a[3] ? a[2] : a[3];
    return low < high ? low : high;
}
inline int64_t lowest_lane(Index a, Index b) {
    const Index both = a < b ? a : b;
    const int64_t low = both[0] < both[1] ? both[0] : both[1], high = both[2] < both[3] ? both[2] : both[3];
    return low < high ? low : high;
}
}  // namespace
}  // namespace poolwright

#include "transport_lanes.hpp"

namespace poolwright {
const TransportTable kTransportAvx2 = kTable;
}
