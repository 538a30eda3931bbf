// encode_tensor_map(): cuTensorMapEncodeTiled of the driver that is there.
#include "tensor_map.h"

namespace rvllm::cuda {
namespace {

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                                 CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill);

EncodeTiled encode_tiled() {
    static const EncodeTiled fn = [] {
        void* p = nullptr;
        cudaDriverEntryPointQueryResult result;
        const cudaError_t e =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault, &result);
        return e == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(p)
                                                                         : nullptr;
    }();
    return fn;
}

}  // namespace

cudaError_t encode_tensor_map(CUtensorMap* map, const TensorMapDesc& d) {
    const EncodeTiled encode = encode_tiled();
    if (!encode) return cudaErrorNotSupported;
    const CUtensorMapDataType type = d.dtype == DType::f32   ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                     : d.dtype == DType::f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                             : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const cuuint64_t bytes = dtype_bytes(d.dtype);
    const cuuint64_t size[2] = {(cuuint64_t)d.columns, (cuuint64_t)d.rows};
    const cuuint64_t stride[1] = {(cuuint64_t)d.row_stride * bytes};
    const cuuint32_t box[2] = {(cuuint32_t)d.box_columns, (cuuint32_t)d.box_rows}, step[2] = {1, 1};
    const CUtensorMapSwizzle swizzle =
        d.box_columns * bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B;
    const CUresult r = encode(map, type, 2, const_cast<void*>(d.data), size, stride, box, step,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace rvllm::cuda
