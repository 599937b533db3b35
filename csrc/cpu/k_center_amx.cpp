// AVX-512 with AMX tiles: the bounds of k_center_advance.hpp from bfloat16 products, sixteen times the multiplications
// a cycle. Distances are computed as on every other level. Compiled with the flags that setup.py lists for "amx", run
// only where levels.cpp finds the instructions and the operating system's leave to use tiles.
#include <immintrin.h>

#include "k_center_avx512_lanes.hpp"
#include "k_center_lanes.hpp"

namespace poolwright {
namespace {

using Packed = uint16_t;
constexpr int64_t packed_stride(int64_t d) { return (d + 31) / 32 * 32; }

}  // namespace
}  // namespace poolwright

#define POOLWRIGHT_TILE_PRODUCT
#include "k_center_advance.hpp"

namespace poolwright {
namespace {

template <class Element>
inline RowBounds pack_row(const typename Element::Stored* row, int64_t col_stride, const CenterView& centers,
                          Packed* out) {
    __m512 squares = _mm512_setzero_ps(), rounding = _mm512_setzero_ps();
    const int64_t d = centers.d;
    for (int64_t j = 0; j < packed_stride(d); j += kWidth) {
        Native y = {};
        if (col_stride == 1 && j + kWidth <= d) {
            y = Element::widen(row + j) - F32::widen(centers.mean + j);
        } else if (j < d) {
            typename Element::Stored group[kWidth] = {};
            float mean[kWidth] = {};
            for (int lane = 0; lane < kWidth && j + lane < d; ++lane) {
                group[lane] = row[(j + lane) * col_stride];
                mean[lane] = centers.mean[j + lane];
            }
            y = Element::widen(group) - F32::widen(mean);
        }
        const __m512 exact = reinterpret_cast<__m512>(y);
        const __m256i narrow = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(exact));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j), narrow);
        const __m512 kept = reinterpret_cast<__m512>(BF16::widen(out + j));
        const __m512 lost = kept - exact;
        squares = _mm512_fmadd_ps(exact, exact, squares);
        rounding = _mm512_fmadd_ps(lost, lost, rounding);
    }
    return row_bounds(sum_lanes(reinterpret_cast<Native>(squares)), sum_lanes(reinterpret_cast<Native>(rounding)),
                      d / kWidth + 5);
}

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// 32 rows x 32 centers at a time: four tiles of sums, two of rows, two of centers. Rows beyond `count` hold what is
// left there of earlier rows, and nobody reads their products.
inline void multiply(const Packed* rows, int count, const CenterView& centers, const void* panel, int from, int to,
                     float (*scores)[kPanel]) {
    static const TileConfig config;
    const int64_t stride = packed_stride(centers.d);
    const int64_t row_bytes = stride * static_cast<int64_t>(sizeof(Packed));
    constexpr int64_t kTile = 512, kScoreBytes = kPanel * sizeof(float);
    const uint16_t* columns = static_cast<const uint16_t*>(panel);
    _tile_loadconfig(&config);
    for (int left = from / 32 * 32; left < to; left += 32) {
        for (int at = 0; at < count; at += 32) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t j = 0; j < stride; j += 32) {
                const uint16_t* tile = columns + (j / 32 * (kPanel / 16) + left / 16) * kTile;
                _tile_loadd(6, tile, 64);
                _tile_loadd(7, tile + kTile, 64);
                _tile_loadd(4, rows + at * stride + j, row_bytes);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(5, rows + (at + 16) * stride + j, row_bytes);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, scores[at] + left, kScoreBytes);
            _tile_stored(1, scores[at] + left + 16, kScoreBytes);
            _tile_stored(2, scores[at + 16] + left, kScoreBytes);
            _tile_stored(3, scores[at + 16] + left + 16, kScoreBytes);
        }
    }
    _tile_release();
}

}  // namespace

const AdvanceTable kAdvanceAmx = {{advance<F32>, advance<F16>, advance<BF16>}};

}  // namespace poolwright
