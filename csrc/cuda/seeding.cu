// Rejection sampling is exact: a row is proposed with probability bound / total, where bound >= D^2 is its distance to
// the centers of the last refresh, and accepted with probability D^2 / bound, so it is picked with probability
// proportional to D^2. A rejected row's bound becomes its D^2, which keeps every bound valid.
//
// Sums are in float64, over groups of 1024 rows and over clusters of 1024 groups, each in one fixed order; a changed
// bound changes one group and one cluster, which are summed again. So the same seed gives the same picks.
#include "seeding.hpp"

#include <type_traits>

#include "refresh.cuh"

namespace poolwright::cuda {

namespace {

constexpr int kGroup = 1024;
constexpr int kDrawThreads = 256;
constexpr int kDrawWarps = kDrawThreads / 32;

// The first five are read by the host: see seeding.hpp.
struct State {
    int64_t folded, picks;
    unsigned long long trials, pairs;
    int64_t exhausted;
};

struct Space {
    State* state;
    double* groups;
    double* clusters;
    RefreshSpace refresh;
    int64_t group_count, cluster_count;

    static Space take(Parts& parts, const Matrix& left, const Matrix* right) {
        Space space;
        space.group_count = (left.n + kGroup - 1) / kGroup;
        space.cluster_count = (space.group_count + kGroup - 1) / kGroup;
        space.state = parts.take<State>(1);
        space.groups = parts.take<double>(space.group_count);
        space.clusters = parts.take<double>(space.cluster_count);
        space.refresh = RefreshSpace::take(parts, left, right);
        return space;
    }
};

// ---- sums and searches of a whole block, in one order

struct BlockSums {
    double warps[kDrawWarps];
    double total;
    long long found;
    double before;
};

// The sum over the threads before this one; shared.total gets that of all.
__device__ inline double scan(double own, BlockSums& shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    double up_to = own;
    for (int step = 1; step < 32; step *= 2) {
        const double other = __shfl_up_sync(0xffffffffu, up_to, step);
        if (lane >= step) up_to += other;
    }
    __syncthreads();  // of the last use of `shared`
    if (lane == 31) shared.warps[warp] = up_to;
    __syncthreads();
    double before = 0.0, total = 0.0;
    for (int w = 0; w < kDrawWarps; ++w) {
        if (w == warp) before = total;
        total += shared.warps[w];
    }
    if (threadIdx.x == 0) shared.total = total;
    __syncthreads();
    // Not up_to - own, which rounds.
    double exclusive = __shfl_up_sync(0xffffffffu, up_to, 1);
    if (lane == 0) exclusive = 0.0;
    return before + exclusive;
}

// A stretch of weights, of which each thread takes neighbors.
template <class Weight>
struct Stretch {
    const Weight* weights;
    int64_t count;
    __device__ int64_t begin(int thread) const { return count * thread / kDrawThreads; }
    __device__ double slice() const {
        double sum = 0.0;
        for (int64_t i = begin(threadIdx.x); i < begin(threadIdx.x + 1); ++i) sum += static_cast<double>(weights[i]);
        return sum;
    }
};

template <class Weight>
__device__ inline double total_of(const Stretch<Weight>& stretch, BlockSums& shared) {
    scan(stretch.slice(), shared);
    return shared.total;
}

// The first position where the running sum passes `target`, and what is left of the target there. It has a weight above
// 0 even where sums round: then it is the last one that has.
template <class Weight>
__device__ inline int64_t find(const Stretch<Weight>& stretch, double& target, BlockSums& shared) {
    const double own = stretch.slice(), before = scan(own, shared);
    if (threadIdx.x == 0) shared.found = -1;
    __syncthreads();
    // The first thread that passes the target: the largest of complements is the smallest.
    const bool passes = own > 0.0 && before + own > target;
    const long long mine = passes ? kDrawThreads - static_cast<int>(threadIdx.x) : -1;
    if (passes) atomicMax(&shared.found, mine);
    __syncthreads();
    const long long winner = shared.found;
    __syncthreads();
    if (winner < 0) {  // rounding: the last thread with a weight
        if (own > 0.0) atomicMax(&shared.found, static_cast<long long>(threadIdx.x));
    } else if (threadIdx.x == 0) {
        shared.found = kDrawThreads - winner;
    }
    __syncthreads();
    const long long thread = shared.found;
    __syncthreads();
    if (static_cast<long long>(threadIdx.x) == thread) {
        double sum = before;
        int64_t last = stretch.begin(threadIdx.x);
        double before_last = sum;
        for (int64_t i = stretch.begin(threadIdx.x); i < stretch.begin(threadIdx.x + 1); ++i) {
            const double weight = static_cast<double>(stretch.weights[i]);
            if (weight <= 0.0) continue;
            last = i;
            before_last = sum;
            sum += weight;
            if (sum > target) break;
        }
        shared.found = last;
        shared.before = before_last;
    }
    __syncthreads();
    target -= shared.before;
    return shared.found;
}

// ---- random numbers

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
__device__ inline void philox(uint64_t key, uint64_t counter, uint32_t (&out)[4]) {
    uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0};
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = static_cast<uint64_t>(0xd2511f53u) * c[0], b = static_cast<uint64_t>(0xcd9e8d57u) * c[2];
        const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
                                  static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
        for (int i = 0; i < 4; ++i) c[i] = next[i];
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    for (int i = 0; i < 4; ++i) out[i] = c[i];
}
// 53 bits: in [0, 1).
__device__ inline double uniform(uint32_t high, uint32_t low) {
    return static_cast<double>((static_cast<uint64_t>(high) << 32 | low) >> 11) * 1.1102230246251565404e-16;
}

// ---- kernels

__global__ void start_sampling(State* state, Key* keys, float* nearest, uint8_t* eligible, int64_t first) {
    *state = State{};
    if (first < 0) return;
    keys[0] = make_key(0.0f, first);
    nearest[first] = 0.0f;
    eligible[first] = 0;
    state->picks = 1;
}

__device__ inline bool stopped(const State* state, int64_t k) { return state->picks >= k || state->exhausted != 0; }

__global__ void __launch_bounds__(kDrawThreads)
    sum_groups(const State* state, const float* nearest, int64_t n, int64_t k, double* groups, int64_t group_count) {
    __shared__ BlockSums shared;
    if (stopped(state, k)) return;
    for (int64_t g = blockIdx.x; g < group_count; g += gridDim.x) {
        const Stretch<float> rows{nearest + g * kGroup, min(static_cast<int64_t>(kGroup), n - g * kGroup)};
        const double sum = total_of(rows, shared);
        if (threadIdx.x == 0) groups[g] = sum;
    }
}

__global__ void __launch_bounds__(kDrawThreads)
    sum_clusters(const State* state, const double* groups, int64_t group_count, int64_t k, double* clusters,
                 int64_t cluster_count) {
    __shared__ BlockSums shared;
    if (stopped(state, k)) return;
    for (int64_t c = blockIdx.x; c < cluster_count; c += gridDim.x) {
        const Stretch<double> own{groups + c * kGroup, min(static_cast<int64_t>(kGroup), group_count - c * kGroup)};
        const double sum = total_of(own, shared);
        if (threadIdx.x == 0) clusters[c] = sum;
    }
}

// One block draws one pick after the other.
template <class Stored, bool kOuter>
__global__ void __launch_bounds__(kDrawThreads)
    draw(Rows<Stored> x, Rows<Stored> right, State* state, double* groups, int64_t group_count, double* clusters,
         int64_t cluster_count, float* nearest, uint8_t* eligible, Key* keys, int64_t k, uint64_t seed,
             int64_t patience) {
    __shared__ BlockSums shared;
    __shared__ int smallest;
    if (stopped(state, k)) return;
    const int64_t folded = state->picks;  // the refresh before this took them all
    const int64_t limit = min(k, folded + kSeedingBatch);
    int64_t picks = folded, rejected = 0;
    unsigned long long trials = state->trials, compared = 0;
    const int lane = threadIdx.x % kLanes;
    const unsigned mask = row_mask();
    bool exhausted = false;
    while (picks < limit && rejected < patience) {
        const double total = total_of(Stretch<double>{clusters, cluster_count}, shared);
        if (!(total > 0.0)) {
            exhausted = true;
            break;
        }
        uint32_t random[4];
        philox(seed, trials, random);
        ++trials;
        double target = uniform(random[0], random[1]) * total;
        const int64_t cluster = find(Stretch<double>{clusters, cluster_count}, target, shared);
        const Stretch<double> in_cluster{groups + cluster * kGroup,
                                         min(static_cast<int64_t>(kGroup), group_count - cluster * kGroup)};
        const int64_t group = cluster * kGroup + find(in_cluster, target, shared);
        const Stretch<float> in_group{nearest + group * kGroup,
                                      min(static_cast<int64_t>(kGroup), x.n - group * kGroup)};
        const int64_t row = group * kGroup + find(in_group, target, shared);
        const float bound = nearest[row];

        // Its distance to the picks that the bounds have not seen.
        if (threadIdx.x == 0) smallest = __float_as_int(bound);
        __syncthreads();
        for (int64_t p = folded + threadIdx.x / kLanes; p < picks; p += kDrawThreads / kLanes) {
            const int64_t center = key_row(keys[p]);
            float squared;
            if constexpr (kOuter) {
                const Compared own = compare(x.row(row), x.col_stride, x.row(center), x.col_stride, x.d, lane, mask);
                squared = outer_distance(own, compare(right.row(row), right.col_stride, right.row(center),
                                                      right.col_stride, right.d, lane, mask));
            } else {
                squared = squared_distance(x.row(row), x.col_stride, x.row(center), x.col_stride, x.d, lane, mask);
            }
            if (lane == 0) atomicMin(&smallest, __float_as_int(squared));
        }
        compared += static_cast<unsigned long long>(picks - folded);
        __syncthreads();
        const float squared = __int_as_float(smallest);
        const bool accepted = uniform(random[2], random[3]) * static_cast<double>(bound) < static_cast<double>(squared);
        if (threadIdx.x == 0) {
            nearest[row] = accepted ? 0.0f : squared;
            if (accepted) {
                keys[picks] = make_key(0.0f, row);
                eligible[row] = 0;
            }
        }
        __syncthreads();
        const double group_sum = total_of(in_group, shared);
        if (threadIdx.x == 0) groups[group] = group_sum;
        __syncthreads();
        const double cluster_sum = total_of(in_cluster, shared);
        if (threadIdx.x == 0) clusters[cluster] = cluster_sum;
        __syncthreads();
        if (accepted) ++picks;
        else ++rejected;
    }
    if (threadIdx.x != 0) return;
    state->folded = folded;
    state->picks = picks;
    state->trials = trials;
    state->pairs += compared;
    state->exhausted = exhausted;
}

// Calls f with both factors as the type they have, and whether there are two.
template <class F>
void with_factors(const Matrix& left, const Matrix* right, F&& f) {
    with_rows(left, [&](auto rows) {
        using Stored = typename decltype(rows)::Element;
        if (right == nullptr) f(rows, Rows<Stored>{}, std::false_type());
        else f(rows, rows_of<Stored>(*right), std::true_type());
    });
}

void refresh_picks(const SeedingArgs& args, const Space& space) {
    const Centers centers{nullptr, nullptr, args.keys, &space.state->folded, kSeedingBatch};
    refresh(args.left, args.right, centers, args.nearest, args.eligible, space.refresh, &space.state->pairs,
            args.device, as_stream(args.stream));
}

}  // namespace

int64_t seeding_workspace(const Matrix& left, const Matrix* right) {
    Parts parts(nullptr);
    Space::take(parts, left, right);
    return parts.bytes();
}

void seeding_start(const SeedingArgs& args, int64_t first) {
    const DeviceScope scope(args.device);
    Parts parts(args.workspace);
    const Space space = Space::take(parts, args.left, args.right);
    const cudaStream_t queue = as_stream(args.stream);
    launch(start_sampling, 1, 1, 0, queue, space.state, args.keys, args.nearest, args.eligible, first);
    refresh_prepare(args.left, args.right, args.eligible, space.refresh, queue);
}

void seeding_batches(const SeedingArgs& args, uint64_t seed, int64_t patience, int64_t batches) {
    const DeviceScope scope(args.device);
    Parts parts(args.workspace);
    const Space space = Space::take(parts, args.left, args.right);
    const cudaStream_t queue = as_stream(args.stream);
    for (int64_t batch = 0; batch < batches; ++batch) {
        refresh_picks(args, space);
        launch(sum_groups, blocks_for(space.group_count, 1), kDrawThreads, 0, queue, space.state, args.nearest,
               args.left.n, args.k, space.groups, space.group_count);
        launch(sum_clusters, blocks_for(space.cluster_count, 1), kDrawThreads, 0, queue, space.state, space.groups,
               space.group_count, args.k, space.clusters, space.cluster_count);
        with_factors(args.left, args.right, [&](auto rows, auto others, auto outer) {
            launch(draw<typename decltype(rows)::Element, decltype(outer)::value>, 1, kDrawThreads, 0, queue, rows,
                   others, space.state, space.groups, space.group_count, space.clusters, space.cluster_count,
                   args.nearest, args.eligible, args.keys, args.k, seed, patience);
        });
    }
}

void seeding_finish(const SeedingArgs& args) {
    const DeviceScope scope(args.device);
    Parts parts(args.workspace);
    refresh_picks(args, Space::take(parts, args.left, args.right));
}

void outer_fold(const Matrix& left, const Matrix& right, const float* center_left, const float* center_right, int64_t m,
                float* nearest, const uint8_t* eligible, void* workspace, int device, uint64_t stream) {
    if (left.n == 0 || m == 0) return;
    const DeviceScope scope(device);
    Parts parts(workspace);
    const Space space = Space::take(parts, left, &right);
    refresh_prepare(left, &right, eligible, space.refresh, as_stream(stream));
    for (int64_t at = 0; at < m; at += kMaxPending) {
        const Centers some{center_left + at * left.d, center_right + at * right.d, nullptr, nullptr,
                           std::min<int64_t>(kMaxPending, m - at)};
        refresh(left, &right, some, nearest, eligible, space.refresh, nullptr, device, as_stream(stream));
    }
}

}  // namespace poolwright::cuda
