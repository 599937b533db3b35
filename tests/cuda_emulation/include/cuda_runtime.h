// What csrc/cuda uses of CUDA's headers, for a C++ compiler on the CPU; see emulated_block.hpp for what it proves.
// "Device" pointers are plain pointers, streams do their work at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "emulated_block.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__  // libstdc++ writes __attribute__((__noinline__))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// A block runs on one OS thread, so what belongs to the block belongs to that thread.
#define __shared__ static thread_local

// ---- the runtime

enum cudaError_t { cudaSuccess = 0 };
using cudaStream_t = struct EmulatedStream*;
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor,
};

struct dim3 : cuda_emulation::Index3 {
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : cuda_emulation::Index3{x_, y_, z_} {}
};

inline std::string& emulated_error() {
    static thread_local std::string error;
    return error;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t) { return "emulation"; }
inline const char* cudaGetErrorString(cudaError_t) { return emulated_error().c_str(); }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const auto& options = cuda_emulation::options();
    if (attribute == cudaDevAttrMultiProcessorCount) *value = options.multiprocessors;
    else *value = options.shared_bytes;
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}

// ---- barriers and warp operations

namespace cuda_emulation {

template <class T>
struct Exchange {
    T sent, got;
    int source;  // lane to read from; outside the group: one's own value
    int width;
};

template <class T>
void finish_exchange(void* const* payloads, unsigned mask) {
    for (int lane = 0; lane < 32; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        auto& self = *static_cast<Exchange<T>*>(payloads[lane]);
        const int first = lane / self.width * self.width;
        const int source = self.source < first || self.source >= first + self.width ? lane : self.source;
        if (payloads[source] == nullptr) self.got = T(-1);  // undefined on a device: a lane outside the mask
        else self.got = static_cast<Exchange<T>*>(payloads[source])->sent;
    }
}
template <class T>
T exchange(const char* file, int line, unsigned mask, T value, int source, int width) {
    Exchange<T> payload{value, value, source, width};
    sync_warp(mask, &payload, &finish_exchange<T>, file, line);
    return payload.got;
}
template <class T>
T shuffle(const char* file, int line, unsigned mask, T value, int source, int width = 32) {
    return exchange(file, line, mask, value, lane() / width * width + source % width, width);
}
template <class T>
T shuffle_down(const char* file, int line, unsigned mask, T value, unsigned delta, int width = 32) {
    return exchange(file, line, mask, value, lane() + static_cast<int>(delta), width);
}
template <class T>
T shuffle_up(const char* file, int line, unsigned mask, T value, unsigned delta, int width = 32) {
    return exchange(file, line, mask, value, lane() - static_cast<int>(delta), width);
}
template <class T>
T shuffle_xor(const char* file, int line, unsigned mask, T value, int flip, int width = 32) {
    return exchange(file, line, mask, value, lane() ^ flip, width);
}

inline void finish_ballot(void* const* payloads, unsigned mask) {
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) votes |= *static_cast<unsigned*>(payloads[lane]);
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) *static_cast<unsigned*>(payloads[lane]) = votes;
}
inline unsigned ballot(const char* file, int line, unsigned mask, bool value) {
    unsigned vote = value ? 1u << lane() : 0u;
    sync_warp(mask, &vote, &finish_ballot, file, line);
    return vote;
}
inline void finish_nothing(void* const*, unsigned) {}
inline void converge(const char* file, int line, unsigned mask = 0xffffffffu) {
    sync_warp(mask, nullptr, &finish_nothing, file, line);
}
inline bool block_any(const char* file, int line, bool value) {
    static thread_local bool any;
    sync_block(file, line);
    any = false;
    sync_block(file, line);
    any = any || value;
    sync_block(file, line);
    const bool result = any;
    sync_block(file, line);
    return result;
}

}  // namespace cuda_emulation

#define __syncthreads() ::cuda_emulation::sync_block(__FILE__, __LINE__)
#define __syncthreads_or(value) ::cuda_emulation::block_any(__FILE__, __LINE__, (value) != 0)
#define __syncwarp(...) ::cuda_emulation::converge(__FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_sync(...) ::cuda_emulation::shuffle(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) ::cuda_emulation::shuffle_down(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) ::cuda_emulation::shuffle_up(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) ::cuda_emulation::shuffle_xor(__FILE__, __LINE__, __VA_ARGS__)
#define __ballot_sync(mask, value) ::cuda_emulation::ballot(__FILE__, __LINE__, mask, (value) != 0)
#define __all_sync(mask, value) (::cuda_emulation::ballot(__FILE__, __LINE__, mask, (value) == 0) == 0)

// ---- atomics: one thread runs at a time

template <class T>
T atomicAdd(T* at, T value) { const T old = *at; *at = old + value; return old; }
template <class T>
T atomicMax(T* at, T value) { const T old = *at; *at = std::max(old, value); return old; }
template <class T>
T atomicMin(T* at, T value) { const T old = *at; *at = std::min(old, value); return old; }

// ---- arithmetic; built with -ffp-contract=off, so that nothing is fused but what says so

using std::max;
using std::min;
template <class To, class From>
To emulated_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &value, sizeof to);
    return to;
}
inline uint32_t __float_as_uint(float value) { return emulated_bits<uint32_t>(value); }
inline int __float_as_int(float value) { return emulated_bits<int>(value); }
inline float __uint_as_float(uint32_t value) { return emulated_bits<float>(value); }
inline float __int_as_float(int value) { return emulated_bits<float>(value); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
template <class T>
T __ldcg(const T* at) { return *at; }

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
