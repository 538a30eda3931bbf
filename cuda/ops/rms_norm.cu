// rms_norm: y = x / sqrt(mean(x^2) + eps) * weight.
#include "ops/norm.cuh"

namespace rvllm::cuda {

Kernel find_rms_norm(const KernelKey& key) {
    return same_half(key) ? Kernel{run_norm<false>, "rms_norm"} : Kernel{};
}

}  // namespace rvllm::cuda
