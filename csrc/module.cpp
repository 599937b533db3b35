// poolwright.kernels._native: what was built, and the kernel families.
#include "bindings/register.hpp"
#include "cpu/k_center.hpp"
#include "cpu/levels.hpp"
#include "cpu/outer.hpp"
#include "cpu/transport.hpp"

namespace py = pybind11;

namespace {

// Facts of the build come from setup.py as macros; those of the machine are asked now.
py::dict build_info() {
    py::list levels;
    for (const auto level : poolwright::available_levels()) levels.append(poolwright::level_name(level));
    py::dict info;
    info["cpu_levels_built"] = py::str(POOLWRIGHT_FACT_LEVELS).attr("split")(",");
    info["cpu_levels"] = levels;
    info["compiler"] = POOLWRIGHT_FACT_COMPILER;
    info["openmp"] = static_cast<bool>(POOLWRIGHT_FACT_OPENMP);
    info["cuda"] = static_cast<bool>(POOLWRIGHT_FACT_CUDA);
    info["cuda_compiler"] = POOLWRIGHT_FACT_NVCC;
    info["cuda_archs"] = py::str(POOLWRIGHT_FACT_ARCHS).attr("split")();
    return info;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Native kernels. Private: use the functions of poolwright.kernels.";
    module.def("build_info", &build_info, "What this extension was built with, and the CPU levels that run here.");
    module.def(
        "cpu_level", [](const std::string& name) { return poolwright::level_name(poolwright::resolve_level(name)); },
        py::arg("name") = "", "The CPU level in force: `name`, or POOLWRIGHT_CPU_LEVEL, or the highest.");
    module.def(
        "table_levels",
        [](const std::string& name) {
            const auto level = poolwright::resolve_level(name);
            py::dict levels;
            levels["fold"] = poolwright::level_name(poolwright::fold_level(level));
            levels["advance"] = poolwright::level_name(poolwright::advance_level(level));
            levels["outer"] = poolwright::level_name(poolwright::outer_level(level));
            levels["transport"] = poolwright::level_name(poolwright::transport_level(level));
            return levels;
        },
        py::arg("name") = "",
        "For each family the level whose code runs at the CPU level `name`, or at the one in force.");
    poolwright::register_k_center(module);
    poolwright::register_transport(module);
    poolwright::register_seeding(module);
#if defined(POOLWRIGHT_WITH_CUDA)
    poolwright::register_k_center_cuda(module);
    poolwright::register_sinkhorn_cuda(module);
    poolwright::register_seeding_cuda(module);
#endif
}
