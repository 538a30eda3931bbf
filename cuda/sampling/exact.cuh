// Exact selection by radix over the order keys: three passes of 11, 11 and 10 bits find the value at the
// border, a fourth the token where equal values are cut apart. For what select.cuh's windows cannot hold.
#pragma once
#include "sampling/select.cuh"

namespace rvllm::cuda {

// Rank 0 adds the team's digits of one level and moves s.prefix, s.above, s.n_above, s.n_ties on to the
// first digit with which the sum reaches the target. Returns false when it never does.
template <bool by_mass>
__device__ bool descend(int32_t level, double p, int64_t k, const Team& team, Shared& s) {
    constexpr int kOwn = kDigitBins / kTeamThreads;
    const int32_t first = threadIdx.x * kOwn;
    ExactSum own[kOwn], sum = {0, 0};
    uint64_t count[kOwn], n = 0;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
        own[j] = {0, 0};
        count[j] = 0;
        for (int r = 0; r < team.size; ++r) {
            const auto* d = team.of(&s.digits, r);
            count[j] += d->count[first + j];
            if (by_mass) own[j] = own[j].plus({d->high[first + j], d->low[first + j]});
        }
        sum = sum.plus(own[j]);
        n += count[j];
    }
    uint64_t n_upto = s.n_above + block_scan(n, s.warp_sums);
    ExactSum upto = s.above;
    if (by_mass) upto = upto.plus({block_scan(sum.high, s.warp_sums), block_scan(sum.low, s.warp_sums_low)});
    if (threadIdx.x == kTeamThreads - 1) {
        if (level == 0) s.target = by_mass ? p * upto.plus(sum).value() : static_cast<double>(k);
        s.first = kDigitBins;
    }
    __syncthreads();
    const double target = s.target;
    const auto reached = [&] {
        return by_mass ? upto.value() >= target : static_cast<double>(n_upto) >= target;
    };
    for (int j = 0; j < kOwn; ++j) {
        const bool before = reached();
        const ExactSum above = upto;
        const uint64_t n_above = n_upto;
        n_upto += count[j];
        upto = upto.plus(own[j]);
        if (!before && reached() && count[j] > 0) {
            s.first = first + j;
            s.above = above;
            s.n_above = n_above;
            s.n_ties = count[j];
        }
    }
    __syncthreads();
    const bool found = s.first < kDigitBins;
    if (threadIdx.x == 0 && found) {
        publish(team, &s.prefix, s.prefix << (level == 2 ? 10 : 11) | static_cast<uint32_t>(s.first));
    }
    return found;
}

// Of the elements that `cut` keeps, keeps the first k (by_mass: the shortest prefix of the order that holds p
// of the mass, in float64). Returns the new cut; the old one if there are fewer than k.
template <bool by_mass>
__device__ __noinline__ Cut select_exactly(const Row row, const Cut cut, double p, int64_t k,
                                           const Exponents e, const Team team, Shared& s) {
    const int32_t chunk = row.chunk_of_warp(team), begin = row.begin(chunk), end = row.end(chunk);
    if (threadIdx.x == 0) {
        s.prefix = 0;
        s.above = {0, 0};
        s.n_above = 0;
    }
    for (int32_t level = 0; level < 3; ++level) {
        const int shift = level == 0 ? 21 : level == 1 ? 10 : 0;
        const uint32_t mask = level == 2 ? 1023 : 2047;
        const int known = shift + (level == 2 ? 10 : 11);  // bits behind the prefix
        for (int32_t b = threadIdx.x; b < kDigitBins; b += kTeamThreads) {
            s.digits.high[b] = s.digits.low[b] = 0;
            s.digits.count[b] = 0;
        }
        team.sync();
        if (level == 0 && team.rank == 0 && threadIdx.x == 0) publish(team, &s.verdict, Verdict::found);
        const uint32_t prefix = s.prefix;
        each(row, begin, end, [&](float x, int32_t i) {
            if (!cut.keeps(x, i)) return;
            const uint32_t key = order_key(x);
            if (level > 0 && key >> known != prefix) return;
            const uint32_t digit = key >> shift & mask;
            atomicAdd(&s.digits.count[digit], 1u);
            if (by_mass) {
                const uint64_t w = e.exact_weight(x);
                atomicAdd(reinterpret_cast<unsigned long long*>(&s.digits.high[digit]), w >> 32);
                atomicAdd(reinterpret_cast<unsigned long long*>(&s.digits.low[digit]), w & 0xffffffffu);
            }
        });
        team.sync();
        if (team.rank == 0 && !descend<by_mass>(level, p, k, team, s) && threadIdx.x == 0) {
            publish(team, &s.verdict, Verdict::all);
        }
        team.sync();
        if (s.verdict == Verdict::all) return cut;
    }
    // Of the elements at the border, the first ones in token order.
    const uint32_t border = s.prefix;
    const float value = key_value(border);
    if (team.rank == 0 && threadIdx.x == 0) {
        uint64_t low = 1, high = s.n_ties;
        if (!by_mass) {
            low = high = static_cast<uint64_t>(k) - s.n_above;
        } else {
            const uint64_t w = e.exact_weight(value);
            while (low < high) {
                const uint64_t middle = (low + high) / 2;
                const ExactSum sum = s.above.plus({(w >> 32) * middle, (w & 0xffffffffu) * middle});
                if (sum.value() >= s.target) {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
        }
        s.n_ties_kept = low;
    }
    uint32_t n = 0;
    each(row, begin, end, [&](float x, int32_t i) { n += order_key(x) == border && cut.keeps(x, i); });
    n = warp_total(n);
    if (threadIdx.x % 32 == 0) *team.of(&s.sums.n_sure[chunk], 0) = n;
    team.sync();
    if (team.rank == 0) {
        uint64_t at = s.n_ties_kept - 1;
        int32_t c = 0;
        while (at >= s.sums.n_sure[c]) at -= s.sums.n_sure[c++];
        const int32_t last = find_passing(row, c, at, s.finding, [&](float x, int32_t i) -> uint64_t {
            return order_key(x) == border && cut.keeps(x, i);
        });
        if (threadIdx.x == 0) publish(team, &s.cut, Cut{value, last});
    }
    team.sync();
    return s.cut;
}

}  // namespace rvllm::cuda
