#include "k_center.hpp"

#include "rows.cuh"

namespace poolwright::cuda {

namespace {

// One pass over the rows. The centers are either `centers` (m x d float32) or, where `previous` is not null, the one
// row of x that *previous names; that row stops being eligible.
template <class Stored>
__global__ void __launch_bounds__(kThreads)
    pass(const Stored* x, int64_t n, int64_t d, int64_t row_stride, int64_t col_stride, const float* centers, int64_t m,
         const Key* previous, float* mind, uint8_t* eligible, Key* best) {
    __shared__ Key block_best;
    if (threadIdx.x == 0) block_best = 0;
    __syncthreads();
    const int lane = threadIdx.x % kLanes;
    const unsigned mask = row_mask();
    const int64_t picked = previous != nullptr && *previous != 0 ? key_row(*previous) : -1;
    Key mine = 0;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kLanes; row < n;
         row += static_cast<int64_t>(gridDim.x) * kRowsPerBlock) {
        // All 16 threads of a row take the same branches, so the shuffles inside see their whole mask.
        if (row == picked) {
            if (lane == 0) eligible[row] = 0;
            continue;
        }
        if (eligible != nullptr && eligible[row] == 0) continue;
        const Stored* point = x + row * row_stride;
        float smallest = mind[row];
        if (picked >= 0) {
            const Stored* center = x + picked * row_stride;
            smallest = fminf(smallest, squared_distance(point, col_stride, center, col_stride, d, lane, mask));
        }
        for (int64_t c = 0; c < m; ++c)
            smallest = fminf(smallest, squared_distance(point, col_stride, centers + c * d, 1, d, lane, mask));
        if (lane == 0) {
            mind[row] = smallest;
            mine = max(mine, make_key(smallest, row));
        }
    }
    if (best == nullptr) return;
    if (mine != 0) atomicMax(&block_best, mine);
    __syncthreads();
    if (threadIdx.x == 0 && block_best != 0) atomicMax(best, block_best);
}

__global__ void force_first(Key* key, const float* mind, int64_t first) { *key = make_key(mind[first], first); }

__global__ void decode_keys(const Key* keys, int64_t* indices, float* squared, int64_t count) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        indices[i] = keys[i] == 0 ? -1 : key_row(keys[i]);
        squared[i] = __uint_as_float(static_cast<uint32_t>(keys[i] >> 32));
    }
}

template <class Stored>
void launch_pass_of(const Matrix& x, const float* centers, int64_t m, const Key* previous, float* mind,
                    uint8_t* eligible, Key* best, cudaStream_t stream) {
    launch(pass<Stored>, blocks_for(x.n, kRowsPerBlock), kThreads, 0, stream, static_cast<const Stored*>(x.data), x.n,
           x.d, x.row_stride, x.col_stride, centers, m, previous, mind, eligible, best);
}

void launch_pass(const Matrix& x, const float* centers, int64_t m, const Key* previous, float* mind, uint8_t* eligible,
                 Key* best, cudaStream_t stream) {
    if (x.n == 0) return;
    if (x.dtype == DType::f32) launch_pass_of<float>(x, centers, m, previous, mind, eligible, best, stream);
    else if (x.dtype == DType::f16) launch_pass_of<__half>(x, centers, m, previous, mind, eligible, best, stream);
    else launch_pass_of<Bfloat>(x, centers, m, previous, mind, eligible, best, stream);
}

}  // namespace

void fold(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, Key* best, int device,
          uint64_t stream) {
    const DeviceScope scope(device);
    // Without a previous pick the pass only reads `eligible`.
    launch_pass(x, centers, m, nullptr, mind, const_cast<uint8_t*>(eligible), best, as_stream(stream));
}

void k_center_eager(const Matrix& x, float* mind, uint8_t* eligible, Key* keys, int64_t k, int64_t first,
                    bool fold_last, int device, uint64_t stream, const std::function<void()>& poll) {
    if (k == 0) return;
    const DeviceScope scope(device);
    const cudaStream_t queue = as_stream(stream);
    if (first >= 0) launch(force_first, 1, 1, 0, queue, keys, mind, first);
    else launch_pass(x, nullptr, 0, nullptr, mind, eligible, keys, queue);
    for (int64_t i = 1; i < k; ++i) {
        launch_pass(x, nullptr, 0, keys + i - 1, mind, eligible, keys + i, queue);
        poll();
    }
    if (fold_last) launch_pass(x, nullptr, 0, keys + k - 1, mind, eligible, nullptr, queue);
}

void decode(const Key* keys, int64_t* indices, float* squared, int64_t count, int device, uint64_t stream) {
    if (count == 0) return;
    const DeviceScope scope(device);
    launch(decode_keys, blocks_for(count, kThreads), kThreads, 0, as_stream(stream), keys, indices, squared, count);
}

}  // namespace poolwright::cuda
