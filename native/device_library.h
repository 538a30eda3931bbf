// Backends by name. The CPU is part of this library; CUDA is librvllm_cuda.so beside it, opened when asked
// for.
#pragma once
#include "backend.h"

namespace rvllm {

// "cpu" or "cuda". nullptr: there is none, and `error` has a sentence saying why. Ended by its destroy().
Backend* backend_create(const char* name, const BackendOptions& options, char* error, int error_size);

}  // namespace rvllm
