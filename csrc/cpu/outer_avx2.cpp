// AVX2, FMA and F16C: 8-float vectors. Run only where levels.cpp finds all three.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 8;
constexpr int kVectors = 2;
constexpr int kRows = 6;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return reinterpret_cast<Native>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

inline Native fused(Native a, Native b, Native c) {
    return reinterpret_cast<Native>(
        _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
}  // namespace
}  // namespace poolwright

#include "outer_tile.hpp"

namespace poolwright {
const OuterTable kOuterAvx2 = POOLWRIGHT_OUTER_TABLE;
}
