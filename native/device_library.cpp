// backend_create(): dlopen of librvllm_cuda.so, found beside this library.
//
// The library brings its own CUDA runtime and finds the driver by itself: without a driver, or with one
// that is too old, rvllm_cuda_backend_create() returns nullptr and says so.
#include "device_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace rvllm {
namespace {

using CreateFn = Backend* (*)(const BackendOptions* options, char* error, int error_size);

std::string library_path() {
    Dl_info self;
    if (dladdr(reinterpret_cast<void*>(&backend_create), &self) == 0) return "librvllm_cuda.so";
    const std::string path = self.dli_fname;
    const size_t slash = path.rfind('/');
    return (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + "librvllm_cuda.so";
}

Backend* cuda_backend_create(const BackendOptions& options, char* error, int error_size) {
    const std::string path = library_path();
    if (access(path.c_str(), F_OK) != 0) {
        std::snprintf(error, error_size, "this build has no CUDA backend");
        return nullptr;
    }
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::snprintf(error, error_size, "the CUDA backend cannot be opened (%s)", dlerror());
        return nullptr;
    }
    const auto create = reinterpret_cast<CreateFn>(dlsym(library, "rvllm_cuda_backend_create"));
    if (create == nullptr) {
        std::snprintf(error, error_size, "librvllm_cuda.so does not fit this build (%s)", dlerror());
        return nullptr;
    }
    return create(&options, error, error_size);  // never closed: kernels stay registered with the driver
}

}  // namespace

Backend* backend_create(const char* name, const BackendOptions& options, char* error, int error_size) {
    if (std::strcmp(name, "cpu") == 0) return cpu_backend_create(options);
    if (std::strcmp(name, "cuda") == 0) return cuda_backend_create(options, error, error_size);
    std::snprintf(error, error_size, "there is no backend '%s': cpu and cuda are", name);
    return nullptr;
}

}  // namespace rvllm
