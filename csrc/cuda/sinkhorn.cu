#include "sinkhorn.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "check.cuh"
#include "sinkhorn_bounds.cuh"

namespace poolwright::cuda {

namespace {

using namespace sinkhorn;

// The cost matrix lies in shared memory where it fits. Small pairs get small blocks, several to a multiprocessor; the
// last kind keeps cost and potentials in global memory.
struct Kind {
    int threads;
    int blocks;  // that share a multiprocessor's shared memory; 0: cost in global memory
};
constexpr Kind kKinds[] = {{128, 6}, {256, 3}, {512, 2}, {512, 1}, {512, 0}};
// Blocks that the registers must allow on a multiprocessor.
constexpr int resident(int threads) { return threads == 128 ? 6 : threads == 256 ? 3 : 2; }
constexpr int kLastKind = 4;
constexpr int64_t kReserved = 2048;   // shared memory of a block for the runtime (1 KiB) and for static variables
constexpr int64_t kSpread = 8;        // of cost matrices in one launch of the last kind
constexpr double kSmallestEpsilon = 6e-8;  // of the largest cost: below the rounding of the costs
constexpr float kSmallestSquare = 1.2e-38f;
// Epsilon is halved when the marginals are met to this, or after so many iterations. Against one iteration for each
// value of epsilon this needs as many iterations in all at 1 % of the mean cost, and 1.3 to 18 times fewer at 0.01 %.
constexpr double kStageTolerance = 0.02;
constexpr int kStageIterations = 20;

template <class Index, int kThreads, class T>
__device__ float measure(const Pair<Index>& pair, const T* x, const T* y, int64_t d, int* power) {
    const float largest = fmaxf(largest_coordinate<kThreads>(x, pair.x_rows(), pair.n, d),
                                largest_coordinate<kThreads>(y, pair.y_rows(), pair.m, d));
    // By a power of two, which is exact, so that no square overflows.
    *power = largest > 0.0f ? max(ilogbf(largest), -100) : -100;
    const float square = squared_distances<kThreads>(pair, x, y, d, ldexpf(1.0f, -*power));
    if (largest == 0.0f || square >= kSmallestSquare) return square;
    // All differences are below 2^-62 of the largest coordinate: scaled by up to 2^126 more, no square overflows.
    *power = max(*power - 126, -127);
    return squared_distances<kThreads>(pair, x, y, d, ldexpf(1.0f, -*power));
}

template <int kThreads, class Index>
__device__ void solve(Pair<Index>& pair, const SinkhornProblem& problem, int64_t index) {
    const int64_t x_start = problem.x_offsets[index], y_start = problem.y_offsets[index], d = problem.d;
    const auto finish = [&](double value, double lower, int64_t iterations, bool converged) {
        if (threadIdx.x != 0) return;
        problem.value[index] = value;
        problem.lower[index] = lower;
        problem.iterations[index] = iterations;
        problem.converged[index] = converged;
    };
    pair.n = gather_positive<kThreads>(problem.a + x_start, problem.x_offsets[index + 1] - x_start, pair.x_rows(),
                                       pair.a(), pair.log_a());
    pair.m = gather_positive<kThreads>(problem.b + y_start, problem.y_offsets[index + 1] - y_start, pair.y_rows(),
                                       pair.b(), pair.log_b());
    if (pair.n == 0 || pair.m == 0) return finish(NAN, NAN, 0, false);

    int power = 0;
    float largest;
    const auto measured = [&](const auto* typed) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(typed)>>;
        return measure<Index, kThreads>(pair, typed + x_start * d, static_cast<const T*>(problem.y) + y_start * d, d,
                                        &power);
    };
    if (problem.dtype == DType::f32) largest = measured(static_cast<const float*>(problem.x));
    else if (problem.dtype == DType::f16) largest = measured(static_cast<const __half*>(problem.x));
    else largest = measured(static_cast<const Bfloat*>(problem.x));
    const double exponent = problem.p / 2;
    // Squares and scaled coordinates that underflow: less than 2^-140 a dimension.
    const double underflow = static_cast<double>(d) * 7.2e-43;
    if (largest < kSmallestSquare) {
        // Scaled by 2^76 or more, float32 numbers that differ have a difference whose square is no zero.
        const bool same = largest == 0.0f && power <= -76;
        const double bound = same ? 0.0 : pow(ldexp(1.01 * largest + underflow, 2 * power), exponent);
        return finish(bound, 0.0, 0, true);
    }
    const float inverse_largest = 1.0f / largest;
    const double mean = costs_from_squares<kThreads>(pair, inverse_largest, problem.p);

    for (int i = threadIdx.x; i < pair.n; i += kThreads) pair.f()[i] = 0.0;
    for (int j = threadIdx.x; j < pair.m; j += kThreads) pair.g()[j] = 0.0;
    __syncthreads();
    const double target = fmax(problem.epsilon * mean, kSmallestEpsilon);
    double epsilon = fmax(target, 1.0), entered = 0.0;
    int64_t iterations = 0, in_stage = 0;
    bool converged = false;
    while (!converged && (epsilon != target || in_stage < problem.max_iterations)) {
        if (epsilon != entered) {
            in_stage = 0;
            pair.inverse = static_cast<float>(1.4426950408889634 / epsilon);
            pair.step = 1.0 / pair.inverse;
            entered = epsilon;
            enter_potentials<kThreads>(pair);
        }
        update_rows<kThreads>(pair);
        const double violation = update_columns<kThreads>(pair);
        ++iterations;
        ++in_stage;
        if (epsilon == target) converged = violation <= problem.tolerance;
        else if (violation <= kStageTolerance || in_stage == kStageIterations) epsilon = fmax(target, epsilon / 2);
    }

    const double times = fmax(1.0, exponent);
    const double square = ldexp(1.0 / static_cast<double>(inverse_largest), 2 * power);
    const double unit = problem.p == 2.0 ? square : pow(square, exponent);
    // What a cost may have lost, and the smallest float32.
    const double lost = times * pow(underflow * inverse_largest, fmin(1.0, exponent)) + 1e-44;
    const double value = rounded_cost<kThreads>(pair) + lost;
    const double lower = feasible_dual<kThreads>(pair, times * 1.01 * distance_error(d) + 4 * kUnit, lost);
    finish(value * unit, fmax(0.0, lower) * unit * (1.0 - 1e-15), iterations, converged);
}

template <int kThreads, bool kShared>
__global__ void __launch_bounds__(kThreads, resident(kThreads))
    solve_pairs(SinkhornProblem problem, SinkhornLaunch launch, unsigned long long* counter, unsigned char* workspace) {
    __shared__ unsigned long long taken;
    using Index = std::conditional_t<kShared, int, int64_t>;
    Pair<Index> pair;
    pair.rows = static_cast<int>(launch.rows);
    pair.columns = static_cast<int>(launch.columns);
    pair.workspace = reinterpret_cast<double*>(workspace + blockIdx.x * launch.block_bytes);
    pair.staging = dynamic_shared<float>();
    if constexpr (kShared) {
        pair.row = reinterpret_cast<float2*>(pair.staging + staging_floats(kThreads));
    } else {
        pair.row = pair.global_rows();
        pair.column = pair.row + launch.rows;
        pair.cost = reinterpret_cast<float*>(pair.column + launch.columns);
    }
    for (;;) {
        if (threadIdx.x == 0) taken = atomicAdd(counter, 1ull);
        __syncthreads();
        const int64_t position = static_cast<int64_t>(taken);
        __syncthreads();
        if (position >= launch.count) return;
        const int64_t index = problem.order[launch.first + position];
        if constexpr (kShared) {
            // Offsets of this pair; points without weight only leave room unused.
            pair.column = pair.row + (problem.x_offsets[index + 1] - problem.x_offsets[index]);
            pair.cost = reinterpret_cast<float*>(
                pair.column + (problem.y_offsets[index + 1] - problem.y_offsets[index]));
        }
        solve<kThreads>(pair, problem, index);
        __syncthreads();
    }
}

using Kernel = void (*)(SinkhornProblem, SinkhornLaunch, unsigned long long*, unsigned char*);

Kernel kernel_of(int kind) {
    constexpr Kernel kernels[] = {&solve_pairs<128, true>, &solve_pairs<256, true>, &solve_pairs<512, true>,
                                  &solve_pairs<512, true>, &solve_pairs<512, false>};
    return kernels[kind];
}

int64_t shared_bytes(int kind, int64_t n, int64_t m) {
    const int64_t staging = 4 * staging_floats(kKinds[kind].threads);
    return kind == kLastKind ? staging : staging + 8 * (n + m) + 4 * n * m;
}

}  // namespace

std::vector<SinkhornLaunch> sinkhorn_plan(const int64_t* x_sizes, const int64_t* y_sizes, int64_t pairs,
                                          int64_t memory_limit, int device, int64_t* order) {
    constexpr int64_t kMostPoints = 1 << 30;
    const DeviceScope scope(device);
    int per_block = 0, per_multiprocessor = 0;
    check(cudaDeviceGetAttribute(&per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "cudaDeviceGetAttribute(MaxSharedMemoryPerBlockOptin)");
    check(cudaDeviceGetAttribute(&per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
          "cudaDeviceGetAttribute(MaxSharedMemoryPerMultiprocessor)");
    const auto kind_of = [&](int64_t pair) {
        for (int kind = 0; kind < kLastKind; ++kind) {
            const int64_t share = std::min(per_multiprocessor / kKinds[kind].blocks, per_block) - kReserved;
            if (shared_bytes(kind, x_sizes[pair], y_sizes[pair]) <= share) return kind;
        }
        return kLastKind;
    };
    std::vector<int8_t> kinds(pairs);
    for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t n = x_sizes[pair], m = y_sizes[pair];
        if (n < 1 || m < 1 || n > kMostPoints || m > kMostPoints)
            throw std::invalid_argument("pair " + std::to_string(pair) + " has " + std::to_string(n) + " and " +
                                        std::to_string(m) + " points; each side must have 1 to 2^30");
        kinds[pair] = static_cast<int8_t>(kind_of(pair));
    }
    const auto cost_size = [&](int64_t pair) { return x_sizes[pair] * y_sizes[pair]; };
    std::iota(order, order + pairs, int64_t{0});
    std::sort(order, order + pairs, [&](int64_t left, int64_t right) {
        if (kinds[left] != kinds[right]) return kinds[left] > kinds[right];
        if (cost_size(left) != cost_size(right)) return cost_size(left) > cost_size(right);
        return left < right;
    });

    std::vector<SinkhornLaunch> launches;
    for (int64_t first = 0; first < pairs;) {
        SinkhornLaunch launch;
        launch.kind = kinds[order[first]];
        launch.first = first;
        const int64_t largest = cost_size(order[first]);
        const bool in_global = launch.kind == kLastKind;
        for (; first < pairs && kinds[order[first]] == launch.kind; ++first) {
            const int64_t pair = order[first];
            if (in_global && cost_size(pair) < largest / kSpread) break;
            launch.rows = std::max(launch.rows, x_sizes[pair]);
            launch.columns = std::max(launch.columns, y_sizes[pair]);
            launch.shared_bytes =
                std::max(launch.shared_bytes, shared_bytes(launch.kind, x_sizes[pair], y_sizes[pair]));
        }
        launch.count = first - launch.first;
        const int64_t bytes = 8 * (3 * launch.rows + 4 * launch.columns) + 8 * (launch.rows + launch.columns) +
                              (in_global ? 8 * (launch.rows + launch.columns) + 4 * largest : 0);
        launch.block_bytes = (bytes + 255) / 256 * 256;
        const int resident = resident_blocks(kernel_of(launch.kind), kKinds[launch.kind].threads, launch.shared_bytes);
        launch.blocks = std::min<int64_t>({launch.count, resident, memory_limit / launch.block_bytes});
        if (memory_limit < launch.block_bytes)
            throw std::invalid_argument("memory_limit is " + std::to_string(memory_limit) + " bytes, but pair " +
                                        std::to_string(order[launch.first]) + " of " +
                                        std::to_string(x_sizes[order[launch.first]]) + " x " +
                                        std::to_string(y_sizes[order[launch.first]]) + " points needs a workspace of " +
                                        std::to_string(launch.block_bytes) + ": raise it, or use fewer points");
        if (launch.blocks < 1)
            throw std::runtime_error("the CUDA device runs no block of " + std::to_string(launch.shared_bytes) +
                                     " bytes of shared memory");
        launches.push_back(launch);
    }
    return launches;
}

void sinkhorn_run(const SinkhornProblem& problem, const SinkhornLaunch& task, unsigned long long* counter,
                  void* workspace, int device, uint64_t stream) {
    const DeviceScope scope(device);
    launch(kernel_of(task.kind), dim3(static_cast<unsigned>(task.blocks)), dim3(kKinds[task.kind].threads),
           static_cast<size_t>(task.shared_bytes), reinterpret_cast<cudaStream_t>(stream), problem, task, counter,
           static_cast<unsigned char*>(workspace));
}

}  // namespace poolwright::cuda
