# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The engine's sampler: draws the tokens of a step, one slot of state per running sequence."""
from libc.math cimport INFINITY
from libc.string cimport memcpy

from rvllm._native.core cimport Request, RowKind, SampleRow, SamplingParams
from rvllm._native.rows cimport (
    K, Purpose, RowParams, RowStats, log_prob, random_bits, sample_row, stats_row, top_row,
)


# What the rows of one step share.
cdef struct Batch:
    SamplerSlot* slots
    Scratch* scratch
    int64_t vocab_size
    const float* logits
    int64_t row_stride
    const StepInput* step
    SampleResult* results
    TopToken* tops
    int32_t max_top


cdef void edit_row(SamplerSlot* slot, const float* x, int64_t n, bint suppress_stop, Scratch* s) noexcept nogil:
    """Copies a row into s.row with the slot's masks, bias and penalties applied."""
    cdef size_t i
    cdef int64_t t
    cdef float* row = s.row
    if slot.allowed.empty():
        memcpy(row, x, n * sizeof(float))
    else:
        for t in range(n):
            row[t] = -INFINITY
        for i in range(slot.allowed.size()):
            row[slot.allowed[i]] = x[slot.allowed[i]]
    for i in range(slot.bad_words.size()):
        if slot.completes(slot.bad_words[i]):
            row[slot.bad_words[i].back()] = -INFINITY
    if suppress_stop:
        for i in range(slot.end_tokens.size()):
            row[slot.end_tokens[i]] = -INFINITY
    for i in range(slot.bias.size()):
        row[slot.bias[i].first] += slot.bias[i].second
    if slot.penalized:
        K.penalize(row, slot.counts.ids(), slot.counts.size(), slot.counts.counts(), False, slot.repetition,
                   slot.frequency, slot.presence, s.val)


cdef void log_probs(const Batch* b, int64_t i, const float* x, const RowStats* stats, int32_t token) noexcept nogil:
    cdef SampleResult* result = &b.results[i]
    result.logprob = <float>log_prob(x[token], stats)
    result.rank = <int32_t>(1 + K.count_above(x, b.vocab_size, x[token]))


cdef void run_row(void* ctx, int64_t i, int thread) noexcept nogil:
    cdef const Batch* b = <const Batch*>ctx
    cdef const SampleRow* row = &b.step.sample_rows[i]
    cdef SampleResult* result = &b.results[i]
    cdef SamplerSlot* slot = &b.slots[row.slot]
    cdef Scratch* s = &b.scratch[thread]
    cdef const float* x = b.logits + row.logit_row * b.row_stride
    cdef const float* edited = x
    cdef TopToken* tops = b.tops + i * b.max_top
    cdef RowStats stats
    cdef RowParams params
    cdef int64_t token = row.target, j, at
    cdef bint wanted = row.n_top >= 0 or row.kind == RowKind.score

    result[0] = SampleResult()
    if wanted:
        if stats_row(x, b.vocab_size, s, &stats) < 0:
            result.failed = 1
        elif row.n_top > 0:
            result.n_top = <int32_t>top_row(x, b.vocab_size, min(row.n_top, b.max_top), s)
            for j in range(result.n_top):
                at = <int64_t>(<uint32_t>s.keys[j])
                tops[j].token = s.idx[at]
                tops[j].logprob = <float>log_prob(s.val[at], &stats)

    if row.kind == RowKind.sample:
        if not result.failed:
            if slot.edits(row.suppress_stop):
                edit_row(slot, x, b.vocab_size, row.suppress_stop, s)
                edited = s.row
            params.temperature = slot.temperature
            params.top_p = slot.top_p
            params.min_p = slot.min_p
            params.top_k = slot.top_k
            token = sample_row(edited, b.vocab_size, &params,
                               random_bits(slot.seed, slot.choice, row.token_index, Purpose.draw), s)
            result.failed = token < 0
        b.step.last_token[row.slot] = 0 if result.failed else <int32_t>token
        if not result.failed:
            slot.push(<int32_t>token)

    if result.failed:
        return
    result.token = <int32_t>token
    if wanted:
        log_probs(b, i, x, &stats, <int32_t>token)


cdef class Sampler:
    """Draw tokens for up to `max_slots` running sequences over a vocabulary of `vocab_size`.

    `max_top` bounds the alternatives of a row, `n_threads` the threads of the pools it is used with.
    """

    def __init__(self, int64_t max_slots, int64_t vocab_size, int32_t max_top, int n_threads):
        cdef size_t i
        self.vocab_size = vocab_size
        self.max_top = max_top
        self.slots = vector[SamplerSlot](max_slots)
        self.scratch = vector[Scratch](n_threads)
        for i in range(self.scratch.size()):
            if not self.scratch[i].reserve(vocab_size):
                raise MemoryError(f"sampler: no memory for rows of {vocab_size} tokens")

    cdef int reset(self, Sequence* seq) noexcept nogil:
        return 0 if self.slots[seq.slot].reset(seq[0], self.vocab_size) else 1

    cdef int sample(self, ThreadPool* pool, const float* logits, int64_t row_stride, const StepInput* step,
                    SampleResult* results, TopToken* tops, int32_t max_top) noexcept nogil:
        cdef Batch batch
        cdef int64_t i
        batch.slots = self.slots.data()
        batch.scratch = self.scratch.data()
        batch.vocab_size = self.vocab_size
        batch.logits = logits
        batch.row_stride = row_stride
        batch.step = step
        batch.results = results
        batch.tops = tops
        batch.max_top = max_top
        if pool != NULL:
            pool_run(pool, step.n_sample_rows, run_row, &batch)
        else:
            for i in range(step.n_sample_rows):
                run_row(&batch, i, 0)
        return 0

    # ---- the same from Python, one call per event, for tests and benchmarks -----------------------

    def add(self, int32_t slot, prompt, output=(), **params):
        """Start (or restart after a preemption) a sequence in a slot; for `params` see describe_sequence()."""
        cdef Request request
        cdef Sequence seq
        if not 0 <= slot < <int64_t>self.slots.size():
            raise ValueError(f"slot: {slot} is not in [0, {self.slots.size()})")
        describe_sequence(&request, &seq, slot, prompt, output, params)
        if self.reset(&seq):
            raise MemoryError("sampler: no memory for the slot's history")

    def step(self, const float[:, :] logits, rows):
        """Serve rows of one step and return one dict per row; see sample_rows_of() and results_of()."""
        cdef StepInput step
        cdef vector[SampleRow] sample_rows = sample_rows_of(rows, logits.shape[0], self.slots.size())
        cdef vector[SampleResult] results
        cdef vector[TopToken] tops
        cdef vector[int32_t] last_token = vector[int32_t](self.slots.size())
        cdef ThreadPool* pool = NULL
        if logits.shape[1] != self.vocab_size or logits.strides[1] != sizeof(float):
            raise ValueError(f"logits: expected rows of {self.vocab_size} adjacent values")
        results.resize(sample_rows.size())
        tops.resize(sample_rows.size() * self.max_top)
        step.n_sample_rows = <int32_t>sample_rows.size()
        step.sample_rows = sample_rows.data()
        step.last_token = last_token.data()
        if self.scratch.size() > 1:
            pool = pool_create(<int>self.scratch.size())
        with nogil:
            self.sample(pool, &logits[0, 0], logits.strides[0] // <int64_t>sizeof(float), &step, results.data(),
                        tops.data(), self.max_top)
        if pool != NULL:
            pool_destroy(pool)
        return results_of(&step, results.data(), tops.data(), self.max_top)


cdef int describe_sequence(Request* request, Sequence* seq, int32_t slot, prompt, output, dict params) except -1:
    """Fill in a sequence from keyword arguments: fields of SamplingParams, and `choice`."""
    cdef SamplingParams* p = &request.params
    params = dict(params)
    seq.choice = params.pop("choice", 0)
    p.temperature = params.pop("temperature", 1)
    p.top_p = params.pop("top_p", 1)
    p.min_p = params.pop("min_p", 0)
    p.top_k = params.pop("top_k", 0)
    p.seed = params.pop("seed", 0)
    p.repetition_penalty = params.pop("repetition_penalty", 1)
    p.frequency_penalty = params.pop("frequency_penalty", 0)
    p.presence_penalty = params.pop("presence_penalty", 0)
    p.max_tokens = params.pop("max_tokens", 16)
    p.ignore_eos = params.pop("ignore_eos", False)
    p.eos_token_ids = params.pop("eos_token_ids", ())
    p.stop_token_ids = params.pop("stop_token_ids", ())
    p.logit_bias = params.pop("logit_bias", ())
    p.allowed_token_ids = params.pop("allowed_token_ids", ())
    p.bad_words = params.pop("bad_words", ())
    if params:
        raise TypeError(f"sampling parameters that do not exist: {', '.join(params)}")
    seq.request = request
    seq.slot = slot
    seq.tokens = [*prompt, *output]
    seq.n_prompt = <int32_t>len(prompt)
    return 0


cdef vector[SampleRow] sample_rows_of(rows, int64_t n_logits, int64_t n_slots) except *:
    """Make rows of a step from dicts: `logit_row`, `slot`, `token_index`; optional `n_top` (-1), `suppress_stop`, and
    `target` (a token to score instead of drawing one)."""
    cdef vector[SampleRow] sample_rows
    cdef SampleRow r
    for row in rows:
        r.logit_row = row["logit_row"]
        r.slot = row["slot"]
        r.token_index = row["token_index"]
        r.n_top = row.get("n_top", -1)
        r.suppress_stop = row.get("suppress_stop", False)
        r.kind = RowKind.score if "target" in row else RowKind.sample
        r.target = row.get("target", -1)
        if not 0 <= r.logit_row < n_logits or not 0 <= r.slot < n_slots:
            raise ValueError(f"rows: {row} is out of range")
        sample_rows.push_back(r)
    return sample_rows


cdef list results_of(const StepInput* step, const SampleResult* results, const TopToken* tops, int32_t max_top):
    """Return a dict per row, with the results' fields, `last_token` of its slot, and `top`."""
    cdef int32_t i, j
    return [
        {
            "token": results[i].token, "rank": results[i].rank, "logprob": results[i].logprob,
            "failed": bool(results[i].failed), "last_token": step.last_token[step.sample_rows[i].slot],
            "top": [(tops[i * max_top + j].token, tops[i * max_top + j].logprob) for j in range(results[i].n_top)],
        }
        for i in range(step.n_sample_rows)
    ]
