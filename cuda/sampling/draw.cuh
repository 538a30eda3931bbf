// One draw from a row: min-p, top-k, top-p, then the token at which the kept mass in token order passes the
// random number. native/rows.pyx is the same on the CPU.
#pragma once
#include "sampling/exact.cuh"
#include "simd/philox.h"

namespace rvllm::cuda {

__device__ inline float next_above(float x) {
    const uint32_t bits = __float_as_uint(x);
    if (x == 0) return __uint_as_float(1);
    return __uint_as_float(bits >> 31 ? bits - 1 : bits + 1);
}

// Smallest float whose probability is at least min_p of the largest.
__device__ inline float least_kept(float top, const SlotParams& p) {
    if (!p.has_min_p) return -FLT_MAX;
    const double bound = static_cast<double>(top) + p.min_p_distance;
    const float low = static_cast<float>(fmax(bound, -static_cast<double>(FLT_MAX)));
    return low < bound ? next_above(low) : low;
}

// What rank 0 knows of the kept tokens: s.sums.sure by chunk, and the first s.n_kept of the list.
struct Kept {
    Cut cut;
    double n_all;  // elements that `cut` keeps, or of the row
    bool listed;   // the sums and the list are of this cut
};

__device__ inline Window whole_window() {
    return {kNothing, INFINITY};
}

__device__ __forceinline__ void keep_top_k(const Row row, const Scan& scan, float mine, const SlotParams& p,
                                           const Exponents& e, Kept& kept, const Team& team, Shared& s) {
    const float top = scan.top();
    Window window = whole_window();
    if (p.top_k <= kMaxByMaxima) {
        window.low = bound_by_maxima(mine, p.top_k, team, s);
    } else if (row.n > kMaxListed) {
        const Target target = {0, static_cast<double>(p.top_k), 0, 0};
        window = window_by_histogram(row, kept.cut, top, fmaxf(scan.low, kept.cut.value), target, team, s,
                                     [](float) { return 1u; });
    }
    collect_largest(row, kept.cut, window, e.weigh, team, s);
    if (team.rank == 0) {
        const Verdict verdict = decide_count(p.top_k, team, s);
        const uint64_t n_sure = over_chunks(s.sums.n_sure, team), n_all = over_chunks(s.sums.n_all, team);
        if (verdict == Verdict::found && n_sure == 0 && p.top_p < 1) {
            const int32_t n = s.n_kept;
            weigh_list(s, n, e);
            uint64_t own = 0;
            ExactSum exact = {0, 0};
            for (int32_t i = threadIdx.x; i < n; i += kTeamThreads) own += s.list.weights[i];
            const uint64_t total = block_total(own, s.warp_sums);
            if (decide_mass(p.top_p, n, 0, total, n, e.slack, s) == Verdict::near) {
                for (int32_t i = threadIdx.x; i < n; i += kTeamThreads) {
                    exact.add(e.exact_weight(value_of(s.list.keys[i])));
                }
                exact = {block_total(exact.high, s.warp_sums), block_total(exact.low, s.warp_sums)};
                decide_exactly(p.top_p, n, {0, 0}, exact, e, s);
            }
        }
        if (threadIdx.x == 0) {
            publish(team, &s.verdict, verdict);
            publish(team, &s.n_all, verdict == Verdict::all ? n_all : p.top_k);
            publish(team, &s.n_sure, n_sure);
            if (verdict == Verdict::found) publish(team, &s.cut, s.cut);
        }
    }
    team.sync();
    kept.n_all = static_cast<double>(s.n_all);
    if (s.verdict == Verdict::found) {
        kept.cut = s.cut;
        kept.listed = p.top_p >= 1 || s.n_sure == 0;
    } else if (s.verdict == Verdict::unknown) {
        kept.cut = select_exactly<false>(row, kept.cut, 0, p.top_k, e, team, s);
    }
}

__device__ __forceinline__ void keep_top_p(const Row row, const Scan& scan, const SlotParams& p,
                                           const Exponents& e, Kept& kept, const Team& team, Shared& s) {
    const float top = scan.top(), c = e.weigh.c_hi;
    Window window = whole_window();
    if (row.n > kMaxListed) {
        const float deepest = top - static_cast<float>(kOctaves) / c;
        const float bottom = fmaxf(deepest, fmaxf(scan.low, kept.cut.value));
        const Target target = {p.top_p, 0, 2e-6, static_cast<double>(row.n)};
        const float scale = 2147483648.0f / scan.sum;
        const float offset = __log2f(scale) - top * c;
        window = window_by_histogram(row, kept.cut, top, bottom, target, team, s, [=](float x) {
            return __float2uint_rn(rough_exp2(__fmaf_rn(x, c, offset)));
        });
    }
    collect_border(row, kept.cut, window, e.weigh, team, s);
    if (team.rank == 0) {
        Verdict verdict = Verdict::unknown;
        const int64_t n = s.n_listed;
        if (n <= kMaxListed) {
            sort_list(s, static_cast<int32_t>(n));
            weigh_list(s, static_cast<int32_t>(n), e);
            const uint64_t sure = over_chunks(s.sums.sure, team), total = over_chunks(s.sums.all, team);
            verdict = decide_mass(p.top_p, static_cast<int32_t>(n), sure, total, kept.n_all, e.slack, s);
        }
        if (threadIdx.x == 0) publish(team, &s.verdict, verdict);
    }
    team.sync();
    const Verdict verdict = s.verdict;
    if (verdict == Verdict::near) {
        sum_exactly(row, kept.cut, window, e, team, s);
        if (team.rank == 0) {
            const ExactSum sure = over_chunks(s.exact_sure, team), all = over_chunks(s.exact_all, team);
            decide_exactly(p.top_p, static_cast<int32_t>(s.n_listed), sure, all, e, s);
        }
    }
    kept.listed = verdict != Verdict::unknown;
    if (kept.listed) {
        if (team.rank == 0) kept.cut = s.cut;
    } else {
        kept.cut = select_exactly<true>(row, kept.cut, p.top_p, 0, e, team, s);
    }
}

// By rank 0: the token among the kept ones at which their mass passes the share `bits` / 2^64 of it.
__device__ inline int32_t draw_kept(const Row row, const Cut cut, uint64_t bits, const Exponents& e,
                                    const Team& team, Shared& s) {
    for (int32_t i = threadIdx.x; i < kMaxChunks; i += kTeamThreads) s.listed_low[i] = s.listed_high[i] = 0;
    __syncthreads();
    for (int32_t i = threadIdx.x; i < s.n_kept; i += kTeamThreads) {
        const uint64_t key = s.list.keys[i], w = e.weigh(value_of(key));
        const int32_t c = token_of(key) / row.chunk;
        atomicAdd(&s.listed_low[c], static_cast<uint32_t>(w & 0xfffffu));
        atomicAdd(&s.listed_high[c], static_cast<uint32_t>(w >> 20));
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        constexpr int kOwn = kMaxChunks / 32;
        uint64_t own[kOwn], sum = 0;
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            const int32_t c = threadIdx.x * kOwn + j;
            own[j] = 0;
            if (c < team.size * kTeamWarps) {
                own[j] = s.sums.sure[c] + s.listed_low[c] + (static_cast<uint64_t>(s.listed_high[c]) << 20);
            }
            sum += own[j];
        }
        uint64_t upto = warp_scan(sum);
        const uint64_t total = __shfl_sync(kAllLanes, upto, 31), at = scale_bits(bits, total);
        upto -= sum;
#pragma unroll
        for (int j = 0; j < kOwn; ++j) {
            if (at >= upto && at < upto + own[j]) {
                s.first = threadIdx.x * kOwn + j;
                s.rest = at - upto;
            }
            upto += own[j];
        }
    }
    __syncthreads();
    return find_passing(row, s.first, s.rest, s.finding,
                        [&](float x, int32_t i) -> uint64_t { return cut.keeps(x, i) ? e.weigh(x) : 0; });
}

// In all threads.
__device__ __forceinline__ int32_t draw_token(const Row row, const Scan& scan, float mine,
                                              const SlotParams& p, uint64_t bits, const Team& team,
                                              Shared& s) {
    const Exponents e = Exponents::of(scan.top(), p.temperature);
    Kept kept = {{least_kept(scan.top(), p), kEveryToken}, static_cast<double>(row.n), false};
    if (p.top_k > 0 && p.top_k < row.n) keep_top_k(row, scan, mine, p, e, kept, team, s);
    if (p.top_p < 1 && !kept.listed) keep_top_p(row, scan, p, e, kept, team, s);
    if (!kept.listed) {
        sum_kept(row, kept.cut, e.weigh, team, s);
        if (threadIdx.x == 0) s.n_kept = 0;
    }
    __syncthreads();
    if (team.rank == 0) {
        const int32_t token = draw_kept(row, kept.cut, bits, e, team, s);
        if (threadIdx.x == 0) publish(team, &s.token, token);
    }
    team.sync();
    return s.token;
}

}  // namespace rvllm::cuda
