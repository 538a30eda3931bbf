// Weights of the backend: resident sizes, uploads through pinned memory, random weights.
#pragma once
#include "context.h"

namespace rvllm::cuda {

// Two pinned buffers and their copies on the device: one is filled while the other travels and is packed.
struct Upload {
    char* pinned[2] = {};
    char* device[2] = {};
    cudaEvent_t packed[2] = {};
    int slot = 0;
};

size_t upload_bytes();  // device memory of an Upload
void destroy_upload(Upload& upload);

size_t resident_bytes(const Context& c, const Weight& w);
cudaError_t upload_rows(Context& c, Upload& upload, Weight& w, const void* src, DType src_dtype, int64_t row,
                        int64_t n_rows);
cudaError_t download_rows(Context& c, Upload& upload, const Weight& w, float* dst, int64_t row,
                          int64_t n_rows);
cudaError_t random_rows(Context& c, Upload& upload, Weight& w, uint32_t seed, float scale);

}  // namespace rvllm::cuda
