// mul: y = a * b.
#include "ops/elementwise.cuh"

namespace rvllm::cuda {
namespace {

struct Mul {
    static __device__ __forceinline__ float apply(float a, float b) { return a * b; }
};

}  // namespace

Kernel find_mul(const KernelKey& key) {
    return same_half(key) ? Kernel{run_elementwise<Mul>, "mul"} : Kernel{};
}

}  // namespace rvllm::cuda
