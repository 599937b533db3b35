// One float16 or bfloat16 to float32: exact, and blind to the processor's denormal settings.
#pragma once

#include <cstdint>
#include <cstring>

namespace poolwright {

static inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float bfloat_to_float(uint16_t bits) { return bits_to_float(static_cast<uint32_t>(bits) << 16); }

static inline float half_to_float(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0) {  // zero and the subnormals: mantissa * 2^-24, a normal float32
        const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
        return sign ? -value : value;
    }
    const uint32_t rebased = exponent == 31 ? 255 : exponent + 112;
    return bits_to_float(sign | (rebased << 23) | (mantissa << 13));
}

}  // namespace poolwright
