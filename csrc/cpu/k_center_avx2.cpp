// AVX2 and F16C: 8-float vectors. Compiled with -mavx2 -mf16c, run only where levels.cpp finds both.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 8;
constexpr int kRows = 4;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return reinterpret_cast<Native>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

inline float sum_lanes(Native v) {
    const __m256 eight = reinterpret_cast<__m256>(v);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
}  // namespace
}  // namespace poolwright

#include "k_center_lanes.hpp"

namespace poolwright {
const FoldTable kFoldAvx2 = {{fold<F32>, fold<F16>, fold<BF16>}};
}
