// AVX-512F: 16-float vectors. Compiled with -mavx512f, run only where levels.cpp finds it.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 16, kWide = 8;
constexpr int kRows = 12, kGroups = 2, kWideRows = 12;
typedef float Native __attribute__((vector_size(4 * kWidth)));
typedef double Wide __attribute__((vector_size(8 * kWide)));
typedef int64_t Index __attribute__((vector_size(8 * kWide)));
typedef __mmask8 Mask;

inline Native multiply_add(Native a, Native b, Native c) { return reinterpret_cast<Native>(_mm512_fmadd_ps(a, b, c)); }
inline Wide multiply_add(Wide a, Wide b, Wide c) { return reinterpret_cast<Wide>(_mm512_fmadd_pd(a, b, c)); }
inline Native root(Native a) { return _mm512_maskz_sqrt_ps(0xffff, a); }
inline Mask less(Wide a, Wide b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
inline Mask equal(Index a, Index b) {
    return _mm512_cmpeq_epi64_mask(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
}
inline Wide choose(Mask mask, Wide yes, Wide no) { return _mm512_mask_blend_pd(mask, no, yes); }
inline Index choose(Mask mask, Index yes, Index no) {
    return reinterpret_cast<Index>(
        _mm512_mask_blend_epi64(mask, reinterpret_cast<__m512i>(no), reinterpret_cast<__m512i>(yes)));
}
// The zero-masking form with a full mask: the plain one makes GCC 12 warn of an uninitialized register.
inline Wide widen(const float* at) { return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(at)); }
inline double least_lane(Wide a) {
    const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, a, 0), high = _mm512_maskz_extractf64x4_pd(0xf, a, 1);
    const __m256d four = _mm256_min_pd(low, high);
    const __m128d two = _mm_min_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_min_sd(two, _mm_unpackhi_pd(two, two)));
}
inline int64_t lowest_lane(Index a, Index b) {
    typedef int64_t Half __attribute__((vector_size(4 * kWide)));
    const __m512i both = _mm512_maskz_min_epi64(0xff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
    const Half low = reinterpret_cast<Half>(_mm512_maskz_extracti64x4_epi64(0xf, both, 0));
    const Half high = reinterpret_cast<Half>(_mm512_maskz_extracti64x4_epi64(0xf, both, 1));
    const Half four = low < high ? low : high;
    const int64_t even = four[0] < four[2] ? four[0] : four[2], odd = four[1] < four[3] ? four[1] : four[3];
    return even < odd ? even : odd;
}
}  // namespace
}  // namespace poolwright

#include "transport_lanes.hpp"

namespace poolwright {
const TransportTable kTransportAvx512 = kTable;
}
