// Exact optimal transport on the CPU between many pairs of weighted point sets.
//
// A pair of equal sizes and uniform weights is an assignment problem (shortest augmenting paths, unless those prove
// long); any other is a transportation problem (network simplex); in one dimension sorting solves both.
//
// Exactness. Costs are computed in float32 (float64 if a set is float64, then rounded): from differences, or in many
// dimensions from products, save those below an eighth of the two squared norms, which cancellation would spoil. They
// are rounded once more to multiples of 2^-48 of the largest. Sums and differences of such numbers are exact in float64
// as long as they stay below 32 times the largest. Within that range (potentials of usual problems stay there) ties are
// ties and the plan is optimal for the rounded costs; beyond it, it is optimal up to the rounding of float64. Where
// the plan costs less than 2^-28 of the largest cost, the simplex method goes on with float64 costs from its basis. The
// distance is summed in float64 over the plan from the points themselves.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../dtype.hpp"
#include "levels.hpp"

namespace poolwright {

struct PointSet {
    Matrix points;          // at least one row; float32, float16, bfloat16 or float64
    const double* weights;  // null: uniform. Not negative, not all zero; any positive sum
};

struct PointSets {
    PointSet x;
    PointSet y;      // of the same d
    int64_t number;  // what errors call the pair
};

// Bytes of workspace that one thread needs for a pair: its cost matrix, and what is linear in n, m and d.
int64_t transport_bytes(int64_t n, int64_t m, int64_t d, bool wide);

// distances[i] = W_p of pair i. At most `limit` bytes of workspace: fewer threads than asked for if it is tight;
// std::invalid_argument, which names the pair, where not even one fits, or where a point is not finite.
void transport(const std::vector<PointSets>& pairs, double p, CpuLevel level, int threads, int64_t limit,
               double* distances, const std::function<void()>& poll);

// The level whose table is used at `level`.
CpuLevel transport_level(CpuLevel level);

}  // namespace poolwright
