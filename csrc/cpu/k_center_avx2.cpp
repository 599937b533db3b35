// AVX2, F16C and FMA: 8-float vectors. Compiled with -mavx2 -mf16c -mfma, run only where levels.cpp finds all three.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 8;
constexpr int kRows = 4;
constexpr int kTileRows = 6, kTileVectors = 2;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return reinterpret_cast<Native>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

inline Native multiply_add(Native a, Native b, Native c) {
    return reinterpret_cast<Native>(
        _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
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
#include "k_center_advance.hpp"

namespace poolwright {
const FoldTable kFoldAvx2 = {{fold<F32>, fold<F16>, fold<BF16>}};
const AdvanceTable kAdvanceAvx2 = {{advance<F32>, advance<F16>, advance<BF16>}};
}
