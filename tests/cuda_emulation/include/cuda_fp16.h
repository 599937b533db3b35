// float16 on the CPU: storage, read as float.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
};

inline float __half2float(__half value) {
    const int exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
    float magnitude;
    if (exponent == 31) magnitude = mantissa ? NAN : INFINITY;
    else if (exponent == 0) magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    else magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    return value.bits & 0x8000 ? -magnitude : magnitude;
}
