// CublasLt: y^T = weight x^T in its column-major terms. Bias, activation and residual are a kernel of our own
// behind the product (finish.cu), whose input is rounded as y is.
#include "gemm/cublas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace rvllm::cuda {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;
constexpr int32_t kScratchTokens = 2048;  // rows of a product that waits for its epilogue
constexpr uint32_t kAlignment = 16;       // bytes, of every operand

int cuda_type(DType t) {
    return t == DType::f32 ? kCudaF32 : t == DType::f16 ? kCudaF16 : kCudaBf16;
}

// Numbers of rows for which an algorithm is chosen; it serves down to the one before. Captured decode steps
// have theirs.
int32_t next_rows(int32_t m) {
    if (m < 8) return m * 2;
    if (m < 256) return m + 8;
    int32_t power = 256;
    while (power * 2 <= m) power *= 2;
    return m + power / 4;
}

bool finishes(const LinearArgs& a) {
    return a.bias || a.residual || a.act != Act::none;
}

bool aligned(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % kAlignment == 0;
}

}  // namespace

const char* open_cublas(const char* path, CublasLtApi* api) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return dlerror();
    const char* missing = nullptr;
    const auto look_up = [&](const char* name, auto* function) {
        *reinterpret_cast<void**>(function) = dlsym(library, name);
        if (!*function) missing = name;
    };
    look_up("cublasLtGetVersion", &api->version);
    look_up("cublasLtCreate", &api->create);
    look_up("cublasLtDestroy", &api->destroy);
    look_up("cublasLtMatmulDescCreate", &api->desc_create);
    look_up("cublasLtMatmulDescSetAttribute", &api->desc_set);
    look_up("cublasLtMatmulDescDestroy", &api->desc_destroy);
    look_up("cublasLtMatrixLayoutCreate", &api->layout_create);
    look_up("cublasLtMatrixLayoutSetAttribute", &api->layout_set);
    look_up("cublasLtMatrixLayoutDestroy", &api->layout_destroy);
    look_up("cublasLtMatmulPreferenceCreate", &api->preference_create);
    look_up("cublasLtMatmulPreferenceSetAttribute", &api->preference_set);
    look_up("cublasLtMatmulPreferenceDestroy", &api->preference_destroy);
    look_up("cublasLtMatmulAlgoGetHeuristic", &api->heuristics);
    look_up("cublasLtMatmulAlgoCheck", &api->check);
    look_up("cublasLtMatmul", &api->matmul);
    return missing;
}

std::unique_ptr<CublasLt> CublasLt::open(const char* path, char* error, size_t error_size) {
    std::unique_ptr<CublasLt> c(new CublasLt);
    if (const char* wrong = open_cublas(path, &c->api_)) {
        std::snprintf(error, error_size, "cuBLASLt is not here (%s): it comes with the extra rvllm[cublas]",
                      wrong);
        return nullptr;
    }
    const CublasLtApi& api = c->api_;
    const int transpose = kOpTranspose;
    const uint64_t workspace_bytes = kWorkspaceBytes;
    bool ok = api.create(&c->handle_) == 0 && api.desc_create(&c->desc_, kComputeF32, kCudaF32) == 0 &&
              api.desc_set(c->desc_, kDescTransA, &transpose, sizeof transpose) == 0 &&
              api.preference_create(&c->preference_) == 0 &&
              api.preference_set(c->preference_, kPreferWorkspaceBytes, &workspace_bytes,
                                 sizeof workspace_bytes) == 0;
    for (int operand = 0; operand < 4 && ok; ++operand)
        ok = api.preference_set(c->preference_, kPreferAlignmentA + operand, &kAlignment,
                                sizeof kAlignment) == 0;
    if (ok && cudaMalloc(&c->workspace_, kWorkspaceBytes) == cudaSuccess) return c;
    std::snprintf(error, error_size, "cuBLASLt %zu cannot be used with this device", api.version());
    return nullptr;
}

CublasLt::~CublasLt() {
    for (Product& p : products_)
        for (void* layout : {p.weight_layout, p.x_layout, p.y_layout})
            if (layout) api_.layout_destroy(layout);
    if (preference_) api_.preference_destroy(preference_);
    if (desc_) api_.desc_destroy(desc_);
    if (handle_) api_.destroy(handle_);
    cudaFree(workspace_);
}

size_t CublasLt::workspace_bytes() {
    return kWorkspaceBytes;
}

size_t CublasLt::scratch_bytes(Act act, DType out, int64_t n, int64_t max_m) {
    return act == Act::silu_mul ? std::min<int64_t>(max_m, kScratchTokens) * n * dtype_bytes(out) : 0;
}

CublasLt::Product* CublasLt::find(const LinearArgs& a, DType dtype) {
    for (Product& p : products_)
        if (p.n == a.n && p.k == a.k && p.dtype == dtype && p.out == a.out && p.x_stride == a.x_stride &&
            p.y_stride == a.y_stride)
            return &p;
    return nullptr;
}

// An algorithm for [first_m, last_m] rows.
const char* CublasLt::choose(Product& p, int32_t first_m, int32_t last_m) {
    constexpr int kAsked = 8;
    CublasLtHeuristic found[kAsked], checked;
    const auto set_rows = [&](uint64_t m) {
        return api_.layout_set(p.x_layout, kLayoutCols, &m, sizeof m) == 0 &&
               api_.layout_set(p.y_layout, kLayoutCols, &m, sizeof m) == 0;
    };
    int n = 0;
    if (!set_rows(last_m) || api_.heuristics(handle_, desc_, p.weight_layout, p.x_layout, p.y_layout,
                                             p.y_layout, preference_, kAsked, found, &n) != 0)
        n = 0;
    set_rows(first_m);
    for (int i = 0; i < n; ++i) {
        if (found[i].state != 0 || api_.check(handle_, desc_, p.weight_layout, p.x_layout, p.y_layout,
                                              p.y_layout, &found[i].algo, &checked) != 0)
            continue;
        p.algos.push_back({last_m, found[i].algo});
        return nullptr;
    }
    return "cuBLASLt has no algorithm for a product of the model";
}

const char* CublasLt::prepare(const LinearArgs& args, DType dtype, cudaStream_t stream) {
    LinearArgs a = args;
    if (a.act == Act::silu_mul) {
        a.y = a.scratch;
        a.y_stride = a.n;
        a.m = std::min(a.m, kScratchTokens);
    }
    Product* p = find(a, dtype);
    if (!p) {
        products_.push_back({a.n, a.k, dtype, a.out, a.x_stride, a.y_stride, nullptr, nullptr, nullptr, {}});
        p = &products_.back();
        if (api_.layout_create(&p->weight_layout, cuda_type(dtype), a.k, a.n, a.k) != 0 ||
            api_.layout_create(&p->x_layout, cuda_type(dtype), a.k, 1, a.x_stride) != 0 ||
            api_.layout_create(&p->y_layout, cuda_type(a.out), a.n, 1, a.y_stride) != 0)
            return "cuBLASLt refused a product of the model";
    }
    const int32_t max_m = a.m;
    for (int32_t last = p->algos.empty() ? 0 : p->algos.back().max_m; last < max_m;) {
        const int32_t first = last + 1;
        last = last == 0 ? 1 : std::min(next_rows(last), max_m);
        if (const char* wrong = choose(*p, first, last)) return wrong;
        const CublasLtAlgo& algo = p->algos.back().algo;
        const auto same = [&](const Product::Algo& known) {
            return std::memcmp(&known.algo, &algo, sizeof algo) == 0;
        };
        if (std::any_of(p->algos.begin(), p->algos.end() - 1, same)) continue;
        a.m = last;
        if (multiply(*p, algo, a, stream) != cudaSuccess) return "cuBLASLt cannot run a product of the model";
    }
    return nullptr;
}

cudaError_t CublasLt::multiply(Product& p, const CublasLtAlgo& algo, const LinearArgs& a,
                               cudaStream_t stream) {
    const float one = 1, zero = 0;
    const uint64_t m = a.m;
    if (!aligned(a.weight) || !aligned(a.x) || !aligned(a.y)) return cudaErrorInvalidValue;
    if (api_.layout_set(p.x_layout, kLayoutCols, &m, sizeof m) != 0 ||
        api_.layout_set(p.y_layout, kLayoutCols, &m, sizeof m) != 0)
        return cudaErrorInvalidValue;
    const int status =
        api_.matmul(handle_, desc_, &one, a.weight, p.weight_layout, a.x, p.x_layout, &zero, a.y, p.y_layout,
                    a.y, p.y_layout, &algo, workspace_, kWorkspaceBytes, stream);
    return status == 0 ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t CublasLt::run(const LinearArgs& args, DType dtype, cudaStream_t stream, bool pdl) {
    const int32_t most = args.act == Act::silu_mul ? kScratchTokens : args.m;
    for (int32_t first = 0; first < args.m; first += most) {
        const LinearArgs part = row_slice(args, first, std::min(args.m - first, most));
        LinearArgs product = part;
        if (part.act == Act::silu_mul) {
            product.y = part.scratch;
            product.y_stride = part.n;
        }
        Product* p = find(product, dtype);
        if (!p || p->algos.back().max_m < part.m) return cudaErrorInvalidValue;
        const auto algo = std::lower_bound(p->algos.begin(), p->algos.end(), part.m,
                                           [](const auto& a, int32_t m) { return a.max_m < m; });
        cudaError_t e = multiply(*p, algo->algo, product, stream);
        if (e == cudaSuccess && finishes(part)) e = finish_linear(part, dtype, stream, pdl);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

}  // namespace rvllm::cuda
