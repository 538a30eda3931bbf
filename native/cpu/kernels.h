// The CPU kernels: one find function per op of ops.def, and what their files share.
#pragma once
#include "backend.h"
#include "cpu/isa.h"
#include "cpu/pool.h"

namespace rvllm {

#define OP(name, inputs, weights, outputs, attrs) Kernel cpu_find_##name(const KernelKey& key);
#include "ops.def"
#undef OP

// Kernels that others are composed of.
void run_linear(const OpCall& call, const RunContext& ctx);
void run_rope_kv_write(const OpCall& call, const RunContext& ctx);

// Bytes of the pool's scratch that an attention op takes in any step within the limits.
size_t attention_workspace_bytes(const Attrs& attrs, const StepLimits& limits, int block_size, int n_threads);

// Names of one kernel for each instruction set of this machine's family.
struct KernelNames {
    const char* of[3];
    const char* best() const { return of[isa() >= Isa::avx512 ? 2 : static_cast<int>(isa())]; }
};
#define KERNEL_NAMES(stem) \
    KernelNames { { stem ".generic", stem ".avx2", stem ".avx512" } }

inline ThreadPool* pool_of(const RunContext& ctx) {
    return static_cast<ThreadPool*>(ctx.device);
}

inline float* row_of(const Operand& o, int64_t row) {
    return static_cast<float*>(o.data) + row * o.row_stride;
}

// Calls f(begin, end) for consecutive ranges of [0, n). `cost` is the work of one index in floats
// moved; little work stays on the calling thread. Results must not depend on the ranges.
template <class F>
void for_ranges(const RunContext& ctx, int64_t n, int64_t cost, const F& f) {
    constexpr int64_t kPart = 8192;  // floats: about a microsecond, what waking a spinning worker costs
    ThreadPool* pool = pool_of(ctx);
    const int64_t step = cost >= kPart ? 1 : (kPart + cost - 1) / (cost > 0 ? cost : 1);
    if (n <= step || n * cost < 2 * kPart || pool_threads(pool) == 1) {
        if (n > 0) f(int64_t{0}, n);
        return;
    }
    parallel_for(pool, (n + step - 1) / step, [&](int64_t i, int) {
        const int64_t begin = i * step;
        f(begin, begin + step < n ? begin + step : n);
    });
}

}  // namespace rvllm
