// What there is to know of a GPU before it is taken into use.
#include "gpu.h"

#include <cstdio>

#include "gemm/cublas.h"
#include "prepared.h"

namespace rvllm::cuda {
namespace {

#ifdef RVLLM_CUDA_SM90
constexpr bool kHasSm90 = true;
#else
constexpr bool kHasSm90 = false;
#endif

}  // namespace

bool unusable(int device, cudaDeviceProp* properties, char* error, int error_size) {
    int driver = 0, runtime = 0, n_devices = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        std::snprintf(error, error_size, "there is no NVIDIA driver (libcuda.so.1)");
    } else if (driver / 1000 < runtime / 1000) {
        std::snprintf(error, error_size,
                      "the NVIDIA driver supports CUDA %d.%d, this build needs a driver for CUDA %d.0",
                      driver / 1000, driver % 1000 / 10, runtime / 1000);
    } else if (const cudaError_t e = cudaGetDeviceCount(&n_devices); e != cudaSuccess) {
        std::snprintf(error, error_size, "the NVIDIA driver cannot be used: %s", cudaGetErrorString(e));
    } else if (device >= n_devices) {
        std::snprintf(error, error_size, "there is no CUDA device %d: there are %d", device, n_devices);
    } else if (const cudaError_t p = cudaGetDeviceProperties(properties, device); p != cudaSuccess) {
        std::snprintf(error, error_size, "CUDA device %d cannot be used: %s", device, cudaGetErrorString(p));
    } else {
        return false;
    }
    return true;
}

bool planned_gpu(int arch, Context* context) {
    constexpr struct {
        int arch, n_sms, smem_kb;
    } known[] = {{70, 80, 96},  {75, 40, 64},   {80, 108, 163},  {86, 84, 99},
                 {89, 128, 99}, {90, 132, 227}, {100, 148, 227}, {120, 170, 99}};
    for (const auto& k : known) {
        const bool sm90 = k.arch == 90;
        if (k.arch != arch || (sm90 && !kHasSm90)) continue;
        context->device = {k.arch, k.n_sms, k.smem_kb * 1024};
        context->attention_device = {sm90, k.arch, k.smem_kb * 1024};
        return true;
    }
    return false;
}

cudaError_t find_kernels(Context* c, const cudaDeviceProp& properties) {
    int arch = 0;
    const cudaError_t e = compiled_arch(&arch);
    if (e != cudaSuccess) return e;
    const int native = properties.major * 10 + properties.minor;
    const bool sm90 = kHasSm90 && native == 90;
    const int smem_bytes = static_cast<int>(properties.sharedMemPerBlockOptin);
    c->device = {sm90 ? native : arch, properties.multiProcessorCount, smem_bytes};
    c->attention_device = {sm90, arch, smem_bytes};
    c->pdl = arch >= 90;  // older kernels do not wait for their predecessor
    return cudaSuccess;
}

void describe_gpu(const Context& c, const cudaDeviceProp& properties, char* text, size_t size) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    const int native = properties.major * 10 + properties.minor;
    size_t n = std::snprintf(text, size, "%.40s, sm_%d, %d multiprocessors, driver for CUDA %d.%d",
                             properties.name, native, c.device.n_sms, driver / 1000, driver % 1000 / 10);
    if (c.device.arch != native) n += std::snprintf(text + n, size - n, ", kernels of sm_%d", c.device.arch);
    if (!c.cublas) return;
    const size_t version = c.cublas->version();
    std::snprintf(text + n, size - n, ", cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
                  version % 100);
}

}  // namespace rvllm::cuda
