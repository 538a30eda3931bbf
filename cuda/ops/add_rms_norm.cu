// add_rms_norm: sum = x + residual; y = rms_norm(sum).
#include "ops/norm.cuh"

namespace rvllm::cuda {

Kernel find_add_rms_norm(const KernelKey& key) {
    return same_half(key) ? Kernel{run_norm<true>, "add_rms_norm"} : Kernel{};
}

}  // namespace rvllm::cuda
