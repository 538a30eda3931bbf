// Layout of a StepInput inside one allocation: arrays in order, each on a 64-byte boundary.
#include "step.h"

#include <cstring>

namespace rvllm {
namespace {

// Walks the arrays once; with memory == nullptr it only measures.
struct Carver {
    char* memory;
    size_t used = 0;
    template <class T>
    void take(T** array, int64_t n) {
        if (memory) *array = reinterpret_cast<T*>(memory + used);
        used += (static_cast<size_t>(n) * sizeof(T) + 63) / 64 * 64;
    }
};

size_t carve(StepInput* step, const StepLimits& m, char* memory) {
    Carver c{memory};
    c.take(&step->token_ids, m.max_tokens);
    c.take(&step->positions, m.max_tokens);
    for (int g = 0; g < m.n_groups; ++g) c.take(&step->slots[g], m.max_tokens);
    c.take(&step->query_start, m.max_seqs + 1);
    c.take(&step->kv_len, m.max_seqs);
    c.take(&step->logit_rows, m.max_rows);
    for (int g = 0; g < m.n_groups; ++g) {
        c.take(&step->tables[g].start, m.max_seqs + 1);
        c.take(&step->tables[g].blocks, m.max_table_entries);
    }
    c.take(&step->sample_rows, m.max_rows);
    c.take(&step->copies, m.max_copies());
    c.take(&step->admitted, m.max_seqs);
    return c.used;
}

}  // namespace

size_t step_input_bytes(const StepLimits& limits) {
    StepInput scratch;
    return carve(&scratch, limits, nullptr);
}

void step_input_layout(StepInput* step, const StepLimits& limits, void* memory) {
    carve(step, limits, static_cast<char*>(memory));
}

void step_copy(StepInput* dst, const StepInput* src, const StepLimits& limits) {
    const auto copy = [](auto* to, const auto* from, int64_t n) {
        if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(*to));
    };
    dst->n_tokens = src->n_tokens;
    dst->n_seqs = src->n_seqs;
    dst->n_rows = src->n_rows;
    dst->n_copies = src->n_copies;
    dst->max_query_len = src->max_query_len;
    dst->max_kv_len = src->max_kv_len;
    dst->step_id = src->step_id;
    dst->last_token = src->last_token;
    copy(dst->token_ids, src->token_ids, src->n_tokens);
    copy(dst->positions, src->positions, src->n_tokens);
    copy(dst->query_start, src->query_start, src->n_seqs + 1);
    copy(dst->kv_len, src->kv_len, src->n_seqs);
    copy(dst->logit_rows, src->logit_rows, src->n_rows);
    copy(dst->copies, src->copies, src->n_copies);
    for (int g = 0; g < limits.n_groups; ++g) {
        copy(dst->slots[g], src->slots[g], src->n_tokens);
        copy(dst->tables[g].start, src->tables[g].start, src->n_seqs + 1);
        copy(dst->tables[g].blocks, src->tables[g].blocks, src->tables[g].start[src->n_seqs]);
    }
}

}  // namespace rvllm
