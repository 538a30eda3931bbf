"""KV blocks: see blocks.pyx."""
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from rvllm._native.core cimport Sequence


cdef extern from "prefix_cache.h" namespace "rvllm" nogil:
    cdef cppclass PrefixCache:
        PrefixCache(int32_t n_blocks, int32_t block_size) except +
        int32_t size()
        int32_t lookup(uint64_t extras, const int32_t* tokens, int32_t n_blocks, int32_t* found)
        cbool enter(int32_t block, int32_t parent, uint64_t extras, const int32_t* tokens)
        void remove(int32_t block)
        cbool holds(int32_t block)
        uint64_t hash_all(uint64_t extras, const int32_t* tokens, int32_t n_blocks)


cdef struct Block:
    int32_t n_refs  # tables that hold it
    int32_t cached  # 1: its content is in the prefix cache
    int32_t prev    # neighbours in the list of unreferenced cached blocks
    int32_t next


cdef class BlockManager:
    cdef readonly int32_t n_blocks
    cdef readonly int32_t block_size
    cdef readonly bint prefix_caching
    cdef Block* blocks       # [n_blocks + 1] the last one is the list's head: next = least recently used
    cdef int32_t* stack      # [n_blocks] unreferenced blocks without content worth keeping
    cdef int32_t n_stack
    cdef int32_t n_lru
    cdef PrefixCache* cache

    cdef int32_t n_free(self) noexcept nogil
    cdef int32_t n_for(self, int64_t n_tokens) noexcept nogil

    cdef int32_t lookup(self, const Sequence* s, int32_t max_tokens, int32_t* found) noexcept nogil
    cdef int32_t n_needed(self, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil
    cdef void admit(self, Sequence* s, const int32_t* found, int32_t n_found, int32_t n_total) noexcept nogil
    cdef bint needs_block(self, const Sequence* s, int32_t position) noexcept nogil
    cdef int32_t extend(self, Sequence* s, int32_t position) noexcept nogil
    cdef void commit(self, Sequence* s, int32_t n_tokens) noexcept nogil
    cdef void fork(self, Sequence* parent, Sequence* child) noexcept nogil
    cdef void truncate(self, Sequence* s, int32_t n_tokens) noexcept nogil
    cdef void release(self, Sequence* s) noexcept nogil

    cdef int32_t allocate(self) noexcept nogil
    cdef void share(self, int32_t block) noexcept nogil
    cdef void drop(self, int32_t block) noexcept nogil
    cdef void unlink(self, int32_t block) noexcept nogil
    cdef const char* check(self, const int32_t* n_holders) noexcept nogil
