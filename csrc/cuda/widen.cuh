// The types that rows are stored in, read as float32.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace poolwright::cuda {

struct Bfloat {
    uint16_t bits;
};
__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(Bfloat value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

}  // namespace poolwright::cuda
