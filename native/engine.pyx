# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The engine thread: commands in, steps, events out.

One native thread owns the scheduler, the blocks, the sampler and the bound plan, and never takes the GIL: commands and
events pass through mailbox.h. The methods of EngineCore are the other side of that mailbox and run on Python threads.
The loop is noexcept; a step that fails ends the requests of that step and nothing else.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libcpp cimport bool as cbool
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from rvllm._native.blocks cimport BlockManager
from rvllm._native.bound_plan cimport BoundPlan
from rvllm._native.clock cimport monotonic_us
from rvllm._native.core cimport (
    Backend, Command, Event, EventKind, FinishReason, Mailbox, Outbox, Request, SampleResult, SamplerLimits, Sequence,
    StepInput, TopToken, command_add, command_cancel, command_stop, kMaxBadWordTokens,
    kMaxEndTokens, kMaxLogitBias, step_input_bytes, step_input_layout,
)
from rvllm._native.engine_thread cimport EngineCounters, EngineThread, HISTOGRAM_BUCKETS, LogHistogram, ThreadMain
from rvllm._native.sampler cimport Sampler, ThreadPool, pool_threads
from rvllm._native.scheduler cimport Scheduler


cdef enum:
    MAX_DEPTH = 2


cdef struct Flight:
    # One step between launch and finish: its input, and what the sampler drew.
    StepInput* step
    void* memory
    SampleResult* results  # [max_rows], in memory that the backend may write while the host goes on
    TopToken* tops         # [max_rows][max_top], likewise
    uint64_t ticket


@cython.no_gc_clear  # __dealloc__ needs the plan's backend
cdef class EngineCore:
    """The native engine: a thread, and the Python side of its mailbox.

    Built from parts that it then owns alone: nothing else may touch `plan` or `scheduler` while the thread runs. With
    the scheduler's depth of 2, step i + 1 is scheduled and sent before the result of step i is known. `max_top` bounds
    the alternatives of log-probabilities. Tokens are drawn on the device where it has a sampler, else by the host's.
    """
    cdef BoundPlan plan
    cdef Scheduler scheduler
    cdef BlockManager blocks
    cdef Sampler sampler      # of the host; None where the device draws
    cdef Mailbox mailbox
    cdef vector[Command] posted  # and not yet sent
    cdef bint holding
    cdef EngineCounters counters
    cdef EngineThread thread
    cdef vector[Command] commands
    cdef Outbox outbox      # engine thread
    cdef Outbox received    # reader
    cdef Flight flights[MAX_DEPTH]
    cdef int32_t* last_token  # by sampler slot: written by the host's sampler, read by the next step
    cdef cbool draws_on_device
    cdef int64_t away_us      # since the loop last turned: in the backend and the sampler
    cdef int depth
    cdef int max_top

    def __cinit__(self):
        cdef int i
        for i in range(MAX_DEPTH):
            self.flights[i].step = NULL
            self.flights[i].memory = NULL
            self.flights[i].results = NULL
            self.flights[i].tops = NULL

    def __init__(self, BoundPlan plan not None, Scheduler scheduler not None, *, int max_top=20):
        cdef int i
        cdef size_t rows = plan.limits.max_rows
        cdef Backend* b = plan.backend
        cdef SamplerLimits limits
        self.plan, self.scheduler, self.blocks = plan, scheduler, scheduler.blocks
        self.depth = scheduler.depth
        self.max_top = max_top
        self.draws_on_device = b.prepare_sampler != NULL
        if self.draws_on_device:
            limits = plan.sampler_limits(max_top)
            if b.prepare_sampler(b, &plan.device_step, plan.logits, plan.logits_stride, &limits):
                raise MemoryError((<const char*> b.error).decode())
        else:
            self.sampler = Sampler(plan.limits.max_seqs, plan.vocab_size, max_top,
                                   pool_threads(<ThreadPool*> b.device))
            self.last_token = <int32_t*> calloc(plan.limits.max_seqs, sizeof(int32_t))
            if not self.last_token:
                raise MemoryError("no memory for the last tokens")
            plan.device_step.last_token = self.last_token
        for i in range(self.depth):
            self.flights[i].step = new StepInput()
            self.flights[i].memory = calloc(1, step_input_bytes(plan.limits) + 64)
            self.flights[i].results = <SampleResult*> b.alloc_host(b, rows * sizeof(SampleResult))
            self.flights[i].tops = <TopToken*> b.alloc_host(b, self.tops_bytes())
            if not self.flights[i].memory or not self.flights[i].results or not self.flights[i].tops:
                raise MemoryError("no memory for the step inputs")
            step_input_layout(self.flights[i].step, plan.limits,
                              <void*> ((<size_t> self.flights[i].memory + 63) & ~<size_t> 63))
            self.flights[i].step.last_token = self.last_token

    cdef size_t tops_bytes(self) noexcept nogil:
        return <size_t> self.plan.limits.max_rows * max(self.max_top, 1) * sizeof(TopToken)

    def __dealloc__(self):
        cdef int i
        cdef Backend* b
        if self.thread.joinable():
            self.stop_thread()
        for i in range(MAX_DEPTH):
            del self.flights[i].step
            free(self.flights[i].memory)
            if self.flights[i].results:
                b = self.plan.backend
                b.free_host(b, self.flights[i].results, self.plan.limits.max_rows * sizeof(SampleResult))
            if self.flights[i].tops:
                b = self.plan.backend
                b.free_host(b, self.flights[i].tops, self.tops_bytes())
        free(self.last_token)

    # ---- the Python side ---------------------------------------------------------------------------

    def start(self):
        """Start the engine thread."""
        if self.thread.joinable():
            raise RuntimeError("the engine runs already")
        self.counters.heartbeat_us.set(monotonic_us())
        self.counters.n_free_blocks.set(self.blocks.n_free())
        self.counters.alive.set(1)
        self.thread.start(<ThreadMain> <void*> engine_main, <void*> self)

    def stop(self):
        """End the engine thread after the step it is in; unfinished requests get no further event."""
        if self.thread.joinable():
            self.stop_thread()

    cdef void stop_thread(self):
        cdef Command command
        command.kind = command_stop
        self.holding = False
        self.post(command)
        with nogil:
            self.thread.join()

    def fileno(self) -> int:
        """Return the eventfd that becomes readable when drain() has something."""
        return self.mailbox.fileno()

    def add(self, uint64_t request_id, const int32_t[::1] prompt, params, int n_choices, *, uint64_t seed,
            int32_t max_tokens, eos_token_ids=(), bad_words=(), int32_t priority=0, int64_t deadline_us=0,
            uint64_t extras_hash=0):
        """Hand a request to the engine.

        `prompt` holds token ids that the caller has checked against the vocabulary; `params` is a SamplingParams whose
        ranges the caller has checked. `bad_words` are token id sequences; `deadline_us` is on the monotonic clock.
        """
        cdef Request* r = new Request()
        cdef size_t i
        cdef size_t n_prompt = prompt.shape[0]
        cdef pair[int32_t, float] bias
        cdef Command command
        cdef Sequence* s
        try:
            r.id = request_id
            r.priority = priority
            r.arrival_us = monotonic_us()
            r.deadline_us = deadline_us
            r.extras_hash = extras_hash
            r.params.temperature = params.temperature
            r.params.top_p = params.top_p
            r.params.min_p = params.min_p
            r.params.top_k = max(params.top_k, 0)
            r.params.repetition_penalty = params.repetition_penalty
            r.params.frequency_penalty = params.frequency_penalty
            r.params.presence_penalty = params.presence_penalty
            r.params.seed = seed
            r.params.n = n_choices
            r.params.max_tokens = max_tokens
            r.params.min_tokens = params.min_tokens
            r.params.n_logprobs = -1 if params.logprobs is None else params.logprobs
            r.params.n_prompt_logprobs = -1 if params.prompt_logprobs is None else params.prompt_logprobs
            r.params.ignore_eos = params.ignore_eos
            r.params.eos_token_ids = eos_token_ids
            r.params.stop_token_ids = params.stop_token_ids
            for token, value in (params.logit_bias or {}).items():
                bias.first = token
                bias.second = value
                r.params.logit_bias.push_back(bias)
            r.params.allowed_token_ids = params.allowed_token_ids or ()
            for word in bad_words:
                r.params.bad_words.push_back(word)
            r.n_unfinished = n_choices
            r.sequences.resize(n_choices)
            for i in range(r.sequences.size()):
                s = &r.sequences[i]
                s.request = r
                s.choice = <int32_t> i
                s.n_prompt = <int32_t> n_prompt
                if n_prompt:
                    s.tokens.assign(&prompt[0], &prompt[0] + n_prompt)
        except BaseException:
            del r
            raise
        command.kind = command_add
        command.request = r
        self.post(command)

    cdef void post(self, const Command& command):
        cdef vector[Command] now
        self.posted.push_back(command)
        if not self.holding:
            now.swap(self.posted)
            with nogil:
                self.mailbox.send(&now)

    def hold(self):
        """Keep what add() and cancel() say from the engine until release()."""
        self.holding = True

    def release(self):
        """Hand the engine all that was held, at once."""
        cdef vector[Command] now
        self.holding = False
        now.swap(self.posted)
        if now.size():
            with nogil:
                self.mailbox.send(&now)

    def cancel(self, uint64_t request_id, int32_t choice=-1):
        """End a request, or one of its choices, within a step. Unknown or finished ones are ignored."""
        cdef Command command
        command.kind = command_cancel
        command.id = request_id
        command.choice = choice
        self.post(command)

    def drain(self) -> list:
        """Return every event since the last call, in order.

        Each is a tuple (request id, kind, choice, token, finish reason, microseconds, logprob), where kind is one of
        EVENT_*, and logprob is None or (index, log-probability, rank, [(token, log-probability), ...]).
        """
        cdef list out = []
        cdef size_t i
        cdef Event* e
        self.mailbox.drain(&self.received)
        for i in range(self.received.events.size()):
            e = &self.received.events[i]
            out.append((e.request_id, <int> e.kind, e.choice, e.token, <int> e.finish, e.t_us,
                        self.logprob_of(e) if e.has_logprob else None))
        return out

    cdef tuple logprob_of(self, Event* e):
        cdef list top = []
        cdef uint32_t i
        for i in range(e.top_start, e.top_start + e.n_top):
            top.append((self.received.tops[i].token, self.received.tops[i].logprob))
        return (e.index, e.logprob, e.rank, top)

    def stats(self) -> dict:
        """Return the counters of the engine thread; see EngineCounters in engine_thread.h."""
        cdef EngineCounters* c = &self.counters
        cdef int64_t now = monotonic_us()
        return {
            "alive": bool(c.alive.get()),
            "idle": bool(c.idle.get()),
            "heartbeat_age_s": (now - c.heartbeat_us.get()) * 1e-6,
            "steps": c.steps.get(),
            "failed_steps": c.failed_steps.get(),
            "failed_in_row": c.failed_in_row.get(),
            "last_error": c.last_error.get().decode(errors="replace"),
            "n_running": c.n_running.get(),
            "n_waiting": c.n_waiting.get(),
            "n_free_blocks": c.n_free_blocks.get(),
            "preemptions": c.n_preemptions.get(),
            "prefix_queries": c.prefix_queries.get(),
            "prefix_hits": c.prefix_hits.get(),
            "host_hits": c.host_hits.get(),
            "swapped_out": c.swapped_out.get(),
            "swapped_in": c.swapped_in.get(),
            "prompt_tokens": c.prompt_tokens.get(),
            "generation_tokens": c.generation_tokens.get(),
            "thread_cpu_s": self.thread.cpu_us() * 1e-6,
        }

    def histograms(self) -> dict:
        """Return {name: ([(smallest value, count), ...], sum)} for step_us, host_us and step_tokens.

        Buckets are at most 1/32 of their value wide; empty ones are left out. They count since the engine's start.
        """
        cdef EngineCounters* c = &self.counters
        return {
            "step_us": buckets_of(&c.step_us),
            "host_us": buckets_of(&c.host_us),
            "step_tokens": buckets_of(&c.step_tokens),
        }

    # ---- the engine thread -------------------------------------------------------------------------

    cdef void obey(self, Command* command, int64_t now) noexcept nogil:
        cdef int refused
        if command.kind == command_add:
            refused = self.scheduler.add(command.request)
            if refused:
                self.refuse(command.request, now)
        elif command.kind == command_cancel:
            self.scheduler.cancel(command.id, command.choice, FinishReason.abort, &self.outbox)

    cdef void refuse(self, Request* r, int64_t now) noexcept nogil:
        # The front door checks what the scheduler checks, so this is a request that raced with another.
        cdef Event e
        cdef int32_t i
        for i in range(r.params.n):
            e.request_id = r.id
            e.t_us = now
            e.choice = i
            e.kind = EventKind.finished
            e.finish = FinishReason.error
            self.outbox.events.push_back(e)
        del r

    cdef int launch(self, Flight* flight) noexcept nogil:
        """Send a scheduled step on its way: the forward pass, then the sampler. Nonzero: it could not be."""
        cdef Backend* b = self.plan.backend
        cdef StepInput* device_step = &self.plan.device_step
        cdef StepInput* step = flight.step
        cdef int32_t i
        for i in range(step.n_admitted):
            if self.draws_on_device:
                if b.admit(b, device_step, <Sequence*> step.admitted[i]):
                    return 1
            elif self.sampler.reset(<Sequence*> step.admitted[i]):
                return 1
        if b.stage(b, device_step, step, &self.plan.limits):
            return 1
        if b.submit(b, self.plan.calls.data(), <int32_t> self.plan.calls.size(), &self.plan.kv[0], device_step,
                    &flight.ticket):
            return 1
        if not step.n_sample_rows:
            return 0
        if self.draws_on_device:
            return b.sample(b, device_step, step, flight.results, flight.tops, &flight.ticket)
        if b.wait(b, flight.ticket):
            return 1
        return self.sampler.sample(<ThreadPool*> b.device, self.plan.logits, self.plan.logits_stride, step,
                                   flight.results, flight.tops, self.max_top)

    cdef void finish(self, Flight* flight, int failed) noexcept nogil:
        """Take the results of the oldest step in flight; `failed`: it did not even start."""
        cdef EngineCounters* c = &self.counters
        cdef int64_t left = monotonic_us()
        if not failed:
            failed = self.plan.backend.wait(self.plan.backend, flight.ticket)
        self.away_us += monotonic_us() - left
        if failed:
            c.last_error.set(self.plan.backend.error)
            c.failed_steps.add(1)
            c.failed_in_row.add(1)
            self.scheduler.fail(flight.step, monotonic_us(), &self.outbox)
        else:
            c.failed_in_row.set(0)
            self.scheduler.update(flight.step, flight.results, flight.tops, self.max_top, monotonic_us(), &self.outbox)

    cdef void count(self, StepInput* step) noexcept nogil:
        cdef EngineCounters* c = &self.counters
        c.n_running.set(self.scheduler.n_running)
        c.n_waiting.set(self.scheduler.n_waiting)
        c.n_free_blocks.set(self.blocks.n_free())
        c.n_preemptions.set(self.scheduler.n_preemptions)
        c.prefix_queries.set(self.scheduler.n_prefix_queries)
        c.prefix_hits.set(self.scheduler.n_prefix_hits)
        c.host_hits.set(self.scheduler.n_host_hits)
        c.swapped_out.set(self.blocks.n_swapped_out)
        c.swapped_in.set(self.blocks.n_swapped_in)
        c.prompt_tokens.set(self.scheduler.n_prompt_tokens)
        c.generation_tokens.set(self.scheduler.n_generated)
        if step is not NULL:
            c.steps.add(1)
            c.step_tokens.observe(step.n_tokens)

    cdef void loop(self) noexcept nogil:
        cdef int head = 0        # oldest step in flight
        cdef int in_flight = 0
        cdef int failed
        cdef size_t i
        cdef int64_t now, started, left
        cdef cbool scheduled
        cdef Flight* flight
        while True:
            if not in_flight and not self.scheduler.has_work():
                self.count(NULL)
                self.counters.idle.set(1)
                self.mailbox.receive(&self.commands, True)
                self.counters.idle.set(0)
            else:
                self.mailbox.receive(&self.commands, False)
            now = monotonic_us()
            started = now
            self.counters.heartbeat_us.set(now)
            for i in range(self.commands.size()):
                if self.commands[i].kind == command_stop:
                    while in_flight:  # nothing of ours may be written any more once the thread has ended
                        self.plan.backend.wait(self.plan.backend, self.flights[head].ticket)
                        head = (head + 1) % self.depth
                        in_flight -= 1
                    self.counters.alive.set(0)
                    self.mailbox.notify()
                    return
                self.obey(&self.commands[i], now)

            self.away_us = 0
            flight = &self.flights[(head + in_flight) % self.depth]
            scheduled = self.scheduler.schedule(flight.step, now, &self.outbox)
            if scheduled:
                left = monotonic_us()
                failed = self.launch(flight)
                self.away_us += monotonic_us() - left
                in_flight += 1
                while failed and in_flight:  # earlier steps first: failed requests end with all they had
                    self.finish(&self.flights[head], in_flight == 1)
                    head = (head + 1) % self.depth
                    in_flight -= 1
            if in_flight == self.depth or (in_flight and not scheduled):
                self.finish(&self.flights[head], 0)
                head = (head + 1) % self.depth
                in_flight -= 1
            self.count(flight.step if scheduled else NULL)
            self.mailbox.publish(&self.outbox)
            if scheduled:
                now = monotonic_us()
                self.counters.step_us.observe(now - started)
                self.counters.host_us.observe(now - started - self.away_us)


cdef tuple buckets_of(LogHistogram* h):
    cdef int i
    cdef int64_t n
    out = []
    for i in range(HISTOGRAM_BUCKETS):
        n = h.counts[i].get()
        if n:
            out.append((LogHistogram.lower(i), n))
    return out, h.sum.get()


cdef void engine_main(EngineCore core) noexcept nogil:
    core.loop()


EVENT_STARTED = <int> EventKind.started
EVENT_TOKEN = <int> EventKind.token
EVENT_PROMPT_LOGPROB = <int> EventKind.prompt_logprob
EVENT_FINISHED = <int> EventKind.finished
FINISH_REASONS = (None, "stop", "length", "abort", "error", "deadline")

# What a request may bring to a sampler on a device: entries, or tokens.
SAMPLER_CAPACITY = {
    "logit_bias": kMaxLogitBias,
    "bad_words": kMaxBadWordTokens,
    "stop_token_ids": kMaxEndTokens,
}
