// The twin of csrc/cuda/launch.cuh.
#pragma once

#include <stdexcept>
#include <tuple>
#include <utility>

#include "cuda_runtime.h"

namespace poolwright::cuda {

template <class T>
T* dynamic_shared() {
    return static_cast<T*>(cuda_emulation::dynamic_shared_memory());
}

namespace emulated {

template <class... Params, class... Args>
void run(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, bool cooperative, Args... args) {
    static_assert(sizeof...(Params) == sizeof...(Args), "a kernel takes all its arguments");
    const std::tuple<Params...> values(static_cast<Params>(args)...);
    const auto& options = cuda_emulation::options();
    std::string error;
    if (grid.x * grid.y * grid.z == 0 || block.x * block.y * block.z == 0) error = "an empty grid";
    else if (block.x * block.y * block.z > 1024) error = "more than 1024 threads in a block";
    else if (shared_bytes > static_cast<size_t>(options.shared_bytes)) error = "more shared memory than the device has";
    else if (cooperative && grid.x * grid.y * grid.z >
                                static_cast<unsigned>(options.multiprocessors * options.blocks_per_multiprocessor))
        error = "more cooperative blocks than fit on the device";
    else
        error = cuda_emulation::run_grid(grid, block, shared_bytes, cooperative, [&] { std::apply(kernel, values); });
    if (!error.empty()) throw std::runtime_error("emulated CUDA: " + error);
}

}  // namespace emulated

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, Args... args) {
    emulated::run(kernel, grid, block, shared_bytes, false, args...);
}
template <class... Params, class... Args>
void launch_cooperative(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                        Args... args) {
    emulated::run(kernel, grid, block, shared_bytes, true, args...);
}
template <class... Params>
int resident_blocks(void (*)(Params...), int, size_t shared_bytes) {
    const auto& options = cuda_emulation::options();
    return shared_bytes > static_cast<size_t>(options.shared_bytes)
               ? 0
               : options.multiprocessors * options.blocks_per_multiprocessor;
}

}  // namespace poolwright::cuda

#define grid_sync() ::cuda_emulation::sync_grid(__FILE__, __LINE__)
