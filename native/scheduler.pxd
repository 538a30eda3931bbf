"""The scheduler: see scheduler.pyx."""
from libc.stdint cimport int32_t, int64_t, uint64_t

from rvllm._native.core cimport Outbox, SampleResult, SampleRow, Sequence, StepInput, StepLimits, TopToken
from rvllm._native.sequences cimport SequenceTable

cdef extern from "step_pace.h" namespace "rvllm" nogil:
    cdef cppclass StepPace:
        void begin(uint64_t id, int64_t now_us, int32_t n_decodes, int32_t n_prompt_tokens)
        void end(uint64_t id, int64_t now_us)
        int32_t room(uint64_t done, uint64_t last, int64_t now_us)


cdef class Scheduler(SequenceTable):
    cdef readonly int32_t max_num_batched_tokens
    cdef readonly int32_t max_prefill_chunk
    cdef readonly int32_t max_mixed_tokens
    cdef readonly int32_t short_prompt  # tokens to compute up to which a prompt may go beyond max_mixed_tokens
    cdef readonly int32_t max_rows
    cdef readonly int32_t max_moves  # blocks between the tiers in one step, each way
    cdef int32_t budget              # tokens of the step that is being built
    cdef int32_t n_decodes           # of the step that is being built
    cdef int32_t short_room          # tokens of it up to which it may start short prompts: decodes may be owed time
    cdef StepPace pace
    cdef int32_t* found              # [blocks of max_model_len] what lookup() returns
    cdef int32_t blocked_need        # blocks that `blocked` needs
    cdef StepInput* steps[2]         # those being built or in flight, by id % depth
    cdef Sequence** members          # [depth, max_num_seqs] sequences of a step, by id % depth

    # What the engine publishes.
    cdef readonly int64_t n_preemptions
    cdef readonly int64_t n_prefix_queries  # prompt tokens looked up in the prefix cache
    cdef readonly int64_t n_prefix_hits     # of these, found
    cdef readonly int64_t n_host_hits       # of those found, in the second tier
    cdef readonly int64_t n_prompt_tokens   # computed or found, once per request
    cdef readonly int64_t n_generated
    cdef readonly int64_t n_steps

    cdef StepLimits limits(self) noexcept nogil
    cdef bint schedule(self, StepInput* step, int64_t now_us, Outbox* out) noexcept nogil
    cdef void update(self, StepInput* step, const SampleResult* results, const TopToken* tops, int32_t max_top,
                     int64_t now_us, Outbox* out) noexcept nogil
    cdef void fail(self, StepInput* step, int64_t now_us, Outbox* out) noexcept nogil
    cdef Sequence** sequences_of(self, const StepInput* step) noexcept nogil

    # Parts of schedule().
    cdef void run_decodes(self, StepInput* step) noexcept nogil
    cdef bint secure_block(self, Sequence* s) noexcept nogil
    cdef void preempt(self, Sequence* s) noexcept nogil
    cdef void run_prefills(self, StepInput* step, Outbox* out) noexcept nogil
    cdef bint waits_for_blocks(self, Sequence* s, StepInput* step) noexcept nogil
    cdef bint holds_late(self, const Sequence* s, const StepInput* step) noexcept nogil
    cdef void count_moves(self, const Sequence* s, int32_t n_moved) noexcept nogil
    cdef void admit(self, StepInput* step, Outbox* out) noexcept nogil
    cdef int32_t n_growing(self) noexcept nogil
    cdef bint may_grow(self, const Sequence* s) noexcept nogil
    cdef void start(self, Sequence* s, int32_t n_found, int32_t n_total, StepInput* step) noexcept nogil
    cdef void tell_started(self, Sequence* s, Outbox* out) noexcept nogil
    cdef int32_t room_for(self, int32_t n_left, const StepInput* step) noexcept nogil
    cdef int32_t chunk_of(self, const Sequence* s, int32_t begin, const StepInput* step) noexcept nogil
    cdef void run(self, Sequence* s, int32_t n, StepInput* step) noexcept nogil
    cdef void draw(self, Sequence* s, StepInput* step) noexcept nogil
    cdef void fork(self, Sequence* parent, Sequence* child, StepInput* step) noexcept nogil

    # Parts of update() and fail().
    cdef void accept(self, Sequence* s, const SampleResult* result, const TopToken* tops, Outbox* out) noexcept nogil
    cdef void tell_score(self, const SampleRow* row, const SampleResult* result, const TopToken* tops,
                         Outbox* out) noexcept nogil
    cdef void spoil(self, Sequence* s, Outbox* out) noexcept nogil
    cdef void lose_copies(self, StepInput* step, Outbox* out) noexcept nogil
