// add: y = a + b.
#include "ops/elementwise.cuh"

namespace rvllm::cuda {
namespace {

struct Add {
    static __device__ __forceinline__ float apply(float a, float b) { return a + b; }
};

}  // namespace

Kernel find_add(const KernelKey& key) {
    return same_half(key) ? Kernel{run_elementwise<Add>, "add"} : Kernel{};
}

}  // namespace rvllm::cuda
