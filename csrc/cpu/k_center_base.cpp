// The level every processor runs: 4-float vectors, which the compiler maps to SSE2 on x86-64 and NEON on ARM.
#include <cstdint>

#include "half.hpp"

namespace poolwright {
namespace {
constexpr int kWidth = 4;
constexpr int kRows = 2;
constexpr int kTileRows = 3, kTileVectors = 4;
typedef float Native __attribute__((vector_size(4 * kWidth)));

inline Native widen_half(const uint16_t* at) {
    return Native{half_to_float(at[0]), half_to_float(at[1]), half_to_float(at[2]), half_to_float(at[3])};
}

inline Native multiply_add(Native a, Native b, Native c) { return a * b + c; }

inline float sum_lanes(Native v) { return (v[0] + v[2]) + (v[1] + v[3]); }
}  // namespace
}  // namespace poolwright

#include "k_center_lanes.hpp"
#include "k_center_advance.hpp"

namespace poolwright {
const FoldTable kFoldBase = {{fold<F32>, fold<F16>, fold<BF16>}};
const AdvanceTable kAdvanceBase = {{advance<F32>, advance<F16>, advance<BF16>}};
}
