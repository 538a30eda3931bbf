"""Every unfinished sequence: see sequences.pyx."""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from rvllm._native.blocks cimport BlockManager
from rvllm._native.core cimport FinishReason, Outbox, Request, Sequence


cdef extern from "queues.h" namespace "rvllm" nogil:
    cdef cppclass WaitingQueue:
        void reserve(size_t n) except +
        int32_t size()
        Sequence* at(int32_t i)
        Sequence* top()
        void push(Sequence* s)
        void remove(Sequence* s)
        cbool sound()

    cdef cppclass DeadlineQueue:
        void reserve(size_t n) except +
        int32_t size()
        Request* at(int32_t i)
        Request* top()
        void push(Request* r)
        void remove(Request* r)
        cbool sound()

    cdef cppclass RequestMap:
        void reserve(size_t n) except +
        int32_t size()
        Request* find(uint64_t id)
        void insert(Request* r)
        void erase(uint64_t id)

    cdef cppclass RunsBefore:
        RunsBefore()
        cbool before "operator()"(const Sequence* a, const Sequence* b)


cdef extern from "sequence_state.h" namespace "rvllm" nogil:
    int32_t total_len(const Sequence* s)
    bint is_decode(const Sequence* s)
    bint is_forked(const Request* r)
    bint will_fork(const Sequence* s)
    int32_t reusable_len(const Sequence* s)
    bint ends(const Request* r, int32_t token)


cdef enum AddError:
    # Why add() refuses a request.
    ADD_OK = 0
    ADD_EMPTY = 1        # no prompt
    ADD_TOO_LONG = 2     # prompt and one token are more than max_model_len
    ADD_TOO_LARGE = 3    # one choice alone needs more blocks than there are
    ADD_TOO_MANY = 4     # more choices than max_num_seqs
    ADD_QUEUE_FULL = 5
    ADD_DUPLICATE = 6    # an unfinished request has this id


cdef class SequenceTable:
    cdef readonly BlockManager blocks
    cdef readonly int32_t max_num_seqs
    cdef readonly int32_t max_model_len
    cdef readonly int32_t max_queued
    cdef readonly int32_t depth
    cdef readonly bint by_priority

    # Sequences. `running` is in order (RunsBefore): the last one is preempted first.
    cdef Sequence** running          # [max_num_seqs]
    cdef WaitingQueue waiting        # not yet started, and preempted
    cdef vector[Sequence*] releasing  # hold slot and blocks until their last step is done
    cdef RequestMap requests         # unfinished
    cdef DeadlineQueue deadlines
    cdef uint64_t n_arrivals
    cdef int32_t n_queued            # requests in `waiting` that never ran
    cdef int32_t* free_slots         # [max_num_seqs] sampler slots, a stack
    cdef int32_t n_free_slots
    cdef int32_t n_reserved          # of these, kept for choices that have not forked yet
    cdef Sequence* blocked           # head of `waiting` that lacked blocks

    # Steps in flight: their ids are completed + 1 .. step_id.
    cdef uint64_t step_id
    cdef uint64_t completed
    cdef int64_t now_us              # of the last call that told

    # What the engine publishes.
    cdef readonly int32_t n_running
    cdef readonly int32_t n_waiting

    cdef bint has_work(self) noexcept nogil
    cdef int add(self, Request* r) noexcept nogil
    cdef bint cancel(self, uint64_t id, int32_t choice, FinishReason reason, Outbox* out) noexcept nogil
    cdef const char* check(self) noexcept nogil

    # Parts of the above, and of the scheduler.
    cdef void expire(self, Outbox* out) noexcept nogil
    cdef void finish_request(self, Request* r, FinishReason reason, Outbox* out) noexcept nogil
    cdef void finish(self, Sequence* s, FinishReason reason) noexcept nogil
    cdef void tell_finished(self, Sequence* s, Outbox* out) noexcept nogil
    cdef void enqueue(self, Sequence* s) noexcept nogil
    cdef void dequeue(self, Sequence* s) noexcept nogil
    cdef int32_t place_of(self, const Sequence* s) noexcept nogil
    cdef void insert_running(self, Sequence* s) noexcept nogil
    cdef void remove_running(self, Sequence* s) noexcept nogil
    cdef void let_go(self, Sequence* s) noexcept nogil
    cdef void release_done(self) noexcept nogil
    cdef void release(self, Sequence* s) noexcept nogil
    cdef const char* check_held(self, const Sequence* s, vector[int32_t]* n_holders,
                                vector[int32_t]* slot_used) noexcept nogil
