// Products by cuBLASLt: the library opened at run time, its algorithms chosen beforehand.
#pragma once
#include <memory>
#include <vector>

#include "gemm/cublas_api.h"
#include "gemm/linear.h"

namespace rvllm::cuda {

class CublasLt {
public:
    // nullptr: `error` says why.
    static std::unique_ptr<CublasLt> open(const char* path, char* error, size_t error_size);
    ~CublasLt();

    size_t version() const { return api_.version(); }  // 130102 for 13.1.2

    // Device memory that open() allocates.
    static size_t workspace_bytes();
    // Of LinearArgs::scratch for a product of up to `max_m` rows.
    static size_t scratch_bytes(Act act, DType out, int64_t n, int64_t max_m);

    // Chooses algorithms for this product with up to args.m rows and runs each once, on the operands of
    // `args`, so that steps neither search nor load. nullptr, or what is wrong.
    const char* prepare(const LinearArgs& args, DType dtype, cudaStream_t stream);

    // y = act(x @ weight^T + bias) + residual of rows in WeightLayout::rows; the shape and the strides are
    // those of a prepare(), m at most its.
    cudaError_t run(const LinearArgs& args, DType dtype, cudaStream_t stream, bool pdl);

private:
    // A product with everything but its number of rows.
    struct Product {
        int32_t n, k;
        DType dtype, out;
        int64_t x_stride, y_stride;
        void *weight_layout = nullptr, *x_layout = nullptr, *y_layout = nullptr;
        struct Algo {
            int32_t max_m;
            CublasLtAlgo algo;
        };
        std::vector<Algo> algos;  // ascending
    };

    CublasLt() = default;
    Product* find(const LinearArgs& args, DType dtype);
    const char* choose(Product& p, int32_t first_m, int32_t last_m);
    cudaError_t multiply(Product& p, const CublasLtAlgo& algo, const LinearArgs& args, cudaStream_t stream);

    CublasLtApi api_ = {};
    void *handle_ = nullptr, *desc_ = nullptr, *preference_ = nullptr, *workspace_ = nullptr;
    std::vector<Product> products_;
};

// The end of a linear whose product another library has computed: y = act(product + bias) + residual, where
// product is [m, n] of the type of y, after silu_mul in args.scratch, else y itself.
cudaError_t finish_linear(const LinearArgs& args, DType dtype, cudaStream_t stream, bool pdl);

}  // namespace rvllm::cuda
