// The centers of a greedy pass, in the two forms that the kernels read: as rows, for exact distances, and as panels of
// columns with their norms, for the matrix product that proves most pairs uninteresting.
#pragma once

#include <cstdint>
#include <vector>

#include "../dtype.hpp"
#include "levels.hpp"

namespace poolwright {

constexpr int kPanel = 64;  // centers in a panel

// What a level's kernel reads. Products are of y = x - mean and c' = c - mean, rounded to the product's type:
//   ||x - c||^2 >= |y|^2 + floor[j] - 2 p - 2 |yh| slack[j] - 2 |yh - y| norm[j],
// where yh is y as rounded, p the computed product of yh and c', floor[j] a lower bound of |c'|^2, norm[j] an upper
// bound of |c'|, and slack[j] one of the rounding of c' and of the sum, per unit of |yh| (Cauchy-Schwarz).
struct CenterView {
    int64_t d;
    const float* mean;    // d
    const float* rows;    // m x d
    const float* panels;  // ceil(m / 64) x stride: f32 as d x 64; bf16 as ceil(d / 32) x 4 x 16 x 16 x 2
    int64_t panel_stride;  // in floats
    const float* floor;
    const float* slack;
    const float* norm;
    float sum_slack;  // upper bound of the relative error of a squared distance summed in float32, and a little more
};

class Centers {
public:
    // `rows` (capacity x d) is the caller's; mean holds d floats near the middle of the data (any values are right,
    // those near the middle make the bounds tight). bf16: panels for tile matrix products.
    Centers(float* rows, int64_t capacity, std::vector<float> mean, bool bf16);

    // Append one center; the row may already lie in its place.
    void append(const float* row);
    float* next_row() { return rows_ + count_ * d_; }
    int32_t count() const { return static_cast<int32_t>(count_); }
    CenterView view() const;

private:
    float* rows_;
    int64_t d_, count_ = 0, stride_;
    bool bf16_;
    std::vector<float> mean_, panels_, floor_, slack_, norm_;
};

}  // namespace poolwright
