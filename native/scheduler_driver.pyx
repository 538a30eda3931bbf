# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Drive the scheduler from Python, without a model: for tests and benchmarks.

The engine does not use this module; it calls the same functions from its thread, without the GIL.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libcpp.vector cimport vector

from rvllm._native.clock cimport monotonic_ns
from rvllm._native.core cimport (
    FinishReason, Outbox, Request, RowKind, SampleResult, SampleRow, Sequence, StepInput, StepLimits, TopToken,
    step_input_bytes, step_input_layout,
)
from rvllm._native.scheduler cimport Scheduler
from rvllm._native.sequences cimport (
    ADD_DUPLICATE, ADD_EMPTY, ADD_OK, ADD_QUEUE_FULL, ADD_TOO_LARGE, ADD_TOO_LONG, ADD_TOO_MANY,
)


cdef enum:
    MAX_TOP = 4
    MAX_DEPTH = 2

ADD_ERRORS = {
    ADD_OK: None, ADD_EMPTY: "empty", ADD_TOO_LONG: "too long", ADD_TOO_LARGE: "too large", ADD_TOO_MANY: "too many",
    ADD_QUEUE_FULL: "queue full", ADD_DUPLICATE: "duplicate",
}
EVENT_KINDS = ("started", "token", "prompt_logprob", "finished")
FINISH_REASONS = (None, "stop", "length", "abort", "error", "deadline")
STATES = ("waiting", "running", "preempted", "finished")


cdef struct Flight:
    StepInput* step
    void* memory


cdef class SchedulerDriver:
    """A scheduler with the step inputs and the outbox that an engine would give it."""

    cdef readonly Scheduler scheduler
    cdef Flight flights[MAX_DEPTH]
    cdef vector[SampleResult] results
    cdef vector[TopToken] tops
    cdef Outbox outbox
    cdef uint64_t next_id

    def __init__(self, Scheduler scheduler not None):
        cdef StepLimits limits = scheduler.limits()
        cdef int i
        self.scheduler = scheduler
        self.next_id = 1
        for i in range(scheduler.depth):
            self.flights[i].step = new StepInput()
            self.flights[i].memory = calloc(1, step_input_bytes(limits) + 64)
            if self.flights[i].memory is NULL:
                raise MemoryError("no memory for the step inputs")
            step_input_layout(self.flights[i].step, limits,
                              <void*> ((<size_t> self.flights[i].memory + 63) & ~<size_t> 63))
        self.results.resize(limits.max_rows)
        self.tops.resize(limits.max_rows * MAX_TOP)

    def __dealloc__(self):
        for flight in self.flights:
            del flight.step
            free(flight.memory)

    # ---- requests ----------------------------------------------------------------------------------

    def add(self, uint64_t request_id, prompt, *, int n=1, int max_tokens=16, int min_tokens=0, stop_token_ids=(),
            eos_token_ids=(), bint ignore_eos=False, int priority=0, int64_t deadline_us=0, logprobs=None,
            prompt_logprobs=None, uint64_t extras_hash=0):
        """Queue a request; return None, or why it was refused."""
        cdef Request* r = new Request()
        cdef int refused
        r.id = request_id
        r.priority = priority
        r.deadline_us = deadline_us
        r.extras_hash = extras_hash
        r.params.n = n
        r.params.max_tokens = max_tokens
        r.params.min_tokens = min_tokens
        r.params.stop_token_ids = stop_token_ids
        r.params.eos_token_ids = eos_token_ids
        r.params.ignore_eos = ignore_eos
        r.params.n_logprobs = -1 if logprobs is None else logprobs
        r.params.n_prompt_logprobs = -1 if prompt_logprobs is None else prompt_logprobs
        r.sequences.resize(1)
        r.sequences[0].tokens = prompt
        refused = self.scheduler.add(r)
        if refused != ADD_OK:
            del r
        return ADD_ERRORS[refused]

    def cancel(self, uint64_t request_id, int choice=-1, str reason="abort") -> bool:
        cdef FinishReason why = <FinishReason> <int> FINISH_REASONS.index(reason)
        return self.scheduler.cancel(request_id, choice, why, &self.outbox)

    def sequence(self, uint64_t request_id, int choice=0) -> dict:
        """Return what the scheduler knows about one choice of an unfinished request."""
        cdef Request* r = self.scheduler.requests.find(request_id)
        if r is NULL:
            raise KeyError(request_id)
        cdef Sequence* s = &r.sequences[choice]
        return {
            "state": STATES[<int> s.state], "tokens": s.tokens, "n_computed": s.n_computed, "slot": s.slot,
            "n_in_flight": s.n_in_flight, "n_cached": s.n_cached, "blocks": s.blocks, "n_scored": s.n_scored,
        }

    # ---- steps -------------------------------------------------------------------------------------

    def schedule(self, int64_t now_us=0):
        """Schedule a step; return its arrays as a dict of lists, or None when there is nothing to run."""
        cdef StepInput* step = self.flights[(self.scheduler.step_id + 1) % self.scheduler.depth].step
        if not self.scheduler.schedule(step, now_us, &self.outbox):
            return None
        return self.describe(step)

    cdef dict describe(self, StepInput* step):
        cdef int32_t i
        cdef Sequence* s
        cdef Sequence** members = self.scheduler.sequences_of(step)
        cdef SampleRow* row
        rows = []
        for i in range(step.n_sample_rows):
            row = &step.sample_rows[i]
            s = <Sequence*> row.seq
            rows.append({
                "seq": (s.request.id, s.choice), "logit_row": row.logit_row, "slot": row.slot, "target": row.target,
                "n_top": row.n_top, "token_index": row.token_index, "score": row.kind == RowKind.score,
                "suppress_stop": bool(row.suppress_stop),
            })
        admitted = []
        for i in range(step.n_admitted):
            s = <Sequence*> step.admitted[i]
            admitted.append(((s.request.id, s.choice), s.slot, s.tokens))
        start = [step.tables[0].start[i] for i in range(step.n_seqs + 1)]
        return {
            "step_id": step.step_id,
            "seqs": [(members[i].request.id, members[i].choice) for i in range(step.n_seqs)],
            "token_ids": [step.token_ids[i] for i in range(step.n_tokens)],
            "positions": [step.positions[i] for i in range(step.n_tokens)],
            "slots": [step.slots[0][i] for i in range(step.n_tokens)],
            "query_start": [step.query_start[i] for i in range(step.n_seqs + 1)],
            "kv_len": [step.kv_len[i] for i in range(step.n_seqs)],
            "tables": [[step.tables[0].blocks[k] for k in range(start[i], start[i + 1])] for i in range(step.n_seqs)],
            "logit_rows": [step.logit_rows[i] for i in range(step.n_rows)],
            "rows": rows,
            "copies": [(step.copies[i].src, step.copies[i].dst) for i in range(step.n_copies)],
            "returns_late": bool(step.returns_late),
            "admitted": admitted,
            "max_query_len": step.max_query_len,
            "max_kv_len": step.max_kv_len,
        }

    def update(self, uint64_t step_id, results, int64_t now_us=0):
        """Give the results of the oldest step: per row (token, log-probability, rank, failed, [(token, logprob)])."""
        cdef StepInput* step = self.flights[step_id % self.scheduler.depth].step
        cdef int32_t i, k
        assert step_id == self.scheduler.completed + 1 and len(results) == step.n_sample_rows
        for i, (token, logprob, rank, failed, top) in enumerate(results):
            self.results[i].token = token
            self.results[i].logprob = logprob
            self.results[i].rank = rank
            self.results[i].failed = failed
            self.results[i].n_top = len(top)
            for k, (token, logprob) in enumerate(top):
                self.tops[i * MAX_TOP + k].token = token
                self.tops[i * MAX_TOP + k].logprob = logprob
        self.scheduler.update(step, self.results.data(), self.tops.data(), MAX_TOP, now_us, &self.outbox)

    def fail(self, uint64_t step_id, int64_t now_us=0):
        assert step_id == self.scheduler.completed + 1
        self.scheduler.fail(self.flights[step_id % self.scheduler.depth].step, now_us, &self.outbox)

    def events(self) -> list[dict]:
        """Return the events since the last call."""
        out = []
        for e in self.outbox.events:
            out.append({
                "id": e.request_id, "choice": e.choice, "kind": EVENT_KINDS[<int> e.kind], "t_us": e.t_us,
                "finish": FINISH_REASONS[<int> e.finish], "token": e.token, "index": e.index,
                "logprob": e.logprob if e.has_logprob else None, "rank": e.rank,
                "top": [(self.outbox.tops[i].token, self.outbox.tops[i].logprob)
                        for i in range(e.top_start, e.top_start + e.n_top)],
            })
        self.outbox.events.clear()
        self.outbox.tops.clear()
        return out

    def n_free(self) -> int:
        return self.scheduler.blocks.n_free()

    def has_work(self) -> bool:
        return self.scheduler.has_work()

    def check(self):
        """Raise AssertionError when an invariant does not hold."""
        cdef const char* wrong = self.scheduler.check()
        if wrong is not NULL:
            raise AssertionError(wrong.decode())

    # ---- timing ------------------------------------------------------------------------------------

    def fill(self, int n, int n_prompt, int max_tokens) -> None:
        """Add n requests with prompts of their own. Their ids go on from the last."""
        cdef int _i
        for _i in range(n):
            if self.scheduler.add(self.make_request(n_prompt, max_tokens)) != ADD_OK:
                raise ValueError("the scheduler refused a request")

    cdef Request* make_request(self, int n_prompt, int max_tokens) noexcept nogil:
        cdef Request* r = new Request()
        cdef int32_t k
        r.id = self.next_id
        r.params.max_tokens = max_tokens
        r.params.eos_token_ids.push_back(2)
        r.sequences.resize(1)
        r.sequences[0].tokens.reserve(n_prompt + max_tokens)
        for k in range(n_prompt):
            r.sequences[0].tokens.push_back(<int32_t> (self.next_id * 1000003 + k * 7919) & 0x7fff | 0x8000)
        self.next_id += 1
        return r

    def time_steps(self, int n_steps, double n_cancel=0, int n_prompt=16, int max_tokens=1024) -> list[int]:
        """Run n_steps steps at depth 1 with a sampler that costs nothing, or as many as there are; return nanoseconds.

        Timed: schedule() and update(), and the cancellations before a step, n_cancel on average. As many new requests
        come in; they are built outside of the timed part, as in an engine other threads build them.
        """
        cdef vector[int64_t] times
        cdef vector[Request*] fresh
        cdef int64_t start, spent
        cdef StepInput* step = self.flights[0].step
        cdef int i, _k
        cdef int32_t k
        cdef int32_t n_now
        cdef bint scheduled
        cdef double due = 0
        cdef uint64_t random = 88172645463325252
        if self.scheduler.depth != 1:
            raise ValueError("time_steps() needs depth 1")
        times.reserve(n_steps)
        with nogil:
            for i in range(n_steps):
                due += n_cancel
                n_now = <int32_t> due
                due -= n_now
                for _k in range(n_now):
                    fresh.push_back(self.make_request(n_prompt, max_tokens))
                start = monotonic_ns()
                for k in range(n_now):
                    random ^= random << 13
                    random ^= random >> 7
                    random ^= random << 17
                    self.scheduler.cancel(self.scheduler.running[random % self.scheduler.n_running].request.id, -1,
                                          FinishReason.abort, &self.outbox)
                    self.scheduler.add(fresh[k])
                scheduled = self.scheduler.schedule(step, i, &self.outbox)
                spent = monotonic_ns() - start
                fresh.clear()
                if not scheduled:
                    break
                for k in range(step.n_sample_rows):
                    self.results[k].token = 0x10000 + i
                start = monotonic_ns()
                self.scheduler.update(step, self.results.data(), self.tops.data(), MAX_TOP, i, &self.outbox)
                times.push_back(spent + monotonic_ns() - start)
                self.outbox.events.clear()
        return times
