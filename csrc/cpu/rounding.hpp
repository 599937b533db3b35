// The floating-point mode of a thread while kernels compute.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace poolwright {

// Flush-to-zero is a setting of each thread (torch.set_flush_denormal sets it for one): pin it off while we compute,
// or the bits would depend on which thread a row falls to.
class DefaultRounding {
public:
#if defined(__SSE2__)
    DefaultRounding() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~DefaultRounding() { _mm_setcsr(saved_); }

private:
    unsigned saved_;
#else
    DefaultRounding() {}
    ~DefaultRounding() {}
#endif
public:
    DefaultRounding(const DefaultRounding&) = delete;
    DefaultRounding& operator=(const DefaultRounding&) = delete;
};

}  // namespace poolwright
