// What librvllm_cuda.so tells about itself.
#define RVLLM_EXPORT extern "C" __attribute__((visibility("default")))

// Architectures with kernels, as given to CMake: "80 90a".
RVLLM_EXPORT const char* rvllm_cuda_archs() {
    return RVLLM_CUDA_ARCHS;
}
