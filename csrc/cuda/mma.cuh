// The instructions of the tensor cores and of asynchronous copies, for compute capability 8.0 and up. All 32 lanes of a
// warp call them together. The tests compile a twin for the CPU (tests/cuda_emulation).
#pragma once

#if defined(POOLWRIGHT_CUDA_EMULATION)
#include <emulated_mma.hpp>
#else

#include <cstdint>

namespace poolwright::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane l names row l % 8 of matrix l / 8 (16 bytes, aligned),
// and gets of each matrix the numbers 2 (l % 4) and 2 (l % 4) + 1 of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c += a b with a: 16 x 16 (row by row), b: 16 x 8 (column by column), in the fragments of mma.m16n8k16.
__device__ __forceinline__ void multiply_add_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 16 bytes from global to shared memory without passing through registers: the first `bytes` of them are read, the rest
// becomes zero. Both addresses are aligned to 16.
__device__ __forceinline__ void copy_async16(void* shared, const void* global, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most GroupsLeft of this thread's groups are under way; a barrier makes the data visible to others.
template <int GroupsLeft>
__device__ __forceinline__ void wait_async() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GroupsLeft) : "memory");
}

}  // namespace poolwright::cuda

#endif
