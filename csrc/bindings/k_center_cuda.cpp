#include <optional>

#include "../cuda/k_center.hpp"
#include "poll.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

Matrix cuda_matrix(const ArrayView& x) {
    const Matrix rows = as_matrix(x.expect_cuda());
    if (rows.n > cuda::kMaxRows) throw py::value_error("x has more rows than a 32-bit index names; use Rows in parts");
    return rows;
}

void k_center_fold(const py::object& x_array, const py::object& centers_array, const py::object& mind_array,
                   const py::object& eligible_array, const py::object& key_array, uint64_t stream) {
    const ArrayView x(x_array, "x"), centers(centers_array, "centers"), mind(mind_array, "mind", true);
    const Matrix rows = cuda_matrix(x);
    centers.expect_dims(2).expect_size(1, rows.d).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    mind.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    std::optional<ArrayView> eligible, key;
    if (!eligible_array.is_none()) {
        eligible.emplace(eligible_array, "eligible");
        eligible->expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::u8).expect_contiguous();
        eligible->expect_same_device(x);
    }
    if (!key_array.is_none()) {
        key.emplace(key_array, "key", true);
        key->expect_dims(1).expect_size(0, 1).expect_dtype(DType::i64).expect_same_device(x);
    }
    const py::gil_scoped_release release;
    cuda::fold(rows, centers.as<const float>(), centers.size(0), mind.as<float>(),
               eligible ? eligible->as<const uint8_t>() : nullptr, key ? key->as<cuda::Key>() : nullptr, x.device_id(),
               stream);
}

void k_center_greedy(const py::object& x_array, const py::object& mind_array, const py::object& eligible_array,
                     const py::object& keys_array, const py::object& indices_array, const py::object& squared_array,
                     int64_t first, uint64_t stream) {
    const ArrayView x(x_array, "x"), mind(mind_array, "mind", true), eligible(eligible_array, "eligible", true),
        keys(keys_array, "keys", true), indices(indices_array, "indices", true),
        squared(squared_array, "squared", true);
    const Matrix rows = cuda_matrix(x);
    mind.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    eligible.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::u8).expect_contiguous().expect_same_device(x);
    indices.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_same_device(x);
    const int64_t k = indices.size(0);
    keys.expect_dims(1).expect_size(0, k).expect_dtype(DType::i64).expect_contiguous().expect_same_device(x);
    squared.expect_dims(1).expect_size(0, k).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    if (first >= rows.n) throw py::value_error("first must be a row of x");
    const auto poll = make_poll();
    const py::gil_scoped_release release;
    cuda::k_center_eager(rows, mind.as<float>(), eligible.as<uint8_t>(), keys.as<cuda::Key>(), indices.as<int64_t>(),
                         squared.as<float>(), k, first, x.device_id(), stream, poll);
}

void k_center_decode(const py::object& keys_array, const py::object& indices_array, const py::object& squared_array,
                     uint64_t stream) {
    const ArrayView keys(keys_array, "keys"), indices(indices_array, "indices", true),
        squared(squared_array, "squared", true);
    keys.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_cuda();
    indices.expect_dims(1).expect_size(0, keys.size(0)).expect_dtype(DType::i64).expect_contiguous();
    squared.expect_dims(1).expect_size(0, keys.size(0)).expect_dtype(DType::f32).expect_contiguous();
    indices.expect_same_device(keys);
    squared.expect_same_device(keys);
    const py::gil_scoped_release release;
    cuda::decode(keys.as<const cuda::Key>(), indices.as<int64_t>(), squared.as<float>(), keys.size(0),
                 keys.device_id(), stream);
}

}  // namespace

void register_k_center_cuda(py::module_& module) {
    module.def("cuda_k_center_fold", &k_center_fold, py::arg("x"), py::arg("centers"), py::arg("mind"),
               py::arg("eligible"), py::arg("key"), py::kw_only(), py::arg("stream"),
               "k_center_fold on CUDA, queued on `stream`; key (1,) int64, zero before, takes the best row encoded.");
    module.def("cuda_k_center_eager", &k_center_greedy, py::arg("x"), py::arg("mind"), py::arg("eligible"),
               py::arg("keys"), py::arg("indices"), py::arg("squared"), py::kw_only(), py::arg("first") = -1,
               py::arg("stream"), "k_center_eager on CUDA, queued on `stream`; keys (k,) int64 must be zero.");
    module.def("cuda_k_center_decode", &k_center_decode, py::arg("keys"), py::arg("indices"), py::arg("squared"),
               py::kw_only(), py::arg("stream"), "Encoded best rows to indices (-1: none) and squared distances.");
}

}  // namespace poolwright
