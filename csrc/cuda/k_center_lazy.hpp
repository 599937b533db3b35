// Lazy greedy k-center on CUDA: the picks of k_center_eager, reading the pool once for many picks. As there, nothing
// allocates or synchronizes: the caller gives the workspace, queues rounds, and looks now and then how many picks there
// are.
#pragma once

#include <cstdint>

#include "k_center.hpp"

namespace poolwright::cuda {

// Bytes of workspace for the rounds on x. It begins with three int64: picks that mind has seen, picks made, distances
// computed.
int64_t lazy_workspace(const Matrix& x, int device);

// After `picks` picks that mind has seen, and `pairs` distances computed for them.
void lazy_start(const Matrix& x, const uint8_t* eligible, void* workspace, int64_t picks, int64_t pairs, int device,
                uint64_t stream);

// Queues `rounds` rounds, each of at least one pick until there are k. `keys` (k) takes the picks; eligible[] is
// cleared at each. mind has seen all picks after a round, but for the last ones of the round that makes pick k.
void lazy_rounds(const Matrix& x, float* mind, uint8_t* eligible, Key* keys, void* workspace, int64_t k, int64_t rounds,
                 int device, uint64_t stream);

// fold() of many centers at once by tensor cores, with the same bits.
int64_t fold_workspace(const Matrix& x);
void fold_many(const Matrix& x, const float* centers, int64_t m, float* mind, const uint8_t* eligible, void* workspace,
               int device, uint64_t stream);

}  // namespace poolwright::cuda
