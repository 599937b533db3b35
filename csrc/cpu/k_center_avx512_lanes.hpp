// 16-float vectors, for the files compiled with -mavx512f.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 16;
constexpr int kRows = 8;
constexpr int kTileRows = 12, kTileVectors = 2;
typedef float Native __attribute__((vector_size(4 * kWidth)));

// The zero-masking forms with full masks: the plain ones make GCC 12 warn of an uninitialized register.
inline Native widen_half(const uint16_t* at) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return reinterpret_cast<Native>(_mm512_maskz_cvtph_ps(0xffff, halves));
}

inline Native multiply_add(Native a, Native b, Native c) {
    return reinterpret_cast<Native>(
        _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}

inline float sum_lanes(Native v) {
    const __m512d sixteen = reinterpret_cast<__m512d>(v);
    const __m256 low = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, sixteen, 0));
    const __m256 high = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, sixteen, 1));
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
}  // namespace
}  // namespace poolwright
