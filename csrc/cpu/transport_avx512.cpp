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
inline Wide choose(Mask mask, Wide yes, Wide no) { return _mm512_mask_blend_pd(mask, no, yes); }
inline Index choose(Mask mask, Index yes, Index no) {
    return reinterpret_cast<Index>(
        _mm512_mask_blend_epi64(mask, reinterpret_cast<__m512i>(no), reinterpret_cast<__m512i>(yes)));
}
// The zero-masking form with a full mask: the plain one makes GCC 12 warn of an uninitialized register.
inline Wide widen(const float* at) { return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(at)); }
}  // namespace
}  // namespace poolwright

#include "transport_lanes.hpp"

namespace poolwright {
const TransportTable kTransportAvx512 = kTable;
}
