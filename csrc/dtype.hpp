// Element types that the kernels read and write, and a matrix of them, shared by the CPU and CUDA sides.
#pragma once

#include <cstdint>

namespace poolwright {

// The three floating types come first: kernels index their tables with them.
enum class DType : int { f32 = 0, f16 = 1, bf16 = 2, u8, i64, f64, other };
constexpr int kFloatingTypes = 3;

inline const char* dtype_name(DType dtype) {
    switch (dtype) {
        case DType::f32: return "float32";
        case DType::f16: return "float16";
        case DType::bf16: return "bfloat16";
        case DType::u8: return "uint8";
        case DType::i64: return "int64";
        case DType::f64: return "float64";
        default: return "another type";
    }
}

// n rows of d elements; strides count elements and may be negative or zero.
struct Matrix {
    const void* data;
    DType dtype;
    int64_t n;
    int64_t d;
    int64_t row_stride;
    int64_t col_stride;
};

}  // namespace poolwright
