// sample_kernel: the sampler of a step, one team of CTAs per row. native/sampler.pyx is the same on the CPU.
//
// Few rows: up to eight CTAs share a row, so that one is as fast as many. Results go straight to pinned
// memory.
#include "device/launch.cuh"
#include "sampling/draw.cuh"
#include "sampling/edit.cuh"

namespace rvllm::cuda {
namespace {

// The whole row before any filter, at temperature 1. At rank 0.
struct Stats {
    float max;
    double log_sum;
    double log_ties;  // when max is +inf: log of how many are

    __device__ double log_prob(float x) const {
        if (max == INFINITY) return x == INFINITY ? -log_ties : -static_cast<double>(INFINITY);
        return static_cast<double>(x) - log_sum;
    }
};

// Elements > v, at rank 0.
__device__ __forceinline__ uint64_t count_above(const Row row, float v, const Team& team, Shared& s) {
    const int32_t chunk = row.chunk_of_warp(team);
    uint32_t n = 0;
    each(row, row.begin(chunk), row.end(chunk), [&](float x, int32_t) { n += x > v; });
    n = warp_total(n);
    team.sync();
    if (threadIdx.x % 32 == 0) *team.of(&s.sums.n_sure[chunk], 0) = n;
    team.sync();
    return team.rank == 0 ? over_chunks(s.sums.n_sure, team) : 0;
}

// Log-probabilities of the row, and its `want` largest tokens.
__device__ __forceinline__ Stats row_stats(const Row row, const Scan& scan, float mine, int32_t want,
                                           TopToken* tops, const Team& team, Shared& s) {
    constexpr double ln2 = 0.69314718055994530942;
    Stats stats = {scan.top(), INFINITY, 0};
    const Exponents e = Exponents::of(scan.top(), 1);
    Window window = {INFINITY, INFINITY};
    if (want > 0) window.low = want <= kTeamThreads ? bound_by_maxima(mine, want, team, s) : kNothing;
    const Cut everything = window.low > kNothing ? Cut{-FLT_MAX, kEveryToken} : Cut{kNothing, row.n - 1};
    collect_border(row, everything, window, e.weigh, team, s);
    uint64_t total = 0;
    if (team.rank == 0) {
        total = over_chunks(s.sums.all, team);
        stats.log_sum = e.weigh.base + (log2(static_cast<double>(total)) - kFixedBits + e.m) * ln2;
        stats.log_sum = fmax(stats.log_sum, static_cast<double>(stats.max));  // as on the CPU: none above 0
        if (threadIdx.x == 0) {
            publish(team, &s.verdict, s.n_listed > kMaxListed ? Verdict::unknown : Verdict::found);
        }
    }
    team.sync();
    if (s.verdict == Verdict::unknown) {
        const Cut cut = select_exactly<false>(row, everything, 0, want, e, team, s);
        collect_border(row, cut, whole_window(), e.weigh, team, s);
    }
    if (team.rank == 0) sort_list(s, static_cast<int32_t>(s.n_listed));
    if (stats.max == INFINITY) {
        const uint64_t n_ties = count_above(row, FLT_MAX, team, s);
        stats.log_ties = log(static_cast<double>(n_ties));
    }
    if (team.rank == 0) {
        for (int32_t i = threadIdx.x; i < want; i += kTeamThreads) {
            const uint64_t key = s.list.keys[i];
            const float x = row.x[token_of(key)];
            tops[i] = {token_of(key), static_cast<float>(stats.log_prob(x))};
        }
    }
    team.sync();
    return stats;
}

template <typename T>
__device__ void copy_words(T* dst, const T* src) {
    static_assert(sizeof(T) % 4 == 0 && sizeof(T) / 4 <= kTeamThreads);
    const int32_t i = threadIdx.x;
    if (i < static_cast<int32_t>(sizeof(T) / 4)) {
        reinterpret_cast<uint32_t*>(dst)[i] = reinterpret_cast<const uint32_t*>(src)[i];
    }
    __syncthreads();
}

__global__ void __launch_bounds__(kTeamThreads, 2) sample_kernel(const __grid_constant__ SampleParams p) {
    extern __shared__ __align__(16) char memory[];
    Shared& s = *reinterpret_cast<Shared*>(memory);
    const Team team = Team::mine();
    const int32_t index = static_cast<int32_t>(blockIdx.x) / team.size;
    copy_words(&s.info, p.rows + index);
    const SampleRow& info = s.info;
    copy_words(&s.params, p.state.params + info.slot);
    team.sync();  // every CTA has started: its shared memory may be written
    const SlotParams& params = s.params;
    const Slot slot = {p.state, params, info.slot};
    const Row raw = Row::of(p.logits + info.logit_row * p.logits_stride, p.state.vocab_size, team);
    const bool draws = info.kind == RowKind::sample, wanted = info.n_top >= 0 || !draws;

    SampleResult result = {};
    Stats stats = {};
    float mine;
    bool failed = false;
    if (wanted) {
        const Scan scan = scan_row<false>(raw, 0, team, s, &mine);
        failed = scan.is_nan() || scan.top() == kNothing;
        if (!failed) {
            result.n_top = max(0, min(min(info.n_top, p.max_top), raw.n));
            stats = row_stats(raw, scan, mine, result.n_top, p.tops + static_cast<int64_t>(index) * p.max_top,
                              team, s);
        }
    }
    int32_t token = info.target;
    if (draws && !failed) {
        Row row = raw;
        if (slot.edits(info.suppress_stop)) row = edit_row(raw, slot, info.suppress_stop, team, s.edits);
        const float c = static_cast<float>(kLog2E / fmin(params.temperature, 1e30));
        Scan scan =
            params.greedy ? scan_row<false>(row, c, team, s, &mine) : scan_row<true>(row, c, team, s, &mine);
        failed = scan.is_nan() || scan.top() == kNothing;
        if (!failed && params.greedy) {
            token = token_of(scan.best);
        } else if (!failed) {
            if (scan.top() == INFINITY) {
                row.level = true;
                team.sync();  // everybody has read the first scan
                scan = scan_row<true>(row, c, team, s, &mine);
            }
            const uint64_t bits = random_bits(params.seed, params.choice, info.token_index, Purpose::draw);
            token = draw_token(row, scan, mine, params, bits, team, s);
        }
    }
    if (wanted && !failed) {
        const float x = raw.x[token];
        result.rank = static_cast<int32_t>(1 + count_above(raw, x, team, s));
        result.logprob = static_cast<float>(stats.log_prob(x));
    }
    result.token = failed ? -1 : token;
    result.failed = failed;
    if (team.rank == 0 && threadIdx.x == 0) {
        p.results[index] = result;
        if (draws) p.state.last_token[info.slot] = failed ? 0 : token;
        if (draws && !failed) push_token(p.state, info.slot, token);
    }
    team.sync();  // no CTA ends while another may use its shared memory
}

}  // namespace

cudaError_t setup_sample() {
    return cudaFuncSetAttribute(sample_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
}

cudaError_t launch_sample(const SampleParams& p, int n_sms, int arch, cudaStream_t stream) {
    if (p.n_rows == 0) return cudaSuccess;
    // On an H200 more than four CTAs a row pay only for few rows, and more than one a multiprocessor never.
    int size = 1;
    while (arch >= 90 && size < (p.n_rows <= 8 ? kMaxTeam : 4) && p.n_rows * size * 2 <= n_sms) size *= 2;
    const LaunchShape shape = {dim3(p.n_rows * size), kTeamThreads, sizeof(Shared), size};
    return launch_kernel(sample_kernel, shape, stream, false, p);
}

}  // namespace rvllm::cuda
