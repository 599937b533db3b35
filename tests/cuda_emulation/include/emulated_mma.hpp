// The twin of csrc/cuda/mma.cuh: gathers the fragments of the 32 lanes, in the layout of the PTX manual ("Matrix
// fragments for mma.m16n8k16"), and multiplies. The products are summed in float32 one after the other, which is one of
// the orders that the error bounds of the kernels must cover.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace poolwright::cuda {

namespace emulated {

struct Product {
    uint32_t a[4], b[2];
    float c[4];
};

template <float (*Widen)(uint16_t)>
void finish_product(void* const* payloads, unsigned) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& own = *static_cast<const Product*>(payloads[lane]);
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int half = 0; half < 2; ++half) {
            const auto part = [&](uint32_t word) { return Widen(static_cast<uint16_t>(word >> 16 * half)); };
            for (int r = 0; r < 4; ++r) a[group + r % 2 * 8][pair + half + r / 2 * 8] = part(own.a[r]);
            for (int r = 0; r < 2; ++r) b[pair + half + r * 8][group] = part(own.b[r]);
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        auto& own = *static_cast<Product*>(payloads[lane]);
        for (int r = 0; r < 4; ++r) {
            const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
            for (int k = 0; k < 16; ++k) own.c[r] += a[row][k] * b[k][column];
        }
    }
}

inline float widen_bf16(uint16_t bits) { return __bfloat162float({bits}); }
inline float widen_f16(uint16_t bits) { return __half2float({bits}); }

template <float (*Widen)(uint16_t)>
void multiply_add(const char* file, int line, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Product payload;
    std::memcpy(payload.a, a, sizeof a), std::memcpy(payload.b, b, sizeof b), std::memcpy(payload.c, c, sizeof c);
    cuda_emulation::sync_warp(0xffffffffu, &payload, &finish_product<Widen>, file, line);
    std::memcpy(c, payload.c, sizeof c);
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
    emulated::multiply_add<&emulated::widen_bf16>(__FILE__, __LINE__, c, a, b);
}
inline void multiply_add_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulated::multiply_add<&emulated::widen_f16>(__FILE__, __LINE__, c, a, b);
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
