#include "../cuda/seeding.hpp"

#include <optional>

#include "cuda_arguments.hpp"

namespace py = pybind11;

namespace poolwright {

namespace {

// Two factors of outer products, or one matrix.
struct Factors {
    ArrayView left;
    std::optional<ArrayView> right;
    Matrix left_rows, right_rows;

    Factors(const py::object& left_array, const py::object& right_array) : left(left_array, "left") {
        left_rows = cuda_matrix(left);
        if (right_array.is_none()) return;
        right.emplace(right_array, "right");
        right_rows = cuda_matrix(*right);
        right->expect_size(0, left_rows.n).expect_dtype(left_rows.dtype).expect_same_device(left);
    }
    const Matrix* second() const { return right ? &right_rows : nullptr; }
};

// The arguments of all calls of one sampling.
struct Sampling {
    Factors factors;
    ArrayView nearest, eligible, keys, workspace;

    Sampling(const py::object& left, const py::object& right, const py::object& nearest_array,
             const py::object& eligible_array, const py::object& keys_array, const py::object& workspace_array)
        : factors(left, right), nearest(nearest_array, "nearest", true), eligible(eligible_array, "eligible", true),
          keys(keys_array, "keys", true), workspace(workspace_array, "workspace", true) {
        expect_state(factors.left, factors.left_rows.n, nearest, eligible);
        keys.expect_dims(1).expect_dtype(DType::i64).expect_contiguous().expect_same_device(factors.left);
        if (keys.size(0) < 1 || keys.size(0) > factors.left_rows.n)
            throw py::value_error("keys must have at least one place and at most as many as there are rows");
    }
    cuda::SeedingArgs args(uint64_t stream) const {
        const int64_t bytes = cuda::seeding_workspace(factors.left_rows, factors.second());
        void* space = workspace_of(workspace, factors.left, bytes);
        return {factors.left_rows, factors.second(), nearest.as<float>(), eligible.as<uint8_t>(),
                keys.as<cuda::Key>(), keys.size(0), space, factors.left.device_id(), stream};
    }
};

int64_t workspace_bytes(const py::object& left, const py::object& right) {
    const Factors factors(left, right);
    return cuda::seeding_workspace(factors.left_rows, factors.second());
}

void start(const py::object& left, const py::object& right, const py::object& nearest, const py::object& eligible,
           const py::object& keys, const py::object& workspace, int64_t first, uint64_t stream) {
    const Sampling sampling(left, right, nearest, eligible, keys, workspace);
    if (first >= sampling.factors.left_rows.n) throw py::value_error("first must be a row");
    const cuda::SeedingArgs args = sampling.args(stream);
    const py::gil_scoped_release release;
    cuda::seeding_start(args, first);
}

void batches(const py::object& left, const py::object& right, const py::object& nearest, const py::object& eligible,
             const py::object& keys, const py::object& workspace, uint64_t seed, int64_t patience, int64_t count,
             uint64_t stream) {
    const Sampling sampling(left, right, nearest, eligible, keys, workspace);
    if (patience < 1) throw py::value_error("patience must be at least 1");
    const cuda::SeedingArgs args = sampling.args(stream);
    const py::gil_scoped_release release;
    cuda::seeding_batches(args, seed, patience, count);
}

void finish(const py::object& left, const py::object& right, const py::object& nearest, const py::object& eligible,
            const py::object& keys, const py::object& workspace, uint64_t stream) {
    const Sampling sampling(left, right, nearest, eligible, keys, workspace);
    const cuda::SeedingArgs args = sampling.args(stream);
    const py::gil_scoped_release release;
    cuda::seeding_finish(args);
}

void fold_outer(const py::object& left, const py::object& right, const py::object& left_array,
                const py::object& right_array, const py::object& nearest_array, const py::object& eligible_array,
                const py::object& workspace_array, uint64_t stream) {
    const Factors factors(left, right);
    if (!factors.right) throw py::value_error("right must be a matrix");
    const ArrayView center_left(left_array, "center_left"), center_right(right_array, "center_right"),
        nearest(nearest_array, "nearest", true), eligible(eligible_array, "eligible"),
        workspace(workspace_array, "workspace", true);
    expect_state(factors.left, factors.left_rows.n, nearest, eligible);
    center_left.expect_dims(2).expect_size(1, factors.left_rows.d).expect_dtype(DType::f32).expect_contiguous();
    center_right.expect_dims(2).expect_size(0, center_left.size(0)).expect_size(1, factors.right_rows.d);
    center_right.expect_dtype(DType::f32).expect_contiguous().expect_same_device(factors.left);
    center_left.expect_same_device(factors.left);
    void* space = workspace_of(workspace, factors.left, cuda::seeding_workspace(factors.left_rows, factors.second()));
    const py::gil_scoped_release release;
    cuda::outer_fold(factors.left_rows, factors.right_rows, center_left.as<const float>(),
                     center_right.as<const float>(), center_left.size(0), nearest.as<float>(),
                     eligible.as<const uint8_t>(), space, factors.left.device_id(), stream);
}

}  // namespace

void register_seeding_cuda(py::module_& module) {
    module.attr("cuda_seeding_batch") = cuda::kSeedingBatch;
    module.def("cuda_seeding_workspace", &workspace_bytes, py::arg("left"), py::arg("right"),
               "Bytes that sampling needs. right may be None. The workspace begins with five int64: picks that "
               "nearest has seen, picks made, draws, pairs compared, and whether all that is left coincides with a "
               "center.");
    module.def("cuda_seeding_start", &start, py::arg("left"), py::arg("right"), py::arg("nearest"), py::arg("eligible"),
               py::arg("keys"), py::arg("workspace"), py::kw_only(), py::arg("first"), py::arg("stream"),
               "Prepares the workspace (bytes, uint8); first >= 0 is picked.");
    module.def("cuda_seeding_batches", &batches, py::arg("left"), py::arg("right"), py::arg("nearest"),
               py::arg("eligible"), py::arg("keys"), py::arg("workspace"), py::kw_only(), py::arg("seed"),
               py::arg("patience"), py::arg("batches"), py::arg("stream"),
               "Queues batches of up to 64 draws into keys (k,), each after a refresh of nearest.");
    module.def("cuda_seeding_finish", &finish, py::arg("left"), py::arg("right"), py::arg("nearest"),
               py::arg("eligible"), py::arg("keys"), py::arg("workspace"), py::kw_only(), py::arg("stream"),
               "Nearest sees the last picks.");
    module.def("cuda_outer_fold", &fold_outer, py::arg("left"), py::arg("right"), py::arg("center_left"),
               py::arg("center_right"), py::arg("nearest"), py::arg("eligible"), py::arg("workspace"), py::kw_only(),
               py::arg("stream"), "Folds outer products of m rows each into nearest (n,), in place.");
}

}  // namespace poolwright
