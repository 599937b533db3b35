#include "outer.hpp"

#include <algorithm>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "rounding.hpp"

namespace poolwright {

namespace {

// With fewer multiplications a thread costs more to wake than it saves.
constexpr int64_t kWorkPerThread = 1 << 20;
constexpr int kSharesPerThread = 8;
// So few rows are not worth the packing of the centers.
constexpr int64_t kFewRows = 4;

constexpr LevelTables<OuterTable> kTables = POOLWRIGHT_LEVEL_TABLES(kOuter);

int thread_number() {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

std::vector<float> pack(const float* centers, int64_t m, int64_t d, int tile) {
    std::vector<float> packed(static_cast<size_t>((m + tile - 1) / tile * tile * d));
    for (int64_t c = 0; c < m; ++c)
        for (int64_t j = 0; j < d; ++j) packed[(c / tile * d + j) * tile + c % tile] = centers[c * d + j];
    return packed;
}

double squared_norm(const float* row, int64_t d) {
    double sum = 0;
    for (int64_t j = 0; j < d; ++j) sum += static_cast<double>(row[j]) * row[j];
    return sum;
}

}  // namespace

void outer_fold(const Matrix& left, const Matrix& right, const float* center_left, const float* center_right,
                int64_t m, float* mind, const uint8_t* eligible, CpuLevel level, int threads) {
    if (m == 0 || left.n == 0) return;
    const OuterTable& table = kTables[level];
    const int left_type = static_cast<int>(left.dtype), right_type = static_cast<int>(right.dtype);
    OuterArgs all{left, right, 0, left.n, center_left, center_right, m, nullptr, nullptr, nullptr, mind, eligible,
                  nullptr};
    const DefaultRounding rounding;
    if (left.n <= kFewRows) {
        std::vector<float> row(static_cast<size_t>(left.d + right.d));
        all.scratch = row.data();
        table.fold_few[left_type][right_type](all);
        return;
    }
    const std::vector<float> packed_left = pack(center_left, m, left.d, table.tile);
    const std::vector<float> packed_right = pack(center_right, m, right.d, table.tile);
    std::vector<double> norms(static_cast<size_t>(2 * m));
    for (int64_t c = 0; c < m; ++c) {
        norms[2 * c] = squared_norm(center_left + c * left.d, left.d);
        norms[2 * c + 1] = squared_norm(center_right + c * right.d, right.d);
    }
    all.packed_left = packed_left.data();
    all.packed_right = packed_right.data();
    all.center_norms = norms.data();
    const OuterFn fold = table.fold[left_type][right_type];
    const int64_t work = left.n * (left.d + right.d) * m;
    const int64_t team = std::max<int64_t>(1, std::min<int64_t>(threads, work / kWorkPerThread));
    const int64_t each = table.rows * (left.d + right.d);
    std::vector<float> scratch(static_cast<size_t>(team * each));
    // Shares are handed out as threads get free: a core that other programs use holds nobody up.
    const int64_t shares = std::min<int64_t>(left.n, team * kSharesPerThread);
#if defined(_OPENMP)
#pragma omp parallel num_threads(static_cast<int>(team)) if (team > 1)
#endif
    {
        const DefaultRounding of_this_thread;
        OuterArgs mine = all;
#if defined(_OPENMP)
#pragma omp for schedule(dynamic, 1)
#endif
        for (int64_t s = 0; s < shares; ++s) {
            mine.begin = left.n * s / shares;
            mine.end = left.n * (s + 1) / shares;
            mine.scratch = scratch.data() + each * thread_number();
            fold(mine);
        }
    }
}

CpuLevel outer_level(CpuLevel level) { return kTables.chosen(level); }

}  // namespace poolwright
