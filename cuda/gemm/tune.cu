// tune_linear: launches of every way, in a graph that goes around over copies of the weight so that none is
// in L2, alternating; medians. The best is measured once more against the built-in choice, so that luck does
// not win.
#include "gemm/tune.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "device/convert.cuh"
#include "gemm/cublas.h"

namespace rvllm::cuda {
namespace {

constexpr double kGain = 0.98;  // of the built-in time, over all measured rows
constexpr double kLoss = 1.01;  // at most, at any of them
constexpr size_t kColdBytes = 256 << 20;
constexpr int kRounds = 5, kConfirmingRounds = 11;
constexpr double kGraphUs = 300;

// Values between -1 and 1 whose bits differ as those of weights do.
template <typename T>
__global__ void fill_kernel(uint16_t* p, size_t n) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)(i * 2654435761u) ^ (uint32_t)(i >> 21);
        h = (h ^ h >> 15) * 0x85ebca6bu;
        const T value = from_float<T>((int)(h >> 8) * (1.f / (1 << 23)) - 1.f);
        p[i] = *reinterpret_cast<const uint16_t*>(&value);
    }
}

struct Memory {
    char* data = nullptr;
    ~Memory() { cudaFree(data); }
    cudaError_t alloc(size_t bytes) { return cudaMalloc(reinterpret_cast<void**>(&data), bytes + 256); }
};

class Bench {
public:
    Bench(Context& c, const LinearShape& s, Op op, DType out) : c_(c), s_(s) {
        args_.act = op == Op::linear_silu_mul ? Act::silu_mul : Act::none;
        args_.n = s.n;
        args_.k = s.k;
        args_.m = s.m;
        args_.layout = c.layout();
        args_.out = out;
        args_.x_stride = s.k;
        args_.y_stride = args_.act == Act::silu_mul ? s.n / 2 : s.n;
    }
    ~Bench() {
        for (cudaEvent_t e : {start_, stop_})
            if (e) cudaEventDestroy(e);
    }

    cudaError_t allocate() {
        weight_bytes_ = packed_bytes(c_.layout(), s_.n, s_.k);
        n_copies_ = (int)std::clamp<size_t>(kColdBytes / weight_bytes_ + 1, 2, 64);
        const size_t x_bytes = (size_t)s_.m * s_.k * 2, y_bytes = (size_t)s_.m * args_.y_stride * 4,
                     scratch = c_.cublas ? CublasLt::scratch_bytes(args_.act, args_.out, s_.n, s_.m) : 0;
        cudaError_t e = weights_.alloc(weight_bytes_ * n_copies_);
        if (e == cudaSuccess) e = x_.alloc(x_bytes);
        if (e == cudaSuccess) e = y_.alloc(y_bytes);
        if (e == cudaSuccess) e = scratch_.alloc(scratch);
        if (e == cudaSuccess) e = cudaEventCreate(&start_);
        if (e == cudaSuccess) e = cudaEventCreate(&stop_);
        if (e != cudaSuccess) return e;
        fill(weights_.data, weight_bytes_ * n_copies_ / 2);
        fill(x_.data, x_bytes / 2);
        args_.weight = weights_.data;
        args_.x = x_.data;
        args_.y = y_.data;
        args_.scratch = scratch_.data;
        if (c_.cublas && c_.cublas->prepare(args_, s_.dtype, c_.stream)) return cudaErrorNotSupported;
        return cudaGetLastError();
    }

    // Median microseconds of each description for m rows.
    cudaError_t time(const std::vector<LinearDesc>& descs, int32_t m, int n_rounds, std::vector<double>* us) {
        std::vector<cudaGraphExec_t> graphs(descs.size());
        std::vector<std::vector<double>> times(descs.size());
        const double flop = 2.0 * m * s_.n * s_.k, least_us = std::max(weight_bytes_ / 4e6, flop / 6e8);
        const int n_launches = (int)std::clamp(kGraphUs / least_us, 2.0, 64.0);
        cudaError_t e = cudaSuccess;
        for (size_t i = 0; i < descs.size() && e == cudaSuccess; ++i)
            e = record(descs[i], m, n_launches, &graphs[i]);
        for (int round = -1; round < n_rounds; ++round)
            for (size_t i = 0; i < descs.size() && e == cudaSuccess; ++i) {
                float ms = 0;
                e = cudaEventRecord(start_, c_.stream);
                if (e == cudaSuccess) e = cudaGraphLaunch(graphs[i], c_.stream);
                if (e == cudaSuccess) e = cudaEventRecord(stop_, c_.stream);
                if (e == cudaSuccess) e = cudaEventSynchronize(stop_);
                if (e == cudaSuccess) e = cudaEventElapsedTime(&ms, start_, stop_);
                if (round >= 0) times[i].push_back(ms * 1e3 / n_launches);
            }
        for (cudaGraphExec_t g : graphs)
            if (g) cudaGraphExecDestroy(g);
        if (e != cudaSuccess) return e;
        us->clear();
        for (auto& t : times) {
            std::nth_element(t.begin(), t.begin() + t.size() / 2, t.end());
            us->push_back(t[t.size() / 2]);
        }
        return cudaSuccess;
    }

private:
    void fill(char* p, size_t n) {
        auto* bits = reinterpret_cast<uint16_t*>(p);
        s_.dtype == DType::f16 ? fill_kernel<__half><<<1024, 256, 0, c_.stream>>>(bits, n)
                               : fill_kernel<__nv_bfloat16><<<1024, 256, 0, c_.stream>>>(bits, n);
    }

    cudaError_t record(const LinearDesc& desc, int32_t m, int n_launches, cudaGraphExec_t* exec) {
        cudaGraph_t graph = nullptr;
        cudaError_t launched = cudaSuccess,
                    e = cudaStreamBeginCapture(c_.stream, cudaStreamCaptureModeRelaxed);
        if (e != cudaSuccess) return e;
        for (int i = 0; i < n_launches && launched == cudaSuccess; ++i) {
            LinearArgs args = args_;
            args.m = m;
            args.weight = weights_.data + (next_++ % n_copies_) * weight_bytes_;
            launched = desc.kernel == LinearKernel::cublas
                           ? c_.cublas->run(args, s_.dtype, c_.stream, c_.pdl)
                           : launch_linear(desc, args, c_.linear_workspace, c_.stream, c_.pdl);
        }
        e = cudaStreamEndCapture(c_.stream, &graph);
        if (launched != cudaSuccess) e = launched;
        if (e == cudaSuccess) e = cudaGraphInstantiate(exec, graph, 0);
        if (graph) cudaGraphDestroy(graph);
        return e;
    }

    Context& c_;
    const LinearShape s_;
    LinearArgs args_;
    Memory weights_, x_, y_, scratch_;
    size_t weight_bytes_ = 0;
    int n_copies_ = 0, next_ = 0;
    cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

// Rows of a range to measure, none above `most`.
std::vector<int32_t> measured_rows(RowRange range, int32_t most) {
    std::vector<int32_t> rows;
    if (range.first == 1) {
        for (int32_t m = range.last; m >= 8; m /= 2) rows.push_back(m);
        rows.push_back(1);
    } else {  // captured decode steps are multiples of 8
        rows = {range.first + 7, (range.first + range.last) / 16 * 8, range.last};
    }
    rows.erase(std::remove_if(rows.begin(), rows.end(), [&](int32_t m) { return m > most; }), rows.end());
    return rows;
}

// Times of way i over those of the built-in choice, which is the first: the mean and the largest.
struct Ratio {
    double log_sum = 0, worst = 0;
    void add(double us, double built_in_us) {
        log_sum += std::log(us / built_in_us);
        worst = std::max(worst, us / built_in_us);
    }
    double mean(size_t n) const { return std::exp(log_sum / n); }
    bool wins(size_t n) const { return mean(n) < kGain && worst < kLoss; }
};

cudaError_t tune_range(Bench& bench, const Context& c, const LinearShape& shape,
                       const std::vector<LinearWay>& ways, const std::vector<int32_t>& rows, int n_rounds,
                       std::vector<Ratio>* ratios, std::vector<double>* us) {
    ratios->assign(ways.size() + 1, {});
    for (int32_t m : rows) {
        LinearShape s = shape;
        s.m = m;
        std::vector<LinearDesc> descs = {choose_linear(c.device, s)};
        for (const LinearWay& way : ways) descs.push_back(linear_in_way(c.device, s, way));
        const cudaError_t e = bench.time(descs, m, n_rounds, us);
        if (e != cudaSuccess) return e;
        for (size_t i = 0; i < descs.size(); ++i) (*ratios)[i].add((*us)[i], us->front());
    }
    return cudaSuccess;
}

}  // namespace

cudaError_t tune_linear(Context& c, const LinearShape& shape, Op op, DType out, std::string* lines) {
    Bench bench(c, shape, op, out);
    cudaError_t e = bench.allocate();
    for (const RowRange& range : kRowRanges) {
        std::vector<LinearWay> ways = linear_ways(c.device, shape, range);
        if (op == Op::linear_rope_kv_write && range.first == 1 &&
            c.device.arch == 90)  // a kernel that does not end in rope takes one more
            ways.erase(std::remove_if(ways.begin(), ways.end(),
                                      [](const LinearWay& w) { return w.kernel != LinearKernel::split; }),
                       ways.end());
        const std::vector<int32_t> rows = measured_rows(range, shape.m);
        if (e != cudaSuccess || ways.empty() || rows.empty()) continue;
        std::vector<Ratio> ratios;
        std::vector<double> us;
        e = tune_range(bench, c, shape, ways, rows, kRounds, &ratios, &us);
        if (e != cudaSuccess) continue;
        const auto best =
            std::min_element(ratios.begin() + 1, ratios.end(), [&](const Ratio& a, const Ratio& b) {
                return std::make_pair(!a.wins(rows.size()), a.log_sum) <
                       std::make_pair(!b.wins(rows.size()), b.log_sum);
            });
        if (!best->wins(rows.size())) continue;
        const LinearWay way = ways[best - ratios.begin() - 1];
        e = tune_range(bench, c, shape, {way}, rows, kConfirmingRounds, &ratios, &us);
        if (e == cudaSuccess && ratios[1].wins(rows.size()))
            *lines += entry_line({shape.dtype, shape.n, shape.k, range, way, us[1], us[0]});
    }
    return e == cudaSuccess ? cudaStreamSynchronize(c.stream) : e;
}

}  // namespace rvllm::cuda
