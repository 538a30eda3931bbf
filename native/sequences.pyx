# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Every unfinished sequence: in which queue it is, and what it holds.

A sequence waits (not yet started, or preempted), runs, or is finished. What it holds (blocks, sampler slot, its memory)
goes back together, once the last step that touches it is done; until then it is also in `releasing`. A request is
deleted with its last sequence.

Cost: the queue takes its logarithm per admission or cancellation; the rest is constant.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove
from libcpp.algorithm cimport sort
from libcpp.vector cimport vector

from rvllm._native.blocks cimport BlockManager
from rvllm._native.core cimport Event, EventKind, FinishReason, Outbox, Request, SeqState, Sequence


cdef extern from "outbox.h" namespace "rvllm" nogil:
    Event* add_event(Outbox* out, const Sequence* s, EventKind kind, int64_t now_us)


cdef class SequenceTable:
    """What the scheduler chooses from: its base, which says what its arguments are."""

    def __cinit__(self, BlockManager blocks not None, *, int32_t max_num_seqs, int32_t max_model_len,
                  str policy="fcfs", int32_t depth=1, int32_t max_queued=1024, **_steps):
        cdef int32_t i
        if not 1 <= max_num_seqs <= 65535:
            raise ValueError(f"max_num_seqs is {max_num_seqs}: use 1 to 65535")
        if max_model_len < 2:
            raise ValueError(f"max_model_len is {max_model_len}: at least 2")
        if policy not in ("fcfs", "priority"):
            raise ValueError(f"policy is {policy!r}: use 'fcfs' or 'priority'")
        if not 1 <= depth <= 2:
            raise ValueError(f"depth is {depth}: use 1 or 2")
        if max_queued < 0:
            raise ValueError(f"max_queued is {max_queued}: at least 0")
        self.blocks = blocks
        self.max_num_seqs = max_num_seqs
        self.max_model_len = max_model_len
        self.by_priority = policy == "priority"
        self.depth = depth
        self.max_queued = max_queued
        self.running = <Sequence**> calloc(max_num_seqs, sizeof(void*))
        self.free_slots = <int32_t*> calloc(max_num_seqs, sizeof(int32_t))
        if self.running is NULL or self.free_slots is NULL:
            raise MemoryError("no memory for the scheduler's queues")
        self.n_free_slots = max_num_seqs
        for i in range(max_num_seqs):
            self.free_slots[i] = max_num_seqs - 1 - i
        self.waiting.reserve(max_queued + 2 * max_num_seqs)
        self.deadlines.reserve(max_queued + 2 * max_num_seqs)
        self.requests.reserve(max_queued + 2 * max_num_seqs)
        self.releasing.reserve(4 * max_num_seqs)

    def __dealloc__(self):
        cdef vector[Request*] rest
        cdef int32_t i
        # Sequences of one request may be in several of these places.
        for i in range(self.n_running):
            rest.push_back(self.running[i].request)
        for i in range(self.waiting.size()):
            rest.push_back(self.waiting.at(i).request)
        for i in range(<int32_t> self.releasing.size()):
            rest.push_back(self.releasing[i].request)
        delete_once(&rest)
        free(self.running)
        free(self.free_slots)

    cdef bint has_work(self) noexcept nogil:
        """Whether any request is unfinished."""
        return self.requests.size() > 0

    # ---- requests ----------------------------------------------------------------------------------

    cdef int add(self, Request* r) noexcept nogil:
        """Queue a request whose first sequence holds the prompt. It belongs to the scheduler if ADD_OK is returned."""
        cdef int64_t n_prompt = r.sequences[0].tokens.size() if r.sequences.size() else 0
        cdef int32_t n = r.params.n
        cdef int64_t max_len = min(n_prompt + max(1, r.params.max_tokens), <int64_t> self.max_model_len)
        cdef int32_t i
        cdef Sequence* s
        if n_prompt == 0:
            return ADD_EMPTY
        if n_prompt + 1 > self.max_model_len:
            return ADD_TOO_LONG
        if self.blocks.n_for(max_len - 1) > self.blocks.n_blocks:
            return ADD_TOO_LARGE
        if not 1 <= n <= self.max_num_seqs:
            return ADD_TOO_MANY
        if self.n_queued >= self.max_queued + self.n_free_slots - self.n_reserved:
            return ADD_QUEUE_FULL
        if self.requests.find(r.id) is not NULL:
            return ADD_DUPLICATE
        self.n_arrivals += 1
        r.sequences.resize(n)
        r.n_unfinished = n
        for i in range(n):
            s = &r.sequences[i]
            s.request = r
            s.choice = i
            s.n_prompt = <int32_t> n_prompt
            s.max_len = <int32_t> max_len
            s.order = self.n_arrivals << 16 | i
            s.priority = r.priority if self.by_priority else 0
        self.requests.insert(r)
        if r.deadline_us:
            self.deadlines.push(r)
        self.n_queued += 1
        self.enqueue(&r.sequences[0])
        return ADD_OK

    cdef bint cancel(self, uint64_t id, int32_t choice, FinishReason reason, Outbox* out) noexcept nogil:
        """End a request, or one choice of it (-1: all). False when there is no such unfinished one.

        A choice can only be ended alone once the choices run, that is, when the prompt is scheduled.
        """
        cdef Request* r = self.requests.find(id)
        cdef Sequence* s
        if r is NULL:
            return False
        if choice < 0 or r.params.n == 1:
            self.finish_request(r, reason, out)
        else:
            if choice >= r.params.n or not is_forked(r):
                return False
            s = &r.sequences[choice]
            if s.state == SeqState.finished:
                return False
            self.finish(s, reason)
            self.tell_finished(s, out)
        self.release_done()
        return True

    cdef void expire(self, Outbox* out) noexcept nogil:
        """End the requests whose deadline has passed."""
        while self.deadlines.size() and self.deadlines.top().deadline_us <= self.now_us:
            self.finish_request(self.deadlines.top(), FinishReason.deadline, out)
        self.release_done()

    cdef void finish_request(self, Request* r, FinishReason reason, Outbox* out) noexcept nogil:
        cdef size_t i
        for i in range(r.sequences.size()):
            if r.sequences[i].state != SeqState.finished:
                self.finish(&r.sequences[i], reason)
                self.tell_finished(&r.sequences[i], out)

    cdef void finish(self, Sequence* s, FinishReason reason) noexcept nogil:
        """Take a sequence out of its queue. It lets go of what it holds in release_done()."""
        cdef Request* r = s.request
        if s.queue_pos >= 0:
            self.dequeue(s)
        elif s.state == SeqState.running:
            self.remove_running(s)
        s.state = SeqState.finished
        s.finish = reason
        self.let_go(s)
        r.n_unfinished -= 1
        if r.n_unfinished == 0:
            self.requests.erase(r.id)
            if r.deadline_us:
                self.deadlines.remove(r)

    cdef void tell_finished(self, Sequence* s, Outbox* out) noexcept nogil:
        add_event(out, s, EventKind.finished, self.now_us).finish = s.finish

    # ---- queues ------------------------------------------------------------------------------------

    cdef void enqueue(self, Sequence* s) noexcept nogil:
        self.waiting.push(s)
        self.n_waiting = self.waiting.size()

    cdef void dequeue(self, Sequence* s) noexcept nogil:
        self.waiting.remove(s)
        self.n_waiting = self.waiting.size()
        if s == self.blocked:
            self.blocked = NULL
        if s.state == SeqState.waiting:
            self.n_queued -= 1

    cdef int32_t place_of(self, const Sequence* s) noexcept nogil:
        """Number of running sequences that come before s."""
        cdef RunsBefore order
        cdef int32_t low = 0, high = self.n_running, middle
        while low < high:
            middle = (low + high) / 2
            if order.before(self.running[middle], s):
                low = middle + 1
            else:
                high = middle
        return low

    cdef void insert_running(self, Sequence* s) noexcept nogil:
        """Take a sampler slot and join the running sequences."""
        cdef int32_t i = self.place_of(s)
        self.n_free_slots -= 1
        s.slot = self.free_slots[self.n_free_slots]
        s.state = SeqState.running
        memmove(self.running + i + 1, self.running + i, (self.n_running - i) * sizeof(void*))
        self.running[i] = s
        self.n_running += 1

    cdef void remove_running(self, Sequence* s) noexcept nogil:
        cdef int32_t i = self.place_of(s)
        self.n_running -= 1
        memmove(self.running + i, self.running + i + 1, (self.n_running - i) * sizeof(void*))
        if will_fork(s):
            self.n_reserved -= s.request.params.n - 1

    # ---- giving back -------------------------------------------------------------------------------

    cdef void let_go(self, Sequence* s) noexcept nogil:
        if not s.releasing:
            s.releasing = True
            s.request.n_releasing += 1
            self.releasing.push_back(s)

    cdef void release_done(self) noexcept nogil:
        """Take back what the sequences in `releasing` hold, as far as no step in flight touches it."""
        cdef size_t i, n = 0
        cdef Sequence* s
        for i in range(self.releasing.size()):
            s = self.releasing[i]
            if s.last_step > self.completed:
                self.releasing[n] = s
                n += 1
            else:
                self.release(s)
        self.releasing.resize(n)

    cdef void release(self, Sequence* s) noexcept nogil:
        cdef Request* r = s.request
        self.blocks.release(s)
        s.n_computed = 0
        if s.slot >= 0:
            self.free_slots[self.n_free_slots] = s.slot
            self.n_free_slots += 1
            s.slot = -1
        s.releasing = False
        r.n_releasing -= 1
        if r.n_unfinished == 0 and r.n_releasing == 0:
            del r

    # ---- invariants --------------------------------------------------------------------------------

    cdef const char* check(self) noexcept nogil:
        """Check every invariant of the scheduler and its blocks. NULL, or what is wrong."""
        cdef vector[int32_t] n_holders, slot_used
        cdef int32_t i
        cdef int32_t n_reserved = 0, n_queued = 0
        cdef Sequence* s
        cdef const char* wrong
        cdef RunsBefore order
        n_holders.resize(self.blocks.n_blocks)
        slot_used.resize(self.max_num_seqs)
        if self.step_id - self.completed > <uint64_t> self.depth:
            return "more steps are in flight than `depth`"
        for i in range(self.n_running):
            s = self.running[i]
            if s.state != SeqState.running or s.releasing or s.queue_pos != -1:
                return "a running sequence is in a second place"
            if i and not order.before(self.running[i - 1], s):
                return "the running sequences are not in order"
            if s.n_computed > total_len(s) or total_len(s) > s.max_len:
                return "a sequence is computed beyond its length"
            if <int32_t> s.blocks.size() < self.blocks.n_for(s.n_computed):
                return "a block table is shorter than what is computed"
            if will_fork(s):
                n_reserved += s.request.params.n - 1
            wrong = self.check_held(s, &n_holders, &slot_used)
            if wrong is not NULL:
                return wrong
        for i in range(<int32_t> self.releasing.size()):
            s = self.releasing[i]
            if not s.releasing or s.state == SeqState.running or s.state == SeqState.waiting:
                return "a sequence gives back what it still needs"
            if s.last_step <= self.completed:
                return "a sequence was not released although its last step is done"
            if s.slot >= 0:
                wrong = self.check_held(s, &n_holders, &slot_used)
                if wrong is not NULL:
                    return wrong
        for i in range(self.waiting.size()):
            s = self.waiting.at(i)
            n_queued += s.state == SeqState.waiting
            if s.state != SeqState.waiting and s.state != SeqState.preempted:
                return "a sequence in the queue is neither waiting nor preempted"
            if not s.releasing and (s.n_in_flight or s.slot >= 0 or s.blocks.size() or s.n_computed):
                return "a sequence in the queue holds something"
        if not self.waiting.sound() or not self.deadlines.sound():
            return "a queue is not a heap"
        if n_reserved != self.n_reserved or n_queued != self.n_queued or self.n_waiting != self.waiting.size():
            return "a counter of the queues is wrong"
        for i in range(self.n_free_slots):
            slot_used[self.free_slots[i]] += 1
        for i in range(self.max_num_seqs):
            if slot_used[i] != 1:
                return "a sampler slot is lost or used twice"
        if self.n_reserved > self.n_free_slots:
            return "more sampler slots are promised than free"
        return self.blocks.check(n_holders.data())

    cdef const char* check_held(self, const Sequence* s, vector[int32_t]* n_holders,
                                vector[int32_t]* slot_used) noexcept nogil:
        cdef size_t i
        if s.n_in_flight < 0 or s.n_in_flight > self.depth:
            return "the draws in flight of a sequence are not between 0 and `depth`"
        if s.last_step > self.step_id:
            return "a sequence waits for a step that was never scheduled"
        if s.slot < 0 or s.slot >= self.max_num_seqs:
            return "a sequence runs without a sampler slot"
        slot_used[0][s.slot] += 1
        for i in range(s.blocks.size()):
            if s.blocks[i] < 0 or s.blocks[i] >= self.blocks.n_blocks:
                return "a block table holds something that is no block"
            n_holders[0][s.blocks[i]] += 1
        return NULL


cdef void delete_once(vector[Request*]* requests) noexcept nogil:
    """Delete requests that may be listed more than once."""
    cdef size_t i
    cdef Request* r
    sort(requests.begin(), requests.end())
    for i in range(requests.size()):
        if i == 0 or requests[0][i] != requests[0][i - 1]:
            r = requests[0][i]
            del r
