// launch_linear: parameters, tensor map of the tokens, and the instantiation for desc's tile.
#include "gemm/linear.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "gemm/layout.h"
#include "gemm/tile.h"
#ifdef RVLLM_CUDA_SM90
#include "gemm/large.h"
#include "gemm/split.h"
#include "gemm/wide.h"
#include "tensor_map.h"
#endif

namespace rvllm::cuda {
namespace {

constexpr size_t kFlagBytes = 4096;  // one flag per CTA of linear_wide_kernel

LinearParams params_of(const LinearDesc& desc, const LinearArgs& a, void* workspace) {
    LinearParams p = {};
    p.weight = static_cast<const uint8_t*>(a.weight);
    p.rows = a.layout == WeightLayout::rows;
    p.x = a.x;
    p.bias = a.bias;
    p.residual = a.residual;
    p.y = a.y;
    p.flags = static_cast<int32_t*>(workspace);
    p.workspace = static_cast<char*>(workspace) + kFlagBytes;
    p.x_stride = a.x_stride;
    p.residual_stride = a.residual_stride;
    p.y_stride = a.y_stride;
    p.m = a.m;
    p.n = a.n;
    p.k = a.k;
    p.trigger = desc.trigger;
    p.n_stages = desc.n_stages;
    p.act = a.act;
    p.rope = a.rope;
    p.out = a.out;
    auto aligned = [](const void* base, int64_t stride, size_t bytes) {
        return (uintptr_t)base % (4 * bytes) == 0 && stride % 4 == 0;
    };
    p.vector = aligned(a.y, a.y_stride, dtype_bytes(a.out)) && aligned(a.residual, a.residual_stride, 2);
    return p;
}

TilePlan plan_tiles(const LinearDesc& d, const LinearArgs& a) {
    constexpr int kBandTokens = 2048;  // tokens whose tiles run side by side
    TilePlan plan = {};
    plan.chunks = (int32_t)k_chunks(a.k);
    plan.n_blocks = (int32_t)row_blocks(a.n);
    plan.n_token_tiles = (int32_t)ceil_div(a.m, d.tokens);
    const int n_tiles = plan.n_blocks * plan.n_token_tiles;
    plan.n_whole = d.split == 1 ? n_tiles : n_tiles - (int)n_cut_tiles(n_tiles, d.n_ctas);
    plan.n_units = (n_tiles - plan.n_whole) * plan.chunks;
    plan.band = std::max(1, kBandTokens / d.tokens);
    plan.together = plan.n_whole == 0 && d.n_ctas % n_tiles == 0;
    return plan;
}

template <typename T>
cudaError_t launch_tiles(const LinearDesc& d, const LinearArgs& a, const LinearParams& p, cudaStream_t stream,
                         bool pdl) {
    const TilePlan plan = plan_tiles(d, a);
    switch (d.tokens) {
        case 8: return launch_tile<T, 8>(d, plan, p, stream, pdl);
        case 16: return launch_tile<T, 16>(d, plan, p, stream, pdl);
        case 32: return launch_tile<T, 32>(d, plan, p, stream, pdl);
        case 64: return launch_tile<T, 64>(d, plan, p, stream, pdl);
        case 128: return launch_tile<T, 128>(d, plan, p, stream, pdl);
        case 256: return launch_tile<T, 256>(d, plan, p, stream, pdl);
        default: return cudaErrorInvalidValue;
    }
}

#ifdef RVLLM_CUDA_SM90
// What linear_large_kernel needs besides: how tiles are dealt, and a tensor map of y if it may store through
// it.
LargePlan plan_large(const LinearDesc& d, const LinearArgs& a, int n_features) {
    constexpr int kBandTokens = 2048;  // tokens whose tiles run side by side
    LargePlan plan = {};
    plan.tokens = d.tokens;
    plan.share = d.tokens / d.sharing;
    plan.chunks = (int32_t)k_chunks(a.k);
    plan.n_blocks = (int32_t)row_blocks(a.n);
    plan.n_groups = (int32_t)ceil_div(plan.n_blocks, d.sharing);
    plan.n_token_tiles = (int32_t)ceil_div(a.m, d.tokens);
    plan.n_clusters = d.n_ctas / d.sharing;
    const int n_tiles = plan.n_groups * plan.n_token_tiles;
    plan.n_whole = n_tiles / plan.n_clusters * plan.n_clusters;
    plan.rest = Divisor(n_tiles - plan.n_whole);
    plan.split = Divisor(d.split);
    const int64_t n_bands = ceil_div((int64_t)plan.n_token_tiles * d.tokens, kBandTokens + kBandTokens / 4);
    plan.band = (int32_t)ceil_div(plan.n_token_tiles, n_bands);
    plan.band_tiles = Divisor(plan.band * plan.n_groups);
    plan.width = Divisor(plan.band);
    plan.last = Divisor((plan.n_token_tiles - 1) % plan.band + 1);
    auto aligned = [](const void* base, int64_t stride) {
        return (uintptr_t)base % 16 == 0 && stride % 8 == 0;
    };
    const bool residual_fits =
        a.out == d.dtype && aligned(a.residual, a.residual_stride) && n_features % 8 == 0;
    plan.staged = aligned(a.y, a.y_stride) && (!a.residual || residual_fits);
    return plan;
}

template <typename T>
cudaError_t launch_large(const LinearDesc& d, const CUtensorMap& x_map, const LinearArgs& a,
                         const LinearParams& p, cudaStream_t stream, bool pdl) {
    const bool pairs = a.act == Act::silu_mul;
    const int n_features = pairs ? a.n / 2 : a.n;
    const LargePlan plan = plan_large(d, a, n_features);
    CUtensorMap y_map = {};
    if (plan.staged) {
        constexpr int kPieceTokens = 32;
        const int columns = pairs || a.out == DType::f32 ? 32 : 64;
        const cudaError_t e =
            encode_tensor_map(&y_map, {a.y, a.out, a.m, n_features, a.y_stride, kPieceTokens, columns});
        if (e != cudaSuccess) return e;
    }
    switch (d.tokens) {
        case 128: return launch_large<T, 128>(d, x_map, y_map, plan, p, stream, pdl);
        case 192: return launch_large<T, 192>(d, x_map, y_map, plan, p, stream, pdl);
        case 256: return launch_large<T, 256>(d, x_map, y_map, plan, p, stream, pdl);
        default: return cudaErrorInvalidValue;
    }
}

template <typename T>
cudaError_t launch_hopper(const LinearDesc& d, const CUtensorMap& x_map, const CUtensorMap& w_map,
                          const LinearParams& p, cudaStream_t stream, bool pdl) {
    const bool split = d.kernel == LinearKernel::split;
    switch (d.tokens) {
#define RVLLM_CASE(n)                                                      \
    case n:                                                                \
        return split ? launch_split<T, n>(d, x_map, w_map, p, stream, pdl) \
                     : launch_wide<T, n>(d, x_map, w_map, p, stream, pdl);
        RVLLM_CASE(8)
        RVLLM_CASE(16)
        RVLLM_CASE(32)
        RVLLM_CASE(64)
        RVLLM_CASE(128)
        RVLLM_CASE(256)
#undef RVLLM_CASE
        default: return cudaErrorInvalidValue;
    }
}
#endif

cudaError_t launch_slice(const LinearDesc& desc, const LinearArgs& args, void* workspace, cudaStream_t stream,
                         bool pdl) {
    const LinearParams p = params_of(desc, args, workspace);
    const bool half = desc.dtype == DType::f16;
    if (desc.kernel == LinearKernel::tile && !p.rows)
        return half ? launch_tiles<__half>(desc, args, p, stream, pdl)
                    : launch_tiles<__nv_bfloat16>(desc, args, p, stream, pdl);
#ifdef RVLLM_CUDA_SM90
    CUtensorMap map;
    const cudaError_t e = encode_tensor_map(
        &map, {args.x, desc.dtype, args.m, args.k, args.x_stride, desc.tokens / desc.sharing, kChunk});
    if (e != cudaSuccess) return e;
    if (desc.kernel == LinearKernel::large && !p.rows)
        return half ? launch_large<__half>(desc, map, args, p, stream, pdl)
                    : launch_large<__nv_bfloat16>(desc, map, args, p, stream, pdl);
    if (desc.kernel == LinearKernel::split || desc.kernel == LinearKernel::wide) {
        CUtensorMap w_map = {};
        const cudaError_t w = p.rows ? encode_tensor_map(&w_map, {args.weight, desc.dtype, args.n, args.k,
                                                                  args.k, kBlockRows, kChunk})
                                     : cudaSuccess;
        if (w != cudaSuccess) return w;
        return half ? launch_hopper<__half>(desc, map, w_map, p, stream, pdl)
                    : launch_hopper<__nv_bfloat16>(desc, map, w_map, p, stream, pdl);
    }
#endif
    return cudaErrorNotSupported;
}

}  // namespace

LinearArgs row_slice(const LinearArgs& args, int32_t first, int32_t m) {
    LinearArgs slice = args;
    slice.m = m;
    slice.x = static_cast<const char*>(args.x) + first * args.x_stride * 2;
    if (args.residual)
        slice.residual = static_cast<const char*>(args.residual) + first * args.residual_stride * 2;
    slice.y = static_cast<char*>(args.y) + first * args.y_stride * (int64_t)dtype_bytes(args.out);
    slice.rope.table += first * args.rope.table_stride;
    slice.rope.slots += first;
    return slice;
}

size_t linear_workspace_bytes(const Device& device) {
    const size_t tokens = device.arch == 90 ? kSliceTokens : 2 * tile_max_tokens(device);
    return kFlagBytes + device.n_sms * tokens * kBlockRows * sizeof(float);
}

cudaError_t launch_linear(const LinearDesc& desc, const LinearArgs& args, void* workspace,
                          cudaStream_t stream, bool pdl) {
    if (args.act == Act::silu_mul && args.n % 16) return cudaErrorInvalidValue;
    if (args.act == Act::rope && !can_rope(desc, args.rope.head_dim)) return cudaErrorInvalidValue;
    if (args.k % 8 || args.x_stride % 8 || (uintptr_t)args.x % 16) return cudaErrorInvalidValue;
    for (int32_t first = 0; first < args.m; first += desc.slice) {
        const LinearArgs slice = row_slice(args, first, std::min(args.m - first, desc.slice));
        const cudaError_t e = launch_slice(desc, slice, workspace, stream, pdl);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

}  // namespace rvllm::cuda
