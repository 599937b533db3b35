// One function per kernel family, each in a file of its own.
#pragma once

#include <pybind11/pybind11.h>

#include "../array_view.hpp"

namespace poolwright {

inline Matrix as_matrix(const ArrayView& view) {
    view.expect_dims(2).expect_floating();
    return {view.data(), view.dtype(), view.size(0), view.size(1), view.stride(0), view.stride(1)};
}

void register_k_center(pybind11::module_& module);
void register_transport(pybind11::module_& module);
void register_seeding(pybind11::module_& module);
#if defined(POOLWRIGHT_WITH_CUDA)
void register_k_center_cuda(pybind11::module_& module);
void register_sinkhorn_cuda(pybind11::module_& module);
void register_seeding_cuda(pybind11::module_& module);
#endif

}  // namespace poolwright
