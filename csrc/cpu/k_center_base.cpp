// The level every processor runs: 4-float vectors, which the compiler maps to SSE2 on x86-64 and NEON on ARM.
#include <cstdint>

#include "half.hpp"

namespace poolwright {
namespace {
constexpr int kWidth = 4;
constexpr int kRows = 2;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return Native{half_to_float(at[0]), half_to_float(at[1]), half_to_float(at[2]), half_to_float(at[3])};
}

inline float sum_lanes(Native v) { return (v[0] + v[2]) + (v[1] + v[3]); }
}  // namespace
}  // namespace poolwright

#include "k_center_lanes.hpp"

namespace poolwright {
const FoldTable kFoldBase = {{fold<F32>, fold<F16>, fold<BF16>}};
}
