// Checks that the bindings of the CUDA kernels share.
#pragma once

#include <string>

#include "../cuda/k_center.hpp"
#include "register.hpp"

namespace poolwright {

inline Matrix cuda_matrix(const ArrayView& x) {
    const Matrix rows = as_matrix(x.expect_cuda());
    if (rows.n > cuda::kMaxRows)
        throw pybind11::value_error("x has more rows than a 32-bit index names; use Rows in parts");
    return rows;
}

// A workspace of at least `bytes`, as Python allocated it.
inline void* workspace_of(const ArrayView& workspace, const ArrayView& x, int64_t bytes) {
    workspace.expect_dims(1).expect_dtype(DType::u8).expect_contiguous().expect_same_device(x);
    if (workspace.size(0) < bytes)
        throw pybind11::value_error("workspace must have " + std::to_string(bytes) + " bytes, and has " +
                              std::to_string(workspace.size(0)));
    return workspace.as<void>();
}

// What a fold reads and writes for each row.
inline void expect_state(const ArrayView& x, int64_t n, const ArrayView& mind, const ArrayView& eligible) {
    mind.expect_dims(1).expect_size(0, n).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    eligible.expect_dims(1).expect_size(0, n).expect_dtype(DType::u8).expect_contiguous().expect_same_device(x);
}

}  // namespace poolwright
