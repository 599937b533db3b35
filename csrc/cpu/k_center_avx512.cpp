// AVX-512F: 16-float vectors. Compiled with -mavx512f, run only where levels.cpp finds it.
#include "k_center_avx512_lanes.hpp"
#include "k_center_lanes.hpp"
#include "k_center_advance.hpp"

namespace poolwright {
const FoldTable kFoldAvx512 = {{fold<F32>, fold<F16>, fold<BF16>}};
const AdvanceTable kAdvanceAvx512 = {{advance<F32>, advance<F16>, advance<BF16>}};
}
