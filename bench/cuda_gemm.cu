// Checks and times the linear kernels of the CUDA backend on this machine's GPU.
//
//   cuda_gemm --check          every kernel, type and epilogue against a float64 product
//   cuda_gemm --check-small    a few of them, for compute-sanitizer
//   cuda_gemm [--json]         decode steps (113 linears of a 7B model in one graph) and prefill
//   cuda_gemm --arch N ...     with the kernels that are chosen on sm_N, of those that were compiled
//
// Build with -DRVLLM_CUDA=ON -DRVLLM_CUDA_BENCH=ON.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "device/convert.cuh"
#include "gemm/linear.h"
#include "gemm/pack.h"
#include "gpu.h"

using namespace rvllm;
using namespace rvllm::cuda;

#define CHECK(call)                                                                            \
    do {                                                                                       \
        const cudaError_t e_ = (call);                                                         \
        if (e_ != cudaSuccess) {                                                               \
            std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_)); \
            std::exit(1);                                                                      \
        }                                                                                      \
    } while (0)

namespace {

Context context;
Device& device = context.device;
cudaStream_t stream;
void* workspace;
uint32_t seed = 1;
int n_failed = 0, n_checked = 0;

template <typename T>
struct Buffer {
    explicit Buffer(size_t n) : size(n) { CHECK(cudaMalloc(&data, n * sizeof(T) + 256)); }
    ~Buffer() { cudaFree(data); }
    Buffer(const Buffer&) = delete;
    void poison() { CHECK(cudaMemset(data, 0xff, size * sizeof(T) + 256)); }  // NaN, guard included
    std::vector<T> host() const {
        std::vector<T> h(size);
        CHECK(cudaMemcpy(h.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
        return h;
    }
    bool guard_intact() const {
        unsigned char g[256];
        CHECK(cudaMemcpy(g, data + size, 256, cudaMemcpyDeviceToHost));
        return std::all_of(g, g + 256, [](unsigned char c) { return c == 0xff; });
    }
    T* data = nullptr;
    size_t size;
};

__device__ uint32_t mix(uint32_t h) {
    h = (h ^ h >> 16) * 0x85ebca6b;
    h = (h ^ h >> 13) * 0xc2b2ae35;
    return h ^ h >> 16;
}

template <typename T>
__global__ void random_kernel(T* p, size_t n, uint32_t seed, float scale) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float v = 0;  // near normal
        for (int j = 0; j < 4; ++j)
            v += (mix((uint32_t)i * 2654435761u + seed * 40503u + j * 977u) & 0xffff) / 65536.f - 0.5f;
        p[i] = from_float<T>(v * scale);
    }
}

template <typename T>
void randomize(Buffer<T>& b, float scale) {
    random_kernel<<<1024, 256>>>(b.data, b.size, ++seed, scale);
    CHECK(cudaDeviceSynchronize());
}

// out[m, n] = x @ w^T in float64, one warp per element.
template <typename T>
__global__ void reference_kernel(const T* x, const T* w, double* out, int m, int n, int k) {
    const int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 32;
    if (i >= (int64_t)m * n) return;
    double s = 0;
    for (int c = threadIdx.x % 32; c < k; c += 32)
        s += (double)to_float(x[i / n * k + c]) * (double)to_float(w[i % n * k + c]);
    for (int o = 16; o; o /= 2) s += __shfl_xor_sync(~0u, s, o);
    if (threadIdx.x % 32 == 0) out[i] = s;
}

struct Case {
    int n, k;
    bool bias = false, residual = false, silu = false, f32 = false,
         ragged = false;  // ragged: odd row stride of y
};

template <typename T>
constexpr DType dtype_of() {
    return sizeof(T) == 4 ? DType::f32 : std::is_same<T, __half>::value ? DType::f16 : DType::bf16;
}

// A weight with everything that is derived from it.
template <typename T>
struct Problem {
    Problem(const Case& c, int max_m)
        : c(c),
          out_n(c.silu ? c.n / 2 : c.n),
          w((size_t)c.n * c.k),
          x((size_t)max_m * c.k),
          packed(packed_bytes(WeightLayout::tiles, c.n, c.k)),
          bias(c.n),
          residual((size_t)max_m * out_n),
          ref((size_t)max_m * c.n) {
        randomize(w, 1.f / std::sqrt((float)c.k));
        randomize(x, 1.f);
        randomize(bias, 1.f);
        randomize(residual, 1.f);
        CHECK(cudaMemset(packed.data, 0, packed.size));
        weight = {packed.data,        c.n, c.k, dtype_of<T>(), c.silu ? RowOrder::gate_up : RowOrder::plain,
                  WeightLayout::tiles};
        const int cut = c.n / 3;  // two calls, as for merged projections
        CHECK(pack_linear(weight, w.data, dtype_of<T>(), 0, cut, stream));
        CHECK(pack_linear(weight, w.data + (size_t)cut * c.k, dtype_of<T>(), cut, c.n - cut, stream));
        const int64_t elements = (int64_t)max_m * c.n;
        reference_kernel<<<(unsigned)((elements * 32 + 255) / 256), 256>>>(x.data, w.data, ref.data, max_m,
                                                                           c.n, c.k);
        CHECK(cudaDeviceSynchronize());
    }

    // The expected y of `m` rows, row-major [m, out_n].
    std::vector<double> expected(int m) const {
        const std::vector<double> r = ref.host();
        const std::vector<float> b = bias.host();
        const std::vector<T> add = residual.host();
        std::vector<double> y((size_t)m * out_n);
        auto at = [&](int i, int j) { return r[(size_t)i * c.n + j] + (c.bias ? b[j] : 0); };
        for (int i = 0; i < m; ++i)
            for (int j = 0; j < out_n; ++j) {
                double v = at(i, j);
                if (c.silu) v = v / (1 + std::exp(-v)) * at(i, j + out_n);
                if (c.residual) v += (double)static_cast<float>(add[(size_t)i * out_n + j]);
                y[(size_t)i * out_n + j] = v;
            }
        return y;
    }

    // Runs rows [first, first + m); returns them as row-major float.
    std::vector<float> run(const LinearDesc& desc, int first, int m, bool* guard) {
        const int stride = c.ragged ? out_n + 3 : out_n;
        Buffer<uint8_t> y((size_t)m * stride * (c.f32 ? 4 : 2));
        y.poison();
        LinearArgs a;
        a.weight = packed.data;
        a.x = x.data + (size_t)first * c.k;
        a.bias = c.bias ? bias.data : nullptr;
        a.residual = c.residual ? residual.data + (size_t)first * out_n : nullptr;
        a.y = y.data;
        a.x_stride = c.k;
        a.residual_stride = out_n;
        a.y_stride = stride;
        a.m = m;
        a.n = c.n;
        a.k = c.k;
        a.act = c.silu ? Act::silu_mul : Act::none;
        a.out = c.f32 ? DType::f32 : dtype_of<T>();
        CHECK(launch_linear(desc, a, workspace, stream, context.pdl));
        CHECK(cudaStreamSynchronize(stream));
        *guard = y.guard_intact();
        const std::vector<uint8_t> raw = y.host();
        std::vector<float> out((size_t)m * out_n);
        for (int i = 0; i < m; ++i) {
            for (int j = 0; j < stride; ++j) {
                const size_t at = (size_t)i * stride + j;
                const float v = c.f32 ? reinterpret_cast<const float*>(raw.data())[at]
                                      : static_cast<float>(reinterpret_cast<const T*>(raw.data())[at]);
                if (j < out_n)
                    out[(size_t)i * out_n + j] = v;
                else if (!std::isnan(v))
                    *guard = false;
            }
        }
        return out;
    }

    Case c;
    int out_n;
    Buffer<T> w, x;
    Buffer<uint8_t> packed;
    Buffer<float> bias;
    Buffer<T> residual;
    Buffer<double> ref;
    PackedWeight weight;
};

void report(bool ok, const Case& c, int m, const LinearDesc& d, DType t, const char* what) {
    ++n_checked;
    if (ok) return;
    ++n_failed;
    std::printf(
        "FAILED %s: %s %s m %d n %d k %d tokens %d split %d sharing %d bias %d residual %d silu %d f32 %d\n",
        what, kernel_name(d.kernel), t == DType::f16 ? "f16" : "bf16", m, c.n, c.k, d.tokens, d.split,
        d.sharing, c.bias, c.residual, c.silu, c.f32);
}

// Every tile of linear_large_kernel, with the rest in as many parts as there are clusters for, or fewer.
std::vector<LinearDesc> large_descs(const Case& c, int m, DType dtype) {
    std::vector<LinearDesc> descs;
    LinearDesc d;
    d.kernel = LinearKernel::large;
    d.dtype = dtype;
    d.slice = m;
    d.sharing = 2;
    d.trigger = 8;
    const int64_t max_clusters = device.n_sms / d.sharing;
    for (int tokens : {128, 192, 256})
        for (int split = 1; split <= 4; ++split) {
            const int64_t n_tiles = ceil_div(row_blocks(c.n), d.sharing) * ceil_div(m, tokens);
            const int64_t rest = n_tiles % max_clusters;
            if (split > 1 && (!rest || rest * split > max_clusters || split > k_chunks(c.k))) continue;
            d.tokens = (int16_t)tokens;
            d.n_stages = tokens == 128 ? 6 : 4;
            d.split = (int16_t)split;
            d.n_ctas = (int16_t)(d.sharing * std::min(max_clusters, n_tiles * split));
            descs.push_back(d);
        }
    return descs;
}

// linear_tile_kernel with tiles of every size, whole and cut.
std::vector<LinearDesc> tile_descs(const Case& c, int m, DType dtype) {
    std::vector<LinearDesc> descs;
    LinearDesc d;
    d.kernel = LinearKernel::tile;
    d.dtype = dtype;
    d.slice = m;
    for (int tokens : {8, 16, 32, 64, 128, 256})
        for (int split : {1, 2}) {
            const bool deep = split > 1 && tokens <= 32;
            const int n_stages = device.arch < 80 ? 2 : deep ? kTileDeepStages : tile_stages(tokens);
            if (n_stages * (kTileBytes + tokens * 128) > device.smem_bytes) continue;
            const int64_t n_tiles = row_blocks(c.n) * ceil_div(m, tokens);
            d.tokens = (int16_t)tokens;
            d.n_stages = (int16_t)n_stages;
            d.split = (int16_t)split;
            d.n_ctas = (int16_t)std::min(n_tiles * (split > 1 ? k_chunks(c.k) : 1), (int64_t)device.n_sms);
            descs.push_back(d);
        }
    return descs;
}

template <typename T>
void check_case(const Case& c, const std::vector<int>& ms, bool forced) {
    const int max_m = *std::max_element(ms.begin(), ms.end());
    Problem<T> problem(c, max_m);
    const std::vector<double> want = problem.expected(max_m);
    const double unit = c.f32                            ? 2e-6
                        : std::is_same<T, __half>::value ? 1e-3
                                                         : 8e-3;  // of rounding, with room
    for (int m : ms) {
        std::vector<LinearDesc> descs = {choose_linear(device, {m, c.n, c.k, dtype_of<T>()})};
        if (forced) {
            descs.push_back(
                choose_linear({80, device.n_sms, device.smem_bytes}, {m, c.n, c.k, dtype_of<T>()}));
            descs.push_back(choose_linear(device, {m, c.n, c.k, dtype_of<T>(), true}));
        }
        if (forced && device.arch == 90 && (m == 130 || m == 257))
            for (const LinearDesc& d : large_descs(c, m, dtype_of<T>())) descs.push_back(d);
        if (forced && (m == 9 || m == 130))
            for (const LinearDesc& d : tile_descs(c, m, dtype_of<T>())) descs.push_back(d);
        for (const LinearDesc& d : descs) {
            bool guard;
            const std::vector<float> got = problem.run(d, 0, m, &guard);
            bool ok = guard;
            for (size_t i = 0; i < got.size(); ++i)
                ok = ok && std::abs(got[i] - want[i]) <= unit * (1 + std::abs(want[i]));
            report(ok, c, m, d, dtype_of<T>(), "value");
            report(problem.run(d, 0, m, &guard) == got, c, m, d, dtype_of<T>(), "same bits again");
        }
    }
}

// A row alone gives the bits it has in any batch.
template <typename T>
void check_invariance(const Case& c, const std::vector<int>& ms, bool batch_invariant) {
    const int max_m = *std::max_element(ms.begin(), ms.end());
    Problem<T> problem(c, max_m);
    bool guard;
    auto choose = [&](int m) { return choose_linear(device, {m, c.n, c.k, dtype_of<T>(), batch_invariant}); };
    for (int m : ms) {
        const std::vector<float> all = problem.run(choose(m), 0, m, &guard);
        for (int row : {0, m / 2, m - 1}) {
            const std::vector<float> one = problem.run(choose(1), row, 1, &guard);
            report(std::equal(one.begin(), one.end(), all.begin() + (size_t)row * problem.out_n), c, m,
                   choose(m), dtype_of<T>(), "row alone");
        }
    }
}

template <typename T>
void check_pack(const Case& c) {
    Problem<T> p(c, 1);
    Buffer<float> back((size_t)c.n * c.k);
    back.poison();
    CHECK(unpack_linear(p.weight, back.data, 0, c.n, stream));
    CHECK(cudaStreamSynchronize(stream));
    const std::vector<T> w = p.w.host();
    const std::vector<float> b = back.host();
    bool ok = back.guard_intact();
    for (size_t i = 0; i < b.size(); ++i) ok = ok && b[i] == static_cast<float>(w[i]);
    const std::vector<int32_t> ids = {c.n - 1, 0, c.n / 2, -1, c.n};
    Buffer<int32_t> dev_ids(ids.size());
    Buffer<T> y(ids.size() * c.k);
    y.poison();
    CHECK(cudaMemcpy(dev_ids.data, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
    CHECK(embed_packed(p.weight, dev_ids.data, ids.size(), y.data, c.k, dtype_of<T>(), stream, false));
    CHECK(cudaStreamSynchronize(stream));
    const std::vector<T> rows = y.host();
    ok = ok && y.guard_intact();
    for (size_t i = 0; i < ids.size(); ++i)
        for (int j = 0; j < c.k; ++j) {
            const bool inside = ids[i] >= 0 && ids[i] < c.n;
            ok = ok && static_cast<float>(rows[i * c.k + j]) ==
                           (inside ? static_cast<float>(w[(size_t)ids[i] * c.k + j]) : 0);
        }
    report(ok, c, 0, LinearDesc(), dtype_of<T>(), "pack, unpack, embed");
}

template <typename T>
void check_small() {
    for (const Case& c : {Case{1000, 200, true, true}, Case{640, 512, true, false, true},
                          Case{17000, 72, true, false, false, false, true}})
        check_case<T>(c, {1, 9, 65, 130, 300}, true);
    check_pack<T>({352, 200, false, false, true});
}

template <typename T>
void check_all() {
    const std::vector<int> few = {1, 3, 8, 9, 17, 40, 64, 65, 129, 250, 257, 600};
    for (const Case& c :
         {Case{128, 64}, Case{5, 72, true}, Case{1000, 200, true, true},
          Case{1000, 200, true, true, false, true}, Case{2050, 328, true, true, false, false, true},
          Case{4608, 512, true}, Case{3584, 1024, false, true}, Case{640, 1024, true, false, true},
          Case{20000, 136, true, true}, Case{20000, 136, true, false, true},
          Case{18944, 256, true, true, true}, Case{37888, 192, false, false, true},
          Case{33000, 128, false, false, false, true}})
        check_case<T>(c, few, true);
    check_case<T>({3584, 4096, true, true}, {1, 32, 200, 1024}, false);
    for (const Case& c : {Case{4608, 3584, true}, Case{18944, 1024, false, false, true}, Case{20000, 136},
                          Case{3584, 4736, false, true}}) {
        check_invariance<T>(c, {2, 9, 33, 64}, false);
        check_invariance<T>(c, {33, 100, 128, 256, 300, 700}, true);
    }
    for (const Case& c : {Case{130, 72}, Case{1000, 328}, Case{352, 200, false, false, true}})
        check_pack<T>(c);
}

// Median microseconds of a graph that `record` fills.
double graph_us(const std::function<void()>& record, int repeats) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    record();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    std::vector<double> us;
    for (int i = 0; i < repeats + 3; ++i) {
        CHECK(cudaEventRecord(start, stream));
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaEventRecord(stop, stream));
        CHECK(cudaEventSynchronize(stop));
        float ms;
        CHECK(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 3) us.push_back(ms * 1000.0);
    }
    std::sort(us.begin(), us.end());
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    return us[us.size() / 2];
}

// The linears of Qwen2.5-7B: 28 layers of four, and the LM head.
struct Linear {
    const char* name;
    int n, k;
};
constexpr int kLayers = 28, kMaxM = 16384;
constexpr Linear kLinears[5] = {{"qkv", 4608, 3584},
                                {"o", 3584, 3584},
                                {"gate_up", 37888, 3584},
                                {"down", 3584, 18944},
                                {"lm_head", 152064, 3584}};

template <typename T>
struct Model {
    Model() : x((size_t)kMaxM * 18944), y((size_t)kMaxM * 37888) {
        randomize(x, 1.f);
        for (int layer = 0; layer < kLayers; ++layer)
            for (int i = 0; i < 4; ++i) weights.push_back(make(i));
        weights.push_back(make(4));
    }
    T* make(int i) {
        T* w;
        const size_t n = packed_bytes(WeightLayout::tiles, kLinears[i].n, kLinears[i].k) / 2;
        CHECK(cudaMalloc(&w, n * 2));
        random_kernel<<<1024, 256>>>(w, n, ++seed, 0.02f);
        CHECK(cudaDeviceSynchronize());
        return w;
    }
    void launch(int i, int layer, int m) {
        const Linear& l = kLinears[i];
        const LinearDesc desc = choose_linear(device, {m, l.n, l.k, dtype_of<T>()});
        LinearArgs a;
        a.weight = weights[i == 4 ? kLayers * 4 : layer * 4 + i];
        a.x = x.data;
        a.y = y.data;
        a.act = i == 2 ? Act::silu_mul : Act::none;
        a.out = i == 4 && m <= 256 ? DType::f32 : dtype_of<T>();
        a.x_stride = l.k;
        a.y_stride = i == 2 ? l.n / 2 : l.n;
        a.m = m;
        a.n = l.n;
        a.k = l.k;
        CHECK(launch_linear(desc, a, workspace, stream, context.pdl));
    }
    Buffer<T> x, y;
    std::vector<T*> weights;
};

template <typename T>
void time_all(bool json) {
    Model<T> model;
    cudaDeviceProp prop;
    CHECK(cudaGetDeviceProperties(&prop, 0));
    auto row = [&](const std::string& name, double us, double bytes, double flop) {
        if (json) {
            std::printf(
                "{\"name\": \"%s\", \"unit\": \"us\", \"ours\": %.2f, \"peer\": null, \"peer_value\": null, "
                "\"ratio\": null, \"machine\": \"%s\", \"command\": \"cuda_gemm --json\"}\n",
                name.c_str(), us, prop.name);
        } else {
            std::printf("%-24s %10.2f us %8.2f TB/s %8.0f TFLOP/s\n", name.c_str(), us, bytes / us / 1e6,
                        flop / us / 1e6);
        }
        std::fflush(stdout);
    };
    for (int m : {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384}) {
        const bool decode = m <= 256;
        const std::string suffix = " M=" + std::to_string(m);
        double bytes = 0, flop = 0;
        for (int i = 0; i < (decode ? 5 : 4); ++i) {
            const Linear& l = kLinears[i];
            const int count = i == 4 ? 1 : m > 4096 ? 4 : kLayers;
            const double us = graph_us(
                                  [&] {
                                      for (int j = 0; j < count; ++j) model.launch(i, j, m);
                                  },
                                  7) /
                              count;
            const double b = 2.0 * l.n * l.k, f = b * m;
            row(l.name + suffix, us, b, f);
            bytes += b * (i == 4 ? 1 : kLayers);
            flop += f * (i == 4 ? 1 : kLayers);
        }
        const double us = graph_us(
            [&] {
                for (int j = 0; j < kLayers; ++j)
                    for (int i = 0; i < 4; ++i) model.launch(i, j, m);
                if (decode) model.launch(4, 0, m);
            },
            m > 4096 ? 1 : 9);
        row("all" + suffix, us, bytes, flop);
    }
}

}  // namespace

int main(int argc, char** argv) {
    bool check = false, small = false, json = false;
    int arch = 0;
    for (int i = 1; i < argc; ++i) {
        if (!std::strcmp(argv[i], "--check"))
            check = true;
        else if (!std::strcmp(argv[i], "--check-small"))
            small = true;
        else if (!std::strcmp(argv[i], "--json"))
            json = true;
        else if (!std::strcmp(argv[i], "--arch") && i + 1 < argc)
            arch = std::atoi(argv[++i]);
        else
            return std::printf("usage: cuda_gemm [--check | --check-small] [--arch N] [--json]\n"), 2;
    }
    cudaDeviceProp prop;
    CHECK(cudaGetDeviceProperties(&prop, 0));
    CHECK(find_kernels(&context, prop));
    if (arch) device.arch = arch;
    CHECK(cudaStreamCreate(&stream));
    Device older = device;  // whose kernel is checked too
    older.arch = 80;
    const size_t workspace_bytes = std::max(linear_workspace_bytes(device), linear_workspace_bytes(older));
    CHECK(cudaMalloc(&workspace, workspace_bytes));
    CHECK(cudaMemset(workspace, 0, workspace_bytes));
    if (check || small) {
        check ? check_all<__half>() : check_small<__half>();
        if (device.arch >= 80) check ? check_all<__nv_bfloat16>() : check_small<__nv_bfloat16>();
        std::printf("%d checks, %d failed\n", n_checked, n_failed);
        return n_failed != 0;
    }
    device.arch >= 80 ? time_all<__nv_bfloat16>(json) : time_all<__half>(json);
    return 0;
}
