// A launch with the attributes that our kernels use.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

namespace rvllm::cuda {

struct LaunchShape {
    dim3 grid;
    int threads;
    size_t smem_bytes = 0;  // dynamic
    int cluster = 1;        // CTAs, along x
};

// With pdl, the kernel may start while its predecessor on the stream runs (device/pdl.cuh).
template <typename... Params, typename... Args>
cudaError_t launch_kernel(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream, bool pdl,
                          Args&&... args) {
    cudaLaunchAttribute attrs[2] = {};
    unsigned n = 0;
    if (shape.cluster > 1) {
        attrs[n].id = cudaLaunchAttributeClusterDimension;
        attrs[n++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
    }
    if (pdl) {
        attrs[n].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attrs[n++].val.programmaticStreamSerializationAllowed = 1;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.grid;
    config.blockDim = shape.threads;
    config.dynamicSmemBytes = shape.smem_bytes;
    config.stream = stream;
    config.attrs = attrs;
    config.numAttrs = n;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace rvllm::cuda
