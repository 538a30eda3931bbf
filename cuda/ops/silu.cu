// silu: y = x * sigmoid(x).
#include "ops/elementwise.cuh"

namespace rvllm::cuda {
namespace {

struct Silu {
    static __device__ __forceinline__ float apply(float a, float) { return a / (1.0f + expf(-a)); }
};

}  // namespace

Kernel find_silu(const KernelKey& key) {
    return same_half(key) ? Kernel{run_elementwise<Silu>, "silu"} : Kernel{};
}

}  // namespace rvllm::cuda
