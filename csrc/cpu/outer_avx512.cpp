// AVX-512F: 16-float vectors. Compiled with -mavx512f, run only where levels.cpp finds it.
#include <immintrin.h>

#include <cstdint>

namespace poolwright {
namespace {
constexpr int kWidth = 16;
constexpr int kVectors = 4;
constexpr int kRows = 6;
typedef float Native __attribute__((vector_size(4 * kWidth)));

// The zero-masking form with a full mask: the plain one makes GCC 12 warn of an uninitialized register.
inline Native widen_half(const uint16_t* at) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return reinterpret_cast<Native>(_mm512_maskz_cvtph_ps(0xffff, halves));
}

inline Native fused(Native a, Native b, Native c) {
    return reinterpret_cast<Native>(
        _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
}  // namespace
}  // namespace poolwright

#include "outer_tile.hpp"

namespace poolwright {
const OuterTable kOuterAvx512 = POOLWRIGHT_OUTER_TABLE;
}
