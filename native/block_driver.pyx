# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Drive the block manager from Python: for tests and benchmarks.

The engine does not use this module; it calls the same functions from its thread, without the GIL.
"""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.vector cimport vector

from rvllm._native.blocks cimport BlockManager
from rvllm._native.clock cimport monotonic_ns
from rvllm._native.core cimport BlockCopy, Request, Sequence, StepInput


cdef enum:
    MAX_COPIES = 64  # on write, in a step of a BlockDriver


cdef class BlockDriver:
    """Sequences by number over one BlockManager, all in one step that goes on and on."""

    cdef readonly BlockManager blocks
    cdef dict requests  # number -> address of its Request
    cdef int64_t n_made
    cdef StepInput step
    cdef vector[BlockCopy] room
    cdef int32_t max_moves

    def __init__(self, BlockManager blocks not None, *, int32_t max_moves=64):
        self.blocks = blocks
        self.requests = {}
        self.max_moves = max_moves
        self.room.resize(MAX_COPIES + 2 * max_moves)
        self.step.copies = self.room.data()
        blocks.begin(&self.step, max_moves)

    def __dealloc__(self):
        for number in self.requests or ():
            self.destroy(number)

    def copies(self) -> list[tuple[int, int]]:
        """Begin another step; return the copies (source, target) of the last one."""
        made = [(self.step.copies[i].src, self.step.copies[i].dst) for i in range(self.step.n_copies)]
        self.step.n_copies = 0
        self.blocks.begin(&self.step, self.max_moves)
        return made

    cdef Sequence* sequence(self, number) except NULL:
        cdef Request* r = <Request*> <size_t> self.requests[number]
        return &r.sequences[0]

    cdef void destroy(self, number):
        cdef Request* r = <Request*> <size_t> self.requests[number]
        del r

    def new(self, tokens, uint64_t extras=0) -> int:
        """Make a sequence without blocks; return its number."""
        cdef Request* r = new Request()
        self.n_made += 1
        r.extras_hash = extras
        r.sequences.resize(1)
        r.sequences[0].request = r
        r.sequences[0].tokens = tokens
        self.requests[self.n_made] = <size_t> r
        return self.n_made

    def lookup(self, number) -> list[int]:
        """Return the cached blocks that begin the sequence and are in reach; one token at least is not theirs."""
        cdef Sequence* s = self.sequence(number)
        cdef vector[int32_t] found
        found.resize(s.tokens.size() / self.blocks.block_size + 1)
        cdef int32_t n = self.blocks.lookup(s, <int32_t> s.tokens.size() - 1, found.data())
        found.resize(self.blocks.n_in_reach(found.data(), n))
        return found

    def can_admit(self, number) -> bool:
        cdef Sequence* s = self.sequence(number)
        cdef vector[int32_t] found = self.lookup(number)
        cdef int32_t n = self.blocks.n_needed(found.data(), <int32_t> found.size(), self.blocks.n_for(s.tokens.size()))
        return n <= self.blocks.n_free()

    def admit(self, number, bint take=True) -> int:
        """Give the sequence all its blocks, or promise those that were not cached; return how many were."""
        cdef Sequence* s = self.sequence(number)
        cdef vector[int32_t] found = self.lookup(number)
        self.blocks.admit(s, found.data(), <int32_t> found.size(), self.blocks.n_for(s.tokens.size()))
        if take:
            self.blocks.take(s, <int32_t> s.tokens.size())
        return found.size()

    def take(self, number, int32_t n_tokens):
        """Take the promised blocks of the first n_tokens tokens."""
        self.blocks.take(self.sequence(number), n_tokens)

    def adopt(self, number) -> bool:
        """Take cached blocks that continue the sequence; return whether there is more to move."""
        cdef Sequence* s = self.sequence(number)
        return self.blocks.adopt(s, <int32_t> s.tokens.size() - 1)

    def n_hashed(self, number) -> int:
        return self.sequence(number).n_hashed

    def needs_block(self, number, int32_t position) -> bool:
        return self.blocks.needs_block(self.sequence(number), position)

    def extend(self, number, int32_t position) -> int:
        """Take the block for `position`; return the one that is copied to it, -1 for none."""
        cdef size_t n_before = self.sequence(number).blocks.size()
        self.blocks.extend(self.sequence(number), position)
        return self.step.copies[self.step.n_copies - 1].src if self.sequence(number).blocks.size() == n_before else -1

    def append(self, number, int32_t token):
        self.sequence(number).tokens.push_back(token)

    def commit(self, number, int32_t n_tokens):
        self.blocks.commit(self.sequence(number), n_tokens)

    def fork(self, number) -> int:
        """Make a second sequence on the same blocks; return its number."""
        cdef Sequence* s = self.sequence(number)
        child = self.new(s.tokens, s.request.extras_hash)
        self.blocks.fork(s, self.sequence(child))
        return child

    def truncate(self, number, int32_t n_tokens):
        """Cut the sequence's tokens and its blocks."""
        self.sequence(number).tokens.resize(n_tokens)
        self.blocks.truncate(self.sequence(number), n_tokens)

    def release(self, number):
        """Give back all blocks and forget the sequence."""
        self.blocks.release(self.sequence(number))
        self.destroy(number)
        del self.requests[number]

    def table(self, number) -> list[int]:
        return self.sequence(number).blocks

    def refs(self, int32_t block) -> int:
        return self.blocks.blocks[block].n_refs

    def is_cached(self, int32_t block) -> bool:
        return bool(self.blocks.blocks[block].cached)

    def n_free(self) -> int:
        return self.blocks.n_free()

    def check(self):
        """Raise AssertionError when an invariant does not hold."""
        cdef vector[int32_t] n_holders
        cdef int32_t block
        n_holders.resize(self.blocks.n_blocks)
        for number in self.requests:
            for block in self.table(number):
                n_holders[block] += 1
        cdef const char* wrong = self.blocks.check(n_holders.data())
        if wrong is not NULL:
            raise AssertionError(wrong.decode())

    def time_allocate(self, int32_t n, int n_rounds) -> float:
        """Take and give back n blocks n_rounds times; return nanoseconds per block."""
        cdef vector[int32_t] held
        cdef int32_t i
        cdef int _k
        cdef int64_t start
        held.resize(n)
        with nogil:
            start = monotonic_ns()
            for _k in range(n_rounds):
                for i in range(n):
                    held[i] = self.blocks.allocate()
                for i in range(n - 1, -1, -1):
                    self.blocks.drop(held[i])
            start = monotonic_ns() - start
        return start / (<double> n * n_rounds)

    def time_lookup(self, number) -> tuple[int, float, float]:
        """Look up a sequence; return (cached tokens, microseconds in all, microseconds of hashing alone)."""
        cdef Sequence* s = self.sequence(number)
        cdef vector[int32_t] found
        cdef int32_t n_found
        cdef int64_t start, middle, end
        cdef uint64_t sink
        found.resize(s.tokens.size() / self.blocks.block_size + 1)
        with nogil:
            start = monotonic_ns()
            n_found = self.blocks.lookup(s, <int32_t> s.tokens.size() - 1, found.data())
            middle = monotonic_ns()
            sink = self.blocks.cache.hash_all(s.request.extras_hash, s.tokens.data(), n_found)
            end = monotonic_ns()
        if sink == 0:
            raise AssertionError("a hash of 0")
        return n_found * self.blocks.block_size, (middle - start) / 1e3, (end - middle) / 1e3
