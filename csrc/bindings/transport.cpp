#include "../cpu/transport.hpp"

#include <pybind11/stl.h>

#include <deque>

#include "poll.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

// One side of all pairs: pair i is rows begin[i] to begin[i] + size[i] of sets[set[i]].
class SideView {
public:
    SideView(const py::sequence& sets, const py::object& spans, const py::object& weights, const std::string& name)
        : spans_(spans, (name + "_spans").c_str()) {
        spans_.expect_dims(2).expect_size(1, 4).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
        for (const auto& set : sets) {
            const ArrayView& view = views_.emplace_back(py::reinterpret_borrow<py::object>(set), name.c_str());
            view.expect_dims(2).expect_cpu();
            if (view.dtype() != DType::f64) view.expect_floating();
            matrices_.push_back(
                {view.data(), view.dtype(), view.size(0), view.size(1), view.stride(0), view.stride(1)});
        }
        if (!weights.is_none()) {
            const ArrayView& view = views_.emplace_back(weights, (name + "_weights").c_str());
            view.expect_dims(1).expect_dtype(DType::f64).expect_contiguous().expect_cpu();
            weights_ = view.as<const double>();
            left_ = view.size(0);
        }
    }
    int64_t number(int64_t i) const { return spans_.as<const int64_t>()[4 * i + 3]; }
    int64_t count() const { return spans_.size(0); }
    // To be called for i = 0, 1, ... in order: the weights of all pairs lie one after the other.
    PointSet next(int64_t i) {
        const int64_t* span = spans_.as<const int64_t>() + 4 * i;
        const int64_t set = span[0], begin = span[1], size = span[2];
        if (set < 0 || set >= static_cast<int64_t>(matrices_.size()) || begin < 0 || size < 1 ||
            begin > matrices_[set].n - size)
            throw py::value_error("pair " + std::to_string(i) + " is no range of rows");
        Matrix part = matrices_[set];
        const int64_t element = part.dtype == DType::f64 ? 8 : part.dtype == DType::f32 ? 4 : 2;
        part.data = static_cast<const char*>(part.data) + begin * part.row_stride * element;
        part.n = size;
        const double* weights = weights_;
        if (weights != nullptr) {
            if (size > left_) throw py::value_error("there are fewer weights than points");
            weights_ += size;
            left_ -= size;
        }
        return {part, weights};
    }

private:
    ArrayView spans_;
    std::deque<ArrayView> views_;
    std::vector<Matrix> matrices_;
    const double* weights_ = nullptr;
    int64_t left_ = 0;
};

void transport_exact(const py::sequence& xs, const py::object& x_spans, const py::sequence& ys,
                     const py::object& y_spans, const py::object& distances_array, const py::object& x_weights,
                     const py::object& y_weights, double p, int64_t memory_limit, int threads,
                     const std::string& level_name) {
    SideView x(xs, x_spans, x_weights, "x"), y(ys, y_spans, y_weights, "y");
    const ArrayView distances(distances_array, "distances", true);
    distances.expect_dims(1).expect_size(0, x.count()).expect_dtype(DType::f64).expect_contiguous().expect_cpu();
    if (y.count() != x.count()) throw py::value_error("x and y must have as many spans");
    if (!(p >= 1) || p > 32) throw py::value_error("p must be from 1 to 32");
    std::vector<PointSets> pairs;
    pairs.reserve(static_cast<size_t>(x.count()));
    for (int64_t i = 0; i < x.count(); ++i) {
        const PointSet from = x.next(i);
        pairs.push_back({from, y.next(i), x.number(i)});
        if (pairs.back().x.points.d != pairs.back().y.points.d)
            throw py::value_error("pair " + std::to_string(i) + ": x and y must have the same number of dimensions");
    }
    const CpuLevel level = resolve_level(level_name);
    const auto poll = make_poll();
    const py::gil_scoped_release release;
    transport(pairs, p, level, threads, memory_limit, distances.as<double>(), poll);
}

}  // namespace

void register_transport(py::module_& module) {
    module.def("transport_bytes", &transport_bytes, py::arg("n"), py::arg("m"), py::arg("d"), py::kw_only(),
               py::arg("wide") = false,
               "Bytes of workspace of one thread for a pair of n and m points; wide: one of them is float64.");
    module.def("transport_exact", &transport_exact, py::arg("xs"), py::arg("x_spans"), py::arg("ys"),
               py::arg("y_spans"), py::arg("distances"), py::kw_only(), py::arg("x_weights") = py::none(),
               py::arg("y_weights") = py::none(), py::arg("p") = 2.0, py::arg("memory_limit"), py::arg("threads") = 1,
               py::arg("level") = "",
               "Exact W_p of many pairs into distances (pairs,). xs: matrices; x_spans (pairs, 4) int64: matrix, first "
               "row, rows of each pair, and the number errors call it by; x_weights: float64, those of all pairs one "
               "after the other.");
}

}  // namespace poolwright
