// The one way to start a kernel. The tests compile the same sources for the CPU (tests/cuda_emulation), where a twin of
// this file runs the grid; so kernels are started by launch(...) and not by <<<...>>>, and take dynamic shared memory
// from dynamic_shared<T>().
#pragma once

#if defined(POOLWRIGHT_CUDA_EMULATION)
#include <emulated_launch.hpp>
#else

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include "check.cuh"

namespace poolwright::cuda {

// The dynamic shared memory of the block, aligned to 128 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char poolwright_dynamic_shared[];
    return reinterpret_cast<T*>(poolwright_dynamic_shared);
}

// All threads of a cooperative grid meet, and see what the others wrote before.
__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

// More than the 48 KiB that every kernel may have must be asked for. Always asks for all that the kernel can have: the
// setting belongs to the kernel, not to the launch, and another host thread may be about to launch it with more.
template <class... Params>
void allow_shared(void (*kernel)(Params...), size_t shared_bytes) {
    if (shared_bytes <= 48 * 1024) return;
    int device = 0, limit = 0;
    cudaFuncAttributes attributes{};
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
    check(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               limit - static_cast<int>(attributes.sharedSizeBytes)),
          "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
}

template <class... Params, class... Args>
void launch_with(bool cooperative, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                 cudaStream_t stream, Args... args) {
    allow_shared(kernel, shared_bytes);
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = cooperative ? 1 : 0;
    const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
    if (status == cudaSuccess) return;
    const char* name = "a kernel";
#if CUDART_VERSION >= 12030
    if (cudaFuncGetName(&name, reinterpret_cast<const void*>(kernel)) != cudaSuccess) name = "a kernel";
#endif
    cudaGetLastError();  // it is reported here, not by the next call that looks
    check(status, (std::string("launch of ") + name).c_str());
}

// Starts kernel(args...) on `stream`. Throws std::runtime_error if it cannot be started.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Args... args) {
    launch_with(false, kernel, grid, block, shared_bytes, stream, args...);
}

// The same with all blocks resident at once, so that grid_sync() works: at most resident_blocks() of them.
template <class... Params, class... Args>
void launch_cooperative(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        Args... args) {
    launch_with(true, kernel, grid, block, shared_bytes, stream, args...);
}

// How many blocks of this kernel the current device holds at once.
template <class... Params>
int resident_blocks(void (*kernel)(Params...), int threads, size_t shared_bytes) {
    allow_shared(kernel, shared_bytes);
    int device = 0, multiprocessors = 0, blocks = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    return multiprocessors * blocks;
}

}  // namespace poolwright::cuda

#endif
