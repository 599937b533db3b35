#include "../cpu/k_center.hpp"

#include <pybind11/numpy.h>

#include <limits>
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

// x is the pool, or None: then read(ids) returns the rows `ids` (an int64 array in memory order) as a float32 matrix.
int64_t k_center_lazy_arrays(const py::object& x_array, const py::object& read, const py::object& mind_array,
                        const py::object& seen_array, const py::object& eligible_array,
                        const py::object& centers_array, const py::object& indices_array,
                        const py::object& squared_array, int64_t labeled, int64_t first, int64_t read_rows, int threads,
                        const std::string& level_name) {
    const ArrayView mind(mind_array, "mind", true), seen(seen_array, "seen", true),
        eligible(eligible_array, "eligible", true), centers(centers_array, "centers", true),
        indices(indices_array, "indices", true), squared(squared_array, "squared", true);
    LazyArgs args{};
    mind.expect_dims(1).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    const int64_t n = mind.size(0);
    if (n > kLargestPool) throw py::value_error("k_center takes at most 2^32 - 2 rows");
    seen.expect_dims(1).expect_size(0, n).expect_dtype(DType::i32).expect_contiguous().expect_cpu();
    eligible.expect_dims(1).expect_size(0, n).expect_dtype(DType::u8).expect_contiguous().expect_cpu();
    indices.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_cpu();
    args.k = indices.size(0);
    squared.expect_dims(1).expect_size(0, args.k).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    centers.expect_dims(2).expect_size(0, labeled + args.k).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    const int64_t d = centers.size(1);
    if (first >= n) throw py::value_error("first must be a row of x");
    if (first >= 0 && labeled > 0) throw py::value_error("first is for pools where nothing is labeled");
    if (labeled < 0) throw py::value_error("labeled must count rows of centers");
    if (labeled + args.k > std::numeric_limits<int32_t>::max())
        throw py::value_error("k_center takes at most 2^31 - 1 centers, labeled ones and picks together");
    std::optional<ArrayView> x, block;
    args.pool.n = n;
    args.pool.d = d;
    if (!x_array.is_none()) {
        x.emplace(x_array, "x");
        args.pool.x = as_matrix(x->expect_cpu());
        x->expect_size(0, n).expect_size(1, d);
    } else {
        if (read_rows < 1) throw py::value_error("read_rows must be positive");
        args.pool.gather_rows = read_rows;
        args.pool.gather = [&](const int64_t* ids, int64_t count) {
            const py::gil_scoped_acquire gil;
            block.reset();
            block.emplace(read(py::array_t<int64_t>(count, ids)), "read(ids)");
            const Matrix rows = as_matrix(block->expect_cpu());
            block->expect_size(0, count).expect_size(1, d);
            return rows;
        };
    }
    args.mind = mind.as<float>();
    args.seen = seen.as<int32_t>();
    args.eligible = eligible.as<uint8_t>();
    args.centers = centers.as<float>();
    args.labeled = labeled;
    args.indices = indices.as<int64_t>();
    args.squared = squared.as<float>();
    args.first = first;
    const CpuLevel level = resolve_level(level_name);
    const auto poll = make_poll();
    const py::gil_scoped_release release;
    return k_center_lazy(args, level, threads, poll);
}

void nearest_center_arrays(const py::object& x_array, const py::object& centers_array, const py::object& nearest_array,
                    const py::object& squared_array, int threads, const std::string& level_name) {
    const ArrayView x(x_array, "x"), centers(centers_array, "centers"), nearest(nearest_array, "nearest", true),
        squared(squared_array, "squared", true);
    const Matrix rows = as_matrix(x.expect_cpu());
    centers.expect_dims(2).expect_size(1, rows.d).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    if (centers.size(0) < 1 || centers.size(0) > std::numeric_limits<int32_t>::max())
        throw py::value_error("centers must have 1 to 2^31 - 1 rows");
    nearest.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::i32).expect_contiguous().expect_cpu();
    squared.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::f32).expect_contiguous().expect_cpu();
    const CpuLevel level = resolve_level(level_name);
    const py::gil_scoped_release release;
    find_nearest(rows, centers.as<const float>(), centers.size(0), nearest.as<int32_t>(), squared.as<float>(), level,
                 threads);
}

}  // namespace

void register_k_center(py::module_& module) {
    module.def("k_center_fold", &k_center_fold, py::arg("x"), py::arg("centers"), py::arg("mind"),
               py::arg("eligible") = py::none(), py::kw_only(), py::arg("threads") = 1, py::arg("level") = "",
               "Fold m centers (m, d) into the minimum squared distances mind (n,) of the eligible rows of x (n, d), "
               "in place. Returns (index, value) of the largest eligible mind, ties to the lowest index; (-1, -1.0) "
               "where no row is eligible.");
    module.def(
        "k_center_lazy_bytes",
        [](int64_t count, int64_t d, int threads, const std::string& level) {
            return k_center_lazy_bytes(count, d, resolve_level(level), threads);
        },
        py::arg("count"), py::arg("d"), py::kw_only(), py::arg("threads") = 1, py::arg("level") = "",
        "Bytes that k_center_lazy allocates for `count` centers of d dimensions, labeled ones and picks.");
    module.def("k_center_lazy", &k_center_lazy_arrays, py::arg("x"), py::arg("read"), py::arg("mind"), py::arg("seen"),
               py::arg("eligible"), py::arg("centers"), py::arg("indices"), py::arg("squared"), py::kw_only(),
               py::arg("labeled") = 0, py::arg("first") = -1, py::arg("read_rows") = 0, py::arg("threads") = 1,
               py::arg("level") = "",
               "Pick len(indices) rows of x (n, d), or of the pool that read(ids) reads, greedily, after the first "
               "`labeled` rows of centers, or after the pick `first`, or beside what mind (n,) holds already. Fills "
               "indices, squared and centers (labeled + k, d), updates mind, seen and eligible in place, and returns "
               "the number of distances computed.");
    module.def("nearest_center", &nearest_center_arrays, py::arg("x"), py::arg("centers"), py::arg("nearest"),
               py::arg("squared"), py::kw_only(), py::arg("threads") = 1, py::arg("level") = "",
               "For each row of x (n, d) the nearest of m centers (m, d), ties to the lowest: fills nearest (n,) int32 "
               "and squared (n,) float32.");
}

}  // namespace poolwright
