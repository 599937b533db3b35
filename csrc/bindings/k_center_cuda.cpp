#include <optional>

#include "../cuda/k_center.hpp"
#include "../cuda/k_center_lazy.hpp"
#include "cuda_arguments.hpp"
#include "poll.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

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

int64_t fold_workspace(const py::object& x_array) {
    const ArrayView x(x_array, "x");
    return cuda::fold_workspace(cuda_matrix(x));
}

void fold_many(const py::object& x_array, const py::object& centers_array, const py::object& mind_array,
               const py::object& eligible_array, const py::object& workspace_array, uint64_t stream) {
    const ArrayView x(x_array, "x"), centers(centers_array, "centers"), mind(mind_array, "mind", true),
        eligible(eligible_array, "eligible"), workspace(workspace_array, "workspace", true);
    const Matrix rows = cuda_matrix(x);
    centers.expect_dims(2).expect_size(1, rows.d).expect_dtype(DType::f32).expect_contiguous().expect_same_device(x);
    expect_state(x, rows.n, mind, eligible);
    void* space = workspace_of(workspace, x, cuda::fold_workspace(rows));
    const py::gil_scoped_release release;
    cuda::fold_many(rows, centers.as<const float>(), centers.size(0), mind.as<float>(), eligible.as<const uint8_t>(),
                    space, x.device_id(), stream);
}

void k_center_greedy(const py::object& x_array, const py::object& mind_array, const py::object& eligible_array,
                     const py::object& keys_array, int64_t k, int64_t first, bool fold_last, uint64_t stream) {
    const ArrayView x(x_array, "x"), mind(mind_array, "mind", true), eligible(eligible_array, "eligible", true),
        keys(keys_array, "keys", true);
    const Matrix rows = cuda_matrix(x);
    expect_state(x, rows.n, mind, eligible);
    keys.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_same_device(x);
    if (k < 0 || k > keys.size(0)) throw py::value_error("keys must have room for k picks");
    if (first >= rows.n) throw py::value_error("first must be a row of x");
    const auto poll = make_poll();
    const py::gil_scoped_release release;
    cuda::k_center_eager(rows, mind.as<float>(), eligible.as<uint8_t>(), keys.as<cuda::Key>(), k, first, fold_last,
                         x.device_id(), stream, poll);
}

int64_t lazy_workspace(const py::object& x_array) {
    const ArrayView x(x_array, "x");
    return cuda::lazy_workspace(cuda_matrix(x), x.device_id());
}

void lazy_start(const py::object& x_array, const py::object& eligible_array, const py::object& workspace_array,
                int64_t picks, int64_t pairs, uint64_t stream) {
    const ArrayView x(x_array, "x"), eligible(eligible_array, "eligible"),
        workspace(workspace_array, "workspace", true);
    const Matrix rows = cuda_matrix(x);
    eligible.expect_dims(1).expect_size(0, rows.n).expect_dtype(DType::u8).expect_contiguous().expect_same_device(x);
    void* space = workspace_of(workspace, x, cuda::lazy_workspace(rows, x.device_id()));
    const py::gil_scoped_release release;
    cuda::lazy_start(rows, eligible.as<const uint8_t>(), space, picks, pairs, x.device_id(), stream);
}

void lazy_rounds(const py::object& x_array, const py::object& mind_array, const py::object& eligible_array,
                 const py::object& keys_array, const py::object& workspace_array, int64_t rounds, uint64_t stream) {
    const ArrayView x(x_array, "x"), mind(mind_array, "mind", true), eligible(eligible_array, "eligible", true),
        keys(keys_array, "keys", true), workspace(workspace_array, "workspace", true);
    const Matrix rows = cuda_matrix(x);
    expect_state(x, rows.n, mind, eligible);
    keys.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_same_device(x);
    if (keys.size(0) > rows.n) throw py::value_error("keys has more places than x has rows");
    void* space = workspace_of(workspace, x, cuda::lazy_workspace(rows, x.device_id()));
    const py::gil_scoped_release release;
    cuda::lazy_rounds(rows, mind.as<float>(), eligible.as<uint8_t>(), keys.as<cuda::Key>(), space, keys.size(0), rounds,
                      x.device_id(), stream);
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
    module.def("cuda_k_center_fold_workspace", &fold_workspace, py::arg("x"),
               "Bytes that cuda_k_center_fold_many needs.");
    module.def("cuda_k_center_fold_many", &fold_many, py::arg("x"), py::arg("centers"), py::arg("mind"),
               py::arg("eligible"), py::arg("workspace"), py::kw_only(), py::arg("stream"),
               "k_center_fold on CUDA by tensor cores, with the same bits, queued on `stream`.");
    module.def("cuda_k_center_eager", &k_center_greedy, py::arg("x"), py::arg("mind"), py::arg("eligible"),
               py::arg("keys"), py::kw_only(), py::arg("k"), py::arg("first") = -1, py::arg("fold_last") = false,
               py::arg("stream"),
               "The first k picks by a pass over x each, queued on `stream`; keys int64 must be zero.");
    module.def("cuda_k_center_lazy_workspace", &lazy_workspace, py::arg("x"), "Bytes that the rounds on x need.");
    module.def("cuda_k_center_lazy_start", &lazy_start, py::arg("x"), py::arg("eligible"), py::arg("workspace"),
               py::kw_only(), py::arg("picks"), py::arg("pairs"), py::arg("stream"),
               "Prepares the workspace (bytes, uint8) after `picks` picks that mind has seen.");
    module.def("cuda_k_center_lazy_rounds", &lazy_rounds, py::arg("x"), py::arg("mind"), py::arg("eligible"),
               py::arg("keys"), py::arg("workspace"), py::kw_only(), py::arg("rounds"), py::arg("stream"),
               "Queues rounds of picks into keys (k,). The workspace begins with three int64: picks that mind has "
               "seen, picks made, distances computed.");
    module.def("cuda_k_center_decode", &k_center_decode, py::arg("keys"), py::arg("indices"), py::arg("squared"),
               py::kw_only(), py::arg("stream"), "Encoded best rows to indices (-1: none) and squared distances.");
}

}  // namespace poolwright
