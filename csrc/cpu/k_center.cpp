#include "k_center.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "half.hpp"
#include "rounding.hpp"

namespace poolwright {

namespace {

// With fewer differences squared (some 50 microseconds) a thread costs more to wake than it saves.
constexpr int64_t kWorkPerThread = 1 << 18;
constexpr int kSharesPerThread = 8;

constexpr int64_t kManyCenters = 12;  // from here on matrix products pay
constexpr int64_t kFoldedAtOnce = 1 << 16;
constexpr int64_t kShareRows = 256;  // items that a thread advances at a time

constexpr LevelTables<FoldTable> kFoldTables = POOLWRIGHT_LEVEL_TABLES(kFold);
#if defined(POOLWRIGHT_AMX_LEVEL)
constexpr LevelTables<AdvanceTable> kAdvanceTables = {{&kAdvanceBase, &kAdvanceAvx2, &kAdvanceAvx512, &kAdvanceAmx}};
#else
constexpr LevelTables<AdvanceTable> kAdvanceTables = POOLWRIGHT_LEVEL_TABLES(kAdvance);
#endif

// A total order (larger value, then lower index), so the winner does not depend on who finishes first.
[[maybe_unused]] bool beats(const Best& a, const Best& b) {
    return a.index >= 0 && (b.index < 0 || a.value > b.value || (a.value == b.value && a.index < b.index));
}

}  // namespace

void copy_row(const Matrix& x, int64_t row, float* out) {
    const int64_t start = row * x.row_stride;
    for (int64_t j = 0; j < x.d; ++j) {
        const int64_t at = start + j * x.col_stride;
        if (x.dtype == DType::f32) out[j] = static_cast<const float*>(x.data)[at];
        else if (x.dtype == DType::f16) out[j] = half_to_float(static_cast<const uint16_t*>(x.data)[at]);
        else out[j] = bfloat_to_float(static_cast<const uint16_t*>(x.data)[at]);
    }
}

std::vector<float> middle(const Matrix& x, const uint8_t* eligible) {
    std::vector<double> sums(x.d, 0.0);
    std::vector<float> row(x.d, 0.0f);
    int64_t count = 0;
    const int64_t step = std::max<int64_t>(1, x.n / 256);
    for (int64_t start = 0; start < x.n; start += step) {
        int64_t i = start;  // the first row of the stretch that takes part
        while (i < std::min(start + step, x.n) && eligible != nullptr && eligible[i] == 0) ++i;
        if (i == std::min(start + step, x.n)) continue;
        copy_row(x, i, row.data());
        for (int64_t j = 0; j < x.d; ++j) sums[j] += row[j];
        ++count;
    }
    for (int64_t j = 0; j < x.d; ++j) row[j] = count == 0 ? 0.0f : static_cast<float>(sums[j] / count);
    return row;
}

int64_t advance_rows(const AdvanceArgs& args, CpuLevel level, std::vector<Scratch>& scratch) {
    const AdvanceFn advance = kAdvanceTables[level].by_dtype[static_cast<int>(args.x.dtype)];
    const auto threads = static_cast<int64_t>(scratch.size());
    int64_t work = 0;
    for (int64_t t = 0; t < args.end && work < threads * kWorkPerThread; ++t)
        work += (args.now - args.seen[t]) * args.x.d;
    const int team = static_cast<int>(std::max<int64_t>(1, std::min(threads, work / kWorkPerThread)));
    const int64_t share = std::min(kShareRows, std::max<int64_t>(8, args.end / (4 * team)));
    int64_t pairs = 0;
#if defined(_OPENMP)
#pragma omp parallel num_threads(team) if (team > 1) reduction(+ : pairs)
#endif
    {
        const DefaultRounding rounding;
#if defined(_OPENMP)
        float* mine = scratch[omp_get_thread_num()].data();
#pragma omp for schedule(dynamic, 1) nowait
#else
        float* mine = scratch[0].data();
#endif
        for (int64_t begin = 0; begin < args.end; begin += share) {
            AdvanceArgs part = args;
            part.begin = begin;
            part.end = std::min(begin + share, args.end);
            part.scratch = mine;
            pairs += advance(part);
        }
    }
    return pairs;
}

namespace {

// Rows in order, a share of them at a time.
void fold_by_products(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible,
                      CpuLevel level, int threads) {
    std::vector<float> rows(m * x.d);
    Centers columns(rows.data(), m, middle(x, eligible), tile_products(level));
    for (int64_t c = 0; c < m; ++c) columns.append(centers + c * x.d);
    std::vector<Scratch> scratch(std::max(1, threads), Scratch(x.d));
    std::vector<int64_t> ids;
    std::vector<float> smallest;
    std::vector<int32_t> seen;
    for (int64_t i = 0; i < x.n;) {
        ids.clear();
        smallest.clear();
        for (; i < x.n && static_cast<int64_t>(ids.size()) < kFoldedAtOnce; ++i) {
            if (eligible != nullptr && eligible[i] == 0) continue;
            ids.push_back(i);
            smallest.push_back(mind[i]);
        }
        seen.assign(ids.size(), 0);
        advance_rows({x, ids.data(), smallest.data(), seen.data(), 0, static_cast<int64_t>(ids.size()), columns.view(),
                      columns.count(), -1.0f, nullptr, nullptr},
                     level, scratch);
        for (size_t t = 0; t < ids.size(); ++t) mind[ids[t]] = smallest[t];
    }
}

}  // namespace

Best fold_rows(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, CpuLevel level,
               int threads) {
    const DefaultRounding rounding_here;
    if (m >= kManyCenters) {
        fold_by_products(x, centers, m, mind, eligible, level, threads);
        m = 0;
    }
    const FoldFn fold = kFoldTables[level].by_dtype[static_cast<int>(x.dtype)];
    const int64_t work = x.n * std::max<int64_t>(1, x.d * m);
    const int team = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, work / kWorkPerThread)));
    Best best{-1.0f, -1};
#if defined(_OPENMP)
    if (team > 1) {
#pragma omp parallel num_threads(team)
        {
            const DefaultRounding rounding;
            // Shares are handed out as threads get free: a core that other programs use holds nobody up.
            const int64_t shares = std::min<int64_t>(x.n, static_cast<int64_t>(team) * kSharesPerThread);
            Best mine{-1.0f, -1};
#pragma omp for schedule(dynamic, 1) nowait
            for (int64_t s = 0; s < shares; ++s) {
                const Best part = fold({x, x.n * s / shares, x.n * (s + 1) / shares, centers, m, mind, eligible});
                if (beats(part, mine)) mine = part;
            }
#pragma omp critical(poolwright_best)
            if (beats(mine, best)) best = mine;
        }
        return best;
    }
#else
    (void)team;
#endif
    best = fold({x, 0, x.n, centers, m, mind, eligible});
    return best;
}

void find_nearest(const Matrix& x, const float* centers, int64_t m, int32_t* nearest, float* squared, CpuLevel level,
                  int threads) {
    const DefaultRounding rounding;
    std::vector<float> rows(m * x.d);
    Centers columns(rows.data(), m, middle(x, nullptr), tile_products(level));
    for (int64_t c = 0; c < m; ++c) columns.append(centers + c * x.d);
    std::vector<Scratch> scratch(std::max(1, threads), Scratch(x.d));
    std::vector<int64_t> ids;
    std::vector<int32_t> seen;
    for (int64_t begin = 0; begin < x.n; begin += kFoldedAtOnce) {
        const int64_t count = std::min(kFoldedAtOnce, x.n - begin);
        ids.resize(count);
        std::iota(ids.begin(), ids.end(), begin);
        seen.assign(count, 0);
        std::fill(squared + begin, squared + begin + count, std::numeric_limits<float>::infinity());
        advance_rows({x, ids.data(), squared + begin, seen.data(), 0, count, columns.view(), columns.count(), -1.0f,
                      nullptr, nearest + begin},
                     level, scratch);
    }
}

CpuLevel fold_level(CpuLevel level) { return kFoldTables.chosen(level); }

CpuLevel advance_level(CpuLevel level) { return kAdvanceTables.chosen(level); }

}  // namespace poolwright
