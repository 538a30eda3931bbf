# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scheduler: queues in, one batch per step out.

schedule() -> (the engine runs the step) -> update() with what the sampler drew. With `depth` 2, schedule() of step
i + 1 comes before update() of step i: a sequence then runs with a token the host does not know, and what it computed
behind a stop is dropped.

A step spends its token budget on decodes first, then on prompts that are under way, then on waiting requests, each in
order (RunsBefore). A prompt is promised all its blocks when it is admitted, so only a decode can find none free; then
the last running sequence is preempted: its blocks go back and it starts again from its tokens, most of which the prefix
cache still holds. The first in order is never preempted, and add() refuses what does not fit alone, so every request
ends.

Blocks of the second tier come back as prompts are computed. In a step in which sequences decode, a few come back while
it runs, and the prompt waits until all are there; in another, what one sequence can hold comes before its ops. A step
sends out what the blocks that it takes held, but no more than it may; what is evicted beyond that is lost.

Cost: schedule() and update() are linear in running sequences. Nothing is allocated while sequences decode.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libcpp.vector cimport vector

from rvllm._native.blocks cimport BlockManager
from rvllm._native.core cimport (
    BlockCopy, Event, EventKind, FinishReason, Outbox, Request, RowKind, SampleResult, SampleRow, SeqState, Sequence,
    StepInput, StepLimits, TopToken, kMaxLateReturns,
)
from rvllm._native.sequences cimport SequenceTable, ends, is_decode, reusable_len, total_len, will_fork


cdef enum:
    SHORT_PROMPT = 16  # of max_mixed_tokens: the part that a short prompt is


cdef extern from "outbox.h" namespace "rvllm" nogil:
    Event* add_event(Outbox* out, const Sequence* s, EventKind kind, int64_t now_us)
    void set_logprob(Outbox* out, Event* e, const SampleResult* result, const TopToken* tops)

cdef extern from "step_writer.h" namespace "rvllm" nogil:
    void clear_step(StepInput* step, uint64_t step_id)
    void add_query(StepInput* step, const Sequence& s, int32_t n, int32_t block_size)
    int32_t add_logit_row(StepInput* step, int32_t token)
    void add_draw(StepInput* step, Sequence* s, int32_t logit_row)
    void add_score(StepInput* step, Sequence* s, int32_t position, int32_t token)


@cython.final
cdef class Scheduler(SequenceTable):
    """Choose what runs in each step.

    `max_num_seqs` sequences run at once (a request counts each of its choices); a step has at most
    `max_num_batched_tokens` tokens and `max_rows` rows of logits (default: max_num_batched_tokens), a sequence at most
    `max_prefill_chunk` of its prompt's tokens (0: no limit). A step in which sequences decode has at most
    `max_mixed_tokens` (0: no such limit), so that long prompts do not make the others wait; beyond it, prompts that
    have a sixteenth of it or less to compute. Of these, fewer than there are decodes start one by one behind a step
    that made decodes wait, until they have had as much time (step_pace.h), unless a prompt is under way. `policy` is
    "fcfs" or "priority" (lower first). Beyond what could start at once, `max_queued` requests may wait. Raises
    ValueError naming the argument.
    """

    def __cinit__(self, BlockManager blocks not None, *, int32_t max_num_seqs, int32_t max_num_batched_tokens,
                  int32_t max_model_len, int32_t max_prefill_chunk=0, int32_t max_mixed_tokens=0, int32_t max_rows=0,
                  str policy="fcfs", int32_t depth=1, int32_t max_queued=1024):
        if max_num_batched_tokens < max_num_seqs:
            raise ValueError(f"max_num_batched_tokens is {max_num_batched_tokens}: "
                             f"at least max_num_seqs, {max_num_seqs}")
        if max_rows == 0:
            max_rows = max_num_batched_tokens
        if max_rows < max_num_seqs:
            raise ValueError(f"max_rows is {max_rows}: at least max_num_seqs, {max_num_seqs}")
        if max_prefill_chunk < 0:
            raise ValueError(f"max_prefill_chunk is {max_prefill_chunk}: at least 0")
        if max_mixed_tokens and max_mixed_tokens < max_num_seqs:
            raise ValueError(f"max_mixed_tokens is {max_mixed_tokens}: at least max_num_seqs, {max_num_seqs}")
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_prefill_chunk = max_prefill_chunk if max_prefill_chunk else max_num_batched_tokens
        self.max_mixed_tokens = max_num_batched_tokens
        if max_mixed_tokens:
            self.max_mixed_tokens = min(max_mixed_tokens, max_num_batched_tokens)
        self.short_prompt = self.max_mixed_tokens / SHORT_PROMPT
        self.max_rows = max_rows
        if blocks.n_host_blocks:
            self.max_moves = max(max_num_batched_tokens, blocks.n_for(max_model_len))
        self.members = <Sequence**> calloc(depth * max_num_seqs, sizeof(void*))
        self.found = <int32_t*> calloc(blocks.n_for(max_model_len), sizeof(int32_t))
        if self.members is NULL or self.found is NULL:
            raise MemoryError("no memory for the scheduler's steps")

    def __dealloc__(self):
        free(self.members)
        free(self.found)

    cdef StepLimits limits(self) noexcept nogil:
        """Capacities of the StepInputs that schedule() fills."""
        cdef StepLimits m
        m.max_tokens = self.max_num_batched_tokens
        m.max_seqs = self.max_num_seqs
        m.max_rows = self.max_rows
        m.max_table_entries = self.max_num_seqs * self.blocks.n_for(self.max_model_len)
        m.max_moves = self.max_moves
        return m

    # ---- schedule ----------------------------------------------------------------------------------

    cdef bint schedule(self, StepInput* step, int64_t now_us, Outbox* out) noexcept nogil:
        """Fill `step` with the next batch and count it as in flight. False: there is nothing to run now.

        `step` has the capacities of limits(). At most `depth` steps are in flight.
        """
        self.now_us = now_us
        self.expire(out)
        if self.step_id - self.completed >= <uint64_t> self.depth:
            return False
        clear_step(step, self.step_id + 1)
        self.steps[step.step_id % self.depth] = step
        self.blocks.begin(step, self.max_moves)
        self.run_decodes(step)
        self.n_decodes = step.n_tokens
        self.budget = self.max_mixed_tokens if step.n_tokens else self.max_num_batched_tokens
        if step.n_tokens:  # decodes wait for no block
            step.returns_late = 1
            self.blocks.max_in = min(self.max_moves, kMaxLateReturns)
        self.run_prefills(step, out)
        self.short_room = self.max_num_batched_tokens
        # Beside a prompt under way decodes wait anyway; and not for fewer than themselves.
        if step.n_tokens == self.n_decodes and self.n_waiting < self.n_decodes:
            self.short_room = min(self.short_room - self.n_decodes,
                                  self.pace.room(self.completed, self.step_id, now_us)) + self.n_decodes
        self.admit(step, out)
        if step.n_tokens == 0:
            return False
        self.step_id += 1
        self.n_steps += 1
        self.pace.begin(self.step_id, now_us, self.n_decodes, step.n_tokens - self.n_decodes)
        return True

    cdef void run_decodes(self, StepInput* step) noexcept nogil:
        """One token for every sequence whose prompt is computed; preempts where blocks run out."""
        cdef int32_t i = 0
        cdef Sequence* s
        while i < self.n_running:
            s = self.running[i]
            i += 1
            if is_decode(s) and total_len(s) < s.max_len and self.secure_block(s):
                self.run(s, 1, step)

    cdef bint secure_block(self, Sequence* s) noexcept nogil:
        """Make the next token of s writable. False: s cannot run in this step, and may be preempted."""
        while s.n_computed >= s.n_writable and self.blocks.needs_block(s, s.n_computed):
            if self.blocks.n_free():
                self.blocks.extend(s, s.n_computed)
                return True
            if self.releasing.size():
                return False  # blocks come back when the steps in flight are done
            if self.running[self.n_running - 1] == s:
                self.preempt(s)
                return False
            self.preempt(self.running[self.n_running - 1])
        return True

    cdef void preempt(self, Sequence* s) noexcept nogil:
        """Send a running sequence, not yet in this step, back to the queue with all its tokens."""
        self.remove_running(s)
        s.state = SeqState.preempted
        self.n_preemptions += 1
        self.enqueue(s)
        self.let_go(s)
        self.release_done()

    cdef void run_prefills(self, StepInput* step, Outbox* out) noexcept nogil:
        """The next chunk of every prompt under way, as far as the budget goes."""
        cdef int32_t i = 0, n
        cdef Sequence* s
        while i < self.n_running:
            s = self.running[i]
            i += 1
            if is_decode(s) or self.room_for(<int32_t> s.tokens.size() - s.n_computed, step) <= 0:
                continue
            if self.max_moves and self.waits_for_blocks(s, step):
                continue
            n = self.chunk_of(s, s.n_computed, step)
            if n:
                self.tell_started(s, out)
                self.run(s, n, step)

    cdef bint waits_for_blocks(self, Sequence* s, StepInput* step) noexcept nogil:
        """Bring back what the prefix of s, a prompt under way, has in the second tier. True: it is not there yet.

        The first prompt of a step without decodes never has to wait: such a step moves what one sequence can hold.
        """
        cdef int32_t n_before = self.blocks.n_in
        cdef bint more
        if s.n_computed != s.n_hashed * self.blocks.block_size:
            return False  # the step before this one computes behind the prefix
        more = self.blocks.adopt(s, reusable_len(s))
        s.n_computed = s.n_hashed * self.blocks.block_size
        if self.blocks.n_in > n_before:
            s.last_step = step.step_id
            self.count_moves(s, self.blocks.n_in - n_before)
        return more or self.holds_late(s, step)

    cdef bint holds_late(self, const Sequence* s, const StepInput* step) noexcept nogil:
        """Whether a block of s is not there before the ops of this step."""
        return step.returns_late and self.blocks.arrives(s)

    cdef void count_moves(self, const Sequence* s, int32_t n_moved) noexcept nogil:
        if not s.request.started:
            self.n_host_hits += n_moved * self.blocks.block_size

    cdef void admit(self, StepInput* step, Outbox* out) noexcept nogil:
        """Start waiting sequences, in order, while budget, sampler slots and blocks last.

        A newcomer leaves one block to each sequence that may still ask for one, lest it be preempted at once.
        """
        cdef Sequence* s
        cdef int32_t n_slots, n_found, n_now, n_total, n_needed, n
        cdef int32_t n_spare = -1
        while self.waiting.size():
            s = self.waiting.top()
            n = <int32_t> s.tokens.size()
            if self.room_for(n, step) <= 0 or (n <= self.short_prompt and step.n_tokens + n > self.short_room):
                return
            n_slots = s.request.params.n if will_fork(s) else 1
            if s.releasing or n_slots > self.n_free_slots - self.n_reserved:
                return
            if n_spare < 0:
                n_spare = self.n_growing()
            if s == self.blocked and self.n_running and self.blocks.n_free() < self.blocked_need + n_spare:
                return  # without another look-up
            n_found = n_now = self.blocks.lookup(s, reusable_len(s), self.found)
            if self.max_moves:
                n_now = self.blocks.n_in_reach(self.found, n_found)
                if n_now < n_found and self.blocks.n_in:
                    return  # the next step can move more
            n_total = self.blocks.n_for(s.tokens.size())
            n_needed = self.blocks.n_needed(self.found, n_now, n_total)
            if self.blocks.n_free() < n_needed + n_spare:
                self.blocked = s
                self.blocked_need = n_needed
                return
            n = self.chunk_of(s, n_now * self.blocks.block_size, step)
            if n == 0:
                return
            self.blocks.refresh(self.found + n_now, n_found - n_now)
            self.start(s, n_now, n_total, step)
            n_spare += self.may_grow(s)
            if n_now == n_found and not self.holds_late(s, step):
                self.tell_started(s, out)
                self.run(s, n, step)

    cdef int32_t n_growing(self) noexcept nogil:
        """Running sequences that may still ask for a block."""
        cdef int32_t i, n = 0
        for i in range(self.n_running):
            n += self.may_grow(self.running[i])
        return n

    cdef bint may_grow(self, const Sequence* s) noexcept nogil:
        return (<int32_t> s.blocks.size() + s.n_promised) * self.blocks.block_size < s.max_len - 1

    cdef void start(self, Sequence* s, int32_t n_found, int32_t n_total, StepInput* step) noexcept nogil:
        """Move a sequence from the queue to the running ones, with n_total blocks, in its table or promised."""
        self.dequeue(s)
        s.tokens.reserve(s.max_len)
        s.blocks.reserve(self.blocks.n_for(s.max_len))
        self.count_moves(s, self.blocks.admit(s, self.found, n_found, n_total))
        s.n_computed = n_found * self.blocks.block_size
        s.last_step = step.step_id
        if will_fork(s):
            self.n_reserved += s.request.params.n - 1
        self.insert_running(s)
        step.admitted[step.n_admitted] = s
        step.n_admitted += 1

    cdef void tell_started(self, Sequence* s, Outbox* out) noexcept nogil:
        """Report a request that is about to compute for the first time, and what of it was in the cache."""
        cdef Request* r = s.request
        if r.started:
            return
        r.started = True
        s.n_cached = s.n_computed
        if self.blocks.prefix_caching and r.params.n_prompt_logprobs < 0:
            self.n_prefix_queries += s.n_prompt
        self.n_prefix_hits += s.n_cached
        add_event(out, s, EventKind.started, self.now_us).token = s.n_cached

    cdef int32_t room_for(self, int32_t n_left, const StepInput* step) noexcept nogil:
        """Tokens that this step may still take of a prompt with n_left to compute.

        Many short prompts are many who wait for a first token: in one step beyond its budget, which decodes see as one
        long step, they are over sooner, for both, than in many steps that are each a little longer.
        """
        if n_left <= self.short_prompt and step.n_tokens + n_left <= self.max_num_batched_tokens:
            return n_left
        return self.budget - step.n_tokens

    cdef int32_t chunk_of(self, const Sequence* s, int32_t begin, const StepInput* step) noexcept nogil:
        """How many tokens of s, from `begin` on, this step has room for: in tokens and in rows of logits."""
        cdef int32_t n_rows = self.max_rows - step.n_sample_rows
        cdef int32_t n_draws = s.request.params.n if will_fork(s) else 1
        cdef int32_t length = <int32_t> s.tokens.size()
        cdef int32_t end = min(length, begin + min(self.room_for(length - begin, step), self.max_prefill_chunk))
        cdef int32_t first = s.n_prompt - 1  # position of the first row to score; none from n_prompt - 1 on
        if s.request.params.n_prompt_logprobs >= 0:
            first = min(first, max(begin, s.n_scored))
            if first < s.n_prompt - 1:
                end = min(end, first + n_rows)
        if end == length and s.n_prompt - 1 - first + n_draws > n_rows:
            end = length - 1  # the draws need more rows than are left: next step
        return max(0, end - begin)

    cdef void run(self, Sequence* s, int32_t n, StepInput* step) noexcept nogil:
        """Put the next n tokens of s into the step, with the rows of logits that they ask for."""
        cdef int32_t token = step.n_tokens - s.n_computed  # of the step, for position 0
        cdef Request* r = s.request
        self.blocks.take(s, s.n_computed + n)
        self.sequences_of(step)[step.n_seqs] = s
        add_query(step, s[0], n, self.blocks.block_size)
        s.n_computed += n
        s.last_step = step.step_id
        if r.params.n_prompt_logprobs >= 0:
            while s.n_scored < min(s.n_computed, s.n_prompt - 1):
                add_score(step, s, s.n_scored, token + s.n_scored)
                s.n_scored += 1
        if s.n_computed == total_len(s):
            self.draw(s, step)

    cdef void draw(self, Sequence* s, StepInput* step) noexcept nogil:
        """Sample the next token of s; at the end of its prompt, also of the choices that fork from it."""
        cdef Request* r = s.request
        cdef bint forks = will_fork(s)
        cdef int32_t row = add_logit_row(step, step.n_tokens - 1)
        cdef size_t i
        if s.choice == 0 and total_len(s) == s.n_prompt:
            self.n_prompt_tokens += s.n_prompt
        add_draw(step, s, row)
        if forks:
            self.n_reserved -= r.params.n - 1
            for i in range(1, r.sequences.size()):
                self.fork(s, &r.sequences[i], step)
                add_draw(step, &r.sequences[i], row)

    cdef void fork(self, Sequence* parent, Sequence* child, StepInput* step) noexcept nogil:
        """Start a choice where the prompt ends, on the same blocks."""
        child.tokens.reserve(child.max_len)
        child.tokens.assign(parent.tokens.begin(), parent.tokens.end())
        child.blocks.reserve(self.blocks.n_for(child.max_len))
        self.blocks.fork(parent, child)
        child.n_computed = parent.n_computed
        child.n_scored = parent.n_scored
        child.last_step = step.step_id
        self.insert_running(child)
        step.admitted[step.n_admitted] = child
        step.n_admitted += 1

    # ---- update ------------------------------------------------------------------------------------

    cdef void update(self, StepInput* step, const SampleResult* results, const TopToken* tops, int32_t max_top,
                     int64_t now_us, Outbox* out) noexcept nogil:
        """Take the results of the oldest step in flight, in the order of its sample rows.

        The alternatives of row r are tops[r * max_top ...].
        """
        cdef int32_t i
        cdef SampleRow* row
        cdef Sequence* s
        cdef Sequence** members = self.sequences_of(step)
        self.now_us = now_us
        for i in range(step.n_sample_rows):
            row = &step.sample_rows[i]
            s = <Sequence*> row.seq
            if row.kind == RowKind.sample:
                s.n_in_flight -= 1
            # Behind a stop, or cancelled: surplus. But scores of the prompt belong to every choice.
            if s.state == SeqState.finished and (row.kind == RowKind.sample or s.request.n_unfinished == 0):
                if results[i].failed:
                    s.finish = FinishReason.error  # what it computed is not to be cached
            elif results[i].failed:
                self.finish_request(s.request, FinishReason.error, out)
            elif row.kind == RowKind.sample:
                self.accept(s, &results[i], tops + i * max_top, out)
            else:
                self.tell_score(row, &results[i], tops + i * max_top, out)
        for i in range(step.n_seqs):
            s = members[i]
            if step.kv_len[i] >= (s.n_hashed + 1) * self.blocks.block_size and s.finish != FinishReason.error:
                self.blocks.commit(s, min(step.kv_len[i], <int32_t> s.tokens.size()))
        self.completed = step.step_id
        self.pace.end(step.step_id, now_us)
        self.release_done()

    cdef void accept(self, Sequence* s, const SampleResult* result, const TopToken* tops, Outbox* out) noexcept nogil:
        """Append a drawn token and see whether it is the last."""
        cdef Event* e
        if s.request.params.max_tokens < 1:
            self.finish(s, FinishReason.length)
            self.tell_finished(s, out)
            return
        s.tokens.push_back(result.token)
        self.n_generated += 1
        e = add_event(out, s, EventKind.token, self.now_us)
        e.token = result.token
        e.index = s.n_output() - 1
        if s.request.params.n_logprobs >= 0:
            set_logprob(out, e, result, tops)
        if ends(s.request, result.token):
            e.finish = FinishReason.stop
        elif <int32_t> s.tokens.size() >= s.max_len:
            e.finish = FinishReason.length
        if e.finish != FinishReason.none:
            self.finish(s, e.finish)

    cdef void tell_score(self, const SampleRow* row, const SampleResult* result, const TopToken* tops,
                         Outbox* out) noexcept nogil:
        """Report the log-probability of a prompt token."""
        cdef Event* e = add_event(out, <Sequence*> row.seq, EventKind.prompt_logprob, self.now_us)
        e.token = row.target
        e.index = <int32_t> row.token_index
        set_logprob(out, e, result, tops)

    cdef void fail(self, StepInput* step, int64_t now_us, Outbox* out) noexcept nogil:
        """End every request of the oldest step in flight: it could not be run, and its results are worth nothing."""
        cdef int32_t i
        cdef Sequence* s
        self.now_us = now_us
        for i in range(step.n_sample_rows):
            s = <Sequence*> step.sample_rows[i].seq
            s.n_in_flight -= step.sample_rows[i].kind == RowKind.sample
        for i in range(step.n_seqs):
            self.spoil(self.sequences_of(step)[i], out)
        if self.max_moves and step.n_copies:
            self.lose_copies(step, out)
        self.completed = step.step_id
        self.pace.end(step.step_id, now_us)
        self.release_done()

    cdef void spoil(self, Sequence* s, Outbox* out) noexcept nogil:
        """End the request of a sequence whose blocks are worth nothing; nothing more of it is cached."""
        self.finish_request(s.request, FinishReason.error, out)
        s.finish = FinishReason.error  # also of one that had ended, but is in a step in flight

    cdef void lose_copies(self, StepInput* step, Outbox* out) noexcept nogil:
        """The copies of the oldest step in flight were not made: what is not in its block is not to be found there.

        Sequences may hold such blocks that are in no step, or in a later one, which may also have copied from them.
        """
        cdef vector[int32_t] lost
        cdef vector[Sequence*] holders
        cdef StepInput* later
        cdef BlockCopy* copy
        cdef uint64_t id
        cdef int32_t i
        cdef size_t k
        lost.resize(self.blocks.n_blocks + self.blocks.n_host_blocks)
        for id in range(step.step_id, self.step_id + 1):
            later = self.steps[id % self.depth]
            for i in range(later.n_copies):
                copy = &later.copies[i]
                lost[copy.dst] = later == step or lost[copy.src]
        for i in range(<int32_t> lost.size()):
            if lost[i]:
                self.blocks.forget(i)
        holders.assign(self.running, self.running + self.n_running)
        holders.insert(holders.end(), self.releasing.begin(), self.releasing.end())
        for k in range(holders.size()):
            for i in range(<int32_t> holders[k].blocks.size()):
                if lost[holders[k].blocks[i]]:
                    self.spoil(holders[k], out)
                    break

    cdef Sequence** sequences_of(self, const StepInput* step) noexcept nogil:
        """The sequences of a step that is being built or in flight, in its order."""
        return self.members + step.step_id % self.depth * self.max_num_seqs
