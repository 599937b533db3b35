// The centers of a greedy pass, in the two forms that the kernels read: as rows, for exact distances, and as panels of
// columns with their norms, for the matrix product that proves most pairs uninteresting.
#pragma once

#include <cstdint>
#include <vector>

#include "k_center_args.hpp"

namespace poolwright {

class Centers {
public:
    // `rows` (capacity x d) is the caller's; mean holds d floats near the middle of the data (any values are right,
    // those near the middle make the bounds tight). bf16: panels for tile matrix products.
    Centers(float* rows, int64_t capacity, std::vector<float> mean, bool bf16);

    // Bytes that the constructor allocates.
    static int64_t bytes(int64_t capacity, int64_t d, bool bf16);

    // Append one center; the row may already lie in its place.
    void append(const float* row);
    float* next_row() { return rows_ + count_ * d_; }
    int32_t count() const { return static_cast<int32_t>(count_); }
    CenterView view() const;

private:
    float* rows_;
    int64_t d_, count_ = 0, panel_size_;  // elements in a panel
    bool bf16_;
    std::vector<float> mean_, wide_panels_, floor_, slack_, norm_;
    std::vector<uint16_t> narrow_panels_;
};

}  // namespace poolwright
