// Which attention kernels run, as a pure function of device, type and head size (no CUDA headers).
#pragma once
#include <cstdint>

#include "tensor.h"

namespace rvllm::cuda {

struct AttentionDevice {
    bool sm90 = false;  // the kernels of sm_90a are built and run here
    int arch = 0;       // that the other kernels were compiled for: 80 for sm_80
    int max_smem_bytes = 0;
};

enum class AttentionKernel : uint8_t {
    none,
    mma,   // mma.sync: decode.cuh, prefill.cuh
    sm90,  // prefill on wgmma and tensor maps: prefill_sm90.cuh
};

struct AttentionDesc {
    AttentionKernel kernel = AttentionKernel::none;
    int16_t tile_rows = 0;     // query rows of a prefill tile
    const char* refusal = "";  // none: why
};

AttentionDesc choose_attention(const AttentionDevice& device, DType dtype, int head_dim);

}  // namespace rvllm::cuda
