// One block of CUDA threads on the CPU: every thread is a fiber of the calling OS thread, and runs until it has to wait
// for others (barrier, warp-level operation). Waiting for what can never come is reported, with the lines involved.
//
// This proves logic: indices, barriers, reductions, who waits for whom. It says nothing of speed, and nothing of races
// that only the memory model of a real device shows. What it does to bring missing barriers to light: fibers run in
// ascending, descending or shuffled order (Options::order), asynchronous copies happen as late as they may, and shared
// memory starts out as NaN.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_emulation {

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};

// The emulated device, and how it schedules. Tests change it through the functions of module.cpp.
struct Options {
    int multiprocessors = 3;
    int blocks_per_multiprocessor = 1;
    int shared_bytes = 232448;  // opt-in limit per block
    int order = 0;              // of fibers and blocks: 0 ascending, 1 descending, else the seed of a shuffle
    bool truncating = false;    // how tensor cores sum: see emulated_mma.hpp
};
Options& options();

// Runs after the last lane of `mask` has come, once: payloads[lane] is what each lane handed in.
using Finish = void (*)(void* const* payloads, unsigned mask);

// Of the running fiber.
void sync_block(const char* file, int line);
void sync_grid(const char* file, int line);
void sync_warp(unsigned mask, void* payload, Finish finish, const char* file, int line);
int lane();
void* dynamic_shared_memory();
[[noreturn]] void fail(const std::string& what);  // stops the grid; launch reports it

// Asynchronous copies of the running fiber: queued, gathered to a group, done when the group is waited for.
void queue_copy(void* to, const void* from, int bytes, int zeros);
void commit_copies();
void wait_copies(int groups_left);

// Runs the whole grid; returns an empty string, or what went wrong. A cooperative grid has all its blocks alive at
// once.
std::string run_grid(Index3 grid, Index3 block, size_t shared_bytes, bool cooperative,
                     const std::function<void()>& kernel);

}  // namespace cuda_emulation

// The names that kernels use.
extern thread_local cuda_emulation::Index3 threadIdx, blockIdx, blockDim, gridDim;
