#include "../cpu/k_center.hpp"

#include <optional>

#include "poll.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

py::tuple k_center_fold(const py::object& x_array, const py::object& centers_array, const py::object& mind_array,
                        const py::object& eligible_array, int threads, const std::string& level_name) {
    const ArrayView x(x_array, "x"), centers(centers_array, "centers"), mind(mind_array, "mind", true);
    const Matrix rows = as_matrix(x.expect_cpu());
    centers.expect_dims(2).expect_size(1, rows.d).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    mind.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    std::optional<ArrayView> eligible;
    if (!eligible_array.is_none()) {
        eligible.emplace(eligible_array, "eligible");
        eligible->expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::u8).expect_contiguous().expect_cpu();
    }
    const CpuLevel level = resolve_level(level_name);
    Best best;
    {
        const py::gil_scoped_release release;
        best = fold_rows(rows, centers.as<const float>(), centers.size(0), mind.as<float>(),
                         eligible ? eligible->as<const uint8_t>() : nullptr, level, threads);
    }
    return py::make_tuple(best.index, best.value);
}

void k_center_greedy(const py::object& x_array, const py::object& mind_array, const py::object& eligible_array,
                     const py::object& scratch_array, const py::object& indices_array, const py::object& squared_array,
                     int64_t first, int threads, const std::string& level_name) {
    const ArrayView x(x_array, "x"), mind(mind_array, "mind", true), eligible(eligible_array, "eligible", true),
        scratch(scratch_array, "scratch", true), indices(indices_array, "indices", true),
        squared(squared_array, "squared", true);
    const Matrix rows = as_matrix(x.expect_cpu());
    mind.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    eligible.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::u8).expect_contiguous().expect_cpu();
    scratch.expect_dims(1).expect_size(0, rows.d).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    indices.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
    const int64_t k = indices.size(0);
    squared.expect_dims(1).expect_size(0, k).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    if (first >= rows.n) throw py::value_error("first must be a row of x");
    const CpuLevel level = resolve_level(level_name);
    const auto poll = make_poll();
    const py::gil_scoped_release release;
    k_center_eager(rows, mind.as<float>(), eligible.as<uint8_t>(), scratch.as<float>(), indices.as<int64_t>(),
                   squared.as<float>(), k, first, level, threads, poll);
}

}  // namespace

void register_k_center(py::module_& module) {
    module.def("k_center_fold", &k_center_fold, py::arg("x"), py::arg("centers"), py::arg("mind"),
               py::arg("eligible") = py::none(), py::kw_only(), py::arg("threads") = 1, py::arg("level") = "",
               "Fold m centers (m, d) into the minimum squared distances mind (n,) of the eligible rows of x (n, d), "
               "in place. Returns (index, value) of the largest eligible mind, ties to the lowest index; (-1, -1.0) where "
               "no row is eligible.");
    module.def("k_center_eager", &k_center_greedy, py::arg("x"), py::arg("mind"), py::arg("eligible"),
               py::arg("scratch"), py::arg("indices"), py::arg("squared"), py::kw_only(), py::arg("first") = -1,
               py::arg("threads") = 1, py::arg("level") = "",
               "Pick len(indices) rows of x greedily; fills indices and squared, updates mind and eligible in place.");
}

}  // namespace poolwright
