#include <optional>

#include "../cpu/outer.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

// The error bound of the float32 filter needs far fewer than 2^24 summands.
constexpr int64_t kMostDimensions = 1 << 22;

void outer_fold_arrays(const py::object& left_array, const py::object& right_array,
                       const py::object& center_left_array, const py::object& center_right_array,
                       const py::object& mind_array, const py::object& eligible_array, int threads,
                       const std::string& level_name) {
    const ArrayView left_view(left_array, "left"), right_view(right_array, "right"),
        center_left(center_left_array, "center_left"), center_right(center_right_array, "center_right"),
        mind(mind_array, "mind", true);
    const Matrix left = as_matrix(left_view.expect_cpu()), right = as_matrix(right_view.expect_cpu());
    right_view.expect_size(0, left.n);
    center_left.expect_dims(2).expect_size(1, left.d).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    const int64_t m = center_left.size(0);
    center_right.expect_dims(2).expect_size(0, m).expect_size(1, right.d).expect_dtype(DType::f32);
    center_right.expect_contiguous().expect_cpu();
    mind.expect_dims(1).expect_size(0, left.n).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    if (left.d > kMostDimensions || right.d > kMostDimensions)
        throw py::value_error("left and right may have at most " + std::to_string(kMostDimensions) + " columns");
    std::optional<ArrayView> eligible;
    if (!eligible_array.is_none()) {
        eligible.emplace(eligible_array, "eligible");
        eligible->expect_dims(1).expect_size(0, left.n).expect_dtype(DType::u8).expect_contiguous().expect_cpu();
    }
    const CpuLevel level = resolve_level(level_name);
    const py::gil_scoped_release release;
    outer_fold(left, right, center_left.as<const float>(), center_right.as<const float>(), m, mind.as<float>(),
               eligible ? eligible->as<const uint8_t>() : nullptr, level, threads);
}

}  // namespace

void register_seeding(py::module_& module) {
    module.def("outer_fold", &outer_fold_arrays, py::arg("left"), py::arg("right"), py::arg("center_left"),
               py::arg("center_right"), py::arg("mind"), py::arg("eligible") = py::none(), py::kw_only(),
               py::arg("threads") = 1, py::arg("level") = "",
               "Fold m centers (m, C), (m, d) into the minimum squared distances mind (n,) of the outer products of "
               "the eligible rows of left (n, C) and right (n, d), in place.");
}

}  // namespace poolwright
