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

int64_t whole_panels(int64_t capacity) { return (capacity + kPanel - 1) / kPanel; }

int64_t panel_size(int64_t d, bool bf16) { return (bf16 ? (d + 31) / 32 * 32 : d) * kPanel; }

}  // namespace

Centers::Centers(float* rows, int64_t capacity, std::vector<float> mean, bool bf16)
    : rows_(rows),
      d_(static_cast<int64_t>(mean.size())),
      panel_size_(panel_size(d_, bf16)),
      bf16_(bf16),
      mean_(std::move(mean)) {
    // Columns of a panel that hold no center yet are multiplied too: their bound is infinite.
    const int64_t padded = whole_panels(capacity) * kPanel;
    if (bf16) narrow_panels_.assign(padded / kPanel * panel_size_, 0);
    else wide_panels_.assign(padded / kPanel * panel_size_, 0.0f);
    floor_.assign(padded, std::numeric_limits<float>::infinity());
    slack_.assign(padded, 0.0f);
    norm_.assign(padded, 0.0f);
}

int64_t Centers::bytes(int64_t capacity, int64_t d, bool bf16) {
    const int64_t element = bf16 ? sizeof(uint16_t) : sizeof(float);
    return whole_panels(capacity) * (panel_size(d, bf16) * element + kPanel * 3 * static_cast<int64_t>(sizeof(float)));
}

void Centers::append(const float* row) {
    float* mine = next_row();
    if (row != mine) std::copy(row, row + d_, mine);
    const int64_t panel = count_ / kPanel * panel_size_;
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
            uint16_t* tile = narrow_panels_.data() + panel + (j / 32 * 4 + column / 16) * 512;
            tile[j % 32 / 2 * 32 + column % 16 * 2 + j % 2] = narrow;
        } else {
            wide_panels_[panel + j * kPanel + column] = centered;
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
    CenterView view{};
    view.d = d_;
    view.mean = mean_.data();
    view.rows = rows_;
    view.panels = bf16_ ? static_cast<const void*>(narrow_panels_.data()) : wide_panels_.data();
    view.panel_bytes = panel_size_ * static_cast<int64_t>(bf16_ ? sizeof(uint16_t) : sizeof(float));
    view.floor = floor_.data();
    view.slack = slack_.data();
    view.norm = norm_.data();
    view.sum_slack = static_cast<float>(slack);
    return view;
}

}  // namespace poolwright
