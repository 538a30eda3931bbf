// Liveness scan and arena layout (greedy by size, 2001.03288), kernel keys, binding.
#include "plan.h"

#include <algorithm>
#include <numeric>

namespace rvllm {
namespace {

constexpr size_t kAlign = 64;

// One allocation of the arena: a buffer, or several that are the same bytes (in-place ops).
struct Storage {
    int first = 0, last = 0;  // ops between which it lives, both included
    size_t bytes = 0;
    size_t offset = 0;
};

// The input whose bytes output `i` of an op may take over, if it dies there; -1: none.
int in_place_input(Op op, int i) {
    switch (op) {
        case Op::add:
        case Op::mul:
        case Op::silu: return i == 0 ? 0 : -1;
        case Op::add_rms_norm: return i == 1 ? 1 : -1;  // the sum takes over the residual
        default: return -1;
    }
}

std::vector<int> last_reads(const Plan& plan) {
    std::vector<int> last(plan.buffers.size(), -1);
    for (size_t i = 0; i < plan.ops.size(); ++i) {
        for (const View& v : plan.ops[i].in) {
            if (v.buffer >= 0) last[v.buffer] = static_cast<int>(i);
        }
        for (const View& v : plan.ops[i].out) {
            if (v.buffer >= 0) last[v.buffer] = static_cast<int>(i);
        }
    }
    if (plan.logits >= 0) last[plan.logits] = static_cast<int>(plan.ops.size());
    return last;
}

// Whether output `out` of op `index` may be the same bytes as its input `in`.
bool may_alias(const Plan& plan, const PlanOp& op, int index, const View& in, const View& out,
               const std::vector<int>& last) {
    const Buffer& a = plan.buffers[in.buffer];
    const Buffer& b = plan.buffers[out.buffer];
    if (a.source != Source::arena || last[in.buffer] != index) return false;
    if (in.cols != a.cols || a.cols != b.cols || a.rows != b.rows || a.dtype != b.dtype) return false;
    const auto reads = [&](const View& v) { return v.buffer == in.buffer; };
    return std::count_if(std::begin(op.in), std::end(op.in), reads) == 1;
}

}  // namespace

size_t buffer_bytes(const Buffer& b, const StepLimits& limits) {
    int64_t rows = 1;
    switch (b.rows) {
        case Sym::tokens: rows = limits.max_tokens; break;
        case Sym::seqs: rows = limits.max_seqs; break;
        case Sym::rows: rows = limits.max_rows; break;
        case Sym::one: break;
    }
    const size_t bytes = static_cast<size_t>(rows) * b.cols * dtype_bytes(b.dtype);
    return (bytes + kAlign - 1) / kAlign * kAlign;
}

Arena plan_arena(const Plan& plan, const StepLimits& limits) {
    const std::vector<int> last = last_reads(plan);
    std::vector<Storage> storages;
    std::vector<int> storage_of(plan.buffers.size(), -1);
    for (size_t i = 0; i < plan.ops.size(); ++i) {
        const PlanOp& op = plan.ops[i];
        const int index = static_cast<int>(i);
        for (int o = 0; o < kMaxOutputs; ++o) {
            const View& out = op.out[o];
            if (out.buffer < 0) continue;
            const int from = in_place_input(op.op, o);
            if (from >= 0 && may_alias(plan, op, index, op.in[from], out, last)) {
                storage_of[out.buffer] = storage_of[op.in[from].buffer];
                storages[storage_of[out.buffer]].last = last[out.buffer];
                continue;
            }
            storage_of[out.buffer] = static_cast<int>(storages.size());
            const size_t bytes = buffer_bytes(plan.buffers[out.buffer], limits);
            storages.push_back({index, last[out.buffer], bytes, 0});
        }
    }

    // Largest first, each at the lowest offset that is free during its whole life.
    std::vector<int> order(storages.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return storages[a].bytes > storages[b].bytes; });
    Arena arena;
    std::vector<const Storage*> placed;  // by offset
    for (int i : order) {
        Storage& s = storages[i];
        for (const Storage* p : placed) {
            if (p->offset >= s.offset + s.bytes) break;
            if (p->first <= s.last && s.first <= p->last) {
                s.offset = std::max(s.offset, p->offset + p->bytes);
            }
        }
        const auto after = [&](size_t offset, const Storage* p) { return offset < p->offset; };
        placed.insert(std::upper_bound(placed.begin(), placed.end(), s.offset, after), &s);
        arena.bytes = std::max(arena.bytes, s.offset + s.bytes);
    }
    arena.offset.resize(plan.buffers.size(), 0);
    for (size_t b = 0; b < storage_of.size(); ++b) {
        if (storage_of[b] >= 0) arena.offset[b] = storages[storage_of[b]].offset;
    }
    return arena;
}

KernelKey kernel_key(const Plan& plan, const PlanOp& op, DType kv) {
    KernelKey key{};
    key.op = op.op;
    key.in = plan.buffers[op.in[0].buffer].dtype;
    key.out = op.out[0].buffer >= 0 ? plan.buffers[op.out[0].buffer].dtype : key.in;
    key.kv = kv;
    key.attrs = op.attrs;
    if (op.weight[0] >= 0) {
        const Weight& w = plan.weights[op.weight[0]];
        key.weight = w.dtype;
        key.format = w.format;
        key.n = w.n;
        key.k = w.k;
    }
    return key;
}

std::vector<OpCall> bind_calls(const Plan& plan, Backend* backend, DType kv, const Arena& arena, char* memory,
                               const StepInput& step) {
    const auto operand = [&](const View& v) {
        Operand o;
        if (v.buffer < 0) return o;
        const Buffer& b = plan.buffers[v.buffer];
        char* base = nullptr;
        switch (b.source) {
            case Source::arena: base = memory + arena.offset[v.buffer]; break;
            case Source::token_ids: base = reinterpret_cast<char*>(step.token_ids); break;
            case Source::positions: base = reinterpret_cast<char*>(step.positions); break;
            case Source::slots: base = reinterpret_cast<char*>(step.slots[b.group]); break;
            case Source::logit_rows: base = reinterpret_cast<char*>(step.logit_rows); break;
        }
        o.data = base + static_cast<size_t>(v.start) * dtype_bytes(b.dtype);
        o.row_stride = b.cols;
        o.cols = v.cols;
        o.dtype = b.dtype;
        o.rows = b.rows;
        return o;
    };
    std::vector<OpCall> calls(plan.ops.size());
    for (size_t i = 0; i < plan.ops.size(); ++i) {
        const PlanOp& op = plan.ops[i];
        OpCall& call = calls[i];
        call.op = op.op;
        for (int j = 0; j < kMaxInputs; ++j) call.in[j] = operand(op.in[j]);
        for (int j = 0; j < kMaxOutputs; ++j) call.out[j] = operand(op.out[j]);
        for (int j = 0; j < kMaxWeights; ++j) {
            if (op.weight[j] >= 0) call.weight[j] = &plan.weights[op.weight[j]];
        }
        call.attrs = op.attrs;
        const KernelKey key = kernel_key(plan, op, kv);
        const Kernel kernel = backend->find(backend, &key);
        call.fn = kernel.fn;
        call.kernel_name = kernel.name;
    }
    return calls;
}

}  // namespace rvllm
