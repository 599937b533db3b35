#include "../cuda/sinkhorn.hpp"

#include <pybind11/stl.h>

#include <cmath>
#include <string>

#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

std::vector<cuda::SinkhornLaunch> plan(const py::object& x_sizes_array, const py::object& y_sizes_array,
                                       const py::object& order_array, int64_t memory_limit, int device) {
    const ArrayView x_sizes(x_sizes_array, "x_sizes"), y_sizes(y_sizes_array, "y_sizes"),
        order(order_array, "order", true);
    x_sizes.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
    const int64_t pairs = x_sizes.size(0);
    y_sizes.expect_dims(1).expect_size(0, pairs).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
    order.expect_dims(1).expect_size(0, pairs).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
    const py::gil_scoped_release release;
    return cuda::sinkhorn_plan(x_sizes.as<const int64_t>(), y_sizes.as<const int64_t>(), pairs, memory_limit, device,
                               order.as<int64_t>());
}

void run(const py::object& x_array, const py::object& y_array, const py::object& x_offsets_array,
         const py::object& y_offsets_array, const py::object& a_array, const py::object& b_array,
         const py::object& order_array, const std::vector<cuda::SinkhornLaunch>& launches,
         const py::object& counters_array, const py::object& workspace_array, const py::object& value_array,
         const py::object& lower_array, const py::object& iterations_array, const py::object& converged_array, double p,
         double epsilon, double tolerance, int64_t max_iterations, uint64_t stream) {
    const ArrayView x(x_array, "x"), y(y_array, "y"), x_offsets(x_offsets_array, "x_offsets"),
        y_offsets(y_offsets_array, "y_offsets"), a(a_array, "a"), b(b_array, "b"), order(order_array, "order"),
        counters(counters_array, "counters", true), workspace(workspace_array, "workspace", true),
        value(value_array, "value", true), lower(lower_array, "lower", true),
        iterations(iterations_array, "iterations", true), converged(converged_array, "converged", true);
    x.expect_dims(2).expect_floating().expect_contiguous().expect_cuda();
    y.expect_dims(2).expect_size(1, x.size(1)).expect_dtype(x.dtype()).expect_contiguous().expect_same_device(x);
    const int64_t pairs = order.expect_dims(1).size(0);
    const auto vector = [&](const ArrayView& view, int64_t size, DType dtype) {
        view.expect_dims(1).expect_size(0, size).expect_dtype(dtype).expect_contiguous().expect_same_device(x);
    };
    vector(x_offsets, pairs + 1, DType::i64);
    vector(y_offsets, pairs + 1, DType::i64);
    vector(a, x.size(0), DType::f64);
    vector(b, y.size(0), DType::f64);
    vector(order, pairs, DType::i64);
    vector(counters, static_cast<int64_t>(launches.size()), DType::i64);
    vector(value, pairs, DType::f64);
    vector(lower, pairs, DType::f64);
    vector(iterations, pairs, DType::i64);
    vector(converged, pairs, DType::u8);
    workspace.expect_dims(1).expect_dtype(DType::u8).expect_contiguous().expect_same_device(x);
    for (const auto& launch : launches) {
        if (launch.first < 0 || launch.first + launch.count > pairs)
            throw py::value_error("launches must be those that cuda_sinkhorn_plan gave for these pairs");
        if (workspace.size(0) < launch.workspace_bytes())
            throw py::value_error("workspace must have " + std::to_string(launch.workspace_bytes()) + " bytes, not " +
                                  std::to_string(workspace.size(0)));
    }
    if (!(p >= 1.0) || std::isinf(p)) throw py::value_error("p must be at least 1 and finite");
    if (!(epsilon > 0.0) || std::isinf(epsilon)) throw py::value_error("epsilon must be positive and finite");
    if (!(tolerance > 0.0)) throw py::value_error("tolerance must be positive");
    if (max_iterations < 1) throw py::value_error("max_iterations must be at least 1");
    const cuda::SinkhornProblem problem{x.data(), y.data(), x.dtype(), x.size(1), x_offsets.as<const int64_t>(),
                                        y_offsets.as<const int64_t>(), a.as<const double>(), b.as<const double>(),
                                        order.as<const int64_t>(), p, epsilon, tolerance, max_iterations,
                                        value.as<double>(), lower.as<double>(), iterations.as<int64_t>(),
                                        converged.as<uint8_t>()};
    const py::gil_scoped_release release;
    for (size_t i = 0; i < launches.size(); ++i)
        cuda::sinkhorn_run(problem, launches[i], counters.as<unsigned long long>() + i, workspace.as<void>(),
                           x.device_id(), stream);
}

}  // namespace

void register_sinkhorn_cuda(py::module_& module) {
    // Local: the emulation of the tests registers the same type in a module of its own.
    py::class_<cuda::SinkhornLaunch>(module, "SinkhornLaunch", py::module_local())
        .def_readonly("kind", &cuda::SinkhornLaunch::kind)
        .def_readonly("count", &cuda::SinkhornLaunch::count)
        .def_readonly("blocks", &cuda::SinkhornLaunch::blocks)
        .def_readonly("shared_bytes", &cuda::SinkhornLaunch::shared_bytes)
        .def_property_readonly("workspace_bytes", &cuda::SinkhornLaunch::workspace_bytes);
    module.def("cuda_sinkhorn_plan", &plan, py::arg("x_sizes"), py::arg("y_sizes"), py::arg("order"), py::kw_only(),
               py::arg("memory_limit"), py::arg("device"),
               "Sorts pairs into `order` by the kernel that takes them and by size; returns the launches.");
    module.def("cuda_sinkhorn", &run, py::arg("x"), py::arg("y"), py::arg("x_offsets"), py::arg("y_offsets"),
               py::arg("a"), py::arg("b"), py::arg("order"), py::arg("launches"), py::arg("counters"),
               py::arg("workspace"), py::arg("value"), py::arg("lower"), py::arg("iterations"), py::arg("converged"),
               py::kw_only(), py::arg("p"), py::arg("epsilon"), py::arg("tolerance"), py::arg("max_iterations"),
               py::arg("stream"),
               "Queues the launches of a plan on `stream`; counters (launches,) int64 must be zero.");
}

}  // namespace poolwright
