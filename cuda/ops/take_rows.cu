// take_rows: y[R] = x[rows[R]].
#include "ops/launch.cuh"

namespace rvllm::cuda {
namespace {

template <typename T, int N>
__global__ void take_rows_kernel(Rows<const T> x, const int32_t* __restrict__ from, Rows<T> y, int cols) {
    pdl_launch_dependents();
    pdl_wait();
    const T* row = x.row(from[blockIdx.x]);
    T* to = y.row(blockIdx.x);
    for (int c = threadIdx.x * N; c < cols; c += blockDim.x * N)
        store_vec<T, N>(to + c, load_vec<T, N>(row + c));
}

void run(const OpCall& call, const RunContext& ctx) {
    const Operand &x = call.in[0], &y = call.out[0];
    const bool wide = aligned(8, x, y);
    launch(call, ctx, wide ? take_rows_kernel<uint16_t, 8> : take_rows_kernel<uint16_t, 1>,
           dim3(rows_of(y, *ctx.step)), 128, 0, rows<const uint16_t>(x),
           static_cast<const int32_t*>(call.in[1].data), rows<uint16_t>(y), y.cols);
}

}  // namespace

Kernel find_take_rows(const KernelKey& key) {
    return same_half(key) ? Kernel{run, "take_rows"} : Kernel{};
}

}  // namespace rvllm::cuda
