// silu_mul: y = silu(gate) * up.
#include "ops/elementwise.cuh"

namespace rvllm::cuda {
namespace {

struct SiluMul {
    static __device__ __forceinline__ float apply(float a, float b) { return a / (1.0f + expf(-a)) * b; }
};

}  // namespace

Kernel find_silu_mul(const KernelKey& key) {
    return same_half(key) ? Kernel{run_elementwise<SiluMul>, "silu_mul"} : Kernel{};
}

}  // namespace rvllm::cuda
