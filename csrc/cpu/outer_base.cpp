// The level every processor runs: 4-float vectors, which the compiler maps to SSE2 on x86-64 and NEON on ARM.
#include <cstdint>

#include "half.hpp"

namespace poolwright {
namespace {
constexpr int kWidth = 4;
constexpr int kVectors = 2;
constexpr int kRows = 4;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return Native{half_to_float(at[0]), half_to_float(at[1]), half_to_float(at[2]), half_to_float(at[3])};
}

inline Native fused(Native a, Native b, Native c) { return a * b + c; }  // twice rounded: the bound allows for it
}  // namespace
}  // namespace poolwright

#include "outer_tile.hpp"

namespace poolwright {
const OuterTable kOuterBase = POOLWRIGHT_OUTER_TABLE;
}
