"""KV blocks: see blocks.pyx."""
from libc.stdint cimport int32_t, int64_t, uint64_t

from rvllm._native.core cimport Sequence, StepInput


cdef extern from "prefix_cache.h" namespace "rvllm" nogil:
    cdef cppclass PrefixCache:
        PrefixCache(int32_t n_blocks, int32_t block_size) except +
        int32_t size()
        int32_t lookup(uint64_t extras, const int32_t* tokens, int32_t n_blocks, int32_t* found)
        int32_t follow(int32_t parent, uint64_t extras, const int32_t* tokens)
        void hash(int32_t block, int32_t parent, uint64_t extras, const int32_t* tokens)
        int32_t enter(int32_t block, const int32_t* tokens)
        void move(int32_t source, int32_t target)
        void remove(int32_t block)
        bint holds(int32_t block)
        uint64_t hash_all(uint64_t extras, const int32_t* tokens, int32_t n_blocks)


cdef extern from "block_pool.h" namespace "rvllm" nogil:
    cdef struct Block:
        int32_t n_refs
        int32_t cached
        int32_t prev
        int32_t next

    cdef cppclass BlockPool:
        BlockPool()
        void init(Block* blocks, int32_t first, int32_t n, int32_t head) except +
        int32_t n_empty()
        int32_t n_free()
        int32_t take_empty()
        int32_t take_oldest()
        void take(int32_t block)
        void put(int32_t block)
        const char* check()


cdef class BlockManager:
    # Blocks of the second tier are numbered n_blocks + h.
    cdef readonly int32_t n_blocks
    cdef readonly int32_t n_host_blocks
    cdef readonly int32_t block_size
    cdef readonly bint prefix_caching
    cdef readonly int64_t n_swapped_out  # blocks copied to the second tier
    cdef readonly int64_t n_swapped_in   # and back
    cdef int32_t n_promised  # blocks that admitted prompts will take
    cdef Block* blocks       # [n_blocks + n_host_blocks + 2] the last ones are the heads of the pools' lists
    cdef uint64_t* came      # [n_blocks] the step in which its content last came back from the second tier
    cdef BlockPool device
    cdef BlockPool host
    cdef PrefixCache* cache

    # The step that is being scheduled: where copies are written.
    cdef StepInput* step
    cdef int32_t max_out     # blocks that it may copy to the second tier
    cdef int32_t max_in      # and back
    cdef int32_t n_out
    cdef int32_t n_in

    cdef int32_t n_free(self) noexcept nogil
    cdef int32_t n_for(self, int64_t n_tokens) noexcept nogil
    cdef void begin(self, StepInput* step, int32_t max_moves) noexcept nogil

    cdef int32_t lookup(self, const Sequence* s, int32_t max_tokens, int32_t* found) noexcept nogil
    cdef int32_t n_in_reach(self, const int32_t* found, int32_t n_found) noexcept nogil
    cdef int32_t n_needed(self, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil
    cdef int32_t admit(self, Sequence* s, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil
    cdef void take(self, Sequence* s, int32_t n_tokens) noexcept nogil
    cdef void redeem(self, Sequence* s) noexcept nogil
    cdef bint adopt(self, Sequence* s, int32_t max_tokens) noexcept nogil
    cdef bint needs_block(self, const Sequence* s, int32_t position) noexcept nogil
    cdef void extend(self, Sequence* s, int32_t position) noexcept nogil
    cdef void commit(self, Sequence* s, int32_t n_tokens) noexcept nogil
    cdef void fork(self, Sequence* parent, Sequence* child) noexcept nogil
    cdef void truncate(self, Sequence* s, int32_t n_tokens) noexcept nogil
    cdef void release(self, Sequence* s) noexcept nogil

    cdef int32_t allocate(self) noexcept nogil
    cdef void share(self, int32_t block) noexcept nogil
    cdef void drop(self, int32_t block) noexcept nogil
    cdef void forget(self, int32_t block) noexcept nogil
    cdef void refresh(self, const int32_t* blocks, int32_t n) noexcept nogil
    cdef void swap_out(self, int32_t block) noexcept nogil
    cdef void swap_in(self, int32_t host_block, int32_t block) noexcept nogil
    cdef bint arrives(self, const Sequence* s) noexcept nogil
    cdef const char* check(self, const int32_t* n_holders) noexcept nogil
