// The part of cuBLASLt's C interface that is used here (its documentation: docs.nvidia.com/cuda/cublas), and
// its functions looked up at run time: nothing is linked.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace rvllm::cuda {

struct CublasLtAlgo {
    uint64_t opaque[8];
};
struct CublasLtHeuristic {
    CublasLtAlgo algo;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

// Values of its enums.
constexpr int kCudaF32 = 0, kCudaF16 = 2, kCudaBf16 = 14;
constexpr int kComputeF32 = 68;
constexpr int kDescTransA = 3;
constexpr int kOpTranspose = 1;
constexpr int kLayoutCols = 3;
constexpr int kPreferWorkspaceBytes = 1;
constexpr int kPreferAlignmentA = 5;  // then of B, C and D

struct CublasLtApi {
    using Object = void*;
    size_t (*version)();
    int (*create)(Object* handle);
    int (*destroy)(Object handle);
    int (*desc_create)(Object* desc, int compute_type, int scale_type);
    int (*desc_set)(Object desc, int attribute, const void* value, size_t bytes);
    int (*desc_destroy)(Object desc);
    int (*layout_create)(Object* layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
    int (*layout_set)(Object layout, int attribute, const void* value, size_t bytes);
    int (*layout_destroy)(Object layout);
    int (*preference_create)(Object* preference);
    int (*preference_set)(Object preference, int attribute, const void* value, size_t bytes);
    int (*preference_destroy)(Object preference);
    int (*heuristics)(Object handle, Object desc, Object a, Object b, Object c, Object d, Object preference,
                      int n_asked, CublasLtHeuristic* results, int* n_results);
    int (*check)(Object handle, Object desc, Object a, Object b, Object c, Object d, const CublasLtAlgo* algo,
                 CublasLtHeuristic* result);
    int (*matmul)(Object handle, Object desc, const void* alpha, const void* a, Object a_layout,
                  const void* b, Object b_layout, const void* beta, const void* c, Object c_layout, void* d,
                  Object d_layout, const CublasLtAlgo* algo, void* workspace, size_t workspace_bytes,
                  cudaStream_t stream);
};

// Opens the library; nullptr or what is wrong.
const char* open_cublas(const char* path, CublasLtApi* api);

}  // namespace rvllm::cuda
