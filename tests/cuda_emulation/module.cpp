// The CUDA kernels and their bindings as a Python module that reads CPU memory, and the settings of the emulated
// device.
#include "../../csrc/bindings/register.hpp"
#include "emulated_block.hpp"

namespace py = pybind11;

void register_self_test(py::module_& module);

PYBIND11_MODULE(emulated_cuda, module) {
    module.def(
        "configure",
        [](int multiprocessors, int blocks_per_multiprocessor, int shared_bytes, int order, bool truncating) {
            cuda_emulation::options() = {multiprocessors, blocks_per_multiprocessor, shared_bytes, order, truncating};
        },
        py::kw_only(), py::arg("multiprocessors") = 3, py::arg("blocks_per_multiprocessor") = 1,
        py::arg("shared_bytes") = 232448, py::arg("order") = 0, py::arg("truncating") = false);
    register_self_test(module);
    poolwright::register_k_center_cuda(module);
    poolwright::register_sinkhorn_cuda(module);
    poolwright::register_seeding_cuda(module);
}
