// The refresh: products of bfloat16 numbers on tensor cores tell which centers could be a row's nearest, and only those
// are measured in the fixed order. Products are never written to memory.
//
// Why the result has the bits of the plain loop. With a the row minus the mean (any vector serves) and A its rounding
// to bfloat16, and b, B the same for a center,
//     | ||a - b|| - ||A - B|| |  <=  delta_a + delta_b,     delta_a >= ||a - A||,
// where ||a - A|| is summed from the rounding errors themselves (they are exact in float32) and enlarged for the
// float32 subtraction of the mean. S = ||A||^2 + ||B||^2 - 2 <A, B> is off by at most gamma (||A||^2 + ||B||^2), for
// any order of the sum and for truncating adders: gamma covers (d + 64) additions of error 2^-21, twice what tensor
// cores need that cut off at the 23rd bit of the largest of 17 terms. So low <= ||A - B||^2 <= high with norms (1 -+
// gamma) ||.||^2, and
//     sqrt(low) >= root + delta_a + delta_b   implies   ||a - b|| >= root.
// root is the square root of the row's current minimum, or of an upper bound of its distance to some center of this
// tile, enlarged for the error of the fixed order (d / 16 + 8 roundings). What is not ruled out is measured;
// comparisons are written so that NaN (overflow) rules nothing out. kTiny covers underflow.
//
// Outer products g = l (x) r, given by their factors: with L, R the rounded factors and G = L (x) R, the same holds for
// ||G_i - G_j||^2 = ||L_i||^2 ||R_i||^2 + ||L_j||^2 ||R_j||^2 - 2 <L_i, L_j> <R_i, R_j>, whose two products come one
// after the other, with ||g - G|| <= ||l - L|| ||r|| + ||L|| ||r - R|| and the sum of both errors of the sums; what is
// not ruled out is measured in float64.
#include "refresh.cuh"

#include <cfloat>
#include <type_traits>

#include "mma.cuh"

namespace poolwright::cuda {

namespace {

constexpr int kStep = 64;                 // columns of a stage
constexpr int kStages = 3;
constexpr int kPad = 8;                   // numbers after each row in shared memory: rows start in different banks
constexpr int kStagePitch = kStep + kPad;
constexpr int kWarps = kThreads / 32;
constexpr int kWarpColumns = 4;           // the warps of a block: 2 x 4
constexpr int kNarrow = kCenterTile / kWarpColumns;  // centers of one warp: one word of candidates
constexpr int kSampledRows = 1024;
constexpr float kTiny = 1e-17f;

__device__ inline float gamma_of(int64_t d) { return static_cast<float>(d + 64) * 4.76837158203125e-7f; }  // 2^-21
// A bound of sqrt(squared), enlarged for the error of a sum of d squares in float32 in any order.
__device__ inline float root_above(float squared, int64_t d) { return sqrtf(squared) * (1.0f + gamma_of(d)) + kTiny; }

// What is known of a rounded row: bounds of its squared norm, and of the distance that rounding moved it.
struct Rounded {
    float low, high, delta;
};
__device__ inline Rounded describe(float squared, float rest, int64_t d) {
    // Larger than float32 can hold with room for the differences: nothing is known.
    if (!(squared < 1e37f) || !(rest < 1e37f)) return {-INFINITY, INFINITY, FLT_MAX};
    const float gamma = gamma_of(d);
    return {squared * (1.0f - gamma), squared * (1.0f + gamma),
            root_above(rest, d) + root_above(squared, d) * 1.1920928955078125e-7f};  // 2^-23: subtraction of the mean
}

// Sums over one row (or one factor of it) while it is rounded.
struct Norms {
    float squared, rest;  // of the rounded numbers, and of the errors of rounding
    bool zero;            // all of them

    __device__ void add(float value, float rounded) {
        const float error = value - rounded;
        squared += rounded * rounded;
        rest += error * error;
        zero = zero && value == 0.0f;
    }
    __device__ void over_warp() {
        for (int step = 16; step > 0; step /= 2) {
            squared += __shfl_xor_sync(0xffffffffu, squared, step);
            rest += __shfl_xor_sync(0xffffffffu, rest, step);
        }
        zero = __all_sync(0xffffffffu, zero);
    }
};

__device__ inline Rounded describe_outer(const Norms& left, const Norms& right, int64_t terms) {
    // Squares of numbers below 1e-19 are lost, and the other factor could be large.
    const bool lost = (left.squared < 1e-25f && !left.zero) || (right.squared < 1e-25f && !right.zero);
    const float squared = left.squared * right.squared;
    if (lost || !(squared < 1e37f) || !(left.rest < 1e37f) || !(right.rest < 1e37f))
        return {-INFINITY, INFINITY, FLT_MAX};
    const float gamma = gamma_of(terms);
    const float moved_left = root_above(left.rest, terms), moved_right = root_above(right.rest, terms);
    const float delta = moved_left * (root_above(right.squared, terms) + moved_right) +
                        root_above(left.squared, terms) * moved_right;
    return {squared * (1.0f - gamma), squared * (1.0f + gamma), delta * (1.0f + gamma)};
}

template <bool kOuter>
__device__ inline Rounded describe_row(const Norms& left, const Norms& right, int64_t terms) {
    if constexpr (kOuter) return describe_outer(left, right, terms);
    else return describe(left.squared, left.rest, terms);
}

// The number of additions that the error of the sums is counted in.
template <bool kOuter, class Stored>
__device__ inline int64_t terms_of(const Rows<Stored>& x, const Rows<Stored>& right) {
    return kOuter ? x.d + right.d + 64 : x.d;
}
template <bool kOuter, class Stored>
__host__ __device__ inline int64_t padded_of(const Rows<Stored>& x, const Rows<Stored>& right) {
    return padded_columns(x.d) + (kOuter ? padded_columns(right.d) : 0);
}

__device__ inline int64_t pending(const Centers& centers) {
    return centers.range == nullptr ? centers.count : centers.range[1] - centers.range[0];
}

// The squared distance of row i to pending center j, as it counts: in the fixed order, or in float64.
template <bool kOuter, class Stored>
__device__ inline float distance_to(const Rows<Stored>& x, const Rows<Stored>& right, int64_t i, const Centers& centers,
                                    int64_t j, int lane) {
    const unsigned mask = row_mask();
    const int64_t id = centers.dense == nullptr ? key_row(centers.keys[centers.range[0] + j]) : 0;
    if constexpr (kOuter) {
        const auto with = [&](const Rows<Stored>& rows, const float* dense) {
            return dense != nullptr
                       ? compare(rows.row(i), rows.col_stride, dense + j * rows.d, 1, rows.d, lane, mask)
                       : compare(rows.row(i), rows.col_stride, rows.row(id), rows.col_stride, rows.d, lane, mask);
        };
        const Compared own = with(x, centers.dense);
        return outer_distance(own, with(right, centers.dense_right));
    } else {
        return centers.dense != nullptr
                   ? squared_distance(x.row(i), x.col_stride, centers.dense + j * x.d, 1, x.d, lane, mask)
                   : squared_distance(x.row(i), x.col_stride, x.row(id), x.col_stride, x.d, lane, mask);
    }
}

// Blocks of 32 columns x 8 rows. A column is centered where its mean is large against its spread: elsewhere the
// subtraction would only cost the exactness of narrow numbers.
template <class Stored>
__global__ void choose_mean(Rows<Stored> x, const uint8_t* eligible, float* mean, int64_t padded) {
    __shared__ float sums[8][32], squares[8][32];
    __shared__ int counts[8][32];
    const int64_t column = blockIdx.x * 32 + threadIdx.x;
    const int64_t sampled = x.n < kSampledRows ? x.n : kSampledRows;
    float sum = 0.0f, square = 0.0f;
    int count = 0;
    for (int64_t s = threadIdx.y; s < sampled && column < x.d; s += 8) {
        const int64_t row = s * x.n / sampled;
        if (eligible != nullptr && eligible[row] == 0) continue;  // may hold anything
        const float value = widen(x.row(row)[column * x.col_stride]);
        sum += value;
        square += value * value;
        ++count;
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    squares[threadIdx.y][threadIdx.x] = square;
    counts[threadIdx.y][threadIdx.x] = count;
    __syncthreads();
    if (threadIdx.y != 0 || column >= padded) return;
    for (int i = 1; i < 8; ++i) {
        sum += sums[i][threadIdx.x];
        square += squares[i][threadIdx.x];
        count += counts[i][threadIdx.x];
    }
    const float average = count > 0 ? sum / static_cast<float>(count) : 0.0f;
    const bool far = average * average * static_cast<float>(count) >= 0.25f * square;
    mean[column] = far && fabsf(average) < 1e18f ? average : 0.0f;
}

// Rounds one row of one factor, by one warp; `value` gives its numbers.
template <class Value>
__device__ inline Norms round_center(int64_t padded, const float* mean, __nv_bfloat16* rounded, Value value) {
    Norms norms{0.0f, 0.0f, true};
    for (int64_t column = threadIdx.x % 32; column < padded; column += 32) {
        const float moved = value(column) - mean[column];
        rounded[column] = __float2bfloat16_rn(moved);
        norms.add(moved, __bfloat162float(rounded[column]));
    }
    norms.over_warp();
    return norms;
}

// One warp a center. The last tile is filled up with centers that no row is near to.
template <class Stored, bool kOuter>
__global__ void __launch_bounds__(kThreads)
    round_centers(Rows<Stored> x, Rows<Stored> right, Centers centers, RefreshSpace space) {
    const int64_t count = pending(centers), padded = padded_of<kOuter>(x, right), own = padded_columns(x.d);
    const int64_t filled = (count + kCenterTile - 1) / kCenterTile * kCenterTile;
    for (int64_t j = blockIdx.x * kWarps + threadIdx.x / 32; j < filled; j += gridDim.x * kWarps) {
        const int64_t id = j < count && centers.dense == nullptr ? key_row(centers.keys[centers.range[0] + j]) : 0;
        const auto factor = [&](const Rows<Stored>& rows, const float* dense, int64_t from, int64_t columns) {
            return round_center(columns, space.mean + from, space.rounded + j * padded + from, [&](int64_t column) {
                if (j >= count || column >= rows.d) return 0.0f;
                return dense != nullptr ? dense[j * rows.d + column] : widen(rows.row(id)[column * rows.col_stride]);
            });
        };
        const Norms first = factor(x, centers.dense, 0, own);
        Norms second{0.0f, 0.0f, true};
        if constexpr (kOuter) second = factor(right, centers.dense_right, own, padded - own);
        if (threadIdx.x % 32 != 0) continue;
        const Rounded known = j < count ? describe_row<kOuter>(first, second, terms_of<kOuter>(x, right))
                                        : Rounded{INFINITY, INFINITY, 0.0f};
        space.low[j] = known.low;
        space.high[j] = known.high;
        space.delta[j] = known.delta;
    }
}

// How many numbers a thread reads at once: 16 bytes.
template <class Stored>
constexpr int kVector = 16 / static_cast<int>(sizeof(Stored));

template <class Stored>
__device__ inline void load_vector(const Stored* row, int64_t column, int64_t d, int64_t step, bool whole,
                                   float (&values)[kVector<Stored>]) {
    if (whole) {
        const uint4 raw = *reinterpret_cast<const uint4*>(row + column);
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (sizeof(Stored) == 4) {
                values[i] = __uint_as_float(words[i]);
            } else if constexpr (std::is_same_v<Stored, Bfloat>) {
                values[2 * i] = __uint_as_float(words[i] << 16);
                values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
            } else {
                const uint16_t halves[2] = {static_cast<uint16_t>(words[i]), static_cast<uint16_t>(words[i] >> 16)};
                values[2 * i] = widen(*reinterpret_cast<const Stored*>(halves));
                values[2 * i + 1] = widen(*reinterpret_cast<const Stored*>(halves + 1));
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < kVector<Stored>; ++i)
            values[i] = column + i < d ? widen(row[(column + i) * step]) : 0.0f;
    }
}

// Shared memory of the product kernel, for kRows rows.
template <int kRows>
struct alignas(16) Shared {
    __nv_bfloat16 stages[kStages][kCenterTile][kStagePitch];
    Rounded known[kRows];
    float mind[kRows];
    int root[kRows];  // the bits of a float that is not negative: they order like it
    uint32_t candidates[kRows][kWarpColumns];
    uint8_t taking_part[kRows];
    static size_t bytes(int64_t padded) { return sizeof(Shared) + kRows * (padded + kPad) * sizeof(__nv_bfloat16); }
};

// Rounds the rows `first` and `first + 1` of a factor into shared memory, by one warp: two at once, so that more loads
// are under way.
template <class Stored>
__device__ inline void round_rows(const Rows<Stored>& x, int64_t first, const bool (&part)[2], bool vectors,
                                  const float* mean, __nv_bfloat16* rounded, int pitch, Norms (&norms)[2]) {
    constexpr int kNumbers = kVector<Stored>;
    const int64_t padded = padded_columns(x.d);
#pragma unroll
    for (int q = 0; q < 2; ++q) norms[q] = {0.0f, 0.0f, true};
#pragma unroll 2
    for (int64_t column = threadIdx.x % 32 * kNumbers; column < padded; column += 32 * kNumbers) {
        float values[2][kNumbers];
        const bool whole = vectors && column + kNumbers <= x.d;
#pragma unroll
        for (int q = 0; q < 2; ++q) {
            if (part[q]) {
                load_vector(x.row(first + q), column, x.d, x.col_stride, whole, values[q]);
            } else {
#pragma unroll
                for (int i = 0; i < kNumbers; ++i) values[q][i] = 0.0f;
            }
        }
#pragma unroll
        for (int q = 0; q < 2; ++q) {
            alignas(8) __nv_bfloat162 packed[kNumbers / 2];
#pragma unroll
            for (int i = 0; i < kNumbers; i += 2) {
                // Columns past d are zeros and so is the mean there.
                const float a = part[q] ? values[q][i] - mean[column + i] : 0.0f;
                const float b = part[q] ? values[q][i + 1] - mean[column + i + 1] : 0.0f;
                packed[i / 2] = __floats2bfloat162_rn(a, b);
                norms[q].add(a, __bfloat162float(packed[i / 2].x));
                norms[q].add(b, __bfloat162float(packed[i / 2].y));
            }
            auto* target = reinterpret_cast<uint2*>(rounded + q * pitch + column);
            const auto* source = reinterpret_cast<const uint2*>(packed);
#pragma unroll
            for (int i = 0; i < kNumbers / 4; ++i) target[i] = source[i];
        }
    }
#pragma unroll
    for (int q = 0; q < 2; ++q) norms[q].over_warp();
}

// A block keeps kRows rounded rows in shared memory and streams all centers past them.
template <class Stored, int kRows, bool kOuter>
__global__ void __launch_bounds__(kThreads, 1)
    product_refresh(Rows<Stored> x, Rows<Stored> right, Centers centers, float* mind, const uint8_t* eligible,
                    RefreshSpace space, bool vectors, unsigned long long* pairs) {
    constexpr int kHigh = kRows / 32;  // tiles of 16 rows that a warp has: kRows / 2 rows
    constexpr int kWide = kNarrow / 8;
    const int64_t count = pending(centers), own = padded_columns(x.d), padded = padded_of<kOuter>(x, right);
    if (count <= 0) return;
    const int64_t terms = terms_of<kOuter>(x, right);
    const float gamma = gamma_of(terms);
    const int pitch = static_cast<int>(padded) + kPad, steps = static_cast<int>(padded / kStep);
    const int left_steps = static_cast<int>(own / kStep);
    const int tiles = static_cast<int>((count + kCenterTile - 1) / kCenterTile), iterations = tiles * steps;
    auto& shared = *dynamic_shared<Shared<kRows>>();
    auto* rows = reinterpret_cast<__nv_bfloat16*>(&shared + 1);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int top = warp / kWarpColumns * (kRows / 2), left = warp % kWarpColumns * kNarrow;
    unsigned long long measured = 0;

    const auto fetch = [&](int iteration) {
        if (iteration < iterations) {
            const int64_t first = iteration / steps * kCenterTile, column = iteration % steps * kStep;
            auto& stage = shared.stages[iteration % kStages];
            for (int piece = threadIdx.x; piece < kCenterTile * (kStep / 8); piece += kThreads) {
                const int center = piece / (kStep / 8), at = piece % (kStep / 8) * 8;
                copy_async16(&stage[center][at], space.rounded + (first + center) * padded + column + at);
            }
        }
        commit_async();
    };

    for (int64_t base = static_cast<int64_t>(blockIdx.x) * kRows; base < x.n;
         base += static_cast<int64_t>(gridDim.x) * kRows) {
        // The previous rows are done with: nobody reads shared memory any more.
        int any = 0;
        __syncthreads();
        for (int r = threadIdx.x; r < kRows; r += kThreads) {
            const int64_t row = base + r;
            const float current = row < x.n ? mind[row] : 0.0f;
            // A row at distance 0 cannot come nearer.
            const bool part = row < x.n && current > 0.0f && (eligible == nullptr || eligible[row] != 0);
            shared.taking_part[r] = part;
            shared.mind[r] = current;
            shared.root[r] = __float_as_int(sqrtf(current));
            any |= part;
        }
        if (__syncthreads_or(any) == 0) continue;
        for (int i = 0; i < kStages - 1; ++i) fetch(i);

        for (int r = warp * 2; r < kRows; r += kWarps * 2) {
            const bool part[2] = {shared.taking_part[r] != 0, shared.taking_part[r + 1] != 0};
            Norms norms[2], others[2];
            round_rows(x, base + r, part, vectors, space.mean, rows + r * pitch, pitch, norms);
            if constexpr (kOuter)
                round_rows(right, base + r, part, vectors, space.mean + own, rows + r * pitch + own, pitch, others);
#pragma unroll
            for (int q = 0; q < 2; ++q)
                if (lane == 0) shared.known[r + q] = describe_row<kOuter>(norms[q], others[q], terms);
        }
        if (pairs != nullptr) {
            for (int r = threadIdx.x; r < kRows; r += kThreads)
                if (shared.taking_part[r]) measured += static_cast<unsigned long long>(count);
        }

        float sums[kHigh][kWide][4];
        [[maybe_unused]] float left_sums[kHigh][kWide][4];
        for (int iteration = 0; iteration < iterations; ++iteration) {
            const int step = iteration % steps;
            if (step == 0 || (kOuter && step == left_steps)) {
#pragma unroll
                for (int h = 0; h < kHigh; ++h)
#pragma unroll
                    for (int w = 0; w < kWide; ++w)
#pragma unroll
                        for (int e = 0; e < 4; ++e) {
                            if constexpr (kOuter) left_sums[h][w][e] = step == 0 ? 1.0f : sums[h][w][e];
                            sums[h][w][e] = 0.0f;
                        }
            }
            wait_async<kStages - 2>();
            __syncthreads();  // the stage is there for all; the one before it is free
            fetch(iteration + kStages - 1);
            const auto& stage = shared.stages[iteration % kStages];
#pragma unroll
            for (int k = 0; k < kStep; k += 16) {
                uint32_t b[kWide / 2][4];
#pragma unroll
                for (int w = 0; w < kWide / 2; ++w)
                    load_matrices(b[w], &stage[left + w * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
#pragma unroll
                for (int h = 0; h < kHigh; ++h) {
                    uint32_t a[4];
                    load_matrices(a, rows + (top + h * 16 + lane % 16) * pitch + step * kStep + k + lane / 16 * 8);
#pragma unroll
                    for (int w = 0; w < kWide; ++w) {
                        const uint32_t column[2] = {b[w / 2][w % 2 * 2], b[w / 2][w % 2 * 2 + 1]};
                        multiply_add_bf16(sums[h][w], a, column);
                    }
                }
            }
            if (step != steps - 1) continue;
            if constexpr (kOuter) {
#pragma unroll
                for (int h = 0; h < kHigh; ++h)
#pragma unroll
                    for (int w = 0; w < kWide; ++w)
#pragma unroll
                        for (int e = 0; e < 4; ++e) sums[h][w][e] *= left_sums[h][w][e];
            }

            // The tile is complete. First an upper bound of each row's distance to its nearest center here ...
            const int64_t first = static_cast<int64_t>(iteration / steps) * kCenterTile + left + lane % 4 * 2;
            float low[kWide][2], delta[kWide][2];
            float high[kWide][2], widest = 0.0f;
#pragma unroll
            for (int w = 0; w < kWide; ++w)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    low[w][e] = space.low[first + w * 8 + e];
                    high[w][e] = space.high[first + w * 8 + e];
                    delta[w][e] = space.delta[first + w * 8 + e];
                    widest = fmaxf(widest, delta[w][e]);
                }
            widest = fmaxf(widest, __shfl_xor_sync(0xffffffffu, widest, 1));
            widest = fmaxf(widest, __shfl_xor_sync(0xffffffffu, widest, 2));
#pragma unroll
            for (int part = 0; part < kHigh * 2; ++part) {
                const int h = part / 2, e = part % 2 * 2, r = top + h * 16 + part % 2 * 8 + lane / 4;
                float nearest = INFINITY;
#pragma unroll
                for (int w = 0; w < kWide; ++w) {
                    nearest = fminf(nearest, high[w][0] - 2.0f * sums[h][w][e]);
                    nearest = fminf(nearest, high[w][1] - 2.0f * sums[h][w][e + 1]);
                }
                nearest = fminf(nearest, __shfl_xor_sync(0xffffffffu, nearest, 1));
                nearest = fminf(nearest, __shfl_xor_sync(0xffffffffu, nearest, 2));
                if (lane % 4 == 0) {
                    const Rounded known = shared.known[r];
                    const float bound = root_above(fmaxf(nearest + known.high, 0.0f), terms) + known.delta + widest;
                    if (bound < INFINITY) atomicMin(&shared.root[r], __float_as_int(bound));
                }
            }
            __syncthreads();
            // ... then the centers that this bound and the current minimum do not rule out ...
#pragma unroll
            for (int part = 0; part < kHigh * 2; ++part) {
                const int h = part / 2, e = part % 2 * 2, r = top + h * 16 + part % 2 * 8 + lane / 4;
                const Rounded known = shared.known[r];
                const float nearest = __int_as_float(shared.root[r]);
                const float root = nearest * (1.0f + gamma) + kTiny + known.delta;
                uint32_t word = 0;
#pragma unroll
                for (int w = 0; w < kWide; ++w)
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        const float reach = root + delta[w][i];
                        const float lowest = known.low + low[w][i] - 2.0f * sums[h][w][e + i];
                        const bool ruled_out = lowest >= reach * reach;
                        if (!ruled_out && first + w * 8 + i < count) word |= 1u << (w * 8 + lane % 4 * 2 + i);
                    }
                word |= __shfl_xor_sync(0xffffffffu, word, 1);
                word |= __shfl_xor_sync(0xffffffffu, word, 2);
                if (lane % 4 == 0) shared.candidates[r][warp % kWarpColumns] = shared.taking_part[r] ? word : 0;
            }
            __syncthreads();
            // ... which are measured, by 16 threads a row.
            const int64_t tile = static_cast<int64_t>(iteration / steps) * kCenterTile;
            for (int r = threadIdx.x / kLanes; r < kRows; r += kRowsPerBlock) {
                float smallest = shared.mind[r];
                bool looked = false;
                for (int part = 0; part < kWarpColumns; ++part) {
                    for (uint32_t word = shared.candidates[r][part]; word != 0; word &= word - 1) {
                        const int64_t j = tile + part * kNarrow + __ffs(static_cast<int>(word)) - 1;
                        smallest = fminf(smallest, distance_to<kOuter>(x, right, base + r, centers, j, lane % kLanes));
                        looked = true;
                        measured += lane % kLanes == 0;
                    }
                }
                if (looked && lane % kLanes == 0) {
                    shared.mind[r] = smallest;
                    shared.root[r] = __float_as_int(sqrtf(smallest));
                    mind[base + r] = smallest;
                }
            }
        }
        wait_async<0>();
    }
    if (pairs != nullptr && measured != 0) atomicAdd(pairs, measured);
}

// For rows that are too long for shared memory: every pair as it counts.
template <class Stored, bool kOuter>
__global__ void __launch_bounds__(kThreads)
    plain_refresh(Rows<Stored> x, Rows<Stored> right, Centers centers, float* mind, const uint8_t* eligible,
                  unsigned long long* pairs) {
    const int64_t count = pending(centers);
    const int lane = threadIdx.x % kLanes;
    unsigned long long measured = 0;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kLanes; row < x.n;
         row += static_cast<int64_t>(gridDim.x) * kRowsPerBlock) {
        if (eligible != nullptr && eligible[row] == 0) continue;
        float smallest = mind[row];
        for (int64_t j = 0; j < count; ++j)
            smallest = fminf(smallest, distance_to<kOuter>(x, right, row, centers, j, lane));
        if (lane != 0) continue;
        mind[row] = smallest;
        measured += static_cast<unsigned long long>(count);
    }
    if (pairs != nullptr && measured != 0) atomicAdd(pairs, measured);
}

template <class Stored>
bool aligned(const Rows<Stored>& x) {
    return x.col_stride == 1 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
           x.row_stride * static_cast<int64_t>(sizeof(Stored)) % 16 == 0;
}

template <bool kOuter, class Stored>
struct Refresh {
    Rows<Stored> x, right;
    const Centers& centers;
    float* mind;
    const uint8_t* eligible;
    const RefreshSpace& space;
    unsigned long long* pairs;
    cudaStream_t stream;

    template <int kRows>
    bool try_product(int64_t limit) const {
        const size_t bytes = Shared<kRows>::bytes(padded_of<kOuter>(x, right));
        if (static_cast<int64_t>(bytes) > limit) return false;
        const auto kernel = product_refresh<Stored, kRows, kOuter>;
        const int64_t blocks = std::min<int64_t>(resident_blocks(kernel, kThreads, bytes), (x.n + kRows - 1) / kRows);
        const bool vectors = aligned(x) && (!kOuter || aligned(right));
        launch(kernel, static_cast<unsigned>(blocks), kThreads, bytes, stream, x, right, centers, mind, eligible, space,
               vectors, pairs);
        return true;
    }

    void run(int64_t limit) const {
        const int64_t filled = (centers.count + kCenterTile - 1) / kCenterTile * kCenterTile;
        launch(round_centers<Stored, kOuter>, static_cast<unsigned>(filled / kWarps), kThreads, 0, stream, x, right,
               centers, space);
        if constexpr (!kOuter) {  // two products would not fit into the registers
            if (try_product<128>(limit)) return;
        }
        if (try_product<64>(limit) || try_product<32>(limit)) return;
        launch(plain_refresh<Stored, kOuter>, blocks_for(x.n, kRowsPerBlock), kThreads, 0, stream, x, right, centers,
               mind, eligible, pairs);
    }
};

int64_t padded_both(const Matrix& x, const Matrix* right) {
    return padded_columns(x.d) + (right == nullptr ? 0 : padded_columns(right->d));
}

}  // namespace

RefreshSpace RefreshSpace::take(Parts& parts, const Matrix& x, const Matrix* right) {
    const int64_t padded = padded_both(x, right);
    RefreshSpace space;
    space.rounded = parts.take<__nv_bfloat16>(kMaxPending * padded);
    space.low = parts.take<float>(kMaxPending);
    space.high = parts.take<float>(kMaxPending);
    space.delta = parts.take<float>(kMaxPending);
    space.mean = parts.take<float>(padded);
    return space;
}

void refresh_prepare(const Matrix& x, const Matrix* right, const uint8_t* eligible, const RefreshSpace& space,
                     cudaStream_t stream) {
    const int64_t padded = padded_both(x, right);
    if (right != nullptr) {  // outer products do not move with their factors
        check(cudaMemsetAsync(space.mean, 0, static_cast<size_t>(padded) * sizeof(float), stream), "cudaMemsetAsync");
        return;
    }
    with_rows(x, [&](auto rows) {
        launch(choose_mean<typename decltype(rows)::Element>, static_cast<unsigned>((padded + 31) / 32), dim3(32, 8), 0,
               stream, rows, eligible, space.mean, padded);
    });
}

void refresh(const Matrix& x, const Matrix* right, const Centers& centers, float* mind, const uint8_t* eligible,
             const RefreshSpace& space, unsigned long long* pairs, int device, cudaStream_t stream) {
    if (x.n == 0 || centers.count == 0) return;
    int limit = 0;
    check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
    with_rows(x, [&](auto rows) {
        using Stored = typename decltype(rows)::Element;
        if (right == nullptr)
            Refresh<false, Stored>{rows, {}, centers, mind, eligible, space, pairs, stream}.run(limit);
        else
            Refresh<true, Stored>{rows, rows_of<Stored>(*right), centers, mind, eligible, space, pairs, stream}
                .run(limit);
    });
}

}  // namespace poolwright::cuda
