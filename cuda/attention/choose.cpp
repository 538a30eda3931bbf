// choose_attention(): the kernels of sm_90a where they run, else those of mma.sync where they fit.
#include "attention/choose.h"

#include "attention/attention.h"

namespace rvllm::cuda {

AttentionDesc choose_attention(const AttentionDevice& device, DType dtype, int head_dim) {
    const auto refuse = [](const char* why) { return AttentionDesc{AttentionKernel::none, 0, why}; };
    if (dtype != DType::f16 && dtype != DType::bf16)
        return refuse("attention on CUDA computes in f16 or bf16");
    if (head_dim != 64 && head_dim != 80 && head_dim != 96 && head_dim != 128 && head_dim != 256)
        return refuse("attention on CUDA has head sizes 64, 80, 96, 128 and 256");
    if (device.sm90) return {AttentionKernel::sm90, kWgmmaRows, ""};
    if (device.arch < 70) return refuse("attention on CUDA needs compute capability 7.0");
    if (device.arch < 80 && dtype == DType::bf16)
        return refuse("attention in bf16 needs compute capability 8.0: use f16");
    if (decode_smem_bytes(device.arch, head_dim) > device.max_smem_bytes ||
        prefill_smem_bytes(device.arch, head_dim) > device.max_smem_bytes)
        return refuse("attention with this head size needs more shared memory than this GPU has");
    return {AttentionKernel::mma, static_cast<int16_t>(prefill_rows(head_dim)), ""};
}

}  // namespace rvllm::cuda
