// The twin of csrc/cuda/mma.cuh: gathers the fragments of the 32 lanes, in the layout of the PTX manual ("Matrix
// fragments for mma.m16n8k16"), and multiplies. The error bounds of the kernels must cover both ways of summing: the
// products one after the other in float32, rounded to nearest; and (Options::truncating) as tensor cores have been
// measured to: the 17 terms are aligned to the largest of them, what is below its 23rd bit is cut off, and so is the sum.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace poolwright::cuda {

namespace emulated {

struct Product {
    uint32_t a[4], b[2];
    float c[4];
};

// Exact in double: products of bfloat16 numbers, and sums of multiples of one power of two.
inline float truncating_sum(const double (&terms)[17]) {
    double largest = 0.0;
    for (const double term : terms) {
        if (!std::isfinite(term)) {
            double sum = 0.0;
            for (const double other : terms) sum += other;
            return static_cast<float>(sum);
        }
        largest = std::max(largest, std::fabs(term));
    }
    if (largest == 0.0) return 0.0f;
    const int last = std::ilogb(largest) - 23;
    double sum = 0.0;
    for (const double term : terms) sum += std::ldexp(std::trunc(std::ldexp(term, -last)), last);
    const float nearest = static_cast<float>(sum);
    return std::fabs(nearest) > std::fabs(sum) ? std::nextafterf(nearest, 0.0f) : nearest;
}

inline float widen(uint16_t bits) { return __bfloat162float({bits}); }

inline void finish_product(void* const* payloads, unsigned) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& own = *static_cast<const Product*>(payloads[lane]);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int half = 0; half < 2; ++half) {
            const auto part = [&](uint32_t word) { return widen(static_cast<uint16_t>(word >> 16 * half)); };
            for (int r = 0; r < 4; ++r) a[group + r % 2 * 8][pair + half + r / 2 * 8] = part(own.a[r]);
            for (int r = 0; r < 2; ++r) b[pair + half + r * 8][group] = part(own.b[r]);
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        auto& own = *static_cast<Product*>(payloads[lane]);
        for (int r = 0; r < 4; ++r) {
            const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
            if (cuda_emulation::options().truncating) {
                double terms[17];
                for (int k = 0; k < 16; ++k) terms[k] = static_cast<double>(a[row][k]) * b[k][column];
                terms[16] = own.c[r];
                own.c[r] = truncating_sum(terms);
            } else {
                for (int k = 0; k < 16; ++k) own.c[r] += a[row][k] * b[k][column];
            }
        }
    }
}

struct MatrixRow {
    const void* row;
    uint32_t* words;
};

template <int Count>
void finish_load(void* const* payloads, unsigned) {
    for (int lane = 0; lane < 32; ++lane)
        for (int matrix = 0; matrix < Count; ++matrix) {
            const void* row = static_cast<MatrixRow*>(payloads[matrix * 8 + lane / 4])->row;
            if (reinterpret_cast<uintptr_t>(row) % 16 != 0) cuda_emulation::fail("ldmatrix of an unaligned row");
            std::memcpy(&static_cast<MatrixRow*>(payloads[lane])->words[matrix],
                        static_cast<const char*>(row) + lane % 4 * 4, 4);
        }
}

}  // namespace emulated

inline void load_matrices(uint32_t (&words)[4], const void* row) {
    emulated::MatrixRow payload{row, words};
    cuda_emulation::sync_warp(0xffffffffu, &payload, &emulated::finish_load<4>, __FILE__, __LINE__);
}
inline void multiply_add_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulated::Product payload;
    std::memcpy(payload.a, a, sizeof a), std::memcpy(payload.b, b, sizeof b), std::memcpy(payload.c, c, sizeof c);
    cuda_emulation::sync_warp(0xffffffffu, &payload, &emulated::finish_product, __FILE__, __LINE__);
    std::memcpy(c, payload.c, sizeof c);
}

inline void copy_async16(void* shared, const void* global, int bytes = 16) {
    cuda_emulation::queue_copy(shared, global, bytes, 16 - bytes);
}
inline void commit_async() { cuda_emulation::commit_copies(); }
template <int GroupsLeft>
void wait_async() {
    cuda_emulation::wait_copies(GroupsLeft);
}

}  // namespace poolwright::cuda
