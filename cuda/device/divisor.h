// Division by numbers that are known when a kernel is launched.
#pragma once
#include <cstdint>

namespace rvllm::cuda {

// Divides by multiplying: exact while dividend * divisor < 2^32.
struct Divisor {
    uint32_t n = 1, inverse = 0;

    Divisor() = default;
    explicit Divisor(uint32_t n) : n(n), inverse(n > 1 ? 0xffffffffu / n + 1 : 0) {}
#ifdef __CUDACC__
    __device__ __forceinline__ uint32_t quotient(uint32_t x) const {
        return n > 1 ? __umulhi(x, inverse) : x;
    }
#endif
};

}  // namespace rvllm::cuda
