#include "k_center.hpp"

#include <algorithm>
#include <stdexcept>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "half.hpp"

namespace poolwright {

namespace {

// With fewer differences squared (some 50 microseconds) a thread costs more to wake than it saves.
constexpr int64_t kWorkPerThread = 1 << 18;
constexpr int kSharesPerThread = 8;

// Flush-to-zero is a setting of each thread (torch.set_flush_denormal sets it for one): pin it off while we compute,
// or the bits would depend on which thread a row falls to.
class DefaultRounding {
public:
#if defined(__SSE2__)
    DefaultRounding() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~DefaultRounding() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#else
    DefaultRounding() {}
    ~DefaultRounding() {}
#endif
public:
    DefaultRounding(const DefaultRounding&) = delete;
    DefaultRounding& operator=(const DefaultRounding&) = delete;
};

FoldFn fold_function(CpuLevel level, DType dtype) {
    const FoldTable* table = &kFoldBase;
#if defined(POOLWRIGHT_X86_LEVELS)
    if (level == CpuLevel::avx2) table = &kFoldAvx2;
    if (level == CpuLevel::avx512) table = &kFoldAvx512;
#else
    (void)level;
#endif
    return table->by_dtype[static_cast<int>(dtype)];
}

// A total order (larger value, then lower index), so the winner does not depend on who finishes first.
[[maybe_unused]] bool beats(const Best& a, const Best& b) {
    return a.index >= 0 && (b.index < 0 || a.value > b.value || (a.value == b.value && a.index < b.index));
}

void read_row(const Matrix& x, int64_t row, float* out) {
    const int64_t start = row * x.row_stride;
    for (int64_t j = 0; j < x.d; ++j) {
        const int64_t at = start + j * x.col_stride;
        if (x.dtype == DType::f32) out[j] = static_cast<const float*>(x.data)[at];
        else if (x.dtype == DType::f16) out[j] = half_to_float(static_cast<const uint16_t*>(x.data)[at]);
        else out[j] = bfloat_to_float(static_cast<const uint16_t*>(x.data)[at]);
    }
}

}  // namespace

Best fold_rows(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, CpuLevel level,
               int threads) {
    const FoldFn fold = fold_function(level, x.dtype);
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
    const DefaultRounding rounding;
    best = fold({x, 0, x.n, centers, m, mind, eligible});
    return best;
}

void k_center_eager(const Matrix& x, float* mind, uint8_t* eligible, float* scratch, int64_t* indices, float* squared,
                    int64_t k, int64_t first, CpuLevel level, int threads, const std::function<void()>& poll) {
    if (k == 0) return;
    Best best = first >= 0 ? Best{mind[first], first} : fold_rows(x, scratch, 0, mind, eligible, level, threads);
    for (int64_t i = 0;; ++i) {
        if (best.index < 0) throw std::invalid_argument("fewer than k points are eligible");
        indices[i] = best.index;
        squared[i] = best.value;
        eligible[best.index] = 0;
        if (i + 1 == k) return;
        read_row(x, best.index, scratch);
        best = fold_rows(x, scratch, 1, mind, eligible, level, threads);
        poll();
    }
}

}  // namespace poolwright
