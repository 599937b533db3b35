// Greedy k-center that reads the whole pool once a round instead of once a pick, with the picks of the plain loop.
//
// Minimum distances that have not seen the latest picks are upper bounds. A round takes the rows with the largest keys
// (distance, then lowest index; see k_center.hpp), at most `capacity` of them, and remembers the largest key outside
// (`outside`). Greedy picks inside the set, whose distances are kept up to date, are picks of the whole pool as long as
// the set's largest key is above `outside`: no row outside can have a larger one, and keys never tie. Then one refresh
// folds the round's picks into all rows. Everything the rounds decide stays on the device; rounds queued after the last
// pick do nothing.
#include "k_center_lazy.hpp"

#include "refresh.cuh"

namespace poolwright::cuda {

namespace {

constexpr int kGreedyThreads = 512;
constexpr int kGreedyRows = kGreedyThreads / kLanes;
constexpr int kDigit = 11, kBins = 1 << kDigit, kDigits = 6;  // of a 64-bit key; the last digit has 9 bits
constexpr int64_t kLargestSet = 32768;  // more rows make each pick slower and save few rounds
constexpr int64_t kUnstagedSet = 8192;
constexpr int64_t kSmallestStagedSet = 1024;

// The first three are read by the host: see k_center_lazy.hpp.
struct State {
    int64_t folded, picks;  // mind has seen the picks before `folded`; the range that a refresh takes
    unsigned long long pairs;
    Key outside, threshold, prefix;
    unsigned long long active, above;
    int chosen;
};

struct Space {
    State* state;
    unsigned int* bins;  // kDigits x kBins
    uint32_t* active;    // ids of the set
    RefreshSpace refresh;
};

// How the set lies in the shared memory of the grid.
struct Plan {
    int blocks, rows_per_block;
    bool staged;  // the rows themselves are in shared memory, else only their distances
    size_t shared_bytes;
    int64_t capacity() const { return static_cast<int64_t>(blocks) * rows_per_block; }
};

__device__ inline bool finished(const State* state, int64_t k) { return state->picks >= k; }

__global__ void begin_round(State* state, unsigned int* bins, Key* keys, int64_t k) {
    for (int i = threadIdx.x; i < kDigits * kBins; i += blockDim.x) bins[i] = 0;
    if (threadIdx.x != 0) return;
    state->folded = state->picks;
    state->outside = state->threshold = state->prefix = 0;
    state->active = state->above = 0;
    state->chosen = finished(state, k);
    if (!finished(state, k)) keys[state->picks] = 0;  // the last round may have left a key that was not picked
}

__device__ constexpr int shift_of(int digit) { return digit == kDigits - 1 ? 0 : 64 - kDigit * (digit + 1); }
__device__ constexpr int bits_of(int digit) { return digit == kDigits - 1 ? 64 - kDigit * (kDigits - 1) : kDigit; }

// Counts the keys that begin with the prefix by their next digit.
__global__ void __launch_bounds__(kThreads)
    count_digits(const State* state, const float* mind, const uint8_t* eligible, int64_t n, int digit,
                 unsigned int* bins) {
    __shared__ unsigned int own[kBins];
    if (state->chosen) return;
    for (int i = threadIdx.x; i < kBins; i += kThreads) own[i] = 0;
    __syncthreads();
    const int shift = shift_of(digit), bits = bits_of(digit);
    const Key prefix = state->prefix;
    for (int64_t row = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; row < n;
         row += gridDim.x * static_cast<int64_t>(kThreads)) {
        if (eligible[row] == 0) continue;
        const Key key = make_key(mind[row], row);
        if (digit > 0 && key >> (shift + bits) != prefix) continue;
        atomicAdd(&own[(key >> shift) & ((1u << bits) - 1)], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kBins; i += kThreads)
        if (own[i] != 0) atomicAdd(&bins[i], own[i]);
}

// One warp: takes whole bins from the top while they fit, and says whether that is a set or the next digit must be
// looked at. A set of half the capacity will do; a bin of the last digit holds one row.
__global__ void choose_digit(State* state, const unsigned int* bins, int digit, unsigned long long capacity) {
    constexpr int kEach = kBins / 32;
    if (state->chosen) return;
    const int lane = threadIdx.x, shift = shift_of(digit), bits = bits_of(digit);
    // Lane 0 has the highest bins.
    const int highest = kBins - 1 - lane * kEach;
    unsigned long long own = 0;
    for (int i = 0; i < kEach; ++i) own += bins[highest - i];
    unsigned long long up_to = own;
    for (int step = 1; step < 32; step *= 2) {
        const unsigned long long other = __shfl_up_sync(0xffffffffu, up_to, step);
        if (lane >= step) up_to += other;
    }
    unsigned long long above = state->above;
    __syncwarp();
    const unsigned full = __ballot_sync(0xffffffffu, above + up_to > capacity);
    if (full == 0) {  // all rows with this prefix
        if (lane != 0) return;
        state->threshold = digit == 0 ? 0 : state->prefix << (shift + bits);
        state->chosen = 1;
        return;
    }
    if (lane != __ffs(static_cast<int>(full)) - 1) return;
    above += up_to - own;
    int bin = highest;
    while (above + bins[bin] <= capacity) above += bins[bin--];
    const Key next = (digit == 0 ? 0 : state->prefix << bits) | static_cast<Key>(bin);
    if (above >= (capacity + 1) / 2) {
        state->threshold = (next + 1) << shift;
        state->chosen = 1;
    } else {
        state->prefix = next;
        state->above = above;
    }
}

// Lists the rows of the set, and finds the largest key outside.
__global__ void __launch_bounds__(kThreads)
    gather_set(State* state, const float* mind, const uint8_t* eligible, int64_t n, int64_t k, uint32_t* active) {
    if (finished(state, k)) return;
    const int lane = threadIdx.x % 32;
    const Key threshold = state->threshold;
    Key outside = 0;
    const int64_t step = gridDim.x * static_cast<int64_t>(kThreads);
    for (int64_t base = blockIdx.x * static_cast<int64_t>(kThreads); base < n; base += step) {
        const int64_t row = base + threadIdx.x;
        Key key = 0;
        if (row < n && eligible[row] != 0) key = make_key(mind[row], row);
        const bool inside = key != 0 && key >= threshold;
        if (!inside) outside = max(outside, key);
        const unsigned lanes = __ballot_sync(0xffffffffu, inside);
        if (lanes == 0) continue;
        unsigned long long at = 0;
        if (lane == 0) at = atomicAdd(&state->active, static_cast<unsigned long long>(__popc(lanes)));
        at = __shfl_sync(0xffffffffu, at, 0);
        if (inside) active[at + __popc(lanes & ((1u << lane) - 1))] = static_cast<uint32_t>(row);
    }
    for (int half = 16; half > 0; half /= 2) outside = max(outside, __shfl_xor_sync(0xffffffffu, outside, half));
    if (lane == 0 && outside != 0) atomicMax(&state->outside, outside);
}

template <class Stored>
constexpr int kVector = 16 / static_cast<int>(sizeof(Stored));
// 16 lanes with 16 bytes each; lane l of group g holds the dimensions 16 (g kVector + i) + l: each lane reads the
// dimensions of its partial sum, in order, 16 bytes at a time, and no two lanes meet in a bank.
template <class Stored>
__host__ __device__ inline int64_t groups_of(int64_t d) {
    return (d + kLanes * kVector<Stored> - 1) / (kLanes * kVector<Stored>);
}
template <class Stored>
__host__ __device__ inline int64_t place_of(int64_t j) {
    const int64_t step = j / kLanes;
    return ((step / kVector<Stored>) * kLanes + j % kLanes) * kVector<Stored> + step % kVector<Stored>;
}

// The squared distance in the fixed order of a row and a center that lie in shared memory in that layout. Dimensions
// after d are zeros on both sides and add +0, which changes no bit.
template <class Stored>
__device__ inline float staged_distance(const Stored* row, const float* center, int64_t groups, int lane,
                                        unsigned mask) {
    constexpr int kCount = kVector<Stored>;
    float sum = 0.0f;
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = (g * kLanes + lane) * kCount;
        alignas(16) Stored values[kCount];
        alignas(16) float others[kCount];
        *reinterpret_cast<uint4*>(values) = *reinterpret_cast<const uint4*>(row + at);
#pragma unroll
        for (int i = 0; i < kCount; i += 4)
            *reinterpret_cast<float4*>(others + i) = *reinterpret_cast<const float4*>(center + at + i);
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const float difference = __fsub_rn(widen(values[i]), others[i]);
            sum = __fadd_rn(sum, __fmul_rn(difference, difference));
        }
    }
    return add_lanes(sum, mask);
}

// Picks inside the set, one grid barrier a pick. keys[p] collects the largest key of pick p.
template <class Stored, bool kStaged>
__global__ void __launch_bounds__(kGreedyThreads, 1)
    greedy_set(Rows<Stored> x, State* state, const uint32_t* active, float* mind, uint8_t* eligible, Key* keys,
               int64_t k, int rows_per_block) {
    if (finished(state, k)) return;  // for all blocks alike: picks changes after the first grid barrier only
    __shared__ Key block_best;
    const int64_t groups = groups_of<Stored>(x.d), pitch = groups * kLanes * kVector<Stored>;
    float* center = dynamic_shared<float>();
    Stored* rows = reinterpret_cast<Stored*>(center + (kStaged ? pitch : 0));
    float* distances = reinterpret_cast<float*>(rows + (kStaged ? pitch * rows_per_block : 0));
    uint32_t* ids = reinterpret_cast<uint32_t*>(distances + rows_per_block);
    constexpr uint32_t kPicked = 0xffffffffu;  // no id: n is at most 2^32 - 2

    const int64_t all = static_cast<int64_t>(state->active);
    const int own = static_cast<int>(all > blockIdx.x ? (all - blockIdx.x - 1) / gridDim.x + 1 : 0);
    const int lane = threadIdx.x % kLanes, first = threadIdx.x / kLanes;
    const unsigned mask = row_mask();
    const Key outside = state->outside;
    int64_t pick = state->picks;
    const int64_t limit = k < state->folded + kMaxPending ? k : state->folded + kMaxPending;
    unsigned long long measured = 0;

    if (threadIdx.x == 0) block_best = 0;
    for (int r = first; r < own; r += kGreedyRows) {
        const int64_t row = active[blockIdx.x + static_cast<int64_t>(r) * gridDim.x];
        if (lane == 0) {
            ids[r] = static_cast<uint32_t>(row);
            distances[r] = mind[row];
        }
        if constexpr (kStaged) {
            for (int64_t j = lane; j < pitch; j += kLanes) {
                Stored value{};
                if (j < x.d) value = x.row(row)[j * x.col_stride];
                rows[r * pitch + place_of<Stored>(j)] = value;
            }
        }
    }
    if constexpr (kStaged) {
        for (int64_t j = x.d + threadIdx.x; j < pitch; j += kGreedyThreads) center[place_of<Stored>(j)] = 0.0f;
    }
    __syncthreads();
    Key best = 0;
    for (int r = threadIdx.x; r < own; r += kGreedyThreads) best = max(best, make_key(distances[r], ids[r]));

    while (true) {
        for (int half = 16; half > 0; half /= 2) best = max(best, __shfl_xor_sync(0xffffffffu, best, half));
        if (threadIdx.x % 32 == 0 && best != 0) atomicMax(&block_best, best);
        __syncthreads();
        if (threadIdx.x == 0 && block_best != 0) {
            atomicMax(&keys[pick], block_best);
            block_best = 0;
        }
        grid_sync();
        const Key farthest = __ldcg(&keys[pick]);  // not from this multiprocessor's own cache
        if (farthest <= outside) break;
        const int64_t chosen = key_row(farthest);
        ++pick;
        if constexpr (kStaged) {
            for (int64_t j = threadIdx.x; j < x.d; j += kGreedyThreads)
                center[place_of<Stored>(j)] = widen(x.row(chosen)[j * x.col_stride]);
            __syncthreads();
        }
        const bool last = pick == limit;
        best = 0;
        for (int r = first; r < own; r += kGreedyRows) {
            const uint32_t id = ids[r];
            if (id == kPicked) continue;
            if (id == chosen) {
                __syncwarp(mask);
                if (lane == 0) {
                    ids[r] = kPicked;
                    eligible[chosen] = 0;
                    mind[chosen] = distances[r];
                }
                continue;
            }
            if (last) continue;
            float squared;
            if constexpr (kStaged) squared = staged_distance(rows + r * pitch, center, groups, lane, mask);
            else squared = squared_distance(x.row(id), x.col_stride, x.row(chosen), x.col_stride, x.d, lane, mask);
            if (lane != 0) continue;
            distances[r] = fminf(distances[r], squared);
            best = max(best, make_key(distances[r], id));
            ++measured;
        }
        if (last) break;
        __syncwarp();
    }
    __syncthreads();
    for (int r = threadIdx.x; r < own; r += kGreedyThreads)
        if (ids[r] != kPicked) mind[ids[r]] = distances[r];
    if (measured != 0) atomicAdd(&state->pairs, measured);
    if (blockIdx.x != 0 || threadIdx.x != 0) return;
    state->picks = pick;
    if (pick == k) state->folded = k;  // nobody wants what the refresh would find
}

template <class Stored>
Plan plan_for(const Rows<Stored>& x, int device) {
    int limit = 0, multiprocessors = 0;
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    const int64_t pitch = groups_of<Stored>(x.d) * kLanes * kVector<Stored>;
    const auto each = [&](int64_t rows) { return (rows + multiprocessors - 1) / multiprocessors; };
    constexpr int64_t kReserved = 1024;  // static shared memory, and what the system keeps of each block's
    int64_t rows = (limit - kReserved - pitch * 4) / (pitch * static_cast<int64_t>(sizeof(Stored)) + 8);
    Plan plan{multiprocessors, 0, rows * multiprocessors >= std::min(x.n, kSmallestStagedSet), 0};
    if (!plan.staged) rows = std::min(each(kUnstagedSet), (limit - kReserved) / 8);
    plan.rows_per_block = static_cast<int>(std::max<int64_t>(1, std::min({rows, each(kLargestSet), each(x.n)})));
    plan.shared_bytes = static_cast<size_t>(plan.rows_per_block) * 8;
    if (plan.staged) plan.shared_bytes += pitch * 4 + plan.rows_per_block * pitch * sizeof(Stored);
    return plan;
}
Plan plan_for(const Matrix& x, int device) {
    Plan plan{};
    with_rows(x, [&](auto rows) { plan = plan_for(rows, device); });
    return plan;
}

Space take(Parts& parts, const Matrix& x, const Plan& plan) {
    Space space;
    space.state = parts.take<State>(1);
    space.bins = parts.take<unsigned int>(kDigits * kBins);
    space.active = parts.take<uint32_t>(plan.capacity());
    space.refresh = RefreshSpace::take(parts, x, nullptr);
    return space;
}

__global__ void start_state(State* state, int64_t picks, unsigned long long pairs) {
    *state = State{};
    state->picks = picks;
    state->pairs = pairs;
}

}  // namespace

int64_t lazy_workspace(const Matrix& x, int device) {
    const DeviceScope scope(device);
    Parts parts(nullptr);
    take(parts, x, plan_for(x, device));
    return parts.bytes();
}

void lazy_start(const Matrix& x, const uint8_t* eligible, void* workspace, int64_t picks, int64_t pairs, int device,
                uint64_t stream) {
    const DeviceScope scope(device);
    Parts parts(workspace);
    const Space space = take(parts, x, plan_for(x, device));
    launch(start_state, 1, 1, 0, as_stream(stream), space.state, picks, static_cast<unsigned long long>(pairs));
    refresh_prepare(x, nullptr, eligible, space.refresh, as_stream(stream));
}

void lazy_rounds(const Matrix& x, float* mind, uint8_t* eligible, Key* keys, void* workspace, int64_t k, int64_t rounds,
                 int device, uint64_t stream) {
    const DeviceScope scope(device);
    const cudaStream_t queue = as_stream(stream);
    const Plan plan = plan_for(x, device);
    Parts parts(workspace);
    const Space space = take(parts, x, plan);
    const int blocks = std::min(blocks_for(x.n, kThreads), 8 * plan.blocks);
    const Centers centers{nullptr, nullptr, keys, &space.state->folded, kMaxPending};
    for (int64_t round = 0; round < rounds; ++round) {
        launch(begin_round, 1, 1024, 0, queue, space.state, space.bins, keys, k);
        for (int digit = 0; digit < kDigits; ++digit) {
            unsigned int* bins = space.bins + digit * kBins;
            launch(count_digits, blocks, kThreads, 0, queue, space.state, mind, eligible, x.n, digit, bins);
            launch(choose_digit, 1, 32, 0, queue, space.state, bins, digit,
                   static_cast<unsigned long long>(plan.capacity()));
        }
        launch(gather_set, blocks, kThreads, 0, queue, space.state, mind, eligible, x.n, k, space.active);
        with_rows(x, [&](auto rows) {
            using Stored = typename decltype(rows)::Element;
            const auto kernel = plan.staged ? greedy_set<Stored, true> : greedy_set<Stored, false>;
            launch_cooperative(kernel, plan.blocks, kGreedyThreads, plan.shared_bytes, queue, rows, space.state,
                               space.active, mind, eligible, keys, k, plan.rows_per_block);
        });
        refresh(x, nullptr, centers, mind, eligible, space.refresh, &space.state->pairs, device, queue);
    }
}

int64_t fold_workspace(const Matrix& x) {
    Parts parts(nullptr);
    RefreshSpace::take(parts, x, nullptr);
    return parts.bytes();
}

void fold_many(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, void* workspace,
               int device, uint64_t stream) {
    const DeviceScope scope(device);
    Parts parts(workspace);
    const RefreshSpace space = RefreshSpace::take(parts, x, nullptr);
    if (x.n == 0 || m == 0) return;
    refresh_prepare(x, nullptr, eligible, space, as_stream(stream));
    for (int64_t at = 0; at < m; at += kMaxPending) {
        const Centers some{centers + at * x.d, nullptr, nullptr, nullptr, std::min<int64_t>(kMaxPending, m - at)};
        refresh(x, nullptr, some, mind, eligible, space, nullptr, device, as_stream(stream));
    }
}

}  // namespace poolwright::cuda
