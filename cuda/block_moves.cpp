// BlockMoves: see block_moves.h.
#include "block_moves.h"

#include <algorithm>

#include "prepared.h"

namespace rvllm::cuda {
namespace {

// Of one block: keys and values of all layers.
size_t block_bytes(const KvCacheView& kv) {
    return size_t{2} * kv.n_layers * kv.n_kv_heads * kv.block_size * kv.head_dim *
           dtype_bytes(static_cast<DType>(kv.dtype));
}

bool moves_blocks(const KvCacheView* kv, const StepLimits& limits) {
    return limits.max_moves > 0 || kv[0].host;
}

}  // namespace

BlockMoves::~BlockMoves() {
    for (cudaStream_t s : {in_stream_, out_stream_}) {
        if (s) cudaStreamSynchronize(s);
    }
    for (char* s : staging_) {
        if (s) cudaFree(s);
    }
    for (int c = 0; c < kChunks; ++c) {
        if (filled_[c]) cudaEventDestroy(filled_[c]);
        if (emptied_[c]) cudaEventDestroy(emptied_[c]);
    }
    for (cudaStream_t s : {in_stream_, out_stream_}) {
        if (s) cudaStreamDestroy(s);
    }
}

size_t BlockMoves::bytes(const KvCacheView* kv, const StepLimits& limits) {
    size_t n = 0;
    for (int g = 0; g < limits.n_groups && moves_blocks(kv, limits); ++g) {
        n += kChunks * kChunk * block_bytes(kv[g]);
    }
    return n;
}

cudaError_t BlockMoves::create(const KvCacheView* kv, const StepLimits& limits) {
    n_blocks_ = kv[0].n_blocks;
    has_host_ = moves_blocks(kv, limits);
    groups_.reserve(limits.max_copies());
    same_.reserve(limits.max_copies());
    if (!has_host_) return cudaSuccess;
    written_.assign(static_cast<size_t>(n_blocks_) + kv[0].n_host_blocks, 0);
    for (auto* v : {&out_, &in_, &arriving_.copies, &arrived_.copies}) v->reserve(limits.max_copies());
    for (auto* v : {&arriving_.chunks, &arrived_.chunks}) v->reserve(kInChunks);
    host_writes_.resize(kv[0].n_host_blocks);
    cudaError_t e = cudaStreamCreateWithFlags(&in_stream_, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&out_stream_, cudaStreamNonBlocking);
    for (int g = 0; g < limits.n_groups && e == cudaSuccess; ++g) {
        e = cudaMalloc(reinterpret_cast<void**>(&staging_[g]), kChunks * kChunk * block_bytes(kv[g]));
    }
    for (int c = 0; c < kChunks; ++c) {
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&filled_[c], cudaEventDisableTiming);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&emptied_[c], cudaEventDisableTiming);
    }
    return e;
}

// ---- plan ----------------------------------------------------------------------------------------------

bool BlockMoves::adds_to(const Group& g, const BlockCopy& copy) const {
    const bool is_out = copy.dst >= n_blocks_, is_in = copy.src >= n_blocks_;
    if (!is_out && !is_in) return g.n_out + g.n_in == 0;
    return g.n_same == 0 && (is_out ? g.n_out : g.n_in) < kChunk && written_[copy.src] != group_id_ &&
           written_[copy.dst] != group_id_;
}

void BlockMoves::add(const BlockCopy& copy) {
    if (groups_.empty() || !adds_to(groups_.back(), copy)) {
        groups_.push_back({static_cast<int32_t>(same_.size()), static_cast<int32_t>(out_.size()),
                           static_cast<int32_t>(in_.size()), 0, 0, 0, 0, 0, 0});
        ++group_id_;
    }
    Group& g = groups_.back();
    if (std::max(copy.src, copy.dst) < n_blocks_) {
        same_.push_back(copy);
        ++g.n_same;
        return;
    }
    written_[copy.dst] = group_id_;
    if (copy.dst >= n_blocks_) {
        out_.push_back(copy);
        ++g.n_out;
    } else {
        in_.push_back(copy);
        ++g.n_in;
    }
}

void BlockMoves::cut(const StepInput& step) {
    groups_.clear();
    same_.clear();
    out_.clear();
    in_.clear();
    for (int32_t i = 0; i < step.n_copies; ++i) add(step.copies[i]);
    ++plan_id_;
    for (Group& g : groups_) {
        if (g.n_out) g.out_chunk = kInChunks + next_out_++ % kOutChunks;
        if (g.n_in) g.in_chunk = next_in_++ % kInChunks;
        for (int32_t i = 0; i < g.n_in; ++i) {
            const HostWrite& w = host_writes_[in_[g.in + i].src - n_blocks_];
            if (plan_id_ - w.plan < kMaxInFlight) g.written |= 1u << w.chunk;
        }
        for (int32_t i = 0; i < g.n_out; ++i) {
            host_writes_[out_[g.out + i].dst - n_blocks_] = {plan_id_, g.out_chunk};
        }
    }
}

int32_t BlockMoves::plan(const StepInput& step, BlockCopy* list) {
    std::swap(arriving_, arrived_);
    arriving_.copies.clear();
    arriving_.chunks.clear();
    cut(step);
    const auto n_in_groups =
        std::count_if(groups_.begin(), groups_.end(), [](const Group& g) { return g.n_in > 0; });
    late_ = step.returns_late && n_in_groups <= kInChunks;

    BlockCopy* at = std::copy(arrived_.copies.begin(), arrived_.copies.end(), list);
    for (const Group& g : groups_) {
        at = std::copy_n(same_.begin() + g.same, g.n_same, at);
        for (int32_t i = 0; i < g.n_out; ++i) {
            const BlockCopy& c = out_[g.out + i];
            *at++ = {c.group, c.src, n_blocks_ + g.out_chunk * kChunk + i};
        }
        for (int32_t i = 0; i < g.n_in; ++i) {
            const BlockCopy& c = in_[g.in + i];
            const BlockCopy unpack{c.group, n_blocks_ + g.in_chunk * kChunk + i, c.dst};
            if (late_) {
                arriving_.copies.push_back(unpack);
            } else {
                *at++ = unpack;
            }
        }
        if (g.n_in && late_) arriving_.chunks.push_back(g.in_chunk);
    }
    return static_cast<int32_t>(at - list);
}

// ---- launch --------------------------------------------------------------------------------------------

cudaError_t BlockMoves::launch(const KvCacheView* kv, const BlockCopy* list, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    const auto then = [&e](cudaError_t next) {
        if (e == cudaSuccess) e = next;
    };
    for (int chunk : arrived_.chunks) then(cudaStreamWaitEvent(stream, filled_[chunk]));
    const auto n_arrived = static_cast<int32_t>(arrived_.copies.size());
    then(copy_blocks(kv, staging_, list, n_arrived, false, stream));
    for (int chunk : arrived_.chunks) then(cudaEventRecord(emptied_[chunk], stream));
    list += n_arrived;
    for (const Group& g : groups_) {
        if (e != cudaSuccess) break;
        then(copy_blocks(kv, staging_, list, g.n_same, true, stream));
        if (g.n_out) {
            then(cudaStreamWaitEvent(stream, emptied_[g.out_chunk]));
            then(copy_blocks(kv, staging_, list, g.n_out, false, stream));
            then(cudaEventRecord(filled_[g.out_chunk], stream));
        }
        if (g.n_in) {
            then(cudaStreamWaitEvent(in_stream_, emptied_[g.in_chunk]));
            for (int c = 0; c < kChunks; ++c) {
                if (g.written >> c & 1) then(cudaStreamWaitEvent(in_stream_, emptied_[c]));
            }
            for (int32_t i = 0; i < g.n_in; ++i) then(transfer(kv, in_[g.in + i], g.in_chunk * kChunk + i));
            then(cudaEventRecord(filled_[g.in_chunk], in_stream_));
            last_in_ = g.in_chunk;
        }
        if (g.n_out) {  // perhaps to blocks that were read just now
            if (last_in_ >= 0) then(cudaStreamWaitEvent(out_stream_, filled_[last_in_]));
            then(cudaStreamWaitEvent(out_stream_, filled_[g.out_chunk]));
            for (int32_t i = 0; i < g.n_out; ++i)
                then(transfer(kv, out_[g.out + i], g.out_chunk * kChunk + i));
            then(cudaEventRecord(emptied_[g.out_chunk], out_stream_));
        }
        list += g.n_same + g.n_out;
        if (g.n_in && !late_) {
            then(cudaStreamWaitEvent(stream, filled_[g.in_chunk]));
            then(copy_blocks(kv, staging_, list, g.n_in, false, stream));
            then(cudaEventRecord(emptied_[g.in_chunk], stream));
            list += g.n_in;
        }
    }
    return e;
}

cudaError_t BlockMoves::transfer(const KvCacheView* kv, const BlockCopy& copy, int slot) {
    const size_t bytes = block_bytes(kv[copy.group]);
    char* staged = staging_[copy.group] + slot * bytes;
    char* host = static_cast<char*>(kv[copy.group].host) + (std::max(copy.src, copy.dst) - n_blocks_) * bytes;
    return copy.dst >= n_blocks_ ? cudaMemcpyAsync(host, staged, bytes, cudaMemcpyDeviceToHost, out_stream_)
                                 : cudaMemcpyAsync(staged, host, bytes, cudaMemcpyHostToDevice, in_stream_);
}

cudaError_t BlockMoves::record(cudaEvent_t event) {
    if (!has_host_) return cudaSuccess;
    const cudaError_t e = last_in_ < 0 ? cudaSuccess : cudaStreamWaitEvent(out_stream_, filled_[last_in_]);
    return e == cudaSuccess ? cudaEventRecord(event, out_stream_) : e;
}

}  // namespace rvllm::cuda
