#include "centers.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "half.hpp"

namespace poolwright {

namespace {

constexpr double kUnit = 5.9604644775390625e-08;  // 2^-24: half a unit in the last place of 1 in float32

// To bfloat16, to nearest even; finite input.
uint16_t to_bfloat(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

Centers::Centers(float* rows, int64_t capacity, std::vector<float> mean, bool bf16)
    : rows_(rows),
      d_(static_cast<int64_t>(mean.size())),
      stride_(bf16 ? (d_ + 31) / 32 * 32 * kPanel / 2 : d_ * kPanel),
      bf16_(bf16),
      mean_(std::move(mean)) {
    const int64_t padded = (capacity + kPanel - 1) / kPanel * kPanel;
    // Columns of a panel that hold no center yet are multiplied too: their bound is infinite.
    panels_.assign(padded / kPanel * stride_, 0.0f);
    floor_.assign(padded, std::numeric_limits<float>::infinity());
    slack_.assign(padded, 0.0f);
    norm_.assign(padded, 0.0f);
}

void Centers::append(const float* row) {
    float* mine = next_row();
    if (row != mine) std::copy(row, row + d_, mine);
    float* panel = panels_.data() + count_ / kPanel * stride_;
    const int64_t column = count_ % kPanel;
    double squares = 0, rounding = 0;
    for (int64_t j = 0; j < d_; ++j) {
        const float centered = mine[j] - mean_[j];
        const double exact = static_cast<double>(mine[j]) - mean_[j];
        double kept = centered;
        if (bf16_) {
            const uint16_t narrow = to_bfloat(centered);
            kept = bfloat_to_float(narrow);
            // Tiles of 32 dimensions x 16 centers, two neighboring dimensions of a center side by side.
            uint16_t* tile = reinterpret_cast<uint16_t*>(panel) + (j / 32 * 4 + column / 16) * 512;
            tile[j % 32 / 2 * 32 + column % 16 * 2 + j % 2] = narrow;
        } else {
            panel[j * kPanel + column] = centered;
        }
        squares += exact * exact;
        rounding += (kept - exact) * (kept - exact);
    }
    const double norm = std::sqrt(squares), lost = std::sqrt(rounding);
    // d products summed in any order: relative error d 2^-24 of |yh||ch|; as much again for tile units, which round
    // each product of a pair. 8 units: the comparison's own few roundings.
    const double sum = (bf16_ ? 2.0 : 1.0) * (static_cast<double>(d_) + 8) * kUnit;
    floor_[count_] = static_cast<float>(squares * (1 - 8 * kUnit));
    norm_[count_] = static_cast<float>(norm * (1 + 8 * kUnit));
    slack_[count_] = static_cast<float>((lost + sum * (norm + lost)) * (1 + 8 * kUnit));
    ++count_;
}

CenterView Centers::view() const {
    // A squared difference has three roundings, and d / 16 + 4 additions follow; twice that leaves room for the few
    // roundings of the comparison.
    const double slack = 2 * (static_cast<double>(d_) / 16 + 24) * kUnit;
    return {d_,          mean_.data(),  rows_,        panels_.data(),           stride_,
            floor_.data(), slack_.data(), norm_.data(), static_cast<float>(slack)};
}

}  // namespace poolwright
